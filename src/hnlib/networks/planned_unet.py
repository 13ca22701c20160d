"""MONAI's U-Net as the training loop wants it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.nets import DynUNet
from torch import Tensor, nn
from torch.nn.functional import interpolate


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


class HeadedUNet(DynUNet):
    """MONAI's DynUNet with outputs at levels of one's choice, and a decoder that ends at the finest of them.

    In training it returns a list of logits, the finest first, each at its own resolution. In evaluation it returns
    the finest alone, brought to the image's grid linearly: (N, num_classes, X, Y, Z).

    Parameters
    ----------
    levels
        Levels of the outputs, the finest first; 0 is the image's resolution, the last one the bottleneck's. Hosseini
        2024 has 2, 3 and 4 (1/4, 1/8, 1/16).
    **layers
        Arguments of DynUNet; those on deep supervision are left out.
    """

    def __init__(self, levels: Sequence[int], **layers: Any) -> None:
        super().__init__(**layers, deep_supervision=False)
        self.levels = tuple(levels)
        del self.skip_layers, self.output_block  # they hold the levels above the finest head
        self.upsamples = self.upsamples[: len(self.upsamples) - self.levels[0]]
        self.level_heads = nn.ModuleList([self.get_output_block(level) for level in self.levels])
        self.level_heads.apply(self.initialize_weights)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Map an image (N, 1, X, Y, Z) to logits."""
        skips = [self.input_block(x)]
        for block in self.downsamples:
            skips.append(block(skips[-1]))
        bottom = len(skips)
        features: dict[int, Tensor] = {bottom: self.bottleneck(skips[-1])}
        for level, block in zip(reversed(range(bottom)), self.upsamples, strict=False):
            features[level] = block(features[level + 1], skips[level])
        logits = [head(features[level]) for level, head in zip(self.levels, self.level_heads, strict=True)]
        return logits if self.training else interpolate(logits[0], size=x.shape[2:], mode="trilinear")
