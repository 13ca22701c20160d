"""A case refuses what cannot be a scan with labels, in one line that names it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hnlib.cases import Case
from hnlib.errors import DataError


def make(**change: Any) -> Case:
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[0, 0, 0] = 1
    given = {
        "name": "pt_1",
        "image_hu": image,
        "labels": labels,
        "spacing_mm": (1.0, 1.0, 2.0),
        "organs": ("mandible",),
    }
    return Case(**{**given, **change})


def test_mask_is_the_voxels_of_the_organ() -> None:
    assert np.argwhere(make().mask("mandible")).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"labels": np.zeros((2, 3, 5), np.uint8)}, r"shape \(2, 3, 4\) but the label map \(2, 3, 5\)"),
        ({"image_hu": np.full((2, 3, 4), np.nan, np.float32)}, "holds NaN"),
        ({"image_hu": np.zeros((2, 3, 4), np.float32)}, "constant"),
        ({"image_hu": np.zeros((0, 3, 4), np.float32)}, "at least one voxel"),
        ({"spacing_mm": (1.0, 0.0, 2.0)}, "three positive numbers"),
        ({"labels": np.full((2, 3, 4), 7, np.uint8)}, "label 7 but only 1 organs"),
    ],
)
def test_bad_input_is_one_line_with_the_case(change: dict[str, Any], text: str) -> None:
    with pytest.raises(DataError, match=text) as caught:
        make(**change)
    assert "pt_1" in str(caught.value)
    assert "\n" not in str(caught.value)
