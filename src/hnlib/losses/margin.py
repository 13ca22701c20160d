"""The asymmetric focal and large-margin losses of Li et al., for several classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from hnlib.losses.dice import DiceLoss
from hnlib.losses.focal import check_gamma, focal_factor
from hnlib.losses.softmax import VoxelLoss, Voxels

Classes = Sequence[float] | float


class AsymmetricCrossEntropy(VoxelLoss):
    r"""Cross-entropy that asks a margin of rare classes and is focal for the others.

    Parameters
    ----------
    margin
        m, in logits, at least 0; 0 for none. The authors call 0.2 to 2 reasonable.
    gamma
        At least 0; 0 for none. The authors call 2 to 6 reasonable.
    rare
        Numbers of the rare classes; None: every class but the background.

    Raises
    ------
    ValueError
        When a number is impossible; when called, where a rare class is none of the classes.

    Notes
    -----
    At a voxel of a rare class m is taken off the logit of that class, before the softmax, so that the voxel costs
    nothing only when its class leads by more than m. Elsewhere the loss is focal: a class that is plentiful spends
    less on what it knows. Rare classes are never focal.

    .. math::

        \tilde p = \frac{p e^{-m r}}{p e^{-m r} + 1 - p}, \qquad
        L = -\frac{1}{N V} \sum_{b,v} (1 - \tilde p)^{\gamma (1 - r)} \log \tilde p

    with p the probability of the true class and r = 1 where that is rare, else 0.

    Li, Kamnitsas, Glocker 2021 ("Analyzing overfitting under class imbalance"; first in 2019), as their code has it
    (repository ZerojumpLine/OverfittingUnderClassImbalance, file mND_Crossentropy.py, three classes). Deviations: any
    number of classes and any of them rare; no constant (there 1e-6) beside p in the logarithm, which is computed from
    logits. As there, a voxel of a rare class costs :math:`\log(1 + e^{m - \Delta})` where :math:`\Delta` is its lead:
    about 0 at a perfect prediction, never 0.
    MONAI's AsymmetricFocalLoss is binary only and takes probabilities.

    Examples
    --------
    Two voxels at one half. The organ's has 1/2 e^-1 / (1/2 e^-1 + 1/2) left; the background's costs log 2 / 4.

    >>> loss = AsymmetricCrossEntropy(margin=1, gamma=2)
    >>> round(float(loss(torch.zeros(1, 2, 2), torch.tensor([[0, 1]]))), 4)  # (1.3133 + 0.1733) / 2
    0.7433
    """

    def __init__(self, margin: float = 1.0, gamma: float = 2.0, *, rare: Classes | None = None) -> None:
        super().__init__()
        self.margin = _check_margin(margin)
        self.gamma = check_gamma(gamma)
        self.rare = _check_rare(rare)

    def extra_repr(self) -> str:
        """Return the settings, for printing the module."""
        return f"margin={self.margin}, gamma={self.gamma}, rare={_words(self.rare)}"

    def value(self, voxels: Voxels) -> Tensor:
        """Return the loss, a scalar."""
        log_probs, rare = voxels.true_log_probs, _is_rare(voxels, self.rare)
        # how far the true logit leads all others together; p = 1 leads by a finite amount, as in `focal_factor`
        lead = log_probs - (-torch.expm1(log_probs)).clamp(min=1e-12).log()
        with_margin = logsigmoid(lead - self.margin)
        focal = focal_factor(log_probs, self.gamma) * log_probs
        return -torch.where(rare, with_margin, focal).sum() / log_probs.numel()


class MarginDiceLoss(DiceLoss):
    """Dice loss of logits from which, at voxels of rare classes, a margin was taken off that class.

    Parameters
    ----------
    margin
        In logits, at least 0.
    rare
        Numbers of the rare classes; None: every class but the background.
    **switches
        Those of `DiceLoss`.

    Raises
    ------
    ValueError
        When a number is impossible; when called, where a rare class is none of the classes.

    Notes
    -----
    What the code of Li et al. (see `AsymmetricCrossEntropy`) gives to its Dice term; that Tappeiner et al. 2022 name
    as future work together with ca-Dice is the preset ``ca_dice_margin``, beside ``asymmetric_ce``. Deviation: their
    code also multiplies the false negatives of classes that are not rare by (1 - p)^gamma. It leaves the
    background out, so with all organs rare, the default here, nothing is multiplied; with the background in, as in
    ca-Dice, we leave its term as it is.

    It needs a softmax of its own: the margin changes the probabilities of all classes.

    Examples
    --------
    >>> loss = MarginDiceLoss(0, smooth_numerator=0)  # no margin: D = 2 * 0.5 / (1 + 1)
    >>> round(float(loss(torch.zeros(1, 2, 2), torch.tensor([[0, 1]]))), 4)
    0.5
    """

    def __init__(self, margin: float = 1.0, *, rare: Classes | None = None, **switches: Any) -> None:
        super().__init__(**switches)
        self.margin = _check_margin(margin)
        self.rare = _check_rare(rare)

    def extra_repr(self) -> str:
        """Return the settings, for printing the module."""
        return f"margin={self.margin}, rare={_words(self.rare)}, {super().extra_repr()}"

    def value(self, voxels: Voxels) -> Tensor:
        """Return the loss, a scalar."""
        target = voxels.target
        shift = -self.margin * _is_rare(voxels, self.rare).to(voxels.logits.dtype)
        logits = voxels.logits.scatter_add(1, target.unsqueeze(1), shift.unsqueeze(1))
        return super().value(Voxels(logits, target, squares=self.squares, labelled=voxels.labelled))


def _is_rare(voxels: Voxels, rare: tuple[int, ...] | None) -> Tensor:
    """Return which voxels (N, V) are of a rare class."""
    if rare is None:
        return voxels.target > 0
    if max(rare) >= voxels.num_classes:
        raise ValueError(f"rare is {rare} but logits have {voxels.num_classes} classes, 0 to {voxels.num_classes - 1}")
    found = voxels.target == rare[0]
    for label in rare[1:]:
        found = found | (voxels.target == label)
    return found


def _check_margin(margin: float) -> float:
    if not isinstance(margin, int | float) or not 0 <= margin < math.inf:
        raise ValueError(f"margin is {margin!r}; a finite number of at least 0 is needed")
    return float(margin)


def _check_rare(rare: Classes | None) -> tuple[int, ...] | None:
    if rare is None:
        return None
    labels = (rare,) if isinstance(rare, int | float) else tuple(rare)
    if not labels or any(label != int(label) or label < 0 for label in labels):
        raise ValueError(f"rare is {rare!r}; class numbers of at least 0 are needed")
    return tuple(int(label) for label in labels)


def _words(rare: tuple[int, ...] | None) -> str:
    return "all organs" if rare is None else "/".join(map(str, rare))
