"""Figures of a plan: the front of what a patch can be good for, and the draws of its centres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from hnlib.organs import organ
from hnlib.plotting.style import FULL_WIDTH_IN, INK, in_order, make_axes

#: Marker and filling of the draws of centres, in the order of the legend.
DRAW_LOOKS: Mapping[str, tuple[str, str]] = {
    "voxel-uniform": ("s", "white"),
    "class-uniform": ("o", "white"),
    "planned": ("D", "#0072B2"),
}


def plan_front(
    candidates: pd.DataFrame, marks: Mapping[str, pd.Series[float]], enough: float, ax: Axes | None = None
) -> Axes:
    """Draw what each candidate shows against its context; the colour is its memory.

    Parameters
    ----------
    candidates
        Rows of ``plan.csv``.
    marks
        Rows with ``context_mm``, ``sightings`` and, where known, ``organ_box`` to name in the figure.
    enough
        Share of the largest organ's box from which a patch may be chosen: filled squares, else circles.
    ax
        Axes to draw on.
    """
    ax = make_axes(ax, 3.4)
    low, high = candidates["memory_gb"].min(), candidates["memory_gb"].max()
    drawn = None
    for on_front in (False, True):
        for holds, marker in ((False, "o"), (True, "s")):
            rows = candidates[(candidates["front"] == on_front) & ((candidates["organ_box"] >= enough) == holds)]
            drawn = ax.scatter(
                rows["context_mm"],
                rows["sightings"],
                c=rows["memory_gb"],
                cmap="cividis",
                vmin=low,
                vmax=high,
                marker=marker,
                s=34 if on_front else 12,
                linewidths=0.9 if on_front else 0,
                edgecolors=INK,
            )
    for name, row in marks.items():
        place = float(row["context_mm"]), float(row["sightings"])
        ring = "s" if row.get("organ_box", 0.0) >= enough else "o"
        ax.plot(*place, ring, ms=13, mfc="none", mec=INK, mew=1.2)
        ax.plot(*place, "x", ms=4, color=INK, zorder=1)
        right = place[0] < candidates["context_mm"].mean()
        ax.annotate(
            name,
            place,
            (9 if right else -12, 8 if right else -12),
            textcoords="offset points",
            fontsize=8,
            ha="left" if right else "right",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
    if drawn is not None:
        ax.figure.colorbar(drawn, ax=ax, label="memory of a step (GB)", aspect=30)
    looks = (("s", 5.5, INK, f"holds {enough:.0%} of the largest organ"), ("o", 5.5, INK, "does not"))
    handles = [Line2D([], [], marker=m, ls="", ms=s, mfc="white", mec=e, label=text) for m, s, e, text in looks]
    handles.append(Line2D([], [], marker="o", ls="", ms=3, mfc="#888888", mew=0, label="small: not on the front"))
    ax.legend(handles=handles, loc="upper right")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if str(value)[0] in "235" else "")
    ax.set_xlabel("context: edge of the cube that an output voxel can see (mm)")
    ax.set_ylabel("patches a step that show\nthe organ shown least")
    ax.grid(visible=True)
    return ax


def draw_comparison(draws: pd.DataFrame) -> Figure:
    """Draw, by organ, how often a patch is centred on it and how often a patch shows it, under several draws.

    Parameters
    ----------
    draws
        Rows of ``plan_draws.csv``: ``draw``, ``class``, ``weight``, ``presence``.
    """
    organs = in_order(draws["class"].unique())
    figure, panels = plt.subplots(1, 2, figsize=(FULL_WIDTH_IN, 0.9 + 0.3 * len(organs)), sharey=True)
    titles = {"weight": "patches centred on the organ (%)", "presence": "patches that show the organ (%)"}
    for axes, (column, text) in zip(panels, titles.items(), strict=True):
        for name, (marker, fill) in DRAW_LOOKS.items():
            values = draws[draws["draw"] == name].set_index("class")[column].reindex(organs)
            axes.plot(100 * values, range(len(organs)), marker, ls="", mec=INK, mfc=fill, ms=5, label=name)
        if column == "presence":
            for name, (_, fill) in DRAW_LOOKS.items():
                least = 100 * draws.loc[draws["draw"] == name, column].min()
                axes.axvline(least, color=fill if fill != "white" else INK, lw=0.8, ls=_line(name), zorder=0)
        axes.set_xlabel(text)
        axes.set_xlim(left=0 if column == "presence" else -1)
        axes.grid(axis="x")
    panels[1].tick_params(axis="y", length=0)
    _name_organs(panels[0], organs)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(DRAW_LOOKS))
    return figure


def _line(draw: str) -> str:
    return {"voxel-uniform": ":", "class-uniform": "--"}.get(draw, "-")


def _name_organs(ax: Axes, organs: Sequence[str]) -> None:
    ax.set_yticks(range(len(organs)), [organ(name).title for name in organs])
    ax.set_ylim(len(organs) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
