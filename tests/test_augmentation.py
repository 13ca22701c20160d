"""Augmentation: a turned patch keeps its middle, its millimetres and its labels; intensities by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from hnlib.augmentation import (
    AUGMENTATIONS,
    Augmentation,
    Effect,
    augmentation,
    change_intensity,
    draw_matrix,
    spatial_patch,
)
from hnlib.errors import ConfigError
from hnlib.sampling import extract

NONE = AUGMENTATIONS["none"]
TURN = Augmentation(rotation=1.0)
ALWAYS = Augmentation(rotation=1.0, scaling=1.0)
SPACING = (1.0, 1.5, 3.0)


def scan(seed: int = 0, shape: tuple[int, int, int] = (30, 26, 24)) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return a noisy scan with three blocks of labels 1, 2 and 5 that touch."""
    image = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    labels = np.zeros(shape, np.uint8)
    labels[4:15, 5:20, 6:18], labels[15:24, 5:20, 6:18], labels[10:20, 10:14, 10:14] = 1, 2, 5
    return image, labels


def ball(shape: tuple[int, int, int], radius_mm: float, spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
    """Return a ball around the middle voxel."""
    axes = [(np.arange(n) - n // 2) * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return (x**2 + y**2 + z**2 <= radius_mm**2).astype(np.uint8)


def dsc(a: NDArray[np.integer], b: NDArray[np.integer]) -> float:
    return 2 * float(((a > 0) & (b > 0)).sum()) / float((a > 0).sum() + (b > 0).sum())


@pytest.mark.parametrize("start", [(3, 4, 5), (0, 0, 0), (-3, 12, 14), (-8, -8, -8)])
@pytest.mark.parametrize("patch", [(8, 7, 10), (46, 42, 40)])
def test_identity_is_the_plain_patch(start: tuple[int, int, int], patch: tuple[int, int, int]) -> None:
    """Also where the patch reaches outside or is longer than the scan."""
    image, labels = scan()
    found, classes = spatial_patch(image, labels, start, patch, np.eye(3), fill=-4.0)
    np.testing.assert_allclose(found, extract(image, start, patch, -4.0), atol=2e-4)
    np.testing.assert_array_equal(classes, extract(labels, start, patch, 0))


@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (2, 0)])
def test_quarter_turn_is_that_of_numpy(axes: tuple[int, int]) -> None:
    image, labels = scan()
    start, patch = (6, 5, 7), (9, 9, 9)
    a, b = axes
    matrix = np.zeros((3, 3))
    matrix[3 - a - b, 3 - a - b] = 1
    matrix[a, b], matrix[b, a] = 1, -1
    found, classes = spatial_patch(image, labels, start, patch, matrix, fill=0.0)
    np.testing.assert_allclose(found, np.rot90(extract(image, start, patch, 0), axes=axes), atol=2e-4)
    np.testing.assert_array_equal(classes, np.rot90(extract(labels, start, patch, 0), axes=axes))


@pytest.mark.parametrize("patch", [(8, 8, 8), (7, 9, 5)])
def test_the_drawn_centre_stays_in_place(patch: tuple[int, int, int]) -> None:
    """Whatever the matrix, the voxel at patch // 2 keeps its value and class: the law of centres is kept."""
    image, labels = scan()
    rng = np.random.default_rng(0)
    middle = tuple(n // 2 for n in patch)
    for _ in range(20):
        start = tuple(int(v) for v in rng.integers(0, 15, 3))
        matrix = draw_matrix(rng, ALWAYS, SPACING)
        assert matrix is not None
        found, classes = spatial_patch(image, labels, start, patch, matrix, fill=0.0)
        place = tuple(s + m for s, m in zip(start, middle, strict=True))
        assert found[middle] == pytest.approx(image[place], abs=1e-4)
        assert classes[middle] == labels[place]


def test_no_corner_is_empty_inside_the_scan() -> None:
    """The patch is read from the scan, not from itself: a constant scan stays constant."""
    image, labels = np.ones((60, 60, 60), np.float32), np.full((60, 60, 60), 3, np.int64)
    rng = np.random.default_rng(1)
    for _ in range(10):
        matrix = draw_matrix(rng, replace(ALWAYS, max_degrees=(180, 180, 180)), (1, 1, 1))
        assert matrix is not None
        found, classes = spatial_patch(image, labels, (22, 22, 22), (16, 16, 16), matrix, fill=-5.0)
        np.testing.assert_allclose(found, 1, atol=1e-4)
        assert (classes == 3).all()
        assert classes.dtype == np.int64


def test_outside_the_scan_is_fill_and_background() -> None:
    image, labels = np.ones((8, 8, 8), np.float32), np.ones((8, 8, 8), np.uint8)
    found, classes = spatial_patch(image, labels, (-20, 0, 0), (8, 8, 8), np.eye(3), fill=-5.0)
    np.testing.assert_allclose(found, -5)
    assert not classes.any()


def test_rotation_keeps_millimetres() -> None:
    """A ball of 8 mm on voxels of 1 x 1.5 x 3 mm stays that ball; turned in voxels it does not."""
    shape = (31, 31, 31)
    labels = ball(shape, 8.0, SPACING)
    turn = replace(TURN, max_degrees=(90, 90, 90))
    in_mm, in_voxels = [], []
    for seed in range(8):
        for settings, scores in ((turn, in_mm), (replace(turn, in_voxels=True), in_voxels)):
            matrix = draw_matrix(np.random.default_rng(seed), settings, SPACING)
            assert matrix is not None
            _, classes = spatial_patch(labels.astype(np.float32), labels, (0, 0, 0), shape, matrix, fill=0.0)
            scores.append(dsc(classes, labels))
    assert min(in_mm) > 0.88
    assert max(in_voxels) < 0.75


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.4])
def test_a_factor_above_one_shrinks_the_anatomy(factor: float) -> None:
    """A ball of 9 mm becomes one of 9 / factor mm: its volume changes by the cube."""
    shape = (41, 41, 41)
    labels = ball(shape, 9.0, (1, 1, 1))
    settings = Augmentation(scaling=1.0, scale_ranges=((factor, factor),) * 3)
    matrix = draw_matrix(np.random.default_rng(0), settings, SPACING)
    assert matrix is not None
    _, classes = spatial_patch(labels.astype(np.float32), labels, (0, 0, 0), shape, matrix, fill=0.0)
    assert classes.sum() == pytest.approx(labels.sum() / factor**3, rel=0.1)


