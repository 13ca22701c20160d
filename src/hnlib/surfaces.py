"""Distances between the surfaces of two masks: computed once, read at any tolerance or percentile.

A surface is made of elements, one at each corner that eight voxels share and that are not all inside nor all
outside; its area is that of the marching-cubes triangles there (Nikolov et al. 2018). Numbers agree with the package
``surface-distance-based-measures``, which also gives the table of areas. What differs is the way to them: the package
transforms the whole box around the masks, here each element asks a search tree of the other surface, so that time and
memory follow the surfaces and not the volume between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree
from surface_distance import lookup_tables

Box = tuple[slice, ...]
Vector = tuple[float, float, float]
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Directed:
    """Distances from the elements of one surface to the nearest element of the other.

    Attributes
    ----------
    distance_mm
        In ascending order.
    area_mm2
        Area of each element, in the same order.
    """

    distance_mm: _Floats
    area_mm2: _Floats

    @cached_property
    def total_mm2(self) -> float:
        """Area of the whole surface."""
        return float(np.sum(self.area_mm2))

    @cached_property
    def _area_up_to(self) -> _Floats:
        return np.asarray(np.cumsum(self.area_mm2) / np.sum(self.area_mm2))

    def percentile_mm(self, percent: float) -> float:
        """Return the distance that ``percent`` of the surface's area does not exceed."""
        index = int(np.searchsorted(self._area_up_to, percent / 100.0))
        return float(self.distance_mm[min(index, self.distance_mm.size - 1)])

    def mean_mm(self) -> float:
        """Return the mean distance, weighted by area."""
        return float(np.sum(self.distance_mm * self.area_mm2) / np.sum(self.area_mm2))

    def within_mm2(self, tolerance_mm: float) -> float:
        """Return the area that lies at most so far from the other surface."""
        return float(np.sum(self.area_mm2[: np.searchsorted(self.distance_mm, tolerance_mm, side="right")]))


@dataclass(frozen=True)
class SurfaceDistances:
    """Both directions: from the reference's surface to the prediction's, and back."""

    from_reference: Directed
    from_prediction: Directed

    def surface_dsc(self, tolerance_mm: float) -> float:
        """Return the share of both surfaces' area that lies within the tolerance of the other (0..1)."""
        both = (self.from_reference, self.from_prediction)
        return sum(one.within_mm2(tolerance_mm) for one in both) / sum(one.total_mm2 for one in both)

    def hd_mm(self, percent: float = 100.0, of: Literal["max", "mean", "pooled"] = "max") -> float:
        """Return a Hausdorff distance.

        Parameters
        ----------
        percent
            Percentile of the distances, weighted by area; 100 is the largest.
        of
            The larger of the two directed percentiles, their mean, or the percentile of both surfaces together.
        """
        if of == "pooled":
            distance = np.concatenate([self.from_reference.distance_mm, self.from_prediction.distance_mm])
            area = np.concatenate([self.from_reference.area_mm2, self.from_prediction.area_mm2])
            order = np.argsort(distance, kind="stable")
            return Directed(distance[order], area[order]).percentile_mm(percent)
        there, back = (one.percentile_mm(percent) for one in (self.from_reference, self.from_prediction))
        return max(there, back) if of == "max" else (there + back) / 2

    def assd_mm(self) -> float:
        """Return the average symmetric surface distance: the mean over both surfaces together, weighted by area."""
        both = (self.from_reference, self.from_prediction)
        return sum(one.mean_mm() * one.total_mm2 for one in both) / sum(one.total_mm2 for one in both)


