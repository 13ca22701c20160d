"""Weights of classes: from numbers, or from how often each class occurs in the training cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hnlib.losses.softmax import Voxels

Numbers = Sequence[float] | float


def rarity_weights(class_voxels: Numbers, *, power: float = 1.0, clip: float = 50.0) -> tuple[float, ...]:
    r"""Return a weight for each class that grows as the class becomes rare.

    Parameters
    ----------
    class_voxels
        Voxels of each class in the training cases, background first, or anything proportional to them.
    power
        1 as printed; 1/2 tempers.
    clip
        Largest weight; infinity for the literal equation. A class without a voxel has this weight.

    Returns
    -------
    tuple of float
        With n voxels of a class and N of all,

        .. math:: \omega = \min\left(\left(\frac{N - n}{n}\right)^{power}, clip\right)

    Raises
    ------
    ValueError
        When a count is negative, fewer than two are positive, or power or clip is not positive.

    Notes
    -----
    Pu et al. 2020 (coarse to fine), Eq. 2, from labels: the print has the predicted values in it, with which all
    weights are equal at first and those of classes that are rarely predicted grow without bound later. Even so
    the literal weights are extreme. Where a voxel is organ with probability q, weighted cross-entropy is least at a
    prediction proportional to :math:`\omega q`: with an organ in 1 of 100,000 voxels every voxel with
    :math:`q > 4 \times 10^{-8}` is called organ. Hence the clip.

    Examples
    --------
    >>> rarity_weights([900, 90, 10])  # 100/900, 910/90 and 990/10, the last clipped
    (0.1111111111111111, 10.11111111111111, 50.0)
    """
    counts = _counts(class_voxels)
    for name, number in (("power", power), ("clip", clip)):
        if not isinstance(number, int | float) or not number > 0:
            raise ValueError(f"{name} is {number!r}; a number above 0 is needed")
    total = sum(counts)
    return tuple(min(((total - n) / n) ** power if n else math.inf, float(clip)) for n in counts)


def inverse_size_weights(class_voxels: Numbers, *, power: float = 0.5) -> tuple[float, ...]:
    r"""Return :math:`n^{-power}` for the n voxels of each class, scaled to a mean of 1.

    Parameters
    ----------
    class_voxels
        Voxels of each class in the training cases, background first, or anything proportional to them.
    power
        1 is "inversely proportional to the average size" (Gao et al. 2019, Eq. 1), 0 gives equal weights. They do
        not say how the background, a thousand times larger, is meant, and set their second version's weights by
        hand at 0.5 to 8; 1/2 comes nearer to those.

    Returns
    -------
    tuple of float
        A class without a voxel has the largest weight of the others.

    Raises
    ------
    ValueError
        When a count is negative, fewer than two are positive, or power is negative.

    Examples
    --------
    >>> inverse_size_weights([400, 100])  # 1/20 and 1/10
    (0.6666666666666666, 1.3333333333333333)
    """
    counts = _counts(class_voxels)
    if not isinstance(power, int | float) or not 0 <= power < math.inf:
        raise ValueError(f"power is {power!r}; a finite number of at least 0 is needed")
    raw = [(n or min(filter(None, counts))) ** -power for n in counts]
    return tuple(weight * len(raw) / sum(raw) for weight in raw)


def _counts(class_voxels: Numbers) -> tuple[float, ...]:
    counts = checked_weights("class_voxels", class_voxels)
    if sum(n > 0 for n in counts) < 2:
        raise ValueError(f"class_voxels are {counts}; at least two classes with voxels are needed, background first")
    return counts


def checked_weights(name: str, numbers: Numbers) -> tuple[float, ...]:
    """Return numbers, one a class, as floats; ValueError where one is negative or not finite, or where all are 0."""
    if isinstance(numbers, str):
        raise ValueError(f"{name} are '{numbers}'; one number a class is needed, in a loss's name such as 1/4/4")
    found = tuple(float(n) for n in ((numbers,) if isinstance(numbers, int | float) else numbers))
    if not all(0 <= n < math.inf for n in found) or not any(found):
        raise ValueError(f"{name} are {found}; one finite number of at least 0 a class, not all 0, is needed")
    return found


def needed(class_voxels: Numbers | None) -> Numbers:
    """Return the voxels of the classes; ValueError where they are not given."""
    if class_voxels is None:
        raise ValueError("weights or class_voxels are needed: one number a class, background first, such as 1/4/4")
    return class_voxels


class ClassWeights(nn.Module):
    """One number a class, kept as a buffer so that it moves to a device with the loss."""

    numbers: Tensor
    # nn.Module declares __call__ as Any; callers deserve the signature
    __call__: Callable[..., Tensor]

    def __init__(self, weights: Numbers) -> None:
        super().__init__()
        numbers = torch.tensor(checked_weights("weights", weights), dtype=torch.float64)
        self.register_buffer("numbers", numbers, persistent=False)

    def extra_repr(self) -> str:
        """Return the numbers, for printing the module."""
        return "/".join(f"{n:.4g}" for n in self.numbers.tolist())

    def forward(self, voxels: Voxels, values: Tensor) -> Tensor:
        """Return the sum of values (N, V) over the voxels of each class times the class's weight, a scalar."""
        if len(self.numbers) != voxels.num_classes:
            raise ValueError(
                f"there are {len(self.numbers)} class weights but logits have {voxels.num_classes} classes; "
                "one weight a class, background first, is needed"
            )
        sums = voxels.sum_by_class(values)
        return (sums * self.numbers.to(sums, non_blocking=True)).sum()
