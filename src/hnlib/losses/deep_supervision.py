"""Deep supervision: one loss on every head of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hnlib.losses.softmax import without_channel

Resample = Literal["labels", "heads", "linear"]
#: Modes of torch's interpolation by the number of axes of an image.
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


class DeepSupervision(nn.Module):
    r"""Weighted sum of a loss over the output heads of a network, finest first.

    Parameters
    ----------
    loss
        Any module called as ``loss(logits, target)``, and with `labelled` as third argument where that
        is given.
    weights
        One number a head, used as given. None: :math:`0.5^i` for head i, divided by their sum
        (1; 2/3 1/3; 4/7 2/7 1/7; ...), for any number of heads.
    resample
        What is done where a head is coarser than the label map. ``labels``: the labels are brought
        to the head's grid, by the nearest voxel to each centre (nnU-Net). ``heads``: the logits are
        brought to the labels' grid, by nearest neighbour (code of Tappeiner et al. 2022). ``linear``: the
        same by linear interpolation (Hosseini 2024, whose heads have equal weights).

    Raises
    ------
    ValueError
        When `loss` cannot be called, `resample` is unknown, no weight is given or one is negative or not finite, heads
        and weights differ in number, heads do not come finest first, or a head is finer than the label map.

    Notes
    -----
    .. math:: L = \sum_i w_i \ell(\mathrm{head}_i, \mathrm{target})

    nnU-Net gives its coarsest head weight 0; the code of Tappeiner et al. 2022 does not, nor do we.
    MONAI's DynUNet in training mode returns its heads already brought to full resolution and stacked,
    so there `resample` makes no difference.

    Examples
    --------
    >>> from hnlib.losses import CrossEntropy
    >>> loss = DeepSupervision(CrossEntropy())
    >>> heads = [torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, 2)]
    >>> round(float(loss(heads, torch.zeros(1, 4, 4, dtype=torch.int64))), 4)  # log 2, whatever the weights
    0.6931
    """

    def __init__(
        self, loss: nn.Module, weights: Sequence[float] | None = None, *, resample: Resample = "labels"
    ) -> None:
        super().__init__()
        if not callable(loss):
            raise ValueError(
                f"loss is {loss!r}; one called as loss(logits, target) is needed, such as build_loss makes"
            )
        if resample not in get_args(Resample):
            raise ValueError(f"resample is {resample!r}; one of {', '.join(get_args(Resample))} is needed")
        if weights is not None and len(weights) == 0:
            raise ValueError("weights are empty; one number a head is needed")
        if weights is not None and not all(0 <= weight < math.inf for weight in weights):
            raise ValueError(f"weights are {tuple(weights)}; finite numbers of at least 0 are needed")
        self.loss = loss
        self.weights = None if weights is None else tuple(float(weight) for weight in weights)
        self.resample = resample

    # nn.Module declares __call__ as Any; callers deserve the signature
    __call__: Callable[..., Tensor]

    def extra_repr(self) -> str:
        """Return the settings, for printing the module."""
        return f"weights={self.weights}, resample={self.resample}"

    def forward(self, logits: Tensor | Sequence[Tensor], target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Return the weighted loss, a scalar.

        Parameters
        ----------
        logits
            One head (N, C, ...); a stack of heads (N, heads, C, ...), as MONAI's DynUNet returns in
            training mode; or a sequence of heads of any resolution. A single tensor (evaluation
            mode) has weight 1 unless `weights` are given.
        target
            Integer label map (N, ...) at the finest resolution; (N, 1, ...) too, save with a stack of heads.
        labelled
            Boolean (N, C): which classes were outlined in each sample; None means all.
        """
        heads = _heads(logits, target)
        target = without_channel(heads[0], target)
        for first, second in pairwise(heads):
            if first[0, 0].numel() < second[0, 0].numel():
                raise ValueError(
                    f"a head of shape {tuple(second.shape)} follows one of {tuple(first.shape)}; the finest comes first"
                )
        weights = deep_supervision_weights(len(heads)) if self.weights is None else self.weights
        if len(weights) != len(heads):
            raise ValueError(f"{len(heads)} heads but {len(weights)} weights; one weight a head is needed")
        terms = [weight * self._head_loss(head, target, labelled) for weight, head in zip(weights, heads, strict=True)]
        return sum(terms[1:], start=terms[0])

    def _head_loss(self, head: Tensor, target: Tensor, labelled: Tensor | None) -> Tensor:
        shape = target.shape[1:]
        if head.shape[2:] != shape and head.ndim == target.ndim + 1:
            if any(own > full for own, full in zip(head.shape[2:], shape, strict=True)):
                raise ValueError(
                    f"a head has shape {tuple(head.shape)}, finer than the target's {tuple(target.shape)}; "
                    "labels at the resolution of the finest head are needed"
                )
            if self.resample == "labels":
                target = downsample_labels(target, head.shape[2:])
            else:
                head = interpolate(head, size=shape, mode="nearest" if self.resample == "heads" else LINEAR[len(shape)])
        loss: Tensor = self.loss(head, target) if labelled is None else self.loss(head, target, labelled)
        return loss


def deep_supervision_weights(num_heads: int) -> tuple[float, ...]:
    """Return 0.5^i for head i, divided by their sum.

    Examples
    --------
    >>> deep_supervision_weights(2)
    (0.6666666666666666, 0.3333333333333333)
    """
    raw = [0.5**i for i in range(num_heads)]
    return tuple(weight / sum(raw) for weight in raw)


def downsample_labels(target: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the labels (N, ...) on a grid of `shape`: for each new voxel the one at its centre.

    Along an axis of length n brought to m, new voxel i reads old voxel floor((i + 1/2) n / m).
    Labels stay integers, and none appears that was not there; a tiny organ may vanish.

    Examples
    --------
    >>> downsample_labels(torch.tensor([[0, 1, 2, 3]]), (2,))
    tensor([[1, 3]])
    """
    for axis, new in enumerate(shape, start=1):
        old = target.shape[axis]
        if new != old:
            index = torch.arange(old, (2 * new + 1) * old, 2 * old, device=target.device) // (2 * new)
            target = target.index_select(axis, index)
    return target


def _heads(logits: Tensor | Sequence[Tensor], target: Tensor) -> Sequence[Tensor]:
    """Return the heads of one tensor, a stack or a sequence, finest first."""
    if not isinstance(logits, Tensor):
        if len(logits) == 0:
            raise ValueError("logits are an empty sequence; at least one head is needed")
        return logits
    if logits.ndim == target.ndim + 2:
        return logits.unbind(dim=1)
    return [logits]
