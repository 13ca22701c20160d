"""Two experiments on the same patients: the size of the difference, and how well it is known."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from hnlib.stats.equivalence import Group, NonInferiority, mean_difference, non_inferiority, welch_p
from hnlib.stats.tables import lower_is_better, values_by_experiment, values_by_run

Method = Literal["t", "BCa"]


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
        Limits of the interval over patients; NaN with fewer than two patients.
    confidence_level
        Nominal coverage of the interval.
    method
        ``t`` or ``BCa``; ``percentile`` where BCa does not exist for the data; ``none`` without an interval.
    cases, organs
        Number of patients and organs that entered.
    left_out
        Number of pairs (case, organ) that only one side has a value for, and that therefore did not enter.
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
    left_out: int
    seeds: int
    baseline_seeds: int


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
        organ in which both sides have a value. `PairedDifference` counts the others.

    Raises
    ------
    ValueError
        When the rows hold several profiles or lack the baseline.
    """
    wide = values_by_experiment(metrics, metric, split)
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
    method: Method = "t",
    resamples: int = 9999,
    rng: np.random.Generator | None = None,
) -> PairedDifference:
    """Compare two experiments on the same patients: mean over organs, interval over patients.

    Parameters
    ----------
    metrics
        Rows of ``metrics.csv`` of one profile.
    experiment, baseline
        Names; the difference is the first minus the second.
    metric, split
        What is compared.
    confidence_level
        Coverage in 0..1.
    method
        ``t``: Student's interval, the standard error from the jackknife over patients. ``BCa``:
        bias-corrected and accelerated bootstrap over patients (Efron 1987) of SciPy.
    resamples, rng
        Number of bootstrap samples and their source, which ``BCa`` needs.

    Returns
    -------
    PairedDifference
        The difference, its interval and what entered.

    Raises
    ------
    ValueError
        When the rows hold several profiles or no case that both experiments have; when BCa lacks its ``rng``.

    Notes
    -----
    Seeds are averaged for each case first. A patient enters with all organs; each organ's mean is taken over
    the patients that have it, then the organs are averaged. Where every patient has every organ, the jackknife
    gives the usual standard error of a mean. On skewed DSC the bootstrap covers too little at the number of
    test patients that the field has: at 15 patients 89 % (BCa) and 90 % (percentile) of nominal 95 %, where t covers
    94 %; hence the default. The interval holds for the seeds at hand, see
    `over_seeds`.
    """
    if method == "BCa" and rng is None:
        raise ValueError("the bootstrap needs a source of randomness; give rng")
    pair = metrics[metrics["experiment"].isin([experiment, baseline])]
    wide = values_by_experiment(pair, metric, split)
    both = wide.dropna() if {experiment, baseline} <= set(wide.columns) else wide.iloc[:0]
    if both.empty:
        raise ValueError(f"'{experiment}' and '{baseline}' share no {split} case with a value of {metric}")
    values = (both[experiment] - both[baseline]).unstack("organ").to_numpy(dtype=np.float64)
    if method == "BCa" and rng is not None:
        low, high, used = _bootstrap_patients(values, confidence_level, resamples, rng)
    else:
        low, high, used = _jackknife_t(values, confidence_level)
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
        method=used,
        cases=values.shape[0],
        organs=values.shape[1],
        left_out=int((wide.isna().sum(axis=1) == 1).sum()),
        seeds=int(seeds[experiment]),
        baseline_seeds=int(seeds[baseline]),
    )


