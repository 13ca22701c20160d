"""What a comparison can find at all: the smallest effect that a number of patients would show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from statsmodels.stats.power import TTestPower

from hnlib.stats.paired import case_differences
from hnlib.stats.testing import ALL_ORGANS, planned_tests


def minimum_detectable_effect(
    cases: int, *, sd: float = 1.0, alpha: float = 0.05, power: float = 0.8, tests: int = 1
) -> float:
    """Return the mean paired difference that a study of this size finds with the given power.

    Parameters
    ----------
    cases
        Number of patients.
    sd
        SD of the paired difference over patients; with 1 the effect is in SDs.
    alpha, power
        Error of the first kind (two-sided), and the probability of finding what is there.
    tests
        Number of tests in the family: the first step of Holm's correction, ``alpha / tests``.

    Returns
    -------
    float
        In the unit of ``sd``; NaN with fewer than two patients.

    Notes
    -----
    The paired t test of statsmodels. Wilcoxon's test needs about 5 % more patients for normal differences.

    Examples
    --------
    >>> round(minimum_detectable_effect(15), 2), round(minimum_detectable_effect(15, tests=7), 2)
    (0.78, 1.05)
    """
    if cases < 2:
        return float("nan")
    effect = TTestPower().solve_power(nobs=cases, alpha=alpha / tests, power=power, alternative="two-sided")
    return float(np.squeeze(effect)) * sd


def least_p(cases: int) -> float:
    """Return the least two-sided p that Wilcoxon's signed ranks can have: all differences of one sign.

    Examples
    --------
    >>> least_p(6)
    0.03125
    """
    return 2.0 ** (1 - cases)


def detectable_differences(
    metrics: pd.DataFrame,
    baseline: str,
    *,
    measures: Sequence[str] = ("dsc", "surface_dsc", "hd95_mm"),
    split: str = "test",
    sd_split: str | None = "validation",
    alpha: float = 0.05,
    power: float = 0.8,
) -> pd.DataFrame:
    """Return the smallest difference that the patients of a split would show, before their results are looked at.

    Parameters
    ----------
    metrics
        Rows of ``metrics.csv`` of one profile.
    baseline
        Name of the experiment with which the others are compared.
    measures, split
        As `hnlib.stats.compare_experiments` gets them; the differences are those of the first measure.
    sd_split
        Cases from which the SD of the difference is taken; None takes none.
    alpha, power
        See `minimum_detectable_effect`.

    Returns
    -------
    pandas.DataFrame
        ``organ``; ``cases`` of ``split`` (the least over the experiments); ``sd`` of the paired difference over the
        patients of ``sd_split`` (root mean square over the experiments); ``detectable`` by a test on its own, and
        ``detectable_holm`` by the first of as many tests as its family has in `hnlib.stats.compare_experiments`: the
        means over organs of the first measure are one family, all other tests the second. In units of the SD,
        ``detectable_sd`` and ``detectable_holm_sd``, which need no SD. NaN where Wilcoxon's least p for so few patients
        is too large, or no SD is known.
    """
    counts = _paired(metrics, baseline, measures[0], split)["count"].unstack("experiment").fillna(0).min(axis=1)
    sds = {}
    if sd_split is not None:
        sds = ((_paired(metrics, baseline, measures[0], sd_split)["std"] ** 2).groupby("organ").mean() ** 0.5).to_dict()
    tests = planned_tests(metrics, baseline, measures=measures, split=split)
    primary = sum(one["metric"] == measures[0] and one["organ"] == ALL_ORGANS for one in tests)
    rows = []
    for organ in dict.fromkeys(one["organ"] for one in tests if one["metric"] == measures[0]):
        cases, sd = int(counts.get(organ, 0)), float(sds.get(organ, np.nan))
        family = primary if organ == ALL_ORGANS else len(tests) - primary
        alone, first = (
            minimum_detectable_effect(cases, alpha=alpha, power=power, tests=number)
            if least_p(cases) <= alpha / number
            else np.nan
            for number in (1, family)
        )
        known = sd if sd > 0 else np.nan
        effects = {"detectable_sd": alone, "detectable_holm_sd": first}
        effects |= {"detectable": alone * known, "detectable_holm": first * known}
        rows.append({"organ": organ, "cases": cases, "sd": sd, **effects})
    columns = ["organ", "cases", "sd", "detectable", "detectable_holm", "detectable_sd", "detectable_holm_sd"]
    return pd.DataFrame(rows, columns=columns)


def _paired(metrics: pd.DataFrame, baseline: str, metric: str, split: str) -> pd.DataFrame:
    """Return SD and number of the differences over patients, by organ and experiment, with the mean over organs."""
    differences = case_differences(metrics, baseline, metric=metric, split=split)
    whole = differences.groupby(["experiment", "case"], as_index=False)["difference"].mean().assign(organ=ALL_ORGANS)
    both = pd.concat([whole, differences], ignore_index=True)
    found: pd.DataFrame = both.groupby(["organ", "experiment"])["difference"].agg(["std", "count"])
    return found
