"""The wheel carries everything that an installed copy reads: data files, experiments, profiles and notebooks."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


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
    wanted = {
        f"{inside}/{p.as_posix()}"
        for p in here
        if p.suffix in (".py", ".json", ".npz", ".csv", ".yaml", ".ipynb", ".md")
    }
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


@pytest.mark.full
@pytest.mark.skipif(os.environ.get("HNLIB_FULL") != "1", reason="runs commands of an unpacked wheel: HNLIB_FULL=1")
def test_commands_run_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    """Without the repository and without the tools of the book: a demo, and a new study from its scans."""
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "installed")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    code = ALONE.format(tools=set(BOOK_TOOLS))
    for command in (["demo", "--to", "demo"], ["new-study", "mine", "--scans", "demo/scans"]):
        line = [sys.executable, "-c", code, *command]
        done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "demo" / "report.html").stat().st_size > 100_000
    assert len(list((tmp_path / "mine" / "notebooks").glob("*.ipynb"))) == 3
