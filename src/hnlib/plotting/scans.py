"""Figures of scans: CT slices with the outlines of reference and prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from hnlib.cases import Case
from hnlib.organs import organ
from hnlib.plotting.style import FULL_WIDTH_IN, HALF_WIDTH_IN, INK, organ_legend

SOFT_TISSUE_WINDOW_HU = (-160.0, 240.0)
COMPARED_PLANES = (
    ("axial", "parotid_left"),
    ("axial", "mandible"),
    ("coronal", "parotid_left"),
    ("sagittal", "brainstem"),
)
_PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
_LETTERS = {"sagittal": ("A", "P", "S", "I"), "coronal": ("R", "L", "S", "I"), "axial": ("R", "L", "A", "P")}


def best_slices(labels: NDArray[np.integer]) -> dict[str, int]:
    """Choose the slice of each plane that a picture shows, from the reference alone.

    The rule: the slice that meets most organs; among those, the one with most organ voxels; then the first.

    Parameters
    ----------
    labels
        Reference label map, shape (X, Y, Z).

    Returns
    -------
    dict
        Plane (``axial``, ``coronal``, ``sagittal``) to slice index.

    Examples
    --------
    >>> labels = np.zeros((3, 4, 5), int)
    >>> labels[1, 2, 3] = 1
    >>> best_slices(labels)
    {'axial': 3, 'coronal': 2, 'sagittal': 1}
    """
    present = [value for value in np.unique(labels) if value != 0]
    chosen = {}
    for plane in ("axial", "coronal", "sagittal"):
        others = tuple(axis for axis in range(3) if axis != _PLANES[plane])
        voxels = np.zeros((len(present), labels.shape[_PLANES[plane]]))
        for row, value in enumerate(present):
            voxels[row] = (labels == value).sum(axis=others)
        chosen[plane] = int(np.lexsort((-voxels.sum(axis=0), -(voxels > 0).sum(axis=0)))[0])
    return chosen


def contour_panel(
    image_hu: NDArray[np.floating],
    reference: NDArray[np.integer],
    prediction: NDArray[np.integer] | None,
    *,
    spacing_mm: Sequence[float],
    organs: Sequence[str],
    planes: Mapping[str, int] | None = None,
    window: tuple[float, float] = SOFT_TISSUE_WINDOW_HU,
    margin_mm: float = 25.0,
    box: tuple[slice, ...] | None = None,
) -> Figure:
    """Draw CT slices with the outlines of reference and prediction.

    Parameters
    ----------
    image_hu
        CT numbers, shape (X, Y, Z), axes to the right, anterior, superior (RAS+).
    reference, prediction
        Label maps on the same grid; ``i + 1`` is ``organs[i]``. The prediction may be None.
    spacing_mm
        Voxel edges in mm.
    organs
        Names of the organs in label order.
    planes
        Plane (``axial``, ``coronal``, ``sagittal``) to slice index; None takes ``best_slices(reference)``.
    window
        Lowest and highest HU of the grey scale.
    margin_mm
        Space around the box of all reference organs that is shown; ``math.inf`` shows the whole slice. What a
        prediction puts farther away lies outside the picture.
    box
        The part of the volume that is shown, in place of that.

    Returns
    -------
    Figure
        One panel a plane, in radiological view (patient right on the left, anterior left in sagittal slices),
        with orientation letters and a scale bar. Solid: reference; dashed: prediction.

    Raises
    ------
    ValueError
        When the shapes differ or a plane is unknown.
    """
    if reference.shape != image_hu.shape or (prediction is not None and prediction.shape != image_hu.shape):
        raise ValueError("image, reference and prediction differ in shape; bring them to one grid")
    planes = best_slices(reference) if planes is None else planes
    if foreign := sorted(set(planes) - set(_PLANES)):
        raise ValueError(f"unknown planes {foreign}; known: {sorted(_PLANES)}")
    box = shown_box(reference, spacing_mm, margin_mm) if box is None else box
    shown_mm = [(part.stop - part.start) * edge for part, edge in zip(box, spacing_mm, strict=True)]
    fig, axes = _panels([in_plane(shown_mm, plane) for plane in planes])
    shown: set[str] = set()
    for ax, (plane, index) in zip(axes, planes.items(), strict=True):
        cut = tuple(index if axis == _PLANES[plane] else part for axis, part in enumerate(box))
        step = in_plane(spacing_mm, plane)
        draw_slice(ax, image_hu[cut], step, window)
        shown |= draw_contours(ax, reference[cut], step, organs, "-")
        if prediction is not None:
            shown |= draw_contours(ax, prediction[cut], step, organs, (0, (2.5, 1.5)))
        _letters(ax, plane)
        ax.set_xlabel(f"{plane}, {'xyz'[_PLANES[plane]]} = {index}", labelpad=3)
    _scale_bar(axes[0])
    styles = {} if prediction is None else {"reference": "-", "prediction": "--"}
    handles = [Line2D([], [], color=INK, ls=style, label=name) for name, style in styles.items()]
    title = f"CT window {window[0]:g} to {window[1]:g} HU"
    organ_legend(fig, shown, marker=False, first=handles, title=title)
    return fig


def scan_rows(
    scans: Mapping[str, Case],
    *,
    planes: Sequence[tuple[str, str]] = COMPARED_PLANES,
    window: tuple[float, float] = SOFT_TISSUE_WINDOW_HU,
    field_mm: tuple[float, float, float] = (180.0, 230.0, 230.0),
    centre_mm: tuple[float, float, float] = (0.0, 25.0, -45.0),
) -> Figure:
    """Draw several scans at the same places of the head, one row each, all at one scale.

    Parameters
    ----------
    scans
        Title to case; each has every organ that ``planes`` names, and a brainstem.
    planes
        Plane and the organ whose centroid it goes through.
    window
        Lowest and highest HU of the grey scale.
    field_mm, centre_mm
        Size of what is shown along X, Y, Z, and its centre as seen from the centroid of the brainstem. What a scan
        does not hold is black.

    Returns
    -------
    Figure
        In radiological view, with the outlines of the organs.
    """
    widths = [in_plane(field_mm, plane)[0] for plane, _ in planes]
    height = max(in_plane(field_mm, plane)[1] for plane, _ in planes) * FULL_WIDTH_IN / sum(widths)
    size = (FULL_WIDTH_IN, (height + 0.12) * len(scans) + 0.8)
    fig, axes = plt.subplots(len(scans), len(planes), figsize=size, width_ratios=widths, squeeze=False)
    shown: set[str] = set()
    for row, (title, case) in zip(axes, scans.items(), strict=True):
        origin = _centroid_mm(case, "brainstem") + centre_mm
        for ax, (plane, name) in zip(row, planes, strict=True):
            axis = _PLANES[plane]
            index = int(_centroid_mm(case, name)[axis] / case.spacing_mm[axis])
            step = in_plane(case.spacing_mm, plane)
            cut = tuple(index if a == axis else slice(None) for a in range(3))
            draw_slice(ax, case.image_hu[cut], step, window)
            shown |= draw_contours(ax, case.labels[cut], step, case.organs, "-")
            (x, y), (across, up) = in_plane(list(origin), plane), in_plane(field_mm, plane)
            ax.set(xlim=(x + across / 2, x - across / 2), ylim=(y - up / 2, y + up / 2), facecolor="black")
            _letters(ax, plane)
        row[0].set_ylabel(title)
        _scale_bar(row[0])
    for ax, (plane, name) in zip(axes[-1], planes, strict=True):
        ax.set_xlabel(f"{plane}, through\n{organ(name).title}", labelpad=3)
    organ_legend(fig, shown, marker=False, title=f"CT window {window[0]:g} to {window[1]:g} HU")
    return fig


def _centroid_mm(case: Case, name: str) -> NDArray[np.float64]:
    voxels = np.argwhere(case.mask(name))
    return np.asarray((voxels.mean(axis=0) + 0.5) * case.spacing_mm)


def _panels(extents_mm: Sequence[tuple[float, float]]) -> tuple[Figure, list[Axes]]:
    """Make a panel for each slice, all at one scale, as wide as what it shows."""
    widths = [width for width, _ in extents_mm]
    total = FULL_WIDTH_IN if len(extents_mm) > 1 else HALF_WIDTH_IN
    height = max(height for _, height in extents_mm) * total / sum(widths)
    fig, axes = plt.subplots(1, len(widths), figsize=(total, height + 0.75), width_ratios=widths, squeeze=False)
    for ax in axes[0]:
        ax.set_anchor("N")
    return fig, list(axes[0])


def shown_box(labels: NDArray[np.integer], spacing_mm: Sequence[float], margin_mm: float) -> tuple[slice, ...]:
    """Return the part of a volume around all organs that is shown."""
    box = []
    for axis, (size, edge) in enumerate(zip(labels.shape, spacing_mm, strict=True)):
        others = tuple(a for a in range(3) if a != axis)
        (found,) = np.nonzero((labels > 0).any(axis=others))
        margin = size if not found.size or math.isinf(margin_mm) else math.ceil(margin_mm / edge)
        low, high = (int(found[0]), int(found[-1])) if found.size else (0, size - 1)
        box.append(slice(max(0, low - margin), min(size, high + margin + 1)))
    return tuple(box)


def in_plane(values: Sequence[float], plane: str) -> tuple[float, float]:
    """Return those two of three values that a plane shows, across and up."""
    first, second = (value for axis, value in enumerate(values) if axis != _PLANES[plane])
    return first, second


def draw_slice(ax: Axes, pixels: NDArray[np.floating], step: tuple[float, float], window: tuple[float, float]) -> None:
    """Draw a CT slice in radiological view, its axes in mm."""
    extent = (0.0, pixels.shape[0] * step[0], 0.0, pixels.shape[1] * step[1])
    ax.imshow(pixels.T, origin="lower", extent=extent, cmap="gray", vmin=window[0], vmax=window[1])
    # The first axis of every plane points right or anterior; both belong on the left of the picture.
    ax.invert_xaxis()
    ax.autoscale(False)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def draw_contours(
    ax: Axes, labels: NDArray[np.integer], step: tuple[float, float], organs: Sequence[str], dashes: Any
) -> set[str]:
    """Outline every organ of a slice and return their names."""
    # A rim of background closes the outline of an organ that reaches the edge of the picture.
    labels = np.pad(labels, 1)
    centres = [(np.arange(size) - 0.5) * edge for size, edge in zip(labels.shape, step, strict=True)]
    names = {int(value): organs[value - 1] for value in np.unique(labels) if value}
    for value, name in names.items():
        inside = (labels == value).astype(float)
        drawn = ax.contour(*centres, inside.T, levels=[0.5], colors=[organ(name).colour], linewidths=1.1)
        drawn.set_linestyle(dashes)
    return set(names.values())


def _letters(ax: Axes, plane: str) -> None:
    left, right, top, bottom = _LETTERS[plane]
    places = {left: (0.02, 0.5), right: (0.98, 0.5), top: (0.5, 0.98), bottom: (0.5, 0.02)}
    for letter, (x, y) in places.items():
        across = {0.02: "left", 0.98: "right"}.get(x, "center")
        along = {0.02: "bottom", 0.98: "top"}.get(y, "center")
        ax.text(x, y, letter, transform=ax.transAxes, ha=across, va=along, color="white", fontsize=8)


def _scale_bar(ax: Axes) -> None:
    """Draw a bar of 20 or 50 mm at the lower left, in the data's own scale."""
    right, left = sorted(ax.get_xlim())
    bottom, top = sorted(ax.get_ylim())
    length = 50.0 if left - right > 120 else 20.0
    start, height = left - 0.05 * (left - right), bottom + 0.06 * (top - bottom)
    ax.plot([start, start - length], [height, height], color="white", lw=2, solid_capstyle="butt")
    ax.text(
        start - length / 2,
        height + 0.015 * (top - bottom),
        f"{length:g} mm",
        color="white",
        fontsize=7,
        ha="center",
        va="bottom",
    )
