"""Own data with organs that the library does not know: prepared, described, learnt, measured, drawn and predicted."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from scanfiles import HEAD_SHAPE, head, organ_mask, write_head

from hnlib.cli import main
from hnlib.experiments import load_study, read_tables
from hnlib.organs import organ
from hnlib.plotting import organ_volumes, results_by_organ

ORGANS = ("mandible", "thyroid", "oral_cavity_left", "oral_cavity_right")
EXPERIMENT = "large_nnu_dice_ce"


def block(*spans: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(HEAD_SHAPE, np.uint8)
    mask[tuple(slice(*span) for span in spans)] = 1
    return mask


def command(*arguments: object) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 0


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return five cases with a known organ, one of their own on the midline and a pair of their own."""
    masks = {
        "mandible": organ_mask("mandible"),
        "thyroid": block((16, 24), (20, 26), (2, 6)),
        "oral_cavity_left": block((14, 20), (20, 26), (14, 20)),
        "oral_cavity_right": block((20, 26), (20, 26), (14, 20)),
    }
    for k in range(5):
        image = head(k)
        image[masks["thyroid"] == 1] += 150
        write_head(tmp_path / "data" / f"c{k}" / "image.nii.gz", image)
        for name, mask in masks.items():
            write_head(tmp_path / "data" / f"c{k}" / f"{name}.nrrd", mask)
    settings = {"organs": {name: name for name in ORGANS}}
    (tmp_path / "data" / "hnlib.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return tmp_path / "data"


def test_the_check_notes_organs_of_their_own_and_is_content(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("check", "folder", data)
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert [line.split(": ")[2].split()[0] for line in notes] == list(ORGANS[1:])
    assert "with a tolerance of 2.5 mm by default" in notes[0]


@pytest.mark.slow
def test_from_scans_to_a_prediction(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command that a study takes; the organs stand in the tables, the pictures and the label map."""
    study, results = tmp_path / "study.json", tmp_path / "results"
    command("prepare", "folder", "tiny", "--data-root", data, "--out", study)
    command("describe", study, "--out", results)
    command("train", study, EXPERIMENT, 0)
    command("measure", study, EXPERIMENT, 0)
    command("tables", study, "--out", results)
    metrics = read_tables(results)["metrics"]
    assert set(metrics["organ"]) == set(ORGANS)
    surface = metrics.query("metric == 'surface_dsc' and split == 'test'")
    assert sorted(surface["organ"]) == sorted(ORGANS)
    tables = read_tables(results)
    assert {"thyroid", "background"} <= set(tables["imbalance"]["class"])
    assert (results / "pictures" / "prediction.png").stat().st_size > 10_000
    organ_volumes(tables["dataset"])
    results_by_organ(metrics)

    run = load_study(study).run_folder(EXPERIMENT, 0)
    capsys.readouterr()
    scan, out = data / "c0" / "image.nii.gz", tmp_path / "labels.nii.gz"
    command("predict", scan, "--model", run, "--out", out)
    assert "thyroid: " in capsys.readouterr().out
    assert nib.load(out).shape == HEAD_SHAPE
    assert set(np.unique(np.asarray(nib.load(out).dataobj))) <= set(range(len(ORGANS) + 1))
    red, green, blue = bytes.fromhex(organ("thyroid").colour[1:])
    assert f"2 thyroid {red} {green} {blue} 255" in (tmp_path / "labels.ctbl").read_text()
    assert '"Oral cavity L"' in (tmp_path / "labels.labels.txt").read_text()
