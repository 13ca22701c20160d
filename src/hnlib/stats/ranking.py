"""Several experiments on the same patients: mean ranks, and which of them the data tell apart."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from hnlib.stats.paired import over_seeds
from hnlib.stats.tables import lower_is_better, values_by_experiment
from hnlib.stats.testing import holm, signed_rank


@dataclass(frozen=True)
class Ranking:
    """Experiments in the order of their mean rank over patients.

    Attributes
    ----------
    metric, split
        What was ranked.
    ranks
        ``experiment``, ``mean_rank`` (1 is best), ``mean`` of the metric; best first.
    friedman_p
        p value of Friedman's test that all are alike; NaN with fewer than three experiments or two patients.
    pairs
        ``first``, ``second`` (the better ranked one first), ``p`` (Wilcoxon), ``p_holm``, ``p_seeds`` (see
        `hnlib.stats.over_seeds`, after Holm's correction), ``rank_biserial`` (positive: the first is better), ``note``.
    groups
        Longest runs of neighbours among which no pair is told apart, two experiments or more each.
    cases, left_out
        Patients that entered; pairs of case and organ left out because not all experiments have a value.
    """

    metric: str
    split: str
    ranks: pd.DataFrame
    friedman_p: float
    pairs: pd.DataFrame
    groups: tuple[tuple[str, ...], ...]
    cases: int
    left_out: int


def rank_experiments(
    metrics: pd.DataFrame, *, metric: str = "dsc", split: str = "test", alpha: float = 0.05
) -> Ranking:
    """Rank experiments within every patient and find the groups that are not told apart.

    Parameters
    ----------
    metrics
        Rows of ``metrics.csv`` of one profile.
    metric, split
        What is ranked: for each patient the mean over those organs for which all experiments have a value, seeds
        averaged first. A distance ranks from the least.
    alpha
        Level of both steps.

    Raises
    ------
    ValueError
        When the rows hold several profiles, or no case and organ that all experiments have.

    Notes
    -----
    Friedman's test first; where it shows nothing, all are one group. Then Wilcoxon's signed-rank test of every
    pair with Holm's correction over the pairs, and Welch's over the seeds, with the same correction: a pair is told
    apart where both do, and not with one seed. The critical difference of Nemenyi is not used: it compares
    mean ranks, so that whether two experiments differ would depend on which others are in the table
    (Benavoli, Corani, Mangili 2016).
    """
    wide = values_by_experiment(metrics, metric, split)
    common = wide.dropna()
    if common.empty:
        raise ValueError(f"no {split} case has a value of {metric} in all experiments {list(wide)}")
    values = common.groupby(level="case").mean()
    worse = 1 if lower_is_better(metric) else -1
    mean_rank = (worse * values).rank(axis=1).mean().sort_values(kind="stable")
    ranks = pd.DataFrame({"mean_rank": mean_rank, "mean": common.groupby(level="organ").mean().mean()[mean_rank.index]})
    friedman = _friedman(values)
    pairs = _pairs(values[mean_rank.index] * -worse)
    names = [(str(one), str(two)) for one, two in zip(pairs["first"], pairs["second"], strict=True)]
    seeds = [over_seeds(metrics, *pair, metric=metric, split=split).p for pair in names]
    pairs.insert(4, "p_seeds", holm(seeds))
    told = (pairs["p_holm"] < alpha) & (pairs["p_seeds"] < alpha) & (not friedman >= alpha)
    apart = dict(zip(names, told, strict=True))
    return Ranking(
        metric,
        split,
        ranks=ranks.rename_axis("experiment").reset_index(),
        friedman_p=friedman,
        pairs=pairs,
        groups=_groups([str(name) for name in mean_rank.index], apart),
        cases=len(values),
        left_out=len(wide) - len(common),
    )


def _friedman(values: pd.DataFrame) -> float:
    if values.shape[1] < 3 or len(values) < 2 or not (values.nunique(axis=1) > 1).any():
        return float("nan")
    return float(scipy_stats.friedmanchisquare(*values.to_numpy().T).pvalue)


def _pairs(values: pd.DataFrame) -> pd.DataFrame:
    """Test every pair of columns, the better one first; values are such that more is better."""
    columns = ["first", "second", "p", "p_holm", "rank_biserial", "note"]
    rows = []
    for first, second in combinations(values.columns, 2):
        test = signed_rank(values[first] - values[second])
        rows.append((first, second, test.p, np.nan, test.rank_biserial, test.note))
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(p_holm=holm(table["p"]))


def _groups(order: list[str], apart: dict[tuple[str, str], bool]) -> tuple[tuple[str, ...], ...]:
    """Return the longest runs of neighbours without a pair that is told apart."""
    found: list[tuple[int, int]] = []
    for start in range(len(order)):
        stop = start + 1
        while stop < len(order) and not any(apart.get((one, order[stop]), False) for one in order[start:stop]):
            stop += 1
        if stop - start > 1 and not any(begin <= start and stop <= end for begin, end in found):
            found.append((start, stop))
    return tuple(tuple(order[start:stop]) for start, stop in found)