def surface_distances(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing_mm: Vector
) -> SurfaceDistances:
    """Measure the distances between the surfaces of two masks.

    Parameters
    ----------
    reference, prediction
        Boolean masks of one shape (X, Y, Z), each with a voxel at least. What lies beyond the array is outside.
    spacing_mm
        Voxel edges in mm, in the order of the arrays' axes.

    Raises
    ------
    ValueError
        When the shapes differ or a mask is empty: what that means is for the caller to say.

    Examples
    --------
    >>> one = np.zeros((6, 3, 3), bool)
    >>> one[1, 1, 1] = True
    >>> found = surface_distances(one, np.roll(one, 2, axis=0), (1.0, 1.0, 2.5))
    >>> found.hd_mm(), found.hd_mm(50, of="mean"), found.surface_dsc(1.0)
    (2.0, 1.0, 0.5)
    """
    if reference.shape != prediction.shape or reference.ndim != 3:
        raise ValueError(
            f"masks of shapes {reference.shape} and {prediction.shape}; two 3D masks of one shape are needed"
        )
    box = voxel_box(reference | prediction)
    if box is None or not reference[box].any() or not prediction[box].any():
        raise ValueError("a mask without a voxel has no surface; decide first what an empty mask means")
    codes = [_neighbour_codes(mask[box]) for mask in (reference, prediction)]
    # A corner whose eight voxels agree has code 0 or 255; one more wraps round to 1 or 0.
    borders = [code + np.uint8(1) > 1 for code in codes]
    areas = [_areas(spacing_mm)[code[border]] for code, border in zip(codes, borders, strict=True)]
    there = _directed(borders[0], areas[0], borders[1], spacing_mm)
    return SurfaceDistances(there, _directed(borders[1], areas[1], borders[0], spacing_mm))


def voxel_box(labels: NDArray[np.integer] | NDArray[np.bool_]) -> Box | None:
    """Return the smallest box that holds every voxel that is not 0, or None where there is none.

    The first pass runs along the memory of a C-ordered array; the others see only what it leaves.
    """
    if not labels.size:
        return None
    signed = labels.dtype.kind == "i" and labels.min() < 0  # of values below 0 the largest may be 0
    plane = np.asarray((labels != 0).any(axis=0) if signed else labels.max(axis=0))
    spans = [_span(np.any(plane, axis=1)), _span(np.any(plane, axis=0))]
    if spans[0] is None or spans[1] is None:
        return None
    inner = (slice(None), spans[0], spans[1])
    along = _span(np.any(labels[inner], axis=(1, 2)))
    return None if along is None else (along, spans[0], spans[1])


def _span(line: ArrayLike) -> slice | None:
    found = np.flatnonzero(line)
    return slice(int(found[0]), int(found[-1]) + 1) if found.size else None


def _neighbour_codes(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return, for every corner of the voxels, which of its eight voxels are inside, one bit each.

    The bits are those of the package's table: 128 for the voxel before the corner along all axes, 1 for the one
    behind it.
    """
    code = np.zeros([n + 2 for n in mask.shape], np.uint8)
    code[1:-1, 1:-1, 1:-1] = mask
    code = code[:, :, :-1] * np.uint8(2) + code[:, :, 1:]
    code = code[:, :-1] * np.uint8(4) + code[:, 1:]
    return np.asarray(code[:-1] * np.uint8(16) + code[1:])


@lru_cache(maxsize=64)
def _areas(spacing_mm: Vector) -> _Floats:
    """Return the area of the surface element of each of the 256 codes."""
    return np.asarray(lookup_tables.create_table_neighbour_code_to_surface_area(spacing_mm), np.float64)


def _directed(border: NDArray[np.bool_], areas: _Floats, other: NDArray[np.bool_], spacing_mm: Vector) -> Directed:
    """Return the distances from the corners of one border to the nearest of the other."""
    distance = np.zeros(areas.size)
    apart = np.flatnonzero(~other[border])
    if apart.size:
        here, there = np.argwhere(border)[apart], np.argwhere(other)
        edges = np.asarray(spacing_mm)
        # The search works on products of index and spacing, whose differences are rounded; the distance is taken
        # from the difference of indices, which is not, so that it equals the package's to the last bit.
        _, nearest = KDTree(there * edges).query(here * edges)
        steps = (there[nearest] - here) * edges
        distance[apart] = np.sqrt(np.add.reduce(steps * steps, axis=1))
    order = np.lexsort((areas, distance))
    return Directed(distance[order], areas[order])
