"""What CONTRIBUTING.md says of adding one thing is done in a copy of the checkout, and each thing then works there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
COPIED = ("src", "experiments", "notebooks", "book", "results/published/phantom", "tests", "pyproject.toml")
USE = """
import torch
from hnlib.datasets import open_dataset
from hnlib.experiments.config import load_experiment, load_profile
from hnlib.losses import LOSSES, build_loss
from hnlib.networks import build_network
from hnlib.organs import ORGANS

assert ORGANS["thyroid"].title == "Thyroid"
case = open_dataset("cubes", ".").load("a")
assert int(case.labels.sum()) == 64
assert "smoothed_ce" in LOSSES
logits = torch.zeros(1, 3, 4, 4, 4)
value = build_loss("smoothed_ce(share=0.2)")(logits, torch.zeros(1, 4, 4, 4, dtype=torch.long))
assert abs(float(value) - torch.log(torch.tensor(3.0))) < 1e-6
network = build_network("linear", None, 3, width=8)
assert network(torch.zeros(1, 1, 4, 4, 4)).shape == (1, 3, 4, 4, 4)
assert load_profile("tiny").experiments("smoothed") == ("small_smoothed",)
print(load_experiment("small_smoothed").title)
"""


def steps() -> list[tuple[str, str, str]]:
    """Return file, anchor (empty: a new file) and text of every block of the recipes."""
    pattern = r"`([\w/.]+\.\w+)`(?:, below\s+`([^`]+)`)?:\n\n```\w+\n(.*?)```"
    return re.findall(pattern, TEXT[TEXT.index("## Adding one thing") :], re.DOTALL)


def insert(path: Path, anchor: str, text: str) -> None:
    """Put text below the one line that holds the anchor."""
    lines = path.read_text().splitlines(keepends=True)
    (place,) = [number for number, line in enumerate(lines) if anchor.strip() in line]
    path.write_text("".join([*lines[: place + 1], text, *lines[place + 1 :]]))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout to which one of each was added."""
    place = tmp_path_factory.mktemp("checkout")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__", "executed", "_build"))
        else:
            shutil.copy(source, place / name)
    for name, anchor, text in steps():
        if anchor:
            insert(place / name, anchor, text)
        else:
            assert not (place / name).exists()
            (place / name).write_text(text)
    source, target = re.findall(r"copy `(\S+)` to `(\S+)`", TEXT)[0]
    shutil.copy(place / source, place / target)
    return place


def run(copy: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(copy / "src")}
    environment.pop("HNLIB_EXPERIMENTS", None)
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_there_is_a_recipe_for_each() -> None:
    kinds = re.findall(r"^### (.+)$", TEXT, re.MULTILINE)
    assert kinds == ["An organ", "A data set", "A loss", "A network", "An experiment", "A chapter"]
    assert len(steps()) == 10
    assert sum(bool(anchor) for _, anchor, _ in steps()) == 6


@pytest.mark.slow
def test_one_of_each_works(copy: Path) -> None:
    assert run(copy, "-c", USE).strip() == "small patch, smoothed cross-entropy"


@pytest.mark.slow
def test_the_copy_keeps_the_architecture_and_the_contents(copy: Path) -> None:
    """Layers, lengths, and a notebook for every chapter; the new chapter is in the contents."""
    run(copy, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/test_architecture.py",
        "tests/test_book.py::test_notebooks_are_numbered_in_reading_order")  # fmt: skip
    assert "executed/90_mine" in (copy / "book" / "_toc.yml").read_text()


@pytest.mark.full
@pytest.mark.skipif(os.environ.get("HNLIB_FULL") != "1", reason="trains and executes a chapter: HNLIB_FULL=1")
def test_the_added_experiment_and_chapter_run(copy: Path) -> None:
    """The experiment is trained and measured with the added loss; the chapter is executed as it stands."""
    run(copy, "-m", "hnlib.cli", "prepare", "phantom", "tiny", "--out", "study.json")
    for step in ("train", "measure"):
        said = run(copy, "-m", "hnlib.cli", step, "study.json", "small_smoothed", "0")
    assert "mandible" in said
    run(copy, "-m", "hnlib.cli", "notebook", "notebooks/90_mine.ipynb", "build/90_mine.ipynb")
    cells = json.loads((copy / "build" / "90_mine.ipynb").read_text())["cells"]
    assert any(output["output_type"] == "display_data" for cell in cells for output in cell.get("outputs", []))
