"""Where a loss draws the line through voxels whose label differs from case to case."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from hnlib.losses.audit_scene import CLASSES, Loss, Row, value
from hnlib.losses.cross_entropy import CrossEntropy
from hnlib.losses.dice import DiceLoss
from hnlib.losses.topk_dice import TopKDiceLoss

SURE, AMBIGUOUS, BACKGROUND = 1000, 2000, 1000
CUT_SHAPE = (20, 20, 10)
BALL_SHAPE = torch.Size((16, 16, 16))
RADIUS_MM, JITTER_MM, REACH_MM = 10.0, 1.5, 16.0
STEPS, LAST = 300, 100
#: Logit of every class that plays no part.
OUT_OF_PLAY = -30.0


def cut(loss: Loss, num_classes: int, seed: int) -> Iterator[Row]:
    """Yield the label probability above which a voxel is called organ, and the volume called so over the true one.

    1000 voxels are always organ, 2000 are organ with probabilities spread evenly over 0 to 1, independently of each
    other and anew at each step, 1000 never. Each has a free logit, and the expected loss is minimised.
    """
    chance = torch.cat([torch.ones(SURE), (torch.arange(AMBIGUOUS) + 0.5) / AMBIGUOUS, torch.zeros(BACKGROUND)])
    starts = torch.rand(len(chance), generator=torch.Generator().manual_seed(seed))

    def draw(step: int) -> Tensor:
        return _even(starts, step).lt(chance)

    settled = _minimise(loss, chance, draw, CUT_SHAPE, num_classes)
    if not bool(settled.isfinite().all()):
        yield from (_row("ambiguous voxels", measure, math.nan) for measure in ("cut", "volume_ratio"))
        return
    called = settled[SURE : SURE + AMBIGUOUS] > 0
    found = 1 - float(called.float().mean())
    yield _row("ambiguous voxels", "cut", found, _expected_cut(loss, settled, draw(STEPS), num_classes))
    yield _row("ambiguous voxels", "volume_ratio", float((settled > 0).sum() / chance.sum()))


def ball(loss: Loss, num_classes: int, seed: int) -> Iterator[Row]:
    """Yield the volume of a ball, as predicted over true, whose radius differs from case to case.

    Radius 10 mm with an SD of 1.5 mm, in a ball of 16 mm; the logit is a free function of the distance from the
    centre, and the expected loss is minimised over cases. Beside it the label probability at the predicted surface.
    """
    inside = (torch.arange(BALL_SHAPE.numel()) + 0.5) / BALL_SHAPE.numel()  # share of the volume nearer to the centre
    distance = REACH_MM * inside ** (1 / 3)
    start = torch.rand(1, generator=torch.Generator().manual_seed(seed))

    def radius(step: int) -> Tensor:
        drawn: Tensor = torch.special.ndtri(_even(start, step))
        return RADIUS_MM + JITTER_MM * drawn

    chance = 0.5 * torch.erfc((distance - RADIUS_MM) / (JITTER_MM * 2**0.5))
    settled = _minimise(loss, chance, lambda step: distance < radius(step), BALL_SHAPE, num_classes)
    if not bool(settled.isfinite().all()):
        yield from (_row("jittered ball", measure, math.nan) for measure in ("cut", "volume_ratio"))
        return
    true = torch.stack([(radius(step) / REACH_MM) ** 3 for step in range(STEPS)]).mean()
    called = settled > 0
    yield _row("jittered ball", "cut", float(chance[called].min()) if bool(called.any()) else 1.0)
    yield _row("jittered ball", "volume_ratio", float(called.float().mean() / true))


def _even(starts: Tensor, step: int) -> Tensor:
    """Return numbers that fill 0 to 1 evenly over steps (multiples of the golden ratio): less noise than draws."""
    return (starts.double() + step * 0.6180339887498949).remainder(1).to(starts.dtype).clamp(1e-6, 1 - 1e-6)


def _minimise(
    loss: Loss, chance: Tensor, draw: Callable[[int], Tensor], shape: tuple[int, ...], num_classes: int
) -> Tensor:
    """Return the organ's free logits at the minimum of the expected loss: mean over the last steps of Adam.

    They start where cross-entropy would settle.
    """
    free = chance.logit(eps=0.01).requires_grad_()
    optimiser = torch.optim.Adam([free], lr=0.1, betas=(0.9, 0.95))
    total = torch.zeros_like(free)
    for step in range(STEPS):
        if step == STEPS - LAST:
            optimiser.param_groups[0]["lr"] = 0.03
        optimiser.zero_grad(set_to_none=True)
        value(loss, *_scene(free, draw(step), shape, num_classes)).backward()
        optimiser.step()
        if step >= STEPS - LAST:
            total += free.detach()
    return total / LAST


def _scene(free: Tensor, labels: Tensor, shape: tuple[int, ...], num_classes: int) -> tuple[Tensor, Tensor]:
    """Return logits (1, C, ...) with the organ's channel free and the background's 0, and labels (1, ...)."""
    organ = CLASSES["large"]
    channels = torch.full((num_classes, *shape), OUT_OF_PLAY).unbind()
    played = {CLASSES["background"]: torch.zeros(shape), organ: free.view(shape)}
    logits = torch.stack([played.get(k, one) for k, one in enumerate(channels)]).unsqueeze(0)
    return logits, (labels.long() * organ).view(1, *shape)


def _expected_cut(loss: Loss, settled: Tensor, labels: Tensor, num_classes: int) -> float | None:
    """Return the cut that theory gives: 1/2 for cross-entropy, half of the coefficient reached for Dice and topK Dice.

    For topK Dice it holds while voxels at the cut are kept whenever they are organ.
    """
    if type(loss) is CrossEntropy:
        return 0.5
    # with the background in, its coefficient pulls as well
    if type(loss) in (DiceLoss, TopKDiceLoss) and isinstance(loss, DiceLoss) and not loss.background:
        lost = float(loss(*_scene(settled, labels, CUT_SHAPE, num_classes)))
        divided = loss.absent == "count" and loss.over_classes == "mean"  # absent organs, not predicted, add 0
        return (1 - lost * (num_classes - 1 if divided else 1)) / 2
    return None


def _row(check: str, measure: str, found: float, analytic: float | None = None) -> Row:
    return {
        "check": check, "prediction": "settled", "class": "large", "measure": measure, "value": found,
        "analytic": analytic,
    }  # fmt: skip
