"""The law of patch centres: what is stated, what is drawn, and where the patch lies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hnlib.errors import ConfigError
from hnlib.sampling import (
    RULES,
    CentreComponent,
    CentreDistribution,
    CentreSampler,
    ClassUniform,
    HuGated,
    UniformPosition,
    VoxelUniform,
    centre_rule,
    extract,
    patch_start,
)

COMPONENTS: dict[str, CentreComponent] = {
    "UniformPosition": UniformPosition(),
    "VoxelUniform": VoxelUniform(),
    "ClassUniform": ClassUniform(),
    "HuGated": HuGated(100.0),
}
PATCHES = [(4, 3, 5), (5, 4, 11)]  # the second is longer than the volume along Z
DRAWS = 100_000

Labels = NDArray[np.uint8]


def example() -> tuple[Labels, NDArray[np.float32]]:
    """Return a volume with a large organ and two tiny ones at the border, and CT numbers."""
    labels = np.zeros((9, 7, 8), dtype=np.uint8)
    labels[2:6, 1:5, 3:6] = 1
    labels[8, 0, 6:] = 2  # two voxels on an edge of the volume
    labels[0, 6, 0] = 3  # one voxel in a corner
    image_hu = np.random.default_rng(7).normal(150.0, 300.0, labels.shape).astype(np.float32)
    return labels, image_hu


def line(*values: int) -> Labels:
    """Return a volume that is a row of voxels along X."""
    return np.array(values, dtype=np.uint8).reshape(-1, 1, 1)


def assert_drawn_as_stated(draw: Callable[[], Sequence[tuple[int, int, int]]], stated: NDArray[np.float64]) -> None:
    """Compare 100,000 draws with the stated probabilities.

    Every voxel: |count - n p| <= 5 sqrt(n p (1 - p)), a two-sided chance of 6e-7 each; with some
    500 voxels a law a false alarm in 3000. All voxels: chi-square within 5 of its standard
    deviations, sqrt(2 dof). A voxel of probability 0 is never drawn.
    """
    counts = np.zeros(stated.shape)
    for centre, count in Counter(draw()).items():
        counts[centre] = count
    assert counts.sum() == DRAWS
    assert not counts[stated == 0].any()
    expected = DRAWS * stated[stated > 0]
    assert expected.min() > 20
    difference = counts[stated > 0] - expected
    assert (np.abs(difference) <= 5 * np.sqrt(expected * (1 - stated[stated > 0])) + 1e-9).all()
    freedom = expected.size - 1
    assert np.sum(difference**2 / expected) <= freedom + 5 * np.sqrt(2 * freedom) + 1e-9


# Where the patch lies


def test_clamp_by_hand() -> None:
    """Ten voxels, patch of four: centre 5 starts at 3, both ends are clamped, a patch of 13 pads one before."""
    starts = [patch_start((c, c, c), (10, 10, 10), (4, 5, 13)) for c in (0, 5, 9)]
    assert starts == [(0, 0, -1), (3, 3, -1), (6, 5, -1)]


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 29))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_clamped_patch_holds_its_centre(length: int, width: int, centre: int) -> None:
    """A clamped patch lies inside the volume and holds its centre; a longer one is padded evenly."""
    centre = centre % length
    start = patch_start((centre, 0, 0), (length, 1, 1), (width, 1, 1))[0]
    assert start <= centre < start + width
    if width <= length:
        assert 0 <= start <= length - width
    else:
        before, after = -start, start + width - length
        assert before >= 0
        assert after - before in (0, 1)


def test_extract_inside_is_a_copy() -> None:
    """A patch inside the volume is a crop, and writing to it leaves the volume alone."""
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    patch = extract(array, (1, 0, 2), (2, 3, 2), pad_value=-1)
    assert patch.dtype == np.int16
    assert np.array_equal(patch, array[1:3, 0:3, 2:4])
    patch[:] = 0
    assert array[1, 0, 2] == 22


def test_extract_pads_both_sides_and_keeps_channels() -> None:
    """Outside the array stands the padding value; leading axes are kept."""
    array = np.arange(12.0).reshape(2, 3, 1, 2)
    patch = extract(array, (-1, 0, -1), (5, 1, 4), pad_value=-9.0)
    assert np.array_equal(patch, np.pad(array, ((0, 0), (1, 1), (0, 0), (1, 1)), constant_values=-9.0))
    assert (extract(array, (7, 0, 0), (2, 1, 2), pad_value=5.0) == 5.0).all()


# What is stated


def test_components_by_hand() -> None:
    """Row 0 1 1 1 2 0, patch of four: each component gives the probabilities one writes by hand."""
    labels = line(0, 1, 1, 1, 2, 0)
    image_hu = np.array([200.0, 900.0, 0.0, 0.0, 0.0, 100.0]).reshape(labels.shape)
    patch = (4, 1, 1)

    def stated(component: CentreComponent) -> list[float]:
        return component.probabilities(labels, patch, image_hu).ravel().tolist()

    assert stated(UniformPosition()) == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3, 0])
    assert stated(VoxelUniform()) == pytest.approx([0, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 0])
    assert stated(ClassUniform()) == pytest.approx([0, 1 / 6, 1 / 6, 1 / 6, 1 / 2, 0])
    assert stated(HuGated(99.0)) == pytest.approx([1 / 2, 0, 0, 0, 0, 1 / 2])
    assert stated(HuGated(100.0)) == pytest.approx([1, 0, 0, 0, 0, 0]), "the threshold itself is out"


def test_mixture_and_push_by_hand() -> None:
    """Row 0 1 1 1 2 0: nnU-Net's rule halves both laws, and clamping piles mass up at both ends."""
    labels = line(0, 1, 1, 1, 2, 0)
    rule = RULES["nnunet"]
    assert rule.probabilities(labels, (4, 1, 1)).ravel().tolist() == pytest.approx(
        [0, 1 / 12, 1 / 6 + 1 / 12, 1 / 6 + 1 / 12, 1 / 6 + 1 / 4, 0]
    )
    # Centres 0..2 start at 0, centre 3 at 1, centres 4 and 5 at 2.
    assert rule.start_probabilities(labels, (4, 1, 1)).ravel().tolist() == pytest.approx([4 / 12, 3 / 12, 5 / 12])


