"""Compare the phantom with real heads, organ by organ; writes a table and a picture into results/published/phantom.

    python scripts/phantom_equivalence.py
    python scripts/phantom_equivalence.py --picture OPENKBP

The first call needs no patient: it draws phantoms, measures their label maps as `phantom_statistics.py` measured those
of patients and their CT numbers as the published table of OpenKBP holds them, and sets both side by side. The second
draws slices of one scan of OPENKBP, the folder ``provided-data``, beside the phantom.

The margins below were fixed before the first comparison was run. A row is equivalent where its whole 90 % interval
lies within the margin, different where all of it lies outside, undecided otherwise.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from phantom_statistics import CT_GRID_MM, FIXED, NAMES, Mask, crop, describe, dsc, points
from scipy.spatial.transform import Rotation

from hnlib.cases import Case
from hnlib.datasets import OpenKBP, PhantomDataset
from hnlib.datasets.phantom_anatomy import ALL_ORGANS, CHIASM_TO_NERVE, statistics
from hnlib.files import write_json, write_table
from hnlib.processes import process_pool
from hnlib.stats import Group, Interval, mean_difference, mean_ratio, spread_ratio, verdict

OUT = Path(__file__).resolve().parents[1] / "results" / "published" / "phantom"
SEED = 1  # not the seed of the study
VOLUME_RATIO = 0.80, 1.25  # the margin of bioequivalence, and less than two observers differ on a small organ
SPREAD_RATIO = 2 / 3, 3 / 2  # an SD over 30 patients is itself known to about a quarter
POSITION_MM = 4.0  # two voxels of the default grid, one of OpenKBP's
SOFT_HU = 10.0  # the noise of one voxel inside a real brainstem
BONE_HU = 70.0  # a tenth of the mandible's mean
TEXTURE_RATIO = 0.80, 1.25
OBSERVER_DSC = 0.03  # the SD over scans of the best reproduced soft organ
AXES = ("x", "y", "z")
KBP_ORGANS = ("brainstem", "spinal_cord", "parotid_left", "parotid_right", "mandible")
NIKOLOV = "outlines of Nikolov et al. 2018, two observers averaged"
OPENKBP = "OpenKBP (Babier et al. 2021), commonest grid"
TAPPEINER = "class shares in the code of Tappeiner et al. 2022; no interval on this side"


class Row(NamedTuple):
    """One comparison."""

    organ: str
    quantity: str
    unit: str
    comparison: str
    real: float
    phantom: float
    value: float
    low: float
    high: float
    margin_low: float
    margin_high: float
    verdict: str
    real_cases: int
    phantom_cases: int
    source: str


def outlines(number: int, observer: int) -> dict[str, Mask]:
    """Return the outlines of a phantom in the form of the real ones."""
    data = PhantomDataset({"test": number + 1}, SEED, organs=ALL_ORGANS, observer=observer)
    labels, spacing = data.load_labels(f"phantom_{number:03d}"), np.array(data.spacing_mm)
    return {organ: crop(labels == value, spacing / 2, spacing) for value, organ in enumerate(data.organs, start=1)}


def measure_outlines(number: int) -> dict[str, Any]:
    """Return position and size of every organ of one phantom, and how far its two observers agree."""
    observers = [outlines(number, k) for k in (0, 1)]
    named = dict(zip(statistics()["variables"], statistics()["mean"], strict=True))
    mean = np.array([[named[f"{organ}.{axis}"] for axis in AXES] for organ in FIXED])
    marks = np.array([np.mean([points(o[organ]).mean(0) for o in observers], axis=0) for organ in FIXED])
    frame = Rotation.align_vectors(mean - mean.mean(0), marks - marks.mean(0))[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no slice at a height of the cord: unknown there
        described = describe(observers, frame, 1)
    chiasm = [o["optic_chiasm"][0].sum() / o[f"optic_nerve_{s}"][0].sum() for o in observers for s in ("left", "right")]
    return {
        "described": described,
        "dsc": {organ: dsc(observers[0][organ], observers[1][organ]) for organ in observers[0]},
        "chiasm": float(np.exp(np.mean(np.log(chiasm)))),
    }


def measure_numbers(number: int) -> list[dict[str, Any]]:
    """Return mean and SD of the CT numbers by organ of one phantom on the grid of the real scans."""
    case = PhantomDataset({"test": number + 1}, SEED, CT_GRID_MM, KBP_ORGANS).load(f"phantom_{number:03d}")
    inside = {organ: case.image_hu[case.mask(organ)] for organ in KBP_ORGANS}
    return [{"organ": organ, "mean_hu": hu.mean(), "sd_hu": hu.std()} for organ, hu in inside.items()]


def group(values: Any) -> Group:
    """Return mean, SD and number of the values that are known."""
    found = np.asarray(values, float)
    found = found[~np.isnan(found)]
    return Group(float(found.mean()), float(found.std(ddof=1)), len(found))


def row(
    organ: str, quantity: str, phantom: Group, real: Group, margin: tuple[float, float], source: str, *, how: str
) -> Row:
    """Compare two groups: ``difference`` of means, ``ratio`` of geometric means (of logarithms) or ``spread``."""
    found: Interval = {"difference": mean_difference, "ratio": mean_ratio, "spread": spread_ratio}[how](phantom, real)
    shown = {"difference": lambda g: g.mean, "ratio": lambda g: float(np.exp(g.mean)), "spread": lambda g: g.sd}[how]
    unit = quantity.rpartition("_")[2] if how != "spread" else "SD"
    comparison = "difference" if how == "difference" else "ratio"
    judged = verdict(found, margin)
    numbers = [round(float(v), 4) for v in (shown(real), shown(phantom), *found, *margin)]
    return Row(organ, quantity, unit, comparison, *numbers, judged, real.cases, phantom.cases, source)


def outline_rows(measured: list[dict[str, Any]]) -> list[Row]:
    """Compare volumes, positions and the agreement of observers."""
    rows = []
    for organ in NAMES:
        real = statistics()["real"][organ]
        found = np.array([m["described"][organ] for m in measured])
        if organ == "spinal_cord":
            size, log, place = "area_mm2", real["log_mm2"], found[:, 2:4]
            logs = 2 * found[:, -1] + np.log(np.pi)
        else:
            size, log, place, logs = "volume_ml", real["log_ml"], found[:, :3], found[:, 3]
        theirs = Group(log[0], log[1], real["cases"])
        rows.append(row(organ, size, group(logs), theirs, VOLUME_RATIO, NIKOLOV, how="ratio"))
        rows.append(row(organ, f"{size}_spread", group(logs), theirs, SPREAD_RATIO, NIKOLOV, how="spread"))
        if organ == "brainstem":
            continue  # the origin
        groups = []
        for k, axis in enumerate(AXES[: place.shape[1]]):
            pair = group(place[:, k]), Group(real["position_mm"][0][k], real["position_mm"][1][k], real["cases"])
            rows.append(row(organ, f"{axis}_mm", *pair, (-POSITION_MM, POSITION_MM), NIKOLOV, how="difference"))
            groups.append(pair)
        ours, theirs = (
            Group(0.0, float(np.sqrt(np.mean([p[k].sd ** 2 for p in groups]))), groups[0][k].cases) for k in (0, 1)
        )
        rows.append(row(organ, "position_spread_mm", ours, theirs, SPREAD_RATIO, NIKOLOV, how="spread"))
    for organ, known in statistics()["observer_dsc"].items():
        ours, margin = group([m["dsc"].get(organ, np.nan) for m in measured]), (-OBSERVER_DSC, OBSERVER_DSC)
        rows.append(row(organ, "observer_dsc", ours, Group(*known), margin, NIKOLOV, how="difference"))
    logs = group(np.log([m["chiasm"] for m in measured]))
    theirs = Group(float(np.log(CHIASM_TO_NERVE)), 0.0, 10**6)  # a number, not a sample
    rows.append(row("optic_chiasm", "volume_over_nerve", logs, theirs, VOLUME_RATIO, TAPPEINER, how="ratio"))
    rows[-1] = rows[-1]._replace(unit="ratio", real_cases=0)
    return rows


def number_rows(measured: list[dict[str, Any]]) -> list[Row]:
    """Compare CT numbers inside the outline: mean, its spread over cases, and SD."""
    real = pd.read_csv(OUT.parent / "openkbp" / "dataset.csv")
    grid = real[["spacing_x_mm", "spacing_y_mm", "spacing_z_mm"]]
    tables = pd.DataFrame(measured), real[np.isclose(grid, CT_GRID_MM, atol=0.01).all(axis=1)]
    rows = []
    for organ in KBP_ORGANS:
        ours, theirs = (table[table["organ"] == organ] for table in tables)
        half = BONE_HU if organ == "mandible" else SOFT_HU
        means = group(ours["mean_hu"]), group(theirs["mean_hu"])
        rows.append(row(organ, "mean_hu", *means, (-half, half), OPENKBP, how="difference"))
        rows.append(row(organ, "mean_spread_hu", *means, SPREAD_RATIO, OPENKBP, how="spread"))
        logs = group(np.log(ours["sd_hu"])), group(np.log(theirs["sd_hu"]))
        rows.append(row(organ, "sd_hu", *logs, TEXTURE_RATIO, OPENKBP, how="ratio"))
    return rows


def fullest(data: OpenKBP) -> Case:
    """Return the training case on the commonest grid with the most voxels of the body: many scans are cut."""
    best: tuple[int, str] = (-1, "")
    for name in data.split()["train"]:
        case = data.load(name)
        if np.allclose(case.spacing_mm, CT_GRID_MM, atol=0.01):
            best = max(best, (int((case.image_hu > -900).sum()), name))
    return data.load(best[1])


def draw(root: Path, out: Path) -> None:
    """Draw a real scan, and the first phantom on its grid and on its own."""
    import matplotlib

    matplotlib.use("agg")
    from hnlib.plotting import scan_rows, use_style

    use_style()
    data = OpenKBP(root)
    real = fullest(data)
    same = PhantomDataset({"test": 1}, organs=KBP_ORGANS, spacing_mm=CT_GRID_MM).load("phantom_000")
    own = PhantomDataset({"test": 1}, organs=ALL_ORGANS).load("phantom_000")
    titles = (f"patient {real.name}", "phantom, same grid", "phantom, its own grid")
    figure = scan_rows(dict(zip(titles, (real, same, own), strict=True)))
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "beside_patient.png", dpi=160, bbox_inches="tight")
    rule = "the training case with most voxels of the body on the commonest grid"
    facts = {"case": real.name, "experiment": "", "rule": rule, "attribution": data.attribution}
    write_json(out / "beside_patient.json", facts)


def main() -> None:
    """Measure and write, or draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, metavar="OPENKBP", help="draw slices beside a scan of OpenKBP instead")
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    if given.picture:
        draw(given.picture, given.out / "pictures")
        return
    with process_pool(given.workers) as pool:
        outlined = list(pool.map(measure_outlines, range(given.cases)))
        numbers = [found for part in pool.map(measure_numbers, range(given.cases)) for found in part]
    table = pd.DataFrame([*outline_rows(outlined), *number_rows(numbers)])
    write_table(given.out / "equivalence.csv", table)
    print(json.dumps(table["verdict"].value_counts().to_dict()))


if __name__ == "__main__":
    main()
