"""The SE U-Net of coarse to fine, for slices and for volumes, and a network that is both."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from hnlib.networks.plan import Topology


class SEUNet(nn.Module):
    """A U-Net of squeeze-and-excitation blocks with few poolings, one description for 2D and 3D.

    Parameters
    ----------
    spatial_dims
        2: images (N, 1, X, Y). 3: volumes (N, 1, X, Y, Z).
    num_classes
        Background counted.
    filters
        Channels of each level, the finest first; one pooling of 2 lies between neighbours.
    squeeze
        Whether the blocks weight their channels; without, they are plain residual blocks.

    Notes
    -----
    Pu et al. (coarse to fine), section III.A and Fig. 4: skip connections, three poolings (``len(filters)`` is 4)
    since more would lose small organs, SE blocks. Not printed, and chosen here: the blocks are those of
    `hnlib.networks.squeeze_excitation`, behind a first convolution since their norm must not see the image itself;
    max pooling; transposed convolutions upwards. The output convolution alone has a bias, on which
    `hnlib.networks.set_output_prior` relies.
    """

    def __init__(self, spatial_dims: int, num_classes: int, filters: tuple[int, ...], *, squeeze: bool = True) -> None:
        from hnlib.networks.squeeze_excitation import SEResBlock  # MONAI takes seconds to import

        super().__init__()
        if spatial_dims not in (2, 3) or len(filters) < 2:
            raise ValueError(f"spatial_dims {spatial_dims}, filters {filters}: 2 or 3, and two levels, are needed")
        conv: Any = (nn.Conv2d, nn.Conv3d)[spatial_dims - 2]
        up: Any = (nn.ConvTranspose2d, nn.ConvTranspose3d)[spatial_dims - 2]
        pool: Any = (nn.MaxPool2d, nn.MaxPool3d)[spatial_dims - 2]

        def block(inside: int, outside: int) -> nn.Module:
            made: nn.Module = SEResBlock(spatial_dims, inside, outside)
            if not squeeze:
                made.excitation = nn.Identity()
            return made

        pairs = list(pairwise(filters))
        self.spatial_dims, self.divisor = spatial_dims, 2 ** (len(filters) - 1)
        self.stem = conv(1, filters[0], 3, padding=1, bias=False)
        self.down = nn.ModuleList([block(filters[0], filters[0]), *(block(a, b) for a, b in pairs)])
        self.pool = pool(2)
        self.up = nn.ModuleList([up(b, a, 2, stride=2, bias=False) for a, b in reversed(pairs)])
        self.merge = nn.ModuleList([block(2 * a, a) for a, _ in reversed(pairs)])
        self.head = conv(filters[0], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (N, 1, ...) whose sides divide by ``divisor`` to logits (N, num_classes, ...).

        Raises
        ------
        ValueError
            When a side does not.
        """
        if any(n % self.divisor for n in x.shape[2:]):
            raise ValueError(f"sides {tuple(x.shape[2:])} do not divide by {self.divisor}; pad the image")
        x, skips = self.stem(x), []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips[:-1]), strict=True):
            x = merge(torch.cat([up(x), skip], dim=1))
        logits: Tensor = self.head(x)
        return logits


def se_unet(
    topology: Topology,
    num_classes: int,
    *,
    width: int,
    cap: int = 320,
    spatial_dims: int = 3,
    poolings: int = 3,
    squeeze: bool = True,
) -> nn.Module:
    """Return the SE U-Net of Pu et al.; of the topology nothing is used: poolings are by 2, as many as said."""
    from hnlib.networks.cpu import fit_for_cpu

    filters = tuple(min(width * 2**level, cap) for level in range(poolings + 1))
    network = fit_for_cpu(SEUNet(spatial_dims, num_classes, filters, squeeze=squeeze))
    layout = torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
    return network.to(memory_format=layout)  # type: ignore[call-overload,no-any-return]


def flat_topology(topology: Topology, levels: int) -> Topology:
    """Return a topology whose first levels have kernels of 1 along Z: 2D convolutions in the planes of the slices.

    Examples
    --------
    >>> flat_topology(Topology(((3, 3, 3),) * 3, ((1, 1, 1), (2, 2, 2), (2, 2, 2))), 2).kernels
    ((3, 3, 1), (3, 3, 1), (3, 3, 3))
    """
    flat = tuple((x, y, 1) for x, y, _ in topology.kernels[:levels])
    return replace(topology, kernels=(*flat, *topology.kernels[levels:]))
