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
reference = importlib.import_module("reference")
PAGES = "".join(path.read_text() for path in (ROOT / "book" / "reference").glob("*.md"))


def test_every_module_has_its_place_on_a_page() -> None:
    assert sorted(re.findall(r"automodule:: (\S+)", PAGES)) == sorted(reference.MODULES)


def docstrings(module: str) -> list[tuple[str, str]]:
    """Return the docstrings of a module, of its public names and of the methods of its classes."""
    found = importlib.import_module(module)
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


def test_a_function_knows_its_chapters(tmp_path: Path) -> None:
    """Called by the notebook itself, and through a function of `hnlib.chapters`."""
    found = reference.chapters_by_name(ROOT / "notebooks")
    assert "01_dataset" in found["organ_volumes"]
    assert "02_imbalance" in found["sigma_of_mean"]
    assert "02_imbalance" in found["sigma_pooled"]
    assert "sigma_pooled" not in reference.used_names(reference.code_of(ROOT / "notebooks" / "02_imbalance.ipynb"))
    assert reference.used_names("chapters.landscape.picture()") == {"chapters", "picture"}
