"""The two-observer set: outlines by observer, with and without the CT, in either spelling."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scanfiles import head, organ_mask, write_head

from hnlib.datasets import TCIA, open_dataset
from hnlib.datasets.check import check_dataset
from hnlib.datasets.tcia import OBSERVERS
from hnlib.errors import ConfigError, DataError
from hnlib.metrics import evaluate_case
from hnlib.organs import ORGANS

REAL = [Path(p) for p in (os.environ.get("HNLIB_DATA"),) if p] + [Path(__file__).parents[2] / "shared" / "data"]


@pytest.fixture
def small_tcia(tmp_path: Path) -> Path:
    """One case outlined twice, the second observer's brainstem one slice higher and with underscores, without a CT."""
    for k, observer in enumerate(OBSERVERS):
        folder = tmp_path / "nrrds" / "test" / observer / "0522c0002" / "segmentations"
        write_head(folder / "Brainstem.nrrd", np.roll(organ_mask("brainstem"), k, axis=2))
        for side in ("left", "right"):
            name = f"Parotid-{side[0].upper()}t"
            path = folder / f"{name if k == 0 else name.replace('-', '_')}.nrrd"
            write_head(path, organ_mask(f"parotid_{side}"))
    return tmp_path


def test_outlines_are_read_without_a_ct_and_loading_says_so(small_tcia: Path) -> None:
    data = open_dataset("tcia", small_tcia)
    assert isinstance(data, TCIA)
    assert data.split() == {"train": (), "validation": (), "test": ("0522c0002",)}
    labels, labelled = data.load_labels("0522c0002")
    assert labelled == {"brainstem", "parotid_left", "parotid_right"}
    value = data.organs.index("parotid_left") + 1
    np.testing.assert_array_equal(labels.array == value, organ_mask("parotid_left") == 1)
    with pytest.raises(DataError, match=r"case 0522c0002: there are outlines but no CT.*load_labels"):
        data.load("0522c0002")


def test_two_observers_compare_by_the_metrics(small_tcia: Path) -> None:
    """The brainstem of 5 slices, moved by one, shares 4 of 5: DSC 0.8; underscores read as hyphens."""
    data = TCIA(small_tcia)
    one, labelled_one = data.load_labels("0522c0002", "oncologist")
    two, labelled_two = data.load_labels("0522c0002", "radiographer")
    table = evaluate_case(
        one.array,
        two.array,
        spacing_mm=one.spacing_mm,
        organs=data.organs,
        labelled=labelled_one & labelled_two,
        tolerances_mm={organ: ORGANS[organ].tolerance_mm for organ in data.organs},
    )
    dsc = table[table.metric == "dsc"].set_index("organ")["value"]
    assert dsc.to_dict() == pytest.approx({"brainstem": 0.8, "parotid_left": 1, "parotid_right": 1})


def test_a_ct_in_either_observers_folder_makes_a_case(small_tcia: Path) -> None:
    image = head()
    write_head(small_tcia / "nrrds" / "test" / "radiographer" / "0522c0002" / "CT_IMAGE.nrrd", image)
    case = TCIA(small_tcia, observer="oncologist").load("0522c0002")
    np.testing.assert_array_equal(case.image_hu, image)
    assert case.mask("brainstem").sum() == 80


def test_unknown_observers_cases_and_layouts_are_told(small_tcia: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown observer 'oncolgist': did you mean 'oncologist'"):
        TCIA(small_tcia, observer="oncolgist").load_labels("0522c0002")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="case x: not in"):
        TCIA(small_tcia).load("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no case"):
        TCIA(tmp_path / "empty")


@pytest.mark.data
def test_real_outlines_of_both_observers_agree(tmp_path: Path) -> None:
    """A real case: 13 organs twice, on one grid, in anatomical places, with brainstem and mandible above DSC 0.7."""
    root = next((p / "tcia-ct-scan-dataset" for p in REAL if (p / "tcia-ct-scan-dataset").is_dir()), None)
    if root is None:
        pytest.skip("tcia-ct-scan-dataset is not in HNLIB_DATA nor beside the checkout")
    data = TCIA(root)
    assert {split: len(names) for split, names in data.split().items()} == {"train": 0, "validation": 7, "test": 24}
    name = "0522c0659"  # spelled with underscores
    one, labelled = data.load_labels(name, "oncologist")
    two, _ = data.load_labels(name, "radiographer")
    assert len(labelled) == 13
    for organ in ("brainstem", "mandible"):
        value = data.organs.index(organ) + 1
        a, b = one.array == value, two.array == value
        assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.7
    (tmp_path / "nrrds" / "test").mkdir(parents=True)
    for observer in OBSERVERS:
        link = tmp_path / "nrrds" / "test" / observer
        link.mkdir()
        (link / name).symlink_to(root / "nrrds" / "test" / observer / name)
    assert not [f.text for f in check_dataset(TCIA(tmp_path, organs=tuple(sorted(labelled)))) if f.is_problem]
