"""`build_network`: one call for every network of the book."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from monai.networks.nets import DynUNet
from torch import Tensor, nn

from hnlib.errors import unknown
from hnlib.networks.instance_norm import use_lean_instance_norm
from hnlib.networks.plan import Topology


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


def dynunet(topology: Topology, num_classes: int, *, width: int, cap: int = 320) -> nn.Module:
    """Return nnU-Net's plain U-Net: two convolutions a level, instance norm, leaky ReLU."""
    network = PlannedUNet(
        spatial_dims=3,
        in_channels=1,
        out_channels=num_classes,
        kernel_size=topology.kernels,
        strides=topology.strides,
        upsample_kernel_size=topology.strides[1:],
        filters=topology.filters(width, cap),
        deep_supervision=topology.num_heads > 1,
        deep_supr_num=max(1, topology.num_heads - 1),
    )
    return use_lean_instance_norm(network).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload,no-any-return]


#: Name to builder; each takes (topology, num_classes, width=..., cap=...).
NETWORKS: Mapping[str, Callable[..., nn.Module]] = {"dynunet": dynunet}


def build_network(name: str, topology: Topology, num_classes: int, *, width: int, cap: int = 320) -> nn.Module:
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

    Raises
    ------
    ConfigError
        When the name is unknown.
    """
    if name not in NETWORKS:
        raise unknown("network", name, NETWORKS)
    return NETWORKS[name](topology, num_classes, width=width, cap=cap)


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
        if isinstance(module, nn.Conv3d) and module.bias is not None and module.out_channels == len(prior):
            with torch.no_grad():
                module.bias.copy_((prior / prior.sum()).log())
