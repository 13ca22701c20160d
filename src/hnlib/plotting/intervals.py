"""Values with intervals, organ by organ and series beside series: one figure for every comparison of sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from hnlib.experiment_files import experiment_title
from hnlib.organs import organ
from hnlib.plotting.style import FAINT, FULL_WIDTH_IN, INK, make_axes, marker_of, organ_rows, row_major

SERIES_COLOURS = (INK, "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#777777")
"""Colours of series from the first on; the marker tells them apart, too."""


def intervals_by_organ(table: pd.DataFrame, quantities: Mapping[str, str], *, zero: bool = False) -> Figure:
    """Draw values with their intervals: one row an organ, one panel a quantity, series side by side.

    Parameters
    ----------
    table
        Columns ``organ``, ``series``, ``quantity``, ``value``, ``low``, ``high``; without limits (NaN) the value
        alone is drawn. Series are drawn, and named above, in the order of their rows.
    quantities
        Quantity to the label of its axis, one panel each.
    zero
        Draw the line of no difference.

    Returns
    -------
    Figure
        Organs from above in the order of the vocabulary.

    Raises
    ------
    ValueError
        As `organ_rows`.
    """
    used, names = organ_rows(table, quantities)
    series = list(used["series"].unique())
    step = min(0.22, 0.8 / len(series))
    size = (FULL_WIDTH_IN, 1.1 + max(0.26, 0.11 * len(series)) * len(names))
    fig, axes = plt.subplots(1, len(quantities), figsize=size, sharey=True, squeeze=False)
    for ax, (quantity, label) in zip(axes[0], quantities.items(), strict=True):
        for row in used[used["quantity"] == quantity].itertuples():
            index = series.index(row.series)
            place = names.index(str(row.organ)) + (index - (len(series) - 1) / 2) * step
            colour = SERIES_COLOURS[index % len(SERIES_COLOURS)]
            ax.plot([row.low, row.high], [place, place], color=colour, lw=1.2, zorder=3)
            ax.plot([row.value], [place], marker_of(index), color=colour, mfc="white", mew=1.0, ms=4, zorder=4)
        for between in range(1, len(names)):
            ax.axhline(between - 0.5, color=FAINT, lw=0.4, zorder=0)
        if zero:
            ax.axvline(0, color=FAINT, lw=1, zorder=1)
        ax.set_xlabel(label)
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x")
    axes[0, 0].set_yticks(range(len(names)), [organ(name).title for name in names])
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    if len(series) > 1:
        _name(fig, series)
    return fig


def _name(fig: Figure, series: list[str]) -> None:
    handles = [
        Line2D([], [], color=SERIES_COLOURS[i % len(SERIES_COLOURS)], marker=marker_of(i), mfc="white", label=name)
        for i, name in enumerate(series)
    ]
    columns = 2 if max(map(len, series)) > 24 else min(4, len(handles))
    fig.legend(handles=row_major(handles, columns), loc="outside upper left", ncols=columns, columnspacing=1.2)


def contrasts(table: pd.DataFrame, label: str, *, ax: Axes | None = None) -> Axes:
    """Draw the answer to each question: difference with its interval over patients, and that over seeds.

    Parameters
    ----------
    table
        Columns ``group``, ``question``, ``value``, ``low``, ``high``, ``seeds_low``, ``seeds_high``, ``seeds``; in the
        order of drawing. A question without a value is named and marked as waiting for runs.
    label
        What the axis shows.
    ax
        Axes to draw on.

    Returns
    -------
    Axes
        Thick: interval over patients; thin: over seeds. Groups are parted by a line and named at the right.
    """
    ax = make_axes(ax, 0.9 + 0.24 * len(table))
    groups = table["group"].tolist()
    rows: list[Any] = list(table.itertuples())
    for place, row in enumerate(rows):
        if not place or groups[place - 1] != row.group:
            ax.axhline(place - 0.5, color=FAINT, lw=0.6)
            ax.annotate(
                row.group, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=7, color="#595959"
            )
        if pd.isna(row.value):
            ax.annotate("waits for runs", (0, place), ha="center", va="center", fontsize=7, color="#777777")
            continue
        colour = SERIES_COLOURS[list(dict.fromkeys(groups)).index(row.group) % len(SERIES_COLOURS)]
        ax.plot([row.seeds_low, row.seeds_high], [place + 0.18] * 2, color=colour, lw=0.8)
        ax.plot([row.low, row.high], [place, place], color=colour, lw=2.2)
        ax.plot([row.value], [place], "o", color=colour, mfc="white", mew=1.0, ms=4.5, zorder=4)
    ax.axvline(0, color=FAINT, lw=1, zorder=0)
    ax.set_yticks(range(len(table)), list(table["question"]))
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(label)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.grid(axis="x")
    return ax


def three_readings(table: pd.DataFrame) -> Figure:
    """Draw validation DSC along steps, voxels seen and seconds, one line an experiment.

    Parameters
    ----------
    table
        Columns ``experiment``, ``step``, ``voxels``, ``seconds``, ``dsc``.

    Raises
    ------
    ValueError
        When there is no row.
    """
    if table.empty:
        raise ValueError("no run has a history to read; train one first")
    names = list(table["experiment"].unique())
    fig, axes = plt.subplots(1, 3, figsize=(FULL_WIDTH_IN, 2.6), sharey=True)
    scaled = table.assign(voxels=table["voxels"] / 1e6, seconds=table["seconds"] / 60)
    labels = {"step": "steps", "voxels": "voxels seen (millions)", "seconds": "minutes"}
    for ax, (axis, label) in zip(axes, labels.items(), strict=True):
        for index, name in enumerate(names):
            rows = scaled[scaled["experiment"] == name]
            colour = SERIES_COLOURS[index % len(SERIES_COLOURS)]
            ax.plot(rows[axis], rows["dsc"], color=colour, marker=marker_of(index), mfc="white", ms=4)
        ax.set_xlabel(label)
        ax.grid()
    axes[0].set_ylabel("validation DSC")
    _name(fig, [experiment_title(name) for name in names])
    return fig
