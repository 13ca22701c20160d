"""Which voxels are the hardest: an exact number of them, without sorting a volume."""

from __future__ import annotations

import math

import torch
from torch import Tensor

DIGIT_BITS = 10


def check_percent(percent: float) -> float:
    """Return a percentage; ValueError unless it is above 0 and at most 100."""
    if not isinstance(percent, int | float) or not 0 < percent <= 100:
        raise ValueError(f"percent is {percent!r}; a number above 0 and at most 100 is needed")
    return float(percent)


def kept_count(count: float, percent: float) -> int:
    """Return the K percent of a number of voxels, rounded up: 1 to all of them.

    Examples
    --------
    >>> kept_count(10, 30), kept_count(10, 31), kept_count(10, 1)
    (3, 4, 1)
    """
    # less a millionth of a voxel, since 33.3 * 1000 / 100 is a little more than 333 in floating point
    return max(1, math.ceil(count * percent / 100 - 1e-6))


def smallest(values: Tensor, count: int) -> Tensor:
    """Return where the `count` smallest values of each row lie, equal ones by index; NaN counts as smallest.

    Parameters
    ----------
    values
        Shape (..., V), without gradient.
    count
        1 to V.

    Returns
    -------
    Tensor
        Boolean, shape of `values`, with `count` true elements in each row without NaN.

    Examples
    --------
    >>> smallest(torch.tensor([0.5, 0.1, 0.5, 0.5]), 3)
    tensor([ True,  True,  True, False])
    """
    limit = values.kthvalue(count, dim=-1, keepdim=True).values
    ties = values == limit
    wanted = count - (values < limit).sum(dim=-1, keepdim=True)
    return ~(values > limit) & ~(ties & (ties.cumsum(dim=-1) > wanted))


def smallest_by_class(values: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Return where the smallest values among the voxels of each class lie, equal ones by index.

    Parameters
    ----------
    values
        Shape (N, V), 0 to 1, without gradient.
    target
        Label map (N, V).
    counts
        How many voxels of each class are kept, shape (N, C); at most as many as it has. 0 keeps all.

    Returns
    -------
    Tensor
        Boolean (N, V).

    Notes
    -----
    On a CPU each class's own voxels are picked out and its threshold is found among them. Elsewhere, and where
    torch.compile traces, sizes must not depend on labels, nor may the host wait: there the threshold of every class is
    found at once, digit by digit of the value's bits with the voxel's index behind them.
    """
    if values.device.type == "cpu" and not torch.compiler.is_compiling():
        return _by_picking(values, target, counts)
    return _by_digits(values, target, counts)


def _by_picking(values: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    keep = torch.ones_like(target, dtype=torch.bool)
    for kept, own, labels, row in zip(keep, values, target, counts.tolist(), strict=True):
        # where the background, most of a patch, is not ranked, it is passed over once and not once a class
        places = None if row[0] else labels.nonzero().squeeze(1)
        if places is not None:
            own, labels = own[places], labels[places]
        for label, count in enumerate(row):
            if count:
                index = (labels == label).nonzero().squeeze(1)
                kept[index if places is None else places[index]] = smallest(own[index], int(count))
    return keep


def _by_digits(values: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Radix selection: a histogram of one digit at a time among the voxels that agree in all earlier digits."""
    num_voxels, num_classes, size = values.shape[1], counts.shape[1], 1 << DIGIT_BITS
    index = torch.arange(num_voxels, device=values.device)
    index_bits = num_voxels.bit_length()
    # the bits of floats of at least 0 have the order of the floats; those up to 1 need 30
    key = (values.float().view(torch.int32).long() << index_bits) | index
    rank, limit = counts.long(), torch.zeros_like(counts, dtype=torch.int64)
    idle = index % size  # voxels out of the race add 0 here and there: all in one place would queue up
    for shift in reversed(range(0, 30 + index_bits, DIGIT_BITS)):
        racing = (key >> (shift + DIGIT_BITS)) == limit.gather(1, target)
        digit = torch.where(racing, (key >> shift) & (size - 1), idle)
        histogram = torch.zeros_like(limit).repeat(1, size)
        histogram = histogram.scatter_add_(1, target * size + digit, racing.long()).view(-1, num_classes, size)
        reached = histogram.cumsum(dim=2)
        chosen = (reached < rank.unsqueeze(2)).sum(dim=2)
        rank = rank - (reached - histogram).gather(2, chosen.clamp(max=size - 1).unsqueeze(2)).squeeze(2)
        limit = (limit << DIGIT_BITS) | chosen
    return (key <= limit.gather(1, target)) | (counts == 0).gather(1, target)
