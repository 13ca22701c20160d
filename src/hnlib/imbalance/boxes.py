"""Expected voxel counts of every patch size at once, as products of matrices.

For centres c of a law q and voxels v of an organ L the expected count is the sum over c and v of
q(c) L(v) K(c, v), where K says that the patch around c covers v. K is a product over the axes. So the
organ is smeared along Y for every width there, the law is summed along X for every width there, one
product of matrices joins the two for all pairs of widths, and what is left, a table of slices by
slices, is summed over the ranges of every width along Z. All laws over organs are columns of one
such product. Counts are whole numbers until the last step, so sums are exact in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from hnlib.imbalance.axes import Floats, Ints, Sizes, centres_around, pair_probability, position_probability
from hnlib.imbalance.basis import Basis, Organ
from hnlib.sampling import Triple

#: Numbers in the largest matrix that is made from an organ: 128 MiB.
MOST_NUMBERS = 2**24


@dataclass(frozen=True, eq=False)
class Field:
    """Sets of centres in a box, one column a slice of a set.

    Attributes
    ----------
    members
        Shape (X, Y, columns): whether the voxel is in the set.
    corner
        The lowest x and y of the box.
    slices
        The z of each column.
    column_of
        Shape (columns, sets): 1 / voxels of the set where the column belongs to it, else 0.
    """

    members: NDArray[np.bool_]
    corner: tuple[int, int]
    slices: Ints
    column_of: Floats


def organ_field(organs: Sequence[Organ]) -> Field:
    """Return one set for each organ."""
    x0, y0, _ = np.min([organ.first for organ in organs], axis=0)
    x1, y1, _ = np.max([[s.stop for s in organ.box] for organ in organs], axis=0)
    depth = [organ.mask.shape[2] for organ in organs]
    members = np.zeros((x1 - x0, y1 - y0, sum(depth)), dtype=bool)
    column_of = np.zeros((sum(depth), len(organs)))
    for i, (organ, last) in enumerate(zip(organs, np.cumsum(depth), strict=True)):
        columns, (x, y, _) = slice(last - depth[i], last), organ.box
        members[x.start - x0 : x.stop - x0, y.start - y0 : y.stop - y0, columns] = organ.mask
        column_of[columns, i] = 1 / organ.num_voxels
    slices = np.concatenate([np.arange(organ.box[2].start, organ.box[2].stop) for organ in organs])
    return Field(members, (int(x0), int(y0)), slices, column_of)


def set_field(flat: NDArray[np.signedinteger[Any]], shape: Triple, reach: tuple[slice, slice, slice]) -> Field:
    """Return one set of voxels in its own box, without those from which no patch meets an organ."""
    members = np.zeros(shape, dtype=bool)
    members.reshape(-1)[flat] = True
    members = members[reach]
    own = ndimage.find_objects(members.view(np.uint8)) or [(slice(0, 1),) * 3]
    first = [cut.start + span.start for cut, span in zip(reach, own[0], strict=True)]
    members = members[own[0]]
    depth = members.shape[2]
    slices = np.arange(first[2], first[2] + depth)
    return Field(members, (first[0], first[1]), slices, np.full((depth, 1), 1 / flat.size))


def reach(shape: Triple, organs: Sequence[Organ], sizes: Sizes) -> tuple[slice, slice, slice]:
    """Return the box of the centres whose patch can meet an organ, for the largest width of each axis."""
    spans = []
    for axis, length in enumerate(shape):
        edges = np.array(
            [min(o.box[axis].start for o in organs), max(o.box[axis].stop for o in organs) - 1], dtype=np.intp
        )
        ranges = [centres_around(length, width, edges) for width in sizes.widths[axis]]
        spans.append(slice(int(min(low[0] for low, _ in ranges)), int(max(high[1] for _, high in ranges))))
    return spans[0], spans[1], spans[2]


def expected_counts(parts: Basis, sizes: Sizes, device: str = "cpu") -> Floats:
    """Return the expected voxels of each organ in a patch, for each part of the laws of centres.

    Returns
    -------
    ndarray
        Shape (sizes, parts, organs). Parts that no rule uses are 0.
    """
    organs = parts.organs
    out = np.zeros((len(sizes.index), parts.weights.shape[1], len(organs)))
    if not organs:
        return out
    if parts.uses_organs:
        columns = slice(1, 1 + len(organs))
        out[:, columns] = field_counts(parts.shape, organs, sizes, organ_field(organs), device)
    for i, flat in enumerate(parts.sets, start=1 + len(organs)):
        field = set_field(flat, parts.shape, reach(parts.shape, organs, sizes))
        out[:, i : i + 1] = field_counts(parts.shape, organs, sizes, field, device)
    if parts.uses_position:
        for i, organ in enumerate(organs):
            out[:, 0, i] = sizes.select(_at_uniform_position(parts.shape, organ, sizes, device))
    return out


def field_counts(shape: Triple, organs: Sequence[Organ], sizes: Sizes, field: Field, device: str = "cpu") -> Floats:
    """Return the expected voxels of each organ for centres in each set of a field: (sizes, sets, organs)."""
    total = _cumulated(torch.as_tensor(field.members, device=device))
    column_of = torch.as_tensor(field.column_of, device=device)
    out = np.zeros((len(sizes.index), field.column_of.shape[1], len(organs)))
    for i, organ in enumerate(organs):
        voxels = [np.arange(span.start, span.stop) for span in organ.box]
        ends = [
            [
                torch.as_tensor(np.clip(end - field.corner[0], 0, total.shape[0] - 1), device=device)
                for end in centres_around(shape[0], width, voxels[0])
            ]
            for width in sizes.widths[0]
        ]

        def along_x(width: int, ends: list[list[Tensor]] = ends) -> Tensor:
            low, high = ends[width]
            return total.index_select(0, high).sub_(total.index_select(0, low)).double()

        rows = np.arange(field.corner[1], field.corner[1] + total.shape[1])
        joined = _join(
            torch.as_tensor(organ.mask, dtype=torch.float64, device=device),
            along_x,
            _covers(shape[1], sizes.widths[1], voxels[1], rows, device),
            _covers(shape[2], sizes.widths[2], voxels[2], field.slices, device),
            column_of,
            sizes.pairs,
        )
        out[:, :, i] = sizes.select(joined.cpu().numpy())
    return out


def squared_counts_at_uniform_position(shape: Triple, organ: Organ, sizes: Sizes, device: str = "cpu") -> Floats:
    """Return the expectation of the squared count of an organ, for patches at uniform positions: (sizes,).

    The squared count is a sum over pairs of voxels, and two voxels lie in one patch with a
    probability that is a product over the axes.
    """
    mask = torch.as_tensor(organ.mask, dtype=torch.float64, device=device)
    x, y, z = (_tables(pair_probability, shape, organ, sizes, axis, device) for axis in range(3))
    flat = mask.reshape(mask.shape[0], -1)

    def along_x(width: int) -> Tensor:
        return (x[width] @ flat).reshape(mask.shape)

    all_columns = mask.new_ones((mask.shape[2], 1))
    return sizes.select(_join(mask, along_x, y, z, all_columns, sizes.pairs)[..., 0].cpu().numpy())


def _at_uniform_position(shape: Triple, organ: Organ, sizes: Sizes, device: str) -> Floats:
    mask = torch.as_tensor(organ.mask, dtype=torch.float64, device=device)
    x, y, z = (_tables(position_probability, shape, organ, sizes, axis, device) for axis in range(3))
    along_z = torch.tensordot(mask, z, dims=([2], [1]))
    along_y = torch.tensordot(along_z, y, dims=([1], [1]))
    found: Floats = torch.tensordot(x, along_y, dims=([1], [0])).permute(0, 2, 1).cpu().numpy()
    return found


def _tables(
    probability: Callable[[int, int, Ints], Floats], shape: Triple, organ: Organ, sizes: Sizes, axis: int, device: str
) -> Tensor:
    """Return one table a width, stacked."""
    voxels = np.arange(organ.box[axis].start, organ.box[axis].stop)
    tables = [probability(shape[axis], width, voxels) for width in sizes.widths[axis]]
    return torch.as_tensor(np.stack(tables), device=device)


def _covers(length: int, widths: Sequence[int], voxels: Ints, centres: Ints, device: str) -> Tensor:
    """Return, stacked over widths, 1 where the patch around a centre (column) covers a voxel (row), else 0."""
    ranges = [centres_around(length, width, voxels) for width in widths]
    covered = [(centres >= low[:, None]) & (centres < high[:, None]) for low, high in ranges]
    return torch.as_tensor(np.stack(covered), dtype=torch.float64, device=device)


def _cumulated(members: Tensor) -> Tensor:
    """Return sums along X that start with 0."""
    x, y, columns = members.shape
    total = torch.zeros((x + 1, y, columns), dtype=torch.int32, device=members.device)
    torch.cumsum(members, dim=0, dtype=torch.int32, out=total[1:])
    return total


def _join(
    mask: Tensor,
    along_x: Callable[[int], Tensor],
    cover_y: Tensor,
    cover_z: Tensor,
    column_of: Tensor,
    pairs: NDArray[np.bool_],
) -> Tensor:
    """Return the sums over an organ and a field for every width: (X widths, Y widths, Z widths, sets).

    Parameters
    ----------
    mask
        The organ, shape (X, Y, Z).
    along_x
        Gives, for a width along X, the field summed to the organ's x: (X, field's Y, columns).
    cover_y, cover_z
        Shape (widths, organ's Y, field's Y) and (widths, organ's Z, columns).
    column_of
        Shape (columns, sets): as in `Field`, the columns of a set side by side.
    pairs
        Which pairs of widths along X and Y are wanted; the others stay 0.
    """
    nx, ny, nz = mask.shape
    rows, columns = cover_y.shape[2], cover_z.shape[2]
    out = mask.new_zeros((*pairs.shape, cover_z.shape[0], column_of.shape[1]))
    by_slice = mask.permute(2, 0, 1).reshape(nz * nx, ny)
    depths = (column_of > 0).sum(dim=0).tolist()
    covers = [part.reshape(-1, len(cover_z)) for part in torch.split(cover_z.permute(1, 2, 0), depths, dim=1)]
    step = max(1, MOST_NUMBERS // (nz * nx * rows))
    for first in range(0, pairs.shape[1], step):
        left = torch.matmul(by_slice, cover_y[first : first + step]).reshape(-1, nz, nx * rows)
        for width, wanted in enumerate(pairs[:, first : first + step]):
            if not wanted.any():
                continue
            chosen = left if wanted.all() else left[torch.as_tensor(wanted, device=mask.device)]
            right = along_x(width).reshape(nx * rows, columns)
            joined = (chosen.reshape(-1, nx * rows) @ right).reshape(-1, nz, columns)
            where = torch.as_tensor(first + np.flatnonzero(wanted), device=mask.device)
            parts = zip(torch.split(joined, depths, dim=2), covers, strict=True)
            out[width, where] = torch.stack([part.reshape(len(joined), -1) @ cover for part, cover in parts], dim=-1)
    return out * column_of.amax(dim=0)
