"""nnU-Net's rules: from patch size and spacing to the levels of a U-Net, and from a budget to a patch.

All sizes and spacings are in (X, Y, Z) order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Index = tuple[int, int, int]


@dataclass(frozen=True)
class Topology:
    """Kernel and stride of every level of a U-Net, the finest first (its stride is 1).

    Attributes
    ----------
    kernels, strides
        Of each level.
    heads
        Levels that have an output, the finest first; the decoder ends at the first of them. Empty: those of nnU-Net's
        deep supervision, all decoder levels but the two coarsest, at least one.

    Examples
    --------
    >>> plan_topology((96, 80, 48), (0.98, 0.98, 2.5)).num_levels
    5
    """

    kernels: tuple[Index, ...]
    strides: tuple[Index, ...]
    heads: tuple[int, ...] = ()

    @property
    def num_levels(self) -> int:
        """Number of resolutions."""
        return len(self.strides)

    @property
    def head_levels(self) -> tuple[int, ...]:
        """Levels that have an output, the finest first."""
        return self.heads or tuple(range(max(1, self.num_levels - 2)))

    @property
    def num_heads(self) -> int:
        """Number of outputs under deep supervision."""
        return len(self.head_levels)

    @property
    def divisor(self) -> Index:
        """The number by which a patch must divide along each axis."""
        total = np.prod(np.asarray(self.strides), axis=0)
        return int(total[0]), int(total[1]), int(total[2])

    def filters(self, width: int, cap: int) -> tuple[int, ...]:
        """Channels of each level: ``width`` doubled at every level, at most ``cap``."""
        return tuple(min(width * 2**level, cap) for level in range(self.num_levels))


def plan_topology(
    patch_size: Sequence[int],
    spacing_mm: Sequence[float],
    *,
    max_levels: int | None = None,
    heads: Sequence[int] = (),
) -> Topology:
    """Return the levels by the rule of nnU-Net as the paper's code applies it.

    At each level an axis is halved when its spacing is at most twice the finest and at least 8
    voxels are left; a kernel is 1 along an axis whose spacing is more than twice the finest.
    Tappeiner et al. 2022 (code): 6 levels for 192 x 160 x 56, 5 for 96 x 80 x 48. `max_levels` stops
    earlier, so that patches of several sizes can have one network. `heads` are the levels that have an output, where
    they are not nnU-Net's; level i has 1/2^i of the resolution along an axis that is halved every time.

    Raises
    ------
    ValueError
        When the patch is too small for two levels, does not divide by its own strides, or lacks the level of a head.
    """
    if len(patch_size) != 3 or len(spacing_mm) != 3 or min(patch_size) < 1 or min(spacing_mm) <= 0:
        raise ValueError(f"three positive sizes and spacings are needed, got {patch_size} and {spacing_mm}")
    size, spacing = np.asarray(patch_size), np.asarray(spacing_mm, float)
    kernels: list[Index] = []
    strides: list[Index] = [(1, 1, 1)]
    while True:
        fine = spacing <= 2 * spacing.min()
        halve = fine & (size >= 8)
        if not halve.any() or len(strides) == max_levels:
            break
        kernels.append(_index(np.where(fine, 3, 1)))
        strides.append(_index(np.where(halve, 2, 1)))
        size, spacing = size // np.where(halve, 2, 1), spacing * np.where(halve, 2, 1)
    topology = Topology((*kernels, (3, 3, 3)), tuple(strides), tuple(heads))
    if topology.num_levels < 2 or any(n % d for n, d in zip(patch_size, topology.divisor, strict=True)):
        raise ValueError(
            f"patch size {tuple(patch_size)} at {tuple(spacing_mm)} mm: two levels or more are needed and "
            f"each side must divide by {topology.divisor}"
        )
    if list(heads) != sorted(set(heads) & set(range(topology.num_levels))):
        raise ValueError(
            f"heads are at levels {list(heads)}; levels of 0 to {topology.num_levels - 1} are needed, finest first"
        )
    return topology


def receptive_field(topology: Topology) -> Index:
    """Return the voxels along X, Y, Z that one output voxel can see through the convolutions of a U-Net.

    The widest span over all output voxels, far from the border; from one output voxel to the next it differs, as the
    coarse grids do not move with it. Instance norms, which see the whole patch, are left out.

    Notes
    -----
    From the output back: two convolutions of kernel k widen a span by k - 1 each, a transposed convolution maps it to
    the coarse voxels above which it lies, and an encoder level widens it by k - 1, multiplies by its stride and
    widens again. The skips see less. Counted with a whole decoder, wherever the finest head is.

    Examples
    --------
    >>> receptive_field(plan_topology((16, 16, 16), (1.0, 1.0, 1.0)))
    (35, 35, 35)
    """
    spans = [max(_span(topology, axis, at) for at in range(topology.divisor[axis])) for axis in range(3)]
    return spans[0], spans[1], spans[2]


def _span(topology: Topology, axis: int, at: int) -> int:
    """Return the input voxels along an axis that the output voxel ``at`` sees."""
    first = last = at
    for kernel, stride in zip(topology.kernels[1:], topology.strides[1:], strict=True):
        reach = 2 * (kernel[axis] // 2)
        first, last = (first - reach) // stride[axis], (last + reach) // stride[axis]
    for kernel, stride in zip(reversed(topology.kernels), reversed(topology.strides), strict=True):
        reach = kernel[axis] // 2
        first, last = (first - reach) * stride[axis] - reach, (last + reach) * stride[axis] + reach
    return last - first + 1


def forward_operations(
    topology: Topology,
    filters: Sequence[int],
    patch_size: Sequence[int],
    num_classes: int,
    *,
    num_heads: int | None = None,
    in_channels: int = 1,
) -> int:
    r"""Return the floating-point operations of the convolutions of a U-Net on one patch, one way.

    A multiplication and an addition are two. The way back takes twice as many: a gradient of the input
    and one of the weights for each convolution (the first needs none of its input, which is left uncounted).

    Parameters
    ----------
    topology, filters
        Kernels and strides; channels of each level, as from ``topology.filters``.
    patch_size
        Voxels along X, Y, Z.
    num_classes
        Channels of an output head.
    num_heads
        Output heads, from the finest down; None takes all of the topology's.

    Notes
    -----
    A level of V voxels and c channels whose kernel has k voxels has two convolutions, of
    :math:`2 k V c_{above} c` and :math:`2 k V c^2` operations. Each decoder level has a transposed
    convolution whose kernel is its stride (:math:`2 V c_{below} c`) and two convolutions of
    :math:`2 k V \cdot 2c \cdot c` and :math:`2 k V c^2`, k being the kernel of the level below
    (`monai.networks.nets.DynUNet`). A head has :math:`2 V c C`.
    """
    heads = topology.head_levels[:num_heads]
    size, total, above = np.asarray(patch_size, np.int64), 0, in_channels
    for level, (kernel, stride, c) in enumerate(zip(topology.kernels, topology.strides, filters, strict=True)):
        size = size // stride
        voxels, k = int(size.prod()), int(np.prod(kernel))
        total += 2 * k * voxels * c * (above + c)
        if topology.head_levels[0] <= level < topology.num_levels - 1:
            k = int(np.prod(topology.kernels[level + 1]))
            total += 2 * voxels * c * filters[level + 1] + 2 * k * voxels * c * 3 * c
        total += 2 * voxels * c * num_classes if level in heads else 0
        above = c
    return total


def plan_patch(median_shape: Sequence[int], spacing_mm: Sequence[float], max_voxels: int) -> Index:
    """Return the large patch by nnU-Net's rule for a budget of voxels.

    Start at the median shape of the cropped training scans and shrink the axis that is largest
    relative to it, by one divisor of its own strides at a time, until the budget is met. (nnU-Net
    estimates activation memory; at a fixed network width that is proportional to the voxels.)

    Raises
    ------
    ValueError
        When the budget is below 512 voxels.
    """
    if max_voxels < 512:
        raise ValueError(f"a budget of at least 512 voxels a patch is needed, got {max_voxels}")
    median = np.asarray(median_shape, float)
    size = np.maximum(8, np.asarray(median_shape))
    while True:
        divisor = _divisor_of(size, spacing_mm)
        size = np.maximum(divisor, size // divisor * divisor)
        if size.prod() <= max_voxels and (size % _divisor_of(size, spacing_mm) == 0).all():
            return _index(size)
        axis = int(np.argmax(np.where(size > divisor, size / median, -1)))
        size[axis] -= divisor[axis]


def halve_in_plane(patch_size: Sequence[int], spacing_mm: Sequence[float]) -> Index:
    """Return the small patch: half as wide along X and Y, rounded to what its own network divides by."""
    size = np.asarray([patch_size[0] // 2, patch_size[1] // 2, patch_size[2]])
    for _ in range(8):
        divisor = _divisor_of(size, spacing_mm)
        rounded = np.maximum(divisor, np.round(size / divisor).astype(int) * divisor)
        if (rounded == size).all():
            break
        size = rounded
    return _index(size)


def _divisor_of(size: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    size, spacing = size.copy(), np.asarray(spacing_mm, float)
    total = np.ones(3, int)
    while True:
        halve = (spacing <= 2 * spacing.min()) & (size >= 8)
        if not halve.any():
            return total
        step = np.where(halve, 2, 1)
        total, size, spacing = total * step, size // step, spacing * step


def _index(values: np.ndarray) -> Index:
    x, y, z = (int(v) for v in values)
    return x, y, z
