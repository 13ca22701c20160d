"""What is not linear in the organ: whether a patch holds a class at all, and the square of its voxel count.

The count of the patch around each centre is read from cumulative sums, shared by all sizes with the
same widths along X and Y. Centres that are uniform over positions are too many for that; there the
presence follows from the gaps between occupied slices of a column, for all widths along Z at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hnlib.imbalance.axes import Floats, Ints, Sizes, num_starts, voxels_around
from hnlib.imbalance.basis import Basis, Organ
from hnlib.imbalance.boxes import reach, squared_counts_at_uniform_position
from hnlib.sampling import Triple


@dataclass(frozen=True, eq=False)
class Moments:
    """Presence and expected squared count, each (sizes, parts, classes), class 0 the background."""

    presence: Floats
    squares: Floats


@dataclass(frozen=True, eq=False)
class _Centres:
    """Centres of some sets, one set after the other.

    Attributes
    ----------
    x, y, z
        Their coordinates.
    edges
        Where each set begins, and the end.
    numbers
        Voxels of each set, of which those out of reach of every organ are left out.
    """

    x: Ints
    y: Ints
    z: Ints
    edges: Ints
    numbers: Floats


def moments(parts: Basis, sizes: Sizes, *, squares: bool, device: str = "cpu") -> Moments:
    """Return presence and expected squared count of each class, for each part of the laws of centres.

    Parameters
    ----------
    squares
        Whether the squared counts are wanted; without them they are 0. That of class 0 is the squared
        count of the whole foreground.
    """
    shape = (len(sizes.index), parts.weights.shape[1], 1 + len(parts.organs))
    found = Moments(np.zeros(shape), np.zeros(shape))
    found.presence[..., 0] = 1.0
    if not parts.organs:
        return found
    foreground = _foreground(parts.organs)
    fits = _may_be_all_foreground(foreground, sizes)
    centres = _centres(parts, sizes)
    for k, organ in enumerate((foreground, *parts.organs)):
        if k or squares or fits.any():
            for where, group in centres:
                for i, counts in _counts(parts.shape, organ, group, sizes):
                    first = counts == sizes.volumes[i] if k == 0 else counts > 0
                    held = np.add.reduceat(first, group.edges[:-1], dtype=np.float64) / group.numbers
                    found.presence[i, where, k] = held if k else 1 - held
                    if squares:
                        square = np.square(counts, dtype=np.float64)
                        found.squares[i, where, k] = np.add.reduceat(square, group.edges[:-1]) / group.numbers
        if parts.uses_position:
            if k:
                found.presence[:, 0, k] = _presence_at_uniform_position(parts.shape, organ, sizes)
            else:
                found.presence[:, 0, 0] = 1 - _all_foreground(parts.shape, organ, sizes, fits)
            if squares:
                found.squares[:, 0, k] = squared_counts_at_uniform_position(parts.shape, organ, sizes, device)
    return found


def _foreground(organs: Sequence[Organ]) -> Organ:
    """Return all organs as one."""
    first = np.min([organ.first for organ in organs], axis=0)
    stop = np.max([[span.stop for span in organ.box] for organ in organs], axis=0)
    mask = np.zeros(stop - first, dtype=bool)
    for organ in organs:
        x, y, z = (slice(s.start - f, s.stop - f) for s, f in zip(organ.box, first.tolist(), strict=True))
        mask[x, y, z] |= organ.mask
    x, y, z = (slice(a, b) for a, b in zip(first.tolist(), stop.tolist(), strict=True))
    return Organ(0, (x, y, z), mask)


def _may_be_all_foreground(foreground: Organ, sizes: Sizes) -> NDArray[np.bool_]:
    """Say of each size whether a run of foreground along every axis is as long as the patch."""
    longest = []
    for axis in range(3):
        lines = np.moveaxis(foreground.mask, axis, 0)
        run, most = np.zeros(lines.shape[1:], np.int32), 0
        for layer in lines:
            run = (run + 1) * layer
            most = max(most, int(run.max()))
        longest.append(most)
    widths = [np.asarray(sizes.widths[axis])[sizes.index[:, axis]] for axis in range(3)]
    fits: NDArray[np.bool_] = np.logical_and.reduce([w <= most for w, most in zip(widths, longest, strict=True)])
    return fits


def _centres(parts: Basis, sizes: Sizes) -> list[tuple[slice, _Centres]]:
    """Return the centres that are sets of voxels, with the places of their parts."""
    found = []
    if parts.uses_organs:
        sets = []
        for organ in parts.organs:
            sets.append(np.argwhere(organ.mask) + organ.first)
        found.append((slice(1, 1 + len(parts.organs)), _gather(sets, [len(s) for s in sets])))
    if parts.sets:
        low, high = np.array([(s.start, s.stop) for s in reach(parts.shape, parts.organs, sizes)]).T
        for i, flat in enumerate(parts.sets, start=1 + len(parts.organs)):
            points = np.stack(np.unravel_index(flat, parts.shape), axis=1)
            near = points[((points >= low) & (points < high)).all(axis=1)]
            if len(near):
                found.append((slice(i, i + 1), _gather([near], [flat.size])))
    return found


def _gather(sets: Sequence[NDArray[np.intp]], numbers: Sequence[int]) -> _Centres:
    x, y, z = np.concatenate(sets).T
    edges = np.concatenate([[0], np.cumsum([len(s) for s in sets])])
    return _Centres(x, y, z, edges, np.asarray(numbers, np.float64))


def _counts(shape: Triple, organ: Organ, centres: _Centres, sizes: Sizes) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Yield for each size how many voxels of an organ the patch around each centre holds."""
    lines, line_of = np.unique(np.stack([centres.x, centres.y]), axis=1, return_inverse=True)
    xs, x_of = np.unique(lines[0], return_inverse=True)
    nz = organ.mask.shape[2]
    base = line_of.reshape(-1) * (nz + 1)
    over_x = _cumulated(organ.mask, 0)
    for i, width_x in enumerate(sizes.widths[0]):
        low, high = _inside(shape, organ, 0, width_x, xs)
        over_y = _cumulated(over_x[high] - over_x[low], 1)
        rows = over_y.reshape(-1, nz)
        for j, width_y in enumerate(sizes.widths[1]):
            wanted = np.flatnonzero((sizes.index[:, 0] == i) & (sizes.index[:, 1] == j))
            if not wanted.size:
                continue
            low, high = _inside(shape, organ, 1, width_y, lines[1])
            offset = x_of * over_y.shape[1]
            over_z = _cumulated(rows[offset + high] - rows[offset + low], 1).reshape(-1)
            for size in wanted.tolist():
                low, high = _inside(shape, organ, 2, sizes.widths[2][sizes.index[size, 2]], np.arange(shape[2]))
                yield size, over_z[base + high[centres.z]] - over_z[base + low[centres.z]]


