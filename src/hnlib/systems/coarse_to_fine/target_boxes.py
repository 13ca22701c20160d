"""Where an organ is: the smallest box that holds its probability, at the organ's fixed size, or the training set's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cc3d
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from torch import Tensor, nn

from hnlib.errors import DataError
from hnlib.preprocess import Prepared
from hnlib.sampling import patch_start

Span = tuple[int, int]
Box = tuple[Span, Span, Span]
Triple = tuple[int, int, int]
#: Of an organ's smallest volume in training: with less the map is taken to have missed it.
LEAST_MASS = 0.25


@dataclass(frozen=True)
class TargetBox:
    """First voxel and size of an organ's box; whether it is the training set's, as the map did not show the organ."""

    start: Triple
    size: Triple
    fallback: bool = False

    def recall(self, mask: NDArray[np.bool_]) -> float:
        """Return the fraction of an organ's voxels inside; NaN of an empty mask."""
        inside = mask[tuple(slice(max(s, 0), max(s + n, 0)) for s, n in zip(self.start, self.size, strict=True))]
        return float(inside.sum() / mask.sum()) if mask.any() else float("nan")


def smallest_box(mass: NDArray[np.floating], share: float = 0.99) -> Box:
    """Return the half-open box of least volume that holds a share of the mass; of several, one with the most mass.

    Parameters
    ----------
    mass
        Shape (X, Y, Z), none negative.
    share
        In (0, 1].

    Raises
    ------
    ValueError
        When there is no mass, some is negative or not finite, or the share is impossible.

    Notes
    -----
    Exact. A box may leave out at most ``1 - share`` of the mass, so along each axis it begins before more than that
    lies below it and ends after all but that; of the pairs left along X and Y, a summed-area table gives the mass by
    slice, and for each first slice the last one that suffices.

    Examples
    --------
    >>> mass = np.zeros((6, 6, 6))
    >>> mass[1:3, 2:4, 2:5] = 1
    >>> mass[5, 5, 5] = 0.1  # 0.8 % of it all
    >>> smallest_box(mass)
    ((1, 3), (2, 4), (2, 5))
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; more than 0 and at most 1 is needed")
    filled = np.argwhere(mass)
    if not len(filled) or mass.min() < 0 or not np.isfinite(mass).all():
        raise ValueError("mass is nowhere, negative or not finite; an organ's probabilities are needed")
    corner = filled.min(axis=0)
    mass = mass[tuple(slice(a, b) for a, b in zip(corner, filled.max(axis=0) + 1, strict=True))]
    table = np.pad(mass.astype(np.float64), ((1, 0),) * 3).cumsum(0).cumsum(1).cumsum(2)
    wanted = share * table[-1, -1, -1] * (1 - 1e-12)
    spans = [_candidates(table[tuple(-1 if k != axis else slice(None) for k in range(3))], wanted) for axis in range(3)]
    best: tuple[float, float, Box] | None = None
    for a, b in sorted(spans[0], key=lambda span: span[1] - span[0]):
        if best and (b - a) * min(d - c for c, d in spans[1]) > best[0]:
            continue
        for found in _best_of_slab(table[b] - table[a], b - a, spans[1], wanted):
            key = (found[0], -found[1], ((a, b), *found[2]))
            best = key if best is None or key[:2] < best[:2] else best
    assert best is not None  # the box of all mass is a candidate
    x, y, z = ((low + int(c), high + int(c)) for (low, high), c in zip(best[2], corner, strict=True))
    return x, y, z


def _candidates(cumulated: NDArray[np.float64], wanted: float) -> list[Span]:
    """Return the spans of an axis that hold the wanted mass, the rest of the volume taken whole."""
    n = len(cumulated)
    return [(a, b) for a in range(n) for b in range(a + 1, n) if cumulated[b] - cumulated[a] >= wanted]


def _best_of_slab(
    table: NDArray[np.float64], width: int, spans: Sequence[Span], wanted: float
) -> Iterator[tuple[float, float, tuple[Span, Span]]]:
    """Yield volume, mass and spans of the smallest boxes of a slab, one for each first slice that can begin one."""
    low, high = (np.array(side) for side in zip(*spans, strict=True))
    by_slice = table[high] - table[low]  # (pairs along Y, slices + 1), cumulated along Z
    for first in np.flatnonzero((by_slice[:, -1:] - by_slice >= wanted).any(axis=0)):
        enough = by_slice - by_slice[:, first : first + 1] >= wanted
        some = enough.any(axis=1)
        last = enough.argmax(axis=1)
        volume = np.where(some, width * (high - low) * (last - first), np.inf)
        held = by_slice[np.arange(len(last)), last] - by_slice[:, first]
        pair = np.lexsort((-held, volume))[0]
        spans_found = ((int(low[pair]), int(high[pair])), (int(first), int(last[pair])))
        yield float(volume[pair]), float(held[pair]), spans_found


def organ_mass(probabilities: NDArray[np.float32], value: int) -> NDArray[np.float32]:
    """Return the probability of a class where it is the most probable one, of its heaviest component alone; else 0."""
    won = probabilities.argmax(axis=0) == value
    mass = np.where(won, probabilities[value], np.float32(0))
    parts = cc3d.connected_components(won.astype(np.uint8), connectivity=26)
    weights = np.bincount(parts.ravel(), weights=mass.ravel())
    return np.where(parts == 1 + int(weights[1:].argmax()), mass, np.float32(0)) if len(weights) > 1 else mass


class OrganBoxes(nn.Module):
    """What the boxes of the organs are in training cases: buffers, so that a model file holds them.

    Attributes
    ----------
    sizes
        (organs, 3): voxels of the fixed box, the largest label box plus twice the margin, up to a multiple of 8,
        16 at least.
    centres
        (organs, 3): mean middle of the label boxes as a fraction of the volume, for an organ that a map misses.
    jitter
        (organs, 3): standard deviation in voxels by which a box found lies beside the label's.
    least
        (organs,): mass in voxels below which a map is taken to have missed the organ.
    """

    sizes: Tensor
    centres: Tensor
    jitter: Tensor
    least: Tensor

    def __init__(self, num_organs: int) -> None:
        super().__init__()
        self.register_buffer("sizes", torch.full((num_organs, 3), 8))
        self.register_buffer("centres", torch.full((num_organs, 3), 0.5))
        self.register_buffer("jitter", torch.full((num_organs, 3), 2.0))
        self.register_buffer("least", torch.ones(num_organs))

    def learn(
        self,
        cases: Sequence[Prepared],
        organs: Sequence[str],
        *,
        margin: Sequence[int],
        pairs: Sequence[int] = (),
        divisor: int = 8,
        least: int = 16,
        shapes: Sequence[Sequence[int]] = (),
    ) -> OrganBoxes:
        """Take sizes, centres and least masses from the labels of training cases; return itself.

        Parameters
        ----------
        margin
            Voxels on each side.
        pairs
            Values of the mirrored patient: the two of a pair get one size. Empty: each its own.
        divisor, least
            Sides are a multiple, and not shorter: three poolings leave two voxels, of which a norm has a variance.
        shapes
            Voxels of each case before it was padded to the shape of the others; empty: none was.

        Raises
        ------
        DataError
            When an organ is in no training case.
        """
        for place, organ in enumerate(organs):
            own = shapes or [case.labels.shape for case in cases]
            sized = zip(cases, own, strict=True)
            found = [(box, case, shape) for case, shape in sized if (box := label_box(case, organs, organ))]
            if not found:
                raise DataError(f"organ {organ}: is in no training case, so its box is unknown; leave it out (organs)")
            spans = np.array([box for box, _, _ in found])
            width = (spans[:, :, 1] - spans[:, :, 0]).max(axis=0) + 2 * np.asarray(margin)
            shape = np.array([shape for _, _, shape in found])
            limit = np.max([case.labels.shape for case in cases], axis=0)
            size = [divisor * math.ceil(max(min(w, n), least) / divisor) for w, n in zip(width, limit, strict=True)]
            self.sizes[place] = torch.tensor(size)
            self.centres[place] = torch.from_numpy((spans.mean(axis=2) / shape).mean(axis=0))
            voxels = [int((case.labels == place + 1).sum()) for _, case, _ in found]
            self.least[place] = LEAST_MASS * min(voxels)
        if pairs:
            partners = torch.tensor([value - 1 for value in pairs[1:]])
            self.sizes.copy_(torch.maximum(self.sizes, self.sizes[partners]))
        return self

    def size(self, place: int) -> Triple:
        """Return the voxels of an organ's box."""
        x, y, z = (int(n) for n in self.sizes[place])
        return x, y, z

    def around(self, place: int, box: Box, shape: Sequence[int]) -> TargetBox:
        """Return the organ's fixed box about the middle of another, moved into the volume where it would leave it."""
        return TargetBox(start_about([(a + b) / 2 for a, b in box], shape, self.size(place)), self.size(place))

    def locate(self, probabilities: NDArray[np.float32], share: float = 0.99) -> list[TargetBox]:
        """Return the box of each organ of a probability volume (C, X, Y, Z)."""
        shape, found = probabilities.shape[1:], []
        for place in range(len(self.sizes)):
            mass = organ_mass(probabilities, place + 1)
            if mass.sum() >= float(self.least[place]) and mass.any():
                found.append(self.around(place, smallest_box(mass, share), shape))
            else:
                middle = [float(c) * n for c, n in zip(self.centres[place], shape, strict=True)]
                found.append(TargetBox(start_about(middle, shape, self.size(place)), self.size(place), fallback=True))
        return found


def start_about(middle: Sequence[float], shape: Sequence[int], size: Triple) -> Triple:
    """Return the first voxel of a box about a point (in voxels from the corner), clamped into the volume.

    A box longer than the volume begins before it, as everywhere in the library.
    """
    return patch_start([math.floor(c + 0.5) for c in middle], shape, size)


def label_box(case: Prepared, organs: Sequence[str], organ: str) -> Box | None:
    """Return the box of an organ's label; None where it was not outlined or has no voxel."""
    if organ not in case.labelled:
        return None
    found = find_objects((np.asarray(case.labels) == list(organs).index(organ) + 1).astype(np.uint8))
    return tuple((s.start, s.stop) for s in found[0]) if found and found[0] else None  # type: ignore[return-value]
