"""Probes of a loss: pull on organs, split of the batch, false positives of an absent class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hnlib.losses.audit_scene import (
    CLASSES,
    MARGINS,
    Loss,
    Row,
    gradient,
    make_logits,
    make_target,
    one_hot,
    value,
)  # fmt: skip
from hnlib.losses.closed_forms import analytic_gradient

#: Voxels' worth of probability that is given to the absent class.
MASSES = (1e-6, 1e-3, 1.0, 100.0)
#: Probability of a class where a prediction is hard: as near to 0 as float32 logits express without infinity.
NOTHING = 1e-30


def gradients(loss: Loss, num_classes: int, seed: int) -> Iterator[Row]:
    """Yield what the loss does to each class's logits, at each stage of training.

    ``gradient_norm``: over all voxels. ``pull``: -sum of dL/dz_k over the voxels of class k. ``push``: sum of
    dL/dz_k over all others. ``pull_ratio``: pull of the large organ over that of the small one.
    """
    target = make_target(num_classes)
    for stage, margin in MARGINS.items():
        logits = make_logits(target, margin, num_classes, seed)
        closed = analytic_gradient(loss, logits, target)
        found = [_by_class(grad, target) for grad in (gradient(loss, logits, target), closed) if grad is not None]
        for name in found[0]:
            for measure in ("gradient_norm", "pull", "push"):
                if (name, measure) != ("absent", "pull"):
                    yield _row("gradient", stage, name, measure, *(one[name][measure] for one in found))
        # of a perfect prediction it would be a ratio of roundings, and a pull of 0 is warned of
        if stage == "perfect" or "small" not in found[0] or any(one["small"]["pull"] == 0 for one in found):
            continue
        ratios = [one["large"]["pull"] / one["small"]["pull"] for one in found]
        yield _row("gradient", stage, "large : small", "pull_ratio", *ratios)


def batch_split(loss: Loss, num_classes: int, seed: int) -> Iterator[Row]:
    """Yield the loss of a batch and the mean of its samples' losses.

    Three samples: all organs, the large one alone, background alone.
    """
    whole = make_target(num_classes)[:, ::2, ::2, ::2]
    target = torch.cat([whole, whole * (whole == CLASSES["large"]), torch.zeros_like(whole)])
    logits = make_logits(target, MARGINS["half-trained"], num_classes, seed).requires_grad_()
    together = float(value(loss, logits, target).detach())
    alone = [float(value(loss, logits[i : i + 1], target[i : i + 1]).detach()) for i in range(len(target))]
    yield _row("batch split", "half-trained", "all", "loss_of_batch", together)
    yield _row("batch split", "half-trained", "all", "mean_of_samples", sum(alone) / len(alone))
    for name, one in zip(("large and small", "large", "background"), alone, strict=True):
        yield _row("batch split", "half-trained", name, "loss_of_sample", one)


def false_positives(loss: Loss, num_classes: int) -> Iterator[Row]:
    """Yield what probability given to a class that is absent costs; all else is predicted perfectly.

    The absent class is the fourth; for a loss of fewer classes it is the last, whose organ is then left out. The
    probability is taken from the background: spread over all of its voxels (``soft``, no voxel is called the
    absent class), or whole voxels are called it (``hard``). ``cost``: loss above that of exactly none. ``slope``:
    dL/dP, P the absent class's mass in voxels. ``slope_in_ce``: the same in units of that of mean cross-entropy.
    """
    absent = min(CLASSES["absent"], num_classes - 1)
    target = make_target(absent)
    voxels = (target == CLASSES["background"]).flatten().nonzero().flatten()
    few = voxels[:: len(voxels) // int(max(MASSES))][: int(max(MASSES))]
    probs = one_hot(target, num_classes).unbind(1)
    nothing, _ = _absent_class(loss, target, probs, absent, 0.0, voxels)
    for mass in MASSES:
        places = {"soft": voxels} if mass < 1 else {"soft": voxels, "hard": few[: int(mass)]}
        for kind, where in places.items():
            cost, slope = _absent_class(loss, target, probs, absent, mass, where)
            name = f"P = {mass:g}"
            yield _row("false positive", kind, name, "cost", cost - nothing)
            if kind == "soft":
                yield _row("false positive", kind, name, "slope", slope)
                yield _row(
                    "false positive", kind, name, "slope_in_ce", slope * target.numel() * (1 - mass / len(voxels))
                )


def _by_class(grad: Tensor, target: Tensor) -> dict[str, dict[str, float]]:
    found = {}
    for name, label in CLASSES.items():
        if label >= grad.shape[1]:
            continue
        own, inside = grad[:, label].double(), target == label
        found[name] = {
            "gradient_norm": float(own.norm()),
            "pull": -float(own[inside].sum()),
            "push": float(own[~inside].sum()),
        }
    return found


def _absent_class(
    loss: Loss, target: Tensor, probs: Sequence[Tensor], absent: int, mass: float, where: Tensor
) -> tuple[float, float]:
    """Return loss and dL/dP where the absent class has `mass`, in equal parts at the voxels `where`."""
    given = torch.tensor(float(mass), requires_grad=True)
    part = torch.zeros(target.numel()).index_fill(0, where, 1 / len(where)).view(1, *target.shape[1:])
    moved = given * part
    split = {CLASSES["background"]: probs[0] - moved, absent: moved}
    logits = torch.stack([split.get(k, one) for k, one in enumerate(probs)], dim=1).clamp(min=NOTHING).log()
    lost = value(loss, logits, target)
    (slope,) = torch.autograd.grad(lost, given)
    return float(lost.detach()), float(slope)


def _row(check: str, prediction: str, name: str, measure: str, found: float, analytic: float | None = None) -> Row:
    return {
        "check": check, "prediction": prediction, "class": name, "measure": measure, "value": found,
        "analytic": analytic,
    }  # fmt: skip
