"""Coarse to fine (Pu, Kamata and Wang): three 2D views, a fused volume, a box and a 3D network for each organ.

Readings of what the paper leaves open: every class and function here says its own.
"""

from hnlib.systems.coarse_to_fine.fusion import Fusion, fuse
from hnlib.systems.coarse_to_fine.refinement import combine, outline
from hnlib.systems.coarse_to_fine.slices import SliceSystem
from hnlib.systems.coarse_to_fine.stages import OUTPUTS, CoarseToFine
from hnlib.systems.coarse_to_fine.target_boxes import OrganBoxes, TargetBox, label_box, smallest_box
from hnlib.systems.coarse_to_fine.two_stage import TwoStage
from hnlib.systems.coarse_to_fine.views import VIEWS, to_slices, to_volume, view_logits

__all__ = [
    "OUTPUTS",
    "VIEWS",
    "CoarseToFine",
    "Fusion",
    "OrganBoxes",
    "SliceSystem",
    "TargetBox",
    "TwoStage",
    "combine",
    "fuse",
    "label_box",
    "outline",
    "smallest_box",
    "to_slices",
    "to_volume",
    "view_logits",
]
