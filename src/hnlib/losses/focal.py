"""Focal loss for several classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hnlib.losses.class_weights import ClassWeights, Numbers, inverse_size_weights, needed
from hnlib.losses.softmax import VoxelLoss, Voxels


class FocalLoss(VoxelLoss):
    r"""Cross-entropy in which voxels count less the better they are predicted.

    Parameters
    ----------
    gamma
        At least 0; 0 is cross-entropy.
    weights
        The alpha of the papers: one number a class, background first. None: all 1.

    Raises
    ------
    ValueError
        When a number is impossible; when called, where the number of weights is not that of the classes.

    Notes
    -----
    .. math:: L = -\frac{1}{N V} \sum_{b,v} \alpha_t (1 - p_t)^\gamma \log p_t, \qquad t = t(b, v)

    Gao et al. 2019 (FocusNet), Eq. 1, with p the probability of the true class, which the print does not say;
    the mean over voxels, of which it says nothing either, is ours. Lin et al. 2017 without the sigmoid.

    MONAI's FocalLoss(use_softmax=True) is this divided by the number of classes, since it averages over the zeros
    of the other classes too. Its ``include_background=False`` drops the background's logit before the
    softmax, which is another model, and its default is one sigmoid a class, not Eq. 1.

    Examples
    --------
    >>> import torch
    >>> loss = FocalLoss(gamma=2)
    >>> round(float(loss(torch.zeros(1, 2, 2), torch.tensor([[0, 1]]))), 4)  # log 2 / 4
    0.1733
    """

    def __init__(self, gamma: float = 2.0, *, weights: Numbers | None = None) -> None:
        super().__init__()
        self.gamma = check_gamma(gamma)
        self.weigh = None if weights is None else ClassWeights(weights)

    def extra_repr(self) -> str:
        """Return the settings, for printing the module."""
        return f"gamma={self.gamma}"

    def value(self, voxels: Voxels) -> Tensor:
        """Return the loss, a scalar."""
        log_probs = voxels.true_log_probs
        values = focal_factor(log_probs, self.gamma) * log_probs
        total = values.sum() if self.weigh is None else self.weigh(voxels, values)
        return (-total / log_probs.numel()).to(log_probs.dtype)


class WeightedFocalLoss(FocalLoss):
    """Focal loss weighted by the inverse size of the classes.

    Parameters
    ----------
    gamma, weights
        As in `FocalLoss`.
    class_voxels
        Voxels (or shares) of each class in the training cases, from which `inverse_size_weights` makes the weights
        where `weights` is None.
    power
        Passed to `inverse_size_weights`.

    Raises
    ------
    ValueError
        When neither weights nor class_voxels are given; else as `FocalLoss`.

    Examples
    --------
    >>> WeightedFocalLoss(class_voxels=[400, 100])
    WeightedFocalLoss(
      gamma=2.0
      (weigh): ClassWeights(0.6667/1.333)
    )
    """

    def __init__(
        self,
        gamma: float = 2.0,
        *,
        weights: Numbers | None = None,
        class_voxels: Numbers | None = None,
        power: float = 0.5,
    ) -> None:
        if weights is None:
            weights = inverse_size_weights(needed(class_voxels), power=power)
        super().__init__(gamma, weights=weights)


def check_gamma(gamma: float) -> float:
    """Return gamma; ValueError unless it is a finite number of at least 0."""
    if not isinstance(gamma, int | float) or not 0 <= gamma < math.inf:
        raise ValueError(f"gamma is {gamma!r}; a finite number of at least 0 is needed")
    return float(gamma)


def focal_factor(log_probs: Tensor, gamma: float) -> Tensor:
    """Return (1 - p)^gamma of log-probabilities.

    >>> round(float(focal_factor(torch.tensor(0.25).log(), 2.0)), 4)
    0.5625
    """
    # never exactly 0, where the slope of a root is infinite; p = 1 still costs nothing, since its logarithm is 0
    return (-torch.expm1(log_probs)).clamp(min=1e-12) ** gamma
