"""Label maps of a data set on one grid, as training would see them: what a patch is planned on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hnlib.cases import Dataset
from hnlib.errors import ConfigError, DataError
from hnlib.imbalance.scans import Scan
from hnlib.preprocess import body_box, resample_labels, target_spacing

Vector = tuple[float, float, float]
_Found = tuple[str, NDArray[np.uint8], Vector, frozenset[str]]


def planning_cases(dataset: Dataset) -> tuple[str, ...]:
    """Return the cases on which a patch is planned: those for training, or all where no part is for training."""
    split = dataset.split()
    return split["train"] or tuple(name for part in split.values() for name in part)


def scans_on_grid(
    dataset: Dataset,
    cases: Sequence[str],
    *,
    spacing_mm: Vector | None = None,
    outlines_only: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Vector, list[Scan]]:
    """Return the label maps of cases, cropped to the body and brought to one grid.

    Parameters
    ----------
    cases
        Names of cases.
    spacing_mm
        Voxel edges along X, Y, Z; None takes those of `hnlib.preprocess.target_spacing`.
    outlines_only
        Read no CT. The label maps are then not cropped to the body, so that "uniform in position" means the whole
        scan with its air.
    progress
        Called with (what, done, total).

    Returns
    -------
    spacing_mm, scans
        Voxel edges along X, Y, Z, and one scan a case.

    Raises
    ------
    ConfigError
        When a voxel edge is not positive.
    DataError
        When there is no case, or a file is missing or broken.
    """
    if spacing_mm is not None and not (min(spacing_mm) > 0 and max(spacing_mm) < float("inf")):
        raise ConfigError(f"spacing {spacing_mm} mm: three positive numbers are needed")
    if not cases:
        raise DataError("no case to plan on: check the folder and the split of the data set")
    found: list[_Found] = []
    for name in cases:
        found.append(_outlines(dataset, name) if outlines_only else _cropped(dataset, name))
        if progress:
            progress("read", len(found), len(cases))
    grid = spacing_mm or target_spacing([spacing for _, _, spacing, _ in found])
    return grid, [_resampled(one, grid, dataset.organs) for one in found]


def _cropped(dataset: Dataset, name: str) -> _Found:
    case = dataset.load(name)
    inside = tuple(slice(start, stop) for start, stop in body_box(case.image_hu))
    return name, case.labels[inside].copy(), case.spacing_mm, case.labelled


def _outlines(dataset: Dataset, name: str) -> _Found:
    read: Any = getattr(dataset, "load_labels", None)
    found = read(name) if read is not None else None
    if not isinstance(found, tuple):  # no files of their own: an image comes with the outlines anyway
        case = dataset.load(name)
        return name, case.labels, case.spacing_mm, case.labelled
    volume, labelled = found
    return name, volume.array.astype(np.uint8), volume.spacing_mm, labelled


def _resampled(found: _Found, grid: Vector, organs: tuple[str, ...]) -> Scan:
    name, labels, spacing, labelled = found
    shape = [max(1, round(n * mm / to)) for n, mm, to in zip(labels.shape, spacing, grid, strict=True)]
    return Scan(name, resample_labels(labels, shape, len(organs) + 1), organs, labelled)
