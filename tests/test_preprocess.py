"""Preprocessing: worked by hand where it can be, exact on the way back, safe when files break."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import zoom
from threadpoolctl import threadpool_limits

from hnlib.cache import cache_digest
from hnlib.cases import Case
from hnlib.datasets import PhantomDataset
from hnlib.errors import DataError
from hnlib.files import write_atomically
from hnlib.preprocess import (
    PLAN_RULES,
    Plan,
    PlanRule,
    body_box,
    crop_box,
    make_plan,
    preprocess_case,
    resample_image,
    resample_labels,
    restore_probabilities,
)

FEW = {"train": 2, "validation": 1, "test": 1}


def block(spacing: tuple[float, float, float] = (2.0, 2.0, 3.0), name: str = "a") -> Case:
    """A body of 10 x 12 x 8 voxels at 50 HU in air, with two organs side by side."""
    image = np.full((20, 20, 20), -1000, np.float32)
    image[4:14, 5:17, 6:14] = 50
    image[8:10, 8:12, 8:12] = 300
    labels = np.zeros(image.shape, np.uint8)
    labels[8, 8:12, 8:12] = 1
    labels[9, 8:12, 8:12] = 2
    return Case(name, image, labels, spacing, ("brainstem", "mandible"), frozenset({"brainstem", "mandible"}))


def test_body_box_is_the_largest_component_without_a_table() -> None:
    image = block().image_hu.copy()
    image[0:20, 1, 0:10] = 100  # a thin plate apart from the body
    assert body_box(image) == ((4, 14), (5, 17), (6, 14))


def test_body_box_of_air_is_the_whole_volume() -> None:
    assert body_box(np.full((3, 4, 5), -1000, np.float32)) == ((0, 3), (0, 4), (0, 5))


def test_plan_takes_median_in_plane_and_tenth_percentile_across() -> None:
    cases = [block((1.0, 1.0, 2.0)), block((2.0, 2.0, 3.0)), block((4.0, 4.0, 4.0))]
    plan = make_plan(cases)
    assert plan.spacing_mm == pytest.approx((2.0, 2.0, 2.2))  # 10th percentile of 2, 3, 4
    assert plan.median_shape == (10, 12, 11)  # 20 / 2, 24 / 2, 24 mm / 2.2
    assert plan.mean_hu == pytest.approx(300)
    assert plan.organs == ("brainstem", "mandible")


def test_the_plan_is_the_same_to_the_last_digit_on_any_number_of_threads() -> None:
    """It names the cache: a machine with other cores would else look for another one."""
    hu = np.random.default_rng(0).normal(100, 2000, (64, 64, 64)).astype(np.float32)
    case = replace(block(), image_hu=hu, labels=np.ones(hu.shape, np.uint8))
    with threadpool_limits(1):
        alone = make_plan([case])
    with threadpool_limits(2):
        assert make_plan([case]) == alone


def test_plan_needs_a_labelled_voxel() -> None:
    with pytest.raises(DataError, match="no training case with a labelled voxel"):
        make_plan([replace(block(), labels=np.zeros((20, 20, 20), np.uint8))])


def test_resampling_keeps_a_constant_and_the_edges_aligned() -> None:
    assert resample_image(np.full((4, 4, 4), 7, np.float32), (7, 3, 4)) == pytest.approx(7)
    ramp = np.arange(8, dtype=np.float32).reshape(8, 1, 1)
    assert resample_image(ramp, (4, 1, 1), order=1).ravel() == pytest.approx([0.5, 2.5, 4.5, 6.5])


@pytest.mark.parametrize("shape", [(15, 20, 20), (40, 40, 40), (20, 20, 13)])
def test_resampled_neighbours_have_no_gap_between_them(shape: tuple[int, int, int]) -> None:
    """Two organs that touch still touch: no background voxel comes between them."""
    touching = np.zeros((20, 20, 20), np.uint8)
    touching[5:10, 5:15, 5:15] = 1
    touching[10:15, 5:15, 5:15] = 2
    labels = resample_labels(touching, shape, 3)
    line = labels[:, shape[1] // 2, shape[2] // 2]
    inside = np.flatnonzero(line)
    assert set(line[inside]) == {1, 2}
    assert (np.diff(inside) == 1).all()


def test_normalised_values_have_the_plans_scale() -> None:
    case = block()
    plan = replace(make_plan([case]), clip_hu=(0.0, 200.0), mean_hu=100.0, sd_hu=50.0)
    prepared = preprocess_case(case, plan)
    assert prepared.image.shape == (10, 12, 8)
    assert prepared.image.max() == pytest.approx(2.0)  # 300 HU, clipped to 200
    assert np.median(prepared.image) == pytest.approx(-1.0)  # 50 HU


def test_labels_come_back_to_the_native_grid() -> None:
    """Probabilities that are one-hot on an unchanged grid restore the label map voxel for voxel."""
    case = block()
    prepared = preprocess_case(case, make_plan([case]))
    onehot = np.stack([(prepared.labels == c).astype(np.float32) for c in range(3)])
    assert np.array_equal(restore_probabilities(onehot, prepared), case.labels)


def test_going_to_another_grid_and_back_loses_little() -> None:
    case = PhantomDataset(num_cases=FEW).load("phantom_000")
    plan = replace(make_plan([case]), spacing_mm=(3.0, 3.0, 3.0))
    prepared = preprocess_case(case, plan)
    onehot = np.stack([(prepared.labels == c).astype(np.float32) for c in range(len(case.organs) + 1)])
    back = restore_probabilities(onehot, prepared)
    for organ in ("mandible", "brainstem", "parotid_left"):
        mask, found = case.mask(organ), back == case.organs.index(organ) + 1
        assert 2 * (mask & found).sum() / (mask.sum() + found.sum()) > 0.9


def test_a_write_that_fails_leaves_the_good_file(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    target.write_text("good")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise OSError("disk full")

    with pytest.raises(DataError, match=r"table\.csv: cannot be written \(disk full\); free space, or choose a folder"):
        write_atomically(target, fail)
    assert target.read_text() == "good"
    assert os.listdir(tmp_path) == ["table.csv"]


def test_labels_take_the_largest_of_the_linear_shares() -> None:
    """Beside scipy's linear zoom of each class over the whole volume, finer and coarser."""
    grid = np.stack(np.meshgrid(*[np.arange(24.0)] * 3, indexing="ij"))
    labels = np.zeros((24, 24, 24), np.uint8)
    for value, centre in ((1, (6.3, 8.1, 9.7)), (2, (12.2, 8.4, 9.1)), (4, (20.6, 21.3, 2.2))):
        labels[((grid.T - centre) ** 2).sum(axis=-1).T < 20.0] = value
    for shape in ((31, 17, 40), (11, 13, 9)):
        factors = [new / 24 for new in shape]
        shares = [
            zoom((labels == v).astype(np.float64), factors, order=1, mode="nearest", grid_mode=True) for v in range(5)
        ]
        assert np.array_equal(resample_labels(labels, shape, 5), np.argmax(shares, axis=0))


