"""Worker processes do not inherit the locks of their parent's libraries."""

from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
import torch

from hnlib.processes import process_pool


def read(path: str) -> float:
    stored = blosc2.open(path, mode="r")
    return float(torch.as_tensor(stored[:]).sum())


def test_a_pool_works_after_its_parent_has_used_threads(tmp_path: Path) -> None:
    """With a fork this waits for ever: blosc2 and torch have started their threads by then."""
    path = str(tmp_path / "ones.b2nd")
    blosc2.asarray(np.ones((64, 64, 64), np.float32), urlpath=path, cparams={"nthreads": 2})
    assert read(path) == 64**3
    torch.ones(256, 256) @ torch.ones(256, 256)
    with process_pool(1) as pool:
        assert pool.submit(read, path).result(timeout=120) == 64**3
