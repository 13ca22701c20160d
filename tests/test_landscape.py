"""The landscape of patch sizes against enumeration, its mixtures, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from hnlib.errors import ConfigError, DataError
from hnlib.imbalance import Scan, landscape, mix, organ_centres, size_grid
from hnlib.sampling import RULES

ORGANS = ("brainstem", "mandible")


def row_scan(*values: int, labelled: tuple[str, ...] = ORGANS) -> Scan:
    """Return a scan that is a row of voxels along X."""
    return Scan("row", np.array(values, np.uint8).reshape(-1, 1, 1), ORGANS, frozenset(labelled))


def test_row_of_voxels_by_hand() -> None:
    """Row 0 1 1 1 2 0, patch of four, voxel-uniform: patches 0111, 1112, 1120 with 1/2, 1/4, 1/4."""
    everything = ("ratio", "presence", "classes", "variance")
    table = landscape([row_scan(0, 1, 1, 1, 2, 0)], [(4, 1, 1)], {"fg": RULES["voxel_uniform"]}, quantities=everything)
    assert table["class"].tolist() == ["background", *ORGANS]
    assert table["ratio"].tolist() == pytest.approx([3 / 16, 11 / 16, 2 / 16])
    assert table["presence"].tolist() == pytest.approx([3 / 4, 1, 1 / 2])
    assert table["classes"].tolist() == pytest.approx([9 / 4] * 3)
    assert table["variance"].tolist() == pytest.approx([(3 / 4 - 9 / 16) / 16, (7.75 - 2.75**2) / 16, 1 / 64])
    assert not table["padded"].any()


def test_mixture_of_parts_is_the_rule() -> None:
    """Uniform and one law an organ, weighed, give nnU-Net's rule in every quantity."""
    scan, sizes = row_scan(0, 1, 1, 1, 2, 0, 0, 0, 1), size_grid([2, 5, 12], [1, 2], [1])
    everything = ("ratio", "presence", "classes", "variance")
    parts = landscape([scan], sizes, organ_centres(ORGANS), quantities=everything)
    rule = landscape([scan], sizes, {"nnunet": RULES["nnunet"]}, quantities=everything)
    mixed = mix(parts, {"uniform": 2, "brainstem": 1, "mandible": 1}, "nnunet")
    merged = rule.merge(mixed, on=["case", "patch_x", "patch_y", "patch_z", "padded", "centres", "class"])
    assert len(merged) == len(rule) == len(mixed) == 18
    for quantity in everything:
        assert np.abs(merged[f"{quantity}_x"] - merged[f"{quantity}_y"]).max() < 1e-14


def test_unlabelled_organ_has_no_row() -> None:
    table = landscape([row_scan(0, 1, 1, 0, labelled=("brainstem",))], [(2, 1, 1)], {"u": RULES["uniform"]})
    assert table["class"].tolist() == ["background", "brainstem"]


def test_bad_input_is_refused_in_one_line() -> None:
    scan, rule = row_scan(0, 1, 2), {"u": RULES["uniform"]}
    with pytest.raises(ConfigError, match=r"patch size is \(0, 2, 2\); three whole numbers"):
        landscape([scan], [(0, 2, 2)], rule)
    with pytest.raises(ConfigError, match="no patch size"):
        landscape([scan], [], rule)
    with pytest.raises(ConfigError, match="unknown quantity 'ratios': did you mean 'ratio'"):
        landscape([scan], [(1, 1, 1)], rule, quantities=["ratios"])  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"case row: labels lie in 0\.\.3 but 2 organs are named"):
        row_scan(0, 1, 3)
    table = landscape([scan], [(1, 1, 1)], rule)
    with pytest.raises(ConfigError, match="not all of them 0"):
        mix(table, {"u": 0.0})
    with pytest.raises(ConfigError, match="unknown law of centres 'v'"):
        mix(table, {"v": 1.0})