# a fixed window, isotropic grid and crop

RULE = PlanRule("isotropic", (-400.0, 800.0), (24.0, 24.0, 24.0), divisor=4)


def test_an_isotropic_grid_keeps_the_volume_of_a_voxel() -> None:
    """2 x 2 x 3 mm are 12 mm3, so are cubes of 2.289 mm; 24 mm are 10.5 of them, a crop of 12."""
    plan = make_plan([block()], RULE)
    assert plan.spacing_mm == pytest.approx((12 ** (1 / 3),) * 3)
    assert plan.crop == plan.median_shape == (12, 12, 12)
    assert PLAN_RULES["coarse_to_fine_print"].crop((1.0, 1.0, 1.0)) == (280, 280, 280)


def test_the_window_is_scaled_to_one_and_loses_the_training_mean() -> None:
    """(I + 400) / 1200 less its mean over the voxels of the crop: half of the clipped block is air here."""
    plan = make_plan([block()], RULE)
    assert (plan.clip_hu, plan.sd_hu) == ((-400.0, 800.0), 1200.0)
    inside = np.clip(
        block().image_hu[tuple(slice(a, b) for a, b in crop_box(block().image_hu, (2, 2, 3), (24,) * 3))], -400, 800
    )
    assert plan.mean_hu == pytest.approx(float(inside.mean()))
    prepared = preprocess_case(block(), plan)
    top = (prepared.image.max() * 1200 + plan.mean_hu + 400) / 1200
    assert 0.5 < top <= 1
    assert prepared.low == pytest.approx((-400 - plan.mean_hu) / 1200)


def test_a_crop_larger_than_the_scan_is_padded_and_comes_back() -> None:
    """Air around it on the plan's grid; on the scan's own grid nothing is lost or moved."""
    wide = PlanRule(2.0, (-400.0, 800.0), (64.0, 64.0, 64.0))
    case = block((2.0, 2.0, 2.0))
    plan = make_plan([case], wide)
    prepared = preprocess_case(case, plan)
    assert prepared.image.shape == plan.crop == (32, 32, 32)
    assert min(start for start, _ in prepared.box) < 0
    assert prepared.image[0, 0, 0] == prepared.low
    sure = np.stack([prepared.labels == value for value in range(3)]).astype(np.float32)
    assert np.array_equal(restore_probabilities(sure, prepared), case.labels)


def test_a_crop_smaller_than_the_scan_keeps_its_middle() -> None:
    """The body runs from 4 to 14 along X: 8 voxels about 9 are 5 to 13."""
    assert crop_box(block().image_hu, (2.0, 2.0, 3.0), (16.0, 24.0, 24.0)) == ((5, 13), (5, 17), (6, 14))


def test_a_plan_without_a_crop_keeps_its_digest() -> None:
    """Caches and runs of before there was a crop are found again."""
    plan = make_plan([block()])
    assert plan.crop is None
    assert cache_digest("x", plan) != cache_digest("x", replace(plan, crop=(8, 8, 8)))
    assert (
        cache_digest("data", Plan((4.0, 4.0, 3.0), (8, 8, 8), (-100.0, 200.0), 30.0, 40.0, ("brainstem",)))
        == "d4b3b9356d108d6e"
    )
