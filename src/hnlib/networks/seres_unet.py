"""U-Nets of squeeze-and-excitation residual blocks: SERes U-Net and, with one down-sampling and DenseASPP, S-Net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hnlib.networks.dense_aspp import DenseASPP
from hnlib.networks.plan import Index
from hnlib.networks.squeeze_excitation import SEResBlock


class SEResUNet(nn.Module):
    """A U-Net of `SEResBlock`, one at the finest level and two at each other, down by pooling, up by interpolation.

    Parameters
    ----------
    num_classes
        Channels of the output.
    filters
        Channels of each level, the finest first.
    strides
        Stride of each level but the finest.
    dilations
        Of a `DenseASPP` at the coarsest level; empty: none.

    Notes
    -----
    Where Gao et al. 2019 are silent: a first convolution and the first block with kernels 3 x 3 x 1 and an excitation
    of a quarter of the channels, skips through a convolution, and trilinear interpolation in place of transposed
    convolutions, as their later code has them. What the pyramid gives is brought back to its level's channels by a
    kernel of 1, which halves the time of a step: the next block works at full resolution.
    """

    def __init__(
        self, num_classes: int, filters: Sequence[int], strides: Sequence[Index], dilations: Sequence[int] = ()
    ) -> None:
        super().__init__()
        finest = filters[0]
        in_plane = (3, 3, 1)
        self.stem = nn.Conv3d(1, finest, in_plane, padding=(1, 1, 0), bias=False)
        first = SEResBlock(3, finest, finest, kernel_size=in_plane, reduction=min(4, finest))
        self.encoders = nn.ModuleList([first])
        self.pools, self.skips, self.decoders = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for above, channels, stride in zip(filters[:-1], filters[1:], strides, strict=True):
            self.pools.append(nn.MaxPool3d(stride, stride))
            self.encoders.append(nn.Sequential(SEResBlock(3, above, channels), SEResBlock(3, channels, channels)))
        below = filters[-1]
        self.pyramid: nn.Module = nn.Identity()
        if dilations:
            pyramid = DenseASPP(below, dilations)
            self.pyramid = nn.Sequential(pyramid, nn.Conv3d(pyramid.out_channels, below, 1, bias=False))
        for channels in reversed(filters[:-1]):
            self.skips.append(nn.Conv3d(channels, channels, 3, padding=1, bias=False))
            self.decoders.append(SEResBlock(3, below + channels, channels))
            below = channels
        self.head = nn.Conv3d(finest, num_classes, 1)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of the first encoder level and of the last decoder level, both of the image's size."""
        kept = [self.encoders[0](self.stem(x))]
        for pool, encoder in zip(self.pools, self.encoders[1:], strict=True):
            kept.append(encoder(pool(kept[-1])))
        first, x = kept[0], self.pyramid(kept.pop())
        for skip, decoder in zip(self.skips, self.decoders, strict=True):
            side = kept.pop()
            x = interpolate(x, size=side.shape[2:], mode="trilinear", align_corners=False)
            x = decoder(torch.cat([x, skip(side)], dim=1))
        return first, x

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (N, 1, X, Y, Z) to logits (N, num_classes, X, Y, Z)."""
        logits: Tensor = self.head(self.features(x)[1])
        return logits
