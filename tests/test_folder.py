"""Own data: organs by label value or file name in any script, a stated default split, one line a fault."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import yaml
from scanfiles import BOXES, box, head, organ_mask, write_dicom, write_head

from hnlib.datasets import FolderDataset, open_dataset
from hnlib.errors import ConfigError, DataError

ORGANS = {"parotid_left": "Parotis (links)", "parotid_right": "右腮腺", "mandible": 7, "brainstem": 2}


def write_folder(root: Path, *cases: str, **settings: object) -> Path:
    for k, case in enumerate(cases):
        write_head(root / case / "image.nii.gz", head(k))
        labels = np.zeros_like(organ_mask("brainstem"))
        labels[box("mandible")], labels[box("brainstem")] = 7, 2
        write_head(root / case / "labels.nrrd", labels)
        for organ in ("parotid_left", "parotid_right"):
            write_head(root / case / f"{ORGANS[organ]}.mha", organ_mask(organ))
    (root / "hnlib.yaml").write_text(yaml.safe_dump({"organs": ORGANS, **settings}, allow_unicode=True), "utf-8")
    return root


def test_label_values_and_file_names_in_any_script(tmp_path: Path) -> None:
    write_folder(tmp_path, "Patient Nr. 1", "b", "c")
    data = open_dataset("folder", tmp_path)
    case = data.load("Patient Nr. 1")
    assert case.organs == tuple(yaml.safe_load((tmp_path / "hnlib.yaml").read_text("utf-8"))["organs"])
    assert case.labelled == set(ORGANS)
    np.testing.assert_array_equal(case.image_hu, head(0))
    for organ in set(ORGANS) & set(BOXES):
        np.testing.assert_array_equal(case.mask(organ), organ_mask(organ) == 1)


def test_accents_match_however_the_file_system_writes_them(tmp_path: Path) -> None:
    organs = {"mandible": "Kieferknochen Größe é"}
    (tmp_path / "hnlib.yaml").write_text(yaml.safe_dump({"organs": organs}), "utf-8")
    for case in "abc":
        write_head(tmp_path / case / "image.nii", head())
        name = unicodedata.normalize("NFD", organs["mandible"])
        write_head(tmp_path / case / f"{name}.nii", organ_mask("mandible"))
    assert FolderDataset(tmp_path).load("a").labelled == {"mandible"}


def test_a_dicom_folder_is_a_scan(tmp_path: Path) -> None:
    """Slices in <case>/image, outlines on the same grid."""
    (tmp_path / "hnlib.yaml").write_text("organs: {mandible: jaw}\nsplit: {train: [a]}\n")
    image = head()[:, :, :9]
    write_dicom(tmp_path / "a" / "image", image)
    write_head(tmp_path / "a" / "jaw.nrrd", organ_mask("mandible")[:, :, :9], affine=None)
    np.testing.assert_array_equal(FolderDataset(tmp_path).load("a").image_hu, image)


def test_the_default_split_depends_on_the_names_alone(tmp_path: Path) -> None:
    """20 cases: 4 test, 2 validation, 14 train; order on disk does not matter; three cases give one each."""
    for k in range(20):
        (tmp_path / f"case {k}").mkdir()
    (tmp_path / "hnlib.yaml").write_text("organs: {mandible: 1}\n")
    split = FolderDataset(tmp_path).split()
    assert [len(split[name]) for name in ("train", "validation", "test")] == [14, 2, 4]
    assert split == FolderDataset(tmp_path).split()
    assert split["test"] == ("case 10", "case 13", "case 2", "case 3")
    assert FolderDataset(tmp_path, {"train": 3}).split()["train"] == split["train"][:3]


def test_a_given_split_is_taken(tmp_path: Path) -> None:
    write_folder(tmp_path, "a", "b", "c", split={"train": ["c"], "test": ["a", "b"]})
    assert FolderDataset(tmp_path).split() == {"train": ("c",), "validation": (), "test": ("a", "b")}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "the file is missing; name the organs"),
        ("", "the file: .*; correct it"),
        ("organs: {}", "organs: .*; correct it"),
        ("organs: [a", "cannot be read"),
        ("organs: {mandible: 1}\nimages: x", "images: .*; correct it"),
        ("organs: {Mandible: 1}", "unknown organ 'Mandible': did you mean 'mandible'"),
        ("organs: {mandible: 1, brainstem: 1}", r"label values \[1, 1\]; each organ needs its own"),
        ("organs: {mandible: jaw, brainstem: jaw}", "jaw named twice; each organ needs a file of its own"),
        ("organs: {mandible: image}", "image named twice"),
        ("organs: {mandible: 0}", "1 or above"),
        ("organs: {mandible: 1.5}", "organs.mandible.*; correct it"),
        ("organs: {mandible: 1}\nsplit: {trian: [a]}", "'trian': did you mean 'train'"),
        ("organs: {mandible: 1}\nsplit: {train: [z]}", "unknown case of .* 'z'"),
        ("organs: {mandible: 1}\nsplit: {train: [a], test: [a]}", "case a stands in the split twice"),
    ],
)
def test_faults_of_the_settings_are_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    write_folder(tmp_path, "a", "b", "c")
    (tmp_path / "hnlib.yaml").unlink()
    if text is not None:
        (tmp_path / "hnlib.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        FolderDataset(tmp_path)
    assert "\n" not in str(caught.value)


def test_faults_of_the_data_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        FolderDataset(tmp_path / "none")
    write_folder(tmp_path)
    with pytest.raises(DataError, match="holds no case folder"):
        FolderDataset(tmp_path)
    write_folder(tmp_path, "a", "b")
    with pytest.raises(DataError, match="2 cases cannot be split"):
        FolderDataset(tmp_path)
    write_folder(tmp_path, "a", "b", "c")
    data = FolderDataset(tmp_path)
    write_head(tmp_path / "a" / "image.nrrd", head())
    with pytest.raises(DataError, match=r"image.nrrd: image.nii.gz has the same name"):
        data.load("a")
    labels = organ_mask("mandible") * 5
    write_head(tmp_path / "b" / "labels.nrrd", labels)
    with pytest.raises(DataError, match=r"case b, file .*labels.nrrd: label 5 stands for no organ"):
        data.load("b")
    for path in (tmp_path / "c").iterdir():
        if path.name != "image.nii.gz":
            path.unlink()
    with pytest.raises(DataError, match="case c: no file of outlines"):
        data.load("c")
    (tmp_path / "c" / "image.nii.gz").unlink()
    with pytest.raises(DataError, match=r"case c, .*the file is missing"):
        data.load("c")
