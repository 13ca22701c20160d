"""Builders of FocusNet (Gao et al. 2019), of its main network, and of the rivals of its Tables 1 and 2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import nn

from hnlib.errors import ConfigError
from hnlib.networks.cpu import fit_for_cpu
from hnlib.networks.plan import Index, Topology

if TYPE_CHECKING:
    from hnlib.networks.focusnet import FocusNet
    from hnlib.networks.seres_unet import SEResUNet

Module = TypeVar("Module", bound=nn.Module)
DILATIONS = (3, 6, 12, 18)


def seres_unet(
    topology: Topology, num_classes: int, *, width: int, cap: int = 320, downsamplings: int = 4
) -> nn.Module:
    """Return the U-Net of squeeze-and-excitation residual blocks with 1 to 4 down-samplings."""
    return _lean(_seres_unet("seres_unet", topology, num_classes, width, cap, downsamplings, ()))


def snet(
    topology: Topology,
    num_classes: int,
    *,
    width: int,
    cap: int = 320,
    downsamplings: int = 1,
    dilations: Sequence[int] = DILATIONS,
) -> nn.Module:
    """Return S-Net: the SERes U-Net with one down-sampling and a DenseASPP below it."""
    return _lean(_seres_unet("snet", topology, num_classes, width, cap, downsamplings, dilations))


def fat_snet(
    topology: Topology,
    num_classes: int,
    *,
    width: int,
    cap: int = 320,
    dilations: Sequence[int] = DILATIONS,
    branches: int = 5,
) -> nn.Module:
    """Return the S-Net whose parameters are nearest to those of a FocusNet with so many small organs.

    The next width has some percent more or less, so that they are not equal. No level is wider than ``cap``.
    """
    values, rois = [1] * branches, [(1, 1, 1)] * branches
    counts: dict[int, int] = {}
    with torch.device("meta"):
        rival = build_focusnet(topology, num_classes, values, rois, width=width, cap=cap, dilations=dilations)
        needed = num_parameters(rival)
        for wide in range(width, max(width, cap) + 1):
            counts[wide] = num_parameters(_seres_unet("fat_snet", topology, num_classes, wide, cap, 1, dilations))
            if counts[wide] >= needed:
                break
    nearest = min(counts, key=lambda wide: abs(counts[wide] - needed))
    return _lean(_seres_unet("fat_snet", topology, num_classes, nearest, cap, 1, dilations))


def deeplab(
    topology: Topology,
    num_classes: int,
    *,
    width: int,
    cap: int = 320,
    downsamplings: int = 3,
    dilations: Sequence[int] = (6, 12, 18),
) -> nn.Module:
    """Return DeepLab v3+ for volumes; its pyramid lies below 3 down-samplings (an output stride of 8) or fewer."""
    from hnlib.networks.deeplab import DeepLab  # MONAI takes seconds to import

    filters, strides = _levels("deeplab", topology, width, cap, downsamplings)
    return _lean(DeepLab(num_classes, filters, strides, dilations))


def build_focusnet(
    topology: Topology,
    num_classes: int,
    values: Sequence[int],
    roi_voxels: Sequence[Index],
    *,
    width: int,
    cap: int = 320,
    downsamplings: int = 1,
    dilations: Sequence[int] = DILATIONS,
    sos_channels: int | None = None,
) -> FocusNet:
    """Return FocusNet for small organs of these label values and ROI sizes.

    Parameters
    ----------
    topology, num_classes, width, cap, downsamplings, dilations
        As for `snet`.
    values, roi_voxels
        Of each small organ.
    sos_channels
        Channels of the SOS-Nets; None: the width, as both are 32 in the readings of the print.
    """
    from hnlib.networks.focusnet import FocusNet

    main = _seres_unet("focusnet", topology, num_classes, width, cap, downsamplings, dilations)
    return _lean(FocusNet(main, width, values, roi_voxels, sos_channels or width))


def num_parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def _seres_unet(
    name: str, topology: Topology, num_classes: int, width: int, cap: int, downsamplings: int, dilations: Sequence[int]
) -> SEResUNet:
    from hnlib.networks.seres_unet import SEResUNet  # MONAI takes seconds to import

    filters, strides = _levels(name, topology, width, cap, downsamplings)
    return SEResUNet(num_classes, filters, strides, dilations)


def _levels(
    name: str, topology: Topology, width: int, cap: int, downsamplings: int
) -> tuple[tuple[int, ...], tuple[Index, ...]]:
    """Return channels of each level and the stride of each but the finest."""
    most = min(4, topology.num_levels - 1)
    if not 1 <= downsamplings <= most:
        raise ConfigError(f"{name}: downsamplings is {downsamplings}; 1 to {most} are possible with this patch")
    return topology.filters(width, cap)[: downsamplings + 1], topology.strides[1 : downsamplings + 1]


def _lean(network: Module) -> Module:
    """Return a network fit for a CPU, with the channels of a voxel side by side."""
    fit_for_cpu(network)
    return network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]
