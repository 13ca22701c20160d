"""From a scan on its own grid to a normalised array on the study's grid, and back.

Crop to the body, resample to the planned spacing, clip and normalise with the training set's
foreground statistics (Isensee et al. 2021). Labels are resampled class by class and take the class
with the largest share of the voxel, so that no gap opens between neighbours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import BadZipFile

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from hnlib.cases import Case, Dataset
from hnlib.errors import DataError
from hnlib.files import write_atomically, write_json

#: Raise it when the arrays that `preprocess_case` writes change, so that old caches are not used.
VERSION = 1
#: Voxels above this belong to the body; the largest component is kept, without the table.
BODY_HU = -300.0
Vector = tuple[float, float, float]
Index = tuple[int, int, int]


@dataclass(frozen=True)
class Plan:
    """The grid and the intensity scale of a study, derived from training cases alone.

    Attributes
    ----------
    spacing_mm
        Target voxel edges along X, Y, Z: median in plane, 10th percentile along Z.
    median_shape
        Median shape of the cropped training cases on that grid.
    clip_hu
        0.5th and 99.5th percentile of the HU of all foreground voxels.
    mean_hu, sd_hu
        Mean and standard deviation of those voxels after clipping.
    organs
        The organ tuple of the labels.
    """

    spacing_mm: Vector
    median_shape: Index
    clip_hu: tuple[float, float]
    mean_hu: float
    sd_hu: float
    organs: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    """A preprocessed case with what is needed to go back.

    ``image`` (float32, normalised) and ``labels`` (uint8) have shape (X, Y, Z) on the plan's grid;
    ``box`` is the half-open crop on the native grid of shape ``native_shape``.
    """

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    box: tuple[tuple[int, int], ...]
    native_shape: Index
    native_spacing_mm: Vector
    labelled: frozenset[str]


def body_box(image_hu: NDArray[np.float32]) -> tuple[tuple[int, int], ...]:
    """Return the half-open box of the largest component above ``BODY_HU``; the whole volume if there is none."""
    components = cc3d.largest_k((image_hu > BODY_HU).astype(np.uint8), k=1, connectivity=6)
    if not components.any():
        return tuple((0, n) for n in image_hu.shape)
    spans = []
    for axis in range(3):
        along = np.flatnonzero(components.any(axis=tuple(a for a in range(3) if a != axis)))
        spans.append((int(along[0]), int(along[-1]) + 1))
    return tuple(spans)


def make_plan(cases: Iterable[Case]) -> Plan:
    """Derive the plan from training cases.

    Raises
    ------
    DataError
        When there is no case, or no labelled voxel in any of them.
    """
    spacings, extents, samples = [], [], []
    organs: tuple[str, ...] = ()
    for case in cases:
        box = body_box(case.image_hu)
        spacings.append(case.spacing_mm)
        extents.append([(stop - start) * mm for (start, stop), mm in zip(box, case.spacing_mm, strict=True)])
        samples.append(case.image_hu[case.labels > 0])
        organs = case.organs
    if not spacings or not sum(s.size for s in samples):
        raise DataError("cannot plan: no training case with a labelled voxel; check the data folder")
    grid = np.asarray(spacings)
    in_plane = np.median(grid[:, :2])
    spacing = (float(in_plane), float(in_plane), float(np.percentile(grid[:, 2], 10)))
    foreground = np.concatenate(samples)
    low, high = (float(v) for v in np.percentile(foreground, (0.5, 99.5)))
    clipped = np.clip(foreground, low, high)
    shape = np.median(np.round(np.asarray(extents) / spacing), axis=0).astype(int)
    return Plan(
        spacing_mm=spacing,
        median_shape=(int(shape[0]), int(shape[1]), int(shape[2])),
        clip_hu=(low, high),
        mean_hu=float(clipped.mean(dtype=np.float64)),
        sd_hu=float(max(clipped.std(dtype=np.float64), 1e-3)),
        organs=organs,
    )


def resample_image(image: NDArray[np.float32], shape: Sequence[int], order: int = 3) -> NDArray[np.float32]:
    """Resample to ``shape`` by splines of that order, voxel edges aligned, borders repeated."""
    if tuple(shape) == image.shape:
        return image.astype(np.float32)
    factors = [n / o for n, o in zip(shape, image.shape, strict=True)]
    resampled = zoom(image, tuple(factors), order=order, mode="nearest", grid_mode=True)  # type: ignore[call-overload]
    return np.asarray(resampled, dtype=np.float32)


def resample_labels(labels: NDArray[np.uint8], shape: Sequence[int], num_classes: int) -> NDArray[np.uint8]:
    """Resample a label map: linear share of each class, background too, then the largest share."""
    if tuple(shape) == labels.shape:
        return labels.copy()
    best = np.full(tuple(shape), -1.0, np.float32)
    result = np.zeros(tuple(shape), np.uint8)
    for value in range(num_classes):
        if value and not (labels == value).any():
            continue
        share = resample_image((labels == value).astype(np.float32), shape, order=1)
        winner = share > best
        best[winner], result[winner] = share[winner], value
    return result


def preprocess_case(case: Case, plan: Plan) -> Prepared:
    """Crop, resample, clip and normalise one case."""
    box = body_box(case.image_hu)
    inside = tuple(slice(start, stop) for start, stop in box)
    shape = tuple(
        max(1, round((stop - start) * mm / to))
        for (start, stop), mm, to in zip(box, case.spacing_mm, plan.spacing_mm, strict=True)
    )
    image = np.clip(resample_image(case.image_hu[inside], shape), *plan.clip_hu)
    x, y, z = case.image_hu.shape
    return Prepared(
        name=case.name,
        image=((image - plan.mean_hu) / plan.sd_hu).astype(np.float32),
        labels=resample_labels(case.labels[inside], shape, len(plan.organs) + 1),
        box=box,
        native_shape=(x, y, z),
        native_spacing_mm=case.spacing_mm,
        labelled=case.labelled,
    )


def restore_probabilities(probabilities: NDArray[np.float32], prepared: Prepared) -> NDArray[np.uint8]:
    """Resample class probabilities (C, X, Y, Z) to the native grid and return the label map there."""
    inside = tuple(slice(start, stop) for start, stop in prepared.box)
    shape = tuple(stop - start for start, stop in prepared.box)
    native = np.stack([resample_image(p, shape, order=1) for p in probabilities])
    labels = np.zeros(prepared.native_shape, np.uint8)
    labels[inside] = native.argmax(axis=0)
    return labels


# The cache: one file a case in a folder named by the digest of all that matters.


def cache_digest(dataset_digest: str, plan: Plan) -> str:
    """Return the digest that names a cache: data, plan and version of the preprocessing."""
    text = json.dumps([dataset_digest, asdict(plan), VERSION, BODY_HU], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def save_prepared(path: Path, prepared: Prepared) -> None:
    """Write one preprocessed case; the image is kept in half precision (a step of about 0.5 HU at most)."""
    write_atomically(
        path,
        lambda part: np.savez(
            part,
            image=prepared.image.astype(np.float16),
            labels=prepared.labels,
            box=np.asarray(prepared.box),
            native_shape=np.asarray(prepared.native_shape),
            native_spacing_mm=np.asarray(prepared.native_spacing_mm),
            labelled=np.asarray(sorted(prepared.labelled), dtype=str),
        ),
    )


def load_prepared(path: Path) -> Prepared:
    """Read one preprocessed case.

    Raises
    ------
    DataError
        When the file is missing or damaged.
    """
    try:
        with path.open("rb") as handle, np.load(handle) as file:
            box, shape, spacing = file["box"], file["native_shape"], file["native_spacing_mm"]
            return Prepared(
                name=path.stem,
                image=file["image"].astype(np.float32),
                labels=file["labels"],
                box=tuple((int(a), int(b)) for a, b in box),
                native_shape=(int(shape[0]), int(shape[1]), int(shape[2])),
                native_spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
                labelled=frozenset(str(name) for name in file["labelled"]),
            )
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as fault:
        reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise DataError(
            f"case {path.stem}, cache file {path}: cannot be read ({reason}); delete it and prepare again"
        ) from None


def _prepare_one(task: tuple[Dataset, str, Plan, Path]) -> str:
    dataset, name, plan, path = task
    save_prepared(path, preprocess_case(dataset.load(name), plan))
    return name


def prepare(
    dataset: Dataset,
    folder: Path,
    *,
    workers: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
    change: Callable[[Plan], Plan] | None = None,
) -> tuple[Plan, Path]:
    """Preprocess every case of a data set once; what is already in the cache stays.

    Parameters
    ----------
    folder
        The cache's root; cases go to ``folder/<dataset>-<digest>/<case>.npz``.
    workers
        Number of processes.
    progress
        Called with (what, done, total).
    change
        Replaces numbers of the derived plan, such as a fixed spacing.

    Returns
    -------
    plan, cache
        The plan and the folder of this data set's cases.
    """
    split = dataset.split()
    training = split["train"]
    names = [name for part in split.values() for name in part]
    report = progress or (lambda _what, _done, _total: None)

    def read_training() -> Iterable[Case]:
        for done, name in enumerate(training, start=1):
            yield dataset.load(name)
            report("plan", done, len(training))

    plan = make_plan(read_training())
    plan = change(plan) if change else plan
    cache = folder / f"{dataset.name}-{cache_digest(dataset.digest(), plan)}"
    missing = [(dataset, name, plan, cache / f"{name}.npz") for name in names if not (cache / f"{name}.npz").exists()]
    if workers > 1 and len(missing) > 1:
        with ProcessPoolExecutor(workers) as pool:
            for done, _ in enumerate(pool.map(_prepare_one, missing), start=1):
                report("preprocess", done, len(missing))
    else:
        for done, task in enumerate(missing, start=1):
            _prepare_one(task)
            report("preprocess", done, len(missing))
    write_json(cache / "plan.json", asdict(plan))
    return plan, cache


def load_plan(cache: Path) -> Plan:
    """Read the plan that lies beside the cases of a cache."""
    try:
        stored = json.loads((cache / "plan.json").read_text())
        for key in ("spacing_mm", "median_shape", "clip_hu", "organs"):
            stored[key] = tuple(stored[key])
        return Plan(**stored)
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise DataError(f"cache {cache}: no usable plan.json ({fault}); run hnlib prepare again") from None
