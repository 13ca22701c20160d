"""Work on many cases in several processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

#: Cases at a time where nothing else is asked for: two, as each process holds a whole scan.
WORKERS = max(1, min(2, os.cpu_count() or 1))


def process_pool(workers: int, initializer: Callable[[], object] | None = None) -> ProcessPoolExecutor:
    """Return a pool of fresh processes.

    They are started anew on every system: a fork of a process whose libraries have started threads
    (blosc2 after one read, torch after one step) inherits their locks and may wait for ever.
    A script that uses it needs ``if __name__ == "__main__":``.
    """
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=initializer)
