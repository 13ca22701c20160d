"""The voxel grid of one phantom while it is painted: coordinates, tissues, organs.

Every voxel has two coordinates: in the head frame of `phantom_anatomy`, and in the drawn head of `phantom_atlas`.
The second follows the first by one similarity and a smooth displacement that carries the mean places of the organs
to those of the case, so that skull, muscles and skin move with the organs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnlib.datasets.phantom_anatomy import (
    ALL_ORGANS,
    Anatomy,
    Float,
    Points,
    Triple,
    observer_field,
    organ_corners,
    organ_distance,
    statistics,
    stem,
)
from hnlib.datasets.phantom_atlas import SIMILARITY, TISSUES, Part

Box = tuple[slice, slice, slice]
THIN = ("optic_nerve", "optic_chiasm", "lens", "spinal_cord")
IN_FLUID = ("brainstem", "optic_chiasm")  # cisterns lie between them and the bone
CISTERN_MM = 3.0
NEIGHBOURS_26 = np.ones((3, 3, 3), bool)
LATTICE_MM = 12.0  # on which the displacement is computed before it is spread over the voxels
REACH_MM = 35.0  # of the displacement of one organ


def ellipsoid_distance(points: Points, curve: Sequence[Triple], radii: Triple) -> Float:
    """Return the signed distance in mm to a tube round a polyline, or to an ellipsoid round one point.

    With u the vector from the nearest point of the curve, in units of the radii, the distance is
    ``(|u| - 1) |u| / |u / radii|``: exact for equal radii, of first order at the surface otherwise.
    """
    inverse = 1 / np.asarray(radii, np.float32)
    knots = np.asarray(curve, np.float32) * inverse
    place = [p * i for p, i in zip(points, inverse, strict=True)]
    best = steepest = np.full(1, np.inf, np.float32)
    ends = knots if len(knots) > 1 else np.repeat(knots, 2, axis=0)
    for start, end in pairwise(ends):
        axis = end - start
        u = [p - s for p, s in zip(place, start, strict=True)]
        if axis.any():
            along = np.clip((u[0] * axis[0] + u[1] * axis[1] + u[2] * axis[2]) / (axis @ axis), 0, 1)
            u = [c - along * a for c, a in zip(u, axis, strict=True)]
        square = u[0] ** 2 + u[1] ** 2 + u[2] ** 2
        steep = (u[0] * inverse[0]) ** 2 + (u[1] * inverse[1]) ** 2 + (u[2] * inverse[2]) ** 2
        steepest = np.where(square < best, steep, steepest)
        best = np.minimum(square, best)
    norm = np.sqrt(best)
    return np.asarray((norm - 1) * norm / np.sqrt(np.maximum(steepest, np.float32(1e-12))), np.float32)


def union(distances: Sequence[Float], width_mm: float = 1.5) -> Float:
    """Return the union of shapes, rounded where they meet: ``-w log(sum(exp(-d / w)))``."""
    stack = np.stack(np.broadcast_arrays(*distances))
    least = stack.min(axis=0)
    total = np.exp((least - stack) / np.float32(width_mm)).sum(axis=0)
    return np.asarray(least - np.float32(width_mm) * np.log(total), np.float32)


def stream(*key: int | str) -> np.random.Generator:
    """Return the random stream of a key; any part of it changes all numbers."""
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=16).digest()))


def largest(fraction: Float, distance: Float, free: NDArray[np.bool_], num_voxels: int) -> NDArray[np.bool_]:
    """Return the free voxels with the largest fractions, as one component.

    There are ``num_voxels``, and those that it takes to join them. A crumb off a large organ is dropped; so is what
    does not touch when there are five times the number.
    """
    order = np.lexsort((distance.ravel(), -fraction.ravel()))
    order = order[free.ravel()[order]]
    mask = np.zeros(fraction.shape, bool)
    for n in range(max(num_voxels, 1), 5 * num_voxels + 8, max(1, num_voxels // 50)):
        mask.ravel()[order[:n]] = True
        parts, count = ndimage.label(mask, NEIGHBOURS_26)
        if count == 1:
            return _pruned(mask, order[num_voxels:n])
        sizes = np.bincount(parts.ravel())[1:]
        if sizes.max() > 0.9 * num_voxels > 180:
            break
    return np.asarray(parts == sizes.argmax() + 1)


def _pruned(mask: NDArray[np.bool_], extra: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return a mask of one component without those extra voxels, the last ones first, that do not hold it together."""
    for voxel in extra[::-1]:
        mask.ravel()[voxel] = False
        if ndimage.label(mask, NEIGHBOURS_26)[1] != 1:
            mask.ravel()[voxel] = True
    return mask


