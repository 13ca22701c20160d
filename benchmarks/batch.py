"""A batch of noise that is ready: nothing but the step takes time."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.sizes import BATCH, CLASSES, Size


def random_batch(size: Size) -> tuple[Tensor, Tensor]:
    """Return images (N, 1, X, Y, Z) and targets (N, X, Y, Z)."""
    torch.manual_seed(0)
    return torch.randn(BATCH, 1, *size.patch), torch.randint(0, CLASSES, (BATCH, *size.patch))


class ReadyBatch:
    """A stream whose batch is always the same one."""

    def __init__(self, size: Size) -> None:
        self._batch = random_batch(size)

    def batch(self, _step: int, _rank: int = 0, _world_size: int = 1) -> tuple[Tensor, ...]:
        return self._batch
