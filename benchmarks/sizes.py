"""What is measured: the bench network, its patch, and the scan that is preprocessed and predicted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hnlib.datasets.phantom import PhantomDataset
from hnlib.preprocess import Plan

if TYPE_CHECKING:  # a peer's process holds none of our libraries, as its memory is measured
    from hnlib.networks import Topology

Triple = tuple[int, int, int]
Vector = tuple[float, float, float]
CLASSES, BATCH, WARM_UP = 6, 2, 2
IMAGE, LABELS, CACHED, MODEL = "ct.nii.gz", "labels.nii.gz", "case.b2nd", "model.safetensors"


@dataclass(frozen=True)
class Size:
    """One size of everything that is measured; every level of the network halves all axes.

    `case_spacing_mm` is that of the phantom's scan, `plan_spacing_mm` the grid that it is brought to.
    """

    patch: Triple
    width: int
    levels: int
    case_spacing_mm: Vector
    plan_spacing_mm: Vector
    rounds: int
    steps: int
    matrix: int

    @property
    def kernels(self) -> tuple[Triple, ...]:
        return ((3, 3, 3),) * self.levels

    @property
    def strides(self) -> tuple[Triple, ...]:
        return ((1, 1, 1), *((2, 2, 2),) * (self.levels - 1))

    @property
    def filters(self) -> tuple[int, ...]:
        return tuple(min(self.width * 2**level, 320) for level in range(self.levels))

    @property
    def topology(self) -> Topology:
        from hnlib.networks import Topology

        return Topology(self.kernels, self.strides)

    @property
    def plan(self) -> Plan:
        """A plan with this grid; its intensity scale is that of Tappeiner et al. 2022 (code)."""
        organs = PhantomDataset({"train": 1}).organs
        return Plan(self.plan_spacing_mm, self.patch, (-170.0, 1680.0), 324.7904, 505.2889, organs)


#: ``full`` is DESIGN's bench network (1.4 million parameters) and a scan of 212 x 245 x 106 voxels brought to the
#: median spacing of PDDCA; ``gpu`` a network and patch that keep a GPU busy; ``tiny`` shows that the bench runs.
SIZES = {
    "full": Size((64, 48, 64), 16, 4, (0.98, 0.98, 2.5), (1.1, 1.1, 3.0), rounds=3, steps=5, matrix=1536),
    "gpu": Size((128, 128, 64), 32, 5, (0.98, 0.98, 2.5), (1.1, 1.1, 3.0), rounds=3, steps=20, matrix=8192),
    "tiny": Size((16, 16, 16), 4, 3, (6.0, 6.0, 6.0), (5.0, 5.0, 6.0), rounds=1, steps=1, matrix=64),
}

#: Logits of the losses by the end of the row's name: batch, classes and the two patches of Tappeiner et al. 2022.
LOGITS: dict[str, dict[str, tuple[int, ...]]] = {
    "full": {"": (2, 8, 96, 80, 48), "_large": (1, 8, 192, 160, 56)},
    "tiny": {"": (2, 8, 12, 10, 8), "_large": (1, 8, 24, 20, 8)},
}
