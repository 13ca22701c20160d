"""One chain of tests over experiments, organs and metrics, whose rate of false alarms is known."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats

from hnlib.stats.paired import OverSeeds, over_seeds, paired_difference
from hnlib.stats.tables import values_by_experiment

ALL_ORGANS = "all organs"
"""Name of the mean over organs in tables of organs."""

COMPARISON_COLUMNS = (
    *("experiment", "metric", "organ", "primary", "difference", "low", "high", "p", "p_holm", "rank_biserial"),
    *("seeds_low", "seeds_high", "p_seeds", "shown", "cases", "left_out", "note"),
)
"""Columns of `compare_experiments`."""

TWO_SIGNS = "nothing shown: the mean and the ranks of the patients have opposite signs"
"""Note of a difference that the mean and Wilcoxon's test, which looks at ranks, see in opposite directions."""


class SignedRank(NamedTuple):
    """Wilcoxon's signed-rank test of one set of paired differences.

    Attributes
    ----------
    p
        Two-sided; NaN where the test is not defined.
    rank_biserial
        Share of the rank sum in favour minus the share against, -1..1; NaN where the test is not defined.
    note
        Why the test is not defined; empty where it is.
    """

    p: float
    rank_biserial: float
    note: str


def signed_rank(differences: ArrayLike) -> SignedRank:
    """Test paired differences against a symmetric distribution around zero.

    Parameters
    ----------
    differences
        One value a patient, shape (patients,); NaN where a patient has none.

    Notes
    -----
    SciPy's test: differences of zero are dropped and the p value is exact for up to 50 differences without
    ties. The least p value with 5 patients is 0.0625, so that fewer than 6 can show nothing at 5 %.

    Examples
    --------
    >>> signed_rank([1, 2, 3, -4])
    SignedRank(p=0.875, rank_biserial=0.2, note='')
    >>> signed_rank([0.0, 0.0]).note
    'not defined: all differences are zero'
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return SignedRank(np.nan, np.nan, f"not defined: {len(values)} case{'s' if len(values) != 1 else ''}")
    moved = values[values != 0]
    if not len(moved):
        return SignedRank(np.nan, np.nan, "not defined: all differences are zero")
    ranks = scipy_stats.rankdata(np.abs(moved))
    effect = float((ranks * np.sign(moved)).sum() / ranks.sum())
    with warnings.catch_warnings():
        # With zeros or ties and few values SciPy says that the p value is approximate.
        warnings.simplefilter("ignore", UserWarning)
        p = float(scipy_stats.wilcoxon(values).pvalue)
    return SignedRank(p, round(effect, 12), "")


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Correct p values of one family by Holm's method; a test that is not defined counts with p = 1.

    The number of tests in a family is thus fixed before the data are seen.

    Returns
    -------
    numpy.ndarray
        Corrected p values, shape of ``p``; NaN where ``p`` is.

    Examples
    --------
    >>> holm([0.01, 0.04, float("nan")]).tolist()
    [0.03, 0.08, nan]
    """
    raw = np.asarray(p, dtype=np.float64)
    # Not statsmodels' multipletests, which gives the same and collects all garbage in every call (0.2 s).
    order = np.argsort(raw)  # NaN last, as p = 1 would be
    steps = np.arange(raw.size, 0, -1) * np.nan_to_num(raw[order], nan=1.0)
    corrected = np.empty_like(raw)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return np.where(np.isnan(raw), np.nan, corrected)


