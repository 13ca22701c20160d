"""Exact expectations over the law of patch centres: how much of each class a patch holds, and whether any.

No random numbers. The law of centres is pushed through the clamp to the law Q of start positions
(`hnlib.sampling.CentreDistribution.start_probabilities`); everything else is sums of Q over boxes,
taken one axis at a time as differences of cumulative sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hnlib.sampling import CentreDistribution, Labels, Triple, as_triple, centre_rule

Axis = NDArray[np.intp]
Span = tuple[int, int]
Box = tuple[Span, Span, Span]


def expected_ratios(
    labels: Labels,
    num_classes: int,
    patch_size: Sequence[int],
    centres: CentreDistribution | str,
    image_hu: NDArray[np.floating[Any]] | None = None,
) -> NDArray[np.float64]:
    """Return the expected share of each class in a patch, exactly.

    Voxels that pad a patch longer than the volume count as background.

    Parameters
    ----------
    labels
        Label map of one case, shape (X, Y, Z), integers in 0..``num_classes`` - 1, 0 is background.
    num_classes
        Number of classes, background included.
    patch_size
        Voxels of the patch along X, Y, Z, each at least 1; may exceed the volume.
    centres
        The law from which patch centres are drawn, or its name in `hnlib.sampling.RULES`.
    image_hu
        CT numbers in HU, shape (X, Y, Z); needed where ``centres`` is gated by HU.

    Returns
    -------
    ndarray
        Shape (``num_classes``,), float64, in 0..1, sum 1. Class 0 is what the others leave.

    Raises
    ------
    ValueError
        When a label lies outside the classes, a patch size is below 1, the labels are no 3D integer
        array, or the image is missing or of another shape.

    Notes
    -----
    With Q the law of patch starts and w the patch size, P(voxel v in patch) is the sum of Q over
    starts in (v - w, v], so E[voxels of class k] is the sum of P over the voxels of class k, and the
    share is that over the patch volume, which is the same for every patch.

    A patch of random contents has these ratios as its mean; the pooled ratio of many patches of one
    case, which Tappeiner et al. 2022 estimate by drawing, converges to them.

    Examples
    --------
    Six voxels in a row, the last one an organ, patches of four, three positions equally likely; the
    organ lies in the last of them alone, as one voxel of four:

    >>> from hnlib.sampling import RULES
    >>> labels = np.array([0, 0, 0, 0, 0, 1], dtype=np.uint8).reshape(6, 1, 1)
    >>> expected_ratios(labels, 2, (4, 1, 1), RULES["uniform"]).round(6).tolist()
    [0.916667, 0.083333]
    """
    patch, starts = _starts(labels, num_classes, patch_size, centres, image_hu)
    ratios = np.zeros(num_classes, dtype=np.float64)
    foreground = np.flatnonzero(labels != 0)
    if foreground.size:
        box = _bounding_box(foreground, labels.shape)
        inside = starts
        for axis, (first, last) in enumerate(box):
            voxel = np.arange(first, last)
            low = np.maximum(voxel - patch[axis] + 1, 0)
            high = np.minimum(voxel + 1, starts.shape[axis])
            inside = _range_sums(inside, axis, low, high)
        block = labels[_slices(box)].reshape(-1)
        voxels = np.bincount(block, weights=inside.reshape(-1), minlength=num_classes)
        ratios[1:] = voxels[1:] / (patch[0] * patch[1] * patch[2])
    ratios[0] = max(0.0, 1.0 - float(ratios[1:].sum()))
    return ratios


def presence(
    labels: Labels,
    num_classes: int,
    patch_size: Sequence[int],
    centres: CentreDistribution | str,
    image_hu: NDArray[np.floating[Any]] | None = None,
) -> NDArray[np.float64]:
    """Return the probability that a patch holds at least one voxel of each class, exactly.

    Parameters and errors are those of `expected_ratios`.

    Returns
    -------
    ndarray
        Shape (``num_classes``,), float64, in 0..1; 0 for a class that the case does not hold. A
        padded patch holds background. One over presence is the mean number of patches of this case
        between two sightings of the class.

    Examples
    --------
    >>> from hnlib.sampling import RULES
    >>> labels = np.array([0, 0, 0, 0, 0, 1], dtype=np.uint8).reshape(6, 1, 1)
    >>> presence(labels, 2, (4, 1, 1), RULES["uniform"]).round(6).tolist()
    [1.0, 0.333333]
    """
    patch, starts = _starts(labels, num_classes, patch_size, centres, image_hu)
    chance = np.zeros(num_classes, dtype=np.float64)
    chance[0] = 1.0
    foreground = np.flatnonzero(labels != 0)
    if not foreground.size:
        return chance
    chance[0] -= _all_foreground(labels, patch, starts, _bounding_box(foreground, labels.shape))
    classes = labels.reshape(-1)[foreground]
    for label in np.unique(classes):
        box = _bounding_box(foreground[classes == label], labels.shape)
        reach = _reach(box, patch, starts)
        seen = _seen(labels[_slices(box)] == label, box, reach, patch)
        chance[label] = min(1.0, float(starts[_slices(reach)][seen].sum()))
    return chance


def ratio_variance(
    labels: Labels,
    num_classes: int,
    patch_size: Sequence[int],
    centres: CentreDistribution | str,
    image_hu: NDArray[np.floating[Any]] | None = None,
) -> NDArray[np.float64]:
    """Return the variance of each class's share of a patch, over the patches of one case, exactly.

    Parameters and errors are those of `expected_ratios`.

    Returns
    -------
    ndarray
        Shape (``num_classes``,), float64, in 0..1/4. The mean of n patches drawn independently has this
        variance over n, so it says how many patches a sampled ratio needs for a precision.

    Notes
    -----
    E[count^2] - E[count]^2 over the squared patch volume, both moments of the deviation from the
    expected count, so that nothing cancels. The background's count is the patch volume less that of
    the foreground.

    Examples
    --------
    >>> from hnlib.sampling import RULES
    >>> labels = np.array([0, 0, 0, 0, 0, 1], dtype=np.uint8).reshape(6, 1, 1)
    >>> ratio_variance(labels, 2, (4, 1, 1), RULES["uniform"]).round(6).tolist()
    [0.013889, 0.013889]
    """
    patch, starts = _starts(labels, num_classes, patch_size, centres, image_hu)
    variance = np.zeros(num_classes, dtype=np.float64)
    present = np.unique(labels[labels != 0]).tolist()
    for label, mask in [(0, labels != 0), *((label, labels == label) for label in present)]:
        if not mask.any():
            continue
        box = _bounding_box(np.flatnonzero(mask), labels.shape)
        reach = _reach(box, patch, starts)
        counts, law = _counts(mask[_slices(box)], box, reach, patch), starts[_slices(reach)]
        mean = float((law * counts).sum())
        second = float((law * (counts - mean) ** 2).sum()) + max(0.0, 1.0 - float(law.sum())) * mean**2
        variance[label] = second / (patch[0] * patch[1] * patch[2]) ** 2
    return variance


def _starts(
    labels: Labels,
    num_classes: int,
    patch_size: Sequence[int],
    centres: CentreDistribution | str,
    image_hu: NDArray[np.floating[Any]] | None,
) -> tuple[Triple, NDArray[np.float64]]:
    """Return the checked patch size and the probability of every patch position."""
    _check_classes(labels, num_classes)
    patch = as_triple("patch_size", patch_size)
    return patch, centre_rule(centres).start_probabilities(labels, patch, image_hu)


def _reach(box: Box, patch: Triple, starts: NDArray[np.float64]) -> Box:
    """Return the starts whose patch can meet a box."""
    spans = [
        (max(first - wide + 1, 0), min(last, count))
        for (first, last), wide, count in zip(box, patch, starts.shape, strict=True)
    ]
    return spans[0], spans[1], spans[2]


def _all_foreground(labels: Labels, patch: Triple, starts: NDArray[np.float64], box: Box) -> float:
    """Return the probability of a patch without background: it must lie in the foreground's box."""
    spans = [(first, last - wide + 1) for (first, last), wide in zip(box, patch, strict=True)]
    if any(first >= last for first, last in spans):
        return 0.0
    reach = (spans[0], spans[1], spans[2])
    seen = _seen(labels[_slices(box)] == 0, box, reach, patch)
    return min(1.0, float(starts[_slices(reach)][~seen].sum()))


