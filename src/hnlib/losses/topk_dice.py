"""TopK Dice: Dice on each class's hardest label voxels and everything outside the class."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from hnlib.losses.dice import DiceLoss
from hnlib.losses.selection import check_percent, smallest_by_class
from hnlib.losses.softmax import Voxels


class TopKDiceLoss(DiceLoss):
    r"""Dice loss from which the label voxels that are predicted best are left out, class by class.

    Parameters
    ----------
    percent
        K: the share of each class's label voxels that is kept, above 0 and at most 100. 100 is `DiceLoss` itself.
    floor
        At least this many label voxels are kept, or all where a class has fewer: of an optic nerve's 40
        voxels 30 percent are 12, and one wrong label would move the coefficient by 8 percent.
    literal
        The threshold as printed, see Notes; then there is no floor.
    perturbation
        Largest of the fixed random numbers that are added to p before ranking, the same for all classes and
        samples; 0 for none. They only break ties, and enter nothing else.
    seed
        Of those numbers, which also depend on the number of voxels and the kind of device.
    **switches
        Those of `DiceLoss`. `pooling` also says among what voxels are ranked: those of a sample, or those of the
        batch (of one device's part of it). `background` says whether the background is averaged and, then, ranked.

    Raises
    ------
    ValueError
        When an argument is outside the values named above.

    Notes
    -----
    With n label voxels of a class, the :math:`k = \max(\lceil K n / 100 \rceil, \min(n, floor))` of lowest p are kept,
    of equal ones those with the smaller index. At the other n - k both g and p of that class are set to 0, and of
    that class only: to the other classes, and to a cross-entropy beside, they stay what they are. Which voxels are
    kept is decided without gradient.

    .. math:: D_K = \frac{2 \sum' p g + a}{\sum' p^2 + \sum' g + e}

    where :math:`\sum'` leaves out the ignored voxels. Hosseini 2024 ("TopK Dice Loss for Medical Image Segmentation"),
    Eqs. 1 to 7, squared as there or linear. The paper takes t, the D-th highest p with
    :math:`D = (1 - K/100) n`, and ignores what lies strictly above: one voxel fewer than said, and undefined where D
    is 0 or not whole. `literal` does that, with D rounded down and nothing ignored where it is 0. The paper adds
    random numbers against ties once and for all; here they come from `seed`, whatever the patch size. Not
    stated there, and read so: a class without label voxels in a sample is skipped, there is no smoothing, and the
    background is not one of the classes.

    As K falls the loss does not fall. It moves the cut from D/2 towards :math:`D_K / 2`: ambiguous boundaries
    are drawn further out, so look at precision, recall and volume, not at Dice alone. MONAI and nnU-Net have no
    TopK Dice.

    Examples
    --------
    An organ of two voxels, p = 0.9 and 0.5, background out; the harder one alone gives
    D = 2 * 0.5 / (0.5^2 + 0.1^2 + 1), where 0.1 is the p of the one background voxel.

    >>> logits = torch.tensor([[[0.9, 0.1, 0.5], [0.1, 0.9, 0.5]]]).log()
    >>> loss = TopKDiceLoss(50, floor=1, squared=True, absent="skip", smooth_numerator=0, smooth_denominator=0)
    >>> round(float(loss(logits, torch.tensor([[0, 1, 1]]))), 4)  # 1 - 1 / 1.26
    0.2063
    """

    def __init__(
        self,
        percent: float = 50.0,
        *,
        floor: int = 32,
        literal: bool = False,
        perturbation: float = 0.0,
        seed: int = 0,
        **switches: Any,
    ) -> None:
        super().__init__(**switches)
        self.percent = check_percent(percent)
        for name, number in (("floor", floor), ("perturbation", perturbation), ("seed", seed)):
            if not isinstance(number, int | float) or not 0 <= number < math.inf:
                raise ValueError(f"{name} is {number!r}; a finite number of at least 0 is needed")
            if name != "perturbation" and number != int(number):
                raise ValueError(f"{name} is {number!r}; a whole number is needed")
        if literal not in (False, True):
            raise ValueError(f"literal is {literal!r}; True or False is needed")
        self.floor = floor
        self.literal = literal
        self.perturbation = perturbation
        self.seed = int(seed)

    def extra_repr(self) -> str:
        """Return the settings, for printing the module."""
        return (
            f"percent={self.percent}, floor={self.floor}, literal={self.literal}, perturbation={self.perturbation}, "
            f"seed={self.seed}, {super().extra_repr()}"
        )

    def _sums(self, voxels: Voxels) -> tuple[Tensor, Tensor, Tensor]:
        intersection, mass, count = super()._sums(voxels)
        if self.percent == 100:
            return intersection, mass, count
        ignored = ~self.kept(voxels)
        # a class's p at its own label voxels is the true class's p, so that what is ignored can be taken off the sums
        lost = torch.where(ignored, voxels.true_probs, 0.0)
        dropped = voxels.sum_by_class(lost)
        from_mass = voxels.sum_by_class(lost.square()) if self.squared else dropped
        return intersection - dropped, mass - from_mass, count - voxels.sum_by_class(ignored.to(lost.dtype))

    @torch.no_grad()
    def kept(self, voxels: Voxels) -> Tensor:
        """Return which voxels count for their own class, boolean (N, V); the complement is the paper's ignore map."""
        probs, target, counts = voxels.true_probs.detach(), voxels.target, voxels.counts
        if self.perturbation:
            probs = self._perturbed(probs)
        if self.pooling == "batch":
            probs, target, counts = probs.reshape(1, -1), target.reshape(1, -1), counts.sum(dim=0, keepdim=True)
        keep = smallest_by_class(probs, target, self._wanted(counts))
        if self.literal:
            limit = _largest_by_class(torch.where(keep, probs, -1.0), target, counts.shape[1])
            keep = probs <= limit.gather(1, target)
        return keep.view_as(voxels.target)

    def _wanted(self, counts: Tensor) -> Tensor:
        """Return how many voxels of each class are kept, 0 for all, of counts (N, C)."""
        if self.literal:  # up to the D-th highest, which itself stays
            dropped = (counts * ((100 - self.percent) / 100) + 1e-6).floor()
            wanted = torch.where(dropped > 0, counts - dropped + 1, counts)
        else:
            wanted = (counts * self.percent / 100 - 1e-6).ceil()  # see `kept_count`
            wanted = wanted.maximum(counts.clamp(max=max(1, self.floor)))
        wanted = torch.where(wanted >= counts, 0.0, wanted)
        if not self.background:
            wanted[:, 0] = 0
        return wanted

    def _perturbed(self, probs: Tensor) -> Tensor:
        generator = torch.Generator(probs.device).manual_seed(self.seed)
        wide = probs if probs.device.type == "mps" else probs.double()  # in float32 they would drown beside p = 1
        noise = torch.rand(probs.shape[1], generator=generator, device=probs.device, dtype=wide.dtype)
        return wide + self.perturbation * noise


def _largest_by_class(values: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Return the largest value (N, C) among the voxels of each class."""
    limits = values.new_full((len(values), num_classes), -1.0)
    return limits.scatter_reduce_(1, target, values, "amax")
