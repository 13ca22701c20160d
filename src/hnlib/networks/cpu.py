"""What PyTorch does slowly or wrongly on a CPU, replaced in a network."""

from __future__ import annotations

from torch import nn

from hnlib.networks.convolution import use_sound_convolutions
from hnlib.networks.instance_norm import use_lean_instance_norm


def fit_for_cpu(network: nn.Module) -> nn.Module:
    """Replace instance norms and convolutions below ``network`` in place; weights and their names stay."""
    return use_sound_convolutions(use_lean_instance_norm(network))
