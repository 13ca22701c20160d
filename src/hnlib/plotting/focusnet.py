"""Figures of FocusNet: heat maps and ROIs on a slice, what fusion does, and printed results beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from hnlib.organs import organ
from hnlib.plotting.scans import SOFT_TISSUE_WINDOW_HU, draw_slice
from hnlib.plotting.style import FULL_WIDTH_IN, INK, make_axes

#: Heights of the heat map that are drawn.
LEVELS = (0.1, 0.5, 0.9)
ROI_DASHES = {2: "-", 3: "--", 5: ":"}


def heat_and_rois(
    pixels: NDArray[np.floating],
    labels: NDArray[np.integer],
    heat: Mapping[str, NDArray[np.floating]],
    rois: Mapping[int, tuple[int, int, int, int]],
    *,
    step_mm: tuple[float, float],
    organs: Sequence[str],
) -> Figure:
    """Draw an axial slice twice: with the heat maps of its organs, and with one organ's ROIs.

    Parameters
    ----------
    pixels, labels
        CT numbers and labels of the slice, (X, Y).
    heat
        Organ to heat map of the slice, (X, Y), 0..1.
    rois
        Multiple of the diameter to first voxel and size along X and Y.
    step_mm
        Pixel edges.
    organs
        Names in label order.

    Returns
    -------
    Figure
        Two panels, radiological view; contours at heights 0.1, 0.5 and 0.9.
    """
    fig, axes = _slices(2, pixels.shape, step_mm)
    for ax in axes:
        draw_slice(ax, pixels, step_mm, SOFT_TISSUE_WINDOW_HU)
        for value in np.unique(labels[labels > 0]):
            _outline(ax, labels == value, step_mm, organ(organs[value - 1]).colour)
    for name, height in heat.items():
        where = [(np.arange(n) + 0.5) * mm for n, mm in zip(height.shape, step_mm, strict=True)]
        axes[0].contour(*where, height.T, levels=LEVELS, colors=[organ(name).colour], linewidths=0.7, linestyles="--")
    for times, (x, y, across, up) in rois.items():
        corner = x * step_mm[0], y * step_mm[1]
        size = across * step_mm[0], up * step_mm[1]
        axes[1].add_patch(Rectangle(corner, *size, fill=False, ec="white", ls=ROI_DASHES.get(times, "-"), lw=1.2))
    axes[0].set_xlabel("heat maps")
    axes[1].set_xlabel("regions of interest")
    shown = [organs[value - 1] for value in np.unique(labels[labels > 0])]
    handles = [Line2D([], [], color=organ(name).colour, label=organ(name).title) for name in shown]
    handles += [Line2D([], [], color=INK, ls=ROI_DASHES.get(k, "-"), label=f"{k} diameters") for k in rois]
    fig.legend(handles=handles, loc="outside lower center", ncols=4)
    return fig


def fusion_panels(
    pixels: NDArray[np.floating],
    reference: NDArray[np.bool_],
    masks: Mapping[str, NDArray[np.bool_]],
    roi: tuple[int, int, int, int],
    *,
    step_mm: tuple[float, float],
    name: str,
) -> Figure:
    """Draw an axial slice once for each named mask of one organ, with the reference and the ROI.

    Returns
    -------
    Figure
        One panel a mask: filled, the mask; solid line, the reference; dashed, the ROI.
    """
    fig, axes = _slices(len(masks), pixels.shape, step_mm)
    x, y, across, up = roi
    for ax, (title, mask) in zip(axes, masks.items(), strict=True):
        draw_slice(ax, pixels, step_mm, SOFT_TISSUE_WINDOW_HU)
        edges = [np.arange(n + 1) * mm for n, mm in zip(mask.shape, step_mm, strict=True)]
        ax.pcolormesh(*edges, np.ma.masked_equal(mask.T, False), cmap="Wistia", alpha=0.7, vmin=0, vmax=1)
        _outline(ax, reference, step_mm, organ(name).colour)
        corner, size = (x * step_mm[0], y * step_mm[1]), (across * step_mm[0], up * step_mm[1])
        ax.add_patch(Rectangle(corner, *size, fill=False, ec="white", ls="--", lw=1.0))
        ax.set_xlabel(title)
    return fig


def beside_print(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw mean DSC of each arm: printed, and ours where there are runs.

    Parameters
    ----------
    table
        Index: name of the arm, from top to bottom; columns ``printed`` and ``ours``, 0..1, NaN where there is none. A
        column ``seeds``, in words, is added to the names of the arms of ours.
    """
    ax = make_axes(ax, 0.25 * len(table) + 0.8)
    places = np.arange(len(table))[::-1]
    ax.hlines(places, 0, 1, color="#E5E5E5", lw=0.6)
    ax.plot(table["printed"], places, "o", mfc="none", color=INK, label="printed (other data)")
    ours = "ours" if table["ours"].notna().any() else "ours (not yet run)"
    ax.plot(table["ours"], places, "s", color="#0072B2", label=ours)
    names = [str(name) for name in table.index]
    if "seeds" in table:
        run = table["ours"].notna()
        names = [f"{n}, {s} seeds" if r else n for n, s, r in zip(names, table["seeds"], run, strict=True)]
    ax.set_yticks(places, names)
    values = table[["printed", "ours"]].to_numpy(float)
    ax.set_xlim(max(0.0, float(np.nanmin(values)) - 0.05), min(1.0, float(np.nanmax(values)) + 0.05))
    ax.set_xlabel("mean DSC over organs")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return ax


def _slices(count: int, shape: tuple[int, ...], step_mm: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    across, up = shape[0] * step_mm[0], shape[1] * step_mm[1]
    height = FULL_WIDTH_IN / count * up / across + 0.4
    fig, axes = plt.subplots(1, count, figsize=(FULL_WIDTH_IN, height), squeeze=False)
    return fig, list(axes[0])


def _outline(ax: Axes, mask: NDArray[np.bool_], step_mm: tuple[float, float], colour: str) -> None:
    padded = np.pad(mask, 1).astype(float)
    where = [(np.arange(n) - 0.5) * mm for n, mm in zip(padded.shape, step_mm, strict=True)]
    ax.contour(*where, padded.T, levels=[0.5], colors=[colour], linewidths=1.2)
