"""The best draw of patch centres: by hand, beside brute force, and never worse than the named rules."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hnlib.errors import ConfigError
from hnlib.imbalance.draw import AIMS, best_draw
from hnlib.sampling import SingleClass, UniformPosition

Array = NDArray[np.float64]
BY_HAND = np.array([[0.2, 0.1], [1.0, 0.0], [0.0, 1.0]])
GRID = np.array([w for w in itertools.product(np.arange(101) / 100, repeat=3) if abs(sum(w) - 1) < 1e-9])


def reached(table: Array, weights: Array, aim: str, wanted: Array) -> Array:
    """Return the value of an aim, larger is better, for rows of weights."""
    held = weights @ table
    if aim == "shares":
        return -np.abs(held / held.sum(axis=1, keepdims=True) - wanted).max(axis=1)
    return held.min(axis=1)


def test_largest_least_presence_by_hand() -> None:
    """Without a bound both organs get half; with half the patches anywhere, 0.1 + a = 0.05 + b and a + b = 0.5."""
    free = best_draw(BY_HAND, BY_HAND, ["a", "b"])
    assert free.value == pytest.approx(0.5)
    assert free.weights == pytest.approx({"uniform": 0, "a": 0.5, "b": 0.5}, abs=1e-6)
    bound = best_draw(BY_HAND, BY_HAND, ["a", "b"], min_uniform=0.5)
    assert bound.value == pytest.approx(0.325)
    assert bound.weights == pytest.approx({"uniform": 0.5, "a": 0.225, "b": 0.275}, abs=1e-6)


def test_target_shares_by_hand() -> None:
    """Three quarters to one: 0.1 + a = 3 (0.05 + b) and a + b = 0.5 give a = 0.3875, b = 0.1125."""
    draw = best_draw(BY_HAND, BY_HAND, ["a", "b"], aim="shares", min_uniform=0.5, targets={"a": 3, "b": 1})
    assert draw.value == pytest.approx(0, abs=1e-6)
    assert draw.weights == pytest.approx({"uniform": 0.5, "a": 0.3875, "b": 0.1125}, abs=1e-6)


def test_of_equally_good_draws_the_one_with_the_larger_mean_is_taken() -> None:
    """Organ b is at 0.3 in any draw; the rest of the weight goes where it shows organ a."""
    table = np.array([[0.3, 0.3], [1.0, 0.3], [0.4, 0.3]])
    draw = best_draw(table, table, ["a", "b"], min_uniform=0.2)
    assert draw.value == pytest.approx(0.3)
    assert draw.weights == pytest.approx({"uniform": 0.2, "a": 0.8, "b": 0}, abs=1e-6)


@pytest.mark.parametrize("aim", AIMS)
@pytest.mark.parametrize("seed", range(5))
def test_no_weights_of_a_grid_are_better(aim: str, seed: int) -> None:
    """Random tables: at least as good as every admissible triple in steps of 0.01, and near the best of them."""
    rng = np.random.default_rng(seed)
    table = rng.random((3, 2)) * (0.01 if aim == "voxels" else 1)
    wanted, least = np.array([0.3, 0.7]), 0.25
    targets = dict(zip("ab", wanted, strict=True))
    draw = best_draw(table, table, ["a", "b"], aim=aim, min_uniform=least, targets=targets)
    weights = np.array(list(draw.weights.values()))
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    assert weights[0] >= least - 1e-6
    own = reached(table, weights[None], aim, wanted)[0]
    assert own == pytest.approx(-draw.value if aim == "shares" else draw.value)
    grid = reached(table, GRID[GRID[:, 0] >= least], aim, wanted)
    assert own >= grid.max() - 1e-6 * table.max()
    assert own - grid.max() < 0.05 * table.max()


def test_optimum_is_no_worse_than_class_uniform_and_voxel_uniform() -> None:
    """Direction of field notes item 5: both rules are mixtures of the same laws, so neither can beat the optimum."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        organs = int(rng.integers(2, 8))
        table = rng.random((organs + 1, organs)) * 0.4
        table[1:] += np.eye(organs) * (1 - table[1:])
        sizes = rng.random(organs) ** 4
        draw = best_draw(table, table, [str(k) for k in range(organs)])
        for rule in (np.full(organs, 1 / organs), sizes / sizes.sum()):
            assert draw.value >= (table[1:].T @ rule).min() - 1e-9


