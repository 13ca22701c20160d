"""Densely connected atrous spatial pyramid pooling: wide fields of view without losing resolution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class DenseASPP(nn.Module):
    """Dilated convolutions, each of which reads the input and the outputs of all before it.

    Parameters
    ----------
    in_channels
        Channels of the input.
    dilations
        Dilation in plane (X and Y) of each convolution; along Z it is 1, as slices lie further apart.
    growth, bottleneck
        Channels that each dilated convolution adds, and those to which a convolution of kernel 1 first brings what
        it reads. None: half the input's channels, and as many as the input's (64 and 32 of 64 in the authors' code).

    Attributes
    ----------
    out_channels
        Channels of the output: the input's and all that were added.

    Raises
    ------
    ValueError
        When there is no dilation, or one below 1.

    Notes
    -----
    Yang et al. 2018, with dilations 3, 6, 12 and 18 as Gao et al. 2019 draw them. The kernels being 3, a voxel sees
    1 + 2 (d1 + d2 + ...) voxels in plane: 79.
    """

    def __init__(
        self,
        in_channels: int,
        dilations: Sequence[int] = (3, 6, 12, 18),
        *,
        growth: int | None = None,
        bottleneck: int | None = None,
    ) -> None:
        super().__init__()
        if not dilations or min(dilations) < 1:
            raise ValueError(f"dilations must be one or more whole numbers of at least 1, got {tuple(dilations)}")
        growth = growth or max(1, in_channels // 2)
        bottleneck = bottleneck or in_channels
        self.out_channels = in_channels + growth * len(dilations)
        self.branches = nn.ModuleList(
            _branch(in_channels + i * growth, bottleneck, growth, int(d)) for i, d in enumerate(dilations)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, X, Y, Z) to (N, out_channels, X, Y, Z)."""
        for branch in self.branches:
            x = torch.cat([x, branch(x)], dim=1)
        return x


def _branch(in_channels: int, bottleneck: int, growth: int, dilation: int) -> nn.Sequential:
    reach = (dilation, dilation, 1)
    return nn.Sequential(
        nn.InstanceNorm3d(in_channels, affine=True),
        nn.ReLU(inplace=True),
        nn.Conv3d(in_channels, bottleneck, 1, bias=False),
        nn.InstanceNorm3d(bottleneck, affine=True),
        nn.ReLU(inplace=True),
        nn.Conv3d(bottleneck, growth, 3, padding=reach, dilation=reach, bias=False),
    )
