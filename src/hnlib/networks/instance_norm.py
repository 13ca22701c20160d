"""Instance normalisation that keeps the channels-last layout on a CPU.

PyTorch's own instance norm copies a channels-last tensor into the plain layout, which makes the
next convolution slow. Its batch norm has a channels-last kernel, and the instance norm of one
sample is the batch norm of a batch of one. Values and gradients equal ``torch.nn.InstanceNorm3d``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _PerSampleBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        result, saved = torch.empty_like(x), []
        for sample, out in zip(x.split(1), result.split(1), strict=True):
            mean, inverse_sd = torch.empty_like(weight), torch.empty_like(weight)
            torch.ops.aten.native_batch_norm.out(
                sample, weight, bias, None, None, True, 0.0, eps, out=out, save_mean=mean, save_invstd=inverse_sd
            )
            saved += [mean, inverse_sd]
        ctx.save_for_backward(x, weight, *saved)
        ctx.eps = eps
        return result

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, *saved = ctx.saved_tensors
        grads, grad_weight, grad_bias = [], torch.zeros_like(weight), torch.zeros_like(weight)
        for i, (sample, grad) in enumerate(zip(x.split(1), grad_outputs[0].split(1), strict=True)):
            grad_x, dw, db = torch.ops.aten.native_batch_norm_backward(
                grad, sample, weight, None, None, saved[2 * i], saved[2 * i + 1], True, ctx.eps, [True, True, True]
            )
            grads.append(grad_x)
            grad_weight += dw
            grad_bias += db
        return torch.cat(grads), grad_weight, grad_bias, None


class InstanceNorm3d(nn.InstanceNorm3d):
    """``torch.nn.InstanceNorm3d(affine=True)``, faster for channels-last tensors on a CPU (float32 or bfloat16)."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each (sample, channel) of a tensor (N, C, X, Y, Z)."""
        if not _lean(self, input, torch.channels_last_3d):
            return super().forward(input)
        result: Tensor = _PerSampleBatchNorm.apply(input, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        return result


class InstanceNorm2d(nn.InstanceNorm2d):
    """``torch.nn.InstanceNorm2d(affine=True)``, the same for images."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each (sample, channel) of a tensor (N, C, X, Y)."""
        if not _lean(self, input, torch.channels_last):
            return super().forward(input)
        result: Tensor = _PerSampleBatchNorm.apply(input, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        return result


def _lean(norm: nn.InstanceNorm2d | nn.InstanceNorm3d, x: Tensor, layout: torch.memory_format) -> bool:
    simple = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and norm.weight is not None
    return simple and x.is_contiguous(memory_format=layout)


def use_lean_instance_norm(module: nn.Module) -> nn.Module:
    """Replace every affine instance norm below ``module`` in place; weights and their names stay."""
    for child in module.modules():
        if type(child) is nn.InstanceNorm3d and child.affine:
            child.__class__ = InstanceNorm3d
        elif type(child) is nn.InstanceNorm2d and child.affine:
            child.__class__ = InstanceNorm2d
    return module
