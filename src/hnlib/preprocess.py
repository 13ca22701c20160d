"""From a scan on its own grid to a normalised array on the study's grid, and back.

Crop to the body, resample to the planned spacing, clip and normalise with the training set's
foreground statistics (Isensee et al. 2021). Labels are resampled class by class and take the class
with the largest share of the voxel, so that no gap opens between neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, zoom

from hnlib.cases import Case
from hnlib.errors import DataError

#: Voxels above this belong to the body; the largest component is kept, without the table.
BODY_HU = -300.0
#: No scan is larger on any grid in use; a wrong spacing would take all memory.
MAX_VOXELS = 2**29
Vector = tuple[float, float, float]
Index = tuple[int, int, int]
Scalar = TypeVar("Scalar", bound=np.generic)
_Weights = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]


@dataclass(frozen=True)
class Plan:
    """The grid and the intensity scale of a study, derived from training cases alone.

    Attributes
    ----------
    spacing_mm
        Target voxel edges along X, Y, Z, as the rule derives them.
    median_shape
        Median shape of the cropped training cases on that grid.
    clip_hu
        Lowest and highest HU kept: percentiles of the HU of all foreground voxels, or what the rule sets.
    mean_hu, sd_hu
        What is subtracted and divided by after clipping: mean and standard deviation of those voxels, or the rule's.
    organs
        The organ tuple of the labels.
    crop
        Voxels along X, Y, Z on that grid that every case is cut or padded to, about the middle of the body; None
        leaves each its body.
    """

    spacing_mm: Vector
    median_shape: Index
    clip_hu: tuple[float, float]
    mean_hu: float
    sd_hu: float
    organs: tuple[str, ...]
    crop: Index | None = None


@dataclass(frozen=True)
class PlanRule:
    """How grid, intensity scale and crop of a study follow from its training cases.

    Attributes
    ----------
    edge_mm
        Voxel edge of an isotropic grid; ``median``: the edges of `target_spacing`; ``isotropic``: the cube of the
        same volume, so that resampling neither adds nor loses voxels.
    window_hu
        Range of HU; scaled to a length of 1 with the mean of the training voxels inside the crop at 0. None takes the
        percentiles, mean and standard deviation of the foreground.
    crop_mm
        Least size of a fixed crop along X, Y, Z; it grows to the next multiple of ``divisor`` voxels.
    """

    edge_mm: float | str = "median"
    window_hu: tuple[float, float] | None = None
    crop_mm: Vector | None = None
    divisor: int = 8

    def spacing(self, spacings_mm: Sequence[Vector]) -> Vector:
        """Return the voxel edges of the grid for scans of these."""
        median = target_spacing(spacings_mm)
        if self.edge_mm == "median":
            return median
        edge = float(np.prod(median) ** (1 / 3)) if self.edge_mm == "isotropic" else float(self.edge_mm)
        return edge, edge, edge

    def crop(self, spacing_mm: Vector) -> Index | None:
        """Return the voxels of the crop on a grid, None without one."""
        if self.crop_mm is None:
            return None
        x, y, z = (
            self.divisor * math.ceil(round(mm / edge / self.divisor, 6))
            for mm, edge in zip(self.crop_mm, spacing_mm, strict=True)
        )
        return x, y, z


#: Name to rule. ``coarse_to_fine`` is Pu et al.'s for scans of 4 x 4 x 2.5 mm: their window 1200/200, (I + 400) / 1200
#: less the training mean; isotropic at the scans' own voxel volume, as 1 mm would be forty times the voxels and no
#: detail; the crop holds the organs of the training patients, who are scanned to the thorax and not to the neck.
#: ``coarse_to_fine_print`` has the printed numbers: 1 mm, where they say so of x and y alone, and 280 x 280 x 280.
PLAN_RULES: Mapping[str, PlanRule] = MappingProxyType(
    {
        "nnunet": PlanRule(),
        "coarse_to_fine": PlanRule("isotropic", (-400.0, 800.0), (208.0, 280.0, 376.0)),
        "coarse_to_fine_print": PlanRule(1.0, (-400.0, 800.0), (280.0, 280.0, 280.0)),
    }
)


@dataclass(frozen=True)
class Prepared:
    """A preprocessed case with what is needed to go back.

    ``image`` (float32, normalised) and ``labels`` (uint8) have shape (X, Y, Z) on the plan's grid, in
    memory or, from `hnlib.cache.open_prepared`, on disk and read where they are sliced; ``low`` is the
    smallest value of the image, with which patches are padded; ``box`` is the half-open crop on the
    native grid of shape ``native_shape``, which a fixed crop may leave.
    """

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.uint8]
    low: float
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


def crop_box(
    image_hu: NDArray[np.float32], spacing_mm: Vector, crop_mm: Sequence[float]
) -> tuple[tuple[int, int], ...]:
    """Return a half-open box of that size about the middle of the body; where the scan is smaller, it leaves it."""
    box = []
    for (low, high), edge, mm in zip(body_box(image_hu), spacing_mm, crop_mm, strict=True):
        width = max(1, round(mm / edge))
        start = round((low + high) / 2 - width / 2)
        box.append((start, start + width))
    return tuple(box)


def make_plan(cases: Iterable[Case], rule: PlanRule = PLAN_RULES["nnunet"]) -> Plan:
    """Derive the plan from training cases.

    Raises
    ------
    DataError
        When there is no case, or no labelled voxel in any of them.
    """
    spacings, extents, samples, means = [], [], [], []
    organs: tuple[str, ...] = ()
    for case in cases:
        box = body_box(case.image_hu)
        spacings.append(case.spacing_mm)
        extents.append([(stop - start) * mm for (start, stop), mm in zip(box, case.spacing_mm, strict=True)])
        foreground = case.image_hu[case.labels > 0]
        samples.append(np.unique(np.round(foreground * 16) / 16, return_counts=True))
        if rule.window_hu:
            around = crop_box(case.image_hu, case.spacing_mm, rule.crop_mm) if rule.crop_mm else box
            means.append(_clipped_sum(case.image_hu, around, rule.window_hu))
        organs = case.organs
    if not spacings or not sum(values.size for values, _ in samples):
        raise DataError("cannot plan: no training case with a labelled voxel; check the data folder")
    spacing = rule.spacing(spacings)
    if rule.window_hu:
        total, count = np.sum(means, axis=0)
        (low, high), mean = rule.window_hu, float(total / count)
        sd = high - low
    else:
        low, high, mean, sd = _intensity_scale(*(np.concatenate(parts) for parts in zip(*samples, strict=True)))
    shape = np.median(np.round(np.asarray(extents) / spacing), axis=0).astype(int)
    crop = rule.crop(spacing)
    return Plan(
        spacing_mm=spacing,
        median_shape=crop or (int(shape[0]), int(shape[1]), int(shape[2])),
        clip_hu=(low, high),
        mean_hu=mean,
        sd_hu=max(sd, 1e-3),
        organs=organs,
        crop=crop,
    )


def _clipped_sum(
    image_hu: NDArray[np.float32], box: tuple[tuple[int, int], ...], window_hu: tuple[float, float]
) -> tuple[float, int]:
    """Return the sum of the clipped HU of the voxels of a scan inside a box, and how many they are."""
    part = np.clip(image_hu[tuple(slice(max(start, 0), stop) for start, stop in box)], *window_hu)
    return float(part.sum(dtype=np.float64)), part.size


def target_spacing(spacings_mm: Sequence[Vector]) -> Vector:
    """Return the voxel edges that scans are brought to: median in plane, 10th percentile along Z.

    Examples
    --------
    >>> target_spacing([(1.0, 1.0, 2.0), (1.0, 1.0, 2.0), (2.0, 2.0, 3.0)])
    (1.0, 1.0, 2.0)
    """
    grid = np.asarray(spacings_mm)
    in_plane = float(np.median(grid[:, :2]))
    return in_plane, in_plane, float(np.percentile(grid[:, 2], 10))


def _intensity_scale(values: NDArray[np.float32], counts: NDArray[np.intp]) -> tuple[float, float, float, float]:
    """Return the 0.5th and 99.5th percentile of values that occur so often, and mean and SD between them."""
    order = np.argsort(values, kind="stable")
    values, upto = values[order].astype(np.float64), np.cumsum(counts[order])

    def percentile(share: float) -> float:
        place = share * (upto[-1] - 1)
        below, above = values[np.searchsorted(upto, [np.floor(place), np.ceil(place)], side="right")]
        return float(below + (above - below) * (place - np.floor(place)))

    low, high = percentile(0.005), percentile(0.995)
    clipped = np.clip(values, low, high)
    weights = counts[order] / upto[-1]
    # Not a dot product: its last digits hang on the number of threads, and they name the cache.
    mean = math.fsum(clipped * weights)
    return low, high, mean, math.sqrt(math.fsum(np.square(clipped - mean) * weights))


def resample_image(image: NDArray[np.float32], shape: Sequence[int], order: int = 3) -> NDArray[np.float32]:
    """Resample to ``shape`` by splines of that order, voxel edges aligned, borders repeated."""
    if tuple(shape) == image.shape:
        return image.astype(np.float32)
    factors = [n / o for n, o in zip(shape, image.shape, strict=True)]
    resampled = zoom(image, tuple(factors), order=order, mode="nearest", grid_mode=True)  # type: ignore[call-overload]
    return np.asarray(resampled, dtype=np.float32)


def resample_labels(labels: NDArray[np.uint8], shape: Sequence[int], num_classes: int) -> NDArray[np.uint8]:
    """Resample a label map: linear share of each class, background too, then the largest share.

    The shares of a voxel sum to 1, so that the background has what the organs leave, and an organ is
    computed around its own box alone. In a tie the lower value wins.
    """
    if tuple(shape) == labels.shape:
        return labels.copy()
    axes = [_linear_weights(old, new) for old, new in zip(labels.shape, shape, strict=True)]
    best, total = np.zeros(tuple(shape), np.float32), np.zeros(tuple(shape), np.float32)
    result = np.zeros(tuple(shape), np.uint8)
    for value, box in enumerate(find_objects(labels, num_classes - 1), start=1):
        reach = [_reach(weights, span) for weights, span in zip(axes, box, strict=True)] if box else []
        if not reach or not all(part.size for part in reach):
            continue
        share = _share(labels, value, axes, reach)
        place = tuple(slice(part[0], part[-1] + 1) for part in reach)
        wins = share > best[place]
        best[place][wins], result[place][wins] = share[wins], value
        total[place] += share
    result[1 - total >= best] = 0
    return result


def _linear_weights(old: int, new: int) -> _Weights:
    """Return, for each voxel of the new axis, its two neighbours on the old one and the weight of the second."""
    where = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    first = np.floor(where).astype(np.intp)
    return first, np.minimum(first + 1, old - 1), (where - first).astype(np.float32)


def _reach(weights: _Weights, span: slice) -> NDArray[np.intp]:
    """Return the voxels of the new axis that have a neighbour in a span of the old one."""
    first, second, _ = weights
    touched = np.flatnonzero((second >= span.start) & (first < span.stop))
    return np.arange(touched[0], touched[-1] + 1) if touched.size else touched


def _share(
    labels: NDArray[np.uint8], value: int, axes: Sequence[_Weights], reach: Sequence[NDArray[np.intp]]
) -> NDArray[np.float32]:
    """Return the share of one class in the voxels of the new grid within reach."""
    crop = tuple(slice(first[at[0]], second[at[-1]] + 1) for (first, second, _), at in zip(axes, reach, strict=True))
    share: NDArray[np.float32] = (labels[crop] == value).astype(np.float32)
    for axis, ((first, second, weight), at) in enumerate(zip(axes, reach, strict=True)):
        start = first[at[0]]
        along = weight[at].reshape([-1 if k == axis else 1 for k in range(3)])
        share = share.take(first[at] - start, axis) * (1 - along) + share.take(second[at] - start, axis) * along
    return share


def preprocess_case(case: Case, plan: Plan) -> Prepared:
    """Crop, resample, clip and normalise one case.

    Raises
    ------
    DataError
        When the case has more than ``MAX_VOXELS`` on the plan's grid.
    """
    box, shape = _box_and_shape(case, plan)
    if math.prod(shape) > MAX_VOXELS:
        raise DataError(
            f"case {case.name}: voxel edges of {' x '.join(f'{mm:.3g}' for mm in case.spacing_mm)} mm make the scan "
            f"too large, {' x '.join(map(str, shape))} voxels on the grid of the study; export it with the true ones"
        )
    image = np.clip(resample_image(_cut(case.image_hu, box, plan.clip_hu[0]), shape), *plan.clip_hu)
    image = ((image - plan.mean_hu) / plan.sd_hu).astype(np.float32)
    x, y, z = case.image_hu.shape
    return Prepared(
        name=case.name,
        image=image,
        labels=resample_labels(_cut(case.labels, box, 0), shape, len(plan.organs) + 1),
        low=float(image.min()),
        box=box,
        native_shape=(x, y, z),
        native_spacing_mm=case.spacing_mm,
        labelled=case.labelled,
    )


def _box_and_shape(case: Case, plan: Plan) -> tuple[tuple[tuple[int, int], ...], Index]:
    """Return what is cut out of a scan, and its shape on the plan's grid."""
    if plan.crop:
        size_mm = [n * mm for n, mm in zip(plan.crop, plan.spacing_mm, strict=True)]
        return crop_box(case.image_hu, case.spacing_mm, size_mm), plan.crop
    box = body_box(case.image_hu)
    x, y, z = (
        max(1, round((stop - start) * mm / to))
        for (start, stop), mm, to in zip(box, case.spacing_mm, plan.spacing_mm, strict=True)
    )
    return box, (x, y, z)


