"""Distances between surfaces: worked by hand, equal to the reference package, beside MONAI's."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import surface_distance
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hnlib.surfaces import Directed, surface_distances, voxel_box

PERCENTS = (5.0, 50.0, 95.0, 99.0, 100.0)
TOLERANCES_MM = (0.0, 0.97, 1.01, 2.5, 7.0)
REAL = [Path(p) for p in (os.environ.get("HNLIB_DATA"),) if p] + [Path(__file__).parents[2] / "shared" / "data"]


def package(reference, prediction, spacing_mm):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it reaches for namespaces that SciPy has deprecated
        return surface_distance.compute_surface_distances(reference, prediction, spacing_mm)


def assert_equals_the_package(reference, prediction, spacing_mm):
    """Every number that both give is the same to the last bit."""
    ours, theirs = surface_distances(reference, prediction, spacing_mm), package(reference, prediction, spacing_mm)
    np.testing.assert_array_equal(ours.from_reference.distance_mm, theirs["distances_gt_to_pred"])
    np.testing.assert_array_equal(ours.from_prediction.distance_mm, theirs["distances_pred_to_gt"])
    np.testing.assert_array_equal(ours.from_reference.area_mm2, theirs["surfel_areas_gt"])
    np.testing.assert_array_equal(ours.from_prediction.area_mm2, theirs["surfel_areas_pred"])
    for percent in PERCENTS:
        assert ours.hd_mm(percent) == surface_distance.compute_robust_hausdorff(theirs, percent)
    for tolerance in TOLERANCES_MM:
        assert ours.surface_dsc(tolerance) == surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance)
    directed = ours.from_reference.mean_mm(), ours.from_prediction.mean_mm()
    assert directed == surface_distance.compute_average_surface_distance(theirs)


def blob(rng, shape, smoothing):
    """A random mask of one or more irregular pieces, which may touch the border of the array."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape), smoothing, mode="constant")
    return noise > np.quantile(noise, rng.uniform(0.6, 0.97))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(2, 24)] * 3),
    smoothing=st.sampled_from([0.5, 1.5, 3.0]),
    # Different edges on all axes: with equal ones two nearest elements may round differently by one bit.
    spacing_mm=st.sampled_from([(0.98, 1.1, 2.5), (1.0, 2.0, 3.0), (3.906, 4.1, 2.5), (0.7, 0.31, 5.3)]),
)
def test_random_blobs_equal_the_package(seed, shape, smoothing, spacing_mm):
    """Distances, areas, percentiles, surface DSC and mean distances, for masks of any shape and place."""
    rng = np.random.default_rng(seed)
    reference, prediction = blob(rng, shape, smoothing), blob(rng, shape, smoothing)
    assert_equals_the_package(reference, prediction, spacing_mm)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_cubic_grid_equals_the_package_but_for_rounding(seed):
    rng = np.random.default_rng(seed)
    reference, prediction = blob(rng, (18, 15, 12), 1.5), blob(rng, (18, 15, 12), 1.5)
    ours, theirs = surface_distances(reference, prediction, (1.3,) * 3), package(reference, prediction, (1.3,) * 3)
    np.testing.assert_allclose(ours.from_reference.distance_mm, theirs["distances_gt_to_pred"], rtol=1e-14)
    for percent in PERCENTS:
        expected = surface_distance.compute_robust_hausdorff(theirs, percent)
        assert ours.hd_mm(percent) == pytest.approx(expected, rel=1e-14)


@pytest.mark.slow
@pytest.mark.data
def test_real_pairs_of_observers_equal_the_package():
    """Two organs of a scan that two people outlined (Nikolov et al. 2018)."""
    from hnlib.datasets import TCIA
    from hnlib.datasets.case_files import read_labels

    root = next((p / "tcia-ct-scan-dataset" for p in REAL if (p / "tcia-ct-scan-dataset").is_dir()), None)
    if root is None:
        pytest.skip("tcia-ct-scan-dataset is not in HNLIB_DATA nor beside the checkout")
    organs = ("optic_nerve_left", "submandibular_left")
    data = TCIA(root)
    case = data.split()["validation"][0]
    (one, found), (two, again) = (
        read_labels(data.files(case, observer), organs) for observer in ("oncologist", "radiographer")
    )
    both = [name for name in organs if name in found & again]
    assert both
    for name in both:
        value = organs.index(name) + 1
        box = voxel_box((one.array == value) | (two.array == value))
        assert_equals_the_package(one.array[box] == value, two.array[box] == value, one.spacing_mm)


