"""Are two groups alike? Intervals of a difference or a ratio, held against a margin that was stated beforehand.

A test that finds no difference has not shown that there is none. Equivalence turns the question round: two groups
are called equivalent where the whole 90 % interval lies within the margin, which is the pair of one-sided tests at
5 % of Schuirmann (1987).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
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


def welch_p(group: Group, reference: Group) -> float:
    """Return the two-sided p value of Welch's test that the means are alike.

    Raises
    ------
    ValueError
        When a group has fewer than two values.

    Examples
    --------
    >>> round(welch_p(Group(3.0, 1.0, 8), Group(1.0, 1.0, 8)), 4)
    0.0013
    """
    _check(group, reference)
    if not group.sd and not reference.sd:
        return float(group.mean == reference.mean)
    return float(scipy_stats.ttest_ind_from_stats(*group, *reference, equal_var=False).pvalue)


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


class NonInferiority(NamedTuple):
    """Result of a paired test of non-inferiority.

    Attributes
    ----------
    difference
        Mean over patients of candidate minus reference.
    low
        Its one-sided lower confidence limit.
    p
        One-sided p value of the hypothesis that the candidate is worse by the margin or more.
    shown
        Whether ``low`` lies above minus the margin.
    patients
        Number that entered.
    """

    difference: float
    low: float
    p: float
    shown: bool
    patients: int


def non_inferiority(
    candidate: ArrayLike, reference: ArrayLike, *, margin: float, confidence_level: float = 0.95
) -> NonInferiority:
    """Test, on the same patients, whether a candidate is worse than a reference by less than a margin.

    With observers A and B and a model: candidate is the model against A, reference is B against A.

    Parameters
    ----------
    candidate, reference
        One value a patient, larger is better, shape (patients,); or (patients, organs), NaN where there is none, of
        which each patient's mean difference enters, so that its organs stay together.
    margin
        How much worse is accepted, in the unit of the values. It is stated before the data are seen.
    confidence_level
        Of the one-sided limit; the test errs with probability ``1 - confidence_level`` at most.

    Raises
    ------
    ValueError
        When the shapes differ, the margin is not positive or fewer than two patients have both values.

    Notes
    -----
    Paired t test against ``-margin``. A model that learnt from A's outlines may be nearer to A than B is without
    being better: test it against B too. Fewer patients make the limit lower, so that a small study shows nothing.

    Examples
    --------
    >>> found = non_inferiority([0.84, 0.86, 0.85, 0.87], [0.86, 0.86, 0.87, 0.87], margin=0.03)
    >>> round(found.difference, 3), round(found.low, 3), found.shown
    (-0.01, -0.024, True)
    """
    one, two = (np.asarray(values, dtype=np.float64) for values in (candidate, reference))
    if one.shape != two.shape or one.ndim not in (1, 2):
        raise ValueError(
            f"candidate has shape {one.shape} and reference {two.shape}; pairs of the same patients are needed"
        )
    if not margin > 0:
        raise ValueError(f"the margin is {margin}; it must be positive, and stated beforehand")
    differences = (one - two).reshape(len(one), -1)
    differences = differences[~np.isnan(differences).all(axis=1)]
    values = np.nanmean(differences, axis=1) if len(differences) else np.empty(0)
    if len(values) < 2:
        raise ValueError(f"{len(values)} patients have both values; two or more are needed for a test")
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    if not error:
        return NonInferiority(mean, mean, float(mean <= -margin), mean > -margin, len(values))
    low = mean - float(scipy_stats.t.ppf(confidence_level, len(values) - 1)) * error
    p = float(scipy_stats.t.sf((mean + margin) / error, len(values) - 1))
    return NonInferiority(mean, low, p, low > -margin, len(values))


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
