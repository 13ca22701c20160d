"""Measure what two observers of the same scans agree on; writes small tables into results/published/tcia.

    python scripts/human_reference.py OUTLINES [--out FOLDER] [--cache FOLDER] [--workers N]

OUTLINES is the folder ``tcia-ct-scan-dataset`` (organ masks by two observers, Nikolov et al. 2018, CC BY 4.0). Its
scans are measured once; with ``--cache`` each is kept there, so that a stopped run goes on and the tables can be made
again. ``pairs.csv`` holds every scan and organ, the other tables are over patients, ``about.json`` says what they are.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from hnlib.datasets import TCIA
from hnlib.datasets.tcia import OBSERVERS
from hnlib.files import write_json, write_table
from hnlib.observers import HD95_DEFINITIONS, agreement, measure_scan, patient, swapped_axes, tolerances
from hnlib.processes import process_pool

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "results" / "published" / "tcia"
SUMMARISED = ("dsc", "surface_dsc", "surface_dsc_1vox", "hd95_mm", "assd_mm", "outlined_by_one", "lost")
NOTES = (
    "The two observers have outlined no optic chiasm in this set, nor anyone in a public one: no human reference "
    "exists for it, and its tolerance of 2.5 mm in Tappeiner et al. 2022 is the authors' own choice.",
    "grid native: the scan's own. grid openkbp: both observers' outlines resampled to 128 x 128 voxels in plane, as "
    "OpenKBP was made; organ by organ the larger share of a voxel. lost: share of patients in whom an organ has no "
    "voxel left there in one outline or both; those have no agreement.",
    "The oncologist's outlines take the place of the reference. An organ that only one observer outlined has no "
    "agreement; scans counts them in the rows of outlined_by_one.",
    "These scans come without CT here, and OpenKBP has one observer: beside results of networks on other patients "
    "these tables are context, not a paired comparison.",
    "surface_dsc is at the published tolerance of each organ (tolerances.csv). Intervals are over patients; two scans "
    "of one patient count once.",
)


def measure(job: tuple[Path, str, Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure one scan, or read it where it was measured."""
    root, case, cache = job
    paths = [cache / f"{case}.{what}.parquet" for what in ("pairs", "distances")]
    if not all(path.exists() for path in paths):
        for path, table in zip(paths, measure_scan(TCIA(root), case), strict=True):
            table.to_parquet(path, index=False)
    pairs, distances = (pd.read_parquet(path) for path in paths)
    return pairs, distances


def measure_all(root: Path, cache: Path, workers: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure every scan; the tables have a column that says of which split it is."""
    cache.mkdir(parents=True, exist_ok=True)
    jobs = [(split, case) for split, cases in TCIA(root).split().items() for case in cases]
    found = []
    with process_pool(workers) as pool:
        results = pool.map(measure, [(root, case, cache) for _, case in jobs])
        for done, ((split, _), tables) in enumerate(zip(jobs, results, strict=True), start=1):
            found.append([table.assign(split=split) for table in tables])
            print(f"{done} of {len(jobs)} scans", flush=True)
    pairs, distances = (pd.concat(parts, ignore_index=True) for parts in zip(*found, strict=True))
    return pairs, distances


def write_tables(pairs: pd.DataFrame, distances: pd.DataFrame, out: Path, seed: int) -> None:
    """Write the tables, each over all scans and over those of the data set's test part."""
    names = ["split", "grid", "case", "organ", "metric", "value"]
    write_table(out / "pairs.csv", pairs[names])
    definitions = pairs[pairs["metric"].isin(HD95_DEFINITIONS) & (pairs["grid"] == "native")]
    tables = {
        "agreement": lambda of, rng: agreement(of[of["metric"].isin(SUMMARISED)], rng=rng),
        "hd95_definitions": lambda of, rng: agreement(of[of["metric"].isin(HD95_DEFINITIONS)], rng=rng),
        "swapped_axes": lambda of, rng: swapped_axes(of, rng=rng),
        "tolerances": lambda of, rng: tolerances(of, rng=rng),
    }
    sources = {"tolerances": distances, "hd95_definitions": definitions}
    for name, make in tables.items():
        parts = []
        for split in ("all", "test"):
            rows = sources.get(name, pairs)
            used = rows if split == "all" else rows[rows["split"] == split]
            parts.append(make(used, np.random.default_rng(seed)).assign(split=split))
        table = pd.concat(parts, ignore_index=True)
        write_table(out / f"{name}.csv", table[["split", *table.columns.drop("split")]])


def about(data: TCIA, pairs: pd.DataFrame, seed: int) -> dict[str, object]:
    """Return what the tables are, for a reader who has nothing else."""
    scans = {split: len(cases) for split, cases in data.split().items() if cases}
    return {
        "attribution": data.attribution,
        "observers": list(OBSERVERS),
        "scans": scans,
        "patients": pairs["case"].map(patient).nunique(),
        "hd95_definitions": HD95_DEFINITIONS,
        "notes": list(NOTES),
        "command": f"python scripts/human_reference.py OUTLINES --seed {seed}",
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("numpy", "scipy", "pandas")}},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("outlines", type=Path, help="folder tcia-ct-scan-dataset")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--cache", type=Path, help="keeps each scan's tables")
    parser.add_argument("--workers", type=int, default=1, help="scans at a time; one takes less than 1 GB")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        pairs, distances = measure_all(given.outlines, given.cache or Path(folder), given.workers)
    write_tables(pairs, distances, given.out, given.seed)
    write_json(given.out / "about.json", about(TCIA(given.outlines), pairs, given.seed))
    print(json.dumps({"tables": sorted(path.name for path in given.out.glob("*.csv"))}))


if __name__ == "__main__":
    main()
