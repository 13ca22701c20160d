"""Where training patches are cut: the law of the patch centre, said as an array and drawn from.

A `CentreDistribution` is the categorical distribution over the voxels of a case from which a patch
centre is drawn, before the patch is clamped at the border. The training sampler draws from it and
`hnlib.imbalance` integrates over it without random numbers, both through one clamping rule, so what
is measured is what is trained on.

Arrays have axes (X, Y, Z); label 0 is background. A patch smaller than the volume always lies
inside it; along an axis on which the volume is the shorter one, both sides are padded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from hnlib.errors import unknown

Triple = tuple[int, int, int]
Labels = NDArray[np.integer[Any]]
FlatIndices = NDArray[np.signedinteger[Any]]
Scalar = TypeVar("Scalar", bound=np.generic)

#: Threshold in HU of the background centres of Tappeiner et al. 2022: their gate is "above zero
#: after normalisation", and this is the mean that their normalisation takes off.
PAPER_GATE_HU = 324.7904


def as_triple(name: str, values: Sequence[int]) -> Triple:
    """Return three positive whole numbers, or say what came instead.

    Raises
    ------
    ValueError
        When ``values`` are not three whole numbers of at least 1.
    """
    try:
        triple = tuple(int(value) for value in values)
        whole = triple == tuple(values)
    except (TypeError, ValueError):
        triple, whole = (), False
    if not whole or len(triple) != 3 or min(triple) < 1:
        raise ValueError(f"{name} is {values!r}; three whole numbers of at least 1 are needed")
    return triple[0], triple[1], triple[2]


def axis_start(centre: int, length: int, width: int) -> int:
    """Return the first index of a patch along one axis: the clamping rule of the library.

    Parameters
    ----------
    centre
        Index of the wished centre.
    length, width
        Voxels of the volume and of the patch along this axis.

    Returns
    -------
    int
        ``clip(centre - width // 2, 0, length - width)``; negative, for padding on both sides,
        where the patch is the longer one.

    Examples
    --------
    >>> [axis_start(centre, length=6, width=4) for centre in range(6)]
    [0, 0, 0, 1, 2, 2]
    >>> axis_start(0, length=3, width=6)
    -1
    """
    if length < width:
        return -((width - length) // 2)
    return min(max(centre - width // 2, 0), length - width)


def patch_start(centre: Sequence[int], shape: Sequence[int], patch_size: Sequence[int]) -> Triple:
    """Return the first voxel of the patch around a centre, clamped into the volume.

    Parameters
    ----------
    centre
        Voxel index (x, y, z).
    shape
        Shape of the volume.
    patch_size
        Voxels of the patch along X, Y, Z, each at least 1.

    Returns
    -------
    tuple of int
        Start of the patch; negative along axes on which the patch is longer than the volume.

    Raises
    ------
    ValueError
        When a patch size is zero or negative.

    Examples
    --------
    >>> patch_start((9, 0, 2), shape=(10, 10, 3), patch_size=(4, 4, 5))
    (6, 0, -1)
    """
    width = as_triple("patch_size", patch_size)
    return (
        axis_start(int(centre[0]), int(shape[0]), width[0]),
        axis_start(int(centre[1]), int(shape[1]), width[1]),
        axis_start(int(centre[2]), int(shape[2]), width[2]),
    )


def extract(
    array: NDArray[Scalar], start: Sequence[int], patch_size: Sequence[int], pad_value: float
) -> NDArray[Scalar]:
    """Cut a patch out of an array, padding where it reaches outside.

    Parameters
    ----------
    array
        Shape (..., X, Y, Z); leading axes, such as channels, are kept whole.
    start
        First voxel, as from `patch_start`; may be negative.
    patch_size
        Voxels along X, Y, Z.
    pad_value
        Value of voxels outside the array.

    Returns
    -------
    ndarray
        A new array of shape (..., ``patch_size``) and the type of ``array``.

    Raises
    ------
    ValueError
        When a patch size is zero or negative, or the array has fewer than three axes.

    Examples
    --------
    >>> extract(np.ones((1, 1, 2)), (0, 0, -1), (1, 1, 4), pad_value=-7.0).ravel().tolist()
    [-7.0, 1.0, 1.0, -7.0]
    """
    width = as_triple("patch_size", patch_size)
    if array.ndim < 3:
        raise ValueError(f"array has shape {array.shape}; at least three axes (X, Y, Z) are needed")
    source, goal = [], []
    for first, wide, length in zip(start, width, array.shape[-3:], strict=True):
        low, high = max(int(first), 0), min(int(first) + wide, length)
        high = max(low, high)
        source.append(slice(low, high))
        goal.append(slice(low - int(first), high - int(first)))
    inside = array[..., source[0], source[1], source[2]]
    if inside.shape[-3:] == width:
        return inside.copy()
    patch = np.full((*array.shape[:-3], *width), pad_value, dtype=array.dtype)
    if inside.size:
        patch[..., goal[0], goal[1], goal[2]] = inside
    return patch


def start_tables(shape: Triple, patch_size: Triple) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return, for each axis, the number of the start position to which every centre is clamped.

    Start positions are counted from the lowest one, so an axis of length n and a patch of width
    w <= n give numbers 0 .. n - w, and a longer patch gives only number 0.
    """
    tables = [
        np.array([axis_start(c, n, w) - axis_start(0, n, w) for c in range(n)], dtype=np.intp)
        for n, w in zip(shape, patch_size, strict=True)
    ]
    return tables[0], tables[1], tables[2]


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


def _checked_shape(labels: Labels, image_hu: NDArray[np.floating[Any]] | None) -> Triple:
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
    """

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
        shape = _checked_shape(labels, image_hu)
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


@dataclass(frozen=True)
class CentreDistribution:
    """The distribution over voxels from which a patch centre is drawn: a mixture of components.

    Attributes
    ----------
    components
        Pairs (weight, component); weights are not negative and sum to 1.
    stratified
        True: a batch holds a fixed number of draws from each component, in the order of the
        components, by largest remainder, as nnU-Net forces exactly one patch of two. False: every
        draw picks its component independently, as in the code of Tappeiner et al. 2022.

    Raises
    ------
    ValueError
        When a weight is negative or the weights do not sum to 1.

    Notes
    -----
    A component without an admissible voxel in a case falls back to `UniformPosition`; its weight is
    not given to the other components.

    A stratified batch whose size times a weight is no whole number cannot hold the stated shares;
    `for_batch` returns the distribution that such a batch has in truth.

    Examples
    --------
    >>> rule = CentreDistribution(((0.5, UniformPosition()), (0.5, ClassUniform())), stratified=True)
    >>> rule.allocate(4, np.random.default_rng(0))
    [0, 0, 1, 1]
    """

    components: tuple[tuple[float, CentreComponent], ...]
    stratified: bool = False

    def __post_init__(self) -> None:
        weights = self.weights
        if not weights or min(weights) < 0 or not abs(sum(weights) - 1.0) < 1e-9:
            raise ValueError(f"weights {weights} sum to {sum(weights)}; weights of at least 0 that sum to 1 are needed")

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each component."""
        return tuple(weight for weight, _ in self.components)

    def probabilities(
        self, labels: Labels, patch_size: Sequence[int], image_hu: NDArray[np.floating[Any]] | None = None
    ) -> NDArray[np.float64]:
        """Return the probability that each voxel is drawn as centre, before clamping.

        Parameters
        ----------
        labels
            Label map, shape (X, Y, Z), integers, 0 is background.
        patch_size
            Voxels along X, Y, Z, each at least 1.
        image_hu
            CT numbers in HU, shape (X, Y, Z); needed where a component is `HuGated`.

        Returns
        -------
        ndarray
            Shape (X, Y, Z), float64, in 0..1, sum 1.

        Raises
        ------
        ValueError
            As `CentreComponent.law`.
        """
        out = np.zeros(labels.shape, dtype=np.float64)
        for weight, component in self.components:
            component.law(labels, patch_size, image_hu).add_probabilities(out, weight)
        return out

    def start_probabilities(
        self, labels: Labels, patch_size: Sequence[int], image_hu: NDArray[np.floating[Any]] | None = None
    ) -> NDArray[np.float64]:
        """Return the probability of every patch position: the law of centres pushed through the clamp.

        Parameters and errors are those of `probabilities`.

        Returns
        -------
        ndarray
            Float64, sum 1. Along an axis of length n and a patch of width w <= n entry i is the
            patch that starts at voxel i, of n - w + 1; a longer patch has one entry.

        Examples
        --------
        >>> labels = np.array([1, 1, 0, 0, 0, 1], dtype=np.uint8).reshape(6, 1, 1)
        >>> rule = CentreDistribution(((1.0, VoxelUniform()),))
        >>> rule.start_probabilities(labels, (4, 1, 1)).ravel().round(3).tolist()
        [0.667, 0.0, 0.333]
        """
        patch = as_triple("patch_size", patch_size)
        shape = _checked_shape(labels, image_hu)
        out = np.zeros([max(n - w + 1, 1) for n, w in zip(shape, patch, strict=True)], dtype=np.float64)
        for weight, component in self.components:
            component.law(labels, patch, image_hu).add_start_probabilities(out, weight, patch)
        return out

    def allocate(self, batch_size: int, rng: np.random.Generator) -> list[int]:
        """Return the component index of each slot of a batch.

        Parameters
        ----------
        batch_size
            Number of patches, at least 1.
        rng
            Used only where the distribution is not stratified.

        Returns
        -------
        list of int
            One index into ``components`` a slot.

        Raises
        ------
        ValueError
            When the batch size is below 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least 1 is needed")
        if self.stratified:
            return [index for index, count in enumerate(self._counts(batch_size)) for _ in range(count)]
        edges = list(accumulate(self.weights))[:-1]
        return [sum(u >= edge for edge in edges) for u in rng.random(batch_size).tolist()]

    def _counts(self, batch_size: int) -> list[int]:
        """Share out a batch by largest remainder; of equal remainders the first component's wins."""
        # Rounding keeps 0.1 * 3 from becoming a larger remainder than an exact 0.3.
        quotas = [round(weight * batch_size, 9) for weight in self.weights]
        counts = [int(quota) for quota in quotas]
        order = sorted(range(len(quotas)), key=lambda i: (round(counts[i] - quotas[i], 9), i))
        for index in order[: batch_size - sum(counts)]:
            counts[index] += 1
        return counts

    def for_batch(self, batch_size: int) -> CentreDistribution:
        """Return the distribution that batches of this size have when shares are rounded to patches.

        Examples
        --------
        >>> RULES["nnunet"].for_batch(3).weights
        (0.6666666666666666, 0.3333333333333333)
        """
        if not self.stratified:
            return self
        slots = self.allocate(batch_size, np.random.default_rng(0))
        shares = [slots.count(index) / batch_size for index in range(len(self.components))]
        components = tuple((share, part) for share, (_, part) in zip(shares, self.components, strict=True))
        return replace(self, components=components)


class CentreSampler:
    """Draws centres in one case; the voxel sets are found once, so that a draw costs microseconds.

    Parameters
    ----------
    distribution
        The law of centres.
    labels
        Label map, shape (X, Y, Z), integers, 0 is background. It is not kept.
    patch_size
        Voxels along X, Y, Z, each at least 1.
    image_hu
        CT numbers in HU, shape (X, Y, Z); needed where a component is `HuGated`. It is not kept.

    Raises
    ------
    ValueError
        As `CentreComponent.law`.

    Examples
    --------
    >>> labels = np.zeros((8, 8, 8), dtype=np.uint8)
    >>> labels[7, 0, 3] = 1
    >>> sampler = CentreSampler(RULES["nnunet"], labels, patch_size=(4, 4, 4))
    >>> centre = sampler.draw(np.random.default_rng(0), component_index=1)
    >>> centre, patch_start(centre, labels.shape, (4, 4, 4))
    ((7, 0, 3), (4, 0, 1))
    """

    def __init__(
        self,
        distribution: CentreDistribution,
        labels: Labels,
        patch_size: Sequence[int],
        image_hu: NDArray[np.floating[Any]] | None = None,
    ) -> None:
        self.distribution = distribution
        self._laws = tuple(component.law(labels, patch_size, image_hu) for _, component in distribution.components)

    def draw(self, rng: np.random.Generator, component_index: int) -> Triple:
        """Draw a centre (x, y, z) from one component; `CentreDistribution.allocate` says from which."""
        return self._laws[component_index].draw(rng)


RULES: dict[str, CentreDistribution] = {
    "nnunet": CentreDistribution(((0.5, UniformPosition()), (0.5, ClassUniform())), stratified=True),
    "paper": CentreDistribution(((2 / 3, HuGated(PAPER_GATE_HU)), (1 / 3, VoxelUniform()))),
    "class_uniform_two_thirds": CentreDistribution(((1 / 3, UniformPosition()), (2 / 3, ClassUniform()))),
    "uniform": CentreDistribution(((1.0, UniformPosition()),)),
    "voxel_uniform": CentreDistribution(((1.0, VoxelUniform()),)),
    "class_uniform": CentreDistribution(((1.0, ClassUniform()),)),
}


def centre_rule(name: str) -> CentreDistribution:
    """Return a named law of centres.

    Names: ``nnunet`` (half uniform in position, half forced to a class, exactly one of two),
    ``paper`` (two thirds background above 324.7904 HU, one third uniform over foreground voxels,
    independent), ``class_uniform_two_thirds``, ``uniform``, ``voxel_uniform``, ``class_uniform``.

    Raises
    ------
    hnlib.errors.ConfigError
        When the name is unknown.
    """
    if name not in RULES:
        raise unknown("sampling rule", name, RULES)
    return RULES[name]
