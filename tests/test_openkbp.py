"""OpenKBP: axes, split and HU from the native files; every broken file is one line with case, file and remedy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from damage import Damage, bounded, damages
from hypothesis import given, settings
from hypothesis import strategies as st

from hnlib.datasets import open_dataset
from hnlib.datasets.openkbp import OpenKBP
from hnlib.errors import ConfigError, DataError


def test_split_is_the_challenges_own(small_openkbp: Path) -> None:
    assert OpenKBP(small_openkbp).split() == {"train": ("pt_1",), "validation": ("pt_201",), "test": ("pt_241",)}


def test_num_cases_takes_the_first_by_number(small_openkbp: Path) -> None:
    for number in (10, 2):
        (small_openkbp / "train-pats" / f"pt_{number}").mkdir()
    assert OpenKBP(small_openkbp, {"train": 2}).split()["train"] == ("pt_1", "pt_2")


def test_native_axes_become_ras(small_openkbp: Path) -> None:
    """Native axes point posterior, left, inferior: native voxel (a, b, c) lands at (127 - b, 127 - a, 127 - c)."""
    folder = small_openkbp / "train-pats" / "pt_1"
    flat = np.ravel_multi_index((50, 45, 40), (128, 128, 128))
    (folder / "Brainstem.csv").write_text(f",data\n{flat},\n")
    case = OpenKBP(small_openkbp).load("pt_1")
    assert np.argwhere(case.mask("brainstem")).tolist() == [[127 - 45, 127 - 50, 127 - 40]]
    assert case.spacing_mm == (4.1, 3.9, 2.5)  # native order is (anterior-posterior, right-left, axial)


def test_hu_is_the_stored_value_less_1000_and_outside_is_air(small_openkbp: Path) -> None:
    folder = small_openkbp / "train-pats" / "pt_1"
    (folder / "ct.csv").write_text(",data\n0,1040\n1,30000\n")
    image = OpenKBP(small_openkbp).load("pt_1").image_hu
    assert image[127, 127, 127] == 40
    assert image[127, 127, 126] == 4095 - 1000
    assert np.count_nonzero(image == -1000) == image.size - 2


def test_an_organ_without_a_file_is_not_labelled(small_openkbp: Path) -> None:
    (small_openkbp / "train-pats" / "pt_1" / "Mandible.csv").unlink()
    case = OpenKBP(small_openkbp).load("pt_1")
    assert "mandible" not in case.labelled
    assert len(case.labelled) == 4


def test_an_organ_without_a_voxel_of_its_own_is_not_labelled(small_openkbp: Path) -> None:
    """Its file is empty, or another organ, later in the list, covers it whole."""
    folder = small_openkbp / "train-pats" / "pt_1"
    lines = (folder / "Brainstem.csv").read_text().splitlines(keepends=True)
    (folder / "Brainstem.csv").write_text(lines[0])
    (folder / "SpinalCord.csv").write_text((folder / "Mandible.csv").read_text())
    case = OpenKBP(small_openkbp).load("pt_1")
    assert case.labelled == {"parotid_left", "parotid_right", "mandible"}


def test_digest_follows_the_content(small_openkbp: Path) -> None:
    before = OpenKBP(small_openkbp).digest()
    assert OpenKBP(small_openkbp).digest() == before
    path = small_openkbp / "test-pats" / "pt_241" / "Mandible.csv"
    path.write_text(path.read_text() + "7,\n")
    assert OpenKBP(small_openkbp).digest() != before


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("ct.csv", None, "the file is missing"),
        ("ct.csv", ",data\n", "the image is empty"),
        ("ct.csv", ",data\n5,100\n6", "is cut off within its last line"),
        ("ct.csv", ",data\n5,100\n6\n", "NaN or cut lines"),
        ("ct.csv", "5,100\n6,100\n", "its first line is not ',data'"),
        ("ct.csv", ",data\n5,100\n6,1,0\n", "cannot be read"),
        ("Brainstem.csv", ",data\n5.5,\n", "cannot be read"),
        ("Brainstem.csv", ",data\n99999999999999999999,\n", "cannot be read"),
        ("ct.csv", ",data\n5,nan\n", "NaN or cut lines"),
        ("ct.csv", "\x00\x01\x02", "copy it again"),
        ("Brainstem.csv", ",data\n2097152,\n", "voxel index 2097152 lies outside 128 x 128 x 128"),
        ("Brainstem.csv", ",data\n-1,\n", "voxel index -1 lies outside"),
        ("Brainstem.csv", ",data\nabc,\n", "cannot be read"),
        ("Mandible.csv", "", "cannot be read"),
        ("voxel_dimensions.csv", "3.9\n", "three positive numbers"),
        ("voxel_dimensions.csv", None, "cannot be read"),
    ],
)
def test_a_broken_file_is_one_line_with_case_file_and_remedy(
    small_openkbp: Path, file: str, content: str | None, text: str
) -> None:
    path = small_openkbp / "train-pats" / "pt_1" / file
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(DataError, match=text) as caught:
        OpenKBP(small_openkbp).load("pt_1")
    message = str(caught.value)
    assert "case pt_1" in message
    assert file in message
    assert "again" in message
    assert "\n" not in message


@settings(bounded, max_examples=50)
@given(file=st.sampled_from(["ct.csv", "Brainstem.csv", "voxel_dimensions.csv"]), damage=damages())
def test_a_damaged_file_is_read_or_told_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, file: str, damage: Damage
) -> None:
    """A case, whose own checks hold, or one line that names case and file."""
    root = tmp_path_factory.getbasetemp() / "openkbp"
    folder = root / "train-pats" / "pt_1"
    folder.mkdir(parents=True, exist_ok=True)
    whole = {
        "ct.csv": ",data\n" + "".join(f"{k},{1000 + k}\n" for k in range(50)),
        "Brainstem.csv": ",data\n" + "".join(f"{k},\n" for k in range(20)),
        "voxel_dimensions.csv": "3.9\n4.1\n2.5\n",
    }
    for name, text in whole.items():
        (folder / name).write_bytes(damage(text.encode()) if name == file else text.encode())
    try:
        case = OpenKBP(root).load("pt_1")
    except DataError as caught:
        fault, case = str(caught), None
    if case is None:
        assert fault.startswith(f"case pt_1, file {folder / file}: ")
        assert "\n" not in fault
        return
    assert case.image_hu.shape == (128, 128, 128)
    assert np.isfinite(case.image_hu).all()


def test_a_folder_without_a_patients_number_is_passed_over_and_told(small_openkbp: Path) -> None:
    (small_openkbp / "train-pats" / "pt_1 (copy)").mkdir()
    (small_openkbp / "test-pats" / "pt_1").mkdir()
    data = OpenKBP(small_openkbp)
    assert data.split()["train"] == ()
    told = {path.relative_to(small_openkbp).as_posix(): text for path, text in data.strays()}
    assert "is no patient of the challenge" in told["train-pats/pt_1 (copy)"]
    assert f"also in {small_openkbp / 'test-pats' / 'pt_1'}" in told["train-pats/pt_1"]


def test_a_missing_folder_and_a_wrong_layout_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        OpenKBP(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no patient folders"):
        OpenKBP(tmp_path)


def test_real_data_need_a_root_and_unknown_names_are_told() -> None:
    with pytest.raises(ConfigError, match="DATA_ROOT"):
        open_dataset("openkbp")
    with pytest.raises(ConfigError, match="unknown dataset 'openkpb': did you mean 'openkbp'"):
        open_dataset("openkpb", ".")


@pytest.mark.data
def test_organs_of_real_patients_lie_where_anatomy_puts_them(openkbp_root: Path) -> None:
    """Right is larger X, front larger Y, head larger Z: the derivation of the axes, on every patient at hand."""
    data = OpenKBP(openkbp_root)
    names = [name for part in data.split().values() for name in part]
    assert names
    for name in names:
        case = data.load(name)
        centre = {organ: np.argwhere(case.mask(organ)).mean(axis=0) for organ in case.organs}
        assert centre["parotid_right"][0] > centre["mandible"][0] > centre["parotid_left"][0]
        assert centre["mandible"][1] > centre["brainstem"][1] > centre["spinal_cord"][1]
        assert centre["brainstem"][2] > centre["mandible"][2] > centre["spinal_cord"][2]
        bone = case.image_hu[case.mask("mandible")]
        assert bone.mean() > 300 > case.image_hu[case.mask("brainstem")].mean() > -50
