"""Reads a whole data set once and says everything that is wrong with it, before hours of work start.

Thresholds are wide: they catch wrong files and units, not unusual patients. What they find is for a person to look at.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hnlib.anatomy import centre_mm, misplaced
from hnlib.cases import Dataset
from hnlib.datasets.case_files import CaseFiles, Outline, outlines, require_grid, strange_labels
from hnlib.datasets.folder import FolderDataset
from hnlib.datasets.openkbp import OpenKBP
from hnlib.datasets.pddca import PDDCA
from hnlib.datasets.tcia import OBSERVERS, TCIA
from hnlib.errors import DataError, HnlibError
from hnlib.organs import DEFAULT, ORGANS, organ
from hnlib.volumes import Volume, read_volume

SPACING_RANGE_MM = (0.2, 10.0)
MIN_VOXELS = 8  # along each axis
#: The part of a patient that a scan shows is at least and at most so large along X, Y, Z.
MIN_EXTENT_MM, MAX_EXTENT_MM = (80.0, 80.0, 40.0), 2500.0
#: Voxel edges differ from the data set's median by at most these factors along X, Y, Z; slices vary more than pixels.
SPACING_FACTORS = (2.5, 2.5, 5.0)
AIR_HU, BONE_HU, LIMITS_HU = -500.0, 200.0, (-10_000.0, 40_000.0)
#: Organs that share more than this fraction of the smaller one are reported, below it only noted. In OpenKBP as it was
#: published, brainstem and cord of one patient share 15 %.
OVERLAP_FRACTION = 0.2
#: An organ at risk fills at most this fraction of a scan.
MAX_ORGAN_FRACTION = 0.2


@dataclass(frozen=True)
class Finding:
    """One line about one case: a problem, or a note about something that may well be so on purpose."""

    text: str
    is_problem: bool = True


class Sized(NamedTuple):
    """Where a scan lies, its voxel edges, and the size of what is in it: the box around all that is not air."""

    where: str
    spacing_mm: tuple[float, ...]
    extent_mm: tuple[float, ...]


@dataclass
class Whole:
    """What is known of a data set only when all of its cases were read.

    Attributes
    ----------
    digests
        The first case with each image.
    outlined
        Organs that some case has.
    sizes
        Of every scan.
    strange
        Labels and files that stand for no organ, each with the cases and files that hold it.
    shared
        For each case whose outlines share few voxels: how many, and which organs.
    """

    digests: dict[str, str] = field(default_factory=dict)
    outlined: set[str] = field(default_factory=set)
    sizes: list[Sized] = field(default_factory=list)
    strange: dict[str, list[tuple[str, Path]]] = field(default_factory=lambda: defaultdict(list))
    shared: dict[str, tuple[int, str]] = field(default_factory=dict)


def check_dataset(dataset: Dataset) -> Iterator[Finding]:
    """Read every case once, one at a time, and yield what is wrong with it.

    A fault of one file hides no other; nothing that is in the files raises.
    """
    whole = Whole()
    names = [name for part in dataset.split().values() for name in part]
    if isinstance(dataset, PDDCA | FolderDataset | OpenKBP):
        for path, what in dataset.strays():
            yield Finding(f"case {path.name}, folder {path}: {what}")
    yield from _own_organs(dataset)
    for name in names:
        try:
            if isinstance(dataset, PDDCA | FolderDataset | TCIA):
                yield from _check_files(_readings(dataset, name), dataset.organs, whole)
            else:
                yield from _check_loaded(dataset, name, whole)
        except HnlibError as fault:
            yield Finding(str(fault))
        except Exception as fault:  # a check that stops at the first surprise has checked nothing
            text = " ".join(str(fault).split())[:200]
            yield Finding(f"case {name}: cannot be checked ({type(fault).__name__} {text}); look at its files")
    yield from _odd_sizes(whole.sizes)
    yield from _shared_voxels(dataset.name, whole.shared, len(names))
    absent = sorted(set(dataset.organs) - whole.outlined) if names else []
    named_in = getattr(dataset, "named_in", "")
    explained = yield from _strangers(dataset.name, named_in, whole.strange, len(names), absent)
    for organ_name in [] if explained else absent:
        yield Finding(
            f"data set {dataset.name}: no case has {organ_name} under the name or label that stands for it; correct "
            "that, or leave the organ out"
        )


def _odd_sizes(sizes: list[Sized]) -> Iterator[Finding]:
    """Yield scans that no head and neck fits in or fills, and those unlike the others of the data set."""
    if not sizes:
        return
    median = np.median([one.spacing_mm for one in sizes], axis=0)
    for where, spacing, extent in sizes:
        edges = f"voxel edges of {_times(spacing)} mm"
        if (np.asarray(extent) < MIN_EXTENT_MM).any() or max(extent) > MAX_EXTENT_MM:
            yield Finding(
                f"{where}: with {edges} the patient is {_times(extent, '.0f')} mm large; export it with the true ones"
            )
        elif (np.abs(np.log(spacing / median)) > np.log(SPACING_FACTORS)).any():
            yield Finding(
                f"{where}: {edges} are far from the {_times(median)} mm that are usual here; compare with the source"
            )


def _strangers(
    name: str, named_in: str, strange: Mapping[str, list[tuple[str, Path]]], num_cases: int, absent: list[str]
) -> Generator[Finding, None, bool]:
    """Yield what stands for no organ, a line each however many cases hold it; say whether that explains the absent."""
    remedy = f"name it in {named_in}, or remove it" if named_in else "name it rightly, or remove it"
    explained = False
    for what, places in strange.items():
        (case, path), cases = places[0], list(dict.fromkeys(holder for holder, _ in places))
        if len(cases) == 1:
            label = "" if what == path.name else f"{what} "
            yield Finding(f"case {case}, file {path}: {label}stands for no organ of the data set; {remedy}")
            continue
        explained = True
        some = ", ".join(cases[:4]) + (" ..." if len(cases) > 4 else "")
        lacking = f", while none has {', '.join(absent)}" if absent else ""
        held = f"{len(cases)} of {num_cases} cases ({some})"
        yield Finding(f"data set {name}: {what} stands for no organ in {held}{lacking}; {remedy}")
    return explained


def _times(numbers: Iterable[float], form: str = ".3g") -> str:
    return " x ".join(format(float(n), form) for n in numbers)


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


def _check_files(readings: list[CaseFiles], organs: tuple[str, ...], whole: Whole) -> Iterator[Finding]:
    name, image = readings[0].name, readings[0].image
    grid: Volume | None = None
    if image is None:
        yield Finding(f"case {name}: no CT, outlines only; copy the CT to its place to train on it", False)
    else:
        try:
            grid = read_volume(image, case=name)
            yield from _check_image(name, f"file {image}", grid.array, grid.spacing_mm, whole)
        except DataError as fault:
            yield Finding(str(fault))
    something = False
    for files in readings:
        something |= yield from _check_masks(files, organs, grid, whole)
    if not something:
        path = next((files.masks[0].path for files in readings if files.masks), readings[0].expected)
        yield _no_organ(name, path)


def _no_organ(case: str, path: Path) -> Finding:
    return Finding(
        f"case {case}, file {path}: no organ is outlined there, nor in another file of the case; copy its outlines, or "
        "leave the case out"
    )


def _check_masks(
    files: CaseFiles, organs: tuple[str, ...], grid: Volume | None, whole: Whole
) -> Generator[Finding, None, bool]:
    """Yield what is wrong with one reading of a case; say whether there was something to look at."""
    for path in files.unknown:
        whole.strange[path.name].append((files.name, path))
    found: dict[str, Outline] = {}
    broken: set[str] = set()
    strange = bool(files.unknown)
    of = "of the scan" if grid else f"of {files.masks[0].path.name}" if files.masks else ""
    for mask in files.masks:
        try:
            volume = read_volume(mask.path, labels=True, case=files.name)
            grid = grid or volume
            require_grid(grid, volume, of, f"case {files.name}, file {mask.path}")
            for value in strange_labels(mask, volume):
                strange = True
                whole.strange[f"label {value}"].append((files.name, mask.path))
                volume.array[volume.array == value] = 0
            found.update((name, Outline(mask.path, index)) for name, index in outlines(mask, volume, files.name))
        except DataError as fault:
            broken |= {mask.organs} if isinstance(mask.organs, str) else set(mask.organs.values())
            yield Finding(str(fault))
    found = {name: outline for name, outline in found.items() if outline.voxels.size}
    whole.outlined.update(found)
    missing = [name for name in organs if name not in broken and name not in found]
    if missing and (found or broken or strange):
        yield Finding(f"case {files.name}: not outlined: {', '.join(missing)}", False)
    if grid is not None:
        yield from _overlaps(files.name, found, whole)
        yield from _places(files.name, found, grid.array.shape, grid.spacing_mm)
    return bool(found or broken or strange)


def _check_loaded(dataset: Dataset, name: str, whole: Whole) -> Iterator[Finding]:
    image, stored = "the image", dict[str, Outline]()
    if isinstance(dataset, OpenKBP):
        faults = list(dataset.faults(name))
        yield from (Finding(fault) for fault in faults)
        if faults:
            return
        image, stored = f"file {dataset.folder(name) / 'ct.csv'}", dataset.outlines(name)
        yield from _overlaps(name, stored, whole)
    case = dataset.load(name)
    whole.outlined.update(case.labelled)
    yield from _check_image(name, image, case.image_hu, case.spacing_mm, whole)
    missing = [o for o in case.organs if o not in case.labelled]
    if not case.labelled and isinstance(dataset, OpenKBP):
        yield _no_organ(name, dataset.outline_file(name, dataset.organs[0]))
    elif missing:
        yield Finding(f"case {name}: not outlined: {', '.join(missing)}", False)
    nowhere = Outline(Path(dataset.name), np.empty(0, np.int64))
    found = {o: stored.get(o, nowhere)._replace(voxels=np.flatnonzero(case.mask(o))) for o in case.labelled}
    yield from _places(name, found, case.image_hu.shape, case.spacing_mm)


def _check_image(
    case: str, image: str, array: NDArray[np.float32], spacing_mm: tuple[float, ...], whole: Whole
) -> Iterator[Finding]:
    where = f"case {case}, {image}"
    low_mm, high_mm = SPACING_RANGE_MM
    if min(spacing_mm) < low_mm or max(spacing_mm) > high_mm:
        yield Finding(f"{where}: a spacing of {_times(spacing_mm)} mm is no CT's; export it with the spacing in mm")
    elif min(array.shape) < MIN_VOXELS:
        yield Finding(f"{where}: only {min(array.shape)} voxels along an axis; copy all slices")
    else:
        whole.sizes.append(Sized(where, spacing_mm, _extent_mm(array, spacing_mm)))
    low, high = float(array.min()), float(array.max())  # NaN anywhere makes both NaN
    if not np.isfinite((low, high)).all():
        yield Finding(f"{where}: holds NaN or infinite values; export it again")
    elif low == high:
        yield Finding(f"{where}: is constant, {low:g} everywhere; export it again")
    elif low < LIMITS_HU[0] or high > LIMITS_HU[1] or low > AIR_HU or high < BONE_HU:
        yield Finding(
            f"{where}: values from {low:g} to {high:g} are not HU of a head (air -1000, bone 1000); export HU"
        )
    digest = hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16).hexdigest()
    other = whole.digests.setdefault(digest, case)
    if other != case:
        yield Finding(f"{where}: is the same scan as case {other}; remove one, or training and testing share it")


def _extent_mm(image: NDArray[np.float32], spacing_mm: tuple[float, ...]) -> tuple[float, ...]:
    """Return the size of the box around all that is not air; of the whole scan where there is nothing else."""
    body = image > AIR_HU
    extent = []
    for axis, edge in enumerate(spacing_mm):
        along = np.flatnonzero(body.any(axis=tuple(a for a in range(3) if a != axis)))
        extent.append(edge * (along[-1] - along[0] + 1 if along.size else image.shape[axis]))
    return tuple(float(mm) for mm in extent)


def _overlaps(case: str, found: Mapping[str, Outline], whole: Whole) -> Iterator[Finding]:
    for one, other in combinations(sorted(found), 2):
        shared = np.intersect1d(found[one].voxels, found[other].voxels, assume_unique=True).size
        smaller = min(found[one].voxels.size, found[other].voxels.size)
        if shared > OVERLAP_FRACTION * smaller:
            yield Finding(
                f"{_where(case, found[one], found[other])}: {one} and {other} share {shared} voxels of {smaller}; "
                "export the outlines again, or the later organ takes them"
            )
        elif shared:
            whole.shared[case] = max(whole.shared.get(case, (0, "")), (shared, f"{one} and {other}"))


def _shared_voxels(name: str, shared: Mapping[str, tuple[int, str]], num_cases: int) -> Iterator[Finding]:
    if shared:
        most = max(shared, key=lambda case: shared[case][0])
        yield Finding(
            f"data set {name}: in {len(shared)} of {num_cases} cases outlines share voxels, which go to the later "
            f"organ; most in case {most}: {shared[most][0]} of {shared[most][1]}",
            False,
        )


def _places(
    case: str, found: Mapping[str, Outline], shape: tuple[int, ...], spacing_mm: tuple[float, ...]
) -> Iterator[Finding]:
    """Yield organs that are too large, or lie where no patient has them, judged by their centres."""
    centres = {}
    for name, outline in found.items():
        fraction = outline.voxels.size / np.prod(shape)
        if fraction > MAX_ORGAN_FRACTION:
            yield Finding(
                f"{_where(case, outline)}: {name} fills {fraction:.0%} of the scan, as a lung may and no organ of the "
                "head does; look at its outline",
                organ(name).tolerance_source != DEFAULT,
            )
        elif outline.voxels.size:
            centres[name] = centre_mm(outline.voxels, shape, spacing_mm)
    for one, other, text in misplaced(centres):
        yield Finding(
            f"{_where(case, found[one], found[other])}: {text}: names swapped, or the scan mirrored or turned over; "
            "compare with the source and export again"
        )


def _where(case: str, *outlines: Outline) -> str:
    return f"case {case}, file {' and '.join(dict.fromkeys(str(outline.path) for outline in outlines))}"
