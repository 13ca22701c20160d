"""A report on any labelled folder: one page that needs no other file, smaller where the folder holds less."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from scanfiles import HEAD_MM, head, organ_mask, ras_affine, write_head, write_scan

from hnlib.cli import main
from hnlib.datasets import open_dataset
from hnlib.datasets.check import check_dataset
from hnlib.errors import ConfigError, DataError
from hnlib.experiments.config import Experiment
from hnlib.imbalance import Limits
from hnlib.report.labelled import open_labelled
from hnlib.report.losses import A_STEP, KEPT, advise, audited_losses
from hnlib.report.measure import measure
from hnlib.report.new_study import new_study
from scripts.audited_losses import LOSSES, audit_row

ORGANS = ("mandible", "brainstem", "parotid_left", "parotid_right")


def write_folder(root: Path, cases: int, organs: tuple[str, ...] = ORGANS, *, image: bool = True) -> Path:
    for k in range(cases):
        if image:
            write_head(root / f"c{k}" / "image.nii.gz", head(k))
        for name in organs:
            write_head(root / f"c{k}" / f"{name}.nii.gz", organ_mask(name))
    return root


def report(root: Path, *options: object) -> tuple[str, Path]:
    """Run the command and return the page and its place."""
    out = root.parent / "out" / "report.html"
    with pytest.raises(SystemExit) as stop:
        main(["report", str(root), "--out", str(out), *map(str, options)])
    assert stop.value.code == 0
    return out.read_text("utf-8"), out


def test_a_folder_without_settings_names_organs_by_their_files(tmp_path: Path) -> None:
    found = open_labelled(write_folder(tmp_path / "data", 3))
    assert set(found.organs) == set(ORGANS)
    assert "There is no hnlib.yaml" in found.origin
    assert "here it would say {organs: {" in found.origin
    assert found.has_scan("c0")


def test_values_of_a_label_map_are_organs(tmp_path: Path) -> None:
    """Under common names for scan and map; 2 and 7 become label_2 and label_7."""
    labels = 2 * organ_mask("mandible") + 7 * organ_mask("brainstem")
    write_head(tmp_path / "a" / "ct.nii.gz", head())
    write_head(tmp_path / "a" / "segmentation.nii.gz", labels)
    found = open_labelled(tmp_path)
    assert found.organs == ("label_2", "label_7")
    case = found.load("a")
    assert [int((case.labels == value).sum()) for value in (1, 2)] == [16 * 4 * 4, 4 * 4 * 5]


def test_one_case_is_for_training(tmp_path: Path) -> None:
    split = open_labelled(write_folder(tmp_path, 1)).split()
    assert split == {"train": ("c0",), "validation": (), "test": ()}


def test_nnunet_raw_data_are_read_as_they_are(tmp_path: Path) -> None:
    labels = organ_mask("mandible") + 2 * organ_mask("brainstem")
    write_head(tmp_path / "labelsTr" / "p_1.nii.gz", labels)
    write_head(tmp_path / "imagesTr" / "p_1_0000.nii.gz", head())
    names = {"labels": {"background": 0, "mandible": 1, "Brainstem": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(names))
    found = open_labelled(tmp_path)
    assert found.organs == ("mandible", "brainstem")
    assert found.has_scan("p_1")
    assert int((found.load("p_1").labels == 2).sum()) == 4 * 4 * 5


def test_nnunet_raw_data_are_a_data_set_of_their_own(tmp_path: Path) -> None:
    """What `hnlib prepare folder`, `check` and `new-study` open; a study needs three cases, as of any folder."""
    names = {"labels": {"background": 0, "mandible": 1, "Brainstem": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(names))
    for case in ("p_1", "p_2"):
        write_head(tmp_path / "labelsTr" / f"{case}.nii.gz", organ_mask("mandible") + 2 * organ_mask("brainstem"))
        write_head(tmp_path / "imagesTr" / f"{case}_0000.nii.gz", head())
    with pytest.raises(DataError, match="2 cases cannot be split"):
        open_dataset("folder", tmp_path)
    write_head(tmp_path / "labelsTr" / "p_3.nii.gz", organ_mask("mandible") + 3 * organ_mask("brainstem"))
    write_head(tmp_path / "imagesTr" / "p_3_0000.nii.gz", head())
    found = open_dataset("folder", tmp_path)
    assert sorted(name for names in found.split().values() for name in names) == ["p_1", "p_2", "p_3"]
    assert found.load("p_1").labelled == {"mandible", "brainstem"}
    assert any("label 3 of p_3" in str(one) or "dataset.json" in str(one) for one in check_dataset(found))
    with pytest.raises(DataError, match="case p_9: not in"):
        found.load("p_9")
    assert new_study(tmp_path / "study", scans=tmp_path) == tmp_path


def test_a_missing_scan_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, 3)
    (folder / "c1" / "image.nii.gz").unlink()
    found = measure(open_labelled(folder), Limits(1e9))
    assert any("Only 2 of 3 cases have a scan (not c1)" in note for note in found.notes)


def test_an_empty_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected <case>/labels\.nii\.gz") as fault:
        open_labelled(tmp_path)
    assert "\n" not in str(fault.value)


def test_empty_outlines_are_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_head(tmp_path / "a" / "mandible.nii.gz", np.zeros((8, 8, 8), np.uint8))
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path), "--out", str(tmp_path / "report.html")])
    assert stop.value.code == 2
    assert "nothing to report: no organ has a voxel in any case" in capsys.readouterr().err


def test_two_files_of_one_organ_are_refused(tmp_path: Path) -> None:
    for name in ("Parotid_L", "LeftParotid"):
        write_head(tmp_path / "a" / f"{name}.nii.gz", organ_mask("parotid_left"))
    with pytest.raises(ConfigError, match="several files stand for parotid_left"):
        open_labelled(tmp_path).organs  # noqa: B018 - the organs are read when they are asked for


@pytest.mark.slow
def test_the_page_needs_no_other_file_and_recommends_an_experiment(tmp_path: Path) -> None:
    page, out = report(write_folder(tmp_path / "data", 4), "--experiment", tmp_path / "planned.yaml")
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
    assert not re.findall(r"<(?:script|link)|https?://", page)
    pictures = re.findall(r'<img alt="([^"]+)" src="([^"]{30})', page)
    assert len(pictures) == 3
    assert all(alt and source.startswith("data:image/png;base64,") for alt, source in pictures)
    chosen = Experiment.model_validate(yaml.safe_load((tmp_path / "planned.yaml").read_text()))
    assert chosen.loss in set(audited_losses()["loss"])
    assert sum(chosen.centres.values()) == pytest.approx(1)  # type: ignore[union-attr]
    assert " x ".join(map(str, chosen.patch_size or ())) in page


@pytest.mark.slow
def test_a_case_whose_outlines_are_empty_takes_no_scan_from_the_others(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 4)
    for name in ORGANS:
        write_head(root / "c3" / f"{name}.nii.gz", np.zeros_like(organ_mask(name)))
    page, _ = report(root)
    assert "so this report is smaller" not in page
    assert "mean HU" in page


@pytest.mark.slow
def test_masks_without_scans_give_a_smaller_report_that_says_so(tmp_path: Path) -> None:
    page, _ = report(write_folder(tmp_path / "data", 3, image=False))
    assert "No case has a scan, so this report is smaller" in page
    assert "mean HU" not in page
    assert "Recommended" in page


@pytest.mark.slow
def test_one_case_with_one_organ_and_a_broken_case(tmp_path: Path) -> None:
    """The case that cannot be read is left out and named, with the reason."""
    root = write_folder(tmp_path / "data", 1, ("mandible",))
    (root / "broken").mkdir()
    (root / "broken" / "mandible.nii.gz").write_bytes(b"no volume")
    page, _ = report(root)
    assert "1 case with 1 organ." in page
    assert "Left out: case broken" in page


@pytest.mark.slow
def test_hundreds_of_organs_of_another_anatomy(tmp_path: Path) -> None:
    """120 organs that no vocabulary knows: planned for 16 of them, which is said, and drawn evenly."""
    labels = np.zeros((60, 60, 48), np.uint8)
    for k in range(120):
        x, y, z = 10 * (k % 6), 12 * (k // 6 % 5), 12 * (k // 30)
        labels[x : x + 3 + k % 5, y : y + 4, z : z + 4] = k + 1
    image = np.where(labels > 0, 60, 30).astype(np.int16)
    for case in ("a", "b"):
        write_scan(tmp_path / "data" / case / "image.nii.gz", image, affine=ras_affine(HEAD_MM))
        write_scan(tmp_path / "data" / case / "labels.nii.gz", labels, affine=ras_affine(HEAD_MM))
    page, out = report(tmp_path / "data", "--experiment", tmp_path / "planned.yaml")
    assert "2 cases with 120 organs" in page
    assert "planned for 16 of 120 organs" in page
    chosen = yaml.safe_load((tmp_path / "planned.yaml").read_text())
    assert chosen["centres"] == "class_uniform_two_thirds"
    assert out.stat().st_size < 3_000_000


@pytest.mark.slow
def test_scans_too_small_for_a_patch_are_reported_without_one(tmp_path: Path) -> None:
    mask = np.zeros((6, 6, 6), np.uint8)
    mask[2:4, 2:4, 2:4] = 1
    write_scan(tmp_path / "data" / "a" / "liver.nii.gz", mask)
    page, _ = report(tmp_path / "data")
    assert "No patch is recommended: " in page


def test_the_table_has_the_losses_of_its_script() -> None:
    assert tuple(audited_losses()["loss"]) == LOSSES


def test_unequal_organs_get_the_loss_that_pulls_evenly() -> None:
    found = audited_losses().set_index("loss")["pull_ratio"]
    assert advise(50.0, 0.1, partial=False).name == found.idxmin()


def test_often_absent_organs_rule_out_losses_with_a_step() -> None:
    steps = audited_losses().set_index("loss")["step"]
    seldom, often = (advise(2.0, share, partial=False).name for share in (0.1, 0.9))
    assert seldom == steps.index[0] == "nnu_dice+ce"
    assert steps[seldom] > A_STEP > steps[often]


def test_partial_outlines_are_a_reason() -> None:
    assert any("labelled" in text for text in advise(1.0, 0.0, partial=True).reasons)


@pytest.mark.full
@pytest.mark.skipif(os.environ.get("HNLIB_FULL") != "1", reason="audits take minutes: HNLIB_FULL=1")
@pytest.mark.parametrize("name", LOSSES)
def test_the_table_of_audited_losses_is_what_the_audit_finds(name: str) -> None:
    row = audited_losses().set_index("loss").loc[name]
    again = audit_row(name)
    for column in KEPT:
        assert again[column] == pytest.approx(row[column], rel=0.02, abs=1e-6)
