"""The patches that a plan may choose from: each with its network, its batch and its memory.

A patch is a candidate when its sides, of 8 voxels or more, divide by the strides that nnU-Net's rule of topology gives
its own network, the network is deep enough, its sides in mm are not too unlike, and some batch brings it to the common
number of voxels a step within the memory. All sizes and spacings are in (X, Y, Z) order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from hnlib.errors import ConfigError
from hnlib.networks import Topology, TrainingMemory, plan_topology, receptive_field, training_memory
from hnlib.sampling import Triple

Vector = tuple[float, float, float]
GB = 1e9
#: Sides of a patch: these times powers of two, at least `SMALLEST`. Halved until fewer than 8 are left, they leave no
#: rest, and no others do: four sides a doubling of the length, however long the axis. An axis that nnU-Net's rule stops
#: halving sooner, as its voxels are the longest, may have others, but only where its edge in mm is more than twice the
#: shortest.
_STEPS = (4, 5, 6, 7)
SMALLEST = 8


@dataclass(frozen=True)
class Limits:
    """What a plan must keep to.

    Attributes
    ----------
    memory_bytes
        Most bytes of a training step.
    network, width, cap, precision, optimiser
        As in `hnlib.networks.training_memory`.
    voxels_per_step
        Voxels that every plan shows the network in a step; None takes the most that the memory holds.
    min_levels
        Least number of resolutions of the network.
    min_batch, max_batch
        Fewest and most patches a step: in a larger batch many come from one scan.
    max_aspect
        Longest side over shortest side of a patch, in mm. Up to 2, no patch that a network takes is left out.
    voxel_tolerance
        How far from ``voxels_per_step`` a step may be, as a fraction: a batch is a whole number.
    """

    memory_bytes: float
    network: str = "dynunet"
    width: int = 32
    cap: int = 320
    precision: str = "32-true"
    optimiser: str = "adamw"
    voxels_per_step: int | None = None
    min_levels: int = 3
    min_batch: int = 2
    max_batch: int = 64
    max_aspect: float = 2.0
    voxel_tolerance: float = 0.1

    def __post_init__(self) -> None:
        least = {
            "memory_bytes": self.memory_bytes,
            "width": self.width,
            "cap": self.cap,
            "min_batch": self.min_batch,
            "max_batch": self.max_batch,
        }
        least |= {"min_levels": self.min_levels, "max_aspect": self.max_aspect}
        least |= {"voxels_per_step": 1 if self.voxels_per_step is None else self.voxels_per_step}
        for name, value in least.items():
            if not (math.isfinite(value) and value >= 1):
                raise ConfigError(f"{name} is {value}; a number of at least 1 is needed")
        if not 0 < self.voxel_tolerance < 1:
            raise ConfigError(f"voxel_tolerance is {self.voxel_tolerance}; a fraction between 0 and 1 is needed")


@dataclass(frozen=True)
class Candidate:
    """A patch that can be trained on, with what follows from its size.

    Attributes
    ----------
    patch_size, batch_size
        Voxels along X, Y, Z, and patches a step.
    topology
        Kernels and strides of its network.
    memory
        Bytes of a training step.
    receptive_field
        Voxels along X, Y, Z that one output voxel sees, patch or no patch.
    """

    patch_size: Triple
    batch_size: int
    topology: Topology
    memory: TrainingMemory
    receptive_field: Triple

    @property
    def voxels_per_step(self) -> int:
        """Voxels of a patch times patches a step."""
        return math.prod(self.patch_size) * self.batch_size

    def context_mm(self, spacing_mm: Vector) -> float:
        """Return the edge of the cube that holds as much as one output voxel can see, inside the patch."""
        seen = (
            min(n, field) * mm for n, field, mm in zip(self.patch_size, self.receptive_field, spacing_mm, strict=True)
        )
        return math.prod(seen) ** (1 / 3)


def candidate_of(
    patch_size: Triple, batch_size: int, spacing_mm: Vector, num_classes: int, limits: Limits
) -> Candidate:
    """Return a patch and batch of one's own with network and memory, whether or not they meet the limits.

    Raises
    ------
    ValueError
        When no network takes a patch of that size.
    """
    topology = plan_topology(patch_size, spacing_mm)
    memory = _memory(patch_size, topology, batch_size, num_classes, limits)
    return Candidate(patch_size, batch_size, topology, memory, receptive_field(topology))


def candidates(max_shape: Sequence[int], spacing_mm: Vector, num_classes: int, limits: Limits) -> list[Candidate]:
    """Return every patch that meets the limits, the smallest first.

    Parameters
    ----------
    max_shape
        Voxels along X, Y, Z that a patch need not exceed, such as the median scan's.
    spacing_mm
        Voxel edges along X, Y, Z.
    num_classes
        Number of classes, background counted.
    limits
        What must be kept to.

    Raises
    ------
    ConfigError
        When the scans are too small for a network, no patch fits the memory, or none makes the voxels a step.
    """
    found = _topologies(max_shape, spacing_mm, limits)
    if not found:
        raise ConfigError(
            f"scans of {_text(max_shape)} voxels at {_text(spacing_mm)} mm: no patch gives a network of "
            f"{limits.min_levels} levels; plan for a finer grid or fewer levels"
        )
    need = {size: _memory(size, topology, limits.min_batch, num_classes, limits) for size, topology in found.items()}
    least = min(need, key=lambda size: need[size].total)
    fitting = [size for size in found if need[size].total <= limits.memory_bytes]
    if not fitting:
        raise ConfigError(
            f"memory of {limits.memory_bytes / GB:.3g} GB: no patch fits; the smallest, {_text(least)} voxels with "
            f"{limits.min_batch} a step, needs {need[least].total / GB:.3g} GB; give more memory or a narrower network"
        )
    voxels = limits.voxels_per_step or max(math.prod(size) for size in fitting) * limits.min_batch
    chosen = [_with_batch(size, found[size], voxels, num_classes, limits) for size in sorted(fitting, key=math.prod)]
    result = [candidate for candidate in chosen if candidate is not None]
    if not result:
        raise ConfigError(
            f"{voxels} voxels a step: no patch comes within {limits.voxel_tolerance:.0%} of them with "
            f"{limits.min_batch} to {limits.max_batch} patches in {limits.memory_bytes / GB:.3g} GB; "
            "give another number or more memory"
        )
    return result


def _with_batch(size: Triple, topology: Topology, voxels: int, num_classes: int, limits: Limits) -> Candidate | None:
    """Return the candidate with the batch nearest to the voxels a step, or None where no batch is near enough."""
    batch = max(limits.min_batch, round(voxels / math.prod(size)))
    for batch_size in (batch, batch - 1):
        near = abs(batch_size * math.prod(size) / voxels - 1) <= limits.voxel_tolerance
        memory = _memory(size, topology, batch_size, num_classes, limits)
        if near and limits.min_batch <= batch_size <= limits.max_batch and memory.total <= limits.memory_bytes:
            return Candidate(size, batch_size, topology, memory, receptive_field(topology))
    return None


def _topologies(max_shape: Sequence[int], spacing_mm: Vector, limits: Limits) -> dict[Triple, Topology]:
    found = {}
    x, y, z = (_sides(n) for n in max_shape)
    for size in itertools.product(x, y, z):
        edges = [n * mm for n, mm in zip(size, spacing_mm, strict=True)]
        if max(edges) > limits.max_aspect * min(edges):
            continue
        try:
            topology = plan_topology(size, spacing_mm)
        except ValueError:  # its sides do not divide by its strides
            continue
        if topology.num_levels >= limits.min_levels:
            found[size] = topology
    return found


def _sides(longest: int) -> list[int]:
    """Return the sides of a patch along an axis, up to the first that holds the whole of it."""
    ladder = sorted(step * 2**power for step in _STEPS for power in range(12))
    ladder = [side for side in ladder if side >= SMALLEST]
    return [side for place, side in enumerate(ladder) if place == 0 or ladder[place - 1] < longest]


def _memory(size: Triple, topology: Topology, batch_size: int, num_classes: int, limits: Limits) -> TrainingMemory:
    return training_memory(
        limits.network,
        topology,
        size,
        batch_size,
        num_classes,
        width=limits.width,
        cap=limits.cap,
        precision=limits.precision,
        optimiser=limits.optimiser,
    )


def _text(size: Sequence[float]) -> str:
    return " x ".join(f"{n:g}" for n in size)
