"""Derive the phantom's statistics from real outlines and real CT; writes two small files into src/hnlib/data.

    python scripts/phantom_statistics.py OUTLINES OPENKBP [--cache FILE]
    python scripts/phantom_statistics.py --observers

OUTLINES is the folder ``tcia-ct-scan-dataset`` (organ masks by two observers, Nikolov et al. 2018, CC BY 4.0);
OPENKBP the folder ``provided-data`` of OpenKBP (Babier et al. 2021). ``phantom_anatomy.json`` receives means,
spreads and correlations of positions and sizes, the pose of heads, the agreement of the two observers and CT
numbers; ``phantom_shapes.npz`` the mean signed distance and its main modes for organs that are neither tube nor
ellipsoid. The second call then finds how strong the observers' noise of the phantom has to be. Both files hold
statistics over patients, never one patient's mask.

Head frame: origin at the centroid of the brainstem; axes from the rigid fit of the centroids of brainstem,
parotids, optic nerves and lenses to their mean over patients, made symmetric. Each patient enters twice, as is and
mirrored, so that the statistics favour no side.
"""

from __future__ import annotations

import argparse
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hnlib.datasets import TCIA, OpenKBP
from hnlib.datasets.case_files import CaseFiles
from hnlib.datasets.phantom_anatomy import draw_anatomy, stem
from hnlib.datasets.phantom_canvas import Canvas, stream, unbiased
from hnlib.datasets.tcia import OBSERVERS
from hnlib.volumes import read_volume

DATA = Path(__file__).resolve().parents[1] / "src" / "hnlib" / "data"
PAIRS = ("parotid", "optic_nerve", "submandibular", "lens")
NAMES = ("brainstem", "mandible", "spinal_cord", *(f"{p}_{side}" for p in PAIRS for side in ("left", "right")))
MIRROR = {n: n.replace("left", "#").replace("right", "left").replace("#", "right") for n in NAMES}
FIXED = ("brainstem", *(f"{p}_{s}" for p in ("parotid", "optic_nerve", "lens") for s in ("left", "right")))
CORD_Z_MM = (-45.0, -70.0, -95.0, -120.0, -145.0)  # where the cord's centre is read, in the head frame
NERVE_KNOTS = 7
SHAPES = {  # organ: grid edge in mm, half widths of the grid in mm, modes kept
    "brainstem": (4.0, (28, 28, 40), 4),
    "mandible": (4.0, (72, 64, 60), 6),
    "parotid": (4.0, (32, 40, 40), 4),
    "submandibular": (4.0, (20, 24, 28), 4),
}
POSITION_MODES = 10
CT_GRID_MM = (3.906, 3.906, 2.5)  # the commonest of OpenKBP
REPEATED = ("0522c0727b",)  # a second scan of a patient who is in already
PARTIAL_ML = {"subm": 1.0}  # less is an outline that was begun, or a gland that surgery took: unknown
Mask = tuple[np.ndarray, np.ndarray, np.ndarray]  # voxels (RAS+), centre of the first voxel in mm, spacing in mm


def read_scan(files: CaseFiles) -> dict[str, Mask]:
    """Read the masks of one observer and scan, each cropped to its box."""
    found: dict[str, Mask] = {}
    for file in files.masks:
        if file.organs in NAMES:
            volume = read_volume(file.path, labels=True, case=files.name)
            if volume.array.any():
                found[str(file.organs)] = crop(volume.array > 0, volume.affine[:3, 3], np.array(volume.spacing_mm))
    return found


def crop(inside: np.ndarray, first_mm: np.ndarray, spacing_mm: np.ndarray) -> Mask:
    """Cut a mask to its box; ``first_mm`` is the centre of the first voxel."""
    box = []
    for axis in range(3):
        line = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        box.append(slice(int(line[0]), int(line[-1]) + 1))
    return inside[tuple(box)].copy(), first_mm + spacing_mm * [part.start for part in box], spacing_mm


def read_all(root: Path, cache: Path | None) -> dict[tuple[str, str], dict[str, Mask]]:
    """Return masks by (case, observer)."""
    if cache and cache.exists():
        return pickle.loads(cache.read_bytes())
    data = TCIA(root)
    keys = [(case, observer) for names in data.split().values() for case in names for observer in OBSERVERS]
    with ThreadPoolExecutor(2) as pool:
        scans = list(pool.map(lambda key: read_scan(data.files(*key)), keys))
    found = dict(zip(keys, scans, strict=True))
    if cache:
        cache.write_bytes(pickle.dumps(found))
    return found