def test_pooled_percentile_and_mean_by_hand():
    """A voxel and a bar of two that holds it: 8 and 12 corners; four corners of the bar lie 1 mm off."""
    one = np.zeros((4, 1, 1), bool)
    two = one.copy()
    one[1], two[1:3] = True, True
    found = surface_distances(one, two, (1.0, 1.0, 1.0))
    np.testing.assert_array_equal(found.from_reference.distance_mm, [0, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(found.from_prediction.distance_mm, [0] * 8 + [1] * 4)
    assert (found.hd_mm(), found.hd_mm(of="mean"), found.hd_mm(of="pooled")) == (1.0, 0.5, 1.0)
    ends, whole = np.sum(found.from_prediction.area_mm2[8:]), found.from_prediction.total_mm2
    assert found.assd_mm() == pytest.approx(ends / (whole + found.from_reference.total_mm2))
    assert found.surface_dsc(0.5) == pytest.approx(1 - found.assd_mm())


def test_percentile_weighs_by_area():
    """Nine tenths of the area lie at 1 mm, so the 90th percentile is still 1 mm."""
    found = Directed(np.array([1.0, 4.0]), np.array([9.0, 1.0]))
    assert [found.percentile_mm(p) for p in (10, 90, 91, 100)] == [1, 1, 4, 4]
    assert found.mean_mm() == pytest.approx(1.3)
    assert [found.within_mm2(t) for t in (0.9, 1.0, 4.0)] == [0, 9, 10]


def test_directions_swap_with_the_masks():
    rng = np.random.default_rng(3)
    one, two = blob(rng, (20, 16, 12), 2.0), blob(rng, (20, 16, 12), 2.0)
    there, back = surface_distances(one, two, (1.0, 1.5, 2.0)), surface_distances(two, one, (1.0, 1.5, 2.0))
    np.testing.assert_array_equal(there.from_reference.distance_mm, back.from_prediction.distance_mm)
    assert there.assd_mm() == pytest.approx(back.assd_mm())


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16])
def test_box_holds_every_voxel(order, dtype):
    labels = np.zeros((7, 9, 11), dtype, order=order)
    assert voxel_box(labels) is None
    labels[2, 3, 10] = labels[5, 0, 4] = 1
    assert voxel_box(labels) == (slice(2, 6), slice(0, 4), slice(4, 11))
    assert voxel_box(np.zeros((0, 2, 2), dtype)) is None


def test_box_holds_values_below_zero():
    labels = np.zeros((4, 4, 4), np.int16)
    labels[1, 2, 3] = -1
    assert voxel_box(labels) == (slice(1, 2), slice(2, 3), slice(3, 4))


@pytest.mark.parametrize("other", [np.zeros((3, 3, 3), bool), np.ones((3, 3, 4), bool)])
def test_what_has_no_surface_is_refused(other):
    with pytest.raises(ValueError, match=r"has no surface|of one shape"):
        surface_distances(np.ones((3, 3, 3), bool), other, (1, 1, 1))


def test_a_far_piece_costs_no_field_of_distances():
    """A stray voxel far away widens the box, not the work: less than ten bytes a voxel of the box."""
    import tracemalloc

    one = np.zeros((200, 200, 60), bool)
    one[5:9, 5:9, 5:9] = True
    two = one.copy()
    two[-1, -1, -1] = True
    tracemalloc.start()
    found = surface_distances(one, two, (1.0, 1.0, 2.5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * one.size
    assert found.hd_mm() == pytest.approx(np.linalg.norm([191, 191, 51 * 2.5]))  # from corner to corner
    assert found.hd_mm(80) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:monai")
def test_monai_agrees_where_its_definition_does():
    """Its sub-voxel surface Dice is ours; its HD95 counts voxels of the rim instead of areas, and is another number."""
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    rng = np.random.default_rng(5)
    spacing = (0.98, 1.1, 2.5)
    reference = ndimage.binary_dilation(blob(rng, (30, 26, 18), 3.0))
    prediction = np.roll(reference, (1, 0, 1), (0, 1, 2))
    ours = surface_distances(reference, prediction, spacing)
    maps = [torch.as_tensor(np.stack([~mask, mask]))[None].float() for mask in (prediction, reference)]
    theirs = compute_surface_dice(*maps, class_thresholds=[1.5], spacing=spacing, use_subvoxels=True)
    assert float(theirs) == pytest.approx(ours.surface_dsc(1.5), abs=2e-3)
    unweighted = compute_hausdorff_distance(*maps, percentile=95, spacing=spacing)
    assert float(unweighted) == pytest.approx(ours.hd_mm(95), rel=0.5)
    assert float(unweighted) != pytest.approx(ours.hd_mm(95), rel=1e-6)
