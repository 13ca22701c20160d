"""A new study: a folder that works as it is, for organs with or without scans; the tutorial's commands run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from scanfiles import organ_mask, write_head

from hnlib.cli import main
from hnlib.datasets.folder import read_settings
from hnlib.errors import ConfigError, DataError
from hnlib.experiments.config import Profile, load_experiment, load_profile
from hnlib.report.demo import CASES, write_demo
from hnlib.report.new_study import NOTEBOOKS, PROFILES, new_study

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = ROOT / "book" / "tutorial.md"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    new_study(tmp_path / "glands", organs=["thyroid", "parotid_left", "parotid_right"])
    return tmp_path / "glands"


def test_organs_without_scans_get_a_folder_for_them(study: Path) -> None:
    found = read_settings(study / "scans" / "hnlib.yaml")
    assert found.organs == {"thyroid": 1, "parotid_left": 2, "parotid_right": 3}
    assert yaml.safe_load((study / "config.yaml").read_text()) == {"scans": "scans", "profile": "quick"}


@pytest.mark.parametrize("name", PROFILES)
def test_its_profiles_find_their_experiments(study: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HNLIB_EXPERIMENTS", str(study / "experiments"))
    load_profile.cache_clear()
    load_experiment.cache_clear()
    found = load_profile(name)
    load_profile.cache_clear()
    load_experiment.cache_clear()
    assert isinstance(found, Profile)
    assert found.study


def test_its_notebooks_read_its_own_tables(study: Path) -> None:
    paths = list((study / "notebooks").glob("*.ipynb"))
    assert {path.stem for path in paths} == set(NOTEBOOKS)
    for path in paths:
        assert "../results/quick/tables" in path.read_text()
        assert "results/published" not in path.read_text()


def test_a_folder_that_holds_something_is_left_alone(study: Path) -> None:
    with pytest.raises(ConfigError, match="is there and not empty"):
        new_study(study, organs=["thyroid"])


def test_scans_or_organs_are_needed_and_not_both(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="either --scans"):
        new_study(tmp_path / "a")
    with pytest.raises(ConfigError, match="either --scans"):
        new_study(tmp_path / "a", scans=tmp_path, organs=["thyroid"])
    with pytest.raises(ConfigError, match="--organs: brainstem given twice"):
        new_study(tmp_path / "a", organs=["brainstem", "mandible", "brainstem"])
    with pytest.raises(DataError, match="no case folder with a volume"):
        new_study(tmp_path / "a", scans=tmp_path)
    write_head(tmp_path / "case" / "jaw.nii.gz", organ_mask("mandible"))
    with pytest.raises(ConfigError, match=r"has no hnlib\.yaml; write there \{organs: \{jaw: jaw\}\}"):
        new_study(tmp_path / "a", scans=tmp_path)


@pytest.mark.slow
def test_demo_scans_are_a_labelled_folder(tmp_path: Path) -> None:
    folders = write_demo(tmp_path / "scans")
    assert len(folders) == sum(CASES.values())
    place = new_study(tmp_path / "study", scans=tmp_path / "scans")
    assert place == tmp_path / "scans"
    with pytest.raises(SystemExit) as stop:
        main(["check", "folder", str(place)])
    assert stop.value.code == 0


def commands() -> list[str]:
    """Return the commands of the tutorial, in order."""
    blocks = re.findall(r"```console\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def test_the_tutorial_uses_the_three_commands() -> None:
    used = [shlex.split(line)[1] for line in commands() if line.startswith("hnlib")]
    assert {"demo", "report", "new-study"} <= set(used)


@pytest.mark.full
@pytest.mark.skipif(os.environ.get("HNLIB_FULL") != "1", reason="trains two runs: HNLIB_FULL=1")
def test_the_tutorial_runs_as_it_stands(tmp_path: Path) -> None:
    """Every command, in a shell of its own; the last of them leaves executed notebooks."""
    scripts = tmp_path / "bin"
    scripts.mkdir()
    (scripts / "hnlib").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hnlib.cli "$@"\n')
    (scripts / "hnlib").chmod(0o755)
    path = os.pathsep.join([str(scripts), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}
    here = tmp_path / "work"
    here.mkdir()
    for line in commands():
        if line.startswith("cd "):
            here = here / line.removeprefix("cd ")
            continue
        done = subprocess.run(line, shell=True, cwd=here, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}: {done.stdout[-1500:]} {done.stderr[-1500:]}"
    assert len(list((here / "build").glob("*.ipynb"))) == 3
    assert (tmp_path / "work" / "demo" / "report.html").stat().st_size > 100_000