def points(mask: Mask) -> np.ndarray:
    """Return the voxel centres of a mask in mm."""
    return np.argwhere(mask[0]) * mask[2] + mask[1]


def volume_ml(mask: Mask) -> float:
    """Return the volume of a mask."""
    return float(mask[0].sum() * np.prod(mask[2]) / 1000)


def dsc(a: Mask, b: Mask) -> float:
    """Return the Dice coefficient of two crops of one grid."""
    low = np.minimum(a[1], b[1])
    offset = [np.round((m[1] - low) / m[2]).astype(int) for m in (a, b)]
    shape = np.max([o + m[0].shape for o, m in zip(offset, (a, b), strict=True)], axis=0)
    both = np.zeros((2, *shape), bool)
    for k, (o, m) in enumerate(zip(offset, (a, b), strict=True)):
        both[(k, *(slice(s, s + n) for s, n in zip(o, m[0].shape, strict=True)))] = m[0]
    return float(2 * both.all(0).sum() / both.sum())


def head_frames(scans: dict[str, dict[str, np.ndarray]]) -> dict[str, Rotation]:
    """Return for each case the rotation from scanner to head frame, by a generalised rigid fit of centroids."""
    flip = np.array([-1, 1, 1])
    held = {c: np.array([m[n] - m["brainstem"] for n in FIXED]) for c, m in scans.items()}
    swap = [FIXED.index(MIRROR[n]) for n in FIXED]
    mean = np.mean(list(held.values()), axis=0)
    for _ in range(5):
        mean = (mean + mean[swap] * flip) / 2
        fits = {c: Rotation.align_vectors(mean - mean.mean(0), marks - marks.mean(0))[0] for c, marks in held.items()}
        mean = np.mean([fits[c].apply(held[c]) for c in held], axis=0)
    return fits


def signed_distance(mask: Mask, pad_mm: float = 14.0) -> tuple[np.ndarray, np.ndarray]:
    """Return the signed distance of a mask in mm, negative inside, and the centre of its first voxel."""
    pad = np.ceil(pad_mm / mask[2]).astype(int)
    inside = np.pad(mask[0], [(p, p) for p in pad])
    distance = ndimage.distance_transform_edt(~inside, sampling=mask[2])
    distance -= ndimage.distance_transform_edt(inside, sampling=mask[2])
    return distance - np.sign(distance) * mask[2].min() / 2, mask[1] - pad * mask[2]


def field(mask: Mask, frame: Rotation, centre: np.ndarray, scale: float, organ: str, sign: int) -> np.ndarray:
    """Sample the signed distance of a mask on the organ's grid: head axes, its centroid, mean size; right side."""
    edge, half, _ = SHAPES[organ]
    axes = [np.arange(-h, h + edge / 2, edge) for h in half]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1) * np.array([sign, 1, 1])
    distance, first = signed_distance(mask)
    places = (frame.inv().apply(grid.reshape(-1, 3) * scale) + centre - first) / mask[2]
    found = ndimage.map_coordinates(distance, places.T, order=1, mode="nearest").reshape(grid.shape[:3])
    return np.asarray(np.clip(found / scale, -12, 12))


