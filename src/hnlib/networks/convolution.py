"""Convolutions that a CPU may compute in bfloat16: inputs of few voxels along an axis are computed in float32.

PyTorch hands them to oneDNN, whose gradient of the weights reads and writes beyond its memory where such an input has
one or two voxels along an axis (seen with torch 2.13 on processors with AVX512-BF16: a 3 x 3 x 3 kernel with two voxels
along X, or with a stride of 2 and one voxel along Z). The gradient is then rubbish, or the process ends. Tensors as
small as these cost the same in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: The most voxels along an axis at which float32 is used.
FEW_VOXELS = 2


class _Sound(nn.Module):
    """Goes before a convolution of torch among the base classes."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve a tensor (N, C, X, Y) or (N, C, X, Y, Z)."""
        if not _in_doubt(self, input):
            found: Tensor = super().forward(input)
            return found
        with torch.autocast("cpu", enabled=False):
            wide: Tensor = super().forward(input.float())
            return wide.to(torch.bfloat16)


class Conv3d(_Sound, nn.Conv3d):
    """``torch.nn.Conv3d``, in float32 where bfloat16 is asked of a CPU for an input of few voxels along an axis."""


class Conv2d(_Sound, nn.Conv2d):
    """``torch.nn.Conv2d``, the same for images."""


def _in_doubt(convolution: Any, x: Tensor) -> bool:
    wide = max(convolution.kernel_size) > 1
    few: bool = wide and x.device.type == "cpu" and min(x.shape[2:]) <= FEW_VOXELS
    return few and torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16


def use_sound_convolutions(module: nn.Module) -> nn.Module:
    """Replace every convolution below ``module`` in place; weights and their names stay."""
    for child in module.modules():
        if type(child) is nn.Conv3d:
            child.__class__ = Conv3d
        elif type(child) is nn.Conv2d:
            child.__class__ = Conv2d
    return module
