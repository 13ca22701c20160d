"""Intervals of differences and ratios: known values, nominal coverage, and verdicts against a margin."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from hnlib.equivalence import Group, Interval, mean_difference, mean_ratio, spread_ratio, verdict


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
