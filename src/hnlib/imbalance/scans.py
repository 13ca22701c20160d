"""What the imbalance of a case is measured on: its label map, and its CT numbers where a rule reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hnlib.cases import Dataset
from hnlib.errors import DataError, unknown
from hnlib.organs import RESERVED
from hnlib.sampling import Labels


@dataclass(frozen=True, eq=False)
class Scan:
    """A label map with the organs that somebody outlined in it; a CT is not needed.

    Attributes
    ----------
    name
        Name of the case.
    labels
        Label map, shape (X, Y, Z), integers: 0 is background, ``i + 1`` is ``organs[i]``.
    organs
        The organ tuple to which the label values refer.
    labelled
        The organs that somebody outlined here. An organ outside this set is unknown, not absent.
    image_hu
        CT numbers in HU, of the shape of ``labels``; only rules that are gated by HU need them.

    Raises
    ------
    DataError
        When the labels are no 3D integer array, or one lies outside the organ tuple, or the image
        has another shape; when an organ is named twice, is called ``background`` or ``uniform``, or is labelled
        and not named.
    """

    name: str
    labels: Labels
    organs: tuple[str, ...]
    labelled: frozenset[str]
    image_hu: NDArray[np.floating[Any]] | None = None

    def __post_init__(self) -> None:
        labels = self.labels
        for organ in self.organs:
            if organ in RESERVED or self.organs.count(organ) > 1:
                why = "no organ may have" if organ in RESERVED else "two organs have"
                raise DataError(f"case {self.name}: '{organ}' is a name that {why}; give each organ a name of its own")
        if strangers := sorted(self.labelled - {*self.organs}):
            raise DataError(f"case {self.name}: {strangers[0]} is labelled but not among the organs; name it there")
        if labels.ndim != 3 or labels.size == 0 or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"case {self.name}: labels of shape {labels.shape} and type {labels.dtype}; "
                "a 3D integer array with at least one voxel is needed"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high > len(self.organs):
            raise DataError(
                f"case {self.name}: labels lie in {low}..{high} but {len(self.organs)} organs are named; "
                "name every organ of the label map, or set other values to 0"
            )
        if self.image_hu is not None and self.image_hu.shape != labels.shape:
            raise DataError(
                f"case {self.name}: the image has shape {self.image_hu.shape} but the label map {labels.shape}; "
                "export both on the same grid"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.organs) + 1


#: A scan, or what reads it: a data set of large scans need not lie in memory at once.
ScanSource = Scan | Callable[[], Scan]


def scan_sources(
    dataset: Dataset, cases: Iterable[str] | None = None, *, organs: Sequence[str] | None = None, images: bool = False
) -> list[Callable[[], Scan]]:
    """Return, for each case of a data set, what reads its scan when it is called.

    Parameters
    ----------
    cases
        Names of cases. None takes all, in the order of the split.
    organs
        Organs in label order; the voxels of others count as background. None takes the data set's own.
    images
        Whether to read the CT too, for rules that are gated by HU.

    Raises
    ------
    ConfigError
        When the data set does not know an organ.
    """
    chosen = dataset.organs if organs is None else tuple(organs)
    for organ in chosen:
        if organ not in dataset.organs:
            raise unknown(f"organ of {dataset.name}", organ, dataset.organs)
    names = [name for part in dataset.split().values() for name in part] if cases is None else list(cases)
    if chosen != dataset.organs and any(field.name == "organs" for field in fields(cast("Any", dataset))):
        dataset = replace(cast("Any", dataset), organs=chosen)  # outlines of other organs are not even read
    return [partial(read_scan, dataset, name, chosen, images) for name in names]


def read_scan(dataset: Dataset, name: str, organs: tuple[str, ...], images: bool = False) -> Scan:
    """Read one case; without images the outlines alone, where the data set can give them."""
    read_labels: Any = getattr(dataset, "load_labels", None)
    if images or read_labels is None:
        case = dataset.load(name)
        return Scan(name, _renumber(case.labels, case.organs, organs), organs, case.labelled & {*organs}, case.image_hu)
    found = read_labels(name)
    if isinstance(found, tuple):
        volume, labelled = found
        return Scan(name, _renumber(volume.array, dataset.organs, organs), organs, labelled & {*organs})
    return Scan(name, _renumber(found, dataset.organs, organs), organs, frozenset(organs))


def _renumber(labels: Labels, old: tuple[str, ...], new: tuple[str, ...]) -> Labels:
    """Return the label map of a choice of organs; the others become background."""
    if old == new:
        return labels
    values = np.zeros(len(old) + 1, labels.dtype)
    for value, organ in enumerate(new, start=1):
        values[old.index(organ) + 1] = value
    return values[labels]
