"""Each thing is measured in a process of its own: allocator settings, caches and peak memory are its own.

``python -m benchmarks.process benchmarks.training_step:ours '{"size": "full"}'`` prints one JSON line.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NO_GPU = "this machine has no accelerator"
ROOT = Path(__file__).resolve().parents[1]
Found = dict[str, Any]


class NotMeasuredError(Exception):
    """Says why something is not measured on this machine."""


def need(device: str = "cpu", precision: str = "32-true") -> None:
    """Raise `NotMeasuredError` where the machine lacks the device, or multiplies in bfloat16 only by detours."""
    if device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise NotMeasuredError(NO_GPU)
    if precision == "bf16-mixed":
        from hnlib.training import choose_precision

        if choose_precision("auto") != precision:
            raise NotMeasuredError("this machine has no bfloat16 arithmetic")


def now(device: str = "cpu") -> float:
    """Return the time when the device has done what it was told."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


def call(function: str, given: Mapping[str, Any]) -> Found:
    """Call ``module:function`` here; return what it found, the hardware and the peak memory of this process."""
    module, _, name = function.partition(":")
    try:
        found: Found = getattr(importlib.import_module(module), name)(**given)
    except NotMeasuredError as reason:
        return {"not_measured": str(reason)}
    found["peak_mib"] = peak_mib()
    from hnlib.experiments.run import hardware  # after the peak: it brings libraries that a peer has not

    return {**found, "hardware": hardware()}


def measure(function: str, given: Mapping[str, Any], device: str = "cpu") -> Found:
    """Do `call` in a fresh process that sees no GPU unless the device is one."""
    try:
        need(device)
    except NotMeasuredError as reason:
        return {"not_measured": str(reason)}
    command = [sys.executable, "-m", "benchmarks.process", function, json.dumps(given)]
    hidden = {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    paths = os.pathsep.join(part for part in (str(ROOT / "src"), os.environ.get("PYTHONPATH", "")) if part)
    environment = {**os.environ, **hidden, "PYTHONPATH": paths}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    if done.returncode:
        raise RuntimeError(f"{function} {given} failed:\n{done.stderr[-2000:]}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_mib() -> float:
    """Return the most memory that this process had resident.

    `resource` gives a child of a large process that one's peak, so Linux is asked for the program's own.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return round(int(line.split()[1]) / 1024, 1)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (2**20 if sys.platform == "darwin" else 2**10), 1)


if __name__ == "__main__":
    from benchmarks import process  # this file by its own name: `__main__` has another NotMeasuredError

    print(json.dumps(process.call(sys.argv[1], json.loads(sys.argv[2]))))
