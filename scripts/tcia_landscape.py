"""Measure what patches of every size show of real outlines at full resolution, small organs among them.

    python scripts/tcia_landscape.py DATA_ROOT

reads the outlines of the TCIA scans (Nikolov et al. 2018, CC BY 4.0; no CT is needed) and writes
results/published/tcia/landscape.csv and landscape_classes.csv: sizes up to one and a half of the large patch of
Tappeiner et al. 2022, on each scan's own grid, means over the scans.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hnlib.datasets import open_dataset
from hnlib.experiments.landscapes import landscape_sizes, landscape_tables
from hnlib.files import write_table
from hnlib.imbalance import scan_sources

OUT = Path(__file__).resolve().parents[1] / "results" / "published" / "tcia"
#: Patches of Tappeiner et al. 2022.
LARGE, SMALL = (192, 160, 56), (96, 80, 48)
#: The rules that read no CT numbers.
RULES = ("uniform", "voxel_uniform", "class_uniform", "nnunet")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder of the data set")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="folder that keeps each scan's result, to go on where it stopped")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    scans = scan_sources(open_dataset("tcia", given.root))
    sizes = landscape_sizes(LARGE, [LARGE, SMALL])
    tables = landscape_tables(scans, sizes, RULES, workers=given.workers, cache=given.cache, progress=_tell)
    for name, table in tables.items():
        write_table(given.out / f"{name}.csv", table)


def _tell(what: str, done: int, total: int) -> None:
    print(f"{what}: {done} of {total} scans", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
