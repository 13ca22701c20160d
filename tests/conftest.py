"""Fixtures: where real scans lie, a small data set in OpenKBP's layout, and the smallest study on the phantom."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from hnlib.experiments import Study, prepare_study
from hnlib.losses import LOSSES, presets

mpl.use("agg")  # no figure needs a screen

ROOT = Path(__file__).resolve().parents[1]
NUM_REAL_PATIENTS = 3
ORGAN_FILES = ("Brainstem", "SpinalCord", "LeftParotid", "RightParotid", "Mandible")


@pytest.fixture(autouse=True)
def folders_of_their_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep runs and caches of tests away from those of the user; one folder a session, so that work is shared."""
    home = tmp_path_factory.getbasetemp() / "hnlib"
    monkeypatch.setenv("HNLIB_RUNS", str(home / "runs"))
    monkeypatch.setenv("HNLIB_CACHE", str(home / "cache"))


@pytest.fixture(autouse=True)
def style_of_its_own() -> Iterator[None]:
    """Keep the visual style that a test sets from the next one."""
    with mpl.rc_context():
        yield


@pytest.fixture
def clean_names() -> Iterator[None]:
    """Forget what a test registers."""
    before = set(LOSSES)
    yield
    for name in set(LOSSES) - before:
        del presets._PRESETS[name], presets._DESCRIPTIONS[name]


@pytest.fixture(scope="session")
def openkbp_root() -> Path:
    """Return a folder with a few real OpenKBP patients; skip where the archive is absent."""
    places = [Path(p) for p in (os.environ.get("HNLIB_DATA"),) if p] + [ROOT.parent / "shared" / "data"]
    archive = next((p / "open-kbp.tar.xz" for p in places if (p / "open-kbp.tar.xz").exists()), None)
    if archive is None:
        pytest.skip("open-kbp.tar.xz is not in HNLIB_DATA nor beside the checkout")
    target = Path(tempfile.gettempdir()) / f"hnlib-test-openkbp-{NUM_REAL_PATIENTS}"
    if not target.exists():
        part = Path(tempfile.mkdtemp(dir=target.parent))
        _extract_first_patients(archive, part)
        try:
            part.rename(target)
        except OSError:  # another worker was faster
            shutil.rmtree(part)
    return target


def _extract_first_patients(archive: Path, folder: Path) -> None:
    patients: set[str] = set()
    with tarfile.open(archive, "r|xz") as stream:
        for member in stream:
            place = Path(member.name)
            if place.parent.name.startswith("pt_"):
                patients.add(place.parent.name)
                if len(patients) > NUM_REAL_PATIENTS:
                    return
                stream.extract(member, folder, filter="data")


@pytest.fixture
def small_openkbp(tmp_path: Path) -> Path:
    """Return a folder in OpenKBP's layout: one patient a split, a ball of tissue with five small organs."""
    for split, number in (("train-pats", 1), ("validation-pats", 201), ("test-pats", 241)):
        write_patient(tmp_path / split / f"pt_{number}", seed=number)
    return tmp_path


def write_patient(folder: Path, seed: int) -> None:
    """Write one patient: the body fills a box, organ k a cube at another place of it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    body = np.zeros((128, 128, 128), bool)
    body[40:80, 40:90, 30:90] = True
    index = np.flatnonzero(body)
    values = rng.integers(950, 1100, index.size)
    np.savetxt(folder / "ct.csv", np.c_[index, values], fmt="%d", delimiter=",", header=",data", comments="")
    for k, name in enumerate(ORGAN_FILES):
        mask = np.zeros_like(body)
        mask[50:56, 45 + 8 * k : 51 + 8 * k, 40 + 4 * k : 46 + 4 * k] = True
        rows = [f"{i}," for i in np.flatnonzero(mask)]
        (folder / f"{name}.csv").write_text("\n".join([",data", *rows]) + "\n")
    np.savetxt(folder / "voxel_dimensions.csv", [3.9, 4.1, 2.5])


@pytest.fixture
def tiny_study() -> Study:
    """Return the smallest study on the phantom, prepared once a session."""
    return prepare_study("phantom", "tiny")
