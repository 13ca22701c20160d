"""What the README promises: its example runs as it stands, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from hnlib.cli import app

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def test_the_example_runs_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints shares that sum to 1, a loss of even odds, and a DSC of 0.9: nine of ten voxels along X overlap."""
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(example, {})
    printed = capsys.readouterr().out
    shares = [float(number) for number in re.findall(r"[\d.]+(?:e-\d+)?", printed.splitlines()[0])]
    assert len(shares) == 2
    assert sum(shares) == pytest.approx(1, abs=1e-6)
    assert re.search(r"parotid_left\s+dsc\s+0\.9", printed)
    assert re.search(r"parotid_left\s+hd95_mm\s+1\.0", printed)


def test_the_commands_of_the_readme_exist() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    used = re.findall(r"^(?:\.venv/bin/)?hnlib (\w+)|`(?:\.venv/bin/)?hnlib (\w+)", README, re.MULTILINE)
    names = {first or second for first, second in used}
    assert len(names) > 5
    assert names <= set(commands)
