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
    index = torch.arange(values.shape[1], device=values.device)
    index_bits = values.shape[1].bit_length()
    rank = counts.long()
    # the bits of floats of at least 0 have the order of the floats; those up to 1 need 30, of doubles below 2 62
    if values.dtype == torch.float64:
        limit, rank = _race(values.view(torch.int64), 62, target, rank)
        bound = limit.gather(1, target)
        tied = values.view(torch.int64) == bound
        last, _ = _race(index.expand_as(target), index_bits, target, rank, tied)
        keep = (values.view(torch.int64) < bound) | (tied & (index <= last.gather(1, target)))
    else:
        key = (values.float().view(torch.int32).long() << index_bits) | index
        keep = key <= _race(key, 30 + index_bits, target, rank)[0].gather(1, target)
    return keep | (counts == 0).gather(1, target)


def _race(key: Tensor, bits: int, target: Tensor, rank: Tensor, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return of each class the key at its rank (N, C), and the rank that is left among the voxels of that key."""
    num_classes, size = rank.shape[1], 1 << DIGIT_BITS
    limit = torch.zeros_like(rank)
    # voxels out of the race add 0 here and there: all in one place would queue up
    idle = torch.arange(key.shape[1], device=key.device) % size
    for shift in reversed(range(0, bits, DIGIT_BITS)):
        racing = (key >> min(shift + DIGIT_BITS, 63)) == limit.gather(1, target)
        racing = racing if among is None else racing & among
        digit = torch.where(racing, (key >> shift) & (size - 1), idle)
        histogram = torch.zeros_like(limit).repeat(1, size)
        histogram = histogram.scatter_add_(1, target * size + digit, racing.long()).view(-1, num_classes, size)
        reached = histogram.cumsum(dim=2)
        chosen = (reached < rank.unsqueeze(2)).sum(dim=2)
        rank = rank - (reached - histogram).gather(2, chosen.clamp(max=size - 1).unsqueeze(2)).squeeze(2)
        limit = (limit << DIGIT_BITS) | chosen
    return limit, rank
