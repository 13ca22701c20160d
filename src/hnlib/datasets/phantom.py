"""A digital head-and-neck phantom: organs sampled from real statistics inside a drawn head.

Volumes, positions, shapes and pose come from outlines of real patients (`phantom_anatomy`), CT numbers from real
CT; skull, muscles, air ways and skin are drawn (`phantom_atlas`) and move with the organs (`phantom_canvas`); the
scanner adds texture, noise and streaks from metal (`phantom_scan`). No voxel is a patient's.

How a shape becomes voxels: surroundings are blended with the fraction ``clip(1/2 - d / w, 0, 1)`` of the signed
distance d, w the mean voxel edge. An organ is sampled on a finer grid; its surface is the level set that encloses
the volume drawn for the case, and its CT number enters with the fraction of the sub-samples inside. Its label is an
observer's: the fraction is that inside the observer's outline, and the voxels with the largest fractions are taken
until the outline's volume is reached. For a thick organ this is the usual rule "fraction of at least one half"; an
optic nerve thinner than a voxel, which that rule would tear apart, keeps its volume. Where these voxels are not one
component (26 neighbours), those with the next largest fractions join until they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

from hnlib.cases import SPLITS, Case
from hnlib.datasets.phantom_anatomy import (
    ALL_ORGANS,
    Anatomy,
    Float,
    Triple,
    draw_anatomy,
    organ_distance,
    side,
    statistics,
    stem,
    tube_distance,
)
from hnlib.datasets.phantom_atlas import (
    BODY,
    BRAIN,
    FACE,
    NECK,
    ORBIT,
    SHOULDERS,
    SOFT,
    TEETH,
    TISSUES,
    Part,
    both_sides,
)
from hnlib.datasets.phantom_canvas import Canvas, ellipsoid_distance, stream, union
from hnlib.datasets.phantom_scan import add_streaks, add_texture_and_noise
from hnlib.errors import ConfigError, unknown
from hnlib.organs import PAPER_ORGANS

VERSION = 2  # raise it whenever the content of any case changes: it enters the digest
SPACING_RANGE_MM = (0.8, 6.0)
HALF_WIDTH_MM = 102.0
BACK_MM, FRONT_MM = -112.0, 140.0
TOP_MM, BOTTOM_MM = (110.0, 136.0), (-172.0, -140.0)  # of the field of view, drawn for each case
PAINTED = (
    "brainstem",
    "optic_chiasm",
    "optic_nerve_left",
    "optic_nerve_right",
    "mandible",
    "parotid_left",
    "parotid_right",
    "submandibular_left",
    "submandibular_right",
    "spinal_cord",
    "lens_left",
    "lens_right",
)
"""Organs in painting order: an organ never takes voxels of an earlier one."""
NAPE_MM = 36.0  # of soft tissue round the cord
COVER_MM = {"mandible": 8.0, "parotid_left": 5.0, "parotid_right": 5.0}
TISSUE_OF = {"optic_chiasm": "optic", "optic_nerve": "optic", "submandibular": "gland"}


def _curve(y: Float, knots: tuple[tuple[float, ...], tuple[float, ...]]) -> Float:
    return np.asarray(np.interp(y, *knots), np.float32)


def _cranium(points: tuple[Float, Float, Float], wall_mm: float, base_mm: float) -> Float:
    """Return the signed distance to the cranial cavity, widened by a wall: a vault on a stepped base."""
    x, y, z = points
    vault = ellipsoid_distance(points, ((0, -22, 18),), (65, 86, 72))
    middle = _curve(y, ((-46, -30, -22, -14, 4, 16, 60), (-50, -44, -26, -13, -9, 2, 8)))
    lateral = _curve(y, ((-48, -26, 18, 28, 60), (-46, -22, -22, 4, 10)))
    floor = middle + np.clip((np.abs(x) - 14) / 12, 0, 1) * (lateral - middle)
    base = np.float32(0.8) * (floor - z) - np.float32(base_mm)
    return np.asarray(np.maximum(vault - np.float32(wall_mm), base), np.float32)


def _tissue_hu(rng: np.random.Generator) -> dict[str, float]:
    """Draw the CT number of every tissue: measured mean and spread over patients where an organ was measured.

    Brainstem and cord go together (correlation 0.65 in OpenKBP), and so do the two parotids (0.93).
    """
    found = {name: mean + half * rng.uniform(-1, 1) for name, (mean, _, half) in TISSUES.items()}
    # Inside an eroded mask a soft organ shows its own number; the mandible is all rim, its whole mask is taken.
    measured = {
        organ: (facts["mean_hu"][0] if organ == "mandible" else facts["core_mean_hu"], facts["mean_hu"][1])
        for organ, facts in statistics()["ct"]["organs"].items()
    }
    stem_score, own, parotid, jaw = rng.normal(size=4).clip(-2, 2)
    scores = {"brainstem": stem_score, "spinal_cord": 0.65 * stem_score + 0.76 * own, "mandible": jaw}
    for organ, score in scores.items():
        found[organ] = measured[organ][0] + measured[organ][1] * score
    both = [measured[f"parotid_{which}"] for which in ("left", "right")]
    found["parotid"] = float(np.mean([mean + sd * parotid for mean, sd in both]))
    found["optic"] = found["brainstem"]
    return {name: float(value) for name, value in found.items()}


def _skin(canvas: Canvas, anatomy: Anatomy) -> Float:
    """Return the signed distance to the skin: the drawn head, and what covers jaw and glands by a few mm."""

    def distance(part: Part) -> Float:
        return ellipsoid_distance(canvas.atlas, part.points, part.radii)

    nape = tube_distance(canvas.head, anatomy.curves["spinal_cord"][0]) - np.float32(NAPE_MM)
    neck = np.maximum(union([distance(NECK), distance(SHOULDERS), nape], 12), canvas.atlas[2] + 30)
    skin = union([neck, *(distance(part) for part in both_sides(BODY))], 4)
    for organ, cover_mm in COVER_MM.items():
        box = canvas.organ_box(organ, cover_mm + 6)
        near = organ_distance(anatomy, organ, canvas.points(box)) - np.float32(cover_mm)
        skin[box] = union([skin[box], near], 4)
    return skin


def _paint_body(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Paint skin, fat below it and muscle; what follows stays inside."""
    skin = _skin(canvas, anatomy)
    fat = _curve(canvas.atlas[2], ((-100, -45, 25), (9, 6, 3))) * np.float32(rng.uniform(0.5, 1.7))
    for tissue, depth in (("skin", 0), ("fat", 2), ("muscle", 2 + fat)):
        canvas.fill(np.asarray(skin + depth, np.float32), tissue)
    canvas.body = np.asarray(np.clip(np.float32(0.5) - (skin + 2) / canvas.edge_mm, 0, 1), np.float32)


