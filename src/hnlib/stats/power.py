"""What a comparison can find at all: the smallest effect that a number of patients would show."""

from __future__ import annotations

import numpy as np
import pandas as pd
from statsmodels.stats.power import TTestPower

from hnlib.stats.paired import case_differences
from hnlib.stats.testing import ALL_ORGANS


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
    metric: str = "dsc",
    split: str = "test",
    alpha: float = 0.05,
    power: float = 0.8,
) -> pd.DataFrame:
    """Return the smallest difference that the patients at hand would show, organ by organ and over all.

    Parameters
    ----------
    metrics
        Rows of ``metrics.csv`` of one profile.
    baseline
        Name of the experiment with which the others are compared.
    metric, split, alpha, power
        See `minimum_detectable_effect`.

    Returns
    -------
    pandas.DataFrame
        ``organ``, ``cases`` (the least over the experiments), ``sd`` of the paired difference over patients (root
        mean square over the experiments), ``detectable`` by a test on its own, and ``detectable_holm`` by the
        first of a test for each organ and experiment. The mean over organs is tested once an experiment. NaN where
        nothing can be shown: all differences are alike, or Wilcoxon's least p for so few patients is too large.
    """
    table = case_differences(metrics, baseline, metric=metric, split=split)
    whole = table.groupby(["experiment", "case"], as_index=False)["difference"].mean().assign(organ=ALL_ORGANS)
    both = pd.concat([whole, table], ignore_index=True)
    spread = both.groupby(["organ", "experiment"], sort=False)["difference"].agg(["std", "count"]).reset_index()
    experiments, organs = table["experiment"].nunique(), table["organ"].nunique()
    rows = []
    for organ, part in spread.groupby("organ", sort=False):
        cases, sd = int(part["count"].min()), float(np.sqrt((part["std"] ** 2).mean()))
        tests = experiments * (1 if organ == ALL_ORGANS else organs)
        alone, first = (
            minimum_detectable_effect(cases, sd=sd, alpha=alpha, power=power, tests=number)
            if sd > 0 and least_p(cases) <= alpha / number
            else float("nan")
            for number in (1, tests)
        )
        rows.append({"organ": organ, "cases": cases, "sd": sd, "detectable": alone, "detectable_holm": first})
    return pd.DataFrame(rows, columns=["organ", "cases", "sd", "detectable", "detectable_holm"])
