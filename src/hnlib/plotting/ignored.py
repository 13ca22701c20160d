"""Figure of what topK Dice looks at: the organs of a CT slice with the voxels that each K ignores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from hnlib.organs import organ
from hnlib.plotting.scans import SOFT_TISSUE_WINDOW_HU, draw_contours, draw_slice, in_plane, shown_box
from hnlib.plotting.style import FULL_WIDTH_IN, INK

IGNORED = "#FFFFFF"


def ignore_maps(
    image_hu: NDArray[np.floating],
    labels: NDArray[np.integer],
    ignored: Mapping[float, NDArray[np.bool_]],
    *,
    spacing_mm: Sequence[float],
    organs: Sequence[str],
    plane: str = "axial",
    index: int,
    window: tuple[float, float] = SOFT_TISSUE_WINDOW_HU,
    margin_mm: float = 15.0,
) -> Figure:
    """Draw a CT slice once for each K: the loss looks at coloured voxels and ignores white ones inside an outline.

    Parameters
    ----------
    image_hu
        CT numbers, shape (X, Y, Z), RAS+.
    labels
        Reference label map; ``i + 1`` is ``organs[i]``.
    ignored
        K in percent to the voxels that `hnlib.losses.ignore_map` names, drawn in this order.
    spacing_mm
        Voxel edges in mm.
    organs
        Names of the organs in label order.
    plane, index
        ``axial``, ``coronal`` or ``sagittal``, and the slice.
    window
        Lowest and highest HU of the grey scale.
    margin_mm
        Space around the box of all organs that is shown.

    Returns
    -------
    Figure
        Panels in rows of three, radiological view.

    Raises
    ------
    ValueError
        When shapes differ, or there is no K.

    Notes
    -----
    Hosseini 2024, Figures 1 and 2.
    """
    if not ignored:
        raise ValueError("ignored is empty; at least one K with its map is needed")
    if any(shape != image_hu.shape for shape in (labels.shape, *(one.shape for one in ignored.values()))):
        raise ValueError("image, labels and ignore maps differ in shape; bring them to one grid")
    box, axis = shown_box(labels, spacing_mm, margin_mm), {"sagittal": 0, "coronal": 1, "axial": 2}[plane]
    cut = tuple(index if a == axis else part for a, part in enumerate(box))
    step = in_plane(spacing_mm, plane)
    columns = min(3, len(ignored))
    rows = -(-len(ignored) // columns)
    across, up = (size * edge for size, edge in zip(labels[cut].shape, step, strict=True))
    height = FULL_WIDTH_IN / columns * up / across
    fig, axes = plt.subplots(rows, columns, figsize=(FULL_WIDTH_IN, (height + 0.25) * rows + 0.5), squeeze=False)
    for ax in axes.flat[len(ignored) :]:
        ax.remove()
    shown = {int(value): organ(organs[value - 1]) for value in np.unique(labels[cut]) if value}
    for ax, (percent, one) in zip(axes.flat, ignored.items(), strict=False):
        draw_slice(ax, image_hu[cut], step, window)
        colours = np.zeros((*labels[cut].shape, 4))
        for value, look in shown.items():
            own = labels[cut] == value
            colours[own & ~one[cut]] = to_rgba(look.colour, 0.75)
            colours[own & one[cut]] = to_rgba(IGNORED, 0.75)
        ax.imshow(colours.swapaxes(0, 1), origin="lower", extent=(0.0, across, 0.0, up), interpolation="nearest")
        draw_contours(ax, labels[cut], step, organs, "-")  # bone is white too
        ax.set_xlabel(f"K = {percent:g} %", labelpad=3)
    handles = [Patch(color=look.colour, label=look.title) for look in shown.values()]
    handles.append(Patch(facecolor=IGNORED, edgecolor=INK, label="ignored"))
    title = f"{plane}, CT window {window[0]:g} to {window[1]:g} HU"
    fig.legend(handles=handles, loc="outside lower center", ncols=4, title=title, title_fontsize=8)
    return fig