def _paint_spine(canvas: Canvas, anatomy: Anatomy) -> None:
    """Paint cervical vertebrae with discs, arches and processes round the canal of the cord."""
    x, y, z = canvas.head
    tube = anatomy.curves["spinal_cord"][0][::-1].astype(np.float32)
    near = (z < -30) & (np.abs(x - np.interp(z, tube[:, 2], tube[:, 0])) < 40)
    first, second, third = (slice(int(line[0]), int(line[-1]) + 1) for line in map(np.unique, np.nonzero(near)))
    box = first, second, third
    x, y, z = x[box], y[box], z[box]
    x = np.asarray(x - np.interp(z, tube[:, 2], tube[:, 0]), np.float32)
    y = np.asarray(y - np.interp(z, tube[:, 2], tube[:, 1]), np.float32)
    level = (z + 44) % 17 - np.float32(8.5)
    below, zero = z + 40, np.zeros_like(z)
    waist = np.float32(1.2) * np.abs(level) / 8.5
    body = np.maximum(ellipsoid_distance((x, y, zero), ((0, 17.5, 0),), (11.5, 8.5, 9)) - waist, below)
    canvas.fill(body, "cartilage", box)
    canvas.fill(np.maximum(body, np.abs(level) - 6.5), "bone", box)
    canvas.fill(np.maximum(body + 2, np.abs(level) - 5), "marrow", box)
    knots = ((-21, 9, 0), (-14, 0, 0), (-8, -10, -2), (0, -15, -3), (8, -10, -2), (14, 0, 0), (21, 9, 0))
    arch = ellipsoid_distance((x, y, level), knots, (3.6, 3.6, 5.5))
    spine = ellipsoid_distance((x, y, level), ((0, -15, -2), (0, -32, -6)), (2.6, 3, 4))
    mass = ellipsoid_distance((np.abs(x), y, level), ((16, 6, 0),), (6.5, 7, 7.5))
    canvas.fill(np.maximum(np.minimum(np.minimum(arch, spine), mass), below), "bone", box)
    canvas.fill(np.maximum(mass + 2, below), "marrow", box)
    canal = ellipsoid_distance((x, y, zero), ((0, 0, 0),), (10.5, 8, 8))
    canvas.fill(np.maximum(canal, z + 30), "csf", box)


