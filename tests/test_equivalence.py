"""Intervals of differences and ratios: known values, nominal coverage, and verdicts against a margin."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from hnlib.stats import Group, Interval, mean_difference, mean_ratio, non_inferiority, spread_ratio, verdict


def group(values: np.ndarray) -> Group:
    return Group(float(values.mean()), float(values.std(ddof=1)), len(values))


def test_the_difference_is_scipys_welch_interval() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(3, 1, 12), rng.normal(1, 4, 31)
    expected = scipy_stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.90)
    found = mean_difference(group(a), group(b))
    assert found.value == pytest.approx(a.mean() - b.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_the_ratio_is_that_of_geometric_means() -> None:
    """1, 4 against 2, 8: geometric means 2 and 4."""
    found = mean_ratio(group(np.log([1.0, 4.0])), group(np.log([2.0, 8.0])))
    assert found.value == pytest.approx(0.5)
    assert found.low * found.high == pytest.approx(0.25)  # symmetric on the log scale


def test_two_constant_groups_differ_by_a_number_without_doubt() -> None:
    assert mean_difference(Group(2.0, 0.0, 5), Group(0.5, 0.0, 9)) == (1.5, 1.5, 1.5)


def test_intervals_cover_as_often_as_they_say() -> None:
    """1000 draws of 10 and 25 normal values, SD 1 and 2: 90 % within four binomial SDs."""
    rng = np.random.default_rng(7)
    hits = np.zeros(2)
    for _ in range(1000):
        a, b = group(rng.normal(0, 1, 10)), group(rng.normal(0, 2, 25))
        difference, spread = mean_difference(a, b), spread_ratio(a, b)
        hits += [difference.low <= 0 <= difference.high, spread.low <= 0.5 <= spread.high]
    assert abs(hits / 1000 - 0.9).max() < 4 * math.sqrt(0.9 * 0.1 / 1000)


def test_a_spread_interval_swaps_with_its_groups() -> None:
    a, b = Group(0, 1.3, 14), Group(0, 0.9, 33)
    one, other = spread_ratio(a, b), spread_ratio(b, a)
    assert (1 / one.high, 1 / one.low) == pytest.approx((other.low, other.high))


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ((0.81, 1.24), "equivalent"),
        ((0.80, 1.25), "equivalent"),
        ((0.79, 1.00), "undecided"),
        ((1.10, 1.40), "undecided"),
        ((0.50, 2.00), "undecided"),
        ((1.26, 1.40), "different"),
        ((0.10, 0.79), "different"),
    ],
)
def test_verdicts(interval: tuple[float, float], expected: str) -> None:
    assert verdict(Interval(1.0, *interval), (0.8, 1.25)) == expected


def test_groups_that_allow_no_interval_are_refused() -> None:
    with pytest.raises(ValueError, match="two values or more"):
        mean_difference(Group(0, 1, 1), Group(0, 1, 5))
    with pytest.raises(ValueError, match="no spread"):
        spread_ratio(Group(0, 1, 5), Group(0, 0, 5))


def simulated_observers(rng: np.random.Generator, patients: int, noise: float, bias: float) -> tuple[np.ndarray, ...]:
    """DSC of a model and of observer B with observer A: each draws the two ends of an organ of 20 mm, with errors."""
    ends = np.array([0.0, 20.0]) + rng.normal(0, 2, (patients, 2))
    a, b = (ends + rng.normal(0, 1, ends.shape) for _ in range(2))
    model = ends + rng.normal(0, noise, ends.shape) + [-bias, bias]

    def dsc(one: np.ndarray, two: np.ndarray) -> np.ndarray:
        overlap = np.minimum(one[:, 1], two[:, 1]) - np.maximum(one[:, 0], two[:, 0])
        return 2 * np.clip(overlap, 0, None) / (np.diff(one)[:, 0] + np.diff(two)[:, 0])

    return dsc(model, a), dsc(b, a)


def test_a_model_that_is_one_more_observer_is_shown_to_be_non_inferior() -> None:
    """Same errors as the people, 30 patients, 5 points of DSC accepted: shown in nearly all of 200 studies."""
    rng = np.random.default_rng(0)
    shown = [non_inferiority(*simulated_observers(rng, 30, 1.0, 0.0), margin=0.05).shown for _ in range(200)]
    assert np.mean(shown) > 0.95


def test_non_inferiority_is_rarely_shown_of_a_model_that_is_worse_by_the_margin() -> None:
    """The margin is the model's true distance from the people: 5 % of 2000 studies, within what chance allows."""
    rng = np.random.default_rng(1)
    model, human = simulated_observers(rng, 200_000, 1.0, 1.5)
    margin = float(np.mean(human - model))
    assert margin > 0.02
    shown = [non_inferiority(*simulated_observers(rng, 20, 1.0, 1.5), margin=margin).shown for _ in range(2000)]
    assert np.mean(shown) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)


def test_non_inferiority_by_hand() -> None:
    """Differences -0.02, 0, -0.02, 0: mean -0.01, standard error 0.00577, t(3) at 95 % is 2.353."""
    found = non_inferiority([0.84, 0.86, 0.85, 0.87], [0.86, 0.86, 0.87, 0.87], margin=0.02)
    assert found.difference == pytest.approx(-0.01)
    assert found.low == pytest.approx(-0.01 - 2.353 * 0.02 / np.sqrt(12), abs=1e-4)
    assert not found.shown
    assert found.p > 0.05
    # organs of a patient stay together: the mean of each patient enters, an organ without a value is left out
    one, two = [[0.9, np.nan], [0.8, 0.6]], [[0.8, 0.5], [0.8, 0.7]]
    found = non_inferiority(one, two, margin=0.5)
    assert found.difference == pytest.approx((0.1 + -0.05) / 2)
    assert found.patients == 2


def test_equal_differences_need_no_distribution() -> None:
    assert non_inferiority([0.5, 0.5], [0.75, 0.75], margin=0.5).shown
    assert not non_inferiority([0.5, 0.5], [0.75, 0.75], margin=0.25).shown


@pytest.mark.parametrize(
    ("candidate", "reference", "margin", "text"),
    [
        ([0.9], [0.9], 0.1, "1 patients have both values"),
        ([0.9, np.nan], [0.9, 0.8], 0.1, "1 patients have both values"),
        ([0.9, 0.8], [0.9], 0.1, "pairs of the same patients"),
        ([0.9, 0.8], [0.9, 0.7], 0.0, "stated beforehand"),
    ],
)
def test_non_inferiority_says_what_it_lacks(candidate, reference, margin, text) -> None:
    with pytest.raises(ValueError, match=text):
        non_inferiority(candidate, reference, margin=margin)
