"""Figures of confidence: cases beside the training mean, margins by depth, reliability, drift as data shrink."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator
from scipy import stats as scipy_stats

from hnlib.organs import organ
from hnlib.plotting.style import FAINT, FULL_WIDTH_IN, INK, draw_interval, in_order, only_one, organ_legend, spread

SPLIT_LOOKS: Mapping[str, tuple[str, str, str]] = {
    "train": ("#0072B2", "o", "training"),
    "validation": ("#999999", "s", "validation"),
    "test": ("#D55E00", "^", "test"),
}
"""Colour, marker and name of each group of cases."""

MEASURES: Mapping[str, str] = {
    "soft_recall": "soft recall",
    "soft_precision": "soft precision",
    "margin": "margin",
    "wrong_fraction": "share on the wrong side",
    "ece": "ECE",
    "brier": "Brier score",
}
"""Measures of confidence as figures and tables print them."""

LEAST_CASES = 5
"""An interval is drawn from so many cases on; with fewer its limits say little and would set the axis."""

NOT_MEASURED = "not measured for these runs"


def blank(text: str = NOT_MEASURED) -> Figure:
    """Draw a line of text where the tables hold nothing to draw."""
    fig, ax = plt.subplots(figsize=(FULL_WIDTH_IN, 0.6))
    ax.text(0.5, 0.5, text, ha="center", va="center")
    ax.axis("off")
    return fig


def case_drift_points(cases: pd.DataFrame, tests: pd.DataFrame) -> Figure:
    """Draw the signed drift of every case that the network has not seen, organ by organ.

    Parameters
    ----------
    cases
        Table of `hnlib.confidence.case_drifts` of one experiment; seeds are averaged.
    tests
        Table of `hnlib.stats.drift_tests` of the same experiment and measures, train against test.

    Returns
    -------
    Figure
        One panel a measure: grey squares are validation cases, coloured points test cases; the line is the interval of
        the mean over test cases. Right of 0: less than in training.

    Raises
    ------
    ValueError
        When the rows hold several experiments.
    """
    only_one(cases, "experiment")
    measures, names = list(cases["measure"].unique()), in_order(cases["organ"].unique())
    values = cases.groupby(["measure", "organ", "split", "case"])["drift"].mean()
    found = tests.set_index(["measure", "organ"])
    size = (FULL_WIDTH_IN, 0.9 + 0.42 * len(names))
    fig, axes = plt.subplots(1, len(measures), figsize=size, sharey=True, squeeze=False)
    for ax, measure in zip(axes[0], measures, strict=True):
        ax.axvline(0, color=FAINT, lw=1, zorder=0)
        for place, name in enumerate(names):
            here = values.loc[measure, name]
            for split, offset in (("validation", 0.22), ("test", -0.12)):
                points = here[here.index.get_level_values("split") == split].dropna().to_numpy()
                look = ("s", "#999999") if split == "validation" else (organ(name).marker, organ(name).colour)
                height = place + offset + spread(len(points), 0.2)
                ax.plot(points, height, look[0], color=look[1], alpha=0.6, ms=3, mew=0)
            row = found.loc[(measure, name)]
            interval = {"mean": row["drift"], "low": row["low"], "high": row["high"]}
            draw_interval(ax, interval, place - 0.12, "D", horizontal=True)
        ax.set_xlabel(f"drift of {MEASURES.get(measure, measure)}")
        ax.tick_params(axis="y", length=0)
    axes[0, 0].set_yticks(range(len(names)), [organ(name).title for name in names])
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return fig


def margin_profiles(margins: pd.DataFrame) -> Figure:
    """Draw the margin of each organ across its surface, for training, validation and test cases.

    Parameters
    ----------
    margins
        Rows of ``confidence_margins.csv`` of one experiment.

    Returns
    -------
    Figure
        One panel an organ; a point stands in the middle of its stratum, the last for all that is deeper than 10 mm.
        Above 0 the network marks the organ, below it does not. Bars: 95 % t interval of the mean over cases, from
        ``LEAST_CASES`` on. Seeds are averaged; the interval takes their mean SD. Without a row, the words that nothing
        was measured.

    Raises
    ------
    ValueError
        When the rows hold several experiments.
    """
    if margins.empty:
        return blank()
    only_one(margins, "experiment")
    names = in_order(margins["organ"].unique())
    fig, axes = _panels(len(names), 3, 1.75)
    table = margins.groupby(["organ", "split", "depth_mm"])[["margin", "margin_sd", "cases"]].mean().reset_index()
    for ax, name in zip(axes, names, strict=False):
        ax.axhline(0, color=INK, lw=0.8, zorder=0)
        ax.axvline(0, color=FAINT, lw=0.8, zorder=0)
        for shift, (split, (colour, marker, _)) in enumerate(SPLIT_LOOKS.items()):
            rows = table[(table["organ"] == name) & (table["split"] == split)]
            factor = scipy_stats.t.ppf(0.975, np.maximum(rows["cases"] - 1, 1)) / np.sqrt(rows["cases"])
            error = (factor * rows["margin_sd"]).where(rows["cases"] >= LEAST_CASES, 0).fillna(0)
            places = rows["depth_mm"] + 2.5 + 0.6 * (shift - 1)  # the middle of the stratum
            ax.errorbar(places, rows["margin"], error, color=colour, marker=marker, ms=3.5, lw=1, elinewidth=0.8)
        ax.set_title(organ(name).title)
        ax.set_xticks([-10, -5, 0, 5, 10], ["-10", "-5", "0", "5", "10"])
    fig.supxlabel("distance to the organ's surface (mm): outside below 0, inside above", fontsize=9)
    fig.supylabel("margin (logits)", fontsize=9)
    _split_legend(fig, margins["split"].unique())
    return fig


def reliability(calibration: pd.DataFrame) -> Figure:
    """Draw how often a voxel is the organ where the network says so with a probability.

    Parameters
    ----------
    calibration
        Rows of ``calibration.csv`` of one experiment; the voxels of all seeds are pooled.

    Returns
    -------
    Figure
        One panel an organ, of its voxels and those within 10 mm. On the diagonal a network is calibrated; below it,
        overconfident. Without a row, the words that nothing was measured.

    Raises
    ------
    ValueError
        When the rows hold several experiments.
    """
    if calibration.empty:
        return blank()
    only_one(calibration, "experiment")
    names = in_order(calibration["organ"].unique())
    fig, axes = _panels(len(names), 5, 1.9)
    sums = pooled_bins(calibration, ["organ", "split", "bin"])
    for ax, name in zip(axes, names, strict=False):
        ax.plot([0, 1], [0, 1], color=FAINT, lw=1, zorder=0)
        for split, (colour, marker, _) in SPLIT_LOOKS.items():
            rows = sums[(sums["organ"] == name) & (sums["split"] == split)]
            ax.plot(rows["probability"], rows["organ_fraction"], color=colour, marker=marker, ms=3.5, lw=1)
        ax.set_title(organ(name).title)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.set_xticks([0, 0.5, 1])
        ax.set_yticks([0, 0.5, 1])
    fig.supxlabel("probability of the organ", fontsize=9)
    fig.supylabel("share that is the organ", fontsize=9)
    _split_legend(fig, calibration["split"].unique())
    return fig


def pooled_bins(calibration: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Pool the voxels of bins: ``voxels`` added, ``probability`` and ``organ_fraction`` weighted by them."""
    measures = ["probability", "organ_fraction"]
    sums = calibration.assign(**{name: calibration[name] * calibration["voxels"] for name in measures})
    table = sums.groupby(list(by))[["voxels", *measures]].sum()
    table[measures] = table[measures].div(table["voxels"], axis=0)
    return table.reset_index()


