"""The wheel carries everything that an installed copy reads: data files, experiments and profiles."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What lies in a wheel built from this checkout."""
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    (path,) = builder.build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"])
    with zipfile.ZipFile(path) as wheel:
        return set(wheel.namelist())


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


def test_the_phantoms_statistics_are_among_them(names: set[str]) -> None:
    assert {"hnlib/data/phantom_anatomy.json", "hnlib/data/phantom_shapes.npz"} <= names
