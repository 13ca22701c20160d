"""MONAI's U-Net as the training loop wants it."""

from __future__ import annotations

from monai.networks.nets import DynUNet
from torch import Tensor


class PlannedUNet(DynUNet):
    """MONAI's DynUNet that gives its deep-supervision heads at their own resolution.

    In training it returns a list of logits, the finest first; in evaluation one tensor
    (N, num_classes, X, Y, Z). MONAI's own forward pass enlarges every head to full size, which
    costs memory and time when the labels can be made smaller instead.
    """

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Map an image (N, 1, X, Y, Z) to logits."""
        finest: Tensor = self.output_block(self.skip_layers(x))
        if self.training and self.deep_supervision:
            return [finest, *self.heads]
        return finest
