"""Exact in-patch class ratios against enumeration, and sigma against the paper."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hnlib.imbalance import (
    PAPER_CLASSES,
    PAPER_RATIOS,
    PAPER_SIGMA,
    expected_ratios,
    presence,
    sigma_of_mean,
    sigma_pooled,
)
from hnlib.organs import ORGANS
from hnlib.sampling import (
    RULES,
    CentreDistribution,
    CentreSampler,
    ClassUniform,
    HuGated,
    UniformPosition,
    extract,
    patch_start,
)

MIXTURES = {
    **RULES,
    "gated": CentreDistribution(((0.25, HuGated(0.0)), (0.35, ClassUniform()), (0.4, UniformPosition()))),
}


def enumerate_centres(
    labels: NDArray[np.uint8],
    num_classes: int,
    patch: tuple[int, int, int],
    centres: CentreDistribution,
    image_hu: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cut the patch of every centre and weigh its class counts: ratios and presence the slow way."""
    probabilities = centres.probabilities(labels, patch, image_hu)
    ratios, chance = np.zeros(num_classes), np.zeros(num_classes)
    for centre in np.ndindex(labels.shape):
        cut = extract(labels, patch_start(centre, labels.shape, patch), patch, pad_value=0)
        counts = np.bincount(cut.ravel(), minlength=num_classes)
        ratios += probabilities[centre] * counts / cut.size
        chance += probabilities[centre] * (counts > 0)
    return ratios, chance


