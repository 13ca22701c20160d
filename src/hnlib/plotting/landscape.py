"""Figures of the landscape of patch sizes: sigma against the background, maps over sizes, one to explore."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from hnlib.organs import organ
from hnlib.plotting.interactive import with_choices
from hnlib.plotting.style import EXPERIMENT_MARKERS, FULL_WIDTH_IN, INK, make_axes, organ_legend

#: How the columns of ``landscape.csv`` are called in figures.
QUANTITIES: Mapping[str, str] = {
    "sigma_of_mean": "σ",
    "sigma_pooled": "σ, cases pooled",
    "sigma_foreground": "σ among organs",
    "normalised_entropy": "entropy among organs, 1 is even",
    "effective_classes": "effective number of organs",
    "effective_classes_simpson": "effective number of organs (Simpson)",
    "aitchison_spread": "spread of log shares",
    "least_presence": "presence of the organ shown least",
    "rarest_voxels": "voxels a step of the rarest organ",
    "sightings": "sightings of the organ shown least",
}
RULE_TITLES: Mapping[str, str] = {
    "uniform": "uniform",
    "voxel_uniform": "voxel-uniform",
    "class_uniform": "class-uniform",
    "nnunet": "nnU-Net's rule",
    "paper": "paper's rule",
}
Marks = Mapping[str, Sequence[int]]


def sigma_bounds(background: NDArray[np.float64], num_classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the largest sigma that a background share allows.

    The least: all organs alike. The largest: one organ alone.

    Examples
    --------
    >>> low, high = sigma_bounds(np.array([0.98]), 8)
    >>> round(float(low[0]), 5), round(float(high[0]), 5)
    (0.32316, 0.32323)
    """
    rest = (1 - background) ** 2

    def sigma(sum_of_squares: NDArray[np.float64]) -> NDArray[np.float64]:
        variance = (background**2 + sum_of_squares) / num_classes - 1 / num_classes**2
        return np.sqrt(np.maximum(variance, 0.0))

    return sigma(rest / (num_classes - 1)), sigma(rest)


def sigma_by_background(points: pd.DataFrame, num_classes: int, ax: Axes | None = None) -> Axes:
    """Draw sigma against the background share, over the range that the share alone leaves.

    Parameters
    ----------
    points
        Columns ``background`` (0..1), ``sigma``, ``group``; a marker each group.
    num_classes
        Number of classes, background counted.
    ax
        Axes to draw on.
    """
    ax = make_axes(ax, 3.2)
    share = np.linspace(max(1 / num_classes, float(points["background"].min()) - 0.02), 1.0, 300)
    low, high = sigma_bounds(share, num_classes)
    ax.fill_between(share, low, high, color="#D9D9D9", lw=1.2, label="all that the background's share allows")
    for (group, rows), marker in zip(points.groupby("group", sort=False), EXPERIMENT_MARKERS, strict=False):
        ax.plot(rows["background"], rows["sigma"], marker, ms=3.2, mfc="none", mew=0.8, label=str(group))
    ax.set_xlabel("expected share of the background in a patch")
    ax.set_ylabel("σ of the mean class shares")
    ax.legend(loc="upper left")
    return ax


