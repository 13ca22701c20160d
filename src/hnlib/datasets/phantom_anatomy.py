"""The anatomy of one phantom: positions, sizes, shapes and pose drawn from statistics of real outlines.

``data/phantom_anatomy.json`` and ``data/phantom_shapes.npz`` hold means, main modes and spreads over 30 patients
outlined by two observers (Nikolov et al. 2018); `scripts/phantom_statistics.py` derived them. The optic chiasm is
not outlined there: its volume is that of the nerves times the ratio of Tappeiner et al. 2022 (code, whole scans),
its place lies between the hind ends of the nerves. Positions are in the head frame: mm to the right, anterior
and superior of the centroid of the brainstem.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnlib.organs import PAPER_ORGANS

Float = NDArray[np.float32]
Points = tuple[Float, Float, Float]
Triple = tuple[float, float, float]

ALL_ORGANS = (
    *PAPER_ORGANS,
    "submandibular_left",
    "submandibular_right",
    "spinal_cord",
    "lens_left",
    "lens_right",
)
CHIASM_TO_NERVE = 6.34431839e-06 / ((8.39114189e-06 + 7.53879547e-06) / 2)
"""Volume of the chiasm over that of a nerve; with the mandible it gives 1 : 99, the ratio of the paper's code."""
LIMIT = 2.0  # no score lies farther out than so many SD; 1.5 for shapes, whose thin parts would break off
SHAPE_LIMIT = 1.5