@pytest.mark.parametrize("patch", [*PATCHES, (1, 1, 1), (9, 7, 8), (20, 20, 20)])
@pytest.mark.parametrize("name", RULES)
def test_start_law_is_centre_law_through_the_clamp(name: str, patch: tuple[int, int, int]) -> None:
    """Every rule: start probabilities equal the centre probabilities summed over `patch_start`."""
    labels, image_hu = example()
    centres = RULES[name].probabilities(labels, patch, image_hu)
    starts = RULES[name].start_probabilities(labels, patch, image_hu)
    expected = np.zeros_like(starts)
    for centre in zip(*np.nonzero(centres), strict=True):
        expected[tuple(max(s, 0) for s in patch_start(centre, labels.shape, patch))] += centres[centre]
    assert centres.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.abs(starts - expected).max() < 1e-14


def test_uniform_position_gives_every_patch_the_same_chance() -> None:
    """Position-uniform centres clamp to equally likely patches, also where the volume is shorter."""
    labels, _ = example()
    for patch in [*PATCHES, (1, 1, 1), (20, 1, 20)]:
        starts = RULES["uniform"].start_probabilities(labels, patch)
        assert np.allclose(starts, 1 / starts.size, rtol=1e-12)


def test_label_order_in_memory_does_not_matter() -> None:
    """A label map in Fortran order, as nibabel gives, states and draws the same."""
    labels, image_hu = example()
    other = np.asfortranarray(labels)
    for rule in RULES.values():
        assert np.array_equal(
            rule.probabilities(labels, (4, 3, 5), image_hu), rule.probabilities(other, (4, 3, 5), image_hu)
        )


