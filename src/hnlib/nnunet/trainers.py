"""Trainers of nnU-Net v2 with a loss of hnlib, and with the draw of patch centres that its plans hold.

nnU-Net finds them in the folders that an environment variable names::

    export nnUNet_extTrainer=$(hnlib nnunet)
    nnUNetv2_train DATASET 3d_fullres 0 -tr CaDiceTrainer

Another loss is two lines: a class with another `loss_text`. All else is nnU-Net's: network, schedule, and the weights
of its heads (1, 1/2, 1/4, ..., the coarsest 0). The plans that ``hnlib plan --nnunet`` writes hold a draw of patch
centres, by which these trainers sample on one device; with nnU-Net's own plans they sample as nnU-Net does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from hnlib.losses import DeepSupervision, build_loss
from hnlib.nnunet.draw import CENTRES, DrawnCases, nnunet_version, version_remark, weights_by_label


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
        value: Tensor = self.loss(output, finest[:, 0].long())
        return value


class NnuDiceTrainer(nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net with its own loss, as this library has it: what remains is the draw of the plans.

    In `loss_text`, ``{pooling}`` stands for what nnU-Net's plans say of Dice: ``batch`` or ``sample``.
    """

    loss_text = "nnu_dice(pooling={pooling})+ce"

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's own default
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        remark = version_remark(nnunet_version())
        if remark:
            self.print_to_log_file(remark)
        centres = self.configuration_manager.configuration.get(CENTRES)
        self.centre_weights = weights_by_label(centres, dataset_json["labels"]) if centres else {}
        if self.centre_weights:
            self.probabilistic_oversampling = True
            self.oversample_foreground_percent = 1 - self.centre_weights.get(0, 0.0)
            self.print_to_log_file(f"patch centres by label (0: anywhere): {self.centre_weights}")

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """Return nnU-Net's data sets; the one for training shows its loader organs by the draw of the plans."""
        training, validation = super().get_tr_and_val_datasets()
        return (DrawnCases(training, self.centre_weights) if self.centre_weights else training), validation

    def _build_loss(self) -> nn.Module:
        if self.label_manager.has_regions or self.label_manager.ignore_label is not None:
            raise ValueError("labels are regions, or some are ignored; one label a voxel, all known, is needed")
        heads = len(self._get_deep_supervision_scales()) if self.enable_deep_supervision else 1
        pooling = "batch" if self.configuration_manager.batch_dice else "sample"
        return HeadsLoss(self.loss_text.format(pooling=pooling), heads)


class CaDiceTrainer(NnuDiceTrainer):
    """nnU-Net with class-adaptive Dice and cross-entropy."""

    loss_text = "ca_dice+ce"


class TopKDiceTrainer(NnuDiceTrainer):
    """nnU-Net with TopK Dice and cross-entropy."""

    loss_text = "topk_dice+ce"