def drift_growth(growth: pd.DataFrame, against: str) -> Figure:
    """Draw how the drift grows as training patients get fewer, or organs smaller.

    Parameters
    ----------
    growth
        Columns ``patch``, ``patients`` (training patients), ``organ``, ``volume_ml``, ``measure``, ``drift``, ``low``,
        ``high``.
    against
        ``patients``: one line an organ; ``volume_ml``: one point an organ, of one number of training patients.

    Returns
    -------
    Figure
        One row a measure, one column a patch. Bars: 95 % interval over patients. Without a row, the words that
        nothing was measured.

    Raises
    ------
    ValueError
        When several numbers of training patients are to be drawn against the volume.
    """
    if growth.empty:
        return blank()
    if against == "volume_ml":
        only_one(growth, "patients")
    measures, patches = list(growth["measure"].unique()), list(growth["patch"].unique())
    size = (FULL_WIDTH_IN, 0.8 + 1.9 * len(measures))
    fig, axes = plt.subplots(len(measures), len(patches), figsize=size, sharex=True, sharey="row", squeeze=False)
    for row, measure in enumerate(measures):
        for column, patch in enumerate(patches):
            ax = axes[row, column]
            rows = growth[(growth["measure"] == measure) & (growth["patch"] == patch)]
            ax.axhline(0, color=INK, lw=0.8, zorder=0)
            _draw_growth(ax, rows, against)
            ax.set_xscale("log")
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_minor_formatter(NullFormatter())
            if row == 0:
                ax.set_title(f"{patch} patch")
            if column == 0:
                ax.set_ylabel(f"drift of {MEASURES.get(measure, measure)}")
            if row == len(measures) - 1:
                ax.set_xlabel({"patients": "training patients", "volume_ml": "median volume (ml)"}[against])
    _name_growth(fig, axes[0, 0], growth, against)
    return fig


