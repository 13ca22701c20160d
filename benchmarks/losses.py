"""Losses beside MONAI's DiceCELoss: forward and backward on logits that are ready, seconds and peak memory.

Both sides take turns in one process, so that a machine that slows down meets both. Memory is measured in a
process for each side: how far its resident memory rises over what it is when the inputs lie there. That counts
the gradient, and the pages that the allocator fetches; on a GPU it is the peak of torch's own allocator.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from monai.losses import DiceCELoss
from torch import Tensor

from benchmarks.process import Found, NotMeasuredError, need, now
from benchmarks.sizes import LOGITS, WARM_UP
from hnlib.errors import ConfigError
from hnlib.losses import build_loss

#: Each loss with the background of MONAI's: in for ca-Dice, out for the others, as each of ours has it.
LOSSES = {"nnu_dice+ce": False, "ca_dice+ce": True, "topk_dice+ce": False}
REPEATS = {"full": 9, "tiny": 1}
Step = Callable[[], Any]


def make_inputs(shape: tuple[int, ...], device: str) -> tuple[Tensor, Tensor]:
    """Return logits (N, C, X, Y, Z) and labels in which each organ is a box a quarter as long as the patch.

    The organs fill 11 % of the patch at eight classes, as they do in patches around organs.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator)
    target = torch.zeros(shape[0], *shape[2:], dtype=torch.int64)
    boxes = product(range(2), repeat=3)
    for label, corner in zip(range(1, shape[1]), boxes, strict=False):
        place = [slice(c * n // 2, c * n // 2 + -(-n // 4)) for c, n in zip(corner, shape[2:], strict=True)]
        target[:, place[0], place[1], place[2]] = label
    return logits.to(device).requires_grad_(), target.to(device)


def make_step(side: str, loss: str, logits: Tensor, target: Tensor, *, compiled: bool = False) -> Step:
    """Return a call that does forward and backward once. Sides: ours, monai."""
    if side == "monai":
        # batch=True is nnU-Net's Dice; the sums of MONAI cost the same either way
        batch = loss.startswith("nnu")
        theirs = DiceCELoss(include_background=LOSSES[loss], to_onehot_y=True, softmax=True, batch=batch)
        given, module = target[:, None], theirs
    else:
        try:
            given, module = target, build_loss(loss)
        except ConfigError as error:
            raise NotMeasuredError(str(error).split(":")[0]) from error
    if compiled:
        module.compile()

    def step() -> None:
        logits.grad = None
        module(logits, given).backward()

    return step


def seconds(loss: str, volume: str, size: str, device: str = "cpu", compiled: bool = False) -> Found:
    """Return the median seconds of a step of ours and of MONAI's, measured in turn."""
    need(device)
    inputs = make_inputs(LOGITS[size][volume], device)
    steps = {"seconds": make_step("ours", loss, *inputs, compiled=compiled)}
    steps["peer_seconds"] = make_step("monai", loss, *inputs)
    times: dict[str, list[float]] = {key: [] for key in steps}
    for _ in range(WARM_UP + REPEATS[size]):
        for key, step in steps.items():
            began = now(device)
            step()
            times[key].append(now(device) - began)
    return {key: median(some[WARM_UP:]) for key, some in times.items()}


def memory(side: str, loss: str, volume: str, size: str, device: str = "cpu") -> Found:
    """Return the MiB by which one step lifts the peak over the memory held when the inputs are made."""
    need(device)
    # code and thread pools are loaded by a small step, which leaves no memory worth counting
    make_step(side, loss, *make_inputs(LOGITS["tiny"][""], device))()
    step = make_step(side, loss, *make_inputs(LOGITS[size][volume], device))
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return {"mib": (torch.cuda.max_memory_allocated() - before) / 2**20}
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        raise NotMeasuredError("the peak of one step can be read on Linux only")
    reset.write_text("5")  # the peak starts anew at what is resident now
    before = _status_kib("VmRSS")
    step()
    return {"mib": (_status_kib("VmHWM") - before) / 2**10}


def _status_kib(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))
