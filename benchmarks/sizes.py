"""What is measured: the bench network, its patch, and the scan that is preprocessed and predicted."""

from __future__ import annotations

from dataclasses import dataclass

from hnlib.networks import Topology

Triple = tuple[int, int, int]
Vector = tuple[float, float, float]
CLASSES, BATCH = 6, 2


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
    def topology(self) -> Topology:
        strides: tuple[Triple, ...] = ((1, 1, 1), *((2, 2, 2),) * (self.levels - 1))
        return Topology(((3, 3, 3),) * self.levels, strides)

    @property
    def filters(self) -> tuple[int, ...]:
        return self.topology.filters(self.width, 320)


#: ``full`` is DESIGN's bench network (1.4 million parameters) and a scan of 212 x 245 x 106 voxels brought to the
#: median spacing of PDDCA; ``gpu`` a network and patch that keep a GPU busy; ``tiny`` shows that the bench runs.
SIZES = {
    "full": Size((64, 48, 64), 16, 4, (0.98, 0.98, 2.5), (1.1, 1.1, 3.0), rounds=3, steps=5, matrix=1536),
    "gpu": Size((128, 128, 64), 32, 5, (0.98, 0.98, 2.5), (1.1, 1.1, 3.0), rounds=3, steps=20, matrix=8192),
    "tiny": Size((16, 16, 16), 4, 3, (6.0, 6.0, 6.0), (5.0, 5.0, 6.0), rounds=1, steps=1, matrix=64),
}
