"""Losses for segmentation with few, small and often absent classes; torch is all they need.

>>> from hnlib.losses import LOSSES, build_loss
>>> loss = build_loss("ca_dice+0.5*ce")  # loss(logits, target): logits (N, C, ...), integer labels (N, ...)

Logits in, lower is better, 0 is perfect. `LOSSES` says in one line each which names there are (``hnlib losses``
prints it); options go in brackets, as in ``topk_dice(percent=30)+ce``. A third argument of each of them, boolean
(N, C), says which classes were outlined in each sample. `DeepSupervision` puts a loss on several heads,
`register_loss` gives a name to a loss of your own, `audit` says what any loss does to large, small and absent
classes, and each class can be made by hand with its switches.
"""

from hnlib.losses.auditing import Audit, audit
from hnlib.losses.build import SumLoss, build_loss
from hnlib.losses.class_weights import inverse_size_weights, rarity_weights
from hnlib.losses.cross_entropy import CrossEntropy, TopKCrossEntropy, WeightedCrossEntropy
from hnlib.losses.deep_supervision import DeepSupervision, deep_supervision_weights, downsample_labels
from hnlib.losses.dice import DiceLoss
from hnlib.losses.focal import FocalLoss, WeightedFocalLoss
from hnlib.losses.generalised_dice import GeneralisedDiceLoss
from hnlib.losses.ignored import ignore_map
from hnlib.losses.margin import AsymmetricCrossEntropy, MarginDiceLoss
from hnlib.losses.partial import merge_unlabelled
from hnlib.losses.presets import LOSSES, loss_options, register_loss
from hnlib.losses.softmax import VoxelLoss, Voxels
from hnlib.losses.topk_dice import TopKDiceLoss
from hnlib.losses.tversky import TverskyLoss

__all__ = [
    "LOSSES",
    "AsymmetricCrossEntropy",
    "Audit",
    "CrossEntropy",
    "DeepSupervision",
    "DiceLoss",
    "FocalLoss",
    "GeneralisedDiceLoss",
    "MarginDiceLoss",
    "SumLoss",
    "TopKCrossEntropy",
    "TopKDiceLoss",
    "TverskyLoss",
    "VoxelLoss",
    "Voxels",
    "WeightedCrossEntropy",
    "WeightedFocalLoss",
    "audit",
    "build_loss",
    "deep_supervision_weights",
    "downsample_labels",
    "ignore_map",
    "inverse_size_weights",
    "loss_options",
    "merge_unlabelled",
    "rarity_weights",
    "register_loss",
]
