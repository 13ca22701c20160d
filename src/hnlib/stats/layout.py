"""The table of a paper: experiments by organ, with the best value marked only where tests support it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from hnlib.stats.paired import over_seeds
from hnlib.stats.tables import lower_is_better, values_by_experiment
from hnlib.stats.testing import ALL_ORGANS, holm, signed_rank

MEASURES = ("dsc", "hd95_mm", "surface_dsc")
LAYOUT_COLUMNS = ("experiment", "organ", "metric", "mean", "sd", "cases", "undefined", "best")
"""Columns of `table_one`."""


def table_one(
    metrics: pd.DataFrame, *, measures: Sequence[str] = MEASURES, split: str = "test", alpha: float = 0.05
) -> pd.DataFrame:
    """Return mean and SD over cases of every experiment, organ and metric, and which value is shown to be the best.

    Parameters
    ----------
    metrics
        Rows of ``metrics.csv`` of one profile.
    measures, split
        What is tabulated.
    alpha
        Bound of the probability that any value in the table is marked where nothing differs.

    Returns
    -------
    pandas.DataFrame
        ``experiment``, ``organ`` (last ``all organs``: the mean over a patient's organs), ``metric``; ``mean`` and
        ``sd`` over ``cases``, seeds averaged first, in ``all organs`` of what all experiments have; ``undefined``,
        values that the experiment lacks; ``best``.

    Notes
    -----
    A value is marked as the best of its organ and metric where it is better than that of *every* other experiment on
    the cases that both have, and Wilcoxon's test over patients and Welch's over seeds both tell the two apart, after
    Holm's correction over all pairs of experiments, organs and metrics in the table. All pairs count, because which
    experiment is the best is not known beforehand. With one seed nothing is marked.

    Raises
    ------
    ValueError
        When the rows hold several profiles or none of a metric.
    """
    parts, tests = [], []
    for metric in measures:
        wide = values_by_experiment(metrics, metric, split)
        if wide.empty:
            raise ValueError(f"no {split} rows of {metric}; choose other measures")
        groups = {str(organ): rows.droplevel("organ") for organ, rows in wide.groupby(level="organ", sort=False)}
        groups[ALL_ORGANS] = wide.dropna().groupby(level="case").mean()
        used = metrics[metrics["metric"] == metric]
        for organ, values in groups.items():
            lacking = (wide if organ == ALL_ORGANS else values).isna().sum()
            parts.append(_describe(values, lacking, organ, metric))
            rows = used if organ == ALL_ORGANS else used[used["organ"] == organ]
            for pair in combinations(values.columns, 2):
                tests.append({"organ": organ, "metric": metric, **_apart(values, rows, pair, metric, split)})
    table = pd.concat(parts, ignore_index=True)
    pairs = pd.DataFrame(tests, columns=["organ", "metric", "better", "p"])
    pairs = pairs[np.nan_to_num(holm(pairs["p"]), nan=1.0) < alpha]
    wins = pairs.groupby(["organ", "metric", "better"]).size()
    rivals = table["experiment"].nunique() - 1
    best = [rivals > 0 and wins.get((row.organ, row.metric, row.experiment), 0) == rivals for row in table.itertuples()]
    experiments = list(table["experiment"].unique())
    order = table["experiment"].map(experiments.index).sort_values(kind="stable").index
    return table.assign(best=best).loc[order, list(LAYOUT_COLUMNS)].reset_index(drop=True)


def _describe(values: pd.DataFrame, undefined: pd.Series[int], organ: str, metric: str) -> pd.DataFrame:
    found = pd.DataFrame({"mean": values.mean(), "sd": values.std(), "cases": values.count(), "undefined": undefined})
    return found.rename_axis("experiment").reset_index().assign(organ=organ, metric=metric)


def _apart(
    values: pd.DataFrame, rows: pd.DataFrame, pair: tuple[str, str], metric: str, split: str
) -> dict[str, object]:
    """Return which of two experiments is the better one on their common cases, and the larger p of the two tests."""
    differences = (values[pair[0]] - values[pair[1]]).dropna()
    test = signed_rank(differences)
    if not test.rank_biserial * differences.mean() > 0:  # no difference, or mean and ranks disagree on its sign
        return {"better": "", "p": np.nan}
    p = float(np.maximum(test.p, over_seeds(rows, *pair, metric=metric, split=split).p))
    return {"better": pair[(test.rank_biserial > 0) == lower_is_better(metric)], "p": p}


def paper_layout(
    table: pd.DataFrame, names: Callable[[str], str] = str, mark: Callable[[str], str] = "{}*".format
) -> pd.DataFrame:
    r"""Return `table_one` as papers print it: rows experiment and organ, columns metrics, cells mean and SD.

    Parameters
    ----------
    table
        Result of `table_one`.
    names
        Words for an experiment, organ or metric.
    mark
        What becomes of the text of a best value.

    Examples
    --------
    >>> row = {"experiment": "small", "organ": "mandible", "metric": "dsc", "mean": 0.9, "sd": 0.02, "best": True}
    >>> paper_layout(pd.DataFrame([row])).loc[("small", "mandible"), "dsc"]
    '0.90 ± 0.02*'
    """
    texts = []
    for row in table.to_dict("records"):
        text = "–" if np.isnan(row["mean"]) else f"{row['mean']:.2f}"
        text += "" if np.isnan(row["sd"]) else f" ± {row['sd']:.2f}"
        texts.append(mark(text) if row["best"] else text)
    keys = {name: table[name].map(names) for name in ("experiment", "organ", "metric")}
    wide = table.assign(text=texts, **keys).pivot(index=["experiment", "organ"], columns="metric", values="text")
    rows = pd.MultiIndex.from_frame(pd.DataFrame(keys)[["experiment", "organ"]].drop_duplicates())
    return wide.loc[rows, list(keys["metric"].unique())].fillna("–").rename_axis(columns=None)


def latex(layout: pd.DataFrame, caption: str) -> str:
    r"""Return `paper_layout` as a LaTeX table (packages booktabs and multirow), best values already ``\textbf``."""
    text = layout.to_latex(caption=caption, column_format="ll" + "c" * layout.shape[1], multirow=True, escape=False)
    return str(text.replace("±", r"$\pm$").replace("–", "--"))
