"""Figures of the question whether a measure predicts: results against a measure, and correlations with intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hnlib.organs import organ
from hnlib.plotting.planning import DRAW_LOOKS
from hnlib.plotting.style import FAINT, FULL_WIDTH_IN, INK, METRIC_LABELS, in_order, make_axes, organ_legend

#: Area of a point by patch, the largest patch the largest.
PATCH_SIZES: Mapping[str, float] = {"large": 7.0, "medium": 5.0, "small": 3.2}


def _marks() -> list[Line2D]:
    """Return what says which mark is which draw, and which size which patch."""
    draws = [Line2D([], [], marker=m, ls="", mec=INK, mfc=f, ms=5, label=name) for name, (m, f) in DRAW_LOOKS.items()]
    return draws + [
        Line2D([], [], marker="o", ls="", mec=INK, mfc=FAINT, ms=size, label=f"{patch} patch")
        for patch, size in PATCH_SIZES.items()
    ]


def results_by_measure(points: pd.DataFrame, organs: Sequence[str], label: str, metric: str = "dsc") -> Figure:
    """Draw a metric against a measure, one panel an organ, one point a run.

    Parameters
    ----------
    points
        ``measured``, ``value``, ``organ``, ``patch``, ``draw``; without rows the panels say so.
    organs
        Organs, each a panel.
    label
        Name of the measure.
    metric
        Column of ``metrics.csv`` that the values are of.
    """
    columns = 4
    rows = -(-(len(organs) + 1) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(FULL_WIDTH_IN, 1.75 * rows), squeeze=False)
    for axes, name in zip(panels.flat, in_order(organs), strict=False):
        shown = points[points["organ"] == name]
        for (patch, draw), part in shown.groupby(["patch", "draw"], sort=False):
            marker, fill = DRAW_LOOKS[str(draw)]
            axes.plot(
                part["measured"], part["value"], marker, ls="", mec=INK, mfc=fill, mew=0.8, ms=PATCH_SIZES[str(patch)]
            )
        if shown.empty:
            axes.text(0.5, 0.5, "no run yet", transform=axes.transAxes, ha="center", va="center", color="#777777")
            axes.set_xticks([])
        axes.set_title(organ(name).title)
        axes.grid(axis="y")
        axes.locator_params(axis="x", nbins=2)
        axes.tick_params(axis="x", labelsize=7)
        axes.margins(x=0.15, y=0.12)
    rest = list(panels.flat)[len(organs) :]
    for axes in rest:
        axes.axis("off")
    rest[0].legend(handles=_marks(), loc="center", handletextpad=0.3, borderaxespad=0)
    figure.supxlabel(label, fontsize=9)
    figure.supylabel(METRIC_LABELS[metric], fontsize=9)
    return figure


def results_matrix(points: pd.DataFrame, titles: Mapping[str, str], metric: str = "dsc") -> Figure:
    """Draw a metric against the rank by every measure: one row a measure, one column an organ, one point a run.

    Parameters
    ----------
    points
        ``measure``, ``organ``, ``rank`` (1 for what the measure calls worst), ``value``, ``patch``, ``draw``, ``rho``;
        without rows the figure says so.
    titles
        Names of the measures.
    metric
        Column of ``metrics.csv`` that the values are of.
    """
    measures, organs = list(points["measure"].unique()), in_order(points["organ"].unique())
    if points.empty:
        figure = plt.figure(figsize=(FULL_WIDTH_IN, 1.0))
        figure.text(0.5, 0.5, "no run yet", ha="center", va="center", color="#777777")
        return figure
    figure, panels = plt.subplots(
        len(measures),
        len(organs),
        figsize=(FULL_WIDTH_IN, 0.55 * len(measures) + 1.0),
        sharex=True,
        sharey="col",
        squeeze=False,
    )
    for row, measure in zip(panels, measures, strict=True):
        for axes, name in zip(row, organs, strict=True):
            shown = points[(points["measure"] == measure) & (points["organ"] == name)]
            for (patch, draw), part in shown.groupby(["patch", "draw"], sort=False):
                marker, fill = DRAW_LOOKS[str(draw)]
                size = 0.5 * PATCH_SIZES[str(patch)]
                axes.plot(part["rank"], part["value"], marker, ls="", mec=INK, mfc=fill, mew=0.5, ms=size)
            rho = shown["rho"].iloc[0]
            text = "no order" if np.isnan(rho) else f"{rho:+.2f}"
            axes.set_title(text, fontsize=6.5, loc="right", pad=1, color=INK if rho > 0 else "#888888")
            axes.margins(0.12)
            axes.set_xticks([])
            axes.set_yticks([])
        row[0].set_ylabel(textwrap.fill(titles[measure], 24), fontsize=6.5, rotation=0, ha="right", va="center")
    values = points.groupby("organ")["value"].agg(["min", "max"])
    for axes, name in zip(panels[0], organs, strict=True):
        text = f"{organ(name).title}\n{values['min'][name]:.2f} to {values['max'][name]:.2f}"
        axes.annotate(text, (0.5, 1), (0, 11), "axes fraction", "offset points", fontsize=7.5, ha="center", va="bottom")
    figure.supxlabel(f"configurations from worst to best by the measure; upwards {METRIC_LABELS[metric]}", fontsize=8)
    figure.legend(handles=_marks(), loc="outside upper center", ncols=6, handletextpad=0.3, columnspacing=1.2)
    return figure


def correlation_intervals(table: pd.DataFrame, titles: Mapping[str, str], whole: str, ax: Axes | None = None) -> Axes:
    """Draw the rank correlation of each measure: over organs with its interval, and each organ as a small mark.

    Parameters
    ----------
    table
        As from `hnlib.stats.rank_correlations`.
    titles
        Names of the measures.
    whole
        Value of ``organ`` in the rows of the mean over organs.
    ax
        Axes to draw on.
    """
    measures = list(table["measure"].unique())
    ax = make_axes(ax, 0.9 + 0.27 * len(measures))
    ax.axvline(0, color=INK, lw=0.8)
    for place, name in enumerate(measures):
        rows = table[table["measure"] == name].set_index("organ")
        for one in in_order(index for index in rows.index if index != whole):
            look = organ(one)
            ax.plot(rows.loc[one, "rho"], place, look.marker, color=look.colour, ms=3.5, mew=0, alpha=0.8)
        mean = rows.loc[whole]
        ax.plot([mean["low"], mean["high"]], [place, place], color=INK, lw=1.3, zorder=3)
        ax.plot(mean["rho"], place, "D", mec=INK, mfc="white", ms=5, zorder=4)
    if np.isnan(table["rho"]).all():
        number = int(table["configurations"].max())
        text = f"{number} configuration{'s' if number != 1 else ''} in: no order to speak of yet"
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color="#777777")
    ax.set_yticks(range(len(measures)), [titles[name] for name in measures])
    ax.set_ylim(len(measures) - 0.5, -0.5)
    ax.set_xlim(-1.08, 1.08)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("rank correlation with the results (above 0: the measure is right)")
    ax.grid(axis="x")
    organs = [name for name in table["organ"].unique() if name != whole]
    if organs:
        organ_legend(cast(Figure, ax.figure), organs)
    return ax