def test_rotation_keeps_the_volume_of_small_organs_on_average() -> None:
    """A rod of 2 x 2 x 8 voxels loses nothing: the largest linear share would leave 28 of its 32 voxels."""
    labels = np.zeros((24, 24, 24), np.uint8)
    labels[11:13, 11:13, 8:16] = 4
    rng, sizes = np.random.default_rng(0), []
    for _ in range(60):
        matrix = draw_matrix(rng, TURN, (1, 1, 1))
        assert matrix is not None
        _, classes = spatial_patch(labels.astype(np.float32), labels, (0, 0, 0), (24, 24, 24), matrix, fill=0.0)
        assert set(np.unique(classes)) <= {0, 4}
        sizes.append(int((classes == 4).sum()))
    assert np.mean(sizes) == pytest.approx(32, rel=0.03)


def test_touching_organs_get_no_gap_and_no_third_class() -> None:
    """Between classes 1 and 2 of a turned scan lies no background and no class that is not there."""
    labels = np.ones((20, 20, 20), np.uint8)
    labels[10:] = 2
    matrix = draw_matrix(np.random.default_rng(3), ALWAYS, (1, 1, 1))
    assert matrix is not None
    _, classes = spatial_patch(labels.astype(np.float32), labels, (7, 7, 7), (6, 6, 6), matrix, fill=0.0)
    assert set(np.unique(classes)) == {1, 2}


@pytest.mark.parametrize(("name", "share"), [("nnunet", 1 - 0.8**2), ("paper", 0.2), ("none", 0.0)])
def test_patches_are_turned_or_scaled_as_often_as_stated(name: str, share: float) -> None:
    """Independently in nnU-Net, jointly in the paper's code; four standard deviations of 4000 draws."""
    rng, draws = np.random.default_rng(0), 4000
    found = sum(draw_matrix(rng, augmentation(name), SPACING) is not None for _ in range(draws)) / draws
    assert abs(found - share) <= 4 * np.sqrt(share * (1 - share) / draws)


def test_angles_and_factors_stay_within_their_ranges() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        turned = draw_matrix(rng, TURN, (1, 1, 1))
        scaled = draw_matrix(
            rng, replace(AUGMENTATIONS["paper"], max_degrees=(0, 0, 0), scaling=1, rotation=1), SPACING
        )
        assert turned is not None
        assert scaled is not None
        assert np.degrees(np.arccos((np.trace(turned) - 1) / 2)) <= 3 * 30
        assert np.linalg.det(turned) == pytest.approx(1)
        x, y, z = np.diag(scaled)
        assert 0.7 <= x <= 1.3
        assert 0.6 <= y <= 1.4
        assert z == 1
        assert np.count_nonzero(scaled) == 3


def test_presets_are_those_of_the_sources() -> None:
    """nnU-Net v2's trainer; Tappeiner et al. 2022, facts of the released code."""
    nnunet, paper = augmentation("nnunet"), augmentation("paper")
    assert (nnunet.rotation, nnunet.max_degrees, nnunet.scaling) == (0.2, (30, 30, 30), 0.2)
    assert (nnunet.noise, nnunet.blur) == (Effect(0.1, 0, 0.1), Effect(0.1, 0.5, 1))
    assert (nnunet.gamma.probability, nnunet.inverted_gamma.probability) == (0.3, 0.1)
    assert (paper.rotation, paper.max_degrees, paper.joint, paper.in_voxels) == (0.2, (180, 30, 30), True, True)
    assert paper.gamma == Effect(0.3, 0.7, 1.5)
    assert (paper.noise, paper.blur, paper.low_resolution) == (Effect(), Effect(), Effect())
    with pytest.raises(ConfigError, match="did you mean 'nnunet'"):
        augmentation("nnunett")


