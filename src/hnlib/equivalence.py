"""Are two groups alike? Intervals of a difference or a ratio, held against a margin that was stated beforehand.

A test that finds no difference has not shown that there is none. Equivalence turns the question round: two groups
are called equivalent where the whole 90 % interval lies within the margin, which is the pair of one-sided tests at
5 % of Schuirmann (1987).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from scipy import stats as scipy_stats

Verdict = Literal["equivalent", "different", "undecided"]


class Group(NamedTuple):
    """Mean, SD (ddof 1) and number of the values of one group; logarithms where a ratio is wanted."""

    mean: float
    sd: float
    cases: int


class Interval(NamedTuple):
    """An estimate with the limits of its interval."""

    value: float
    low: float
    high: float


def mean_difference(group: Group, reference: Group, *, confidence_level: float = 0.90) -> Interval:
    """Return the difference of the means, group minus reference, with Welch's interval.

    Both groups count as samples: the interval says how well the difference of the two populations is known.

    Raises
    ------
    ValueError
        When a group has fewer than two values.

    Examples
    --------
    >>> found = mean_difference(Group(3.0, 1.0, 8), Group(1.0, 1.0, 8))
    >>> [round(limit, 3) for limit in found]
    [2.0, 1.119, 2.881]
    """
    _check(group, reference)
    parts = [part.sd**2 / part.cases for part in (group, reference)]
    value = group.mean - reference.mean
    if not sum(parts):
        return Interval(value, value, value)
    below = sum(part**2 / (one.cases - 1) for part, one in zip(parts, (group, reference), strict=True))
    half = float(scipy_stats.t.ppf(0.5 + confidence_level / 2, sum(parts) ** 2 / below)) * math.sqrt(sum(parts))
    return Interval(value, value - half, value + half)


def mean_ratio(group: Group, reference: Group, *, confidence_level: float = 0.90) -> Interval:
    """Return the ratio of the geometric means; the groups hold means and SDs of natural logarithms.

    Examples
    --------
    >>> found = mean_ratio(Group(0.0, 0.1, 20), Group(0.0, 0.1, 20))
    >>> [round(limit, 3) for limit in found]
    [1.0, 0.948, 1.055]
    """
    found = mean_difference(group, reference, confidence_level=confidence_level)
    return Interval(*(math.exp(limit) for limit in found))


def spread_ratio(group: Group, reference: Group, *, confidence_level: float = 0.90) -> Interval:
    """Return the ratio of the SDs with the interval of the F distribution, which holds for normal values.

    Raises
    ------
    ValueError
        When a group has fewer than two values, or the reference no spread.

    Examples
    --------
    >>> found = spread_ratio(Group(0.0, 2.0, 31), Group(0.0, 1.0, 31))
    >>> [round(limit, 3) for limit in found]
    [2.0, 1.474, 2.714]
    """
    _check(group, reference)
    if not reference.sd > 0:
        raise ValueError("the reference has no spread, so there is no ratio")
    value = group.sd / reference.sd
    degrees = group.cases - 1, reference.cases - 1
    upper = scipy_stats.f.ppf(0.5 + confidence_level / 2, *degrees)
    lower = scipy_stats.f.ppf(0.5 - confidence_level / 2, *degrees)
    return Interval(value, value / math.sqrt(upper), value / math.sqrt(lower))


def verdict(interval: Interval, margin: tuple[float, float]) -> Verdict:
    """Return whether an interval lies within a margin, wholly outside of it, or across its border.

    Examples
    --------
    >>> [verdict(Interval(1.0, low, high), (0.8, 1.25)) for low, high in ((0.9, 1.1), (0.7, 1.1), (1.3, 1.5))]
    ['equivalent', 'undecided', 'different']
    """
    low, high = margin
    if low <= interval.low and interval.high <= high:
        return "equivalent"
    return "different" if interval.low > high or interval.high < low else "undecided"


def _check(*groups: Group) -> None:
    for group in groups:
        if group.cases < 2:
            raise ValueError(f"a group of {group.cases}; two values or more are needed for an interval")