def paired_non_inferiority(
    metrics: pd.DataFrame,
    candidate: str,
    reference: str,
    *,
    margin: float,
    metric: str = "dsc",
    split: str = "test",
) -> NonInferiority:
    """Test on the same patients whether one experiment is worse than another by less than a margin.

    Parameters
    ----------
    metrics
        Rows of ``metrics.csv`` of one profile, all against the outlines of one observer. Of people the column
        ``experiment`` names the observer whose outlines were measured.
    candidate, reference
        Experiments: a network, and the second observer.
    margin, metric, split
        See `hnlib.stats.non_inferiority`; what is compared. A distance counts as worse when larger.

    Raises
    ------
    ValueError
        When an experiment is missing or fewer than two patients have both.
    """
    wide = values_by_experiment(metrics, metric, split)
    for name in (candidate, reference):
        if name not in wide:
            raise ValueError(f"no {split} rows of {metric} of '{name}'; there are {list(wide)}")
    sign = -1 if lower_is_better(metric) else 1
    one, two = (sign * wide[name].unstack("organ").to_numpy() for name in (candidate, reference))
    return non_inferiority(one, two, margin=margin)


class OverSeeds(NamedTuple):
    """What training again on the same patients would give: interval and two-sided p value (Welch), NaN if not known."""

    low: float
    high: float
    p: float


def over_seeds(
    metrics: pd.DataFrame,
    experiment: str,
    baseline: str,
    *,
    metric: str = "dsc",
    split: str = "test",
    confidence_level: float = 0.95,
) -> OverSeeds:
    """Ask how well the seeds alone know the difference of two experiments.

    Parameters
    ----------
    metrics, experiment, baseline, metric, split, confidence_level
        See `paired_difference`.

    Returns
    -------
    OverSeeds
        Of the difference of the runs' means over organs, on the pairs of case and organ that have a value in every
        run of both sides, so that a distance lacking in one run moves nothing; NaN where a side has fewer than two
        seeds or no such pair is left.

    Notes
    -----
    It stands beside the interval over patients. A difference is one of the method, and not of a lucky run, where
    both exclude zero.
    """
    rows = metrics[metrics["experiment"].isin([experiment, baseline])]
    runs = values_by_run(rows, metric, split).dropna().groupby("organ").mean().mean()
    groups = {
        name: Group(float(part.mean()), float(part.std()), len(part)) for name, part in runs.groupby("experiment")
    }
    if len(groups) < 2 or min(group.cases for group in groups.values()) < 2 or runs.isna().any():
        return OverSeeds(np.nan, np.nan, np.nan)
    pair = groups[experiment], groups[baseline]
    found = mean_difference(*pair, confidence_level=confidence_level)
    return OverSeeds(found.low, found.high, welch_p(*pair))


def seed_interval(
    metrics: pd.DataFrame,
    experiment: str,
    baseline: str,
    *,
    metric: str = "dsc",
    split: str = "test",
    confidence_level: float = 0.95,
) -> tuple[float, float]:
    """Return the interval of `over_seeds`."""
    options: dict[str, Any] = {"metric": metric, "split": split, "confidence_level": confidence_level}
    low, high, _ = over_seeds(metrics, experiment, baseline, **options)
    return low, high


def _mean_of_organ_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average (..., patients, organs) over patients, then organs; a pair without a value is skipped."""
    present = ~np.isnan(values)
    counts = present.sum(axis=-2)
    sums = np.where(present, values, 0.0).sum(axis=-2)
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    # A resample may hold no patient with a rare organ: the others then carry the mean.
    found: NDArray[np.float64] = means.sum(axis=-1) / np.maximum((counts > 0).sum(axis=-1), 1)
    return found


def _jackknife_t(values: NDArray[np.float64], confidence_level: float) -> tuple[float, float, str]:
    """Return the t interval of the mean of organ means, for values (patients, organs)."""
    number = len(values)
    if number < 2:
        return np.nan, np.nan, "none"
    without = np.array([_mean_of_organ_means(np.delete(values, patient, axis=0)) for patient in range(number)])
    error = np.sqrt((number - 1) * without.var())
    half = float(scipy_stats.t.ppf(0.5 + confidence_level / 2, number - 1) * error)
    centre = float(_mean_of_organ_means(values))
    return centre - half, centre + half, "t"


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
