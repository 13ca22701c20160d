"""The reference: docstrings of the library as pages, each function with the chapters that call it."""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

#: What the pages of the reference hold; the names of each are its ``__all__``, or what it defines.
MODULES = (
    "hnlib.cases",
    "hnlib.datasets",
    "hnlib.organs",
    "hnlib.volumes",
    "hnlib.preprocess",
    "hnlib.sampling",
    "hnlib.imbalance",
    "hnlib.losses",
    "hnlib.networks",
    "hnlib.systems",
    "hnlib.systems.coarse_to_fine",
    "hnlib.atlas",
    "hnlib.training",
    "hnlib.inference",
    "hnlib.confidence",
    "hnlib.metrics",
    "hnlib.surfaces",
    "hnlib.stats",
    "hnlib.plotting",
    "hnlib.errors",
)
CHAPTER_CODE = "hnlib.chapters"


def used_names(source: str) -> set[str]:
    """Return every name and attribute that Python code mentions; of `chapters.landscape.picture` not the module."""
    tree = ast.parse(source)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    modules = {id(node.value) for node in attributes}
    names |= {node.attr for node in attributes if id(node) not in modules}
    return names | {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}


def code_of(notebook: Path) -> str:
    """Return the code of a notebook."""
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    lines = "\n".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code")
    return "\n".join(line for line in lines.splitlines() if not line.startswith(("%", "!")))


@cache
def chapter_functions() -> Mapping[str, set[str]]:
    """Return, for every function behind the chapters, the names that it mentions, through those it calls too."""
    folder = Path(importlib.import_module(CHAPTER_CODE).__file__ or "").parent
    found: dict[str, set[str]] = {}
    for path in folder.glob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef):
                found[node.name] = used_names(ast.unparse(node))
    for _ in found:  # a function calls others; as deep as they go
        wider = {name: names.union(*(found[one] for one in names if one in found)) for name, names in found.items()}
        if wider == found:
            break
        found = wider
    return found


def chapters_by_name(notebooks: Path) -> dict[str, list[str]]:
    """Return, for every name that some chapter mentions, these chapters in order."""
    behind, found = chapter_functions(), {}
    for path in sorted(notebooks.glob("*.ipynb")):
        names = used_names(code_of(path))
        for name in names.union(*(behind[one] for one in names if one in behind)):
            found.setdefault(name, []).append(path.stem)
    return found


def public_names(module: str) -> Iterator[str]:
    """Yield the names of a module that the reference shows."""
    found = importlib.import_module(module)
    own = (name for name, value in vars(found).items() if getattr(value, "__module__", "") == module)
    yield from getattr(found, "__all__", None) or (name for name in own if not name.startswith("_"))


def _settle(app: Any) -> None:
    """Import what packages import late, so that it is found among their members."""
    for module in MODULES:
        found = importlib.import_module(module)
        for name in getattr(found, "__all__", ()):
            setattr(found, name, getattr(found, name))


def _link(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Add to a function's or class's text the chapters that call it."""
    if what in ("function", "class"):
        executed = Path(app.srcdir) / "executed"
        chapters = [one for one in _chapters(executed).get(name.rpartition(".")[2], []) if one]
        if chapters:
            lines += ["", "Used in " + ", ".join(f":doc:`/executed/{one}`" for one in chapters) + ".", ""]


@cache
def _chapters(folder: Path) -> dict[str, list[str]]:
    return chapters_by_name(folder)


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.connect("builder-inited", _settle)
    app.connect("autodoc-process-docstring", _link, priority=600)  # after napoleon has read the sections
    return {"parallel_read_safe": True}
