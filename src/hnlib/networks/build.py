"""`build_network`: one call for every network of the book."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor, nn

from hnlib.errors import ConfigError, unknown
from hnlib.networks.cpu import fit_for_cpu
from hnlib.networks.plan import Topology
from hnlib.networks.se_unet import flat_topology


def dynunet(topology: Topology, num_classes: int, *, width: int, cap: int = 320) -> nn.Module:
    """Return nnU-Net's plain U-Net: two convolutions a level, instance norm, leaky ReLU."""
    return _unet(topology, num_classes, topology.filters(width, cap))


def slim_dynunet(topology: Topology, num_classes: int, *, width: int, cap: int = 320) -> nn.Module:
    """Return the same U-Net with half the channels at the finest level, where most of the time goes."""
    finest, *coarser = topology.filters(width, cap)
    return SoftWindows(_unet(topology, num_classes, (max(1, finest // 2), *coarser), in_channels=4))


def hybrid(topology: Topology, num_classes: int, *, width: int, cap: int = 320, flat_levels: int = 2) -> nn.Module:
    """Return the plain U-Net with 2D convolutions (in the slice) in its shallow levels and 3D ones in the deep.

    The future work that Pu et al. and Tappeiner et al. 2022 name. Strides stay, so depth is halved level by level.
    """
    if not 1 <= flat_levels < topology.num_levels:
        raise ConfigError(
            f"hybrid: flat_levels is {flat_levels}; 1 to {topology.num_levels - 1} of this patch's "
            f"{topology.num_levels} levels are needed"
        )
    return dynunet(flat_topology(topology, flat_levels), num_classes, width=width, cap=cap)


class SoftWindows(nn.Module):
    """Four smooth intensity windows before a network: tanh(slope * (x - centre)), both learned.

    Bone sets the scale of a normalised CT, and what parts soft tissues lies within a fifth of it.
    The windows start there and spread that fifth over the range of an input channel.
    """

    def __init__(self, network: nn.Module, centres: Sequence[float] = (-0.8, -0.65, -0.5, 0.5)) -> None:
        super().__init__()
        self.network = network
        self.centre = nn.Parameter(torch.tensor(centres).reshape(1, -1, 1, 1, 1))
        self.slope = nn.Parameter(torch.tensor([8.0, 8.0, 8.0, 2.0]).reshape(1, -1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Map an image (N, 1, X, Y, Z) to the network's logits."""
        windows = torch.tanh(self.slope * (x - self.centre))
        logits: Tensor | list[Tensor] = self.network(windows.contiguous(memory_format=torch.channels_last_3d))
        return logits


def _unet(topology: Topology, num_classes: int, filters: Sequence[int], in_channels: int = 1) -> nn.Module:
    from hnlib.networks.planned_unet import HeadedUNet, PlannedUNet  # MONAI takes seconds to import

    layers: dict[str, Any] = {
        "spatial_dims": 3,
        "in_channels": in_channels,
        "out_channels": num_classes,
        "kernel_size": topology.kernels,
        "strides": topology.strides,
        "upsample_kernel_size": topology.strides[1:],
        "filters": filters,
    }
    network: nn.Module
    if topology.heads:
        network = HeadedUNet(topology.heads, **layers)
    else:
        supervised = topology.num_heads > 1
        network = PlannedUNet(**layers, deep_supervision=supervised, deep_supr_num=max(1, topology.num_heads - 1))
    return fit_for_cpu(network).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]


#: Name to where its builder stands; each takes (topology, num_classes, width=..., cap=...) and options of its own.
NETWORKS: Mapping[str, str] = {
    "dynunet": "hnlib.networks.build:dynunet",
    "slim_dynunet": "hnlib.networks.build:slim_dynunet",
    "seres_unet": "hnlib.networks.focusnet_build:seres_unet",
    "snet": "hnlib.networks.focusnet_build:snet",
    "fat_snet": "hnlib.networks.focusnet_build:fat_snet",
    "deeplab": "hnlib.networks.focusnet_build:deeplab",
    "se_unet": "hnlib.networks.se_unet:se_unet",
    "hybrid": "hnlib.networks.build:hybrid",
}


def build_network(
    name: str, topology: Topology, num_classes: int, *, width: int, cap: int = 320, **options: Any
) -> nn.Module:
    """Return an untrained network.

    Parameters
    ----------
    name
        One of ``NETWORKS``.
    topology
        Kernels and strides, from `plan_topology`.
    num_classes
        Number of classes, background counted.
    width, cap
        Channels of the finest level and the most channels of any.
    options
        What the network's builder takes besides, by name.

    Raises
    ------
    ConfigError
        When the name or an option is unknown, or its values give no network.
    """
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    builder: Callable[..., nn.Module] = resolve_name(NETWORKS[name])
    known = list(signature(builder).parameters)[4:]
    for option in options:
        if option not in known:
            raise unknown(f"{name} option", option, known or ["none"])
    try:
        return builder(topology, num_classes, width=width, cap=cap, **options)
    except ConfigError:  # says more
        raise
    except (TypeError, ValueError, RuntimeError) as fault:
        said = ", ".join(f"{key} {value!r}" for key, value in {"width": width, "cap": cap, **options}.items())
        raise ConfigError(f"network {name}: cannot be built with {said} ({' '.join(str(fault).split())})") from None


def set_output_prior(network: nn.Module, class_fractions: Sequence[float]) -> None:
    """Start every head at the class frequencies of the training patches.

    The bias of each output convolution becomes the logarithm of the fractions, so that the first
    prediction is the prior and not 1/C for every class. At 1/C the false mass of a small organ is
    a hundred times the organ, and soft Dice has hardly a gradient on it until that mass is gone.

    Raises
    ------
    ValueError
        When a fraction is not positive.
    """
    prior = torch.as_tensor(class_fractions, dtype=torch.float32)
    if not bool((prior > 0).all()):
        raise ValueError(f"class fractions must be positive, got {list(class_fractions)}")
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d) and module.bias is not None and module.out_channels == len(prior):
            with torch.no_grad():
                module.bias.copy_((prior / prior.sum()).log())