@cache
def statistics() -> dict[str, Any]:
    """Return the table of `phantom_anatomy.json`."""
    text = files("hnlib").joinpath("data/phantom_anatomy.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


@cache
def _shapes() -> Mapping[str, Float]:
    with files("hnlib").joinpath("data/phantom_shapes.npz").open("rb") as handle, np.load(handle) as found:
        return {name: found[name].astype(np.float32) / 10 for name in found.files}


def stem(organ: str) -> str:
    """Return the name of an organ without its side.

    Examples
    --------
    >>> stem("parotid_left"), stem("brainstem")
    ('parotid', 'brainstem')
    """
    return organ.removesuffix("_left").removesuffix("_right")


def side(organ: str) -> int:
    """Return -1 for an organ of the left side, else +1."""
    return -1 if organ.endswith("_left") else 1


@dataclass(frozen=True)
class Anatomy:
    """What one case is made of, in the head frame.

    Attributes
    ----------
    pose
        Rotation matrix from scanner to head frame.
    centre_mm
        Centroid of every organ; of the cord, its centre at the second height of the table.
    marks_mm, mean_marks_mm
        Centroids of the outlined organs, points of the cord and the chin, of the case and of the mean head, which
        the drawn surroundings fit; shape (marks, 3).
    volume_mm3
        Volume of every organ but the cord, which the field of view cuts.
    fields
        Signed distance of mean size on the organ's grid, by organ.
    curves
        Tubes of nerves, chiasm and cord: rows x, y, z, radius.
    lens_radii_mm
        Half axes of the lenses.
    """

    pose: NDArray[np.float64]
    centre_mm: Mapping[str, NDArray[np.float64]]
    marks_mm: NDArray[np.float64]
    mean_marks_mm: NDArray[np.float64]
    volume_mm3: Mapping[str, float]
    fields: Mapping[str, Float]
    curves: Mapping[str, tuple[NDArray[np.float64], ...]]
    lens_radii_mm: NDArray[np.float64]


def _scores(rng: np.random.Generator, count: int, limit: float = LIMIT) -> NDArray[np.float64]:
    return np.asarray(rng.normal(size=count).clip(-limit, limit))


def _unpack(values: NDArray[np.float64]) -> tuple[dict[str, NDArray[np.float64]], dict[str, float]]:
    """Return centres and volumes from a vector in the order of the table's variables."""
    named = dict(zip(statistics()["variables"], values, strict=True))
    organs = [name.removesuffix(".log_ml") for name in named if name.endswith(".log_ml")]
    centres = {organ: np.array([named[f"{organ}.{axis}"] for axis in "xyz"]) for organ in organs}
    centres["brainstem"] = np.zeros(3)
    return centres, {organ: 1000 * float(np.exp(named[f"{organ}.log_ml"])) for organ in organs}


def _cord(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the tube of the cord from its top down, led on below the lowest height that was measured."""
    table = statistics()
    named = dict(zip(table["variables"], values, strict=True))
    at = [[named[f"spinal_cord.{a}{z:g}"] for a in "xy"] + [z] for z in table["cord_z_mm"]]
    first, last, before = np.array(at[0]), np.array(at[-1]), np.array(at[-2])
    top = first + (named["spinal_cord.top"] - first[2]) * np.array([0, -0.06, 1])
    knots = [top, *np.array(at), last + 3 * (last - before)]
    return np.asarray(np.c_[np.array(knots), np.full(len(knots), np.exp(named["spinal_cord.log_mm"]))])


def _nerve(rng: np.random.Generator, centre: NDArray[np.float64], sign: int) -> NDArray[np.float64]:
    table = statistics()["nerve"]
    rows = np.asarray(table["mean"]) + _scores(rng, len(table["modes"]), SHAPE_LIMIT) @ np.asarray(table["modes"])
    rows = rows.reshape(-1, 4)
    rows[:, 3] = rows[:, 3].clip(1.2, 4)
    rows[:, 0] *= sign
    rows[:, :3] += centre
    return np.asarray(rows)


def _chiasm(left: NDArray[np.float64], right: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return two crossing tubes: from the hind end of each nerve over the midline into the tract of the other side."""
    ends = left[0, :3], right[0, :3]
    middle = (ends[0] + ends[1]) / 2 + [0, -5, 0.5]
    crossed = []
    for end, across in zip(ends, (1, -1), strict=True):
        tract = middle + np.array([across * 6, -5, 1.0])
        crossed.append(np.c_[np.array([end, middle, tract]), [2.0, 2.0, 1.8]])
    return tuple(crossed)


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw one head: joint modes of positions and sizes, modes of each shape, pose.

    Parameters
    ----------
    rng
        Source of all numbers.

    Returns
    -------
    Anatomy
        Every score is standard normal, cut at two SD (shapes: at one and a half).
    """
    table = statistics()
    mean, modes = np.asarray(table["mean"]), np.asarray(table["modes"])
    values = mean + _scores(rng, len(modes)) @ modes + _scores(rng, len(mean)) * np.asarray(table["left"])
    centres, volumes = _unpack(values)
    marks, mean_marks = (np.r_[list(_unpack(v)[0].values()), _cord(v)[1:-1, :3]] for v in (values, mean))
    angles = np.radians(_scores(rng, 3) * table["pose_sd_degrees"])
    pose = np.eye(3)
    for (i, j), angle in zip(((1, 2), (0, 2), (0, 1)), angles, strict=True):
        turn = np.eye(3)
        turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        pose = pose @ turn
    fields: dict[str, Float] = {}
    curves: dict[str, tuple[NDArray[np.float64], ...]] = {}
    for organ in ALL_ORGANS:
        if stem(organ) in _shapes():
            shape = _shapes()[stem(organ)]
            scores = _scores(rng, len(shape) - 1, SHAPE_LIMIT).astype(np.float32)
            fields[organ] = shape[0] + np.tensordot(scores, shape[1:], 1)
        elif stem(organ) == "optic_nerve":
            curves[organ] = (_nerve(rng, centres[organ], side(organ)),)
    curves["spinal_cord"] = (_cord(values),)
    left, right = curves["optic_nerve_left"][0], curves["optic_nerve_right"][0]
    curves["optic_chiasm"] = _chiasm(left, right)
    centres["optic_chiasm"] = np.mean([tube[1, :3] for tube in curves["optic_chiasm"]], axis=0)
    volumes["optic_chiasm"] = CHIASM_TO_NERVE * (volumes["optic_nerve_left"] + volumes["optic_nerve_right"]) / 2
    centres["spinal_cord"] = _cord(values)[2, :3]
    log_mean, log_sd = table["lens_log_radii_mm"]
    lens = np.exp(np.asarray(log_mean) + _scores(rng, 3) * log_sd)
    jaws = (centres, volumes, fields["mandible"]), (*_unpack(mean), _shapes()["mandible"][0])
    marks, mean_marks = (np.r_[m, [_chin(*jaw)]] for m, jaw in zip((marks, mean_marks), jaws, strict=True))
    return Anatomy(pose, centres, marks, mean_marks, volumes, fields, curves, lens)


def tube_distance(points: Points, tube: NDArray[np.float64]) -> Float:
    """Return the signed distance in mm to a polyline with a radius at each knot, linear between knots."""
    x, y, z = points
    best = np.full(1, np.inf, np.float32)
    for start, end in pairwise(tube.astype(np.float32)):
        axis = end[:3] - start[:3]
        u = x - start[0], y - start[1], z - start[2]
        along = np.clip((u[0] * axis[0] + u[1] * axis[1] + u[2] * axis[2]) / (axis @ axis), 0, 1)
        square = sum((c - along * a) ** 2 for c, a in zip(u, axis, strict=True))
        best = np.minimum(best, np.sqrt(square) - (start[3] + along * (end[3] - start[3])))
    return np.asarray(best, np.float32)


def organ_distance(anatomy: Anatomy, organ: str, points: Points) -> Float:
    """Return the signed distance in mm to an organ, negative inside, before its volume is set.

    Parameters
    ----------
    anatomy
        The case.
    organ
        One of ``ALL_ORGANS``.
    points
        Coordinates in the head frame, arrays that broadcast.

    Returns
    -------
    ndarray
        First-order near the surface; beyond the grid of a field at least the value at its border.
    """
    if organ in anatomy.curves:
        return np.asarray(np.min([tube_distance(points, tube) for tube in anatomy.curves[organ]], axis=0), np.float32)
    centre, sign = anatomy.centre_mm[organ].astype(np.float32), side(organ)
    local = [(p - c) * np.float32(sign if k == 0 else 1) for k, (p, c) in enumerate(zip(points, centre, strict=True))]
    if stem(organ) == "lens":
        radii = anatomy.lens_radii_mm.astype(np.float32)
        norm = np.sqrt(sum((c / r) ** 2 for c, r in zip(local, radii, strict=True)))
        return np.asarray((norm - 1) * radii.min(), np.float32)
    scale = _scale(organ, anatomy.volume_mm3[organ])
    field, edge = anatomy.fields[organ], statistics()["shape_edge_mm"][stem(organ)] * scale
    # The modes of a shape may move its centroid; what was drawn for the case is where the centroid lies.
    places = [c / np.float32(edge) + m for c, m in zip(local, _centroid(field), strict=True)]
    smooth = ndimage.map_coordinates(field, np.broadcast_arrays(*places), order=3, mode="nearest", prefilter=True)
    return np.asarray(smooth * scale, np.float32)


def _scale(organ: str, volume_mm3: float) -> float:
    """Return how much larger than in the mean head an organ is, along each axis."""
    typical = dict(zip(statistics()["variables"], statistics()["mean"], strict=True))[f"{organ}.log_ml"]
    return float((volume_mm3 / 1000 / np.exp(typical)) ** (1 / 3))


def _chin(
    centres: Mapping[str, NDArray[np.float64]], volumes: Mapping[str, float], field: Float
) -> NDArray[np.float64]:
    """Return the point of the midline that lies deepest in the mandible."""
    middle = field.shape[0] // 2
    deepest = np.unravel_index(int(field[middle].argmin()), field.shape[1:])
    front = np.array([middle, *deepest]) - _centroid(field)
    edge = statistics()["shape_edge_mm"]["mandible"] * _scale("mandible", volumes["mandible"])
    return np.asarray(centres["mandible"] + front * edge)


def _centroid(field: Float) -> NDArray[np.float32]:
    """Return the centroid of what a field encloses, in its own indices."""
    inside = np.clip(np.float32(0.5) - field / 4, 0, 1)
    total = inside.sum()
    lines = [inside.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    return np.array([np.arange(len(line)) @ line / total for line in lines], np.float32)


def organ_corners(anatomy: Anatomy, organ: str) -> NDArray[np.float64]:
    """Return points in the head frame whose box holds an organ, shape (points, 3)."""
    if organ in anatomy.curves:
        rows = np.concatenate(anatomy.curves[organ])
        knots, reach = rows[:, :3], rows[:, 3:]
        return np.concatenate([knots + reach * step for step in _corners(1.0)])
    if stem(organ) == "lens":
        return np.asarray(anatomy.centre_mm[organ] + _corners(1.0) * anatomy.lens_radii_mm)
    field = anatomy.fields[organ]
    inside = np.argwhere(field < 4) - _centroid(field)
    edge = statistics()["shape_edge_mm"][stem(organ)] * 1.1
    low, high = inside.min(axis=0) * edge, inside.max(axis=0) * edge
    if side(organ) < 0:
        low[0], high[0] = -high[0], -low[0]
    return np.asarray(anatomy.centre_mm[organ] + (low + high) / 2 + _corners(1.0) * (high - low) / 2)


def _corners(reach: float) -> NDArray[np.float64]:
    return np.array([[a, b, c] for a in (-reach, reach) for b in (-reach, reach) for c in (-reach, reach)])


def observer_field(rng: np.random.Generator, points: Sequence[Float], corners: NDArray[np.float64]) -> Float:
    """Return a smooth random field of SD 1: where an observer's outline lies off, in its own units.

    White noise on a lattice of 5 mm in the head frame, smoothed by a Gaussian of 6 mm.
    """
    low = corners.min(axis=0) - 20
    shape = np.ceil((corners.max(axis=0) + 20 - low) / 5).astype(int) + 1
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), 1.2, mode="wrap")
    noise = (noise * (2 * np.sqrt(np.pi) * 1.2) ** 1.5).astype(np.float32)
    places = [(p - np.float32(a)) / np.float32(5) for p, a in zip(points, low, strict=True)]
    found = ndimage.map_coordinates(noise, np.broadcast_arrays(*places), order=1, mode="nearest")
    return np.asarray(found, np.float32)
