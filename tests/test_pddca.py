"""PDDCA: the challenge's cases by name, the files by their spellings, rules for overlaps and missing outlines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scanfiles import HEAD_MM, head, organ_mask, write_head, write_pddca

from hnlib.datasets import PDDCA, open_dataset
from hnlib.datasets.pddca import EXTRA, OFFSITE, ONSITE, TRAINING
from hnlib.errors import DataError
from hnlib.volumes import Volume


def test_the_48_cases_are_25_and_8_and_10_and_5_without_a_double() -> None:
    assert [len(part) for part in (TRAINING, EXTRA, OFFSITE, ONSITE)] == [25, 8, 10, 5]
    assert len({*TRAINING, *EXTRA, *OFFSITE, *ONSITE}) == 48


def test_the_split_holds_the_cases_at_hand(tmp_path: Path) -> None:
    """Off-site and on-site cases are for testing, the extra ones validate; num_cases takes the first."""
    write_pddca(tmp_path, "0522c0001", "0522c0002", "0522c0329", "0522c0788", "0522c0555")
    assert open_dataset("pddca", tmp_path).split() == {
        "train": ("0522c0001", "0522c0002"),
        "validation": ("0522c0329",),
        "test": ("0522c0555", "0522c0788"),
    }
    assert PDDCA(tmp_path, {"train": 1, "test": 0}).split() == {
        "train": ("0522c0001",),
        "validation": ("0522c0329",),
        "test": (),
    }


def test_a_case_is_the_scan_with_its_organs(tmp_path: Path) -> None:
    write_pddca(tmp_path / "part1", "0522c0001")  # one folder deeper, as the archives unpack
    case = PDDCA(tmp_path).load("0522c0001")
    np.testing.assert_array_equal(case.image_hu, head(1))
    assert case.spacing_mm == pytest.approx(HEAD_MM)
    assert case.labelled == set(case.organs)
    for organ in case.organs:
        np.testing.assert_array_equal(case.mask(organ), organ_mask(organ) == 1)


def test_a_missing_or_empty_outline_is_not_labelled(tmp_path: Path) -> None:
    folder = write_pddca(tmp_path, "0522c0001") / "0522c0001" / "structures"
    (folder / "Chiasm.nrrd").unlink()
    write_head(folder / "Mandible.nrrd", np.zeros_like(organ_mask("mandible")))
    labels, labelled = PDDCA(tmp_path).load_labels("0522c0001")
    assert isinstance(labels, Volume)
    assert {"optic_chiasm", "mandible"}.isdisjoint(labelled)
    assert len(labelled) == 5


def test_the_later_organ_takes_shared_voxels_and_a_cover_up_is_refused(tmp_path: Path) -> None:
    folder = write_pddca(tmp_path, "0522c0001") / "0522c0001" / "structures"
    wide = organ_mask("mandible")
    wide[18:22, 15:16, 20:22] = 1  # 8 of the brainstem's 80 voxels
    write_head(folder / "Mandible.nrrd", wide)
    case = PDDCA(tmp_path).load("0522c0001")
    assert case.mask("brainstem").sum() == 72
    assert case.mask("mandible").sum() == wide.sum()
    wide[18:22, 15:18, 20:25] = 1
    write_head(folder / "Mandible.nrrd", wide)
    with pytest.raises(DataError, match="case 0522c0001: other outlines cover 60 of 80 voxels of brainstem"):
        PDDCA(tmp_path).load("0522c0001")


def test_faults_name_case_and_file(tmp_path: Path) -> None:
    write_pddca(tmp_path, "0522c0001")
    path = tmp_path / "0522c0001" / "structures" / "Mandible.nrrd"
    write_head(path, organ_mask("mandible")[:-1])
    with pytest.raises(DataError, match=r"case 0522c0001, file .*Mandible.nrrd: lies on another grid .*shape 40 x 40"):
        PDDCA(tmp_path).load("0522c0001")
    write_head(path, organ_mask("mandible") + 1)
    with pytest.raises(DataError, match=r"Mandible.nrrd: holds the values 1, 2 where one organ"):
        PDDCA(tmp_path).load("0522c0001")
    (tmp_path / "0522c0001" / "img.nrrd").unlink()
    with pytest.raises(DataError, match=r"case 0522c0001, file .*img.nrrd: the file is missing"):
        PDDCA(tmp_path).load("0522c0001")
    with pytest.raises(DataError, match="case 0522c0009: not in"):
        PDDCA(tmp_path).load("0522c0009")
    with pytest.raises(DataError, match="holds no case"):
        PDDCA(tmp_path / "0522c0001")
    with pytest.raises(DataError, match="no folder"):
        PDDCA(tmp_path / "none")


def test_a_case_in_two_places_is_refused(tmp_path: Path) -> None:
    write_pddca(tmp_path / "part1", "0522c0001")
    write_pddca(tmp_path / "part2", "0522c0001")
    with pytest.raises(DataError, match="found twice"):
        PDDCA(tmp_path).load("0522c0001")


def test_the_digest_follows_content_and_names(tmp_path: Path) -> None:
    write_pddca(tmp_path, "0522c0001")
    before = PDDCA(tmp_path).digest()
    assert PDDCA(tmp_path).digest() == before
    path = tmp_path / "0522c0001" / "structures" / "Mandible.nrrd"
    path.rename(path.with_name("Mandibula.nrrd"))
    without = PDDCA(tmp_path).digest()
    write_head(path, organ_mask("brainstem"))
    assert len({before, without, PDDCA(tmp_path).digest()}) == 3