def _seen(mask: NDArray[np.bool_], box: Box, reach: Box, patch: Triple) -> NDArray[np.bool_]:
    """Say for each start in ``reach`` whether its patch meets the mask, which fills ``box``."""
    for axis, (low, high) in enumerate(_ranges(box, reach, patch)):
        mask = _range_sums(mask, axis, low, high) > 0
    return mask


def _counts(mask: NDArray[np.bool_], box: Box, reach: Box, patch: Triple) -> NDArray[Any]:
    """Return for each start in ``reach`` how many voxels of the mask, which fills ``box``, its patch holds."""
    counts: NDArray[Any] = mask
    for axis, (low, high) in enumerate(_ranges(box, reach, patch)):
        counts = _range_sums(counts, axis, low, high)
    return counts


def _ranges(box: Box, reach: Box, patch: Triple) -> Iterator[tuple[Axis, Axis]]:
    """Yield, axis by axis, the range of the box that the patch of each start in ``reach`` covers."""
    for (first, last), (begin, end), wide in zip(box, reach, patch, strict=True):
        start = np.arange(begin, end)
        # Of a patch longer than the volume the single start is number 0, and clipping to the box
        # gives it the whole axis, as it should.
        yield np.clip(start, first, last) - first, np.clip(start + wide, first, last) - first


def _range_sums(values: NDArray[Any], axis: int, low: Axis, high: Axis) -> NDArray[Any]:
    """Return the sums of ``values`` along an axis over the ranges low..high - 1, by cumulative sums."""
    shape = list(values.shape)
    shape[axis] += 1
    total = np.zeros(shape, dtype=np.float64 if values.dtype == np.float64 else np.int32)
    np.cumsum(values, axis=axis, out=total[(slice(None),) * axis + (slice(1, None),)])
    # All ranges lie inside; "clip" spares the bounds check that buffers, half of the time here.
    sums = np.take(total, high, axis=axis, mode="clip")
    sums -= np.take(total, low, axis=axis, mode="clip")
    return sums


def _bounding_box(flat: NDArray[np.intp], shape: tuple[int, ...]) -> Box:
    """Return the half-open box of the voxels with these flat indices."""
    x, y, z = np.unravel_index(flat, shape)
    spans = [(int(axis.min()), int(axis.max()) + 1) for axis in (x, y, z)]
    return spans[0], spans[1], spans[2]


def _slices(box: Box) -> tuple[slice, slice, slice]:
    x, y, z = box
    return slice(*x), slice(*y), slice(*z)


def _check_classes(labels: Labels, num_classes: int) -> None:
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}; at least 1, for the background, is needed")
    if labels.size and (int(labels.min()) < 0 or int(labels.max()) >= num_classes):
        raise ValueError(
            f"labels lie in {int(labels.min())}..{int(labels.max())}; "
            f"0..{num_classes - 1} is needed for num_classes={num_classes}"
        )