def gatekept(
    p: ArrayLike, primary: ArrayLike, experiment: ArrayLike, alpha: float = 0.05, p_seeds: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return corrected p values and which differences are shown: others only behind a primary one that is.

    Parameters
    ----------
    p
        One p value a test, NaN where it is not defined.
    primary
        Whether a test is that of the primary endpoint, of which each experiment has one.
    experiment
        Name or number of the experiment that a test is about.
    alpha
        Bound of the probability of one false alarm or more in the whole chain.
    p_seeds
        One p value over seeds a test, NaN where it is not known: below ``alpha`` or nothing is shown, after Holm's
        correction among the primary tests. None where there are no seeds.

    Returns
    -------
    tuple
        p values after Holm's correction, within the primary tests and within all others; and booleans.

    Notes
    -----
    A secondary difference needs its experiment's primary one. Where nothing differs at all, a false alarm
    anywhere therefore needs one among the primary tests, which happens with probability ``alpha`` at most.

    Examples
    --------
    >>> corrected, shown = gatekept([0.04, 0.001], [True, False], ["recipe", "recipe"])
    >>> shown.tolist(), gatekept([0.06, 0.001], [True, False], ["recipe", "recipe"])[1].tolist()
    ([True, True], [False, False])
    """
    values, first, about = np.asarray(p, dtype=np.float64), np.asarray(primary, dtype=bool), np.asarray(experiment)
    corrected = np.full(len(values), np.nan)
    for family in (first, ~first):
        corrected[family] = holm(values[family])
    passed = np.nan_to_num(corrected, nan=1.0) < alpha
    if p_seeds is not None:
        known = np.array(p_seeds, dtype=np.float64)
        known[first] = holm(known[first])
        passed &= np.nan_to_num(known, nan=1.0) < alpha
    return corrected, passed & np.isin(about, about[first & passed])


def planned_tests(
    metrics: pd.DataFrame,
    baseline: str,
    *,
    measures: Sequence[str] = ("dsc", "surface_dsc", "hd95_mm"),
    split: str = "test",
) -> list[dict[str, str]]:
    """Return what `compare_experiments` tests: ``experiment``, ``metric`` and ``organ`` of each row.

    Raises
    ------
    ValueError
        As `compare_experiments`.
    """
    found = []
    for metric in measures:
        wide = values_by_experiment(metrics, metric, split)
        if baseline not in wide:
            raise ValueError(f"no {split} rows of {metric} for baseline '{baseline}'; there are {list(wide)}")
        for experiment in wide.columns.drop(baseline):
            names = (ALL_ORGANS, *wide.index.unique("organ"))
            found += [{"experiment": str(experiment), "metric": metric, "organ": str(name)} for name in names]
    return found


def compare_experiments(
    metrics: pd.DataFrame,
    baseline: str,
    *,
    measures: Sequence[str] = ("dsc", "surface_dsc", "hd95_mm"),
    split: str = "test",
    alpha: float = 0.05,
    seeds: bool = True,
) -> pd.DataFrame:
    """Compare every experiment with the baseline: differences, intervals, tests, and what they show together.

    Parameters
    ----------
    metrics
        Rows of ``metrics.csv`` of one profile.
    baseline
        Name of the experiment to subtract.
    measures
        Metrics; the mean over organs of the first is the primary endpoint.
    split
        What is compared.
    alpha
        Bound of the probability of one false alarm or more in the whole table.
    seeds
        The experiments are trainings, and what differs is to be told from what seeds alone can make: with one seed
        on a side nothing is shown. False: two given sets of predictions, which patients alone tell apart.

    Returns
    -------
    pandas.DataFrame
        One row an experiment, metric and organ, and one for all organs: ``experiment``, ``metric``, ``organ``,
        ``primary``; ``difference`` with ``low`` and ``high`` (t interval at ``1 - alpha``, not corrected for the
        number of rows); ``p`` (Wilcoxon), ``p_holm``, ``rank_biserial``; ``seeds_low``, ``seeds_high`` and ``p_seeds``
        (see `over_seeds`), NaN with one seed; ``shown`` (see `gatekept`); ``cases``; ``left_out``, pairs of case and
        organ that only one side has; ``note``, why something is not defined. Where most patients move against the mean
        (one that is lost whole can do that) the note says so, ``p_holm`` is NaN, and nothing is shown.

    Raises
    ------
    ValueError
        When the rows hold several profiles, lack the baseline or a metric.
    """
    wide = {metric: values_by_experiment(metrics, metric, split) for metric in measures}
    used = {metric: metrics[metrics["metric"] == metric] for metric in measures}
    rows = [
        _compare(used[key["metric"]], wide[key["metric"]][[key["experiment"], baseline]], key, baseline, split, alpha)
        for key in planned_tests(metrics, baseline, measures=measures, split=split)
    ]
    if not rows:
        return pd.DataFrame(columns=list(COMPARISON_COLUMNS))
    table = pd.DataFrame(rows)
    table.insert(3, "primary", (table["metric"] == measures[0]) & (table["organ"] == ALL_ORGANS))
    known = table["p_seeds"] if seeds else None
    p = table["p"].where(table["note"] != TWO_SIGNS)
    p_holm, shown = gatekept(p, table["primary"], table["experiment"].astype(str), alpha, known)
    return table.assign(p_holm=p_holm, shown=shown)[list(COMPARISON_COLUMNS)]


def _compare(
    used: pd.DataFrame, pairs: pd.DataFrame, key: Mapping[str, str], baseline: str, split: str, alpha: float
) -> dict[str, object]:
    """Return the row of one experiment, metric and organ; ``pairs`` has columns experiment and baseline."""
    experiment, metric, organ = key["experiment"], key["metric"], key["organ"]
    if organ != ALL_ORGANS:
        pairs, used = pairs[pairs.index.get_level_values("organ") == organ], used[used["organ"] == organ]
    differences = (pairs[experiment] - pairs[baseline]).groupby("case").mean()
    test = signed_rank(differences.to_numpy())
    numbers: dict[str, float] = {"difference": np.nan, "low": np.nan, "high": np.nan, "cases": 0}
    numbers["left_out"] = int((pairs.isna().sum(axis=1) == 1).sum())
    again = OverSeeds(np.nan, np.nan, np.nan)
    if differences.notna().any():
        options: dict[str, Any] = {"metric": metric, "split": split, "confidence_level": 1 - alpha}
        found = paired_difference(used, experiment, baseline, **options)
        numbers = {name: getattr(found, name) for name in numbers}
        again = over_seeds(used, experiment, baseline, **options)
    note = TWO_SIGNS if test.rank_biserial * numbers["difference"] < 0 else test.note
    tests = {"p": test.p, "rank_biserial": test.rank_biserial, "note": note}
    return {**key, **numbers, **tests, "seeds_low": again.low, "seeds_high": again.high, "p_seeds": again.p}