def _inside(shape: Triple, organ: Organ, axis: int, width: int, centres: Ints) -> tuple[Ints, Ints]:
    """Return the range of an organ's box that the patch around each centre covers."""
    span = organ.box[axis]
    low, high = voxels_around(shape[axis], width, centres)
    return np.clip(low, span.start, span.stop) - span.start, np.clip(high, span.start, span.stop) - span.start


def _cumulated(values: NDArray[Any], axis: int) -> NDArray[np.int32]:
    """Return sums along an axis that start with 0."""
    shape = list(values.shape)
    shape[axis] += 1
    total = np.zeros(shape, np.int32)
    np.cumsum(values, axis=axis, dtype=np.int32, out=total[(slice(None),) * axis + (slice(1, None),)])
    return total


def _presence_at_uniform_position(shape: Triple, organ: Organ, sizes: Sizes) -> Floats:
    """Return the share of the positions at which a patch meets an organ: (sizes,)."""
    out = np.zeros(len(sizes.index))
    z0, depth = organ.box[2].start, organ.mask.shape[2]
    occupied = np.moveaxis(organ.mask, 2, 0)
    for i, width_x in enumerate(sizes.widths[0]):
        along_x = _met(occupied, 1, shape[0], organ.box[0], width_x)
        for j, width_y in enumerate(sizes.widths[1]):
            wanted = np.flatnonzero((sizes.index[:, 0] == i) & (sizes.index[:, 1] == j))
            if not wanted.size:
                continue
            met = _met(along_x, 2, shape[1], organ.box[1], width_y).reshape(depth, -1)
            gaps = _gaps(met)
            for size in wanted.tolist():
                width_z = sizes.widths[2][sizes.index[size, 2]]
                starts = [num_starts(n, w) for n, w in zip(shape, (width_x, width_y, width_z), strict=True)]
                hits = (gaps * _starts_between(z0, depth, width_z, starts[2])).sum()
                out[size] = hits / (starts[0] * starts[1] * starts[2])
    return out


def _met(mask: NDArray[np.bool_], axis: int, length: int, span: slice, width: int) -> NDArray[np.bool_]:
    """Return, for the starts along an axis that can meet a span, whether a patch meets the mask in it."""
    starts = np.arange(max(span.start - width + 1, 0), min(span.stop, num_starts(length, width)))
    low = np.clip(starts, span.start, span.stop) - span.start
    high = np.clip(starts + width, span.start, span.stop) - span.start
    total = _cumulated(mask, axis)
    found: NDArray[np.bool_] = np.take(total, high, axis=axis) > np.take(total, low, axis=axis)
    return found


def _gaps(met: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Count the columns of (slices, columns) by pairs of a slice that is met and the one met before it.

    Row z, column p + 1: slice z is met, slice p the last one before it; column 0: none is before it.
    """
    depth = len(met)
    before = np.full(met.shape[1], -1, np.int16)
    counts = np.zeros((depth, depth + 1), np.int64)
    for z, layer in enumerate(met):
        counts[z] = np.bincount(before[layer] + 1, minlength=depth + 1)
        before[layer] = z
    return counts


def _starts_between(first: int, depth: int, width: int, starts: int) -> NDArray[np.int64]:
    """Return, for each slice z and the one met before it, how many starts have z as the first slice that they meet."""
    z = first + np.arange(depth)[:, None]
    before = np.concatenate([[-1], first + np.arange(depth)])
    low, high = np.maximum(before, np.maximum(z - width, -1)), np.minimum(z, starts - 1)
    between: NDArray[np.int64] = np.maximum(high - low, 0)
    return between


def _all_foreground(shape: Triple, foreground: Organ, sizes: Sizes, fits: NDArray[np.bool_]) -> Floats:
    """Return the share of the positions at which a patch holds no background: (sizes,)."""
    out = np.zeros(len(sizes.index))
    for size in np.flatnonzero(fits).tolist():
        width = [sizes.widths[axis][sizes.index[size, axis]] for axis in range(3)]
        full = foreground.mask
        for axis, wide in enumerate(width):
            total = _cumulated(full, axis)
            count = full.shape[axis] - wide + 1
            ends = np.take(total, np.arange(count) + wide, axis=axis) - np.take(total, np.arange(count), axis=axis)
            full = ends == wide
        out[size] = np.count_nonzero(full) / np.prod([num_starts(n, w) for n, w in zip(shape, width, strict=True)])
    return out
