"""The packed volume of a viewer holds the scan, both label maps and their colours."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest

from hnlib.organs import organ
from hnlib.plotting import pack_volume, viewer
from hnlib.plotting.viewer import EXTRA, MISSED

ORGANS = ("brainstem", "mandible")
SPACING = (1.0, 2.0, 3.0)


def volumes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image = np.arange(8 * 8 * 6, dtype=np.float32).reshape(8, 8, 6) - 100.4
    reference = np.zeros((8, 8, 6), np.uint8)
    reference[2:4, 2, 2], reference[5, 5, 3] = 1, 2
    prediction = reference.copy()
    prediction[2, 2, 2], prediction[6, 6, 4] = 0, 2
    return image, reference, prediction


def unpack(text: str) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def test_both_label_maps_come_back_from_the_pairs() -> None:
    """Through the colours of each way of looking: the organ's own, and for errors blue, vermilion or nothing."""
    image, reference, prediction = volumes()
    packed = pack_volume(image, reference, prediction, spacing_mm=SPACING, organs=ORGANS)
    numbers = np.asarray(unpack(packed["labels"]).dataobj)
    colours = {name: np.array(table)[numbers] for name, table in packed["colours"].items()}
    for way, labels in (("Reference", reference), ("Prediction", prediction)):
        for value, name in enumerate(ORGANS, start=1):
            inside = labels == value
            assert (colours[way][inside] == [*rgb(organ(name).colour), 255]).all()
        assert (colours[way][labels == 0][:, 3] == 0).all()
    assert colours["Errors"][2, 2, 2].tolist() == [*rgb(MISSED), 255]
    assert colours["Errors"][6, 6, 4].tolist() == [*rgb(EXTRA), 255]
    assert (colours["Errors"][reference == prediction][:, 3] == 0).all()
    assert packed["names"][numbers[2, 2, 2]] == "Brainstem, predicted as background"


def test_the_scan_keeps_its_numbers_and_its_grid() -> None:
    image, reference, prediction = volumes()
    found = unpack(pack_volume(image, reference, prediction, spacing_mm=SPACING, organs=ORGANS)["image"])
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.rint(image))
    np.testing.assert_allclose(np.abs(np.diag(found.affine)[:3]), SPACING)


def test_large_volumes_are_thinned_out_in_plane() -> None:
    """384 voxels for at most 100: every second along X and Y, and the voxel edges say so."""
    image, reference, prediction = volumes()
    packed = pack_volume(image, reference, prediction, spacing_mm=SPACING, organs=ORGANS, max_voxels=100)
    found = unpack(packed["image"])
    assert packed["thinned"] == 2
    assert found.shape == (4, 4, 6)
    np.testing.assert_allclose(np.abs(np.diag(found.affine)[:3]), (2, 4, 3))


def test_without_a_prediction_there_is_one_way_of_looking() -> None:
    image, reference, _ = volumes()
    assert list(pack_volume(image, reference, None, spacing_mm=SPACING, organs=ORGANS)["colours"]) == ["Reference"]


def test_volumes_that_cannot_be_shown_are_refused() -> None:
    image, reference, prediction = volumes()
    with pytest.raises(ValueError, match="differ in shape"):
        pack_volume(image, reference[:4], prediction, spacing_mm=SPACING, organs=ORGANS)
    with pytest.raises(ValueError, match="no voxel is background"):
        pack_volume(image, reference + 1, prediction + 1, spacing_mm=SPACING, organs=("larynx", *ORGANS))


def test_the_still_picture_and_the_data_are_in_the_page(tmp_path: Path) -> None:
    image, reference, prediction = volumes()
    packed = pack_volume(image, reference, prediction, spacing_mm=SPACING, organs=ORGANS)
    (tmp_path / "still.png").write_bytes(b"png")
    page = viewer(packed, tmp_path / "still.png", 'a "case" <one>')
    assert 'alt="a &quot;case&quot; &lt;one&gt;"' in page
    assert base64.b64encode(b"png").decode() in page
    data = re.search(r'<script type="application/json">(.*?)</script>', page)
    assert data is not None
    assert json.loads(data[1])["labels"] == packed["labels"]
