"""What this machine can do at most: the floor to hold a step against."""

from __future__ import annotations

import time

import torch

from benchmarks.process import NO_GPU, Found, NotMeasuredError
from benchmarks.sizes import SIZES
from hnlib.training import choose_precision


def need(device: str = "cpu", precision: str = "32-true") -> None:
    """Raise `NotMeasuredError` where the machine lacks the device, or multiplies in bfloat16 only by detours."""
    if device == "cuda" and not torch.cuda.is_available():
        raise NotMeasuredError(NO_GPU)
    if precision == "bf16-mixed" and choose_precision("auto") != precision:
        raise NotMeasuredError("this machine has no bfloat16 arithmetic")


def matrix_rate(size: str, device: str = "cpu", precision: str = "32-true", repeats: int = 8) -> Found:
    """Return operations a second of a matrix product, the best of some."""
    need(device, precision)
    torch.backends.cuda.matmul.allow_tf32 = True  # as convolutions may by default
    side = SIZES[size].matrix
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(repeats):
        began = now(device)
        a @ b
        best = max(best, 2 * side**3 / (now(device) - began))
    return {"rate": best}


def now(device: str) -> float:
    """Return the time when the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
