"""Drift: how far a measure of confidence moves from training cases to cases that the network has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from hnlib.cases import SPLITS

DRIFT_MEASURES = ("soft_recall", "soft_precision")
"""The two sides of confidence that every run has."""

_RUN = ["profile", "experiment", "seed", "organ"]


def drift(confidence_table: pd.DataFrame, measures: Sequence[str] = DRIFT_MEASURES) -> pd.DataFrame:
    """Return how far confidence falls from training to test cases.

    Parameters
    ----------
    confidence_table
        Rows of ``confidence.csv``: ``profile``, ``experiment``, ``seed``, ``split``, ``case``, ``organ`` and the
        measures.
    measures
        Columns that are compared.

    Returns
    -------
    pandas.DataFrame
        One row for each profile, experiment, seed and organ, with ``cases_train``, ``cases_validation``,
        ``cases_test`` and, for each measure, the means over cases ``_train``, ``_validation`` and ``_test``, and
        ``_drift`` = train minus test. Of soft recall, positive means less confident on test cases. NaN where a split
        is lacking.

    Raises
    ------
    ValueError
        When a column is lacking.

    Notes
    -----
    Every case weighs the same, whatever its number of voxels. The paper prints the "distance of the
    average confidence" without saying whether it averages voxels or cases.
    """
    _check(confidence_table, measures)
    groups = confidence_table.groupby([*_RUN, "split"], observed=True)
    cases = groups["case"].nunique().unstack("split").reindex(columns=list(SPLITS)).fillna(0).astype(int)
    table = cases.add_prefix("cases_")
    for measure in measures:
        means = groups[measure].mean().unstack("split").reindex(columns=list(SPLITS))
        table[[f"{measure}_{split}" for split in SPLITS]] = means
        table[f"{measure}_drift"] = table[f"{measure}_train"] - table[f"{measure}_test"]
    return table.rename_axis(columns=None).reset_index()


def case_drifts(confidence_table: pd.DataFrame, measures: Sequence[str] = DRIFT_MEASURES) -> pd.DataFrame:
    """Return the signed drift of every single case that the network has not seen.

    Parameters
    ----------
    confidence_table, measures
        As for `drift`.

    Returns
    -------
    pandas.DataFrame
        One row for each ``profile``, ``experiment``, ``seed``, ``split`` (validation or test), ``case``, ``organ`` and
        ``measure``; ``drift``: mean over the training cases minus the value of this case. Their mean over the test
        cases of a run is the `drift` of the run. NaN where the run has no training case with a value.

    Raises
    ------
    ValueError
        When a column is lacking.
    """
    _check(confidence_table, measures)
    keys = [*_RUN, "split", "case"]
    long = confidence_table.melt(keys, list(measures), "measure", "value")
    train = long[long["split"] == "train"].groupby([*_RUN, "measure"], observed=True)["value"].mean().rename("mean")
    unseen = long[long["split"] != "train"].merge(train.reset_index(), on=[*_RUN, "measure"], how="left")
    columns = ["profile", "experiment", "seed", "split", "case", "organ", "measure", "drift"]
    return unseen.assign(drift=unseen["mean"] - unseen["value"])[columns]


def _check(confidence_table: pd.DataFrame, measures: Sequence[str]) -> None:
    if lacking := sorted({*_RUN, "split", "case", *measures} - set(confidence_table.columns)):
        raise ValueError(f"the confidence table lacks the columns {lacking}")