def _cut(array: NDArray[Scalar], box: tuple[tuple[int, int], ...], fill: float) -> NDArray[Scalar]:
    """Return the part of a scan in a box, with ``fill`` where the box leaves it."""
    inside = tuple(slice(max(start, 0), max(stop, 0)) for start, stop in box)
    beyond = [(max(-start, 0), max(stop - n, 0)) for (start, stop), n in zip(box, array.shape, strict=True)]
    return np.pad(array[inside], beyond, constant_values=fill) if np.any(beyond) else array[inside]


def restore_probabilities(probabilities: NDArray[np.float32], prepared: Prepared) -> NDArray[np.uint8]:
    """Resample class probabilities (C, X, Y, Z) to the native grid and return the label map there."""
    shape = tuple(stop - start for start, stop in prepared.box)
    best = resample_image(probabilities[0], shape, order=1)
    winner = np.zeros(shape, np.uint8)
    for value in range(1, len(probabilities)):
        share = resample_image(probabilities[value], shape, order=1)
        winner[share > best] = value
        np.maximum(best, share, out=best)
    labels = np.zeros(prepared.native_shape, np.uint8)
    spans = list(zip(prepared.box, prepared.native_shape, strict=True))
    inside = tuple(slice(max(start, 0), min(stop, n)) for (start, stop), n in spans)
    labels[inside] = winner[tuple(slice(max(-start, 0), min(stop, n) - start) for (start, stop), n in spans)]
    return labels
