"""Tversky loss: Dice with a price of its own for false positives and false negatives."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from hnlib.losses.dice import DiceLoss


class TverskyLoss(DiceLoss):
    r"""One minus the Tversky index, averaged over classes.

    Parameters
    ----------
    alpha, beta
        Weights of false positives and of false negatives, at least 0 and not both 0. With 1/2 and 1/2 the index
        is the Dice coefficient.
    **switches
        ``pooling``, ``background``, ``absent``, ``smooth_numerator``, ``smooth_denominator``,
        ``over_classes`` of `DiceLoss`.

    Raises
    ------
    ValueError
        When an argument is outside the values named above.

    Notes
    -----
    .. math:: T = \frac{\sum p g + a}{\sum p g + \alpha \sum p (1 - g) + \beta \sum (1 - p) g + e}

    Salehi et al. 2017, who use 0.3 and 0.7. MONAI's TverskyLoss is the same with absent classes counted. The
    smoothing stands beside one :math:`\sum p g`, in `DiceLoss` beside two.

    Examples
    --------
    Two voxels, background and organ, both predicted with one half: T = 0.5 / (0.5 + 0.3 * 0.5 + 0.7 * 0.5).

    >>> import torch
    >>> loss = TverskyLoss(smooth_numerator=0)
    >>> round(float(loss(torch.zeros(1, 2, 2), torch.tensor([[0, 1]]))), 4)
    0.5
    """

    def __init__(self, *, alpha: float = 0.3, beta: float = 0.7, **switches: Any) -> None:
        if switches.get("squared"):
            raise ValueError("squared is True; the Tversky index has no squared form here, use DiceLoss")
        super().__init__(**switches)
        for name, number in (("alpha", alpha), ("beta", beta)):
            if not isinstance(number, int | float) or not 0 <= number < math.inf:
                raise ValueError(f"{name} is {number!r}; a finite number of at least 0 is needed")
        if alpha == beta == 0:
            raise ValueError("alpha and beta are both 0: no error would cost anything; make one positive")
        self.alpha = alpha
        self.beta = beta

    def extra_repr(self) -> str:
        """Return the settings, for printing the module."""
        return f"alpha={self.alpha}, beta={self.beta}, {super().extra_repr()}"

    def _fraction(self, intersection: Tensor, mass: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        false = self.alpha * (mass - intersection) + self.beta * (count - intersection)
        return intersection, intersection + false
