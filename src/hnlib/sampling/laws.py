"""The law of patch centres in one case: one record, from which is drawn and which is integrated over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hnlib.sampling.patches import Triple, start_tables

FlatIndices = NDArray[np.signedinteger[Any]]


class CentreLaw(Protocol):
    """The law of one component in one case: what is stated and what is drawn come from one record."""

    def draw(self, rng: np.random.Generator) -> Triple:
        """Draw a centre (x, y, z)."""

    def add_probabilities(self, out: NDArray[np.float64], weight: float) -> None:
        """Add ``weight`` times the probability of every centre to ``out``, shape (X, Y, Z)."""

    def add_start_probabilities(self, out: NDArray[np.float64], weight: float, patch_size: Triple) -> None:
        """Add ``weight`` times the probability of every start position to ``out``."""


@dataclass(frozen=True)
class BoxLaw:
    """Uniform over a box of voxels, kept as its corner so that it costs no memory.

    Attributes
    ----------
    shape
        Shape of the volume.
    first, size
        Corner and edges of the box, in voxels.
    """

    shape: Triple
    first: Triple
    size: Triple

    def draw(self, rng: np.random.Generator) -> Triple:
        """Draw a centre (x, y, z)."""
        _, sy, sz = self.size
        rest, z = divmod(int(rng.integers(self.size[0] * sy * sz)), sz)
        x, y = divmod(rest, sy)
        return self.first[0] + x, self.first[1] + y, self.first[2] + z

    def _slices(self) -> tuple[slice, ...]:
        return tuple(slice(f, f + s) for f, s in zip(self.first, self.size, strict=True))

    def add_probabilities(self, out: NDArray[np.float64], weight: float) -> None:
        """Add ``weight`` times the probability of every centre to ``out``, shape (X, Y, Z)."""
        out[self._slices()] += weight / (self.size[0] * self.size[1] * self.size[2])

    def add_start_probabilities(self, out: NDArray[np.float64], weight: float, patch_size: Triple) -> None:
        """Add ``weight`` times the probability of every start position to ``out``."""
        tables = start_tables(self.shape, patch_size)
        x, y, z = (
            np.bincount(table[box], minlength=count) / table[box].size
            for table, box, count in zip(tables, self._slices(), out.shape, strict=True)
        )
        out += (weight * x)[:, None, None] * y[:, None] * z


@dataclass(frozen=True, eq=False)
class StrataLaw:
    """Uniform over strata, then uniform over the voxels of the stratum.

    Attributes
    ----------
    shape
        Shape of the volume.
    strata
        Flat voxel indices in C order, one array a stratum, none of them empty.
    """

    shape: Triple
    strata: tuple[FlatIndices, ...]

    def draw(self, rng: np.random.Generator) -> Triple:
        """Draw a centre (x, y, z)."""
        stratum = self.strata[0 if len(self.strata) == 1 else int(rng.integers(len(self.strata)))]
        rest, z = divmod(int(stratum[rng.integers(stratum.size)]), self.shape[2])
        x, y = divmod(rest, self.shape[1])
        return x, y, z

    def add_probabilities(self, out: NDArray[np.float64], weight: float) -> None:
        """Add ``weight`` times the probability of every centre to ``out``, shape (X, Y, Z)."""
        flat = out.reshape(-1)
        for stratum in self.strata:
            flat[stratum] += weight / (len(self.strata) * stratum.size)

    def add_start_probabilities(self, out: NDArray[np.float64], weight: float, patch_size: Triple) -> None:
        """Add ``weight`` times the probability of every start position to ``out``."""
        tables = start_tables(self.shape, patch_size)
        _, my, mz = out.shape
        flat = out.reshape(-1)
        for stratum in self.strata:
            x, y, z = (table[i] for table, i in zip(tables, np.unravel_index(stratum, self.shape), strict=True))
            start = (x * my + y) * mz + z
            low = int(start.min())
            # Counted first and weighted once, so that mass piled up by the clamp is not rounded again and again.
            count = np.bincount(start - low)
            flat[low : low + count.size] += weight / (len(self.strata) * stratum.size) * count


def position_law(shape: Triple, patch_size: Triple) -> BoxLaw:
    """Return the uniform law over the distinct patch positions of a volume."""
    axes = [(w // 2, n - w + 1) if n >= w else (n // 2, 1) for n, w in zip(shape, patch_size, strict=True)]
    (fx, sx), (fy, sy), (fz, sz) = axes
    return BoxLaw(shape, (fx, fy, fz), (sx, sy, sz))
