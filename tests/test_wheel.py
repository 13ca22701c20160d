"""The wheel carries everything that an installed copy reads: data files, experiments, profiles and notebooks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
KINDS = {".py", ".typed", ".json", ".npz", ".csv", ".yaml", ".ipynb", ".md", ".safetensors"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from this checkout."""
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    (path,) = builder.build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    return Path(path)


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    """What lies in it."""
    with zipfile.ZipFile(wheel) as packed:
        return set(packed.namelist())


@pytest.mark.parametrize(
    ("folder", "inside"),
    [("src/hnlib", "hnlib"), ("experiments", "hnlib/_experiments"), ("notebooks", "hnlib/_notebooks")],
)
def test_every_file_travels(names: set[str], folder: str, inside: str) -> None:
    here = [p.relative_to(ROOT / folder) for p in (ROOT / folder).rglob("*") if p.is_file()]
    wanted = {f"{inside}/{p.as_posix()}" for p in here if p.suffix in KINDS}
    assert wanted
    assert wanted <= names


def test_the_files_of_a_new_study_are_among_them(names: set[str]) -> None:
    assert {"hnlib/data/new_study/Snakefile", "hnlib/data/new_study/profiles/quick.yaml"} <= names


def test_the_phantoms_statistics_are_among_them(names: set[str]) -> None:
    assert {"hnlib/data/phantom_anatomy.json", "hnlib/data/phantom_shapes.npz"} <= names


BOOK_TOOLS = ("IPython", "jupyter_book", "myst_nb", "nbformat", "papermill", "plotly", "pytest", "snakemake", "sphinx")
ALONE = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {tools!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from hnlib.cli import main
main(sys.argv[1:])
"""


full = pytest.mark.skipif(os.environ.get("HNLIB_FULL") != "1", reason="runs commands of the wheel: HNLIB_FULL=1")
#: A first look, a study of its scans, and outlines by the model that comes with the package.
COMMANDS = (
    ["demo", "--to", "demo"],
    ["new-study", "mine", "--scans", "demo/scans"],
    ["predict", "demo/scans/phantom_000/image.nii.gz", "--out", "organs.nii.gz", "--force"],
)


def call(folder: Path, *line: object, **environment: str) -> str:
    """Run a command away from the repository and return what it prints."""
    outside = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HNLIB_EXPERIMENTS")}
    done = subprocess.run(
        [*map(str, line)], cwd=folder, env={**outside, **environment}, capture_output=True, text=True, check=False
    )
    if re.search("ConnectionError|ConnectTimeout|Temporary failure in name resolution", done.stdout + done.stderr):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def check_what_they_wrote(folder: Path) -> None:
    assert (folder / "demo" / "report.html").stat().st_size > 100_000
    assert len(list((folder / "mine" / "notebooks").glob("*.ipynb"))) == 3
    scan, outlines = (nibabel.load(folder / name) for name in ("demo/scans/phantom_000/image.nii.gz", "organs.nii.gz"))
    assert outlines.shape == scan.shape
    assert set(np.unique(outlines.dataobj)) <= set(range(8))


@pytest.mark.full
@full
def test_commands_run_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    """Without the repository and without the tools of the book."""
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "installed")
    code = ALONE.format(tools=set(BOOK_TOOLS))
    for command in COMMANDS:
        call(tmp_path, sys.executable, "-c", code, *command, PYTHONPATH=str(tmp_path / "installed"))
    check_what_they_wrote(tmp_path)


@pytest.mark.full
@full
def test_commands_run_in_an_empty_environment(tmp_path: Path) -> None:
    """The sdist builds, the wheel of it installs with its light dependencies alone, and its command works at once."""
    call(ROOT, sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist")
    assert [path.suffix for path in sorted((tmp_path / "dist").iterdir())] == [".whl", ".gz"]
    (made,) = (tmp_path / "dist").glob("*.whl")
    call(tmp_path, sys.executable, "-m", "venv", "empty")
    python = tmp_path / "empty" / "bin" / "python"
    call(tmp_path, python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "requirements.lock", made)
    find = f"from importlib.util import find_spec; print([name for name in {BOOK_TOOLS} if find_spec(name)])"
    assert call(tmp_path, python, "-c", find).strip() == "[]"
    for command in COMMANDS:
        call(tmp_path, python.with_name("hnlib"), *command)
    check_what_they_wrote(tmp_path)