def test_draw_gives_the_centres_to_train_with() -> None:
    """The law has one part for each weight that is not 0, in label order."""
    law = best_draw(BY_HAND, BY_HAND, ["a", "b"], min_uniform=0.5).centres(["a", "b"])
    assert [part for _, part in law.components] == [UniformPosition(), SingleClass(1), SingleClass(2)]
    assert law.weights == pytest.approx([0.5, 0.225, 0.275])


@pytest.mark.parametrize(
    ("change", "fault", "text"),
    [
        ({"aim": "presense"}, ConfigError, "unknown aim 'presense': did you mean 'presence'"),
        ({"min_uniform": 1.2}, ValueError, r"min_uniform is 1\.2"),
        ({"targets": {"c": 1}}, ConfigError, "unknown organ of the targets 'c'"),
        ({"targets": {"a": 0}}, ValueError, "not all of them 0"),
        ({"presence": [[np.nan, 0], [1, 0], [0, 1]]}, ValueError, "NaN"),
        ({"ratios": [[0.1, 0.2]]}, ValueError, r"shape \(1, 2\)"),
        ({"ratios": np.zeros((3, 2)), "aim": "shares"}, ValueError, "no patch holds an organ"),
    ],
)
def test_impossible_wishes_are_refused(change: dict[str, Any], fault: type[Exception], text: str) -> None:
    given: dict[str, Any] = {"presence": BY_HAND, "ratios": BY_HAND, "organs": ["a", "b"], **change}
    with pytest.raises(fault, match=text):
        best_draw(**given)


def test_both_sides_of_a_pair_get_the_same_weight_where_that_is_asked_for() -> None:
    """By hand: patches on the left gland show the cord in half of the cases, on the right never.

    Free, the cord's need of sightings goes through the left gland alone; symmetric, both glands have the same weight.
    """
    organs = ["parotid_left", "parotid_right", "spinal_cord"]
    table = np.array([[0, 0, 0], [1, 0.2, 0.5], [0.2, 1, 0], [0, 0, 0.5]], float)
    free = best_draw(table, table, organs)
    even = best_draw(table, table, organs, symmetric=True)
    assert free.weights["parotid_left"] > free.weights["parotid_right"] + 0.1
    assert even.weights["parotid_left"] == pytest.approx(even.weights["parotid_right"])
    # With w on each gland and 1 - 2 w on the cord: 1.2 w = 0.5 w + 0.5 (1 - 2 w) at w = 0.5 / 1.7.
    assert even.weights["parotid_left"] == pytest.approx(0.5 / 1.7)
    assert even.value == pytest.approx(0.6 / 1.7)
    assert even.value <= free.value


@pytest.mark.parametrize("aim", AIMS)
def test_symmetry_costs_but_keeps_to_every_other_wish(aim: str) -> None:
    """Random tables of two pairs and a single organ: equal sides, the uniform share, and never better than free."""
    organs = ["parotid_left", "lens_right", "mandible", "parotid_right", "lens_left"]
    rng = np.random.default_rng(5)
    for _ in range(5):
        table = rng.random((6, 5))
        free, even = (best_draw(table, table, organs, aim=aim, min_uniform=0.3, symmetric=s) for s in (False, True))
        for name in ("parotid", "lens"):
            assert even.weights[f"{name}_left"] == pytest.approx(even.weights[f"{name}_right"], abs=1e-5)
        assert even.weights["uniform"] >= 0.3 - 1e-5
        assert sum(even.weights.values()) == pytest.approx(1)
        assert (even.value - free.value) * (1 if aim == "shares" else -1) >= -1e-6


def test_a_side_without_its_partner_is_on_its_own() -> None:
    free, even = (best_draw(BY_HAND, BY_HAND, ["parotid_left", "mandible"], symmetric=s) for s in (False, True))
    assert even == free


def test_where_nothing_is_gained_by_forcing_nothing_is_forced() -> None:
    """Every patch shows every organ: of all the best weights, those of patches anywhere."""
    found = best_draw(np.ones((4, 3)), np.full((4, 3), 0.1), ["a", "b", "c"], min_uniform=0.25)
    assert found.weights == pytest.approx({"uniform": 1.0, "a": 0.0, "b": 0.0, "c": 0.0})