def _paint_surroundings(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Paint everything but the organs and teeth, from the outside in."""
    _paint_body(canvas, anatomy, rng)
    canvas.paint(both_sides(SOFT))
    for tissue, wall, base in (("bone", 6.0, 3.5), ("csf", 0, 0), ("grey matter", -2.0, -1.5)):
        canvas.fill(_cranium(canvas.atlas, wall, base), tissue)
    canvas.paint(both_sides((*BRAIN, *FACE)))
    _paint_spine(canvas, anatomy)
    canvas.paint(both_sides(ORBIT))
    for lens in ("lens_left", "lens_right"):
        globe = anatomy.centre_mm[lens] + [0.5 * side(lens), -8.6, 0]
        canvas.paint_ball("sclera", globe, 12.3)
        canvas.paint_ball("csf", globe, 11.0)


def _paint_organs(canvas: Canvas, key: tuple[int, ...], observer: int) -> None:
    for organ in PAINTED:
        value = ALL_ORGANS.index(organ) + 1
        canvas.paint_organ(organ, TISSUE_OF.get(stem(organ), stem(organ)), value, key, observer)


def _empty(spacing_mm: Triple, key: tuple[int, ...]) -> tuple[Canvas, np.random.Generator]:
    """Return the canvas of a case before anything is painted, and the random stream of its anatomy."""
    rng = stream("anatomy", *key)
    anatomy = draw_anatomy(rng)
    hu = _tissue_hu(rng)
    shift = rng.normal(0, 3, 3).clip(-6, 6)
    low = (-HALF_WIDTH_MM + shift[0], BACK_MM + shift[1], float(rng.uniform(*BOTTOM_MM)))
    high = (HALF_WIDTH_MM + shift[0], FRONT_MM + shift[1], float(rng.uniform(*TOP_MM)))
    return Canvas(anatomy, spacing_mm, low, high, hu), rng


def _render(spacing_mm: Triple, key: tuple[int, ...], observer: int) -> tuple[Float, Canvas]:
    """Return HU and the painted canvas of one case; anatomy, noise and observer have a random stream each."""
    canvas, rng = _empty(spacing_mm, key)
    _paint_surroundings(canvas, canvas.anatomy, rng)
    _paint_organs(canvas, key, observer)
    canvas.paint(TEETH)
    noise_rng = stream("scan", *key)
    image = add_streaks(canvas, add_texture_and_noise(canvas, noise_rng), noise_rng)
    return np.asarray(np.clip(np.round(image), -1024, 3071), np.float32), canvas


@dataclass(frozen=True)
class PhantomDataset:
    """Digital head-and-neck phantoms, made on the spot; the module's text says how.

    The default is the paper's seven organs, which are what the study is about.

    Parameters
    ----------
    num_cases
        Number of cases by split; a split that is not named has none.
    seed
        Seed of the whole data set, 0 or larger. A case depends on seed, spacing and its number only.
    spacing_mm
        Voxel edges along X, Y, Z in mm, each from 0.8 to 6. At another spacing the same case shows
        the same anatomy under other noise.
    organs
        Organs that are labelled, from ``ALL_ORGANS``; the others are in the image all the same.
    observer
        Whose outlines the labels are. Two observers of one case differ as two real ones do.

    Raises
    ------
    ConfigError
        When a split or organ is unknown, a count, seed or observer is not a whole number of 0 or more,
        no case is asked for, or a spacing lies outside its range.

    Examples
    --------
    >>> data = PhantomDataset({"train": 2, "test": 1}, spacing_mm=(6, 6, 6))
    >>> data.split()
    {'train': ('phantom_000', 'phantom_001'), 'validation': (), 'test': ('phantom_002',)}
    >>> case = data.load("phantom_002")
    >>> case.spacing_mm, int(case.labels.max())
    ((6.0, 6.0, 6.0), 7)
    """

    num_cases: Mapping[str, int] = field(default_factory=lambda: {"train": 12, "validation": 4, "test": 6}, hash=False)
    seed: int = 0
    spacing_mm: Triple = (2.0, 2.0, 2.5)
    organs: tuple[str, ...] = PAPER_ORGANS
    observer: int = 0

    def __post_init__(self) -> None:
        """Check and copy the parameters."""
        if not isinstance(self.num_cases, Mapping):
            raise ConfigError(f"phantom: num_cases is {self.num_cases!r}; write a number for each split")
        for split in self.num_cases:
            if split not in SPLITS:
                raise unknown("split", split, SPLITS)
        numbers = [("seed", self.seed), ("observer", self.observer)]
        for what, count in [*numbers, *((f"number of {k} cases", v) for k, v in self.num_cases.items())]:
            if isinstance(count, bool) or not isinstance(count, Integral) or int(count) < 0:
                raise ConfigError(f"phantom: {what} is {count!r}; a whole number of 0 or more is needed")
        if not sum(self.num_cases.values()):
            raise ConfigError("phantom: no case is asked for; give at least one split a number above 0")
        lo, hi = SPACING_RANGE_MM
        edges = tuple(self.spacing_mm) if isinstance(self.spacing_mm, Iterable) else ()
        if len(edges) != 3 or not all(isinstance(s, Real) and lo <= s <= hi for s in edges):
            raise ConfigError(f"phantom: spacing {self.spacing_mm} mm; three numbers from {lo} to {hi} are needed")
        for organ in self.organs:
            if organ not in ALL_ORGANS:
                raise unknown("organ of the phantom", organ, ALL_ORGANS)
        object.__setattr__(self, "organs", tuple(self.organs))
        object.__setattr__(self, "spacing_mm", tuple(float(s) for s in edges))
        object.__setattr__(self, "num_cases", dict(self.num_cases))

    @property
    def name(self) -> str:
        """Name of the data set on the command line."""
        return "phantom"

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
        image_hu, canvas = _render(self.spacing_mm, self._key(case), int(self.observer))
        return Case(case, image_hu, canvas.values(self.organs), self.spacing_mm, self.organs, frozenset(self.organs))

    def load_labels(self, case: str) -> NDArray[np.uint8]:
        """Return the label map of a case alone, in a fraction of the time."""
        canvas, _ = _empty(self.spacing_mm, self._key(case))
        _paint_organs(canvas, self._key(case), int(self.observer))
        return canvas.values(self.organs)

    def _key(self, case: str) -> tuple[int, ...]:
        names = [name for split in self.split().values() for name in split]
        if case not in names:
            raise unknown("phantom case", case, names)
        return VERSION, int(self.seed), names.index(case)

    def digest(self) -> str:
        """Return the SHA-256 of the parameters and of the version of the anatomy."""
        content = [VERSION, int(self.seed), self.spacing_mm, self.split(), self.organs, int(self.observer)]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()
