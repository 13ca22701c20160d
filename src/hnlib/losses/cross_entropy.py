"""Cross-entropy: plain, weighted by class, and of the hardest voxels."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from hnlib.losses.class_weights import ClassWeights, Numbers, needed, rarity_weights
from hnlib.losses.selection import check_percent, kept_count, smallest
from hnlib.losses.softmax import VoxelLoss, Voxels


class CrossEntropy(VoxelLoss):
    r"""Mean over all voxels of the negative log-probability of the true class.

    Notes
    -----
    .. math:: L = -\frac{1}{N V} \sum_{b,v} \log p_{b, t(b,v), v}

    Tappeiner et al. 2022, Eq. 1, with two corrections that their code makes as well: the print
    misplaces the minus sign, and divides by the batch size only, not by the number of voxels.

    Examples
    --------
    >>> import torch
    >>> loss = CrossEntropy()
    >>> round(float(loss(torch.zeros(1, 4, 2, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.int64))), 4)  # log 4
    1.3863
    """

    def value(self, voxels: Voxels) -> Tensor:
        """Return the loss, a scalar."""
        log_probs = voxels.true_log_probs
        # not mean(): the gradient of a sum is one number for all voxels, that of a mean is written out for each
        return -log_probs.sum() / log_probs.numel()


class WeightedCrossEntropy(VoxelLoss):
    r"""Cross-entropy in which each class's voxels have a weight.

    Parameters
    ----------
    weights
        One number a class, background first.
    class_voxels
        Voxels (or shares) of each class in the training cases, from which `rarity_weights` makes the weights
        where `weights` is None.
    power, clip
        Passed to `rarity_weights`.

    Raises
    ------
    ValueError
        When neither weights nor class_voxels are given, or a number is impossible; when called, where
        their number is not that of the classes.

    Notes
    -----
    .. math:: L = -\frac{1}{N V} \sum_{b,v} \omega_{t(b,v)} \log p_{b, t(b,v), v}

    Pu et al. 2020 (coarse to fine), Eq. 1. It divides by the number of voxels as printed; PyTorch's weighted
    cross-entropy, and with it MONAI's DiceCELoss, divides by the sum of the voxels' weights instead.

    Examples
    --------
    >>> import torch
    >>> loss = WeightedCrossEntropy(weights=[1, 3])
    >>> round(float(loss(torch.zeros(1, 2, 2), torch.tensor([[0, 1]]))), 4)  # (1 + 3) / 2 log 2
    1.3863
    """

    def __init__(
        self,
        weights: Numbers | None = None,
        *,
        class_voxels: Numbers | None = None,
        power: float = 1.0,
        clip: float = 50.0,
    ) -> None:
        super().__init__()
        if weights is None:
            weights = rarity_weights(needed(class_voxels), power=power, clip=clip)
        self.weigh = ClassWeights(weights)

    def value(self, voxels: Voxels) -> Tensor:
        """Return the loss, a scalar."""
        log_probs = voxels.true_log_probs
        return (-self.weigh(voxels, log_probs) / log_probs.numel()).to(log_probs.dtype)


class TopKCrossEntropy(VoxelLoss):
    r"""Mean cross-entropy of the K percent of voxels with the largest.

    Parameters
    ----------
    percent
        K, above 0 and at most 100.
    pooling
        ``sample``: the hardest voxels of each sample. ``batch``: those of the whole batch (of one device's
        part of it), as nnU-Net's TopKLoss takes them.

    Raises
    ------
    ValueError
        When an argument is outside the values named above.

    Notes
    -----
    Of V voxels :math:`\lceil K V / 100 \rceil` are kept, of equal ones those with the smaller index. Which ones is
    decided without gradient. The topK cross-entropy with which Hosseini 2024 compares, there at 50 or 30 percent.

    Examples
    --------
    True-class probabilities 1/2 and 1/4; the harder half is the second voxel, of log 4.

    >>> import torch
    >>> logits = torch.tensor([[[0.5, 0.75], [0.5, 0.25]]]).log()
    >>> round(float(TopKCrossEntropy(50)(logits, torch.tensor([[0, 1]]))), 4)
    1.3863
    """

    def __init__(self, percent: float = 50.0, *, pooling: Literal["sample", "batch"] = "sample") -> None:
        super().__init__()
        if pooling not in get_args(Literal["sample", "batch"]):
            raise ValueError(f"pooling is {pooling!r}; one of sample, batch is needed")
        self.percent = check_percent(percent)
        self.pooling = pooling

    def extra_repr(self) -> str:
        """Return the settings, for printing the module."""
        return f"percent={self.percent}, pooling={self.pooling}"

    def value(self, voxels: Voxels) -> Tensor:
        """Return the loss, a scalar."""
        log_probs = voxels.true_log_probs
        if self.pooling == "batch":
            log_probs = log_probs.reshape(1, -1)
        count = kept_count(log_probs.shape[1], self.percent)
        keep = smallest(log_probs.detach(), count)
        return -torch.where(keep, log_probs, 0.0).sum() / (count * len(log_probs))
