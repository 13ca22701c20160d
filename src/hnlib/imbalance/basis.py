"""What laws of centres are made of: the uniform law over positions, and uniform laws over sets of voxels.

Every law of `hnlib.sampling` is a weighted sum of those, and expectations are linear, so a case is
measured once for each such part and every rule follows by a product of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hnlib.sampling import (
    CentreComponent,
    CentreDistribution,
    ClassUniform,
    Labels,
    SingleClass,
    Triple,
    UniformPosition,
    VoxelUniform,
)

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Organ:
    """The voxels of one class: its label, its box in the scan, and its mask there."""

    label: int
    box: Box
    mask: NDArray[np.bool_]

    @property
    def first(self) -> Triple:
        """The lowest corner of the box."""
        x, y, z = self.box
        return x.start, y.start, z.start

    @property
    def num_voxels(self) -> int:
        """Number of voxels of the class."""
        return int(np.count_nonzero(self.mask))


@dataclass(frozen=True, eq=False)
class Basis:
    """The parts of some rules in one case.

    Attributes
    ----------
    shape
        Shape of the scan.
    organs
        The classes present, in label order.
    sets
        Flat indices of other sets of voxels, such as bone outside the organs.
    weights
        Shape (rules, parts). The parts are, in this order: the uniform law over positions, a law for
        each of ``organs``, a law for each of ``sets``.
    """

    shape: Triple
    organs: tuple[Organ, ...]
    sets: tuple[NDArray[np.signedinteger[Any]], ...]
    weights: NDArray[np.float64]

    @property
    def uses_position(self) -> bool:
        """Whether a rule has a part that is uniform over positions."""
        return bool(self.weights[:, 0].any())

    @property
    def uses_organs(self) -> bool:
        """Whether a rule has centres in organs."""
        return bool(self.weights[:, 1 : 1 + len(self.organs)].any())


def organs_of(labels: Labels) -> tuple[Organ, ...]:
    """Return the classes that have voxels, in label order."""
    found = []
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            x, y, z = box
            found.append(Organ(label, (x, y, z), labels[x, y, z] == label))
    return tuple(found)


def basis(
    labels: Labels, rules: Sequence[CentreDistribution], image_hu: NDArray[np.floating[Any]] | None = None
) -> Basis:
    """Return the parts of some rules in one case, and the weight of each part in each rule.

    Raises
    ------
    ValueError
        As `hnlib.sampling.CentreComponent.law`.
    """
    organs = organs_of(labels)
    sets: list[NDArray[np.signedinteger[Any]]] = []
    known: dict[CentreComponent, dict[int, float]] = {}
    for rule in rules:
        for _, component in rule.components:
            if component not in known:
                known[component] = _parts(component, organs, sets, labels, image_hu)
    weights = np.zeros((len(rules), 1 + len(organs) + len(sets)))
    for row, rule in zip(weights, rules, strict=True):
        for weight, component in rule.components:
            for part, share in known[component].items():
                row[part] += weight * share
    x, y, z = labels.shape
    return Basis((x, y, z), organs, tuple(sets), weights)


def _parts(
    component: CentreComponent,
    organs: Sequence[Organ],
    sets: list[NDArray[np.signedinteger[Any]]],
    labels: Labels,
    image_hu: NDArray[np.floating[Any]] | None,
) -> dict[int, float]:
    """Return part to weight of one component; sets of voxels that are no organ are appended to ``sets``."""
    shares: dict[int, float] = {}
    match component:
        case UniformPosition():
            pass
        case VoxelUniform():
            total = sum(organ.num_voxels for organ in organs)
            shares = {i: organ.num_voxels / total for i, organ in enumerate(organs, start=1)}
        case ClassUniform():
            shares = {i: 1 / len(organs) for i, _ in enumerate(organs, start=1)}
        case SingleClass(label):
            shares = {i: 1.0 for i, organ in enumerate(organs, start=1) if organ.label == label}
        case _:
            strata = [stratum for stratum in component.strata(labels, image_hu) if stratum.size]
            first = 1 + len(organs) + len(sets)
            sets.extend(strata)
            shares = {first + i: 1 / len(strata) for i in range(len(strata))}
    return shares or {0: 1.0}  # without an admissible voxel a component falls back to the uniform law
