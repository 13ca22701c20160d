"""Classes that nobody outlined in a sample: unknown, so neither rewarded nor punished."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Merge(torch.autograd.Function):
    """Logits with the background of each sample enlarged; touches only the samples and classes concerned.

    With s_k the share of class k in the enlarged background, the gradient is dL/dz_k = s_k dL/dz~_0.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labelled: list[list[bool]]) -> Tensor:
        """Return the merged logits (N, C, ...)."""
        groups = [[0, *(k for k, known in enumerate(row) if not known and k)] for row in labelled]
        merged = logits.clone()
        for out, own, group in zip(merged, logits, groups, strict=True):
            if len(group) > 1:
                out[0] = torch.stack([own[k] for k in group]).logsumexp(dim=0)
            for k in group[1:]:
                out[k] = -torch.inf
        ctx.groups = groups
        ctx.save_for_backward(logits, merged)
        return merged

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Return dL/dlogits (N, C, ...)."""
        logits, merged = ctx.saved_tensors
        result = grad.clone()
        for out, given, own, whole, group in zip(result, grad, logits, merged, ctx.groups, strict=True):
            if len(group) > 1:
                for k in group:
                    out[k] = given[0] * (own[k] - whole[0]).exp()
        return result, None


def merge_unlabelled(logits: Tensor, labelled: Tensor) -> Tensor:
    r"""Return logits under which the classes that a sample has not outlined are part of its background.

    Parameters
    ----------
    logits
        Shape (N, C, ...), class 0 the background.
    labelled
        Boolean, shape (N, C): which classes were outlined in each sample. It is read on the CPU: keep it
        there, since fetching it from an accelerator would stall that.

    Returns
    -------
    Tensor
        Shape of `logits`. With U the classes that were not outlined in a sample,

        .. math:: \tilde z_0 = \log \sum_{k \in \{0\} \cup U} e^{z_k}, \qquad \tilde z_u = -\infty,

        so that the softmax gives the background the sum of their probabilities and them none, and
        no gradient tells them from the background. A sample in which all are outlined is unchanged.

    Notes
    -----
    The marginal loss of Shi et al. 2021 ("Marginal loss and exclusion loss for partially supervised
    multi-organ segmentation"), without the exclusion term.

    Examples
    --------
    Probabilities 1/2, 1/4 and 1/4, the last class not outlined:

    >>> logits = torch.tensor([0.5, 0.25, 0.25]).log().view(1, 3, 1)
    >>> merged = merge_unlabelled(logits, torch.tensor([[True, True, False]]))
    >>> merged.softmax(1).flatten().double().round(decimals=4).tolist()
    [0.75, 0.25, 0.0]
    """
    merged = _Merge.apply(logits, labelled.tolist())  # type: ignore[no-untyped-call]
    return cast("Tensor", merged)


def check_labelled(labelled: Tensor, logits: Tensor, target: Tensor) -> None:
    """Raise ValueError unless the outlined classes (N, C) fit the logits and the label map.

    As with labels, values are only looked at where both are on the CPU.
    """
    wanted = tuple(logits.shape[:2])
    if labelled.dtype != torch.bool or tuple(labelled.shape) != wanted:
        raise ValueError(
            f"labelled is {labelled.dtype} of shape {tuple(labelled.shape)}; booleans of shape {wanted}, "
            "one for each sample and class, are needed"
        )
    if labelled.device.type != "cpu" or target.device.type != "cpu" or torch.compiler.is_compiling():
        return
    if not bool(labelled[:, 0].all()):
        raise ValueError("labelled is False for class 0; the background is always labelled")
    for number, (known, labels) in enumerate(zip(labelled, target, strict=True)):
        if not bool(known.all()) and not bool(known[labels.long()].all()):
            wrong = sorted({int(v) for v in labels.unique()} - {int(v) for v in known.nonzero()})
            raise ValueError(f"sample {number} holds voxels of classes {wrong}, which labelled says nobody outlined")
