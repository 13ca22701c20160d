"""What the data cost a training: reading patches, changing them, and how long the loop waits for them."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from statistics import mean

from torch import Tensor

from benchmarks.batch import ReadyBatch
from benchmarks.process import Found
from benchmarks.sizes import BATCH, CACHED, SIZES, WARM_UP, Size
from benchmarks.training_step import between, step_ends
from hnlib.augmentation import augmentation
from hnlib.cache import open_prepared
from hnlib.patches import PatchStream
from hnlib.sampling import centre_rule
from hnlib.training import choose_precision

BATCHES = 40


def patches(folder: str, size: str) -> Found:
    """Time a batch read from the cache as it is, and with nnU-Net's changes; nothing else runs meanwhile."""
    found = {}
    for changes, key in (("none", "read_seconds"), ("nnunet", "changed_seconds")):
        stream = _Watched(_stream(Path(folder), SIZES[size], changes))
        for step in range(BATCHES):
            stream.batch(step)
        found[key] = sum(stream.took) / BATCHES  # the mean: a change happens to some patches and costs then
    return {**found, "seconds": found["changed_seconds"] - found["read_seconds"]}


def waiting(folder: str, size: str, steps: int = 12) -> Found:
    """Time the loop on augmented patches and on a batch that is ready, and how long it waits for patches.

    The loop asks for the batch of a step when the step before has ended; what is made later is waited for.
    """
    big, precision = replace(SIZES[size], steps=max(steps, SIZES[size].steps)), choose_precision("auto")
    classes = len(big.plan.organs) + 1
    ready = between(step_ends(big, ReadyBatch(big), precision, "cpu", classes=classes))
    stream = _Watched(_stream(Path(folder), big, "nnunet"))
    ends = step_ends(big, stream, precision, "cpu", classes=classes)
    waits = [max(0.0, made - ended) for ended, made in zip(ends, stream.made[1:], strict=False)][WARM_UP:]
    return {
        "seconds": mean(between(ends)),
        "ready_seconds": mean(ready),
        "wait_seconds": mean(waits),
        "note": precision,
    }


class _Watched:
    """A stream that notes how long each batch took, and when it was made."""

    def __init__(self, stream: PatchStream) -> None:
        self._stream = stream
        self.took: list[float] = []
        self.made: list[float] = []

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, ...]:
        began = time.perf_counter()
        batch = self._stream.batch(step, rank, world_size)
        self.made.append(time.perf_counter())
        self.took.append(self.made[-1] - began)
        return batch


def _stream(folder: Path, size: Size, changes: str) -> PatchStream:
    case, rule = open_prepared(folder / CACHED), centre_rule("nnunet")
    return PatchStream([case], size.plan, rule, size.patch, 0, batch_size=BATCH, changes=augmentation(changes))
