"""Gradients of losses on logits as formulas, to hold what is measured against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hnlib.losses.build import SumLoss
from hnlib.losses.cross_entropy import CrossEntropy
from hnlib.losses.dice import DiceLoss


def analytic_gradient(loss: object, logits: Tensor, target: Tensor) -> Tensor | None:
    r"""Return dL/dlogits by its closed form, without autograd; None where none is stated.

    Parameters
    ----------
    loss
        Cross-entropy, a Dice loss with any of its switches, or a weighted sum of these.
    logits, target
        Shapes (N, C, ...) and (N, ...), integer labels.

    Returns
    -------
    Tensor or None
        Shape of `logits`, float64.

    Notes
    -----
    With V voxels in all, :math:`a_k = \partial L / \partial p_k` and :math:`w_k` the weight of the class in the mean,

    .. math::

        \frac{\partial L}{\partial z_k} = p_k \Big(a_k - \sum_c p_c a_c\Big), \qquad
        a_k^\text{CE} = -\frac{g_k}{V p_k}, \qquad
        a_k^\text{Dice} = -w_k \frac{2 g_k - D_k h_k}{S_k},

    where h is 1, or 2p when the denominator S holds squares. For cross-entropy this is (p - g) / V.

    Examples
    --------
    >>> analytic_gradient(CrossEntropy(), torch.zeros(1, 2, 1), torch.tensor([[1]])).flatten().tolist()
    [0.5, -0.5]
    """
    if isinstance(loss, SumLoss):
        parts = [analytic_gradient(term, logits, target) for term in loss.losses]
        known = [weight * part for weight, part in zip(loss.weights, parts, strict=True) if part is not None]
        return torch.stack(known).sum(dim=0) if len(known) == len(parts) else None
    # a subclass may be another loss
    if type(loss) not in (CrossEntropy, DiceLoss):
        return None
    probs = logits.detach().double().softmax(1).flatten(2)
    onehot = nn.functional.one_hot(target.flatten(1).long(), logits.shape[1]).movedim(2, 1).double()
    if isinstance(loss, DiceLoss):
        slope = _dice_slope(loss, probs, onehot)
        grad = probs * (slope - (probs * slope).sum(dim=1, keepdim=True))
    else:
        grad = (probs - onehot) / target.numel()
    return grad.view(logits.shape)


def _dice_slope(loss: DiceLoss, probs: Tensor, onehot: Tensor) -> Tensor:
    """Return dL/dp (N, C, V)."""
    pooled = (0, 2) if loss.pooling == "batch" else (2,)
    count = onehot.sum(pooled, keepdim=True)
    mass = (probs.square() if loss.squared else probs).sum(pooled, keepdim=True)
    counted = torch.ones_like(count) if loss.absent == "count" else (count > 0).double()
    if not loss.background:
        counted[:, 0] = 0
    if loss.over_classes == "sum":
        weight = counted / len(counted)
    elif loss.absent == "skip_jointly":
        weight = counted / counted.sum().clamp(min=1)
    else:
        weight = counted / counted.sum(1, keepdim=True).clamp(min=1) / len(counted)
    # where nothing is counted the weight is 0, and so is what the clamp protects
    size = (mass + count + loss.smooth_denominator).clamp(min=torch.finfo(torch.float64).tiny)
    score = (2 * (probs * onehot).sum(pooled, keepdim=True) + loss.smooth_numerator) / size
    inner = 2 * probs if loss.squared else 1.0
    return -weight * (2 * onehot - score * inner) / size
