"""What a training step keeps in memory, counted from the layers of the network.

Nothing here is fitted: a U-Net of `hnlib.networks` keeps for its backward pass what its convolutions and norms have
read, and these volumes follow from topology, channels, patch and batch. ``python -m benchmarks planner`` compares the
count with what torch keeps and holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from hnlib.errors import unknown
from hnlib.networks.plan import Topology

#: Bytes of a number in a volume, by Fabric's name of a precision.
VOLUME_BYTES: Mapping[str, int] = MappingProxyType({"32-true": 4, "bf16-mixed": 2, "16-mixed": 2})
#: Numbers that an optimiser keeps for each weight: AdamW two moments, SGD its momentum.
OPTIMISER_NUMBERS: Mapping[str, int] = MappingProxyType({"adamw": 2, "sgd": 1})


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a training step at its peak, by what holds them.

    Attributes
    ----------
    activations
        Volumes that the network keeps for its backward pass, the image included.
    loss
        What the loss keeps: probabilities, the true class's log-probability, and the labels of each head.
    weights
        Parameters, with their copy in half precision where there is one.
    gradients, optimiser
        Of the parameters.
    buffers
        What the backward pass begins with, which is its peak: the finest logits in float32, their gradient, and that
        of the last feature map.
    """

    activations: int
    loss: int
    weights: int
    gradients: int
    optimiser: int
    buffers: int

    @property
    def total(self) -> int:
        """Sum of all parts, in bytes: a bound, as the gradients of weights come when activations go.

        The program itself, the workspace of convolutions and a CUDA context are not in it.
        """
        return self.activations + self.loss + self.weights + self.gradients + self.optimiser + self.buffers


def training_memory(
    network: str,
    topology: Topology,
    patch_size: Sequence[int],
    batch_size: int,
    num_classes: int,
    *,
    width: int,
    cap: int = 320,
    precision: str = "32-true",
    optimiser: str = "adamw",
) -> TrainingMemory:
    """Return the bytes of a training step of one of the library's networks.

    Parameters
    ----------
    network
        ``dynunet`` or ``slim_dynunet``.
    topology, num_classes, width, cap
        As for `hnlib.networks.build_network`.
    patch_size, batch_size
        Voxels along X, Y, Z, and patches a step.
    precision
        ``32-true``, ``bf16-mixed`` or ``16-mixed``.
    optimiser
        ``adamw`` or ``sgd``.

    Returns
    -------
    TrainingMemory
        Bytes by what holds them.

    Raises
    ------
    ConfigError
        For a network, precision or optimiser that the model does not know.

    Notes
    -----
    At a level of V voxels and c channels two convolutions and two norms are kept as 4 c V numbers: each norm's input
    and each activation, which is the next convolution's input too (leaky ReLU works in place). The decoder adds the
    2 c V of the concatenation; the skip itself is the encoder's activation. The image is kept once. `slim_dynunet`
    keeps its windows before and after the hyperbolic tangent in float32, and as the first convolution reads them. The
    means of instance norms, one number a channel, are left out, and so is what a loss keeps of heads that it enlarges.
    """
    _check(network, precision, optimiser)
    filters, channels = _channels(network, topology, width, cap)
    size, numbers = np.asarray(patch_size, np.int64), 0
    level_voxels = []
    finest = topology.head_levels[0]
    for level, (stride, count) in enumerate(zip(topology.strides, filters, strict=True)):
        size = size // stride
        level_voxels.append(int(size.prod()))
        volumes = 4 + 6 if finest <= level < topology.num_levels - 1 else 4
        numbers += volumes * count * level_voxels[-1]
    wide = VOLUME_BYTES[precision]
    image = channels * level_voxels[0] * wide
    if network == "slim_dynunet":
        image += channels * level_voxels[0] * 8
    heads = sum(level_voxels[level] * (4 * num_classes + 8 + 4) for level in topology.head_levels)
    weights = num_parameters(topology, filters, num_classes, in_channels=channels)
    weights += 2 * channels if network == "slim_dynunet" else 0
    return TrainingMemory(
        activations=batch_size * (numbers * wide + image),
        loss=batch_size * heads,
        weights=weights * (4 if wide == 4 else 6),
        gradients=4 * weights,
        optimiser=4 * weights * OPTIMISER_NUMBERS[optimiser],
        buffers=batch_size * level_voxels[finest] * (2 * 4 * num_classes + filters[finest] * wide),
    )


def num_parameters(topology: Topology, filters: Sequence[int], num_classes: int, *, in_channels: int = 1) -> int:
    """Return the number of weights of a U-Net with deep supervision, by the layers of `monai.networks.nets.DynUNet`.

    Convolutions have no bias, norms have two numbers a channel, heads have a bias.
    """
    total, above = 0, in_channels
    for level, (kernel, c) in enumerate(zip(topology.kernels, filters, strict=True)):
        k = int(np.prod(kernel))
        total += k * (above * c + c * c) + 4 * c
        if topology.head_levels[0] <= level < topology.num_levels - 1:
            k, stride = int(np.prod(topology.kernels[level + 1])), int(np.prod(topology.strides[level + 1]))
            total += stride * filters[level + 1] * c + k * 3 * c * c + 4 * c
        total += (c + 1) * num_classes if level in topology.head_levels else 0
        above = c
    return total


def _channels(network: str, topology: Topology, width: int, cap: int) -> tuple[tuple[int, ...], int]:
    """Return the channels of each level and those of the first convolution's input."""
    finest, *coarser = topology.filters(width, cap)
    if network == "slim_dynunet":
        return (max(1, finest // 2), *coarser), 4
    return (finest, *coarser), 1


def _check(network: str, precision: str, optimiser: str) -> None:
    for kind, name, names in (
        ("network of the memory model", network, ("dynunet", "slim_dynunet")),
        ("precision", precision, VOLUME_BYTES),
        ("optimiser", optimiser, OPTIMISER_NUMBERS),
    ):
        if name not in names:
            raise unknown(kind, name, names)