def modes(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean, main modes (scaled by their SD) and what SD is left in each variable."""
    mean = rows.mean(axis=0)
    _, size, axes = np.linalg.svd(rows - mean, full_matrices=False)
    # Every patient is in twice, mirrored or by both sides: n patients give 2 n rows and 2 (n - 1) degrees of freedom.
    scaled = axes[:count] * size[:count, None] / np.sqrt(len(rows) - 2)
    left = np.sqrt(np.maximum((rows - mean).var(axis=0) * len(rows) / (len(rows) - 2) - (scaled**2).sum(axis=0), 0))
    return mean, scaled, left


def nerve(cloud: np.ndarray, ml: float) -> np.ndarray:
    """Return knots along an optic nerve: offset from its centroid (x, y, z) and radius, from behind to the eye."""
    cloud = cloud - cloud.mean(0)
    edges = np.quantile(cloud[:, 1], np.linspace(0, 1, NERVE_KNOTS + 1))
    parts = np.clip(np.searchsorted(edges, cloud[:, 1], side="right") - 1, 0, NERVE_KNOTS - 1)
    knots = np.array([cloud[parts == k].mean(0) for k in range(NERVE_KNOTS)])
    knots[0, 1], knots[-1, 1] = np.quantile(cloud[:, 1], [0.01, 0.99])
    length = np.linalg.norm(np.diff(knots, axis=0), axis=1)
    width = np.diff(edges) * length.sum() / np.ptp(edges)
    share = np.bincount(parts, minlength=NERVE_KNOTS) / len(cloud)
    return np.c_[knots, np.sqrt(1000 * ml * share / width / np.pi)]


def cord(cloud: np.ndarray, per_slice_mm2: float) -> np.ndarray:
    """Return centre of the cord at the stated heights, its top and its log radius."""
    rows = []
    for z in CORD_Z_MM:
        near = cloud[np.abs(cloud[:, 2] - z) < 6]
        rows.extend(near[:, :2].mean(0) if len(near) else (np.nan, np.nan))
    return np.array([*rows, np.quantile(cloud[:, 2], 0.995), 0.5 * np.log(per_slice_mm2 / np.pi)])


def describe(observers: list[dict[str, Mask]], frame: Rotation, sign: int) -> dict[str, np.ndarray]:
    """Return position and log volume of every organ of one patient in the head frame, observers averaged."""
    row: dict[str, Any] = {}
    origin = np.mean([points(o["brainstem"]).mean(0) for o in observers], axis=0)
    flip = np.array([sign, 1, 1])
    for name in NAMES:
        source = name if sign > 0 else MIRROR[name]
        held = [o[source] for o in observers if source in o and volume_ml(o[source]) > PARTIAL_ML.get(source[:4], 0)]
        clouds = [frame.apply(points(m) - origin) * flip for m in held]
        if name == "spinal_cord":
            areas = [c.sum() * np.prod(s[:2]) / c.any((0, 1)).sum() for c, _, s in held]
            row[name] = np.nanmean([cord(c, a) for c, a in zip(clouds, areas, strict=True)], axis=0)
        elif len(held) == len(observers):
            log_ml = float(np.mean([np.log(volume_ml(m)) for m in held]))
            row[name] = np.append(np.mean([c.mean(0) for c in clouds], axis=0), log_ml)
        else:
            row[name] = np.full(4, np.nan)
    return row


def anatomy(scans: dict[tuple[str, str], dict[str, Mask]]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the table of positions and sizes, and the arrays of shapes."""
    cases = sorted({case for case, _ in scans} - set(REPEATED))
    observers = {c: [scans[c, o] for o in ("oncologist", "radiographer")] for c in cases}
    marks = {c: {n: np.mean([points(o[n]).mean(0) for o in observers[c]], axis=0) for n in FIXED} for c in cases}
    frames = head_frames(marks)
    rows = {s: [describe(observers[c], frames[c], s) for c in cases] for s in (1, -1)}
    columns = [f"{n}.{v}" for n in NAMES if n != "spinal_cord" for v in ("x", "y", "z", "log_ml")]
    columns += [f"spinal_cord.{a}{z:g}" for z in CORD_Z_MM for a in "xy"] + ["spinal_cord.top", "spinal_cord.log_mm"]
    order = [n for n in NAMES if n != "spinal_cord"] + ["spinal_cord"]
    table = np.array([np.concatenate([row[n] for n in order]) for s in (1, -1) for row in rows[s]])
    known = ~np.isnan(table)
    filled = np.where(known, table, np.nanmean(table, axis=0))
    mean, scaled, left = modes(filled, POSITION_MODES)
    angles = np.array([frames[c].inv().as_euler("xyz", degrees=True) for c in cases])
    content = {
        "cases": len(cases),
        "variables": columns,
        "known": known[: len(cases)].sum(axis=0).tolist(),
        "mean": np.round(mean, 3).tolist(),
        "modes": np.round(scaled, 3).tolist(),
        "left": np.round(left, 3).tolist(),
        "pose_sd_degrees": np.round(angles.std(axis=0, ddof=1), 2).tolist(),
        "real": real_rows(filled[: len(cases)], known[: len(cases)], columns),
        "observer_dsc": agreement(scans, cases),
        "cord_z_mm": CORD_Z_MM,
    }
    shapes = {}
    for organ, (_, _, count) in SHAPES.items():
        print("shape of", organ, flush=True)
        shapes[organ] = shape_modes(organ, count, cases, observers, frames)
    curves, lenses = [], []
    for case in cases:
        for name in ("optic_nerve_left", "optic_nerve_right", "lens_left", "lens_right"):
            flip = np.array([-1 if name.endswith("left") else 1, 1, 1])
            for masks in observers[case]:
                cloud = frames[case].apply(points(masks[name])) * flip
                if name.startswith("optic"):
                    curves.append(nerve(cloud, volume_ml(masks[name])).ravel())
                else:
                    extent = np.maximum(cloud.var(axis=0) - masks[name][2] ** 2 / 24, 0.5)
                    lenses.append(0.5 * np.log(5 * extent))
    curve_mean, curve_modes, _ = modes(np.array(curves), 4)
    content["nerve"] = {"mean": np.round(curve_mean, 2).tolist(), "modes": np.round(curve_modes, 2).tolist()}
    content["lens_log_radii_mm"] = np.round([np.mean(lenses, axis=0), np.std(lenses, axis=0)], 3).tolist()
    content["shape_edge_mm"] = {organ: edge for organ, (edge, _, _) in SHAPES.items()}
    return content, shapes


def real_rows(table: np.ndarray, known: np.ndarray, columns: list[str]) -> dict[str, dict[str, Any]]:
    """Return by organ number, mean and SD of log volume, of the distance from the brainstem and of the position."""
    found: dict[str, dict[str, Any]] = {}
    for name in (n for n in NAMES if n != "spinal_cord"):
        at = [columns.index(f"{name}.{v}") for v in ("x", "y", "z", "log_ml")]
        rows = table[known[:, at[3]]][:, at]
        distance = np.linalg.norm(rows[:, :3], axis=1)
        found[name] = {
            "cases": len(rows),
            "log_ml": [float(rows[:, 3].mean()), float(rows[:, 3].std(ddof=1))],
            "distance_mm": [float(distance.mean()), float(distance.std(ddof=1))],
            "position_mm": [
                rows[:, :3].mean(axis=0).round(2).tolist(),
                rows[:, :3].std(axis=0, ddof=1).round(2).tolist(),
            ],
        }
    areas = table[:, columns.index("spinal_cord.log_mm")] * 2 + np.log(np.pi)
    level = table[:, [columns.index(f"spinal_cord.{a}{CORD_Z_MM[1]:g}") for a in "xy"]]
    place = np.c_[level, np.full(len(level), CORD_Z_MM[1])]
    distance = np.linalg.norm(place, axis=1)
    found["spinal_cord"] = {
        "cases": len(table),
        "log_mm2": [float(areas.mean()), float(areas.std(ddof=1))],
        "distance_mm": [float(distance.mean()), float(distance.std(ddof=1))],
        "position_mm": [place.mean(axis=0).round(2).tolist(), place.std(axis=0, ddof=1).round(2).tolist()],
    }
    return found


def shape_modes(organ: str, count: int, cases: list[str], observers: Any, frames: Any) -> np.ndarray:
    """Return mean and modes of an organ's signed distance in steps of 0.1 mm, shape (1 + modes, x, y, z)."""
    paired = organ in PAIRS
    names = [f"{organ}_left", f"{organ}_right"] if paired else [organ, organ]
    typical = np.mean([np.log(volume_ml(o[n])) for c in cases for o in observers[c] for n in names if n in o])
    rows = []
    for case in cases:
        for name, sign in zip(names, (-1, 1), strict=True):
            held = [o[name] for o in observers[case] if name in o]
            if not held:
                continue
            scale = float(np.exp((np.mean([np.log(volume_ml(m)) for m in held]) - typical) / 3))
            centre = np.mean([points(m).mean(0) for m in held], axis=0)
            rows.append(np.mean([field(m, frames[case], centre, scale, organ, sign) for m in held], axis=0))
    mean, scaled, _ = modes(np.array([r.ravel() for r in rows]), count)
    shape = (1 + count, *rows[0].shape)
    return np.clip(np.round(10 * np.concatenate([mean[None], scaled])), -127, 127).astype(np.int8).reshape(shape)


def agreement(scans: dict[tuple[str, str], dict[str, Mask]], cases: list[str]) -> dict[str, list[float]]:
    """Return by organ mean and SD over scans of the DSC between the two observers, and their number."""
    found: dict[str, list[float]] = {}
    for name in NAMES:
        pairs = [(scans[c, "oncologist"], scans[c, "radiographer"]) for c in cases]
        values = [dsc(a[name], b[name]) for a, b in pairs if name in a and name in b]
        found[name] = values
    return {n: [round(float(np.mean(v)), 4), round(float(np.std(v, ddof=1)), 4), len(v)] for n, v in found.items()}


def ct_numbers(root: Path) -> dict[str, Any]:
    """Return HU by organ: mean and SD over patients; texture and noise inside eroded organs on the commonest grid."""
    data = OpenKBP(root)
    rows, fine = [], []
    soft = np.zeros(400)
    for case in (data.load(name) for names in data.split().values() for name in names):
        body = case.image_hu[case.image_hu > -900]
        soft += np.histogram(body, 400, (-200, 200))[0]
        for organ in case.organs:
            inside = case.mask(organ)
            rows.append((organ, case.image_hu[inside].mean(), case.image_hu[inside].std()))
            core = ndimage.binary_erosion(inside, np.ones((3, 3, 1)))
            pair = core & np.roll(core, 1, 0)
            if np.allclose(case.spacing_mm, CT_GRID_MM, atol=0.01) and pair.sum() > 10:
                step = (case.image_hu - np.roll(case.image_hu, 1, 0))[pair]
                fine.append((organ, case.image_hu[core].mean(), case.image_hu[core].std(), step.std() / np.sqrt(2)))
    table = pd.DataFrame(rows, columns=["organ", "mean", "sd"]).groupby("organ")
    core = pd.DataFrame(fine, columns=["organ", "mean", "sd", "step"]).groupby("organ").agg(["median", "count"])
    smooth = ndimage.gaussian_filter1d(soft, 4)
    return {
        "organs": {
            organ: {
                "cases": len(part),
                "mean_hu": [round(float(part["mean"].mean()), 2), round(float(part["mean"].std()), 2)],
                "within_sd_hu": round(float(part["sd"].median()), 2),
                **(
                    {f"core_{k}_hu": round(float(core.loc[organ, (k, "median")]), 2) for k in ("mean", "sd", "step")}
                    if organ in core.index
                    else {}
                ),
            }
            for organ, part in table
        },
        "fat_peak_hu": float(np.argmax(smooth[:180]) - 199.5),
        "soft_tissue_peak_hu": float(np.argmax(smooth[200:]) + 0.5),
    }


def calibrate_observers(content: dict[str, Any], num_cases: int = 8) -> dict[str, float]:
    """Return the SD in mm of an observer's outline at which two observers agree as the real two do, by organ.

    Both draw the same phantom; their DSC is taken on samples of 1 to 2 mm and interpolated between trial values.
    The chiasm, which no real observer drew twice here, takes the nerves' value.
    """
    trials = np.array([0.2, 0.5, 0.9, 1.4, 2.0, 3.0])
    found: dict[str, list[np.ndarray]] = {}
    for number in range(num_cases):
        drawn = draw_anatomy(stream("anatomy", 0, 0, number))
        canvas = Canvas(drawn, (2.0, 2.0, 2.5), (-102, -112, -156), (102, 140, 120), {})
        for organ in NAMES:
            factor = canvas.factor(organ)
            points_mm = canvas.points(canvas.organ_box(organ, 8.0), factor)
            distance = canvas.surface(organ, points_mm, 10 / np.prod(factor))
            a, b = (canvas.observer(organ, points_mm, ("calibration", number), k) for k in (0, 1))
            row = []
            for strength in trials:
                one, two = (unbiased(distance, strength * wander) < 0 for wander in (a, b))
                row.append(2 * (one & two).sum() / max(one.sum() + two.sum(), 1))
            found.setdefault(stem(organ), []).append(np.array(row))
    means = {organ: np.mean(rows, axis=0) for organ, rows in found.items()}
    agreed = content["observer_dsc"]
    real = {organ: np.mean([agreed[name][0] for name in agreed if stem(name) == organ]) for organ in means}
    chosen = {organ: round(float(np.interp(-real[organ], -line, trials)), 3) for organ, line in means.items()}
    return chosen | {"optic_chiasm": chosen["optic_nerve"]}


def main() -> None:
    """Read, derive, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("outlines", type=Path, nargs="?")
    parser.add_argument("openkbp", type=Path, nargs="?")
    parser.add_argument("--observers", action="store_true", help="find the strength of the observers' noise")
    parser.add_argument("--cache", type=Path, help="file that keeps the cropped masks between calls")
    given = parser.parse_args()
    path = DATA / "phantom_anatomy.json"
    if given.observers:
        content = json.loads(path.read_text())
        content["observer_mm"] = calibrate_observers(content)
        path.write_text(json.dumps(content, indent=1) + "\n")
        return
    content, shapes = anatomy(read_all(given.outlines, given.cache))
    kept = json.loads(path.read_text()) if path.exists() else {}
    content["observer_mm"] = kept.get("observer_mm", {})  # found afterwards
    content["ct"] = ct_numbers(given.openkbp)
    path.write_text(json.dumps(content, indent=1) + "\n")
    np.savez_compressed(DATA / "phantom_shapes.npz", **shapes)


if __name__ == "__main__":
    main()
