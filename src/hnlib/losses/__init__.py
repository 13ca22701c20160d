"""Losses for segmentation with few, small and often absent classes.

Logits in, lower is better, 0 is perfect. `build_loss("ca_dice+ce")` makes a loss from its name,
`LOSSES` lists the names, and each class can be made by hand with its switches. Needs torch only.
"""

from hnlib.losses.build import LOSSES, SumLoss, build_loss
from hnlib.losses.cross_entropy import CrossEntropy
from hnlib.losses.deep_supervision import DeepSupervision, deep_supervision_weights, downsample_labels
from hnlib.losses.dice import DiceLoss
from hnlib.losses.partial import merge_unlabelled
from hnlib.losses.softmax import VoxelLoss, Voxels

__all__ = [
    "LOSSES",
    "CrossEntropy",
    "DeepSupervision",
    "DiceLoss",
    "SumLoss",
    "VoxelLoss",
    "Voxels",
    "build_loss",
    "deep_supervision_weights",
    "downsample_labels",
    "merge_unlabelled",
]
