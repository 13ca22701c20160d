"""Figures of losses: what they pull at, what false positives cost, where they cut, and how trained networks differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hnlib.experiment_files import experiment_title
from hnlib.organs import organ
from hnlib.plotting.style import (
    FAINT,
    FULL_WIDTH_IN,
    INK,
    METRIC_LABELS,
    draw_interval,
    make_axes,
    marker_of,
    row_major,
)

LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
"""Colours of losses, by their place in a figure; markers tell them apart too."""
DASHES = ("-", "--", "-.", ":")


def pull_ratios(table: pd.DataFrame, *, voxels: float, ax: Axes | None = None) -> Axes:
    """Draw how much harder each loss pulls at a large organ than at a small one, at each stage of training.

    Parameters
    ----------
    table
        One row a loss, one column a stage: pull at the large organ over that at the small one, above 0.
    voxels
        Ratio of the organs' voxels, marked by a line.
    ax
        Axes to draw on.

    Returns
    -------
    Axes
        Log axis; 1 is an even pull.
    """
    ax = make_axes(ax, 0.9 + 0.19 * len(table))
    rows = np.arange(len(table))
    for place in (1.0, voxels):
        ax.axvline(place, color=FAINT, lw=1, zorder=0)
    for index, stage in enumerate(table.columns):
        ax.plot(table[stage], rows, marker_of(index), color=_colour(index), ms=4.5, label=str(stage))
    ax.set_xscale("log")
    ax.set_yticks(rows, list(table.index))
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"pull at the large organ over pull at the small one (lines: 1, and their voxels, {voxels:g})")
    ax.grid(axis="y")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(table.columns), borderaxespad=0.2)
    return ax


def false_positive_slopes(table: pd.DataFrame, *, floor: float = 1e-9, ax: Axes | None = None) -> Axes:
    """Draw the slope of losses over the mass that an absent class is given.

    Parameters
    ----------
    table
        ``loss``, ``mass`` (in voxels), ``slope`` (in units of that of mean cross-entropy), in the order to be drawn.
    floor
        Slopes from here down, 0 too, are drawn at the foot of the axis.
    ax
        Axes to draw on.

    Returns
    -------
    Axes
        Log axes; one line a loss.
    """
    ax = make_axes(ax, 3.2)
    for index, name in enumerate(table["loss"].unique()):
        rows = table[table["loss"] == name]
        heights = rows["slope"].clip(lower=floor)
        ax.plot(rows["mass"], heights, marker_of(index), color=_colour(index), ls="-", label=str(name), clip_on=False)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(bottom=floor)
    ticks = [tick for tick in (1e-6, 1e-3, 1.0, 1e3, 1e6, 1e9) if tick < 10 * table["slope"].max()]
    ax.set_yticks([floor, *ticks], ["≈ 0", *(f"{tick:g}" for tick in ticks)])
    ax.minorticks_off()
    ax.set_xlabel("probability given to an absent class, all voxels together (voxels)")
    ax.set_ylabel("penalty for more of it\n(1: that of cross-entropy)")
    ax.grid(axis="y")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def pressure_by_percent(table: pd.DataFrame) -> Figure:
    """Draw where topK Dice cuts ambiguous voxels, and the volume of a ball whose radius varies, over K.

    Parameters
    ----------
    table
        ``form``, ``percent``, ``check`` (``ambiguous voxels`` or ``jittered ball``), ``measure``, ``value``.

    Returns
    -------
    Figure
        Two panels; the lines at 1/2 and 1 are where cross-entropy settles and the true volume.
    """
    fig, axes = plt.subplots(1, 2, figsize=(FULL_WIDTH_IN, 2.6))
    panels = (
        ("ambiguous voxels", "cut", 0.5, "label probability at the cut"),
        ("jittered ball", "volume_ratio", 1.0, "predicted over true volume"),
    )
    for ax, (check, measure, line, label) in zip(axes, panels, strict=True):
        ax.axhline(line, color=FAINT, lw=1, zorder=0)
        shown = table[(table["check"] == check) & (table["measure"] == measure)]
        for index, form in enumerate(shown["form"].unique()):
            rows = shown[shown["form"] == form].sort_values("percent")
            ax.plot(rows["percent"], rows["value"], marker_of(index), ls="-", color=_colour(index), label=str(form))
        ax.set_xlabel("K (%)")
        ax.set_ylabel(label)
        ax.grid(axis="y")
    axes[0].legend(loc="lower right")
    return fig


def metric_differences(table: pd.DataFrame, metrics: Sequence[str]) -> Figure:
    """Draw how each experiment differs from a baseline, one panel a metric.

    Parameters
    ----------
    table
        ``experiment``, ``metric``, ``difference``, ``low``, ``high``, ``seeds_low``, ``seeds_high``: mean over organs
        and its intervals over patients (thick) and over seeds (thin, below; NaN with one seed).
    metrics
        Metrics from left to right.

    Returns
    -------
    Figure
        One row an experiment.
    """
    names = list(table["experiment"].unique())
    fig, axes = plt.subplots(
        1, len(metrics), figsize=(FULL_WIDTH_IN, 0.8 + 0.27 * max(2, len(names))), sharey=True, squeeze=False
    )
    for ax, metric in zip(axes[0], metrics, strict=True):
        ax.axvline(0, color=FAINT, lw=1, zorder=0)
        for row in table[table["metric"] == metric].to_dict("records"):
            place = names.index(row["experiment"])
            draw_interval(ax, {**row, "mean": row["difference"]}, place, marker_of(0), horizontal=True)
            ax.plot([row["seeds_low"], row["seeds_high"]], [place + 0.28] * 2, color=INK, lw=0.8)
        ax.set_xlabel(METRIC_LABELS.get(metric, metric))
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="x")
        ax.margins(x=0.1)
        ax.xaxis.set_major_locator(MaxNLocator(2))
    axes[0, 0].set_yticks(range(len(names)), [experiment_title(name) for name in names])
    axes[0, 0].set_ylim(max(1, len(names)) - 0.5, -0.5)
    return fig


def pull_curves(table: pd.DataFrame, *, starts: pd.DataFrame) -> Figure:
    """Draw the pull of losses at organs while a network cannot yet tell them from their surroundings.

    Parameters
    ----------
    table
        ``organ``, ``loss``, ``probability`` (the organ's, the same at every voxel), ``pull``.
    starts
        ``name`` and ``probability`` for each organ: where trainings start, as vertical lines.

    Returns
    -------
    Figure
        One panel an organ, log axes.
    """
    organs = list(table["organ"].unique())
    fig, axes = plt.subplots(1, len(organs), figsize=(FULL_WIDTH_IN, 2.9), sharey=True, squeeze=False)
    handles = []
    for ax, name in zip(axes[0], organs, strict=True):
        for row in starts[starts["organ"] == name].to_dict("records"):
            ax.axvline(row["probability"], color=FAINT, lw=1, zorder=0)
            place = (row["probability"], 1.02)
            ax.annotate(row["name"], place, xycoords=("data", "axes fraction"), ha="center", fontsize=7)
        rows = table[table["organ"] == name]
        handles = [
            ax.plot(
                part["probability"], part["pull"], color=_colour(index), ls=DASHES[index % len(DASHES)], label=loss
            )[0]
            for index, (loss, part) in enumerate(rows.groupby("loss", sort=False))
        ]
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlabel(f"p of {organ(name).title}, everywhere alike")
        ax.grid(axis="y")
    axes[0, 0].set_ylabel("pull at the organ")
    axes[0, 0].tick_params(colors=INK)
    fig.legend(handles=row_major(handles, len(handles)), loc="outside lower center", ncols=max(1, len(handles)))
    return fig


def _colour(index: int) -> str:
    return LINES[index % len(LINES)]
