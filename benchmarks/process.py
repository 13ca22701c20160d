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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hnlib.experiments.run import hardware

NO_GPU = "this machine has no accelerator"
ROOT = Path(__file__).resolve().parents[1]
Found = dict[str, Any]


class NotMeasuredError(Exception):
    """Says why something is not measured on this machine."""


def call(function: str, given: Mapping[str, Any]) -> Found:
    """Call ``module:function`` here; return what it found, the hardware and the peak memory of this process."""
    module, _, name = function.partition(":")
    try:
        found: Found = getattr(importlib.import_module(module), name)(**given)
    except NotMeasuredError as reason:
        return {"not_measured": str(reason)}
    return {**found, "peak_mib": peak_mib(), "hardware": hardware()}


def measure(function: str, given: Mapping[str, Any], device: str = "cpu") -> Found:
    """Do `call` in a fresh process that sees no GPU unless the device is one."""
    if device == "cuda" and not torch.cuda.is_available():
        return {"not_measured": NO_GPU}
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
    print(json.dumps(call(sys.argv[1], json.loads(sys.argv[2]))))
