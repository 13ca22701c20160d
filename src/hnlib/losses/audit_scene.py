"""What the audit shows to a loss: a label map with known organs, predictions of it, and a guarded call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]
Row = dict[str, Any]

SHAPE = (64, 64, 64)
#: Boxes (start, length along each axis) of the two organs: 8000 and 40 voxels, as far apart as glands and nerves.
LARGE_BOX = ((4, 20), (4, 20), (4, 20))
SMALL_BOX = ((40, 5), (40, 4), (40, 2))
CLASSES: Mapping[str, int] = {"background": 0, "large": 1, "small": 2, "absent": 3}
#: Mean lead of the true class's logit over the others, under noise of SD 0.5.
MARGINS: Mapping[str, float] = {"random": 0.0, "half-trained": 3.0, "trained": 6.0, "perfect": 30.0}


def make_target(num_classes: int = len(CLASSES)) -> Tensor:
    """Return the label map (1, X, Y, Z) with a large organ, a small one, and a class that is absent.

    A loss for three classes sees no class that is absent, one for two no small organ either.
    """
    target = torch.zeros((1, *SHAPE), dtype=torch.int64)
    for name, box in (("large", LARGE_BOX), ("small", SMALL_BOX)):
        if CLASSES[name] >= num_classes:
            continue
        x, y, z = (slice(start, start + length) for start, length in box)
        target[0, x, y, z] = CLASSES[name]
    return target


NOISE = 0.5


def make_logits(target: Tensor, margin: float, num_classes: int, seed: int) -> Tensor:
    """Return logits (N, C, X, Y, Z): noise, and `margin` more for the true class."""
    noise = NOISE * torch.randn(
        (len(target), num_classes, *target.shape[1:]), generator=torch.Generator().manual_seed(seed)
    )
    return noise.scatter_add_(1, target[:, None], torch.full_like(noise[:, :1], margin))


def one_hot(target: Tensor, num_classes: int) -> Tensor:
    """Return the labels as float32 (N, C, ...)."""
    return nn.functional.one_hot(target, num_classes).movedim(-1, 1).float()


def value(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    """Return the loss, a scalar with a graph, or say what is wrong with it.

    Raises
    ------
    ValueError
        When the call fails, or does not return one number that depends on the logits.
    """
    called = f"called with logits {tuple(logits.shape)} and labels {tuple(target.shape)}, class 0 the background"
    try:
        result = loss(logits, target)
    except Exception as error:  # whatever a stranger's loss raises is told in one line
        first = str(error).partition("\n")[0]
        raise ValueError(
            f"the loss raised {type(error).__name__} ({first}) when {called}; if it is for another number of classes, "
            "give num_classes; if it wants another form, audit a function that calls it, such as "
            "lambda logits, target: loss(logits, target[:, None])"
        ) from error
    if not isinstance(result, Tensor) or result.numel() != 1:
        given = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        raise ValueError(f"the loss returned {given} when {called}; one number, as a tensor, is needed")
    if not result.requires_grad:
        raise ValueError(f"the loss returned a number without gradient when {called}; keep the graph to the logits")
    return result.reshape(())


def gradient(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    """Return dL/dlogits (N, C, ...)."""
    logits = logits.detach().requires_grad_()
    (grad,) = torch.autograd.grad(value(loss, logits, target), logits, allow_unused=True)
    return torch.zeros_like(logits) if grad is None else grad
