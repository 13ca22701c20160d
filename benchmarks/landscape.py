"""The landscape of real outlines at full resolution: one scan, all scans of the set, and twice as many cases.

The outlines are those of Nikolov et al. 2018 (data set ``tcia``), with seven organs; no CT is needed. They are looked
for in ``HNLIB_DATA`` and beside the checkout, as the tests do.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.imbalance import grid_sizes
from benchmarks.process import ROOT, Found, NotMeasuredError, now

FOLDER = "tcia-ct-scan-dataset"
ORGANS = (
    "brainstem",
    "spinal_cord",
    "optic_nerve_left",
    "optic_nerve_right",
    "parotid_left",
    "parotid_right",
    "mandible",
)
#: Every rule of these is a mixture of the same parts: uniform in position, and one organ each.
LAWS = ("uniform", "voxel_uniform", "class_uniform", "nnunet")
#: Steps through the grid of sizes for presence and variance: 4 x 4 x 4 of 16 x 16 x 16 sizes.
SUB_GRID = {"full": 4, "tiny": 1}
#: Scans of the row on all of them, and copies of one scan in that on cases.
SCANS, COPIES = {"full": None, "tiny": 2}, {"full": (2, 8), "tiny": (1, 2)}
WORKERS = 2


def one_scan(size: str) -> Found:
    """Time the expectations of every size of the grid on one scan, from the label map in memory to the table."""
    scan = _sources(size)[0]()
    seconds = _seconds([scan], grid_sizes(size))
    return {"seconds": seconds, "note": f"{' x '.join(map(str, scan.labels.shape))} voxels"}


def moments(size: str) -> Found:
    """Time presence and variance on a sub-grid of sizes, on the same scan."""
    sizes = _sub_grid(size)
    seconds = _seconds([_sources(size)[0]()], sizes, quantities=("presence", "variance"))
    return {"seconds": seconds, "note": f"{len(sizes)} sizes"}


def all_scans(size: str) -> Found:
    """Time the expectations of every size on every scan, from its files to the table, two processes at a time."""
    sources = _sources(size)[: SCANS[size]]
    return {"seconds": _seconds(sources, grid_sizes(size), workers=WORKERS), "note": f"{len(sources)} scans"}


def cases(size: str) -> Found:
    """Time many copies of a scan and few, on the sub-grid: seconds a case of both."""
    scan, found = _sources(size)[0](), {}
    for name, number in zip(("few", "many"), COPIES[size], strict=True):
        copies = [replace(scan, name=str(k)) for k in range(number)]
        found[name] = _seconds(copies, _sub_grid(size)) / number
    return {**found, "note": " and ".join(map(str, COPIES[size])) + " copies of one scan"}


def _seconds(scans: Any, sizes: Any, **given: Any) -> float:
    from hnlib.imbalance import landscape
    from hnlib.sampling import RULES

    began = now()
    landscape(scans, sizes, {name: RULES[name] for name in LAWS}, **given)
    return now() - began


def _sub_grid(size: str) -> list[tuple[int, int, int]]:
    step, sizes = SUB_GRID[size], grid_sizes(size)
    kept = [set(sorted({s[axis] for s in sizes})[step - 1 :: step]) for axis in range(3)]
    return [s for s in sizes if all(edge in axis for edge, axis in zip(s, kept, strict=True))]


def _sources(size: str) -> Any:
    """Return what reads the scans; the first one that holds every organ comes first."""
    from hnlib.datasets import TCIA
    from hnlib.imbalance import scan_sources

    places = [Path(p) for p in (os.environ.get("HNLIB_DATA"),) if p] + [ROOT.parent / "shared" / "data"]
    root = next((place / FOLDER for place in places if (place / FOLDER).is_dir()), None)
    if root is None:
        raise NotMeasuredError(f"{FOLDER} is not in HNLIB_DATA nor beside the checkout")
    sources = scan_sources(TCIA(root, organs=ORGANS))
    first = next(k for k, source in enumerate(sources) if source().labelled == frozenset(ORGANS))
    return [sources[first], *sources[:first], *sources[first + 1 :]]
