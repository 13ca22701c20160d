"""Soft Dice losses: one class, and every choice in which the papers differ as an argument."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from hnlib.losses.softmax import VoxelLoss, Voxels, sum_over_devices

Pooling = Literal["sample", "batch"]
Absent = Literal["count", "skip", "skip_jointly"]
OverClasses = Literal["mean", "sum"]


class DiceLoss(VoxelLoss):
    r"""One minus the soft Dice coefficient, averaged over classes; 0 is perfect, about 1 the worst.

    Parameters
    ----------
    pooling
        ``sample``: one coefficient for each sample and class. ``batch``: sums run over the whole
        batch, as if it were one volume, and there is one coefficient for each class.
    background
        Whether class 0 is one of the classes averaged.
    absent
        What a class without a labelled voxel (in the sample, or in the pooled batch) does.
        ``count``: it enters the mean with its term a / (P + e), see Notes.
        ``skip``: it enters neither the sum nor the divisor: mean over the classes present in a
        sample, then over samples. ``skip_jointly``: mean over all (sample, class) pairs that are
        present. The two differ when samples hold different numbers of classes; with pooling
        ``batch`` they are the same.
    smooth_numerator, smooth_denominator
        The constants a and e, in voxels. The denominator's must be positive when absent classes count.
    squared
        Whether the denominator holds the sums of squares instead of the sums.
    over_classes
        ``mean``, or ``sum``: the terms of a sample are added up and M is 1 (Gao et al. 2019, Eq. 2).

    Raises
    ------
    ValueError
        When an argument is outside the values named above.

    Notes
    -----
    With sums over the voxels (and samples, when pooled) of one class,

    .. math:: D = \frac{2 \sum p g + a}{\sum p + \sum g + e}, \qquad L = \frac{1}{M} \sum (1 - D),

    and :math:`\sum p^2 + \sum g^2` in the denominator when `squared`. M is the number of terms
    counted. Where nothing is counted (only background, and background left out) the loss is 0 with
    gradient 0, never NaN; under ``skip`` such a sample adds 0 and still counts among the samples,
    so that a batch's loss is the mean of its samples' losses.

    A class that a sample has not outlined has no coefficient there: under pooling ``sample`` it enters
    neither sum nor divisor of that sample; under ``batch`` its sums run over the samples that outline
    it, and it has no term where none does. The background's p includes the probabilities of those classes.

    Tappeiner et al. 2022, Eqs. 2 to 4; Milletari et al. 2016 for the squared denominator. The papers
    print scores and their code minimises minus the score: here it is one minus the score, which has
    the same gradient. Under ``count`` the term of an absent class is 1 - a / (P + e), P the mass
    predicted for it: with a = e = 1e-5 it is a constant of almost 1 with almost no gradient unless
    P is itself below 1e-5, not the "perfect" that the paper calls it.

    Examples
    --------
    Two voxels, background and organ, both predicted with one half: D = 2 * 0.5 / (1 + 1).

    >>> import torch
    >>> loss = DiceLoss(smooth_numerator=0, smooth_denominator=1e-5)
    >>> round(float(loss(torch.zeros(1, 2, 2), torch.tensor([[0, 1]]))), 4)
    0.5
    """

    def __init__(
        self,
        *,
        pooling: Pooling = "sample",
        background: bool = False,
        absent: Absent = "count",
        smooth_numerator: float = 1e-5,
        smooth_denominator: float = 1e-5,
        squared: bool = False,
        over_classes: OverClasses = "mean",
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ("pooling", pooling, get_args(Pooling)),
            ("background", background, (False, True)),
            ("absent", absent, get_args(Absent)),
            ("squared", squared, (False, True)),
            ("over_classes", over_classes, get_args(OverClasses)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; one of {', '.join(map(str, allowed))} is needed")
        for name, number in (("smooth_numerator", smooth_numerator), ("smooth_denominator", smooth_denominator)):
            if not isinstance(number, int | float) or not 0 <= number < math.inf:
                raise ValueError(f"{name} is {number!r}; a finite number of at least 0 is needed")
        if absent == "skip_jointly" and over_classes == "sum":
            raise ValueError("over_classes is 'sum', but skipping absent classes jointly means a mean over pairs")
        if absent == "count" and smooth_denominator == 0:
            raise ValueError(
                "smooth_denominator is 0 while absent classes count: a class neither labelled nor predicted "
                "would give 0/0; make it positive or skip absent classes"
            )
        self.pooling = pooling
        self.background = background
        self.absent = absent
        self.smooth_numerator = smooth_numerator
        self.smooth_denominator = smooth_denominator
        self.squared = squared
        self.squares = squared
        self.over_classes = over_classes

    def extra_repr(self) -> str:
        """Return the switches, for printing the module."""
        text = (
            f"pooling={self.pooling}, background={self.background}, absent={self.absent}, "
            f"smooth_numerator={self.smooth_numerator}, smooth_denominator={self.smooth_denominator}, "
            f"squared={self.squared}"
        )
        return text if self.over_classes == "mean" else f"{text}, over_classes=sum"

    def value(self, voxels: Voxels) -> Tensor:
        """Return the loss, a scalar."""
        intersection, mass, count = (self._pooled(sums) for sums in self._sums(voxels))
        counted = torch.ones_like(count) if self.absent == "count" else (count > 0).to(count.dtype)
        if voxels.labelled is not None:
            counted = counted * (self._pooled(voxels.labelled.to(count)) > 0)
        numerator, denominator = self._fraction(intersection, mass, count)
        # a skipped class divides by 1, since its own denominator may be 0 and 0/0 would survive the mask
        denominator = torch.where(counted > 0, denominator + self.smooth_denominator, 1.0)
        terms = counted * (1 - (numerator + self.smooth_numerator) / denominator)
        if self.over_classes == "sum":
            loss = terms.sum(dim=1).mean()
        elif self.absent == "skip_jointly":
            loss = terms.sum() / counted.sum().clamp(min=1)
        else:
            loss = (terms.sum(dim=1) / counted.sum(dim=1).clamp(min=1)).mean()
        return loss.to(voxels.logits.dtype)

    def _sums(self, voxels: Voxels) -> tuple[Tensor, Tensor, Tensor]:
        """Return the sums of p g, of p (or its square) and of g over voxels, each (N, C)."""
        mass = voxels.squared_masses if self.squared else voxels.masses
        return voxels.intersections, mass, voxels.counts

    def _fraction(self, intersection: Tensor, mass: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Return numerator and denominator of the coefficient, before smoothing."""
        return 2 * intersection, mass + count

    def _pooled(self, sums: Tensor) -> Tensor:
        """Return sums (N, C) over the classes averaged, and as (1, C) when the batch is one volume."""
        sums = sums if self.background else sums[:, 1:]
        return sum_over_devices(sums.sum(dim=0, keepdim=True)) if self.pooling == "batch" else sums
