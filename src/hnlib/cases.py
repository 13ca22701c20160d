"""One case: a CT scan with its label map, and what a data set must offer.

Arrays have axes (X, Y, Z) that point right, anterior, superior (RAS+), as nibabel has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hnlib.errors import DataError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Case:
    """A scan on its own grid, with the organs that were outlined.

    Attributes
    ----------
    name
        The data set's own name of the case, such as ``pt_243``.
    image_hu
        CT numbers in HU, shape (X, Y, Z), float32.
    labels
        Label map of the same shape, uint8: 0 is background, ``i + 1`` is ``organs[i]``.
    spacing_mm
        Voxel edges along X, Y, Z in mm.
    organs
        The organ tuple to which the label values refer.
    labelled
        The organs that somebody outlined here. An organ outside this set is unknown, not absent.

    Raises
    ------
    DataError
        When shapes differ, the image is empty, constant or not finite, a spacing is not
        positive, or a label value lies outside the organ tuple.
    """

    name: str
    image_hu: NDArray[np.float32]
    labels: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    organs: tuple[str, ...]
    labelled: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        if self.image_hu.ndim != 3 or self.image_hu.size == 0:
            raise DataError(
                f"case {self.name}: the image has shape {self.image_hu.shape}; "
                "a 3D volume with at least one voxel is needed"
            )
        if self.labels.shape != self.image_hu.shape:
            raise DataError(
                f"case {self.name}: the image has shape {self.image_hu.shape} but the label map "
                f"{self.labels.shape}; export both on the same grid"
            )
        if not np.isfinite(self.image_hu).all():
            raise DataError(f"case {self.name}: the image holds NaN or infinite values; export it again")
        if self.image_hu.min() == self.image_hu.max():
            raise DataError(f"case {self.name}: the image is constant; export it again")
        if len(self.spacing_mm) != 3 or min(self.spacing_mm) <= 0:
            raise DataError(f"case {self.name}: spacing {self.spacing_mm} mm; three positive numbers are needed")
        if int(self.labels.max()) > len(self.organs):
            raise DataError(
                f"case {self.name}: label {int(self.labels.max())} but only {len(self.organs)} organs are named"
            )

    def mask(self, organ: str) -> NDArray[np.bool_]:
        """Return the boolean mask of one organ, shape (X, Y, Z)."""
        return np.equal(self.labels, self.organs.index(organ) + 1)


class Dataset(Protocol):
    """What a data set offers: its organs, its split by the data set's own rule, and its cases."""

    @property
    def name(self) -> str:
        """Name under which the data set is known to the command line."""

    @property
    def organs(self) -> tuple[str, ...]:
        """Organs of the study in label order."""

    @property
    def attribution(self) -> str:
        """One line that says where the scans come from, for captions."""

    def split(self) -> Mapping[str, tuple[str, ...]]:
        """Case names by split: train, validation, test. Test cases choose nothing."""

    def load(self, case: str) -> Case:
        """Read one case."""

    def digest(self) -> str:
        """Hexadecimal digest that changes when the content of any case changes."""
