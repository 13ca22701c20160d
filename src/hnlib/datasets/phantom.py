"""A digital head-and-neck phantom: the paper's seven organs in a head of analytic shapes.

Nothing here comes from a patient. Each structure is a signed distance in mm in one canonical head
(origin at the optic chiasm; x right, y anterior, z superior), written in the tables of
`hnlib.datasets.phantom_atlas`. A case draws pose, size, a smooth warp, organ volumes and offsets,
tissue HU, texture and noise.

How a shape becomes voxels: surroundings are blended with the fraction ``clip(1/2 - d / w, 0, 1)`` of
the signed distance d, w the mean voxel edge. An organ is sampled on a finer grid; its surface is the
level set that encloses the volume drawn for the case, and its CT number enters with the fraction of
the sub-samples inside. Its label takes the round(volume / voxel volume) voxels with the largest
fractions. For a thick organ this is the usual rule "fraction of at least one half"; an optic nerve
thinner than a voxel, which that rule would tear apart, keeps its volume. Where these voxels are not
one component (26 neighbours), those with the next largest fractions join until they are.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnlib.cases import SPLITS, Case
from hnlib.datasets.phantom_atlas import (
    BODY,
    BRAIN,
    FACE,
    JAW_HIGH_MM,
    JAW_LOW_MM,
    JAW_PLAN,
    NECK,
    ORBIT,
    ORGANS,
    SOFT,
    TEETH,
    TISSUES,
    Part,
    Triple,
    both_sides,
)
from hnlib.errors import ConfigError, unknown

Float = NDArray[np.float32]
Points = tuple[Float, Float, Float]
Box = tuple[slice, slice, slice]

VERSION = 1  # raise it whenever the content of any case changes: it enters the digest
FIELD_MM, FIELD_CENTRE_MM = (208.0, 240.0, 264.0), (0.0, -12.0, -18.0)
SPACING_RANGE_MM = (0.8, 6.0)
NEIGHBOURS_26 = np.ones((3, 3, 3), bool)

VOLUMES_ML: Mapping[str, float] = {
    "brainstem": 25.0,
    "optic_chiasm": 64.0 / 99,
    "optic_nerve_left": 64.0 / 75,
    "optic_nerve_right": 64.0 / 83,
    "parotid_left": 25.0,
    "parotid_right": 25.0,
    "mandible": 64.0,
}
"""Median volumes in label order. The optic organs keep the ratios to the mandible that the paper's
code holds for whole scans (99, 75 and 83 : 1)."""
VOLUME_LOG_SD = 0.12  # SD of the logarithm of an organ's volume over cases, cut at two SD


def _distance(points: Points, curve: Sequence[Triple], radii: Triple) -> Float:
    """Return the signed distance in mm to a tube round a polyline, or to an ellipsoid round one point.

    With u the vector from the nearest point of the curve, in units of the radii, the distance is
    ``(|u| - 1) |u| / |u / radii|``: exact for equal radii, of first order at the surface otherwise.
    """
    inverse = 1 / np.asarray(radii, np.float32)
    knots = np.asarray(curve, np.float32) * inverse
    place = [p * i for p, i in zip(points, inverse, strict=True)]
    best = steepest = np.full(1, np.inf, np.float32)
    for start, end in pairwise(knots) if len(knots) > 1 else ((knots[0], knots[0]),):
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


def _union(distances: Sequence[Float], width_mm: float = 1.5) -> Float:
    """Return the union of shapes, rounded where they meet: ``-w log(sum(exp(-d / w)))``."""
    stack = np.stack(distances)
    least = stack.min(axis=0)
    total = np.exp((least - stack) / np.float32(width_mm)).sum(axis=0)
    return np.asarray(least - np.float32(width_mm) * np.log(total), np.float32)


def _curve(y: Float, knots: tuple[Sequence[float], Sequence[float]]) -> Float:
    return np.asarray(np.interp(y, *knots), np.float32)


def _mandible(points: Points) -> Float:
    """Return the signed distance to a horseshoe plate whose lower and upper edges vary along y."""
    x, y, z = points
    plan = _distance((np.abs(x), y, np.zeros_like(z)), JAW_PLAN, (5.6, 5.6, 5.6))
    return -_union([-plan, z - _curve(y, JAW_LOW_MM), _curve(y, JAW_HIGH_MM) - z])


def _cranium(points: Points, wall_mm: float, base_mm: float) -> Float:
    """Return the signed distance to the cranial cavity, widened by a wall: a vault on a stepped base."""
    x, y, z = points
    vault = _distance(points, ((0, -20, 18),), (65, 84, 72))
    middle = _curve(y, ((-27, -14, -7, 6, 16, 60), (-48, -24, -11, -9, 2, 8)))
    lateral = _curve(y, ((-35, -18, 18, 28, 60), (-44, -22, -22, 4, 10)))
    floor = middle + np.clip((np.abs(x) - 14) / 12, 0, 1) * (lateral - middle)
    base = np.float32(0.8) * (floor - z) - np.float32(base_mm)
    return np.asarray(np.maximum(vault - np.float32(wall_mm), base), np.float32)


class _Canvas:
    """One case while it is painted: its voxel grid, the map to the canonical head, HU and labels."""

    def __init__(self, spacing_mm: Triple, rng: np.random.Generator) -> None:
        self.spacing_mm = spacing_mm
        self.shape = tuple(round(f / s) for f, s in zip(FIELD_MM, spacing_mm, strict=True))
        self.edge_mm = np.float32(math.prod(spacing_mm) ** (1 / 3))
        turn = np.eye(3)
        for (i, j), angle in zip(((1, 2), (0, 2), (0, 1)), np.radians(rng.normal(0, 2, 3).clip(-4, 4)), strict=True):
            plane = np.eye(3)
            plane[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
            turn = turn @ plane
        scale = rng.normal(1, 0.03, 1).clip(0.94, 1.06) * rng.normal(1, 0.015, 3).clip(0.97, 1.03)
        self.matrix = np.diag(1 / scale) @ turn.T
        self.shift_mm = rng.normal(0, 3, 3).clip(-6, 6)
        wave = [2 * np.pi / rng.uniform(110, 220, (3, 3)), rng.uniform(0, 2 * np.pi, (3, 3))]
        self.wave = np.asarray(wave, np.float32)  # wave number and phase, by displaced axis and axis
        self.warp_mm = rng.uniform(1, 3, 3).astype(np.float32)
        self.offset_mm = {organ: rng.normal(0, 1, 3).clip(-2, 2).astype(np.float32) for organ in ORGANS}
        self.tissue_hu = {name: mean + half * rng.uniform(-1, 1) for name, (mean, half, _) in TISSUES.items()}
        self.whole: Box = (slice(0, self.shape[0]), slice(0, self.shape[1]), slice(0, self.shape[2]))
        self.grid = self.points(self.whole)
        self.hu = np.full(self.shape, TISSUES["air"][0], np.float32)
        self.grain = np.zeros(self.shape, np.float32)
        self.body = np.ones(self.shape, np.float32)
        self.labels = np.zeros(self.shape, np.uint8)

    def points(self, box: Box, factor: Sequence[int] = (1, 1, 1), organ: str = "") -> Points:
        """Return canonical coordinates in mm of a box of voxels, each split by ``factor``, as the organ lies."""
        axes = []
        for k, (part, n, edge) in enumerate(zip(box, factor, self.spacing_mm, strict=True)):
            mm = (np.arange(part.start * n, part.stop * n) + 0.5) / n * edge - self.shape[k] * edge / 2
            axes.append((mm + FIELD_CENTRE_MM[k] - self.shift_mm[k]).astype(np.float32))
        x, y, z = np.ix_(*axes)
        offset = self.offset_mm.get(organ, np.zeros(3, np.float32))
        made = []
        for k, (a, b, c) in enumerate(self.matrix.astype(np.float32)):
            sx, sy, sz = (np.sin(w * v + p) for v, w, p in zip((x, y, z), *self.wave[:, k], strict=True))
            made.append(a * x + b * y + c * z + self.warp_mm[k] * (sx * sy * sz) - offset[k])
        return made[0], made[1], made[2]

    def box(self, parts: Iterable[Part], margin_mm: float = 3.0) -> Box:
        """Return a box of voxels that holds canonical parts, warp and offset included, cut at the border."""
        knots = np.array([np.add(p, s * np.array(part.radii)) for part in parts for p in part.points for s in (1, -1)])
        corners = np.stack(np.meshgrid(*zip(knots.min(0), knots.max(0), strict=True))).reshape(3, -1)
        corners = np.linalg.solve(self.matrix, corners) + self.shift_mm[:, None]
        made = []
        for k, (n, edge) in enumerate(zip(self.shape, self.spacing_mm, strict=True)):
            wide = margin_mm + 2 + 1.1 * float(self.warp_mm.max())
            origin = FIELD_CENTRE_MM[k] - n * edge / 2
            ends = (corners[k].min() - wide - origin) / edge, (corners[k].max() + wide - origin) / edge
            made.append(slice(min(max(math.floor(ends[0]), 0), n), max(min(math.ceil(ends[1]), n), 0)))
        return made[0], made[1], made[2]

    def fill(self, distance: Float, tissue: str, box: Box | None = None) -> None:
        """Blend in a tissue where a signed distance in mm is negative, inside the body only."""
        box = box or self.whole
        self.blend(self.body[box] * np.clip(np.float32(0.5) - distance / self.edge_mm, 0, 1), tissue, box)

    def blend(self, fraction: Float, tissue: str, box: Box, hu: Float | None = None) -> None:
        """Replace a fraction of each voxel of a box by a tissue, or by its own HU map."""
        value = np.asarray(self.tissue_hu[tissue] if hu is None else hu, np.float32)
        self.hu[box] += fraction * (value - self.hu[box])
        self.grain[box] += fraction * (np.float32(TISSUES[tissue][2]) - self.grain[box])

    def paint(self, parts: Iterable[Part], organ: str = "") -> None:
        """Paint parts one after the other, displaced like an organ where one is named."""
        for part in parts:
            box = self.box([part])
            self.fill(_distance(self.points(box, organ=organ), part.points, part.radii), part.tissue, box)


def _organ_distance(points: Points, jaw_points: Points, organ: str, size: Triple) -> Float:
    """Return the signed distance to an organ, its radii multiplied by ``size``."""
    if organ == "mandible":
        return _mandible(points)
    radii = [(p.radii[0] * size[0], p.radii[1] * size[1], p.radii[2] * size[2]) for p in ORGANS[organ]]
    shape = _union([_distance(points, p.points, r) for p, r in zip(ORGANS[organ], radii, strict=True)])
    return np.maximum(shape, 1 - _mandible(jaw_points)) if organ.startswith("parotid") else shape


def _largest(fraction: Float, distance: Float, free: NDArray[np.bool_], num_voxels: int) -> NDArray[np.bool_]:
    """Return the free voxels with the largest fractions: ``num_voxels``, or more to be one component."""
    order = np.lexsort((distance.ravel(), -fraction.ravel()))
    order = order[free.ravel()[order]]
    mask = np.zeros(fraction.shape, bool)
    for n in range(max(num_voxels, 1), 2 * num_voxels + 8):
        mask.ravel()[order[:n]] = True
        if ndimage.label(mask, NEIGHBOURS_26)[1] == 1:
            break
    return mask


def _paint_organ(canvas: _Canvas, organ: str, rng: np.random.Generator) -> None:
    """Draw the volume of an organ, then paint its CT numbers and its label (see the module's text)."""
    volume_mm3 = VOLUMES_ML[organ] * 1000 * math.exp(VOLUME_LOG_SD * float(rng.normal(size=1).clip(-2, 2)[0]))
    a, b, c = np.exp(rng.normal(0, 0.05, 3).clip(-0.1, 0.1))
    step_mm = 1.0 if organ.startswith("optic") else 2.0
    factor = [max(2, math.ceil(s / step_mm)) for s in canvas.spacing_mm]
    box = canvas.box(ORGANS[organ], margin_mm=5)
    jaw = canvas.points(box, factor, "mandible")
    distance = _organ_distance(canvas.points(box, factor, organ), jaw, organ, (a, b, c))
    voxel_mm3 = math.prod(canvas.spacing_mm)
    num_inside = round(volume_mm3 / voxel_mm3 * math.prod(factor))
    distance -= np.partition(distance, num_inside, axis=None)[num_inside]
    shape = canvas.labels[box].shape
    blocks = distance.reshape([n for pair in zip(shape, factor, strict=True) for n in pair])
    fraction = (blocks < 0).mean(axis=(1, 3, 5), dtype=np.float32)
    mask = _largest(fraction, blocks.mean(axis=(1, 3, 5)), canvas.labels[box] == 0, round(volume_mm3 / voxel_mm3))
    hu = None
    if organ == "mandible":  # a cortex of 2.5 mm round marrow
        marrow = (blocks < -2.5).mean(axis=(1, 3, 5), dtype=np.float32) / np.maximum(fraction, np.float32(1e-3))
        hu = canvas.tissue_hu["cortical bone"] * (1 - marrow) + canvas.tissue_hu["spongy bone"] * marrow
    canvas.blend(fraction, ORGANS[organ][0].tissue, box, hu)
    canvas.labels[box][mask] = tuple(VOLUMES_ML).index(organ) + 1


def _paint_spine(canvas: _Canvas) -> None:
    """Paint seven vertebrae with discs, processes, spinal canal and cord."""
    box = canvas.box([Part("bone", (34, 36, 75), ((0, -40, -127),))])
    x, y, z = canvas.points(box)
    y = y + np.float32(4e-4) * (z + 95) ** 2 - 3  # cervical lordosis
    level = (z + 54) % 17 - np.float32(8.5)
    below = z + 50
    body = np.maximum(_distance((x, y, np.zeros_like(z)), ((0, -22, 0),), (11, 9, 9)), below)
    canvas.fill(body, "cartilage", box)
    canvas.fill(np.maximum(body, np.abs(level) - 6.5), "bone", box)
    canvas.fill(np.maximum(body + 2, np.abs(level) - 5), "spongy bone", box)
    arch = _distance((x, y, level), ((-20, -30, 0), (-13, -36, 0), (0, -54, -3), (13, -36, 0), (20, -30, 0)), (4, 4, 5))
    spine = _distance((x, y, level), ((0, -52, -2), (0, -66, -5)), (3, 3, 4))
    canvas.fill(np.maximum(np.minimum(arch, spine), below), "bone", box)
    canal = _distance((x, y, z), ((0, -38, -40), (0, -39, -400)), (9, 7.5, 8))
    canvas.fill(canal, "csf", box)
    canvas.fill(canal + 3, "grey matter", box)


def _render(spacing_mm: Triple, seed: int, number: int) -> tuple[Float, NDArray[np.uint8]]:
    """Return HU and labels of one case; anatomy and noise have a random stream each."""
    rng, noise_rng = (np.random.default_rng(s) for s in np.random.SeedSequence([VERSION, seed, number]).spawn(2))
    canvas = _Canvas(spacing_mm, rng)
    neck = np.maximum(_distance(canvas.grid, NECK.points, NECK.radii), canvas.grid[2] + 30)
    skin = _union([neck, *(_distance(canvas.grid, p.points, p.radii) for p in both_sides(BODY))], 4)
    fat = _curve(canvas.grid[2], ((-45, 25), (7, 3))) * np.float32(rng.uniform(0.7, 1.3))
    for tissue, depth in (("skin", 0), ("fat", 2), ("muscle", 2 + fat)):
        canvas.fill(skin + depth, tissue)
    canvas.body = np.clip(np.float32(0.5) - (skin + 2) / canvas.edge_mm, 0, 1)
    canvas.paint(both_sides(SOFT))
    for tissue, wall, base in (("bone", 6.5, 3.5), ("csf", 0, 0), ("grey matter", -2.5, -2)):
        canvas.fill(_cranium(canvas.grid, wall, base), tissue)
    canvas.paint(both_sides((*BRAIN, *FACE)))
    for side, organ in ((-1, "optic_nerve_left"), (1, "optic_nerve_right")):
        canvas.paint([part.on(side) for part in ORBIT], organ)
    _paint_spine(canvas)
    for organ in ORGANS:
        _paint_organ(canvas, organ, rng)
    canvas.paint(TEETH)
    texture = ndimage.gaussian_filter(noise_rng.standard_normal(canvas.shape, np.float32), 3 / np.array(spacing_mm))
    hu = canvas.hu + canvas.grain * texture / texture.std()
    hu += noise_rng.standard_normal(canvas.shape, np.float32) * np.float32(rng.uniform(15, 20))
    return np.clip(np.round(hu), -1024, 3071), canvas.labels


@dataclass(frozen=True)
class PhantomDataset:
    """Digital head-and-neck phantoms, made on the spot; the module's text says how.

    Parameters
    ----------
    num_cases
        Number of cases by split; a split that is not named has none.
    seed
        Seed of the whole data set, 0 or larger. A case depends on seed, spacing and its number only.
    spacing_mm
        Voxel edges along X, Y, Z in mm, each from 0.8 to 6. At another spacing the same case shows
        the same anatomy under other noise.

    Raises
    ------
    ConfigError
        When a split is unknown, a count or the seed is not a whole number of 0 or more, no case is
        asked for, or a spacing lies outside its range.

    Examples
    --------
    >>> data = PhantomDataset({"train": 2, "test": 1}, spacing_mm=(6, 6, 6))
    >>> data.split()
    {'train': ('phantom_000', 'phantom_001'), 'validation': (), 'test': ('phantom_002',)}
    >>> case = data.load("phantom_002")
    >>> case.image_hu.shape, int(case.labels.max())
    ((35, 40, 44), 7)
    """

    num_cases: Mapping[str, int] = field(default_factory=lambda: {"train": 12, "validation": 4, "test": 6}, hash=False)
    seed: int = 0
    spacing_mm: Triple = (4.0, 4.0, 3.0)

    def __post_init__(self) -> None:
        """Check and copy the parameters."""
        if not isinstance(self.num_cases, Mapping):
            raise ConfigError(f"phantom: num_cases is {self.num_cases!r}; write a number for each split")
        for split in self.num_cases:
            if split not in SPLITS:
                raise unknown("split", split, SPLITS)
        for what, count in [("seed", self.seed), *((f"number of {k} cases", v) for k, v in self.num_cases.items())]:
            if isinstance(count, bool) or not isinstance(count, Integral) or int(count) < 0:
                raise ConfigError(f"phantom: {what} is {count!r}; a whole number of 0 or more is needed")
        if not sum(self.num_cases.values()):
            raise ConfigError("phantom: no case is asked for; give at least one split a number above 0")
        lo, hi = SPACING_RANGE_MM
        edges = tuple(self.spacing_mm) if isinstance(self.spacing_mm, Iterable) else ()
        if len(edges) != 3 or not all(isinstance(s, Real) and lo <= s <= hi for s in edges):
            raise ConfigError(f"phantom: spacing {self.spacing_mm} mm; three numbers from {lo} to {hi} are needed")
        object.__setattr__(self, "spacing_mm", tuple(float(s) for s in edges))
        object.__setattr__(self, "num_cases", dict(self.num_cases))

    @property
    def name(self) -> str:
        """Name of the data set on the command line."""
        return "phantom"

    @property
    def organs(self) -> tuple[str, ...]:
        """The paper's seven organs in its order."""
        return tuple(VOLUMES_ML)

    @property
    def attribution(self) -> str:
        """Caption line."""
        return "Digital phantom, not a patient"

    def split(self) -> dict[str, tuple[str, ...]]:
        """Return case names by split, numbered on from train over validation to test."""
        numbers = iter(range(sum(self.num_cases.values())))
        return {s: tuple(f"phantom_{next(numbers):03d}" for _ in range(self.num_cases.get(s, 0))) for s in SPLITS}

    def load(self, case: str) -> Case:
        """Make one case; the same name gives the same case, bit for bit. An unknown name is a ConfigError."""
        names = [name for split in self.split().values() for name in split]
        if case not in names:
            raise unknown("phantom case", case, names)
        image_hu, labels = _render(self.spacing_mm, int(self.seed), names.index(case))
        return Case(case, image_hu, labels, self.spacing_mm, self.organs, frozenset(self.organs))

    def digest(self) -> str:
        """Return the SHA-256 of the parameters and of the version of the anatomy."""
        content = [VERSION, int(self.seed), self.spacing_mm, self.split()]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()
