"""Ways to choose a patch centre: uniform in position, or from sets of voxels that the labels or the CT name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hnlib.sampling.laws import CentreLaw, FlatIndices, StrataLaw, position_law
from hnlib.sampling.patches import Triple, as_triple

Labels = NDArray[np.integer[Any]]


def checked_shape(labels: Labels, image_hu: NDArray[np.floating[Any]] | None) -> Triple:
    """Return the shape of a label map, or say what is wrong with the arrays.

    Raises
    ------
    ValueError
        When the labels are no 3D integer array with a voxel, or the image is of another shape.
    """
    if labels.ndim != 3 or labels.size == 0 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels have shape {labels.shape} and type {labels.dtype}; "
            "a 3D integer array with at least one voxel is needed"
        )
    if image_hu is not None and image_hu.shape != labels.shape:
        raise ValueError(f"image_hu has shape {image_hu.shape}; the shape of the labels, {labels.shape}, is needed")
    return labels.shape[0], labels.shape[1], labels.shape[2]


class CentreComponent(ABC):
    """One way to choose a patch centre.

    A component that finds no admissible voxel in a case, such as a foreground rule in a scan
    without organs, falls back to `UniformPosition`, both in what it states and in what it draws.

    Attributes
    ----------
    needs_image
        Whether it reads the CT numbers.
    """

    needs_image: ClassVar[bool] = False

    @abstractmethod
    def strata(self, labels: Labels, image_hu: NDArray[np.floating[Any]] | None) -> list[FlatIndices]:
        """Return the equally likely sets of admissible voxels, as flat indices in C order."""

    def law(
        self, labels: Labels, patch_size: Sequence[int], image_hu: NDArray[np.floating[Any]] | None = None
    ) -> CentreLaw:
        """Return the law of this component in one case, from which many centres can be drawn fast.

        Parameters
        ----------
        labels
            Label map, shape (X, Y, Z), integers, 0 is background.
        patch_size
            Voxels along X, Y, Z, each at least 1.
        image_hu
            CT numbers in HU, shape (X, Y, Z); needed by `HuGated` alone.

        Raises
        ------
        ValueError
            When the labels are no 3D integer array, the image is of another shape or missing where
            it is needed, or a patch size is below 1.
        """
        shape = checked_shape(labels, image_hu)
        patch = as_triple("patch_size", patch_size)
        strata = tuple(stratum for stratum in self.strata(labels, image_hu) if stratum.size)
        return StrataLaw(shape, strata) if strata else position_law(shape, patch)

    def probabilities(
        self, labels: Labels, patch_size: Sequence[int], image_hu: NDArray[np.floating[Any]] | None = None
    ) -> NDArray[np.float64]:
        """Return the probability that each voxel is drawn as centre, before clamping.

        Parameters and errors are those of `law`.

        Returns
        -------
        ndarray
            Shape (X, Y, Z), float64, in 0..1, sum 1.
        """
        out = np.zeros(labels.shape, dtype=np.float64)
        self.law(labels, patch_size, image_hu).add_probabilities(out, 1.0)
        return out

    def draw(
        self,
        rng: np.random.Generator,
        labels: Labels,
        patch_size: Sequence[int],
        image_hu: NDArray[np.floating[Any]] | None = None,
    ) -> Triple:
        """Draw one centre (x, y, z). For many draws from one case use `CentreSampler`."""
        return self.law(labels, patch_size, image_hu).draw(rng)


@dataclass(frozen=True)
class UniformPosition(CentreComponent):
    """Uniform over the distinct patch positions: over the centres that need no clamping.

    Along an axis on which the patch is longer than the volume there is one position.

    Examples
    --------
    >>> labels = np.zeros((5, 1, 1), dtype=np.uint8)
    >>> UniformPosition().probabilities(labels, (4, 1, 1)).ravel().tolist()
    [0.0, 0.0, 0.5, 0.5, 0.0]
    """

    def strata(self, labels: Labels, image_hu: NDArray[np.floating[Any]] | None) -> list[FlatIndices]:
        """Return no set: what is left without one is the uniform law over positions."""
        return []


@dataclass(frozen=True)
class VoxelUniform(CentreComponent):
    """Uniform over all foreground voxels pooled, so a large organ is chosen more often.

    The foreground rule in the code of Tappeiner et al. 2022.

    Examples
    --------
    >>> labels = np.array([0, 1, 1, 1, 2], dtype=np.uint8).reshape(5, 1, 1)
    >>> VoxelUniform().probabilities(labels, (1, 1, 1)).ravel().tolist()
    [0.0, 0.25, 0.25, 0.25, 0.25]
    """

    def strata(self, labels: Labels, image_hu: NDArray[np.floating[Any]] | None) -> list[FlatIndices]:
        """Return one set: the foreground."""
        return [_compact(np.flatnonzero(labels != 0))]


@dataclass(frozen=True)
class ClassUniform(CentreComponent):
    """A class uniform among the organs present in the case, then a voxel uniform in it.

    The forced half of nnU-Net's rule (Isensee et al. 2021).

    Examples
    --------
    >>> labels = np.array([0, 1, 1, 1, 2], dtype=np.uint8).reshape(5, 1, 1)
    >>> ClassUniform().probabilities(labels, (1, 1, 1)).ravel().round(3).tolist()
    [0.0, 0.167, 0.167, 0.167, 0.5]
    """

    def strata(self, labels: Labels, image_hu: NDArray[np.floating[Any]] | None) -> list[FlatIndices]:
        """Return one set for each class present."""
        foreground = _compact(np.flatnonzero(labels != 0))
        classes = labels.reshape(-1)[foreground]
        return [foreground[classes == label] for label in np.unique(classes)]


@dataclass(frozen=True)
class SingleClass(CentreComponent):
    """Uniform over the voxels of one class; a mixture of these gives each organ a share of its own.

    Attributes
    ----------
    label
        Value of the class in the label map, at least 1.

    Raises
    ------
    ValueError
        When the label is below 1.

    Examples
    --------
    >>> labels = np.array([0, 1, 1, 1, 2], dtype=np.uint8).reshape(5, 1, 1)
    >>> SingleClass(2).probabilities(labels, (1, 1, 1)).ravel().tolist()
    [0.0, 0.0, 0.0, 0.0, 1.0]
    """

    label: int

    def __post_init__(self) -> None:
        if self.label < 1:
            raise ValueError(f"label is {self.label}; the value of an organ, at least 1, is needed")

    def strata(self, labels: Labels, image_hu: NDArray[np.floating[Any]] | None) -> list[FlatIndices]:
        """Return one set: the voxels of the class."""
        return [_compact(np.flatnonzero(labels == self.label))]


@dataclass(frozen=True)
class HuGated(CentreComponent):
    """Uniform over the background voxels whose CT number lies above a threshold.

    The background rule in the code of Tappeiner et al. 2022, where the threshold is 324.7904 HU:
    their background patches are centred on unlabelled bone, teeth, metal or table.

    Attributes
    ----------
    above_hu
        Threshold in HU; a voxel at the threshold itself is out.
    """

    above_hu: float
    needs_image: ClassVar[bool] = True

    def strata(self, labels: Labels, image_hu: NDArray[np.floating[Any]] | None) -> list[FlatIndices]:
        """Return one set: background above the threshold."""
        if image_hu is None:
            raise ValueError(f"image_hu is None; HuGated(above_hu={self.above_hu}) needs the CT numbers in HU")
        return [_compact(np.flatnonzero((labels == 0) & (image_hu > self.above_hu)))]


def _compact(indices: NDArray[np.intp]) -> FlatIndices:
    """Halve the memory of the sets that a sampler keeps for every case of a training set."""
    if indices.size and int(indices[-1]) > np.iinfo(np.int32).max:
        return indices
    return indices.astype(np.int32)