# Intensities


def changed(values: list[float], **effects: object) -> NDArray[np.float64]:
    """Return what becomes of a row of values."""
    image = np.asarray(values, np.float32).reshape(-1, 1, 1)
    settings = Augmentation(**effects)  # type: ignore[arg-type]
    return change_intensity(image, np.random.default_rng(0), settings).ravel()


def test_gamma_by_hand() -> None:
    """Values 1, 2, 5 have range 4; squared: 1, 1 + 4/16, 5. On the negative image: 1, 5 - 4 * 9/16, 5."""
    squared = Effect(1.0, 2.0, 2.0)
    assert changed([1, 2, 5], gamma=squared, retain_statistics=False) == pytest.approx([1, 1.25, 5])
    assert changed([1, 2, 5], inverted_gamma=squared, retain_statistics=False) == pytest.approx([1, 2.75, 5])


def test_gamma_can_keep_mean_and_standard_deviation() -> None:
    found = changed([1, 2, 5, 3], gamma=Effect(1.0, 2.0, 2.0))
    assert (found.mean(), found.std()) == pytest.approx((2.75, np.std([1, 2, 5, 3])), rel=1e-5)


@pytest.mark.parametrize("effect", ["gamma", "inverted_gamma", "contrast", "blur", "low_resolution"])
def test_a_constant_patch_stays_constant(effect: str) -> None:
    assert changed([3, 3, 3, 3], **{effect: Effect(1.0, 0.8, 0.8)}) == pytest.approx([3] * 4)


def test_brightness_and_contrast_by_hand() -> None:
    """Contrast 2 about the mean 3: -1, 3, 7, cut to the patch's own 1 to 5."""
    assert changed([1, 3, 5], brightness=Effect(1.0, 0.5, 0.5)) == pytest.approx([0.5, 1.5, 2.5])
    assert changed([1, 3, 5], contrast=Effect(1.0, 0.5, 0.5)) == pytest.approx([2, 3, 4])
    assert changed([1, 3, 5], contrast=Effect(1.0, 2.0, 2.0)) == pytest.approx([1, 3, 5])


def test_noise_has_the_drawn_standard_deviation() -> None:
    found = changed([0.0] * 20000, noise=Effect(1.0, 0.1, 0.1))
    assert found.mean() == pytest.approx(0, abs=4 * 0.1 / np.sqrt(20000))
    assert found.std() == pytest.approx(0.1, rel=0.03)


def test_blur_spreads_a_point_and_keeps_its_sum() -> None:
    image = np.zeros((15, 15, 15), np.float32)
    image[7, 7, 7] = 1
    found = change_intensity(image, np.random.default_rng(0), Augmentation(blur=Effect(1.0, 0.8, 0.8)))
    assert found.sum() == pytest.approx(1, rel=1e-4)
    spread = np.sqrt((found.sum(axis=(1, 2)) * (np.arange(15) - 7) ** 2).sum())
    assert spread == pytest.approx(0.8, rel=0.05)


def test_low_resolution_keeps_the_grid_and_loses_detail() -> None:
    """At half the voxels a pattern of period two is gone; at all of them nothing changes."""
    image = np.indices((8, 8, 8)).sum(axis=0).astype(np.float32) % 2
    half, whole = (
        change_intensity(image, np.random.default_rng(0), Augmentation(low_resolution=Effect(1.0, k, k)))
        for k in (0.5, 1.0)
    )
    assert half.shape == image.shape
    assert half.std() == pytest.approx(0)
    np.testing.assert_array_equal(whole, image)


def test_draws_around_one_are_half_below_and_half_above() -> None:
    rng, effect = np.random.default_rng(0), Effect(1.0, 0.7, 1.5, halves=True)
    draws = np.array([effect.draw(rng) for _ in range(2000)])
    assert abs((draws < 1).mean() - 0.5) <= 4 * 0.5 / np.sqrt(2000)
    assert 0.7 <= draws.min() < draws.max() <= 1.5


def test_the_input_is_not_written_to_and_a_seed_repeats() -> None:
    image, labels = scan()
    before = image.copy(), labels.copy()
    every = Augmentation(
        rotation=1.0, scaling=1.0,
        **{k: Effect(1.0, 0.6, 0.9) for k in ("noise", "blur", "brightness", "contrast", "low_resolution", "gamma")},
    )  # fmt: skip

    def once() -> NDArray[np.float32]:
        rng = np.random.default_rng(5)
        matrix = draw_matrix(rng, every, SPACING)
        assert matrix is not None
        turned, _ = spatial_patch(image, labels, (2, 2, 2), (12, 12, 12), matrix, fill=0.0)
        change_intensity(image, rng, every)
        return change_intensity(turned, rng, every)

    first = once()
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, once())
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_none_leaves_the_patch_alone() -> None:
    image, _ = scan()
    assert change_intensity(image, np.random.default_rng(0), NONE) is image


@pytest.mark.parametrize("wrong", [(1.5, 0, 1), (-0.1, 0, 1), (0.5, 2, 1)])
def test_impossible_effects_are_a_value_error(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="a probability in"):
        Effect(*wrong)
