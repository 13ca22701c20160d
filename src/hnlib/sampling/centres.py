"""The distribution of patch centres as a mixture of components, its sampler, and the named rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hnlib.errors import unknown
from hnlib.sampling.components import (
    CentreComponent,
    ClassUniform,
    HuGated,
    Labels,
    UniformPosition,
    VoxelUniform,
    checked_shape,
)
from hnlib.sampling.patches import Triple, as_triple

#: Threshold in HU of the background centres of Tappeiner et al. 2022: their gate is "above zero
#: after normalisation", and this is the mean that their normalisation takes off.
PAPER_GATE_HU = 324.7904


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

    @property
    def needs_image(self) -> bool:
        """Whether a component reads the CT numbers."""
        return any(component.needs_image for _, component in self.components)

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
        shape = checked_shape(labels, image_hu)
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
    >>> from hnlib.sampling import patch_start
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


def centre_rule(name: str | CentreDistribution) -> CentreDistribution:
    """Return a named law of centres; a law is returned as it is.

    Names: ``nnunet`` (half uniform in position, half forced to a class, exactly one of two),
    ``paper`` (two thirds background above 324.7904 HU, one third uniform over foreground voxels,
    independent), ``class_uniform_two_thirds``, ``uniform``, ``voxel_uniform``, ``class_uniform``.

    Raises
    ------
    hnlib.errors.ConfigError
        When the name is unknown.
    """
    if isinstance(name, CentreDistribution):
        return name
    if name not in RULES:
        raise unknown("sampling rule", name, RULES)
    return RULES[name]
