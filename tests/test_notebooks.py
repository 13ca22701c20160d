"""Every notebook runs from top to bottom, on the published tables of the phantom and on those of real scans.

Its cells run in one process, each notebook in a namespace of its own: a kernel for each would load the same libraries
40 times. `make site` and `make book` run them in fresh kernels.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import Image
from IPython.utils.capture import capture_output
from matplotlib import pyplot as plt

from hnlib.experiments.notebooks import plain_text, run_notebook

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "results" / "published"
#: A shell puts a module of its own in this place, which no child process can load.
MAIN = sys.modules["__main__"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    monkeypatch.chdir(ROOT / "notebooks")
    found = InteractiveShell.instance()
    sys.modules["__main__"] = MAIN
    found.reset(new_session=False)
    with mpl.rc_context():
        yield found
    plt.close("all")


def run_cells(shell: InteractiveShell, path: Path, parameters: Mapping[str, Any]) -> None:
    """Run a notebook without a warning, and see to it that each cell with a caption leaves a picture."""
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert any("mystnb" in cell.metadata for cell in cells)
    for cell in cells:
        plt.close("all")
        with capture_output(), warnings.catch_warnings():
            warnings.simplefilter("error")
            done = shell.run_cell(cell.source)
            if "parameters" in cell.metadata.get("tags", []):
                shell.push(dict(parameters))
        done.raise_error()
        if "mystnb" in cell.metadata:
            assert plt.get_fignums() or isinstance(done.result, Image), cell.source
            for number in plt.get_fignums():
                plt.figure(number).canvas.draw()


@pytest.mark.slow
@pytest.mark.parametrize("tables", ["phantom", "openkbp"])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_on_published_tables(path: Path, tables: str, shell: InteractiveShell) -> None:
    """The phantom's are the defaults."""
    run_cells(shell, path, {} if tables == "phantom" else {"tables": str(PUBLISHED / tables)})


@pytest.mark.slow
def test_plain_text_has_values_and_words_for_markup() -> None:
    """Glued values, words of terms, names of chapters; what was never glued is said to be unknown."""
    data = {"application/papermill.record/text/plain": "'0.787'"}
    kept = {"scrapbook": {"name": "eval-dsc", "mime_prefix": "application/papermill.record/"}}
    code = {"cell_type": "code", "source": "x", "outputs": [{"metadata": kept, "data": data}]}
    text = "DSC {glue:text}`eval-dsc`, {glue:text}`no`; {term}`σ`, {term}`organs <organ>` ({doc}`../03_observers`)."
    text += " {cite:t}`tappeiner2022` found it {cite:p}`pu2020`."
    found = plain_text({"cells": [{"cell_type": "markdown", "source": [text]}, code]})
    assert found["cells"][0]["source"].startswith("DSC 0.787, (not known); σ, organs (chapter 03_observers). ")
    assert found["cells"][0]["source"].endswith("Tappeiner 2022 found it (Pu 2020).")


def test_a_notebook_runs_in_a_kernel_of_its_own(tmp_path: Path) -> None:
    """As papermill, `make book` and a reader run it: nothing on stderr, and its pictures and data named."""
    path = next(path for path in NOTEBOOKS if path.stem == "04_imbalance")
    run_notebook(path, tmp_path / path.name, {"tables": str(PUBLISHED / "openkbp")})
    text = (tmp_path / path.name).read_text()
    assert "OpenKBP" in text
    assert "{data}" not in text
    cells = [cell for cell in nbformat.read(tmp_path / path.name, 4).cells if cell.cell_type == "code"]
    assert not [out for cell in cells for out in cell.outputs if out.output_type == "stream" and out.name == "stderr"]
    figures = [cell for cell in cells if "mystnb" in cell.metadata]
    assert figures
    assert all(any("image/png" in out.get("data", {}) for out in cell.outputs) for cell in figures)
