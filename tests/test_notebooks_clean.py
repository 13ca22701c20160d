"""Source notebooks hold no outputs, one cell of parameters, short cells, and exercises whose answers are right."""

from __future__ import annotations

import ast
import re
import textwrap
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_CELL_LINES = 25

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[Any]:
    """Return the code cells of a notebook."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def exercises(path: Path) -> str:
    """Return the section of exercises of a notebook, empty where there is none."""
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    found = re.search(r"^## Exercises\n(.*?)(?=^## )", prose, re.DOTALL | re.MULTILINE)
    return found[1] if found else ""


def test_outputs_are_stripped(path: Path) -> None:
    """No cell keeps outputs, counts or traces of a papermill run."""
    cells = code_cells(path)
    assert not [cell.id for cell in cells if cell.outputs or cell.execution_count is not None]
    assert not [cell.id for cell in cells if "papermill" in cell.metadata]
    assert "papermill" not in nbformat.read(path, as_version=4).metadata


def test_opens_with_a_question_and_an_answer_that_is_computed(path: Path) -> None:
    """Title, question and answer are the first cell, the answer holds a glued value; what to take away comes later."""
    first, *others = nbformat.read(path, as_version=4).cells
    found = re.fullmatch(r"# .+\n\n\*\*Question\.\*\* (.+)\n\n\*\*Answer\.\*\* (.+)", first.source)
    assert found, first.source
    assert "?" in found[1]
    assert "{glue:text}`" in found[2]
    assert any("\n## To take away\n" in cell.source for cell in others)


def test_one_cell_is_tagged_parameters(path: Path) -> None:
    """Papermill finds its place, and the cell holds literals only, so that a default is what it seems."""
    tagged = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.Assign | ast.AnnAssign)
        assert statement.value is not None
        ast.literal_eval(statement.value)


def test_cells_are_short(path: Path) -> None:
    """No code cell has more than 25 lines, and none defines a class."""
    cells = code_cells(path)
    assert not [cell.id for cell in cells if len(cell.source.splitlines()) > MAX_CELL_LINES]
    assert not [cell.id for cell in cells if any(line.startswith("class ") for line in cell.source.splitlines())]


def test_kernel_is_the_one_that_every_environment_has(path: Path) -> None:
    """The kernel is python3, so that bare papermill runs the notebook in the environment it is started from."""
    assert nbformat.read(path, as_version=4).metadata["kernelspec"]["name"] == "python3"


def test_no_cell_installs_or_names_a_place(path: Path) -> None:
    """No cell installs a package or holds an absolute path."""
    for cell in code_cells(path):
        assert not [line for line in cell.source.splitlines() if line.lstrip().startswith(("!", "%pip", "%conda"))]
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not node.value.startswith(("/", "~/")), node.value


def test_every_exercise_has_a_folded_answer(path: Path) -> None:
    """A chapter ends with exercises, each with its own answer, indented so that it belongs to its number."""
    section = exercises(path)
    parts = re.split(r"^\d\. ", section, flags=re.MULTILINE)
    assert len(parts) > 1
    assert not parts[0].strip()
    for part in parts[1:]:
        fences = re.findall(r"^   (`{3,})\{dropdown\} Answer\n   \S.*?\n   \1$", part, re.DOTALL | re.MULTILINE)
        assert len(fences) == 1, part


def test_code_in_answers_prints_what_they_say(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each block of code under the exercises runs alone, and what it prints is the comment behind the print."""
    for block in re.findall(r"^ +```python\n(.*?)^ +```", exercises(path), re.DOTALL | re.MULTILINE):
        code = textwrap.dedent(block)
        said = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
        exec(compile(code, path.name, "exec"), {})
        assert said
        assert capsys.readouterr().out.splitlines() == said


def find(module: str, name: str) -> Any:
    """Return what ``from module import name`` gives."""
    with suppress(ModuleNotFoundError):
        return import_module(f"{module}.{name}")
    return getattr(import_module(module), name)


def test_what_a_notebook_takes_from_the_library_exists(path: Path) -> None:
    """Each attribute of an imported module is there, in each module below it too: `chapters.data.picture`."""
    trees = [ast.parse(cell.source) for cell in code_cells(path)]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    known = {
        alias.asname or alias.name: find(str(node.module), alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("hnlib")
        for alias in node.names
    }
    chains = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
    for chain in sorted(chain for chain in chains if re.fullmatch(r"[\w.]+", chain) and chain.split(".")[0] in known):
        first, *others = chain.split(".")
        found = known[first]
        for name in others:
            if not isinstance(found, ModuleType):
                break
            assert hasattr(found, name), chain
            found = getattr(found, name)
