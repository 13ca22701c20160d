"""Reads a whole data set once and says everything that is wrong with it, before hours of work start.

Thresholds are wide: they catch wrong files and units, not unusual patients. What they find is for a person to look at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hnlib.anatomy import centre_mm, misplaced
from hnlib.cases import Dataset
from hnlib.datasets.case_files import CaseFiles, Outline, outlines
from hnlib.datasets.folder import FolderDataset
from hnlib.datasets.openkbp import OpenKBP
from hnlib.datasets.pddca import PDDCA
from hnlib.datasets.tcia import OBSERVERS, TCIA
from hnlib.errors import DataError, HnlibError
from hnlib.organs import DEFAULT, ORGANS, organ
from hnlib.volumes import Volume, read_volume, same_grid

SPACING_RANGE_MM = (0.2, 10.0)
MIN_VOXELS = 8  # along each axis
AIR_HU, BONE_HU, LIMITS_HU = -500.0, 200.0, (-10_000.0, 40_000.0)
#: Organs that share more than this fraction of the smaller one are reported, below it only noted.
OVERLAP_FRACTION = 0.1
#: An organ at risk fills at most this fraction of a scan.
MAX_ORGAN_FRACTION = 0.2


@dataclass(frozen=True)
class Finding:
    """One line about one case: a problem, or a note about something that may well be so on purpose."""

    text: str
    is_problem: bool = True


def check_dataset(dataset: Dataset) -> Iterator[Finding]:
    """Read every case once, one at a time, and yield what is wrong with it.

    A fault of one file hides no other; nothing that is in the files raises.
    """
    seen: dict[str, str] = {}
    outlined: set[str] = set()
    names = [name for part in dataset.split().values() for name in part]
    if isinstance(dataset, PDDCA | FolderDataset | OpenKBP):
        for path, what in dataset.strays():
            yield Finding(f"case {path.name}, folder {path}: {what}")
    yield from _own_organs(dataset)
    for name in names:
        try:
            if isinstance(dataset, PDDCA | FolderDataset | TCIA):
                yield from _check_files(_readings(dataset, name), dataset.organs, seen, outlined)
            else:
                yield from _check_loaded(dataset, name, seen, outlined)
        except HnlibError as fault:
            yield Finding(str(fault))
        except Exception as fault:  # a check that stops at the first surprise has checked nothing
            text = " ".join(str(fault).split())[:200]
            yield Finding(f"case {name}: cannot be checked ({type(fault).__name__} {text}); look at its files")
    if names:
        for missing in sorted(set(dataset.organs) - outlined):
            yield Finding(f"data set {dataset.name}: {missing} is outlined in no case; check the names of its files")


def _own_organs(dataset: Dataset) -> Iterator[Finding]:
    """Note organs outside the vocabulary: wanted, or a slip."""
    for look in (organ(name) for name in dataset.organs):
        if look.tolerance_source == DEFAULT:
            near = get_close_matches(look.name, ORGANS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield Finding(
                f"data set {dataset.name}: {look.name} is an organ of its own, with a tolerance of "
                f"{look.tolerance_mm:g} mm by default{hint}",
                False,
            )


def _readings(dataset: PDDCA | FolderDataset | TCIA, name: str) -> list[CaseFiles]:
    """Return the files of a case, once for each observer."""
    if isinstance(dataset, TCIA):
        return [dataset.files(name, observer) for observer in OBSERVERS]
    return [dataset.files(name)]


def _check_files(
    readings: list[CaseFiles], organs: tuple[str, ...], seen: dict[str, str], outlined: set[str]
) -> Iterator[Finding]:
    name, image = readings[0].name, readings[0].image
    grid: Volume | None = None
    if image is None:
        yield Finding(f"case {name}: no CT, outlines only; copy the CT to its place to train on it", False)
    else:
        try:
            grid = read_volume(image, case=name)
            yield from _check_image(f"case {name}, file {image}", grid.array, grid.spacing_mm)
            yield from _twins(name, f"file {image}", grid.array, seen)
        except DataError as fault:
            yield Finding(str(fault))
    for files in readings:
        yield from _check_masks(files, organs, grid, outlined)


def _check_masks(
    files: CaseFiles, organs: tuple[str, ...], grid: Volume | None, outlined: set[str]
) -> Iterator[Finding]:
    for path in files.unknown:
        yield Finding(f"case {files.name}, file {path}: stands for no organ of the data set; name it, or remove it")
    found: dict[str, Outline] = {}
    broken: set[str] = set()
    for mask in files.masks:
        try:
            volume = read_volume(mask.path, labels=True, case=files.name)
            grid = grid or volume
            difference = same_grid(grid, volume)
            if difference:
                raise DataError(
                    f"case {files.name}, file {mask.path}: lies on another grid than the rest of the case "
                    f"({difference}); export it on the grid of the scan"
                )
            found.update((name, Outline(mask.path, index)) for name, index in outlines(mask, volume, files.name))
        except DataError as fault:
            broken |= {mask.organs} if isinstance(mask.organs, str) else set(mask.organs.values())
            yield Finding(str(fault))
    found = {name: outline for name, outline in found.items() if outline.voxels.size}
    outlined.update(found)
    missing = [name for name in organs if name not in broken and name not in found]
    if missing:
        yield Finding(f"case {files.name}: not outlined: {', '.join(missing)}", False)
    if grid is not None:
        yield from _overlaps(files.name, found)
        yield from _places(files.name, found, grid.array.shape, grid.spacing_mm)


def _check_loaded(dataset: Dataset, name: str, seen: dict[str, str], outlined: set[str]) -> Iterator[Finding]:
    image, stored = "the image", dict[str, Outline]()
    if isinstance(dataset, OpenKBP):
        faults = list(dataset.faults(name))
        yield from (Finding(fault) for fault in faults)
        if faults:
            return
        image, stored = f"file {dataset.folder(name) / 'ct.csv'}", dataset.outlines(name)
        yield from _overlaps(name, stored)
    case = dataset.load(name)
    outlined.update(case.labelled)
    yield from _check_image(f"case {name}, {image}", case.image_hu, case.spacing_mm)
    yield from _twins(name, image, case.image_hu, seen)
    missing = [o for o in case.organs if o not in case.labelled]
    if missing:
        yield Finding(f"case {name}: not outlined: {', '.join(missing)}", False)
    nowhere = Outline(Path(dataset.name), np.empty(0, np.int64))
    found = {o: stored.get(o, nowhere)._replace(voxels=np.flatnonzero(case.mask(o))) for o in case.labelled}
    yield from _places(name, found, case.image_hu.shape, case.spacing_mm)


def _check_image(where: str, image: NDArray[np.float32], spacing_mm: tuple[float, ...]) -> Iterator[Finding]:
    low_mm, high_mm = SPACING_RANGE_MM
    if min(spacing_mm) < low_mm or max(spacing_mm) > high_mm:
        sizes = " x ".join(f"{mm:.3g}" for mm in spacing_mm)
        yield Finding(f"{where}: a spacing of {sizes} mm is no CT's; export it with the spacing in mm")
    if min(image.shape) < MIN_VOXELS:
        yield Finding(f"{where}: only {min(image.shape)} voxels along an axis; copy all slices")
    low, high = float(image.min()), float(image.max())  # NaN anywhere makes both NaN
    if not np.isfinite((low, high)).all():
        yield Finding(f"{where}: holds NaN or infinite values; export it again")
    elif low == high:
        yield Finding(f"{where}: is constant, {low:g} everywhere; export it again")
    elif low < LIMITS_HU[0] or high > LIMITS_HU[1] or low > AIR_HU or high < BONE_HU:
        yield Finding(
            f"{where}: values from {low:g} to {high:g} are not HU of a head (air -1000, bone 1000); export HU"
        )


def _twins(name: str, image: str, array: NDArray[np.float32], seen: dict[str, str]) -> Iterator[Finding]:
    digest = hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()
    other = seen.setdefault(digest, name)
    if other != name:
        yield Finding(
            f"case {name}, {image}: is the same scan as case {other}; remove one, or training and testing share it"
        )


def _overlaps(case: str, found: Mapping[str, Outline]) -> Iterator[Finding]:
    small = []
    for one, other in combinations(sorted(found), 2):
        shared = np.intersect1d(found[one].voxels, found[other].voxels, assume_unique=True).size
        smaller = min(found[one].voxels.size, found[other].voxels.size)
        if shared > OVERLAP_FRACTION * smaller:
            yield Finding(
                f"{_where(case, found[one], found[other])}: {one} and {other} share {shared} voxels of {smaller}; "
                "export the outlines again, or the later organ takes them"
            )
        elif shared:
            small.append(f"{one} and {other} {shared}")
    if small:
        yield Finding(f"case {case}: few voxels are shared and go to the later organ: {', '.join(small)}", False)


def _places(
    case: str, found: Mapping[str, Outline], shape: tuple[int, ...], spacing_mm: tuple[float, ...]
) -> Iterator[Finding]:
    """Yield organs that are too large, or lie where no patient has them, judged by their centres."""
    centres = {}
    for name, outline in found.items():
        fraction = outline.voxels.size / np.prod(shape)
        if fraction > MAX_ORGAN_FRACTION:
            yield Finding(f"{_where(case, outline)}: {name} fills {fraction:.0%} of the scan; export it again")
        elif outline.voxels.size:
            centres[name] = centre_mm(outline.voxels, shape, spacing_mm)
    for one, other, text in misplaced(centres):
        yield Finding(
            f"{_where(case, found[one], found[other])}: {text}: names swapped, or the scan mirrored or turned over; "
            "compare with the source and export again"
        )


def _where(case: str, *outlines: Outline) -> str:
    return f"case {case}, file {' and '.join(dict.fromkeys(str(outline.path) for outline in outlines))}"
