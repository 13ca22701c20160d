"""Along one axis: which voxels a patch of each width covers, and with what probability.

A patch is a product of intervals and the clamp acts axis by axis, so all that a patch size does to a
case is said by three small tables, one an axis; many sizes share few of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hnlib.sampling import Triple, axis_starts

Ints = NDArray[np.intp]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sizes:
    """Patch sizes as widths of the axes.

    Attributes
    ----------
    widths
        The different widths along X, Y, Z.
    index
        Shape (sizes, 3): which of the widths a size has.
    """

    widths: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    index: Ints

    @classmethod
    def of(cls, sizes: Sequence[Triple]) -> Sizes:
        """Take patch sizes apart."""
        table = np.asarray(sizes, dtype=np.intp).reshape(-1, 3)
        found = [np.unique(column, return_inverse=True) for column in table.T]
        x, y, z = (tuple(int(w) for w in widths) for widths, _ in found)
        return cls((x, y, z), np.stack([inverse for _, inverse in found], axis=1))

    @property
    def volumes(self) -> Floats:
        """Voxels of each patch."""
        columns = [np.asarray(self.widths[axis], np.float64)[self.index[:, axis]] for axis in range(3)]
        volumes: Floats = np.prod(columns, axis=0)
        return volumes

    @property
    def pairs(self) -> NDArray[np.bool_]:
        """Shape (widths along X, widths along Y): whether a size has both."""
        out = np.zeros((len(self.widths[0]), len(self.widths[1])), dtype=bool)
        out[self.index[:, 0], self.index[:, 1]] = True
        return out

    def select(self, grid: Floats) -> Floats:
        """Return the rows of a grid (X widths, Y widths, Z widths, ...) that are sizes."""
        return grid[self.index[:, 0], self.index[:, 1], self.index[:, 2]]


def centres_around(length: int, width: int, voxels: Ints) -> tuple[Ints, Ints]:
    """Return for each voxel the range low..high - 1 of the centres whose patch covers it.

    Examples
    --------
    Of six voxels and a patch of four, centres 0, 1, 2 start at 0, 3 at 1, 4 and 5 at 2:

    >>> low, high = centres_around(6, 4, np.arange(6))
    >>> low.tolist(), high.tolist()
    ([0, 0, 0, 0, 3, 4], [3, 4, 6, 6, 6, 6])
    """
    starts = axis_starts(length, width)
    return np.searchsorted(starts, voxels - width, side="right"), np.searchsorted(starts, voxels, side="right")


def voxels_around(length: int, width: int, centres: Ints) -> tuple[Ints, Ints]:
    """Return for each centre the range low..high - 1 of the voxels that its patch covers.

    Examples
    --------
    >>> low, high = voxels_around(6, 4, np.array([0, 3, 5]))
    >>> low.tolist(), high.tolist()
    ([0, 1, 2], [4, 5, 6])
    """
    starts = axis_starts(length, width)[centres]
    return starts, np.minimum(starts + width, length)


def num_starts(length: int, width: int) -> int:
    """Return the number of positions of a patch along an axis."""
    return max(length - width + 1, 1)


def position_probability(length: int, width: int, voxels: Ints) -> Floats:
    """Return the probability that a patch at a uniform position covers each voxel.

    Examples
    --------
    >>> (3 * position_probability(6, 4, np.arange(6))).tolist()
    [1.0, 2.0, 3.0, 3.0, 2.0, 1.0]
    """
    return np.diag(pair_probability(length, width, voxels))


def pair_probability(length: int, width: int, voxels: Ints) -> Floats:
    """Return the probability that a patch at a uniform position covers both of two voxels, for all pairs."""
    count = num_starts(length, width)
    low, high = np.maximum(voxels - width + 1, 0), np.minimum(voxels + 1, count)
    both = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    chance: Floats = np.maximum(both, 0) / count
    return chance
