"""Figures in words: axes with their names or ranges, panels and marks, as the figure has them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib.figure import Figure
from nbformat.v4 import new_code_cell, new_notebook

from hnlib.experiments.notebooks import run_notebook
from hnlib.plotting import figure_words


def test_named_ticks_are_told_and_numbers_are_a_range() -> None:
    figure = Figure()
    ax = figure.subplots()
    ax.set(xticks=np.arange(0, 1.2, 0.2), xlim=(0.05, 1.05), xlabel="DSC")
    ax.set_yticks([0, 1], ["Brainstem", "Larynx"])
    ax.plot([0.5], [1], label="ours")
    ax.legend()
    assert figure_words(figure) == "Chart. Upwards: Brainstem, Larynx. Across: DSC from 0.2 to 1. Marks: ours."


def test_panels_share_what_is_alike_and_a_bare_axis_says_nothing() -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2, sharey=True)
    left.set(title="small, CE", ylabel="DSC", yscale="log", ylim=(0.01, 1), xticks=[])
    right.set(title="large, CE", xticks=[])
    figure.supxlabel("step")
    assert figure_words(figure) == (
        "Chart. Panels: small, CE; large, CE. Upwards: DSC from 0.01 to 1 (logarithmic). Across: step."
    )


def test_long_lists_are_cut_and_numbers_in_the_panel_are_left_out() -> None:
    figure = Figure()
    ax = figure.subplots()
    ax.set_yticks(range(20), [f"organ {letter}" for letter in "abcdefghijklmnopqrst"])
    ax.set_xticks([])
    ax.text(0, 0, "1e-06")
    ax.text(0, 0, "missed")
    assert figure_words(figure).endswith("organ p, and 4 more. Written beside: missed.")


def test_a_picture_is_called_one() -> None:
    figure = Figure()
    ax = figure.subplots()
    ax.imshow(np.zeros((4, 4)))
    ax.set(xticks=[], yticks=[], xlabel="axial")
    assert figure_words(figure) == "Picture. Across: axial."


@pytest.mark.slow
def test_an_executed_notebook_has_the_words_where_pages_look_for_them(tmp_path: Path) -> None:
    """The page takes them from the metadata of the cell; a picture from a file brings its own."""
    draw = "from matplotlib import pyplot as plt\nplt.subplots()[1].set(xlabel='dose');"
    (tmp_path / "dot.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    show = f"from IPython.display import Image\nImage(r'{tmp_path / 'dot.png'}', alt='a dot')"
    table = "import pandas as pd\npd.DataFrame({'ml': [2.5]}, index=pd.Index(['lens'], name='organ'))"
    codes = ["from hnlib import chapters\n\nchapters.begin()", draw, show, table]
    cells = [new_code_cell(code) for code in codes]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), tmp_path / "in.ipynb")
    run_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", {})
    found = json.loads((tmp_path / "out.ipynb").read_text())["cells"]
    words = [cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "") for cell in found]
    assert words == ["", "Chart. Across: dose from 0 to 1.", "a dot", ""]
    html = "".join(found[-1]["outputs"][0]["data"]["text/html"])
    assert re.findall(r"<th>(.*?)</th>", html) == ["organ", "ml", "lens"]  # one row of heads
