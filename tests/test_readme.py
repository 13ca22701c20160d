"""What the README and the page on use promise: the example runs as it stands, commands exist, numbers are published."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from hnlib.cli import app
from hnlib.files import read_table

ROOT = Path(__file__).resolve().parents[1]
FRONT = (ROOT / "README.md").read_text()
SCRIPTS = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))
README = FRONT + (ROOT / "book" / "using.md").read_text()


def test_the_example_runs_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints shares that sum to 1, a loss of even odds, and a DSC of 0.9: nine of ten voxels along X overlap."""
    example, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(example, {})
    printed = capsys.readouterr().out
    shares = [float(number) for number in re.findall(r"[\d.]+(?:e-\d+)?", printed.splitlines()[0])]
    assert len(shares) == 2
    assert sum(shares) == pytest.approx(1, abs=1e-6)
    assert re.search(r"parotid_left\s+dsc\s+0\.9", printed)
    assert re.search(r"parotid_left\s+hd95_mm\s+1\.0", printed)


@pytest.mark.slow
@pytest.mark.usefixtures("clean_names")
def test_a_loss_of_ones_own_is_registered_and_audited(capsys: pytest.CaptureFixture[str]) -> None:
    _, example = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(example, {})
    assert capsys.readouterr().out.strip().endswith("Warning: none")


def test_the_commands_of_the_readme_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    used = re.findall(r"^(?:\.venv/bin/)?hnlib ([\w-]+)|`(?:\.venv/bin/)?hnlib ([\w-]+)", README, re.MULTILINE)
    names = {first or second for first, second in used}
    assert len(names) > 5
    assert names <= set(commands)


def test_every_script_is_listed() -> None:
    table = README[README.index("## Scripts") :]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)[: len(SCRIPTS)] == SCRIPTS


def test_the_front_page_is_one_screen_with_links_that_lead_somewhere() -> None:
    assert FRONT.count("\n") <= 50
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", FRONT):
        assert (ROOT / target).exists(), target


def test_its_numbers_are_those_of_the_published_tables() -> None:
    """Mean DSC of the four configurations over test patients, organs and seeds, in the order of the sentence."""
    table = read_table(ROOT / "results" / "published" / "openkbp" / "metrics.csv", "")
    table = table.query("profile == 'laptop-long' and split == 'test' and metric == 'dsc'")
    names = [f"{patch}_{loss}_dice_ce" for loss in ("nnu", "ca") for patch in ("large", "small")]
    chosen = table[table["experiment"].isin(names)]
    means = chosen.groupby("experiment")["value"].mean()
    long = re.sub(r"in\s+shorter\s+runs.*?nothing\.", "", FRONT, flags=re.DOTALL)  # those are in test_prose
    assert [f"{means[name]:.3f}" for name in names] == re.findall(r"\b0\.\d{3}\b", long)
    assert chosen["case"].nunique() == 30
    assert chosen["seed"].nunique() == 3
    assert chosen["organ"].nunique() == 5