def unbiased(distance: Float, wander: Float) -> Float:
    """Return the distance to an outline that wanders, drawn in by what wandering to both sides adds to a volume.

    A convex organ gains more where the outline lies outside than it loses where it lies inside: a tube of radius r
    grows by the mean square of the wander over r squared. One step of Newton's method undoes it in the mean over
    the wander and its mirror image, so that observers draw what is there.
    """
    gained = ((distance + wander < 0).mean() + (distance - wander < 0).mean()) / 2 - (distance < 0).mean()
    slope = (np.abs(distance) < 0.5).mean()  # growth for 1 mm
    return np.asarray(distance + wander + np.float32(gained / max(slope, 1e-9)), np.float32)


class Displacement:
    """A smooth vector field in the head frame: from the drawn mean head to one case."""

    def __init__(self, anatomy: Anatomy) -> None:
        self.marks, mean = anatomy.marks_mm, anatomy.mean_marks_mm
        self.scale = float((self.marks * mean).sum() / (mean**2).sum())
        rest = self.marks - self.scale * mean
        self.weights = np.linalg.solve(self._kernel(self.marks) + 0.05 * np.eye(len(self.marks)), rest)

    def _kernel(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        square = ((points[:, None] - self.marks[None]) ** 2).sum(axis=2)
        return np.asarray(np.exp(-square / (2 * REACH_MM**2)))

    def undo(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where points of the case, shape (points, 3), lie in the mean head."""
        return np.asarray((points - self._kernel(points) @ self.weights) / self.scale)


class Canvas:
    """One case while it is painted.

    Parameters
    ----------
    anatomy
        Positions, sizes and shapes.
    spacing_mm
        Voxel edges.
    low_mm, high_mm
        Corners of the field of view round the origin of the head frame, along the scanner's axes.
    tissue_hu
        CT number of every tissue in this case.
    """

    def __init__(
        self, anatomy: Anatomy, spacing_mm: Triple, low_mm: Triple, high_mm: Triple, tissue_hu: dict[str, float]
    ) -> None:
        self.anatomy, self.spacing_mm, self.low_mm, self.tissue_hu = anatomy, spacing_mm, low_mm, tissue_hu
        self.shape = tuple(round((h - a) / s) for a, h, s in zip(low_mm, high_mm, spacing_mm, strict=True))
        self.edge_mm = np.float32(math.prod(spacing_mm) ** (1 / 3))
        self.whole: Box = (slice(0, self.shape[0]), slice(0, self.shape[1]), slice(0, self.shape[2]))
        self.head = self.points(self.whole)
        self.atlas = self._atlas(Displacement(anatomy))
        self.hu = np.full(self.shape, TISSUES["air"][0], np.float32)
        self.grain = np.zeros(self.shape, np.float32)
        self.body = np.ones(self.shape, np.float32)
        self.taken = np.zeros(self.shape, np.float32)
        self.labels = np.zeros(self.shape, np.uint8)

    def points(self, box: Box, factor: Sequence[int] = (1, 1, 1)) -> Points:
        """Return head-frame coordinates of the voxels of a box, each split by ``factor``."""
        axes = []
        for part, n, edge, low in zip(box, factor, self.spacing_mm, self.low_mm, strict=True):
            axes.append(((np.arange(part.start * n, part.stop * n) + 0.5) / n * edge + low).astype(np.float32))
        x, y, z = np.ix_(*axes)
        a, b, c = (row[0] * x + row[1] * y + row[2] * z for row in self.anatomy.pose.astype(np.float32))
        return a, b, c

    def _atlas(self, displacement: Displacement) -> Points:
        """Return coordinates of every voxel in the drawn head, and keep those of a coarse lattice for boxes."""
        sizes = [math.ceil(n * s / LATTICE_MM) + 2 for n, s in zip(self.shape, self.spacing_mm, strict=True)]
        lines = [low + LATTICE_MM * (np.arange(n) - 0.5) for n, low in zip(sizes, self.low_mm, strict=True)]
        nodes = np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, 3) @ self.anatomy.pose.T
        rotation, scale, shift = SIMILARITY
        drawn = (displacement.undo(nodes) - shift) @ rotation / scale
        self.lattice = drawn.reshape(*sizes, 3)
        places = [
            ((np.arange(n) + 0.5) * s / LATTICE_MM + 0.5).astype(np.float32)
            for n, s in zip(self.shape, self.spacing_mm, strict=True)
        ]
        found = []
        for k in range(3):
            part = self.lattice[..., k].astype(np.float32)
            for axis, place in enumerate(places):  # linear along one axis after the other
                lower = np.clip(np.floor(place).astype(int), 0, part.shape[axis] - 2)
                share = (place - lower).reshape([-1 if a == axis else 1 for a in range(3)])
                part = (1 - share) * part.take(lower, axis) + share * part.take(lower + 1, axis)
            found.append(np.asarray(part, np.float32))
        return found[0], found[1], found[2]

    def box(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> Box:
        """Return the voxels whose coordinates in the drawn head may lie between two corners, cut at the border."""
        inside = ((self.lattice > low - LATTICE_MM) & (self.lattice < high + LATTICE_MM)).all(axis=-1)
        nodes = np.argwhere(inside)
        if not len(nodes):
            return (slice(0, 0),) * 3
        ends = (nodes.min(axis=0) - 0.5) * LATTICE_MM, (nodes.max(axis=0) + 0.5) * LATTICE_MM
        return self._cut(*(e / np.array(self.spacing_mm) for e in ends))

    def _cut(self, first: NDArray[np.float64], last: NDArray[np.float64]) -> Box:
        a, b, c = (
            slice(min(max(math.floor(f), 0), n), max(min(math.ceil(t), n), 0))
            for f, t, n in zip(first, last, self.shape, strict=True)
        )
        return a, b, c

    def organ_box(self, organ: str, margin_mm: float) -> Box:
        """Return the voxels that may hold an organ, cut at the border."""
        corners = organ_corners(self.anatomy, organ) @ self.anatomy.pose - self.low_mm
        ends = corners.min(axis=0) - margin_mm, corners.max(axis=0) + margin_mm
        return self._cut(*(e / np.array(self.spacing_mm) for e in ends))

    def fill(self, distance: Float, tissue: str, box: Box | None = None) -> None:
        """Blend in a tissue where a signed distance in mm is negative, inside the body only."""
        box = box or self.whole
        self.blend(self.body[box] * np.clip(np.float32(0.5) - distance / self.edge_mm, 0, 1), tissue, box)

    def blend(self, fraction: Float, tissue: str, box: Box, hu: Float | None = None) -> None:
        """Replace a fraction of each voxel of a box by a tissue, or by its own HU map."""
        value = np.asarray(self.tissue_hu[tissue] if hu is None else hu, np.float32)
        self.hu[box] += fraction * (value - self.hu[box])
        self.grain[box] += fraction * (np.float32(TISSUES[tissue][1]) - self.grain[box])

    def paint(self, parts: Iterable[Part]) -> None:
        """Paint parts of the drawn head, one after the other."""
        for part in parts:
            knots = np.array(part.points)
            box = self.box(knots.min(axis=0) - part.radii, knots.max(axis=0) + part.radii)
            if all(edge.stop > edge.start for edge in box):
                x, y, z = (p[box] for p in self.atlas)
                self.fill(ellipsoid_distance((x, y, z), part.points, part.radii), part.tissue, box)

    def paint_ball(self, tissue: str, centre: NDArray[np.float64], radius_mm: float) -> None:
        """Paint a ball at a place of the head frame."""
        corner = centre @ self.anatomy.pose - self.low_mm
        reach = radius_mm + 2 * float(self.edge_mm)
        box = self._cut(*((corner + s * reach) / np.array(self.spacing_mm) for s in (-1, 1)))
        if all(edge.stop > edge.start for edge in box):
            x, y, z = (p[box] - np.float32(c) for p, c in zip(self.head, centre, strict=True))
            self.fill(np.sqrt(x**2 + y**2 + z**2) - np.float32(radius_mm), tissue, box)

    def paint_organ(self, organ: str, tissue: str, value: int, key: Sequence[int | str], observer: int) -> None:
        """Paint the CT numbers of an organ, and its label as one observer would draw it.

        The surface is the level set that encloses the volume of the case. The observer's outline is another level
        set: that of the distance plus a smooth random field, as strong as two real observers differ.
        """
        factor = self.factor(organ)
        box = self.organ_box(organ, 6.0)
        shape = self.labels[box].shape
        if not all(shape):
            return
        points = self.points(box, factor)
        distance = self.surface(organ, points, math.prod(self.spacing_mm) / math.prod(factor))
        if organ in IN_FLUID:
            self.blend(self._share(distance, factor, shape, CISTERN_MM) * (1 - self.taken[box]), "csf", box)
        true = self._share(distance, factor, shape) * (1 - self.taken[box])
        self.blend(true, tissue, box, self._bone(distance, factor, shape) if organ == "mandible" else None)
        self.taken[box] += true
        strength = np.float32(statistics()["observer_mm"].get(stem(organ), 0.0))
        seen = unbiased(distance, strength * self.observer(organ, points, key, observer))
        drawn = self._share(seen, factor, shape)
        blocks = seen.reshape([n for pair in zip(shape, factor, strict=True) for n in pair]).mean(axis=(1, 3, 5))
        mask = largest(drawn, blocks, self.labels[box] == 0, round(float(drawn.sum())))
        self.labels[box][mask] = value

    def factor(self, organ: str) -> tuple[int, ...]:
        """Return in how many parts each edge of a voxel is split to sample an organ: 1 mm for a thin one, else 2."""
        step_mm = 1.0 if stem(organ) in THIN else 2.0
        return tuple(max(2, math.ceil(s / step_mm)) for s in self.spacing_mm)

    def surface(self, organ: str, points: Points, sample_mm3: float) -> Float:
        """Return the signed distance to an organ at points of one volume each, its volume set to that of the case."""
        distance = organ_distance(self.anatomy, organ, points)
        if organ in self.anatomy.volume_mm3:
            inside = min(round(self.anatomy.volume_mm3[organ] / sample_mm3), distance.size - 1)
            distance = distance - np.partition(distance, inside, axis=None)[inside]
        return np.asarray(distance, np.float32)

    def observer(self, organ: str, points: Points, key: Sequence[int | str], observer: int) -> Float:
        """Return how far an observer's outline lies off, as a smooth field of SD 1."""
        return observer_field(stream("observer", observer, *key, organ), points, organ_corners(self.anatomy, organ))

    @staticmethod
    def _share(distance: Float, factor: Sequence[int], shape: Sequence[int], level: float = 0.0) -> Float:
        blocks = distance.reshape([n for pair in zip(shape, factor, strict=True) for n in pair])
        return np.asarray((blocks < level).mean(axis=(1, 3, 5), dtype=np.float32))

    def _bone(self, distance: Float, factor: Sequence[int], shape: Sequence[int]) -> Float:
        """Return the CT numbers of the mandible: a cortex of 2.5 mm round marrow.

        They are scaled so that the mean over its voxels, which hold some muscle at the rim, is the mean of the case.
        """
        whole, marrow = self._share(distance, factor, shape), self._share(distance, factor, shape, -2.5)
        low, high = self.tissue_hu["jaw marrow"], self.tissue_hu["jaw cortex"]
        hu = high + (low - high) * marrow / np.maximum(whole, np.float32(1e-3))
        voxels = whole >= 0.5
        bone, muscle = (hu * whole)[voxels].mean(), self.tissue_hu["muscle"] * (1 - whole[voxels]).mean()
        return np.asarray(hu * np.float32((self.tissue_hu["mandible"] - muscle) / bone), np.float32)

    def values(self, organs: Sequence[str]) -> NDArray[np.uint8]:
        """Return the label map of the organs asked for, numbered in their order; the others are background."""
        table = np.zeros(len(ALL_ORGANS) + 1, np.uint8)
        for value, organ in enumerate(organs, start=1):
            table[ALL_ORGANS.index(organ) + 1] = value
        return table[self.labels]