def class_ratio_panels(table: pd.DataFrame) -> Figure:
    """Draw mean class shares from patch to patch on a log axis, one panel a source: Figure 1 of the paper.

    Parameters
    ----------
    table
        ``source``, ``patch``, ``class``, ``ratio``, patches of a source in the order to be drawn. A share of 0 has no
        place on the axis.
    """
    sources = list(table["source"].unique())
    columns = min(len(sources), 3)
    figure, panels = plt.subplots(
        -(-len(sources) // columns), columns, figsize=(FULL_WIDTH_IN, 3.4), sharey=True, squeeze=False
    )
    for axes, source in zip(panels.flat, sources, strict=False):
        rows = table[table["source"] == source]
        patches = list(rows["patch"].unique())
        for name, shares in rows.pivot(index="class", columns="patch", values="ratio")[patches].iterrows():
            background = name == "background"
            colour, marker = ("#777777", ".") if background else (organ(str(name)).colour, organ(str(name)).marker)
            axes.plot(range(len(patches)), shares.where(shares > 0), color=colour, marker=marker, ms=3.5, lw=1.0)
        axes.set_xticks(range(len(patches)), [patch.replace(" ", "\n") for patch in patches])
        axes.set_yscale("log")
        axes.set_title(source)
        axes.grid(axis="y")
    panels[0, 0].set_ylabel("mean share of the patch")
    background = Line2D([], [], color="#777777", marker=".", label="Background")
    organ_legend(figure, [name for name in table["class"].unique() if name != "background"], first=[background])
    return figure


def landscape_maps(
    table: pd.DataFrame,
    quantities: Sequence[str],
    spacing_mm: Sequence[float] | None,
    marks: Marks,
    *,
    log: Sequence[str] = (),
) -> Figure:
    """Draw a map over patch sizes for each quantity: edge in plane against depth, contour lines labelled.

    Parameters
    ----------
    table
        Rows of ``landscape.csv`` of one rule.
    quantities
        Columns of it, named in `QUANTITIES`.
    spacing_mm
        Voxel edges, for axes in mm; None where each scan has its own: axes in voxels.
    marks
        Patches to mark, by name: voxels along X, Y, Z.
    log
        Quantities that run over orders of magnitude: their levels double.
    """
    (wide, _, deep), unit = (spacing_mm, "mm") if spacing_mm is not None else ((1.0, 1.0, 1.0), "voxels")
    columns = min(len(quantities), 2)
    rows = -(-len(quantities) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(FULL_WIDTH_IN, 2.7 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axes, quantity in zip(panels.flat, quantities, strict=False):
        edge, depth, values = _grid(table, quantity)
        x, z = edge * wide, depth * deep
        doubling, norm = _doubling(values) if quantity in log else (12, None)
        filled = axes.contourf(x, z, values, levels=doubling, cmap="cividis", norm=norm)
        every = filled.levels[1:-1] if quantity in log else filled.levels[2::3]
        lines = axes.contour(x, z, values, levels=every, colors="white", linewidths=0.7)
        texts = axes.clabel(lines, fmt=lambda value: f"{value:.0f}" if value >= 100 else f"{value:.3g}", fontsize=7)
        places = {name: (size[0] * wide, size[2] * deep) for name, size in marks.items()}
        for text in texts:
            text.set_visible(_clear_of(text.get_position(), places.values(), (float(np.ptp(x)), float(np.ptp(z)))))
        for name, place in places.items():
            axes.plot(*place, "o", color="white", mec=INK, ms=5, clip_on=False)
            texts.append(axes.annotate(name, place, (4, 4), textcoords="offset points", fontsize=8, color="white"))
        for text in texts:  # legible on yellow too
            text.set_path_effects([withStroke(linewidth=1.6, foreground=INK)])
        axes.set_title(QUANTITIES[quantity])
    for axes in list(panels.flat)[len(quantities) :]:
        axes.remove()
    figure.supxlabel(f"edge of the patch left to right ({unit})", fontsize=9)
    figure.supylabel(f"edge of the patch head to foot ({unit})", fontsize=9)
    return figure


def _clear_of(place: tuple[float, float], marks: Iterable[tuple[float, float]], extent: tuple[float, float]) -> bool:
    """Return whether a label at a place of the map leaves the marks, whose names stand to their right, legible."""
    apart = [((place[0] - x) / extent[0], (place[1] - z) / extent[1]) for x, z in marks]
    return not any(-0.06 < right < 0.22 and abs(above) < 0.1 for right, above in apart)


def _doubling(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], LogNorm]:
    """Return powers of two from below the least value to above the largest, and the scale of their colours."""
    least, most = values[values > 0].min(), values.max()
    levels = 2.0 ** np.arange(np.floor(np.log2(least)), np.ceil(np.log2(most)) + 1)
    return levels, LogNorm(levels[0], levels[-1])


def _grid(table: pd.DataFrame, quantity: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """Return edges along X and Z and the values there, (depths, edges); sizes off the grid are left out."""
    wide = table.pivot_table(index="patch_z", columns="patch_x", values=quantity, aggfunc="first")
    full = wide.dropna(axis=1, thresh=len(wide) // 2).dropna(axis=0)
    return full.columns.to_numpy(), full.index.to_numpy(), full.to_numpy()


def landscape_explorer(table: pd.DataFrame, quantities: Sequence[str], rules: Sequence[str], marks: Marks) -> Any:
    """Return a figure to explore in a browser: a map for each rule, the quantity chosen from a menu.

    Parameters
    ----------
    table
        Rows of ``landscape.csv``.
    quantities, rules
        What the menu offers, and the maps from left to right.
    marks
        Patches to mark, by name: voxels along X, Y, Z.

    Returns
    -------
    plotly.graph_objects.Figure
        `hnlib.plotting.interactive` puts it into a page, with its menu.
    """
    from plotly import graph_objects, subplots

    titles = [RULE_TITLES.get(rule, rule) for rule in rules]
    figure = subplots.make_subplots(1, len(rules), shared_yaxes=True, subplot_titles=titles, horizontal_spacing=0.03)
    grids = {(rule, name): _grid(table[table["centres"] == rule], name) for rule in rules for name in quantities}
    hover = "%{x} voxels left to right<br>%{y} head to foot<br>%{z:.4g}<extra></extra>"
    for column, rule in enumerate(rules, start=1):
        x, y, z = grids[rule, quantities[0]]
        trace = graph_objects.Heatmap(x=x, y=y, z=z, coloraxis="coloraxis", hovertemplate=hover)
        figure.add_trace(trace, 1, column)
    across, _, deep = zip(*marks.values(), strict=True)
    look = {"color": "white", "size": 7, "line": {"color": INK, "width": 1}}
    for column in range(1, len(rules) + 1):
        points = graph_objects.Scatter(x=across, y=deep, text=list(marks), mode="markers+text", marker=look)
        points.update(textposition="top center", textfont={"color": "white"}, hoverinfo="text", showlegend=False)
        figure.add_trace(points, 1, column)
    choices = {
        QUANTITIES[name]: {"z": [grids[rule, name][2].round(6).tolist() for rule in rules]} for name in quantities
    }
    words = f"Maps over patch sizes, voxels head to foot against voxels left to right, one a rule: {', '.join(titles)}."
    with_choices(figure, f"{words} The menu chooses what they show.", "Quantity", choices)
    figure.update_layout(
        coloraxis={"colorscale": "Cividis", "colorbar": {"thickness": 12}},
        height=280,
        margin={"l": 50, "r": 10, "t": 30, "b": 45},
        font={"size": 12},
    )
    figure.update_yaxes(title_text="voxels head to foot", col=1)
    figure.update_xaxes(title_text="voxels left to right", col=1 + len(rules) // 2)
    return figure
