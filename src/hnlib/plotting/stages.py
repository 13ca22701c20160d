"""Figure of coarse to fine: what each stage hands to the next, on one slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from hnlib.organs import organ
from hnlib.plotting.scans import SOFT_TISSUE_WINDOW_HU, draw_slice, in_plane, shown_box
from hnlib.plotting.style import FULL_WIDTH_IN, INK, organ_legend

Box = tuple[Sequence[int], Sequence[int]]


def stage_panels(
    image_hu: NDArray[np.floating],
    labels: NDArray[np.integer],
    probabilities: Mapping[str, NDArray[np.floating]],
    boxes: Mapping[str, Sequence[Box]],
    *,
    spacing_mm: Sequence[float],
    organs: Sequence[str],
    index: int,
    window: tuple[float, float] = SOFT_TISSUE_WINDOW_HU,
    margin_mm: float = 30.0,
) -> Figure:
    """Draw one coronal slice for each stage: organ probabilities in colour, boxes, and the true outlines.

    Parameters
    ----------
    image_hu, labels
        The scan and its reference, shape (X, Y, Z).
    probabilities
        Title to class probabilities (C, X, Y, Z), drawn in this order; the more probable, the less one sees through.
    boxes
        Title to first voxel and size of each organ's box, in label order; titles without boxes have none.
    spacing_mm
        Voxel edges in mm.
    organs
        Names of the organs in label order.
    index
        The slice.

    Returns
    -------
    Figure
        Panels in rows of three, radiological view. White line: reference.

    Raises
    ------
    ValueError
        When shapes differ, or there is nothing to draw.
    """
    if not probabilities or any(one.shape[1:] != image_hu.shape for one in probabilities.values()):
        raise ValueError("probabilities are empty or differ from the image in shape; bring them to one grid")
    shown = shown_box(labels, spacing_mm, margin_mm)
    cut = (shown[0], index, shown[2])
    step = in_plane(spacing_mm, "coronal")
    across, up = (size * edge for size, edge in zip(labels[cut].shape, step, strict=True))
    columns = min(3, len(probabilities))
    rows = -(-len(probabilities) // columns)
    height = FULL_WIDTH_IN / columns * up / across
    fig, axes = plt.subplots(rows, columns, figsize=(FULL_WIDTH_IN, (height + 0.25) * rows + 0.6), squeeze=False)
    for ax in axes.flat[len(probabilities) :]:
        ax.remove()
    seen = {organs[value - 1] for value in np.unique(labels[cut]) if value}
    for ax, (name, one) in zip(axes.flat, probabilities.items(), strict=False):
        draw_slice(ax, image_hu[cut], step, window)
        for value, own in enumerate(organs, start=1):
            colours = np.broadcast_to(to_rgba(organ(own).colour), (*labels[cut].shape, 4)).copy()
            colours[..., 3] = 0.85 * np.clip(one[value][cut], 0, 1)
            ax.imshow(colours.swapaxes(0, 1), origin="lower", extent=(0.0, across, 0.0, up), interpolation="nearest")
        _reference(ax, labels[cut], step)
        for place, (start, size) in enumerate(boxes.get(name, ())):
            if start[1] <= index < start[1] + size[1]:
                seen.add(organs[place])
                corner = ((start[0] - shown[0].start) * step[0], (start[2] - shown[2].start) * step[1])
                wide, high = size[0] * step[0], size[2] * step[1]
                ax.add_patch(Rectangle(corner, wide, high, fill=False, ec=organ(organs[place]).colour, lw=1.3))
        ax.set_xlabel(name, labelpad=3)
    reference = Line2D([], [], color=INK, mfc="white", marker="s", ls="", label="reference (white line)")
    title = f"coronal, y = {index}, CT window {window[0]:g} to {window[1]:g} HU"
    organ_legend(fig, seen, marker=False, first=[reference], title=title)
    return fig


def _reference(ax: Axes, labels: NDArray[np.integer], step: tuple[float, float]) -> None:
    """Draw the outline of all organs of a slice in white."""
    inside = np.pad(labels, 1)
    centres = [(np.arange(size) - 0.5) * edge for size, edge in zip(inside.shape, step, strict=True)]
    for value in np.unique(labels[labels > 0]):
        ax.contour(*centres, (inside == value).astype(float).T, levels=[0.5], colors="white", linewidths=0.7)
