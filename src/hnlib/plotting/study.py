"""Figures of the data and of training: volumes, shares of classes, sigma, learning curves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hnlib.organs import organ
from hnlib.plotting.style import (
    FAINT,
    FULL_WIDTH_IN,
    INK,
    in_order,
    make_axes,
    marker_of,
    only_one,
    organ_legend,
    panel_title,
    spread,
)


def organ_volumes(dataset_table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the volume of every organ of every case, largest organ on top, median labelled.

    Parameters
    ----------
    dataset_table
        Rows of ``dataset.csv``: ``case``, ``organ``, ``volume_ml``. A volume of 0 has no place on the log axis
        and is not drawn.
    ax
        Axes to draw on.

    Returns
    -------
    Axes
        One row an organ; log axis in ml; the number of cases stands beside the organ's name.
    """
    table = dataset_table[dataset_table["volume_ml"] > 0]
    medians = table.groupby("organ")["volume_ml"].median().sort_values()
    ax = make_axes(ax, 0.6 + 0.3 * len(medians))
    for row, (name, median) in enumerate(medians.items()):
        look = organ(str(name))
        volumes = table.loc[table["organ"] == name, "volume_ml"].to_numpy()
        ax.plot(volumes, row + spread(len(volumes), 0.5), look.marker, color=look.colour, alpha=0.55, ms=3, mew=0)
        ax.plot([median, median], [row - 0.38, row + 0.38], color=INK, lw=1.5)
        ax.annotate(f"{median:.3g}", (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    counts = table.groupby("organ")["case"].nunique()
    ax.set_yticks(range(len(medians)), [f"{organ(str(name)).title} (n = {counts[name]})" for name in medians.index])
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xlabel("volume (ml); bar and number: median")
    ax.set_ylim(-0.6, len(medians) - 0.4)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    return ax


def class_ratios(imbalance_table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the expected share of each class in a patch, from the largest patch to the smallest.

    Parameters
    ----------
    imbalance_table
        Rows of ``imbalance.csv`` of one centre rule: ``patch``, ``patch_x``, ``patch_y``, ``patch_z``, ``centres``,
        ``case``, ``class``, ``ratio``. Shares are averaged over cases.
    ax
        Axes to draw on.

    Returns
    -------
    Axes
        Log axis of shares; one line a class, labelled at its right end.

    Raises
    ------
    ValueError
        When the rows hold several centre rules.
    """
    only_one(imbalance_table, "centres")
    sizes = imbalance_table.groupby("patch", sort=False)[["patch_x", "patch_y", "patch_z"]].mean()
    sizes = sizes.loc[sizes.prod(axis=1).sort_values(ascending=False).index]
    means = imbalance_table.groupby(["class", "patch"])["ratio"].mean().unstack("patch")[sizes.index]
    ax = make_axes(ax, 3.6)
    ax.set_yscale("log")
    for name, shares in means.iterrows():
        colour, marker, _ = _class_look(str(name))
        ax.plot(range(len(sizes)), shares, color=colour, marker=marker, clip_on=False)
    ends = {str(name): math.log10(value) for name, value in means[sizes.index[-1]].items() if value > 0}
    _label_ends(ax, {name: 10**height for name, height in _apart(ends, _label_gap(ax, ends)).items()})
    edges = [" × ".join(f"{edge:.0f}" for edge in row) for row in sizes.to_numpy()]
    own = imbalance_table.groupby("patch")["patch_x"].nunique() > 1  # scans differ in size
    edges = [f"mean {size}" if own[name] else size for name, size in zip(sizes.index, edges, strict=True)]
    ax.set_xticks(range(len(sizes)), [f"{name}\n{size}" for name, size in zip(sizes.index, edges, strict=True)])
    ax.set_xlim(-0.25, len(sizes) - 1)
    ax.set_xlabel("patch (voxels)")
    ax.set_ylabel(f"share of the patch (mean, n = {imbalance_table['case'].nunique()})")
    ax.grid(axis="y")
    return ax


def sigma_dots(sigmas: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw sigma of each patch as computed by each source, the paper's beside ours.

    Parameters
    ----------
    sigmas
        Columns ``patch``, ``source`` (such as ``paper, printed``) and ``sigma``, in the order to be drawn.
    ax
        Axes to draw on.

    Returns
    -------
    Axes
        One row for each patch, one marker for each source; values beside the points.
    """
    patches, sources = list(sigmas["patch"].unique()), list(sigmas["source"].unique())
    ax = make_axes(ax, 0.7 + 0.2 * len(patches) * len(sources))
    step = 0.8 / len(sources)
    for index, source in enumerate(sources):
        rows = sigmas[sigmas["source"] == source]
        heights = np.array([patches.index(patch) for patch in rows["patch"]]) + (index - (len(sources) - 1) / 2) * step
        ax.plot(rows["sigma"], heights, marker_of(index), color=INK, mfc=INK if index == 0 else "white", label=source)
        for sigma, height in zip(rows["sigma"], heights, strict=True):
            ax.annotate(f"{sigma:.5f}", (sigma, height), (6, 0), textcoords="offset points", va="center", fontsize=7)
    for row in range(1, len(patches)):
        ax.axhline(row - 0.5, color=FAINT, lw=0.6)
    ax.set_yticks(range(len(patches)), patches)
    ax.set_ylim(len(patches) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.12)
    ax.set_xlabel(r"$\sigma$ (SD over classes of the shares, background included)")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(sources), borderaxespad=0.2)
    return ax


def training_curves(history: pd.DataFrame) -> Figure:
    """Draw validation DSC by organ and the loss over steps, one column an experiment.

    Parameters
    ----------
    history
        Rows of ``history.csv`` of one profile: ``experiment``, ``seed``, ``step``, ``loss``, ``organ`` (may be
        empty), ``validation_dsc``.

    Returns
    -------
    Figure
        Above: a thin line a seed and a thick one for their mean; below: the loss, averaged over a
        hundredth of the run. At most four experiments stand side by side.

    Raises
    ------
    ValueError
        When the rows hold several profiles.
    """
    only_one(history, "profile")
    names = list(history["experiment"].unique())
    columns = min(4, len(names))
    blocks = math.ceil(len(names) / columns)
    fig, axes = plt.subplots(
        2 * blocks,
        columns,
        figsize=(FULL_WIDTH_IN, 3.4 * blocks),
        height_ratios=[2, 1] * blocks,
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    for index, name in enumerate(names):
        block, column = divmod(index, columns)
        rows = history[history["experiment"] == name]
        top, bottom = axes[2 * block, column], axes[2 * block + 1, column]
        _draw_validation(top, rows)
        _draw_loss(bottom, rows)
        top.set_title(panel_title(name))
        top.set_ylim(0, 1)
        if column == 0:
            top.set_ylabel("validation DSC")
            bottom.set_ylabel("training loss")
        if index + columns >= len(names):
            seeds = rows["seed"].nunique()
            bottom.set_xlabel(f"step ({seeds} seed{'s' if seeds > 1 else ''})")
            bottom.tick_params(labelbottom=True)
    for unused in axes.ravel()[_unused(len(names), columns, blocks)]:
        unused.set_visible(False)
    organ_legend(fig, history["organ"].dropna().unique())
    return fig


def _class_look(name: str) -> tuple[str, str, str]:
    if name == "background":
        return "#777777", ".", "Background"
    look = organ(name)
    return look.colour, look.marker, look.title


def _label_gap(ax: Axes, heights: Mapping[str, float]) -> float:
    """Return the height of a line of text in decades of the axis."""
    inches = cast(Figure, ax.figure).get_size_inches()[1] * 0.75
    return float(0.14 * (max(heights.values()) - min(heights.values()) + 0.5) / inches)


def _apart(heights: Mapping[str, float], gap: float) -> dict[str, float]:
    """Move labels apart, as little as keeps them in order and a gap from one another."""
    names = sorted(heights, key=lambda name: heights[name])
    blocks: list[tuple[float, list[str]]] = []
    for name in names:
        centre, members = heights[name], [name]
        while blocks and centre - (len(members) - 1) * gap / 2 < blocks[-1][0] + (len(blocks[-1][1]) + 1) * gap / 2:
            below = blocks.pop()
            members = below[1] + members
            centre = float(np.mean([heights[member] for member in members]))
        blocks.append((centre, members))
    return {
        member: centre + (index - (len(members) - 1) / 2) * gap
        for centre, members in blocks
        for index, member in enumerate(members)
    }


def _label_ends(ax: Axes, heights: Mapping[str, float]) -> None:
    for name, height in heights.items():
        colour, _, title = _class_look(name)
        ax.annotate(
            title, (1.02, height), xycoords=("axes fraction", "data"), color=_dark(colour), va="center", fontsize=8
        )


def _dark(colour: str) -> tuple[float, float, float]:
    """Return the colour dark enough to be read as text on white."""
    red, green, blue = to_rgb(colour)
    factor = min(1.0, 0.45 / (0.299 * red + 0.587 * green + 0.114 * blue + 1e-9))
    return red * factor, green * factor, blue * factor


def _draw_validation(ax: Axes, rows: pd.DataFrame) -> None:
    for name in in_order(rows["organ"].dropna().unique()):
        look, found = organ(name), rows[rows["organ"] == name]
        seeds = found.pivot_table(index="step", columns="seed", values="validation_dsc")
        if seeds.shape[1] > 1:
            ax.plot(seeds.index, seeds.to_numpy(), color=look.colour, lw=0.5, alpha=0.5)
        mean = seeds.mean(axis=1)
        ax.plot(mean.index, mean, color=look.colour, marker=look.marker, markevery=max(1, len(mean) // 5), label=name)
    ax.grid(axis="y")


def _draw_loss(ax: Axes, rows: pd.DataFrame) -> None:
    losses = rows.dropna(subset="loss").drop_duplicates(["seed", "step"])
    width = max(1.0, losses["step"].max() / 100) if len(losses) else 1.0
    for _, run in losses.groupby("seed"):
        binned = run.groupby((run["step"] // width).astype(int))[["step", "loss"]].mean()
        ax.plot(binned["step"], binned["loss"], color=INK, lw=0.7, alpha=0.7)
    ax.grid(axis="y")


def _unused(count: int, columns: int, blocks: int) -> list[int]:
    """Return the positions, in reading order of the grid, of panels without an experiment."""
    return [
        (2 * (index // columns) + half) * columns + index % columns
        for index in range(count, columns * blocks)
        for half in (0, 1)
    ]
