"""The reference of the book: every public docstring is sound reStructuredText, and chapters are found by name."""

from __future__ import annotations

import importlib
import inspect
import io
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
pytest.importorskip("sphinx")
reference = importlib.import_module("reference")
NOTEBOOKS = list((ROOT / "notebooks").glob("*.ipynb"))
PAGES = "".join(path.read_text() for path in (ROOT / "book" / "reference").glob("*.md"))


def test_every_module_has_its_place_on_a_page() -> None:
    assert sorted(re.findall(r"automodule:: (\S+)", PAGES)) == sorted(reference.MODULES)


def docstrings(module: str) -> list[tuple[str, str]]:
    """Return the docstrings of a module, of its public names and of the methods of its classes."""
    found = reference.imported(module)
    texts = [(module, found.__doc__ or "")]
    for name in reference.public_names(module):
        value = getattr(found, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        texts.append((f"{module}.{name}", inspect.getdoc(value) or ""))
        if inspect.isclass(value):
            members = [(m, v) for m, v in vars(value).items() if not m.startswith("_") and inspect.isfunction(v)]
            texts += [(f"{module}.{name}.{m}", inspect.getdoc(v) or "") for m, v in members]
    return texts


@pytest.mark.parametrize("module", reference.MODULES)
def test_docstrings_are_sound(module: str) -> None:
    """There is one for each name, and docutils reads it, as napoleon turns it, without a complaint."""
    core = pytest.importorskip("docutils.core")
    napoleon = pytest.importorskip("sphinx.ext.napoleon")
    from docutils.parsers.rst import roles

    for role in ("doc", "class", "func", "mod", "obj", "meth"):
        roles.register_generic_role(role, importlib.import_module("docutils.nodes").literal)
    faults = []
    for name, text in docstrings(module):
        assert text, f"{name} has no docstring"
        turned = str(napoleon.NumpyDocstring(text, napoleon.Config(napoleon_use_rtype=False, napoleon_use_ivar=True)))
        complaints = io.StringIO()
        core.publish_doctree(turned, settings_overrides={"warning_stream": complaints, "report_level": 2})
        faults += [f"{name}: {line}" for line in complaints.getvalue().splitlines() if "Unknown directive" not in line]
    assert not faults, "\n".join(faults[:20])


def test_attributes_that_share_a_text_stand_one_by_one() -> None:
    """As the page shows them; a section below and one name alone stay as they are."""
    text = "What.\n\nAttributes\n----------\nseed\n    Of the run.\nlow, high\n    Limits,\n    95 %.\n\n"
    text += "Notes\n-----\na, b\n    c"
    napoleon = pytest.importorskip("sphinx.ext.napoleon")
    turned = str(
        napoleon.NumpyDocstring(reference.one_name_each(text.split("\n")), napoleon.Config(napoleon_use_ivar=True))
    )
    assert re.findall(r":ivar (.*?):", turned) == ["seed", "low", "high"]
    assert turned.count("95 %") == 2
    assert "a, b\n    c" in turned
    assert reference.one_name_each(["One line."]) == ["One line."]


@pytest.mark.parametrize("module", reference.MODULES)
def test_no_attribute_is_taken_for_a_type(module: str) -> None:
    napoleon = pytest.importorskip("sphinx.ext.napoleon")
    for name, text in docstrings(module):
        turned = napoleon.NumpyDocstring(
            reference.one_name_each(text.split("\n")), napoleon.Config(napoleon_use_ivar=True)
        )
        assert not re.findall(r":ivar [^:]*,[^:]*:", str(turned)), name


def test_a_function_knows_its_chapters() -> None:
    """Called by the notebook itself, and through a function of `hnlib.chapters`."""
    found = reference.chapters_by_name(NOTEBOOKS)
    assert "/executed/01_dataset" in found["organ_volumes"]
    assert "/executed/04_imbalance" in found["sigma_of_mean"]
    assert "/executed/04_imbalance" in found["sigma_pooled"]
    code, _ = reference.cells_of(ROOT / "notebooks" / "04_imbalance.ipynb")
    assert "sigma_pooled" not in reference.used_names(code)
    assert reference.used_names("chapters.landscape.picture()") == {"chapters", "picture"}


def test_prose_counts_as_use() -> None:
    """Blocks of Python, also indented under an exercise, and names between backticks; a plain word is none."""
    prose = (
        "   ```python\n   from hnlib.stats import holm\n   ```\nSee `hnlib.losses.audit`, `plan_patch(...)`, `page`."
    )
    assert reference.told_names(prose) == {"holm", "audit", "plan_patch"}
    found = reference.chapters_by_name([*NOTEBOOKS, *(ROOT / "book").glob("*.md")])
    assert "/executed/09_evaluation" in found["signed_rank"]
    assert "/using" in found["register_loss"]


@pytest.mark.parametrize("module", reference.MODULES)
def test_every_public_name_says_where_it_is_used(module: str) -> None:
    """By a link to pages that are there, or by the sentence that no chapter calls it."""
    chapters = reference.chapters_by_name([*NOTEBOOKS, *(ROOT / "book").glob("*.md")])
    for name in reference.public_names(module):
        sentence = reference.use(name, chapters)
        pages = re.findall(r":doc:`/(?:executed/)?(\w+)`", sentence)
        assert pages or sentence == reference.NO_PAGE, name
        assert all(list(ROOT.glob(f"*/{page}.*")) for page in pages), sentence
