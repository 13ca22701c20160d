"""Make the book complete on disk: mathematics from a local script, and nothing that asks the network.

Jupyter Book loads MathJax from a content network and adds Thebe, which starts remote kernels, to
every page. Opened from disk without a network such a page shows raw formulas and script errors.
"""

from __future__ import annotations

import re
import shutil
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import Any

PLOTLY = "plotly.min.js"
#: Parts of plotly that suffice for a page, a third of the whole: what a figure asks for to the script in its package.
PLOTLY_PARTS = {part: f"plotly-{part}.min.js" for part in ("cartesian", "gl3d")}
NIIVUE = "niivue.umd.js"
VIEWER = "viewer.js"
MATHJAX = "tex-svg.js"  # one file with its glyphs inside: no web fonts


def _point_to_local_mathjax(app: Any, config: Any) -> None:
    config.mathjax_path = f"local/{MATHJAX}"


def _copy_mathjax(app: Any) -> None:
    """Copy the script beside the pages.

    It must not lie in an ``html_static_path`` folder: Jupyter Book links every script found there into every page.
    """
    if app.builder.format != "html":
        return
    folder = Path(app.outdir, "_static", "local")
    folder.mkdir(parents=True, exist_ok=True)
    found = distribution("sphinx-mathjax-offline").files or []
    script = next(file for file in found if file.name == MATHJAX)
    shutil.copy(str(script.locate()), folder / MATHJAX)


def _copy_plotly(app: Any) -> None:
    """Copy plotly's script out of its package, and its parts from npm; pages with an interactive figure load one."""
    if app.builder.format == "html":
        shutil.copy(str(files("plotly") / "package_data" / PLOTLY), Path(app.outdir, "_static", "local", PLOTLY))
        for part, script in PLOTLY_PARTS.items():
            path = _node(app) / f"plotly.js-{part}-dist-min" / script
            if path.exists():
                shutil.copy(str(path), Path(app.outdir, "_static", "local", script))


def _node(app: Any) -> Path:
    """Return the folder of what npm has installed, where there is node."""
    return Path(app.confdir).parent / "node" / "node_modules"


def _copy_viewer(app: Any) -> None:
    """Copy the viewer of scans and the library under it; without that library the still pictures stay."""
    library = _node(app) / "@niivue" / "niivue" / "dist" / NIIVUE
    if app.builder.format == "html" and library.exists():
        for script in (library, Path(__file__).with_name(VIEWER)):
            shutil.copy(str(script), Path(app.outdir, "_static", "local", script.name))


def _load_viewer(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    if 'class="hn-viewer"' in context.get("body", "") and Path(app.outdir, "_static", "local", NIIVUE).exists():
        app.add_js_file(f"local/{NIIVUE}")
        app.add_js_file(f"local/{VIEWER}")


def _load_plotly(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    body = context.get("body", "")
    if "plotly-graph-div" in body:
        parts = set(re.findall(r'data-plotly="(\w+)"', body))
        script = PLOTLY_PARTS.get(parts.pop(), PLOTLY) if len(parts) == 1 else PLOTLY
        there = Path(app.outdir, "_static", "local", script).exists()
        app.add_js_file(f"local/{script if there else PLOTLY}")


def _is_thebe(item: Any) -> bool:
    return "thebe" in f"{getattr(item, 'filename', item)} {getattr(item, 'attributes', '')}".lower()


def _drop_thebe(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    for key in ("script_files", "css_files"):
        context[key][:] = [item for item in context[key] if not _is_thebe(item)]


def setup(app: Any) -> dict[str, bool]:
    """Connect the steps; the last one runs late, when every other extension has added its scripts."""
    app.connect("config-inited", _point_to_local_mathjax)
    app.connect("builder-inited", _copy_mathjax)
    app.connect("builder-inited", _copy_plotly)
    app.connect("builder-inited", _copy_viewer)
    app.connect("html-page-context", _load_plotly)
    app.connect("html-page-context", _load_viewer)
    app.connect("html-page-context", _drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
