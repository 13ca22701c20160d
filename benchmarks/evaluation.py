"""All numbers of one case beside the package that they agree with, and beside MONAI: surface DSC and HD95 alone there.

The case is the phantom outlined by two observers, nine organs, inside a scan of 512 x 512 x 156 voxels. A peer is given
what suits it best before the clock runs: the package masks cropped to their organ, MONAI one-hot tensors.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.process import Found

ORGANS = (
    *("brainstem", "optic_chiasm", "mandible", "optic_nerve_left", "optic_nerve_right", "parotid_left"),
    *("parotid_right", "submandibular_left", "submandibular_right"),
)
FILE = "case.npz"
#: Voxels of the scan and of a voxel's edges in mm; the phantom lies in its middle.
SCANS = {"full": ((512, 512, 156), (0.98, 0.98, 2.5)), "tiny": ((56, 64, 64), (5.0, 5.0, 5.5))}
PERCENT, REPEATS = 95.0, 3


def make_case(folder: str, size: str) -> Found:
    """Write the two label maps."""
    from hnlib.datasets.phantom import PhantomDataset

    shape, spacing = SCANS[size]
    maps = []
    for observer in (0, 1):
        data = PhantomDataset({"train": 1}, spacing_mm=spacing, organs=ORGANS, observer=observer)
        drawn = data.load_labels("phantom_000")
        whole = np.zeros(shape, np.uint8)
        start = [max(0, (n - d) // 2) for n, d in zip(shape, drawn.shape, strict=True)]
        place = tuple(slice(s, s + d) for s, d in zip(start, drawn.shape, strict=True))
        part = whole[place]
        part[:] = drawn[tuple(slice(n) for n in part.shape)]
        maps.append(whole)
    np.savez_compressed(Path(folder) / FILE, reference=maps[0], prediction=maps[1])
    return {"shape": list(shape)}


def ours(folder: str, size: str) -> Found:
    """Time DSC, IoU, precision, recall, surface DSC at two tolerances, HD95, HD and mean distances of all organs."""
    from hnlib.metrics import DISTANCES, METRICS, evaluate_case

    reference, prediction = _maps(folder)
    spacing = SCANS[size][1]
    wanted = METRICS + DISTANCES

    def run() -> Any:
        return evaluate_case(reference, prediction, spacing_mm=spacing, organs=ORGANS, metrics=wanted)

    return {**_timed(run), "note": f"{len(ORGANS)} organs, {len(wanted)} metrics each"}


def package(folder: str, size: str) -> Found:
    """Time surface DSC and HD95 of surface-distance-based-measures, masks cropped beforehand."""
    import surface_distance
    from scipy import ndimage

    reference, prediction = _maps(folder)
    boxes = [ndimage.find_objects(labels, max_label=len(ORGANS)) for labels in (reference, prediction)]
    masks = []
    for value, pair in enumerate(zip(*boxes, strict=True), start=1):
        box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(*pair, strict=True))
        masks.append((reference[box] == value, prediction[box] == value))

    def run() -> None:
        for one, two in masks:
            found = surface_distance.compute_surface_distances(one, two, SCANS[size][1])
            surface_distance.compute_robust_hausdorff(found, PERCENT)
            surface_distance.compute_surface_dice_at_tolerance(found, 2.5)

    return {**_timed(run), "note": "surface DSC and HD95 on masks cropped beforehand"}


def monai(folder: str, size: str) -> Found:
    """Time surface DSC (sub-voxel) and HD95 of MONAI on one-hot tensors."""
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    reference, prediction = (
        torch.stack([torch.from_numpy(labels == value) for value in range(len(ORGANS) + 1)])[None]
        for labels in _maps(folder)
    )
    spacing = SCANS[size][1]

    def run() -> None:
        tolerances = [2.5] * len(ORGANS)
        compute_surface_dice(prediction, reference, tolerances, spacing=spacing, use_subvoxels=True)
        compute_hausdorff_distance(prediction, reference, percentile=PERCENT, spacing=spacing)

    return {**_timed(run, repeats=1), "note": "surface DSC and HD95 on one-hot tensors made beforehand"}


def _maps(folder: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(Path(folder) / FILE) as stored:
        return stored["reference"], stored["prediction"]


def _timed(run: Callable[[], Any], repeats: int = REPEATS) -> Found:
    """Return the median seconds after one run that warms up; one that is asked for once counts as it comes."""
    seconds = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the peers
        for _ in range(repeats + (repeats > 1)):
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
    return {"seconds": median(seconds[1:] or seconds)}
