"""Generalised Dice: one ratio for all classes, each weighted by its size."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from hnlib.losses.softmax import VoxelLoss, Voxels, sum_over_devices

Pooling = Literal["sample", "batch"]
Absent = Literal["count", "skip"]


class GeneralisedDiceLoss(VoxelLoss):
    r"""One minus a Dice coefficient whose numerator and denominator are weighted sums over the classes.

    Parameters
    ----------
    pooling
        ``sample``: one coefficient a sample. ``batch``: sums and sizes of the whole batch.
    background
        Whether class 0 is one of the classes.
    absent
        ``skip``: a class without a label voxel has weight 0. ``count``: it has the largest weight of the others, as
        MONAI does, so that false positives of it cost as much as those of the smallest organ.
    power
        Weights are :math:`n^{-power}` for n label voxels of the sample: 2 as printed, 0 for equal weights.

    Raises
    ------
    ValueError
        When an argument is outside the values named above.

    Notes
    -----
    .. math:: L = 1 - \frac{2 \sum_c \omega_c \sum p g}{\sum_c \omega_c (\sum p + \sum g)}, \qquad
              \omega_c = n_c^{-2}

    Sudre et al. 2017; Pu et al. 2020 (coarse to fine), Eqs. 3 and 4, without the factor 1/M before the fraction: with
    it the loss of a perfect prediction would be 1 - 1/M. A sample without any of the classes counts 0.
    Weights are scaled so that the largest is 1, which cancels in the ratio and cannot overflow.

    No smoothing term, deliberately. MONAI's GeneralizedDiceLoss agrees with its two smoothing terms set to 0; by
    default each is 1e-5, and since with weights of :math:`n^{-2}` the sums themselves are about 1/n, that is no
    small number: an organ of 10,000 voxels that is missed altogether, in a volume of a million, scores 0.05 for it.

    Examples
    --------
    Four voxels at one half, one of them organ: I = 1.5 and 0.5, S = 5 and 3, weights 1/9 and 1.

    >>> loss = GeneralisedDiceLoss()
    >>> round(float(loss(torch.zeros(1, 2, 4), torch.tensor([[0, 0, 0, 1]]))), 4)  # 1 - 2 (1/6 + 1/2) / (5/9 + 3)
    0.625
    """

    def __init__(
        self,
        *,
        pooling: Pooling = "sample",
        background: bool = True,
        absent: Absent = "skip",
        power: float = 2.0,
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ("pooling", pooling, get_args(Pooling)),
            ("background", background, (False, True)),
            ("absent", absent, get_args(Absent)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; one of {', '.join(map(str, allowed))} is needed")
        if not isinstance(power, int | float) or not 0 <= power < math.inf:
            raise ValueError(f"power is {power!r}; a finite number of at least 0 is needed")
        self.pooling = pooling
        self.background = background
        self.absent = absent
        self.power = float(power)

    def extra_repr(self) -> str:
        """Return the settings, for printing the module."""
        return f"pooling={self.pooling}, background={self.background}, absent={self.absent}, power={self.power}"

    def value(self, voxels: Voxels) -> Tensor:
        """Return the loss, a scalar."""
        intersection, mass, count = (self._pooled(s) for s in (voxels.intersections, voxels.masses, voxels.counts))
        weight = self._weights(count)
        if voxels.labelled is not None:
            weight = weight * (self._pooled(voxels.labelled.to(count)) > 0)
        numerator = 2 * (weight * intersection).sum(dim=1)
        denominator = (weight * (mass + count)).sum(dim=1)
        some = denominator > 0
        # where nothing is counted both are 0, with a live graph
        ratio = numerator / torch.where(some, denominator, 1.0)
        return (some.to(ratio.dtype) - ratio).mean().to(voxels.logits.dtype)

    def _weights(self, count: Tensor) -> Tensor:
        """Return the weight of each class of counts (N, C), the largest 1."""
        present = count > 0
        least = torch.where(present, count, torch.inf).amin(dim=1, keepdim=True)
        weight = torch.where(present, (least / count.clamp(min=1)) ** self.power, float(self.absent == "count"))
        # with no class present there is no least size: nothing is counted
        return torch.where(least < torch.inf, weight, 0.0)

    def _pooled(self, sums: Tensor) -> Tensor:
        sums = sums if self.background else sums[:, 1:]
        return sum_over_devices(sums.sum(dim=0, keepdim=True)) if self.pooling == "batch" else sums