def _name_growth(fig: Figure, ax: Axes, growth: pd.DataFrame, against: str) -> None:
    """Set the ticks of the shared axis and name the organs."""
    ticks = sorted(growth["patients"].unique())
    if against == "volume_ml":
        low, high = growth[against].min() / 1.3, growth[against].max() * 1.3
        ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200) if low <= tick <= high]
        ax.set_xlim(low, high)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    organ_legend(fig, growth["organ"].unique())


def _draw_growth(ax: Axes, rows: pd.DataFrame, against: str) -> None:
    names = in_order(rows["organ"].unique())
    for index, name in enumerate(names):
        found, look = rows[rows["organ"] == name].sort_values(against), organ(name)
        apart = 1.03 ** (index - (len(names) - 1) / 2) if against == "patients" else 1.0
        errors = np.array([found["drift"] - found["low"], found["high"] - found["drift"]])
        limits = np.nan_to_num(errors)
        places = found[against] * apart
        ax.errorbar(places, found["drift"], limits, color=look.colour, marker=look.marker, ms=4, lw=1, elinewidth=0.7)


def _panels(count: int, most: int, height_in: float) -> tuple[Figure, Sequence[Axes]]:
    """Return axes for a count of panels, at most so many side by side, the rest of the grid hidden."""
    columns = min(most, count)
    rows = math.ceil(count / columns)
    size = (FULL_WIDTH_IN, 0.8 + height_in * rows)
    fig, axes = plt.subplots(rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    flat = list(axes.ravel())
    for unused in flat[count:]:
        unused.set_visible(False)
    for ax in flat[max(0, count - columns) : count]:  # the lowest of its column, also above a hidden one
        ax.tick_params(labelbottom=True)
    return fig, flat[:count]


def _split_legend(fig: Figure, splits: Iterable[str]) -> None:
    handles = [
        Line2D([], [], color=colour, marker=marker, label=f"{name} cases")
        for split, (colour, marker, name) in SPLIT_LOOKS.items()
        if split in set(splits)
    ]
    fig.legend(handles=handles, loc="outside upper center", ncols=len(handles))
