"""The reference: docstrings of the library as pages, each name with the pages of the book that use it."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from sphinx.ext.autodoc.mock import mock

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
    "hnlib.augmentation",
    "hnlib.patches",
    "hnlib.training",
    "hnlib.inference",
    "hnlib.confidence",
    "hnlib.metrics",
    "hnlib.surfaces",
    "hnlib.stats",
    "hnlib.observers",
    "hnlib.plotting",
    "hnlib.errors",
    "hnlib.predict",
    "hnlib.model_file",
    "hnlib.evaluation",
    "hnlib.datasets.label_folders",
    "hnlib.evaluation.measure",
    "hnlib.report",
    "hnlib.report.labelled",
    "hnlib.report.measure",
    "hnlib.nnunet",
    "hnlib.nnunet.draw",
    "hnlib.nnunet.trainers",
    "hnlib.experiments",
)
#: Packages that modules of the reference need, and the book does not: autodoc's stand-ins take their place.
ABSENT = ["nnunetv2"]
CHAPTER_CODE = "hnlib.chapters"
NO_PAGE = "Used by the library itself; no chapter calls it."


def imported(module: str) -> ModuleType:
    """Return a module, imported with stand-ins for what the book does without."""
    with mock(ABSENT):
        return importlib.import_module(module)


def used_names(source: str) -> set[str]:
    """Return every name and attribute that Python code mentions; of `chapters.landscape.picture` not the module."""
    tree = ast.parse(source)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    modules = {id(node.value) for node in attributes}
    names |= {node.attr for node in attributes if id(node) not in modules}
    return names | {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}


def cells_of(page: Path) -> tuple[str, str]:
    """Return code and prose of a page: the cells of a notebook, or text alone."""
    if page.suffix != ".ipynb":
        return "", page.read_text("utf-8")
    cells = json.loads(page.read_text("utf-8"))["cells"]
    code, prose = (
        "\n".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == kind)
        for kind in ("code", "markdown")
    )
    return "\n".join(line for line in code.splitlines() if not line.startswith(("%", "!"))), prose


def told_names(prose: str) -> set[str]:
    """Return the names that prose mentions: in its blocks of Python, and by themselves between backticks.

    A plain word between backticks may be anything; it counts where it says hnlib, or holds a capital or an underscore.
    """
    names: set[str] = set()
    for block in re.findall(r"^ *```(?:python|{code-block} python)\n(.*?)^ *```", prose, re.DOTALL | re.MULTILINE):
        names |= used_names(textwrap.dedent(block).replace(">>> ", "").replace("... ", ""))
    told = re.findall(r"`([A-Za-z_][\w.]*)(?:\([^`]*\))?`", prose)
    return names | {name.rpartition(".")[2] for name in told if re.search(r"^hnlib\.|[A-Z_]", name)}


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


def chapters_by_name(pages: Iterable[Path]) -> dict[str, list[str]]:
    """Return, for every name that pages mention, these pages in order; ``hnlib.chapters`` is read through."""
    behind, found = chapter_functions(), {}
    for path in sorted(pages):
        code, prose = cells_of(path)
        names = used_names(code) | told_names(prose)
        for name in names.union(*(behind[one] for one in names if one in behind)):
            found.setdefault(name, []).append(f"/executed/{path.stem}" if code else f"/{path.stem}")
    return found


@cache
def callers() -> Mapping[str, set[str]]:
    """Return, for every public name, the public functions and classes of the modules that mention it."""
    values = {name: getattr(imported(module), name) for module in MODULES for name in public_names(module)}
    found: dict[str, set[str]] = {name: set() for name in values}
    for caller, value in values.items():
        if inspect.isfunction(value) or inspect.isclass(value):
            for name in module_names(value.__module__) & values.keys() - {caller}:
                found[name].add(caller)
    return found


@cache
def module_names(module: str) -> set[str]:
    """Return every name that the code of a module mentions."""
    return used_names(inspect.getsource(imported(module)))


def use(name: str, chapters: Mapping[str, list[str]]) -> str:
    """Return a sentence: the pages that use a name, or those that call what uses it, or that there is none."""
    above = {page for caller in callers().get(name, ()) for page in chapters.get(caller, [])}
    for words, pages in (("Used in ", chapters.get(name, [])), ("Behind what is used in ", sorted(above))):
        if pages:
            return words + ", ".join(f":doc:`{page}`" for page in pages) + "."
    return NO_PAGE


def public_names(module: str) -> Iterator[str]:
    """Yield the names of a module that the reference shows."""
    found = imported(module)
    own = (name for name, value in vars(found).items() if getattr(value, "__module__", "") == module)
    yield from getattr(found, "__all__", None) or (name for name in own if not name.startswith("_"))


def _settle(app: Any) -> None:
    """Import what packages import late, so that it is found among their members."""
    for module in MODULES:
        found = imported(module)
        for name in getattr(found, "__all__", ()):
            setattr(found, name, getattr(found, name))


def one_name_each(lines: list[str]) -> list[str]:
    """Return a docstring whose attributes stand one by one, for napoleon takes the second of two names for the first's.

    Parameters
    ----------
    lines
        Of a NumPy docstring without indentation; attributes that share a text share a line, ``low, high``.
    """
    text = "\n".join(lines)
    head, mark, rest = text.partition("Attributes\n----------\n")
    section, *more = re.split(r"(?=^\S.*\n-{3,}$)", rest, maxsplit=1, flags=re.MULTILINE)

    def apart(match: re.Match[str]) -> str:
        return "".join(f"{name}\n{match['about']}" for name in match["names"].split(", "))

    shared = r"^(?P<names>\w+(?:, \w+)+)\n(?P<about>(?:[ ].*(?:\n|$)|\n(?=[ ]))+)"
    return (head + mark + re.sub(shared, apart, section, flags=re.MULTILINE) + "".join(more)).split("\n")


def _apart(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Give every attribute its own line before napoleon reads the sections."""
    lines[:] = one_name_each(lines)


def _link(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Add to the text of a function, class or constant the pages that use it."""
    if what in ("function", "class", "exception", "data"):
        lines += ["", use(name.rpartition(".")[2], _chapters(Path(app.srcdir))), ""]


@cache
def _chapters(book: Path) -> dict[str, list[str]]:
    return chapters_by_name([*book.glob("executed/*.ipynb"), *book.glob("*.md")])


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.setup_extension("sphinx.ext.napoleon")
    app.config.autodoc_mock_imports = ABSENT
    app.connect("builder-inited", _settle)
    app.connect("autodoc-process-docstring", _apart, priority=400)
    app.connect("autodoc-process-docstring", _link, priority=600)  # after napoleon has read the sections
    return {"parallel_read_safe": True}