def random_case(
    shape: tuple[int, int, int], num_classes: int, density: float, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return random labels, the stated share of them foreground, and random CT numbers."""
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(shape) < density, rng.integers(0, num_classes, shape), 0).astype(np.uint8)
    return labels, rng.normal(0.0, 100.0, shape)


@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    patch=st.tuples(*[st.integers(1, 8)] * 3),
    density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    name=st.sampled_from(sorted(MIXTURES)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_equals_enumeration_of_all_centres(
    shape: tuple[int, int, int], patch: tuple[int, int, int], density: float, name: str, seed: int
) -> None:
    """Ratios and presence equal the enumeration of all centres to 1e-12, also for patches beyond the volume."""
    labels, image_hu = random_case(shape, 4, density, seed)
    rule = MIXTURES[name]
    ratios, chance = enumerate_centres(labels, 5, patch, rule, image_hu)
    exact = expected_ratios(labels, 5, patch, rule, image_hu)
    assert np.abs(exact - ratios).max() < 1e-12
    assert np.abs(presence(labels, 5, patch, rule, image_hu) - chance).max() < 1e-12
    assert exact.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", MIXTURES)
def test_solid_organs_equal_enumeration(name: str) -> None:
    """Solid organs, one touching the border, one filling a whole patch: every rule equals enumeration."""
    labels = np.zeros((9, 8, 7), dtype=np.uint8)
    labels[1:6, 1:6, 1:6] = 1
    labels[8, 7, 5:] = 3
    image_hu = np.random.default_rng(0).normal(0.0, 400.0, labels.shape)
    for patch in ((3, 3, 3), (1, 1, 1), (9, 8, 7), (5, 9, 2)):
        ratios, chance = enumerate_centres(labels, 4, patch, MIXTURES[name], image_hu)
        assert np.abs(expected_ratios(labels, 4, patch, MIXTURES[name], image_hu) - ratios).max() < 1e-12
        assert np.abs(presence(labels, 4, patch, MIXTURES[name], image_hu) - chance).max() < 1e-12


def test_row_of_voxels_by_hand() -> None:
    """Row 0 1 1 1 2 0, patch of four, voxel-uniform: starts 0, 1, 2 have 1/2, 1/4, 1/4.

    Patches 0111, 1112, 1120: class 1 fills 3, 3, 2 of four voxels, class 2 fills 0, 1, 1.
    """
    labels = np.array([0, 1, 1, 1, 2, 0], dtype=np.uint8).reshape(6, 1, 1)
    ratios = expected_ratios(labels, 3, (4, 1, 1), RULES["voxel_uniform"])
    assert ratios.tolist() == pytest.approx([3 / 16, 11 / 16, 2 / 16])
    chance = presence(labels, 3, (4, 1, 1), RULES["voxel_uniform"])
    assert chance.tolist() == pytest.approx([3 / 4, 1.0, 1 / 2])


def test_a_law_may_be_given_by_its_name() -> None:
    labels, patch = np.array([0, 0, 0, 0, 0, 1], np.uint8).reshape(6, 1, 1), (4, 1, 1)
    for measure in (expected_ratios, presence):
        assert measure(labels, 2, patch, "uniform").tolist() == measure(labels, 2, patch, RULES["uniform"]).tolist()


def test_one_voxel_patches_have_the_law_of_their_centres() -> None:
    """A patch of one voxel is its centre: class-uniform centres give every organ the same ratio and presence."""
    labels, _ = random_case((6, 6, 6), 4, 0.3, seed=1)
    ratios = expected_ratios(labels, 4, (1, 1, 1), RULES["class_uniform"])
    assert ratios.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    assert presence(labels, 4, (1, 1, 1), RULES["class_uniform"]).tolist() == pytest.approx(ratios.tolist())


def test_padding_counts_as_background() -> None:
    """A volume that is all organ, in a patch of twice its length: half the patch is background."""
    labels = np.ones((4, 3, 2), dtype=np.uint8)
    for rule in ("uniform", "nnunet"):
        assert expected_ratios(labels, 2, (4, 3, 4), RULES[rule]).tolist() == pytest.approx([0.5, 0.5])
        assert presence(labels, 2, (4, 3, 4), RULES[rule]).tolist() == [1.0, 1.0]
        assert expected_ratios(labels, 2, (4, 3, 2), RULES[rule]).tolist() == pytest.approx([0.0, 1.0])
        assert presence(labels, 2, (4, 3, 2), RULES[rule]).tolist() == pytest.approx([0.0, 1.0])


def test_patch_of_the_whole_scan_has_the_scan_ratios() -> None:
    """A patch as large as the scan has the scan's own ratios, whatever the rule."""
    labels, image_hu = random_case((7, 5, 6), 4, 0.3, seed=2)
    whole = np.bincount(labels.ravel(), minlength=4) / labels.size
    for rule in MIXTURES.values():
        assert np.abs(expected_ratios(labels, 4, labels.shape, rule, image_hu) - whole).max() < 1e-14


def test_absent_organs_have_nothing() -> None:
    """An organ that the case does not hold has ratio and presence exactly 0; a scan without organs is background."""
    labels = np.zeros((6, 5, 4), dtype=np.uint8)
    for rule in ("nnunet", "voxel_uniform", "class_uniform"):
        assert expected_ratios(labels, 3, (2, 2, 2), RULES[rule]).tolist() == [1.0, 0.0, 0.0]
        assert presence(labels, 3, (2, 2, 2), RULES[rule]).tolist() == [1.0, 0.0, 0.0]
    labels[0, 0, 0] = 2
    assert expected_ratios(labels, 4, (2, 2, 2), RULES["nnunet"])[[1, 3]].tolist() == [0.0, 0.0]
    assert presence(labels, 4, (2, 2, 2), RULES["nnunet"])[[1, 3]].tolist() == [0.0, 0.0]


def test_organ_out_of_reach_is_never_seen() -> None:
    """An organ that no patch of the rule can reach has ratio and presence exactly 0."""
    labels = np.zeros((30, 4, 4), dtype=np.uint8)
    image_hu = np.zeros(labels.shape)
    labels[28:, 2:, 2:] = 1
    image_hu[:9] = 500.0
    rule = CentreDistribution(((1.0, HuGated(324.7904)),))
    assert expected_ratios(labels, 2, (5, 3, 3), rule, image_hu)[1] == 0.0
    assert presence(labels, 2, (5, 3, 3), rule, image_hu)[1] == 0.0


def test_ratios_are_linear_in_the_mixture() -> None:
    """The ratios and presence of a mixture are the mixture of those of its components."""
    labels, _ = random_case((8, 7, 6), 4, 0.2, seed=3)
    for measure in (expected_ratios, presence):
        parts = [measure(labels, 4, (3, 4, 2), RULES[name]) for name in ("uniform", "class_uniform")]
        mixed = measure(labels, 4, (3, 4, 2), RULES["class_uniform_two_thirds"])
        assert np.abs(mixed - parts[0] / 3 - parts[1] * 2 / 3).max() < 1e-14


@pytest.mark.parametrize("name", ["nnunet", "paper"])
def test_training_draws_meet_the_exact_values(name: str) -> None:
    """20,000 patches cut as training cuts them have the exact ratios and presence within 5 standard errors."""
    labels = np.zeros((9, 8, 7), dtype=np.uint8)
    labels[1:5, 2:6, 1:4] = 1
    labels[8, 7, 5:] = 2
    image_hu = np.random.default_rng(0).normal(0.0, 400.0, labels.shape)
    rule, patch, rng = RULES[name], (4, 3, 9), np.random.default_rng(1)
    sampler = CentreSampler(rule, labels, patch, image_hu)
    slots = [index for _ in range(10_000) for index in rule.allocate(2, rng)]
    starts = (patch_start(sampler.draw(rng, index), labels.shape, patch) for index in slots)
    shares = np.array([np.bincount(extract(labels, s, patch, 0).ravel(), minlength=3) / 108 for s in starts])
    for sample, exact in (
        (shares, expected_ratios(labels, 3, patch, rule, image_hu)),
        (shares > 0, presence(labels, 3, patch, rule, image_hu)),
    ):
        error = sample.std(axis=0) / np.sqrt(len(slots))
        assert (np.abs(sample.mean(axis=0) - exact) <= 5 * error + 1e-12).all()


def test_real_size_takes_less_than_a_tenth_of_a_second() -> None:
    """A case of 100 x 61 x 114 voxels takes below 0.1 s of processor time (best of five, nnU-Net's patch and rule)."""
    labels = np.zeros((100, 61, 114), dtype=np.uint8)
    for label, corner in enumerate(((20, 10, 10), (70, 10, 40), (45, 30, 60), (40, 20, 10), (45, 15, 80)), start=1):
        labels[tuple(slice(c, c + 14) for c in corner)] = label

    def seconds() -> float:
        begin = time.process_time()
        expected_ratios(labels, 6, (64, 48, 64), RULES["nnunet"])
        return time.process_time() - begin

    assert min(seconds() for _ in range(5)) < 0.1


@pytest.mark.parametrize(
    ("name", "sigma"), [("full", 0.330095), ("large", 0.326048), ("small", 0.323358), ("8x8x8", 0.271297)]
)
def test_sigma_of_published_mean_ratios(name: str, sigma: float) -> None:
    """Tappeiner et al. 2022: the four mean vectors in the authors' code give these sigmas."""
    assert sigma_of_mean(PAPER_RATIOS[name]) == pytest.approx(sigma, abs=5e-7)
    assert sum(PAPER_RATIOS[name]) == pytest.approx(1.0, abs=1e-8)


def test_printed_sigma_lies_at_or_above_sigma_of_mean() -> None:
    """Tappeiner et al. 2022, section 3.3: printed sigmas are pooled, so rounding apart none is below that of the mean.

    Full and large agree to the digits printed; small and 8x8x8 are larger.
    """
    assert list(PAPER_SIGMA) == list(PAPER_RATIOS)
    for name, ratios in PAPER_RATIOS.items():
        assert PAPER_SIGMA[name] > sigma_of_mean(ratios) - 5e-6
    assert PAPER_SIGMA["8x8x8"] - sigma_of_mean(PAPER_RATIOS["8x8x8"]) == pytest.approx(1.63e-4, abs=1e-6)


def test_paper_classes_are_organs_of_the_vocabulary() -> None:
    """The columns of the paper's vectors are background and seven known organs."""
    assert PAPER_CLASSES[0] == "background"
    assert set(PAPER_CLASSES[1:]) <= set(ORGANS)
    assert {len(ratios) for ratios in PAPER_RATIOS.values()} == {len(PAPER_CLASSES)}


def test_sigma_closed_forms() -> None:
    """Eight classes: rest spread equally gives (b - 1/8) / sqrt(7); one class alone gives the maximum sqrt(7) / 8."""
    for share in (1 / 8, 0.5, 0.98, 1.0):
        ratios = [share] + [(1 - share) / 7] * 7
        assert sigma_of_mean(ratios) == pytest.approx((share - 1 / 8) / np.sqrt(7), abs=1e-15)
    two = [0.9, 0.1, 0, 0, 0, 0, 0, 0]
    assert sigma_of_mean(two) == pytest.approx(np.sqrt((0.9**2 + 0.1**2) / 8 - 1 / 64))


@given(st.lists(st.lists(st.floats(0.01, 1.0), min_size=5, max_size=5), min_size=1, max_size=8))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_pooled_sigma_is_never_below_sigma_of_mean(raw: list[list[float]]) -> None:
    """Pooled sigma squared is sigma of the mean squared plus the variance between cases, and is within bounds."""
    rows = np.array(raw)
    rows /= rows.sum(axis=1, keepdims=True)
    pooled, mean = sigma_pooled(rows), sigma_of_mean(rows)
    assert pooled >= mean - 1e-15
    assert pooled**2 == pytest.approx(mean**2 + rows.var(axis=0).mean(), abs=1e-14)
    assert pooled**2 == pytest.approx(np.mean([sigma_of_mean(row) ** 2 for row in rows]), abs=1e-14)
    assert 0 <= pooled <= 2 / 5


def test_errors_say_what_came_and_what_was_needed() -> None:
    """Labels outside the classes, bad patches, missing images and ratios that are no shares are refused."""
    labels = np.zeros((4, 4, 4), dtype=np.int16)
    labels[0, 0, 0] = 5
    for measure in (expected_ratios, presence):
        with pytest.raises(ValueError, match=r"labels lie in 0\.\.5; 0\.\.3 is needed for num_classes=4"):
            measure(labels, 4, (2, 2, 2), RULES["uniform"])
        with pytest.raises(ValueError, match=r"labels lie in -5\.\.0"):
            measure(-labels, 6, (2, 2, 2), RULES["uniform"])
        with pytest.raises(ValueError, match=r"patch_size is \(0, 2, 2\); three whole numbers of at least 1"):
            measure(labels, 6, (0, 2, 2), RULES["uniform"])
        with pytest.raises(ValueError, match="num_classes is 0; at least 1"):
            measure(labels, 0, (2, 2, 2), RULES["uniform"])
        with pytest.raises(ValueError, match="image_hu is None"):
            measure(labels, 6, (2, 2, 2), RULES["paper"])
    with pytest.raises(ValueError, match=r"row 1 sum to 0\.5.*rows of shares"):
        sigma_of_mean([[0.5, 0.5], [0.25, 0.25]])
    with pytest.raises(ValueError, match=r"row 0 sum to nan.*rows of shares"):
        sigma_of_mean([np.nan, 1.0])
    with pytest.raises(ValueError, match=r"smallest of all is -0\.5"):
        sigma_of_mean([1.5, -0.5])
    with pytest.raises(ValueError, match=r"ratios_by_case has shape \(2,\); \(cases, classes\) is needed"):
        sigma_pooled([0.5, 0.5])
    with pytest.raises(ValueError, match=r"shape \(0,\)"):
        sigma_of_mean([])
