"""Figures of results: cases by organ, paired differences, confidence."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from hnlib.experiment_files import experiment_title
from hnlib.organs import organ
from hnlib.plotting.style import (
    FAINT,
    FULL_WIDTH_IN,
    INK,
    METRIC_LABELS,
    draw_box,
    draw_interval,
    experiment_legend,
    in_order,
    make_axes,
    marker_of,
    only_one,
    organ_rows,
    panel_title,
    set_organ_ticks,
    spread,
)
from hnlib.stats import Ranking, case_differences, organ_summary, paired_difference, seed_averaged

VERDICT_COLOURS = ("#009E73", "#E69F00", "#D55E00", "#BBBBBB", "#9ECAE1", "#E5E5E5")
"""Colours of verdicts, from what holds to what is not known."""
KIND_COLOURS = ("#8C510A", "#D8B365", "#F6E8C3", "#C7EAE5", "#7FCDC0", "#E5E5E5")
"""Colours of kinds of failure, light enough for a number inside, from what is lost to what is only inexact."""


def results_by_organ(
    metrics: pd.DataFrame, *, metric: str = "dsc", split: str = "test", boxes: bool = False, ax: Axes | None = None
) -> Axes:
    """Draw every case of every organ, experiments side by side, with mean and 95 % t interval, or with boxes.

    Parameters
    ----------
    metrics
        Rows of ``metrics.csv`` of one profile; experiments are drawn in the order of their rows.
    metric, split
        What is drawn.
    boxes
        Median, quartiles, and the farthest case within one and a half box lengths, in place of mean and interval.
    ax
        Axes to draw on.

    Returns
    -------
    Axes
        A point is a case, averaged over seeds. The number of cases with a value stands below
        the organ, or on the axis label where it is the same for all.

    Raises
    ------
    ValueError
        When the rows hold several profiles.
    """
    used = metrics[(metrics["metric"] == metric) & (metrics["split"] == split)]
    only_one(used, "profile")
    experiments, names = list(used["experiment"].unique()), in_order(used["organ"].unique())
    values = seed_averaged(used).set_index(["experiment", "organ"]).sort_index()["value"]
    summary = organ_summary(used).set_index(["experiment", "organ"])
    intervals = summary.to_dict("index")
    ax = make_axes(ax, 3.0)
    step = 0.8 / len(experiments)
    for index, experiment in enumerate(experiments):
        for column, name in enumerate(names):
            if (experiment, name) not in intervals:
                continue
            x = column + (index - (len(experiments) - 1) / 2) * step
            points = values.loc[[(experiment, name)]].dropna().to_numpy()
            ax.plot(
                x + spread(len(points), 0.6 * step), points, "o", color=organ(name).colour, alpha=0.5, ms=2.5, mew=0
            )
            if boxes:
                draw_box(ax, points, x, 0.75 * step, marker_of(index))
            else:
                draw_interval(ax, intervals[experiment, name], x, marker_of(index))
    experiment_legend(ax, experiments)
    label, (low, high) = METRIC_LABELS.get(metric, metric), (summary["cases"].min(), summary["cases"].max())
    below = [] if low == high else _case_counts(summary["cases"], names)
    set_organ_ticks(ax, names, below)
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_ylabel(label if below else f"{label} (n = {low} cases)")
    ax.grid(axis="y")
    return ax


def _case_counts(cases: pd.Series[int], names: Sequence[str]) -> list[str]:
    """Return ``n = 15`` for each organ, a range where the experiments differ."""
    by_organ = cases.groupby(level="organ")
    low, high = by_organ.min(), by_organ.max()
    return [f"n = {low[name]}" if low[name] == high[name] else f"n = {low[name]}–{high[name]}" for name in names]


def paired_differences(
    metrics: pd.DataFrame,
    baseline: str,
    *,
    metric: str = "dsc",
    split: str = "test",
) -> Figure:
    """Draw how each experiment differs from the baseline on the same cases.

    Parameters
    ----------
    metrics
        Rows of ``metrics.csv`` of one profile.
    baseline
        Experiment that is subtracted from every other one.
    metric, split
        What is compared.

    Returns
    -------
    Figure
        One panel an experiment: a point is a case (for the mean over organs, a patient), seeds averaged.
        Bars: 95 % t intervals over patients, not corrected for their number.

    Raises
    ------
    ValueError
        When the rows hold several profiles or lack the baseline.
    """
    table = case_differences(metrics, baseline, metric=metric, split=split)
    experiments, names = list(table["experiment"].unique()), in_order(table["organ"].unique())
    if not experiments:
        raise ValueError(f"no experiment shares a {split} case with baseline '{baseline}'")
    columns = min(4, len(experiments))
    blocks = math.ceil(len(experiments) / columns)
    size = (FULL_WIDTH_IN, blocks * (1.1 + 0.3 * (len(names) + 1)))
    fig, axes = plt.subplots(blocks, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
    for unused in axes.ravel()[len(experiments) :]:
        unused.set_visible(False)
    for ax, experiment in zip(axes.ravel(), experiments, strict=False):
        rows = table[table["experiment"] == experiment]
        filled = rows.assign(profile="", seed=0, split=split, metric=metric, value=rows["difference"])
        intervals = organ_summary(filled).set_index("organ").to_dict("index")
        ax.axvline(0, color=FAINT, lw=1, zorder=0)
        for height, name in enumerate(names, start=1):
            points = rows.loc[rows["organ"] == name, "difference"].to_numpy()
            look = organ(name)
            ax.plot(points, height + spread(len(points), 0.5), look.marker, color=look.colour, alpha=0.5, ms=3, mew=0)
            if name in intervals:
                draw_interval(ax, intervals[name], height, "o", horizontal=True)
        patients = rows.groupby("case")["difference"].mean().to_numpy()
        ax.plot(patients, spread(len(patients), 0.5), "o", color="#777777", alpha=0.5, ms=3, mew=0)
        found = paired_difference(metrics, experiment, baseline, metric=metric, split=split)
        draw_interval(ax, {"mean": found.difference, "low": found.low, "high": found.high}, 0, "D", horizontal=True)
        ax.set_title(f"{panel_title(experiment)}\nn = {found.cases}")
        ax.axhline(0.5, color=FAINT, lw=0.6)
        ax.tick_params(axis="y", length=0)
    axes[0, 0].set_yticks(range(len(names) + 1), ["mean over organs", *(organ(name).title for name in names)])
    axes[0, 0].set_ylim(len(names) + 0.6, -0.6)
    label = METRIC_LABELS.get(metric, metric)
    fig.supxlabel(f"difference in {label} from {experiment_title(baseline)}", fontsize=9)
    return fig


def ranking(found: Ranking, *, ax: Axes | None = None) -> Axes:
    """Draw mean ranks on one axis, with a bar across experiments that are not told apart.

    Parameters
    ----------
    found
        Result of `hnlib.stats.rank_experiments`.
    ax
        Axes to draw on.

    Returns
    -------
    Axes
        Best left. A bar joins neighbours among which no pair differs at the level of the ranking, after Demšar
        2006; the bars rest on paired tests, not on a critical difference of ranks.
    """
    names, places = list(found.ranks["experiment"]), found.ranks["mean_rank"].to_numpy()
    ax = make_axes(ax, 0.9 + 0.17 * len(names) + 0.1 * len(found.groups))
    for index, group in enumerate(found.groups):
        inside = places[[names.index(name) for name in group]]
        ax.plot([inside.min() - 0.03, inside.max() + 0.03], [-0.35 - 0.3 * index] * 2, color=INK, lw=3)
    half = math.ceil(len(names) / 2)
    left, right = 1, max(len(names), 2)
    below = -0.35 - 0.3 * len(found.groups)
    for index, (name, place) in enumerate(zip(names, places, strict=True)):
        first = index < half
        level = below - 0.6 * (index if first else len(names) - 1 - index) - 0.3
        ax.plot([place, place, left if first else right], [0, level, level], color=FAINT, lw=0.8, zorder=0)
        ax.plot([place], [0], marker_of(index), color=INK, mfc="white", mew=1.0, ms=4.5, clip_on=False, zorder=4)
        text = f"{experiment_title(name)} ({place:.2f})"
        end, side = (left, "right") if first else (right, "left")
        ax.annotate(
            text,
            (end, level),
            (-4 if first else 4, 0),
            textcoords="offset points",
            annotation_clip=False,
            ha=side,
            va="center",
            fontsize=8,
        )
    ax.set_xlim(left, right)
    ax.set_ylim(below - 0.6 * half, 0)
    ax.set_xticks(range(left, right + 1))
    ax.xaxis.tick_top()
    ax.xaxis.set_label_position("top")
    ax.set_xlabel(f"mean rank by {METRIC_LABELS.get(found.metric, found.metric)} (1 is best, n = {found.cases})")
    ax.yaxis.set_visible(False)
    ax.spines[["left", "bottom"]].set_visible(False)
    ax.spines["top"].set_visible(True)
    return ax


def confidence_violins(confidence_quantiles: pd.DataFrame, drift: pd.DataFrame) -> Figure:
    """Draw the confidence of the true class on training and test voxels, with the drift between them.

    Parameters
    ----------
    confidence_quantiles
        Rows of ``confidence_quantiles.csv`` of one profile: ``experiment``, ``seed``, ``split``, ``organ``,
        ``quantile``, ``value``. Seeds are pooled with equal weight; only train and test are drawn.
    drift
        Table of ``hnlib.confidence.drift``; its ``soft_recall_drift``, averaged over seeds, is printed.

    Returns
    -------
    Figure
        One row an experiment; left half of a violin: training voxels, right half: test voxels. After
        Tappeiner et al. 2022, Figure 2.

    Raises
    ------
    ValueError
        When the rows hold several profiles.
    """
    only_one(confidence_quantiles, "profile")
    used = confidence_quantiles[confidence_quantiles["split"].isin(["train", "test"])]
    experiments, names = list(used["experiment"].unique()), in_order(used["organ"].unique())
    drifts = drift.groupby(["experiment", "organ"])["soft_recall_drift"].mean()
    fig, axes = plt.subplots(
        len(experiments), 1, figsize=(FULL_WIDTH_IN, 0.8 + 1.5 * len(experiments)), sharex=True, squeeze=False
    )
    for ax, experiment in zip(axes[:, 0], experiments, strict=True):
        rows = used[used["experiment"] == experiment]
        for column, name in enumerate(names):
            found = rows[rows["organ"] == name]
            if len(found):
                _draw_violin(ax, found, name, names)
            number = drifts.get((experiment, name), math.nan)
            if math.isfinite(number):
                ax.annotate(f"{round(number, 3) + 0.0:+z.3f}", (column, 1.04), ha="center", va="bottom", fontsize=8)
        ax.set_ylim(0, 1.2)
        ax.set_yticks([0, 0.5, 1])
        ax.set_ylabel("p(true class)")
        ax.set_title(experiment_title(experiment))
        set_organ_ticks(ax, names)
        ax.set_xlabel("")
    fig.supxlabel("left, pale: training voxels; right: test voxels; number: drift (train minus test)", fontsize=9)
    return fig


def _pale(colour: str) -> tuple[float, float, float]:
    red, green, blue = (0.35 * part + 0.65 for part in to_rgb(colour))
    return red, green, blue


def _draw_violin(ax: Axes, rows: pd.DataFrame, name: str, names: Sequence[str]) -> None:
    colour = organ(name).colour
    sns.violinplot(
        data=rows,
        x="organ",
        y="value",
        hue="split",
        order=names,
        hue_order=["train", "test"],
        palette={"train": _pale(colour), "test": to_rgb(colour)},
        saturation=1,
        split=True,
        cut=0,
        bw_adjust=0.6,
        density_norm="width",
        inner="quart",
        linewidth=0.7,
        width=0.85,
        legend=False,
        ax=ax,
    )


def equivalence_intervals(table: pd.DataFrame, quantities: Mapping[str, str]) -> Figure:
    """Draw intervals of a comparison beside the margins that were stated beforehand.

    Parameters
    ----------
    table
        Columns ``organ``, ``quantity``, ``comparison`` (``ratio`` or ``difference``), ``value``, ``low``, ``high``,
        ``margin_low``, ``margin_high``, ``verdict``.
    quantities
        Quantity to the label of its axis, one panel each.

    Returns
    -------
    Figure
        One row an organ; grey: the margin. Filled: equivalent, open: undecided, crossed: different. Ratios have a
        log axis; ticks stand at the margin.

    Raises
    ------
    ValueError
        As `organ_rows`.
    """
    used, names = organ_rows(table, quantities)
    size = (FULL_WIDTH_IN, 0.9 + 0.24 * len(names))
    fig, axes = plt.subplots(1, len(quantities), figsize=size, sharey=True, squeeze=False)
    for ax, (quantity, label) in zip(axes[0], quantities.items(), strict=True):
        rows = used[used["quantity"] == quantity]
        for found in rows.itertuples():
            _draw_comparison(ax, found, names.index(str(found.organ)))
        ratio = bool((rows["comparison"] == "ratio").all())
        ticks = [rows["margin_low"].min(), 1.0 if ratio else 0.0, rows["margin_high"].max()]
        ax.axvline(ticks[1], color=FAINT, lw=1, zorder=1)
        if ratio:
            ax.set_xscale("log")
            ax.xaxis.set_minor_locator(NullLocator())
            outermost = 2.0 ** round(math.log2(rows["low"].min()))
            if outermost < ticks[0] / 2:  # the ticks of the margin come too near to each other to be three
                ticks = [outermost, ticks[0], ticks[2]]
        ax.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        ax.set_xlabel(label)
        ax.tick_params(axis="y", length=0)
    axes[0, 0].set_yticks(range(len(names)), [organ(name).title for name in names])
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    return fig


def _draw_comparison(ax: Axes, row: Any, place: int) -> None:
    colour = organ(str(row.organ)).colour
    width = row.margin_high - row.margin_low
    ax.add_patch(Rectangle((row.margin_low, place - 0.42), width, 0.84, color="#EEEEEE", lw=0, zorder=0))
    ax.plot([row.low, row.high], [place, place], color=colour, lw=1.6, zorder=3)
    look = {"equivalent": ("o", colour), "undecided": ("o", "white"), "different": ("X", colour)}[row.verdict]
    ax.plot([row.value], [place], look[0], color=colour, mfc=look[1], ms=5, zorder=4)


def verdict_counts(table: pd.DataFrame, verdicts: Sequence[str], *, ax: Axes | None = None) -> Axes:
    """Draw how the claims of each paper came out.

    Parameters
    ----------
    table
        One row a claim: ``paper``, ``verdict``; papers are drawn in the order of their rows.
    verdicts
        Verdicts from left to right, up to six.
    ax
        Axes to draw on.

    Returns
    -------
    Axes
        One bar a paper, as long as its number of claims; the number of each verdict stands in its part.
    """
    papers = list(table["paper"].unique())
    counts = table.groupby(["paper", "verdict"]).size().unstack(fill_value=0)
    counts = counts.reindex(index=papers, columns=list(verdicts), fill_value=0)
    return _stacked(counts, VERDICT_COLOURS, "claims", make_axes(ax, 0.9 + 0.34 * len(papers)))


def failure_kinds(counts: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how many outlines went wrong in which way.

    Parameters
    ----------
    counts
        One row an organ, one column a kind of failure, up to six, the worst first.
    ax
        Axes to draw on.
    """
    return _stacked(counts, KIND_COLOURS, "outlines", make_axes(ax, 1.2 + 0.34 * len(counts)))


def _stacked(counts: pd.DataFrame, colours: Sequence[str], what: str, ax: Axes) -> Axes:
    """Draw one bar a row with one part a column, its number inside."""
    start = 0 * counts.iloc[:, 0].to_numpy()
    for name, colour in zip(counts.columns, colours, strict=False):
        widths = counts[name].to_numpy()
        bars = ax.barh(range(len(counts)), widths, left=start, height=0.7, color=colour, label=name)
        ax.bar_label(bars, [str(width) if width else "" for width in widths], label_type="center", fontsize=8)
        start = start + widths
    ax.set_yticks(range(len(counts)), ["\n".join(textwrap.wrap(str(row), 34)) for row in counts.index])
    ax.set_ylim(len(counts) - 0.5, -0.5)
    ax.set_xlabel(what)
    ax.tick_params(axis="y", length=0)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, columnspacing=0.8, handlelength=1, borderaxespad=0.2)
    return ax
