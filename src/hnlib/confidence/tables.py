"""What a run keeps of its probabilities: rows of single cases, and the tables of the run made of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hnlib.confidence.near import calibration_bins, look_near, summarise_depths, summarise_near
from hnlib.confidence.summaries import SUMMARY_QUANTILES, quantile_table, summarise, true_class_probabilities

_SUMMARY = ["split", "case", "organ", "voxels", "soft_recall", "soft_precision", *SUMMARY_QUANTILES]
_NEAR = ["margin", "wrong_fraction", "ece", "brier"]

DECIMALS = 4
"""Of margins, errors and means in the tables of `NEAR_TABLES`, whose size grows with every run that is published."""

CONFIDENCE_TABLES = ("confidence", "confidence_quantiles")
"""Tables of every measured run."""

NEAR_TABLES: Mapping[str, tuple[str, ...]] = {
    "confidence_margins": (
        *("split", "organ", "depth_mm", "cases", "voxels"),
        *("probability", "probability_sd", "margin", "margin_sd", "wrong_fraction"),
    ),
    "calibration": ("split", "organ", "bin", "voxels", "probability", "organ_fraction"),
}
"""Tables, with their columns, that runs have which were measured since they exist."""


def case_tables(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    organs: Sequence[str],
    labelled: Collection[str],
    spacing_mm: Sequence[float],
) -> list[pd.DataFrame]:
    """Return what is kept of the probabilities of one case.

    Parameters
    ----------
    probabilities
        Softmax output, shape (C, X, Y, Z), in 0..1, C = 1 + number of organs, background first.
    labels
        Label map on the same grid, shape (X, Y, Z): ``i + 1`` is ``organs[i]``.
    organs
        Names of the organs in label order.
    labelled
        Organs that were outlined in this case; the others have no row.
    spacing_mm
        Voxel edges along X, Y, Z.

    Returns
    -------
    list of pandas.DataFrame
        Rows with ``organ`` and the name of their ``table``: ``confidence`` (`summarise` with `summarise_near`),
        ``margins`` (`summarise_depths`), ``calibration`` (`calibration_bins`) and ``voxels`` (the probability of
        the true class of every voxel of an organ).

    Raises
    ------
    ValueError
        When shapes, number of classes or names do not fit together.
    """
    summary = summarise(probabilities, labels, organs, labelled)
    voxels = true_class_probabilities(probabilities, labels, organs, labelled)
    near = {name: look_near(probabilities, labels, organs.index(name) + 1, spacing_mm) for name in voxels}
    extra = pd.DataFrame([summarise_near(near[name]) for name in summary["organ"]], columns=_NEAR)
    return [
        summary.join(extra).assign(table="confidence"),
        *(summarise_depths(found).assign(organ=name, table="margins") for name, found in near.items()),
        *(calibration_bins(found).assign(organ=name, table="calibration") for name, found in near.items()),
        *(pd.DataFrame({"organ": name, "value": p, "table": "voxels"}) for name, p in voxels.items()),
    ]


def run_tables(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Gather the rows of all cases of a run.

    Parameters
    ----------
    rows
        Rows of `case_tables` with ``split`` and ``case``.

    Returns
    -------
    dict
        ``CONFIDENCE_TABLES`` and ``NEAR_TABLES``: ``confidence`` by case and organ; ``confidence_quantiles``, pooled
        over the voxels of a split; ``confidence_margins``, by organ and stratum the mean and SD over cases of the
        cases' means; ``calibration``, pooled over the voxels of a split. The tables of ``NEAR_TABLES``, and the
        columns that go with them, are lacking where a case was measured before they existed.
    """
    part = {str(name): found for name, found in rows.groupby("table", sort=False)}
    confidence = part["confidence"]
    whole = {"margins", "calibration"} <= part.keys() and not (
        set(confidence.loc[confidence["voxels"] > 0, "case"]) - set(part["margins"]["case"])
    )
    columns = [*_SUMMARY, *_NEAR] if whole else _SUMMARY
    summary = confidence[columns].astype({"voxels": int}).round(dict.fromkeys(_NEAR, DECIMALS))
    tables = {"confidence": summary, "confidence_quantiles": _quantiles(part)}
    if whole:
        tables["confidence_margins"] = _margins(part["margins"]).round(DECIMALS)
        tables["calibration"] = _calibration(part["calibration"]).round(DECIMALS)
    return tables


def _quantiles(part: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    tables = []
    for split, rows in part["voxels"].groupby("split", sort=False):
        pooled = {str(name): found["value"].to_numpy() for name, found in rows.groupby("organ", sort=False)}
        tables.append(quantile_table([pooled]).assign(split=split))
    return pd.concat(tables)[["split", "organ", "quantile", "value"]]


def _margins(rows: pd.DataFrame) -> pd.DataFrame:
    groups = rows.groupby(["split", "organ", "depth_mm"], sort=False)
    table = groups.agg(
        cases=("case", "nunique"),
        voxels=("voxels", "sum"),
        probability=("probability", "mean"),
        probability_sd=("probability", "std"),
        margin=("margin", "mean"),
        margin_sd=("margin", "std"),
        wrong_fraction=("wrong_fraction", "mean"),
    )
    whole = table.reset_index().astype({"voxels": int}).sort_values(["split", "organ", "depth_mm"])
    return whole[list(NEAR_TABLES["confidence_margins"])]


def _calibration(rows: pd.DataFrame) -> pd.DataFrame:
    measures = ["probability", "organ_fraction"]
    sums = rows.assign(**{name: rows[name] * rows["voxels"] for name in measures})
    table = sums.groupby(["split", "organ", "bin"])[["voxels", *measures]].sum()
    table[measures] = table[measures].div(table["voxels"], axis=0)
    table = table.reset_index().astype({"bin": int, "voxels": int})
    return table[list(NEAR_TABLES["calibration"])]
