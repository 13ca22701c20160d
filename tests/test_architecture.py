"""The layers of the library: imports go down, layer 2 stands alone, and modules and functions stay short."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "hnlib"

LAYERS = (
    ("console", "errors", "experiment_files", "files", "organs", "processes"),
    ("anatomy", "cases", "datasets", "dicom", "surfaces", "volumes"),
    ("preprocess", "sampling", "augmentation", "losses", "networks", "metrics"),
    ("cache", "imbalance", "patches", "training", "inference", "confidence"),
    (
        "atlas",
        "systems",
        "model_file",
        "claims",
        "meshes",
        "observers",
        "stats",
        "plotting",
        "predict",
        "html_page",
    ),
    ("experiments", "evaluation", "chapters", "report", "nnunet", "cli", "__main__"),
)
LAYER_OF = {unit: number for number, units in enumerate(LAYERS) for unit in units}
ALONE = 2  # the layer whose modules do not import each other
HEAVY = {"torch", "monai", "lightning"}
MODULES = sorted(SOURCE.rglob("*.py"))

MAX_FUNCTION_LINES = 60
MAX_MODULE_LINES = 450


def module_name(path: Path) -> str:
    """Return the dotted name of a module file, ``hnlib.losses`` for its package file."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit_of(name: str) -> str | None:
    """Return the module or package right under hnlib, the unit of the layers; None for hnlib itself."""
    parts = name.split(".")
    return parts[1] if parts[0] == "hnlib" and len(parts) > 1 else None


def imported(path: Path) -> Iterator[str]:
    """Yield the full dotted name of everything a module imports, at any depth and in any form."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def graph() -> dict[str, set[str]]:
    """Return, for each unit, the other units that it imports."""
    edges: dict[str, set[str]] = {}
    for path in MODULES:
        unit = unit_of(module_name(path))
        if unit is not None:
            others = {unit_of(name) for name in imported(path)} & LAYER_OF.keys()
            edges.setdefault(unit, set()).update(others - {unit})
    return edges


def reached(unit: str) -> set[str]:
    """Return a unit with all units that it imports, directly or not."""
    edges, seen, waiting = graph(), set(), [unit]
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting.extend(edges.get(current, ()))
    return seen


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield name and number of lines of every function, its docstring not counted."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            first = node.body[0]
            if ast.get_docstring(node) is not None:
                lines -= (first.end_lineno or first.lineno) - first.lineno + 1
            yield node.name, lines


def test_every_module_has_a_layer() -> None:
    """A new module takes its place in the table above, or is refused."""
    assert graph().keys() <= LAYER_OF.keys()


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down(path: Path) -> None:
    """No module imports one of a higher layer, and the modules of layer 2 do not import each other."""
    unit = unit_of(module_name(path))
    wrong = []
    for name in imported(path):
        other = unit_of(name)
        if unit is None or other not in LAYER_OF or other == unit:
            continue
        if LAYER_OF[other] > LAYER_OF[unit] or LAYER_OF[other] == LAYER_OF[unit] == ALONE:
            wrong.append(name)
    assert not wrong, f"{module_name(path)} imports {wrong}"


def test_package_file_imports_nothing_of_the_library() -> None:
    """`import hnlib` costs nothing: each module is usable without the others."""
    names = [name for name in imported(SOURCE / "__init__.py") if name.split(".")[0] in HEAVY | {"hnlib"}]
    assert not names


def test_imports_have_no_cycle() -> None:
    """The units can be put in an order in which each imports only earlier ones."""
    assert list(TopologicalSorter(graph()).static_order())


@pytest.mark.parametrize("unit", ["metrics", "stats", "plotting"])
def test_tables_and_figures_need_no_torch(unit: str) -> None:
    """What reads masks and tables does not import torch, nor anything that does."""
    units = reached(unit)
    wrong = {
        f"{module_name(path)} -> {name}"
        for path in MODULES
        if unit_of(module_name(path)) in units
        for name in imported(path)
        if name.split(".")[0] in HEAVY
    }
    assert not wrong


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_modules_and_functions_are_short(path: Path) -> None:
    """A module stays within 450 lines and a function within 60, its docstring not counted."""
    module_lines = path.read_text().count("\n")
    long_functions = [(name, lines) for name, lines in functions(path) if lines > MAX_FUNCTION_LINES]
    assert module_lines <= MAX_MODULE_LINES
    assert not long_functions


def test_no_module_without_a_subject() -> None:
    """No module is called utils, helpers or common."""
    assert not [path for path in MODULES if path.stem in {"utils", "helpers", "common", "misc"}]
