"""Train nnU-Net v2 with a loss of hnlib.

nnU-Net finds trainers in the folders that an environment variable names:

    export nnUNet_extTrainer=/path/to/this/folder
    nnUNetv2_train DATASET 3d_fullres 0 -tr CaDiceTrainer

Another loss is two lines: a class with another `loss_text`. All else is nnU-Net's: network, patches, schedule, and the
weights of its heads (1, 1/2, 1/4, ..., the coarsest 0).
"""

from __future__ import annotations

from collections.abc import Sequence

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from hnlib.losses import DeepSupervision, build_loss


class HeadsLoss(nn.Module):
    """A loss called as nnU-Net calls it: heads and label maps (N, 1, X, Y, Z) of each, finest first."""

    def __init__(self, text: str, num_heads: int) -> None:
        super().__init__()
        weights = [0.5**i for i in range(num_heads)]
        if num_heads > 1:
            weights[-1] = 0.0
        self.loss = DeepSupervision(build_loss(text), [weight / sum(weights) for weight in weights])

    def forward(self, output: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]) -> Tensor:
        """Return the weighted sum over heads; labels are brought to each head from the finest, as nnU-Net does."""
        finest = target if isinstance(target, Tensor) else target[0]
        return self.loss(output, finest[:, 0].long())


class CaDiceTrainer(nnUNetTrainer):
    """nnU-Net with class-adaptive Dice and cross-entropy."""

    loss_text = "ca_dice+ce"

    def _build_loss(self) -> nn.Module:
        if self.label_manager.has_regions or self.label_manager.ignore_label is not None:
            raise ValueError("labels are regions, or some are ignored; one label a voxel, all known, is needed")
        heads = len(self._get_deep_supervision_scales()) if self.enable_deep_supervision else 1
        return HeadsLoss(self.loss_text, heads)


class TopKDiceTrainer(CaDiceTrainer):
    """nnU-Net with TopK Dice and cross-entropy."""

    loss_text = "topk_dice+ce"
