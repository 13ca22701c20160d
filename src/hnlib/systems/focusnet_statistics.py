"""What FocusNet learns from the labels of the training cases: which organs are small, and how large their ROIs are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects

from hnlib.errors import ConfigError
from hnlib.preprocess import Prepared

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class OrganSize:
    """Size of an organ on the plan's grid, mean over the training cases that have a voxel of it.

    Attributes
    ----------
    organ, value
        Name and label value.
    cases
        Cases that have it; 0: the other numbers are 0 too.
    voxels, volume_ml
        Of the organ.
    extent_mm
        Sides of its bounding box along X, Y, Z.
    """

    organ: str
    value: int
    cases: int
    voxels: float
    volume_ml: float
    extent_mm: tuple[float, float, float]

    @property
    def diameter_mm(self) -> float:
        """Mean of the three sides of the bounding box.

        Not the diameter of a ball of the same volume: three times that is 33 mm for an optic nerve 34 mm long.
        """
        return float(np.mean(self.extent_mm))


@dataclass(frozen=True)
class SmallRule:
    """Which organs are small; all that is given must hold.

    Attributes
    ----------
    below_voxels
        Fewer voxels on average (Gao et al. 2019: 1000).
    below_ml
        Less volume on average.
    longest_mm
        No side of the mean bounding box is longer: a cord has no place that a heat map could name.
    """

    below_voxels: float = 1000
    below_ml: float = float("inf")
    longest_mm: float = float("inf")

    def holds(self, size: OrganSize) -> bool:
        """Return whether an organ is small; one that no training case has is not."""
        return (
            size.cases > 0
            and size.voxels < self.below_voxels
            and size.volume_ml < self.below_ml
            and max(size.extent_mm) <= self.longest_mm
        )


def organ_sizes(cases: Sequence[Prepared], organs: Sequence[str], spacing_mm: Sequence[float]) -> list[OrganSize]:
    """Return the mean size of each organ over the cases that have it."""
    spacing = np.asarray(spacing_mm, float)
    found: list[list[tuple[int, np.ndarray]]] = [[] for _ in organs]
    for case in cases:
        labels = np.asarray(case.labels)
        counts = np.bincount(labels.ravel(), minlength=len(organs) + 1)
        for index, box in enumerate(find_objects(labels, len(organs))):
            if box is not None:
                sides = np.array([part.stop - part.start for part in box]) * spacing
                found[index].append((int(counts[index + 1]), sides))
    sizes = []
    for value, (organ, rows) in enumerate(zip(organs, found, strict=True), start=1):
        voxels = float(np.mean([count for count, _ in rows])) if rows else 0.0
        x, y, z = np.mean([sides for _, sides in rows], axis=0) if rows else (0.0, 0.0, 0.0)
        volume_ml = voxels * float(spacing.prod()) / 1000
        sizes.append(OrganSize(organ, value, len(rows), voxels, volume_ml, (float(x), float(y), float(z))))
    return sizes


def small_organs(sizes: Sequence[OrganSize], rule: SmallRule, named: Sequence[str] = ()) -> list[OrganSize]:
    """Return the small organs: those that are named or, without names, those for which the rule holds.

    Raises
    ------
    ConfigError
        When there is none, a name is unknown, or an organ that is named is in no training case.
    """
    by_name = {size.organ: size for size in sizes}
    for name in named:
        if name not in by_name or not by_name[name].cases:
            why = "is in no training case" if name in by_name else f"is none of {', '.join(by_name)}"
            raise ConfigError(f"focusnet: small organ '{name}' {why}; take it off the option small_organs")
    chosen = [by_name[name] for name in named] if named else [size for size in sizes if rule.holds(size)]
    if not chosen:
        least = min((size for size in sizes if size.cases), key=lambda size: size.voxels, default=None)
        told = f"the smallest, {least.organ}, has {least.voxels:.0f} voxels" if least else "no training case has any"
        raise ConfigError(
            f"focusnet: no organ is small by the rule ({told}); raise below_voxels, name small_organs, or train snet"
        )
    return chosen


def roi_voxels(size: OrganSize, times: float, spacing_mm: Sequence[float], largest: Sequence[int]) -> Triple:
    """Return the voxels of an organ's ROI: a cube of so many times its diameter, at most the training patch.

    Examples
    --------
    >>> nerve = OrganSize("optic_nerve_left", 1, 20, 280, 0.7, (21, 34, 12))
    >>> roi_voxels(nerve, 3, (2, 2, 2.5), (40, 40, 24))  # 3 x 22.3 mm: 33.5, 33.5 and 26.8 voxels
    (34, 34, 24)
    """
    wanted = [max(1, round(times * size.diameter_mm / mm)) for mm in spacing_mm]
    x, y, z = (min(want, int(most)) for want, most in zip(wanted, largest, strict=True))
    return x, y, z
