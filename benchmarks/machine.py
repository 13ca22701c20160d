"""What this machine can do at most: the floor to hold a step against."""

from __future__ import annotations

import torch

from benchmarks.process import Found, need, now
from benchmarks.sizes import SIZES


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
