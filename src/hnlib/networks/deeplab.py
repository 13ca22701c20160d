"""DeepLab v3+ for volumes: dilated convolutions side by side on a coarse grid, and a small decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hnlib.networks.plan import Index
from hnlib.networks.squeeze_excitation import SEResBlock


class DeepLab(nn.Module):
    """Residual encoder, atrous spatial pyramid pooling at its coarsest grid, decoder with one skip.

    Parameters
    ----------
    num_classes
        Channels of the output.
    filters, strides
        Channels of each encoder level, and the stride of each but the finest.
    dilations
        In plane, of the branches that run side by side with a convolution of kernel 1 and the mean of the volume.

    Notes
    -----
    Chen et al. 2018 with their Xception blocks replaced by the `SEResBlock` of the rivals here, so that the comparison
    is of the pyramid and the decoder; Gao et al. 2019 do not say how they made it three-dimensional. Besides, the one
    skip comes from the second level, an output stride of 2 where Chen et al. have 4, and the pyramid's convolutions are
    not separable. The logits, on the grid of the skip, are enlarged.
    """

    def __init__(
        self,
        num_classes: int,
        filters: Sequence[int],
        strides: Sequence[Index],
        dilations: Sequence[int] = (6, 12, 18),
    ) -> None:
        super().__init__()
        self.stem = nn.Conv3d(1, filters[0], 3, padding=1, bias=False)
        self.levels = nn.ModuleList([SEResBlock(3, filters[0], filters[0])])
        for above, channels, stride in zip(filters[:-1], filters[1:], strides, strict=True):
            block = nn.Sequential(SEResBlock(3, above, channels), SEResBlock(3, channels, channels))
            self.levels.append(nn.Sequential(nn.MaxPool3d(stride, stride), block))
        deep, wide = filters[-1], filters[min(1, len(filters) - 1)]
        self.pyramid = nn.ModuleList([_unit(deep, wide, 1), *(_unit(deep, wide, 3, d) for d in dilations)])
        self.mean = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Conv3d(deep, wide, 1, bias=False), nn.ReLU(inplace=True))
        self.project = _unit(wide * (2 + len(dilations)), wide, 1)
        self.skip = _unit(wide, max(1, wide // 2), 1)
        self.decoder = SEResBlock(3, wide + max(1, wide // 2), wide)
        self.head = nn.Conv3d(wide, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (N, 1, X, Y, Z) to logits (N, num_classes, X, Y, Z)."""
        size, x = x.shape[2:], self.stem(x)
        side = x
        for number, level in enumerate(self.levels):
            x = level(x)
            side = x if number <= 1 else side
        seen = [branch(x) for branch in self.pyramid] + [self.mean(x).expand(-1, -1, *x.shape[2:])]
        x = self.project(torch.cat(seen, dim=1))
        x = interpolate(x, size=side.shape[2:], mode="trilinear", align_corners=False)
        x = self.decoder(torch.cat([x, self.skip(side)], dim=1))
        logits: Tensor = interpolate(self.head(x), size=size, mode="trilinear", align_corners=False)
        return logits


def _unit(in_channels: int, out_channels: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    reach = (dilation, dilation, 1)
    padding = kernel // 2 * dilation, kernel // 2 * dilation, kernel // 2
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, kernel, padding=padding, dilation=reach, bias=False),
        nn.InstanceNorm3d(out_channels, affine=True),
        nn.ReLU(inplace=True),
    )
