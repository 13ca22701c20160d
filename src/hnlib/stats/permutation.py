"""Are two groups of patients alike to a network? A permutation test that keeps the organs of a patient together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from hnlib.stats.equivalence import Group, mean_difference
from hnlib.stats.testing import ALL_ORGANS

DRIFT_COLUMNS = (
    *("experiment", "measure", "organ", "first", "second", "drift", "low", "high"),
    *("p", "p_together", "cases_first", "cases_second"),
)
"""Columns of the table of `drift_tests`."""

_KEYS = ["profile", "experiment", "split", "case", "organ"]
_Floats = NDArray[np.float64]


def drift_tests(
    confidence: pd.DataFrame,
    measure: str,
    *,
    rng: np.random.Generator,
    between: tuple[str, str] = ("train", "test"),
    permutations: int = 9999,
    confidence_level: float = 0.95,
) -> pd.DataFrame:
    """Test, for every experiment and organ, whether a measure differs between two groups of cases.

    Parameters
    ----------
    confidence
        Rows of ``confidence.csv`` of one profile: ``experiment``, ``seed``, ``split``, ``case``, ``organ`` and the
        measure.
    measure
        Column that is tested, such as ``soft_recall``.
    rng
        Source of the permutations.
    between
        Splits that are compared; the drift is the first minus the second. Validation against test is the control:
        a network has seen neither.
    permutations
        How many are drawn; where there are no more, all are taken.
    confidence_level
        Of the interval.

    Returns
    -------
    pandas.DataFrame
        One row an experiment and organ, and one for all organs: ``drift`` with ``low`` and ``high`` (Welch's
        interval over patients, not corrected for the number of organs); ``p``, two-sided; ``p_together``, corrected
        for the organs of the experiment; ``cases_first``, ``cases_second`` with a value. NaN where a group has
        fewer than two cases with a value, or no two values within the groups differ.

    Raises
    ------
    ValueError
        When a column is lacking or the rows hold several profiles.

    Notes
    -----
    Seeds of a case are averaged first. The labels train and test are permuted over patients, so a patient's organs
    stay together and may depend on each other as they like. The statistic is Welch's t, with which the test holds
    its level for means also where the groups vary differently (Janssen 1997). ``p_together`` holds each organ's
    statistic against the largest of all organs (Westfall and Young 1993), so that the probability of one false alarm
    or more among the organs is bounded. For all organs a patient counts with the mean of the differences
    from the organs' centres, so that an organ that a patient lacks does not move the mean. For the drift a centre is
    the middle of the two groups' means; the test, which must not know the groups, takes the mean of all patients.
    """
    averaged = _seed_averaged(confidence, measure)
    rows: list[dict[str, object]] = []
    for experiment, found in averaged.groupby("experiment", sort=False):
        wide = found[found["split"].isin(between)].pivot(index=["split", "case"], columns="organ", values=measure)
        organs = list(dict.fromkeys(found["organ"]))
        wide = wide.reindex(columns=organs)
        key = {"experiment": experiment, "measure": measure, "first": between[0], "second": between[1]}
        rows.extend({**key, **row} for row in _test(wide, between, rng, permutations, confidence_level))
    return pd.DataFrame(rows, columns=list(DRIFT_COLUMNS))


def _seed_averaged(confidence: pd.DataFrame, measure: str) -> pd.DataFrame:
    if lacking := sorted({*_KEYS, measure} - set(confidence.columns)):
        raise ValueError(f"the confidence table lacks the columns {lacking}")
    if len(profiles := list(confidence["profile"].unique())) > 1:
        raise ValueError(f"the rows hold the profiles {profiles}; choose one, budgets are not comparable")
    return confidence.groupby(_KEYS, sort=False, observed=True)[measure].mean().reset_index()


def _test(
    wide: pd.DataFrame, between: tuple[str, str], rng: np.random.Generator, permutations: int, level: float
) -> list[dict[str, object]]:
    """Return a row for all organs and for each; ``wide`` has rows (split, case) and columns organs."""
    middle = wide.groupby("split").mean().reindex(list(between)).mean(skipna=False)
    blind, seen = (
        pd.concat([(wide - centre).mean(axis=1).rename(ALL_ORGANS), wide], axis=1) for centre in (wide.mean(), middle)
    )
    splits = wide.index.get_level_values("split")
    p, together = _permute(_by_split(blind, splits, between), rng, permutations)
    groups = _by_split(seen, splits, between)
    rows = []
    for index, organ in enumerate(seen.columns):
        parts = [group[index][~np.isnan(group[index])] for group in groups]
        counts = dict(zip(("cases_first", "cases_second"), map(len, parts), strict=True))
        numbers = dict(zip(("drift", "low", "high"), _interval(parts, level), strict=True))
        rows.append({"organ": organ, **numbers, "p": p[index], "p_together": together[index], **counts})
    return rows


def _by_split(table: pd.DataFrame, splits: pd.Index[Any], between: tuple[str, str]) -> list[_Floats]:
    return [table[splits == split].to_numpy(dtype=np.float64).T for split in between]


def _interval(parts: Sequence[_Floats], level: float) -> tuple[float, float, float]:
    if min(map(len, parts)) == 0:
        return np.nan, np.nan, np.nan
    first, second = parts
    if min(map(len, parts)) == 1:
        return float(first.mean() - second.mean()), np.nan, np.nan
    found = mean_difference(
        *(Group(float(part.mean()), float(part.std(ddof=1)), len(part)) for part in parts), confidence_level=level
    )
    return found.value, found.low, found.high


def _permute(groups: Sequence[_Floats], rng: np.random.Generator, permutations: int) -> tuple[_Floats, _Floats]:
    """Return p of every row and p corrected for the rows but the first; groups have shape (rows, cases)."""
    p = np.full(len(groups[0]), np.nan)
    together = p.copy()
    defined = np.flatnonzero(np.isfinite(_welch(groups[0], groups[1])))
    if not defined.size:
        return p, together
    # SciPy applies each permutation to all rows alike, which keeps the organs of a patient together.
    found = scipy_stats.permutation_test(
        [group[defined] for group in groups],
        _no_less,
        axis=-1,
        vectorized=True,
        n_resamples=permutations,
        batch=500,
        alternative="greater",
        rng=rng,
    )
    null, seen = cast(_Floats, found.null_distribution), np.asarray(found.statistic)
    drawn = len(null) == permutations  # of all permutations the one observed is among them
    p[defined] = _share(null, seen, drawn)
    organs = np.flatnonzero(defined > 0)
    if organs.size:
        together[defined[organs]] = _share(null[:, organs].max(axis=1, keepdims=True), seen[organs], drawn)
    return p, together


def _share(null: _Floats, seen: _Floats, drawn: bool) -> _Floats:
    """Return the share of permutations whose statistic is no less than the one observed, but for rounding."""
    more = (null >= seen * (1 - 1e-9)).sum(axis=0)
    return np.asarray((more + drawn) / (len(null) + drawn))


def _no_less(first: _Floats, second: _Floats, axis: int) -> _Floats:
    """Return |t|; a permutation that leaves it undefined counts as no less than any."""
    found = np.abs(_welch(first, second, axis))
    return np.where(np.isnan(found), np.inf, found)


def _welch(first: _Floats, second: _Floats, axis: int = -1) -> _Floats:
    """Return Welch's t along an axis, over the values that are there."""
    means, errors = [], []
    for values in (first, second):
        there = ~np.isnan(values)
        count = there.sum(axis=axis)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(there, values, 0.0).sum(axis=axis) / count
            squares = np.where(there, values - np.expand_dims(mean, axis), 0.0) ** 2
            errors.append(squares.sum(axis=axis) / (count - 1) / count)
        means.append(mean)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((means[0] - means[1]) / np.sqrt(errors[0] + errors[1]))
