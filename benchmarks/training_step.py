"""One training step of the bench network, ours or MONAI's: ``python -m benchmarks.training_step ours 8``.

The network is MONAI's DynUNet from 16 channels (four levels, 1.4 million parameters) on two patches
of 64 x 48 x 64. Each side runs in a process of its own, because the allocator's settings are part of
what is compared; peers run as their documentation shows them. Prints one JSON line.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import median

import torch
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hnlib.losses import build_loss
from hnlib.networks.instance_norm import use_lean_instance_norm
from hnlib.training import choose_precision, keep_freed_memory

PATCH, BATCH, CLASSES, WARM_UP = (64, 48, 64), 2, 6, 2
FILTERS = (16, 32, 64, 128)


def bench_network() -> nn.Module:
    torch.manual_seed(0)
    strides = [1, 2, 2, 2]
    return DynUNet(3, 1, CLASSES, [3] * 4, strides, strides[1:], filters=FILTERS)


def time_steps(side: str, count: int) -> dict[str, float | str]:
    """Return the median seconds of a step. Sides: ours, ours_fp32, ours_loss (MONAI's set-up, our loss), monai."""
    network, precision = bench_network(), "32-true"
    image = torch.randn(BATCH, 1, *PATCH)
    target = torch.randint(0, CLASSES, (BATCH, *PATCH))
    loss: nn.Module = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    if side.startswith("ours"):
        keep_freed_memory()
        network = use_lean_instance_norm(network).to(memory_format=torch.channels_last_3d)
        image = image.contiguous(memory_format=torch.channels_last_3d)
        loss = build_loss("nnu_dice+ce")
        precision = choose_precision("auto") if side == "ours" else precision
    else:
        target = target[:, None]
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.99, nesterov=True)
    times = []
    for _ in range(WARM_UP + count):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            logits = network(image)
        loss(logits.float(), target).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - began)
    return {"seconds": median(times[WARM_UP:]), "precision": precision}


def operations() -> float:
    """Return the floating-point operations of one step, counted on the network itself."""
    network, image = bench_network(), torch.randn(BATCH, 1, *PATCH)
    with FlopCounterMode(display=False) as counter:
        network(image).sum().backward()
    return float(counter.get_total_flops())


def machine_rate(size: int = 1536, repeats: int = 8) -> float:
    """Return the operations a second of a float32 matrix product, the best of some: the floor to hold against."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = 0.0
    for _ in range(repeats):
        began = time.perf_counter()
        a @ b
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best


if __name__ == "__main__":
    print(json.dumps(time_steps(sys.argv[1], int(sys.argv[2]))))
