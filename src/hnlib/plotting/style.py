"""The look of every figure, in one place, and the parts that several figures share."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from hnlib.experiment_files import experiment_title
from hnlib.organs import ORGANS, organ

FULL_WIDTH_IN = 6.3
HALF_WIDTH_IN = 3.1
INK = "#222222"
FAINT = "#BBBBBB"
EXPERIMENT_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")

STYLE: Mapping[Any, Any] = {
    "figure.figsize": (FULL_WIDTH_IN, 3.0),
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
}
"""Matplotlib settings of every figure: 9 pt sans, full width 6.3 in."""

METRIC_LABELS: Mapping[str, str] = {
    "dsc": "DSC",
    "iou": "IoU",
    "precision": "precision",
    "recall": "recall",
    "hd95_mm": "HD95 (mm)",
    "surface_dsc": "surface DSC",
    "surface_dsc_1vox": "surface DSC at one voxel",
    "missed": "missed",
}


def use_style() -> None:
    """Set matplotlib's defaults to ``STYLE`` for the running process."""
    mpl.rcParams.update(STYLE)


def panel_title(experiment: str) -> str:
    """Return the name of an experiment on two lines, for a narrow panel."""
    return experiment_title(experiment).replace(", ", ",\n")


def make_axes(ax: Axes | None, height_in: float) -> Axes:
    """Return the axes given, or new ones of full width."""
    return ax if ax is not None else plt.subplots(figsize=(FULL_WIDTH_IN, height_in))[1]


def only_one(table: pd.DataFrame, column: str) -> None:
    """Refuse a table without rows, or one that mixes what must not share a figure.

    Raises
    ------
    ValueError
        When the table is empty or the column holds several values.
    """
    found = list(table[column].unique())
    if not found:
        raise ValueError("no row of the table is left to draw; check split, metric and experiment")
    if len(found) > 1:
        raise ValueError(f"the rows hold several values of {column}: {found}; choose one")


def in_order(names: Iterable[str]) -> list[str]:
    """Sort organs as the vocabulary does; those outside it follow by name."""
    position = {name: index for index, name in enumerate(ORGANS)}
    return sorted(names, key=lambda name: (position.get(name, len(position)), name))


def organ_rows(table: pd.DataFrame, quantities: Collection[str]) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of these quantities, and their organs in order.

    Raises
    ------
    ValueError
        When no row is left to draw.
    """
    used = table[table["quantity"].isin(quantities)]
    if used.empty:
        raise ValueError(f"no row of {list(quantities)} is left to draw")
    return used, in_order(used["organ"].unique())


def spread(count: int, width: float) -> NDArray[np.float64]:
    """Spread points over +- width / 2 by multiples of the golden ratio: even, and the same every time."""
    golden = (math.sqrt(5) - 1) / 2
    return np.array([width * (index * golden % 1.0 - 0.5) for index in range(count)], dtype=np.float64)


def draw_interval(ax: Axes, row: Mapping[Any, Any], place: float, marker: str, *, horizontal: bool = False) -> None:
    """Draw ``mean`` and the line from ``low`` to ``high`` at a place of the other axis."""
    ends, mean = [row["low"], row["high"]], [row["mean"]]
    line, point = ([ends, [place, place]], [mean, [place]]) if horizontal else ([[place, place], ends], [[place], mean])
    ax.plot(*line, color=INK, lw=1.3, zorder=3)
    ax.plot(*point, marker, color=INK, mfc="white", mew=1.0, ms=4.5, zorder=4)


def draw_box(ax: Axes, values: NDArray[np.float64], place: float, width: float, marker: str) -> None:
    """Draw median, quartiles and whiskers of values at a place of the x axis; the median carries the marker."""
    if not len(values):
        return
    line: dict[str, Any] = {"color": INK, "linewidth": 0.9}
    ax.boxplot(
        [values],
        positions=[place],
        widths=width,
        showfliers=False,
        showcaps=False,
        manage_ticks=False,
        boxprops=line,
        whiskerprops=line,
        medianprops=line,
    )
    ax.plot([place], [float(np.median(values))], marker, color=INK, mfc="white", mew=1.0, ms=4, zorder=4)


def row_major(handles: Sequence[Line2D], columns: int) -> list[Line2D]:
    """Reorder legend entries so that they read along rows; matplotlib fills columns.

    Examples
    --------
    >>> row_major([1, 2, 3, 4, 5], 3)
    [1, 4, 2, 5, 3]
    """
    return [handle for column in range(columns) for handle in handles[column::columns]]


def experiment_legend(ax: Axes, experiments: Sequence[str]) -> None:
    """Name the experiments above the axes, from left to right as they are drawn."""
    handles = [
        Line2D([], [], color=INK, marker=marker_of(index), mfc="white", ls="", label=experiment_title(name))
        for index, name in enumerate(experiments)
    ]
    columns = min(4, len(handles))
    ax.legend(
        handles=row_major(handles, columns),
        loc="lower left",
        bbox_to_anchor=(-0.02, 1),
        ncols=columns,
        borderaxespad=0.2,
        handletextpad=0.0,
        columnspacing=0.6,
    )


def marker_of(index: int) -> str:
    """Return the marker of the experiment at a place in the order of drawing."""
    return EXPERIMENT_MARKERS[index % len(EXPERIMENT_MARKERS)]


def set_organ_ticks(ax: Axes, names: Sequence[str], below: Sequence[str] = ()) -> None:
    """Write organ names below the axes, wrapped or turned to fit, with a further line each if given."""
    width = int(80 / max(1, len(names)))
    titles = [organ(name).title for name in names]
    turned = width < 8
    if not turned:
        # The side stays with its word: textwrap does not break at a no-break space.
        held = (re.sub(" ([LR])$", "\u00a0\\1", title) for title in titles)
        titles = ["\n".join(textwrap.wrap(title, width, break_long_words=False)) for title in held]
    glue = " " if turned else "\n"
    labels = [f"{title}{glue}{extra}" for title, extra in zip(titles, below, strict=True)] if below else titles
    ax.set_xticks(range(len(names)), labels, rotation=90 if turned else 0)
    ax.tick_params(axis="x", length=0)


def organ_legend(
    fig: Figure, names: Iterable[str], *, marker: bool = True, first: Sequence[Line2D] = (), title: str | None = None
) -> None:
    """Name the organs below the figure, after the entries in ``first``.

    Without markers the two sides of a pair look the same and share an entry.
    """
    looks = [organ(name) for name in in_order(names)]
    if marker:
        entries = {look.title: (look.colour, look.marker) for look in looks}
    else:
        entries = {re.sub(" [LR]$", "", look.title): (look.colour, "") for look in looks}
    handles = [
        *first,
        *(Line2D([], [], color=colour, marker=mark, label=title) for title, (colour, mark) in entries.items()),
    ]
    columns = min(len(handles), max(2, int(fig.get_figwidth() / 1.2)))
    fig.legend(
        handles=row_major(handles, columns),
        loc="outside lower center",
        ncols=columns,
        columnspacing=1.2,
        title=title,
        title_fontsize=8,
    )