@pytest.mark.parametrize("component", [VoxelUniform(), ClassUniform(), HuGated(1e6)])
def test_no_admissible_voxel_falls_back_to_uniform_position(component: CentreComponent) -> None:
    """Without an admissible voxel a component states and draws the uniform law over positions."""
    labels = np.zeros((5, 4, 3), dtype=np.uint8)
    image_hu = np.zeros(labels.shape)
    uniform = UniformPosition().probabilities(labels, (4, 4, 4))
    assert np.array_equal(component.probabilities(labels, (4, 4, 4), image_hu), uniform)
    assert uniform[component.draw(np.random.default_rng(0), labels, (4, 4, 4), image_hu)] > 0


# What is drawn


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("name", COMPONENTS)
def test_components_draw_what_they_state(name: str, patch: tuple[int, int, int]) -> None:
    """100,000 draws of every component agree with its probabilities, tiny organs at the border included."""
    labels, image_hu = example()
    component = COMPONENTS[name]
    law, rng = component.law(labels, patch, image_hu), np.random.default_rng(1)
    assert_drawn_as_stated(
        lambda: [law.draw(rng) for _ in range(DRAWS)], component.probabilities(labels, patch, image_hu)
    )


@pytest.mark.parametrize("batch_size", [2, 8])
@pytest.mark.parametrize("name", RULES)
def test_rules_draw_what_they_state(name: str, batch_size: int) -> None:
    """100,000 draws in batches agree with the probabilities of the rule, as batches of that size have it."""
    labels, image_hu = example()
    rule, rng = RULES[name], np.random.default_rng(2)
    sampler = CentreSampler(rule, labels, (4, 3, 5), image_hu)

    def draw() -> list[tuple[int, int, int]]:
        batches = (rule.allocate(batch_size, rng) for _ in range(DRAWS // batch_size))
        return [sampler.draw(rng, index) for batch in batches for index in batch]

    assert rule.for_batch(batch_size).weights == pytest.approx(rule.weights)
    assert_drawn_as_stated(draw, rule.probabilities(labels, (4, 3, 5), image_hu))


def test_class_uniform_favours_the_tiny_organ() -> None:
    """A class of two voxels at the border gets a third of the class-uniform centres, 2/51 of the voxel-uniform ones."""
    labels, _ = example()
    tiny = labels == 2
    assert ClassUniform().probabilities(labels, (4, 3, 5))[tiny].sum() == pytest.approx(1 / 3)
    assert VoxelUniform().probabilities(labels, (4, 3, 5))[tiny].sum() == pytest.approx(2 / 51)


def test_draws_follow_the_seed() -> None:
    """The same seed gives the same centres, another seed others."""
    labels, image_hu = example()
    sampler = CentreSampler(RULES["nnunet"], labels, (4, 3, 5), image_hu)

    def centres(seed: int) -> list[tuple[int, int, int]]:
        rng = np.random.default_rng(seed)
        return [sampler.draw(rng, i % 2) for i in range(20)]

    assert centres(3) == centres(3)
    assert centres(3) != centres(4)


def test_stratified_batches_have_fixed_counts() -> None:
    """nnU-Net forces the last patch of two; other sizes go by largest remainder, the earlier component first."""
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    rule = RULES["nnunet"]
    assert all(rule.allocate(2, rng) == [0, 1] for _ in range(10))
    assert rule.allocate(1, rng) == [0]
    assert rule.allocate(5, rng) == [0, 0, 0, 1, 1]
    thirds = CentreDistribution(
        ((1 / 3, UniformPosition()), (1 / 3, VoxelUniform()), (1 / 3, ClassUniform())), stratified=True
    )
    assert thirds.allocate(2, rng) == [0, 1]
    assert thirds.allocate(6, rng) == [0, 0, 1, 1, 2, 2]
    uneven = CentreDistribution(((0.71, UniformPosition()), (0.29, ClassUniform())), stratified=True)
    assert [uneven.allocate(100, rng).count(index) for index in (0, 1)] == [71, 29]
    assert rng.bit_generator.state == before, "fixed counts take no random numbers"


def test_for_batch_says_what_an_odd_batch_holds() -> None:
    """Three patches by nnU-Net's rule hold two uniform and one forced: shares 2/3 and 1/3, not one half."""
    assert RULES["nnunet"].for_batch(3).weights == pytest.approx((2 / 3, 1 / 3))
    assert RULES["nnunet"].for_batch(1).weights == pytest.approx((1.0, 0.0))
    assert RULES["paper"].for_batch(3) is RULES["paper"]


def test_independent_batches_are_binomial() -> None:
    """The paper's rule: foreground slots of 30,000 batches of two are binomial, none in 4 of 9 batches."""
    rng = np.random.default_rng(5)
    n = 30_000
    forced = np.array([sum(RULES["paper"].allocate(2, rng)) for _ in range(n)])
    for count, chance in ((0, 4 / 9), (1, 4 / 9), (2, 1 / 9)):
        assert abs((forced == count).sum() - n * chance) <= 5 * np.sqrt(n * chance * (1 - chance))


# Names and errors


def test_rules_hold_the_stated_weights() -> None:
    """The named rules have the weights of the papers, and only nnU-Net's is stratified."""
    assert RULES["nnunet"].components == ((0.5, UniformPosition()), (0.5, ClassUniform()))
    assert RULES["paper"].components == ((2 / 3, HuGated(324.7904)), (1 / 3, VoxelUniform()))
    assert RULES["class_uniform_two_thirds"].components == ((1 / 3, UniformPosition()), (2 / 3, ClassUniform()))
    assert [name for name, rule in RULES.items() if rule.stratified] == ["nnunet"]
    assert all(centre_rule(name) is centre_rule(rule) is rule for name, rule in RULES.items())


def test_unknown_rule_names_the_nearest() -> None:
    """An unknown rule is refused with the nearest known name."""
    with pytest.raises(ConfigError, match="unknown sampling rule 'nnuent': did you mean 'nnunet'"):
        centre_rule("nnuent")


@pytest.mark.parametrize("patch", [(0, 4, 4), (4, -1, 4), (4, 4), (4, 4, 2.5), 4])
def test_bad_patch_size(patch: Any) -> None:
    """Every entry point refuses a patch size that is not three positive whole numbers and shows it."""
    labels, image_hu = example()
    calls: list[Callable[[], object]] = [
        lambda: patch_start((0, 0, 0), labels.shape, patch),
        lambda: extract(labels, (0, 0, 0), patch, 0),
        lambda: VoxelUniform().probabilities(labels, patch),
        lambda: RULES["nnunet"].start_probabilities(labels, patch),
        lambda: CentreSampler(RULES["paper"], labels, patch, image_hu),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"patch_size is .*; three whole numbers of at least 1 are needed"):
            call()


@pytest.mark.parametrize("weights", [(0.5, 0.4), (1.5, -0.5), (), (float("nan"), 0.5)])
def test_bad_weights(weights: tuple[float, ...]) -> None:
    """Weights that are negative or do not sum to one are refused with their sum."""
    with pytest.raises(ValueError, match=r"sum to .*; weights of at least 0 that sum to 1 are needed"):
        CentreDistribution(tuple((weight, UniformPosition()) for weight in weights))


def test_bad_arrays_and_batch() -> None:
    """Labels of another kind, a missing or misshapen image and an empty batch are refused."""
    labels, image_hu = example()
    with pytest.raises(ValueError, match="type float64; a 3D integer array"):
        VoxelUniform().probabilities(labels.astype(float), (2, 2, 2))
    with pytest.raises(ValueError, match=r"shape \(9, 7\).*a 3D integer array"):
        VoxelUniform().probabilities(labels[..., 0], (2, 2, 2))
    with pytest.raises(ValueError, match=r"image_hu has shape \(9, 7, 7\); the shape of the labels, \(9, 7, 8\)"):
        CentreSampler(RULES["paper"], labels, (2, 2, 2), image_hu[..., 1:])
    with pytest.raises(ValueError, match="image_hu is None; HuGated"):
        CentreSampler(RULES["paper"], labels, (2, 2, 2))
    with pytest.raises(ValueError, match="array has shape \\(4, 4\\); at least three axes"):
        extract(np.zeros((4, 4)), (0, 0, 0), (2, 2, 2), 0)
    with pytest.raises(ValueError, match="batch_size is 0; at least 1 is needed"):
        RULES["nnunet"].allocate(0, np.random.default_rng(0))
