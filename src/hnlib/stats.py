"""From tables of single cases to means, intervals and comparisons.

The unit of sampling is the patient. Seeds of one case are averaged first, organs of one patient stay
together, and the spread over seeds is reported beside the interval, never inside it. Every function reads
rows of ``metrics.csv``: ``profile``, ``experiment``, ``seed``, ``split``, ``case``, ``organ``, ``metric``,
``value``. A missed organ counts with the 0 that its row holds; an empty value (a distance to an organ that
was missed) leaves no trace in a mean, so each mean says how many values stand behind it.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats as scipy_stats

COLUMNS = ("profile", "experiment", "seed", "split", "case", "organ", "metric", "value")
"""Columns of ``metrics.csv``."""

PAPER_NEAREST = {"dsc": "dsc", "hd95_plastimatch_mm": "hd95_mm", "surface_dsc_axes_swapped": "surface_dsc"}
"""Metric of the paper's Table 1 to the metric of ours that comes nearest; only ``dsc`` is the same."""


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference between two experiments on the same patients, with its interval.

    Attributes
    ----------
    experiment, baseline, metric, split
        What was compared: ``experiment`` minus ``baseline``.
    difference
        Mean over organs of the mean difference over patients, in the metric's unit.
    low, high
        Limits of the bootstrap interval over patients; NaN with fewer than two patients.
    confidence_level
        Nominal coverage of the interval.
    method
        ``BCa``, or ``percentile`` where BCa does not exist for the data, or ``none``.
    cases, organs
        Number of patients and organs that entered.
    seeds, baseline_seeds
        Number of seeds behind each side.
    """

    experiment: str
    baseline: str
    metric: str
    split: str
    difference: float
    low: float
    high: float
    confidence_level: float
    method: str
    cases: int
    organs: int
    seeds: int
    baseline_seeds: int


def seed_averaged(metrics: pd.DataFrame) -> pd.DataFrame:
    """Average the seeds of each case, organ and metric.

    Returns
    -------
    pandas.DataFrame
        ``profile``, ``experiment``, ``split``, ``case``, ``organ``, ``metric``, ``value``, and ``seeds``,
        the number of seeds with a value. ``value`` is NaN where no seed has one.
    """
    _check(metrics)
    keys = ["profile", "experiment", "split", "case", "organ", "metric"]
    grouped = metrics.groupby(keys, sort=False, observed=True)["value"]
    return grouped.agg(value="mean", seeds="count").reset_index()


def organ_summary(metrics: pd.DataFrame, *, confidence_level: float = 0.95) -> pd.DataFrame:
    """Summarise each organ over the cases, seeds averaged first.

    Returns
    -------
    pandas.DataFrame
        ``profile``, ``experiment``, ``split``, ``organ``, ``metric``; ``mean`` and ``sd`` (ddof 1) over
        cases; ``low`` and ``high``, the t interval of the mean over patients; ``cases``, those with a value;
        ``undefined``, those without. ``sd`` and limits are NaN with one case.

    Notes
    -----
    The t interval of a mean keeps its nominal coverage at 10 to 30 patients, where the percentile
    bootstrap covers 2 to 5 points less.
    """
    keys = ["profile", "experiment", "split", "organ", "metric"]
    grouped = seed_averaged(metrics).groupby(keys, sort=False, observed=True)["value"]
    table = grouped.agg(mean="mean", sd="std", cases="count", rows="size")
    degrees = (table["cases"] - 1).where(table["cases"] > 1)
    half = scipy_stats.t.ppf(0.5 + confidence_level / 2, degrees) * table["sd"] / np.sqrt(table["cases"])
    table["low"], table["high"] = table["mean"] - half, table["mean"] + half
    table["undefined"] = table["rows"] - table["cases"]
    return table[["mean", "sd", "low", "high", "cases", "undefined"]].reset_index()


def mean_over_organs(metrics: pd.DataFrame) -> pd.DataFrame:
    """Average the organ means of every run, each organ with the same weight.

    Returns
    -------
    pandas.DataFrame
        ``profile``, ``experiment``, ``seed``, ``split``, ``metric``; ``mean``, the mean over organs of the
        mean over cases; ``organs`` and ``cases`` that entered; ``undefined``, the number of values lacking.
    """
    _check(metrics)
    run = ["profile", "experiment", "seed", "split", "metric"]
    by_organ = metrics.groupby([*run, "organ"], sort=False, observed=True)["value"].mean()
    table = by_organ.groupby(run, sort=False, observed=True).agg(mean="mean", organs="count").reset_index()
    found = metrics.assign(undefined=metrics["value"].isna()).groupby(run, sort=False, observed=True)
    counts = found.agg(cases=("case", "nunique"), undefined=("undefined", "sum")).reset_index()
    return table.merge(counts, on=run)


def seed_spread(metrics: pd.DataFrame) -> pd.DataFrame:
    """Describe how much the mean over organs moves from seed to seed.

    Returns
    -------
    pandas.DataFrame
        ``profile``, ``experiment``, ``split``, ``metric``; ``mean`` and ``sd`` (ddof 1) over seeds of the
        mean over organs; ``seeds``. ``sd`` is NaN with one seed.
    """
    keys = ["profile", "experiment", "split", "metric"]
    grouped = mean_over_organs(metrics).groupby(keys, sort=False, observed=True)["mean"]
    return grouped.agg(mean="mean", sd="std", seeds="count").reset_index()


def case_differences(metrics: pd.DataFrame, baseline: str, *, metric: str = "dsc", split: str = "test") -> pd.DataFrame:
    """Subtract the baseline from every other experiment, case by case and organ by organ.

    Parameters
    ----------
    metrics
        Rows of ``metrics.csv`` of one profile.
    baseline
        Name of the experiment to subtract.
    metric, split
        What is compared.

    Returns
    -------
    pandas.DataFrame
        ``experiment``, ``case``, ``organ``, ``difference``, seeds averaged first, for the pairs of case and
        organ in which both sides have a value.

    Raises
    ------
    ValueError
        When the rows hold several profiles or lack the baseline.
    """
    wide = _wide(metrics, metric, split)
    if baseline not in wide:
        raise ValueError(f"no {split} rows of {metric} for baseline '{baseline}'; there are {list(wide)}")
    others = wide.drop(columns=baseline).sub(wide[baseline], axis=0).rename_axis(columns="experiment")
    long = others.reset_index().melt(id_vars=["case", "organ"], var_name="experiment", value_name="difference")
    return long[["experiment", "case", "organ", "difference"]].dropna(ignore_index=True)


def paired_difference(
    metrics: pd.DataFrame,
    experiment: str,
    baseline: str,
    *,
    metric: str = "dsc",
    split: str = "test",
    confidence_level: float = 0.95,
    resamples: int = 9999,
    rng: np.random.Generator,
) -> PairedDifference:
    """Compare two experiments on the same patients: mean over organs, bootstrap over patients.

    Parameters
    ----------
    metrics
        Rows of ``metrics.csv`` of one profile.
    experiment, baseline
        Names; the difference is the first minus the second.
    metric, split
        What is compared.
    confidence_level, resamples
        Coverage in 0..1 and number of bootstrap samples.
    rng
        Source of the resampling.

    Returns
    -------
    PairedDifference
        The difference, its interval and what entered.

    Raises
    ------
    ValueError
        When the rows hold several profiles or no case that both experiments have.

    Notes
    -----
    Seeds are averaged for each case first. A patient is drawn with all organs; each organ's mean is taken
    over the patients drawn that have it, then the organs are averaged. Interval: bias-corrected and
    accelerated bootstrap (Efron 1987) of SciPy; it holds for the seeds at hand, see ``seed_spread``.
    """
    pair = metrics[metrics["experiment"].isin([experiment, baseline])]
    table = case_differences(pair, baseline, metric=metric, split=split)
    table = table[table["experiment"] == experiment]
    if table.empty:
        raise ValueError(f"'{experiment}' and '{baseline}' share no {split} case with a value of {metric}")
    values = table.pivot(index="case", columns="organ", values="difference").to_numpy(dtype=np.float64)
    low, high, method = _bootstrap_patients(values, confidence_level, resamples, rng)
    seeds = pair[(pair["metric"] == metric) & (pair["split"] == split)].groupby("experiment")["seed"].nunique()
    return PairedDifference(
        experiment,
        baseline,
        metric,
        split,
        difference=float(_mean_of_organ_means(values)),
        low=low,
        high=high,
        confidence_level=confidence_level,
        method=method,
        cases=values.shape[0],
        organs=values.shape[1],
        seeds=int(seeds[experiment]),
        baseline_seeds=int(seeds[baseline]),
    )


def choose_by_validation(metrics: pd.DataFrame, among: Collection[str] | None = None) -> str:
    """Return the experiment with the best mean validation DSC; the test cases have no say.

    Parameters
    ----------
    metrics
        Rows of ``metrics.csv`` of one profile. Only validation rows of ``dsc`` are read.
    among
        Names that may be chosen, as far as they are in the rows; None lets all.

    Returns
    -------
    str
        Experiment with the highest mean over organs, seeds averaged first and a miss counted 0. Experiments
        are compared on the cases and organs that all of them have. The first of equals, in the order of the
        rows.

    Raises
    ------
    ValueError
        When the rows hold several profiles, or no validation case is common to all experiments.

    Examples
    --------
    >>> rows = [("laptop", name, 0, split, "pt_1", "mandible", "dsc", value) for name, split, value in (
    ...     ("small", "validation", 0.8), ("large", "validation", 0.7), ("small", "test", 0.1), ("large", "test", 0.9))]
    >>> choose_by_validation(pd.DataFrame(rows, columns=COLUMNS))
    'small'
    """
    if among is not None and metrics["experiment"].isin(among).any():
        metrics = metrics[metrics["experiment"].isin(among)]
    wide = _wide(metrics, "dsc", "validation")
    common = wide.dropna()
    if common.empty:
        raise ValueError(f"no validation case is common to the experiments {list(wide)}; evaluate them on validation")
    return str(common.groupby(level="organ").mean().mean().idxmax())


def paper_table1() -> pd.DataFrame:
    """Return Table 1 of Tappeiner et al. 2022 as printed.

    Returns
    -------
    pandas.DataFrame
        ``configuration`` (our experiment name), ``organ``, ``metric``, ``mean``, ``sd``; 15 test cases.
        ``organ`` is ``average`` in the printed average rows, whose SD pools cases and organs.

    Notes
    -----
    ``hd95_plastimatch_mm`` is the mean of the two directed 95th percentiles, unweighted, with 1000 mm for a
    missed organ; ``surface_dsc_axes_swapped`` was computed with the spacing in reverse axis order. Neither is
    the metric of ours that ``PAPER_NEAREST`` puts beside it.

    Examples
    --------
    >>> table = paper_table1().set_index(["configuration", "organ", "metric"])
    >>> float(table.loc[("small_ca_dice_ce", "average", "dsc"), "mean"])
    0.8
    """
    with files("hnlib").joinpath("data/tappeiner2022_table1.csv").open("r", encoding="utf-8") as handle:
        return pd.read_csv(handle)


def _check(metrics: pd.DataFrame) -> None:
    if lacking := [name for name in COLUMNS if name not in metrics.columns]:
        raise ValueError(f"the metrics table lacks the columns {lacking}")


def _wide(metrics: pd.DataFrame, metric: str, split: str) -> pd.DataFrame:
    """Return seed-averaged values, rows (case, organ), columns experiments in the order of their rows."""
    _check(metrics)
    used = metrics[(metrics["metric"] == metric) & (metrics["split"] == split)]
    profiles = list(used["profile"].unique())
    if len(profiles) > 1:
        raise ValueError(f"the rows hold the profiles {profiles}; choose one, budgets are not comparable")
    wide = seed_averaged(used).pivot(index=["case", "organ"], columns="experiment", values="value")
    return wide[list(used["experiment"].unique())]


def _mean_of_organ_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average (..., patients, organs) over patients, then organs; a pair without a value is skipped."""
    present = ~np.isnan(values)
    counts = present.sum(axis=-2)
    sums = np.where(present, values, 0.0).sum(axis=-2)
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    # A resample may hold no patient with a rare organ: the others then carry the mean.
    found: NDArray[np.float64] = means.sum(axis=-1) / np.maximum((counts > 0).sum(axis=-1), 1)
    return found


def _bootstrap_patients(
    values: NDArray[np.float64], confidence_level: float, resamples: int, rng: np.random.Generator
) -> tuple[float, float, str]:
    """Return the limits of the interval and the method that gave them, for values (patients, organs)."""
    if len(values) < 2:
        return np.nan, np.nan, "none"

    def statistic(patients: NDArray[np.intp], axis: int = -1) -> NDArray[np.float64]:
        return _mean_of_organ_means(values[np.moveaxis(patients, axis, -1)])

    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            # BCa of data without spread is NaN; SciPy then advises another method, which follows.
            warnings.simplefilter("ignore", scipy_stats.DegenerateDataWarning)
            warnings.simplefilter("ignore", RuntimeWarning)
            interval = scipy_stats.bootstrap(
                (np.arange(len(values)),),
                statistic,
                n_resamples=resamples,
                batch=1000,
                confidence_level=confidence_level,
                method=method,
                vectorized=True,
                rng=rng,
            ).confidence_interval
        if np.isfinite(interval.low) and np.isfinite(interval.high):
            break
    return float(interval.low), float(interval.high), method
