"""One training step of the bench network: ours, or MONAI's as its documentation shows it.

Beside MONAI the network is its DynUNet with one head. Beside nnU-Net it is the library's own with deep
supervision, trained by `hnlib.training.train` itself: its optimiser, clipping and loop are in the time.
"""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet
from torch import nn

from benchmarks.batch import ReadyBatch, random_batch
from benchmarks.process import Found, need, now
from benchmarks.sizes import CLASSES, SIZES, WARM_UP, Size
from hnlib.losses import DeepSupervision, build_loss
from hnlib.networks import build_network
from hnlib.networks.cpu import fit_for_cpu
from hnlib.training import Settings, choose_precision, keep_freed_memory, train

Precision = Literal["bf16-mixed", "32-true"]


def dynunet(size: Size) -> nn.Module:
    torch.manual_seed(0)
    strides = [1] + [2] * (size.levels - 1)
    return DynUNet(3, 1, CLASSES, [3] * size.levels, strides, strides[1:], filters=size.filters)


def beside_monai(side: str, size: str, device: str = "cpu", compiled: bool = False) -> Found:
    """Return the median seconds of a step. Sides: ours (bfloat16 where there is some), ours_fp32, monai."""
    need(device)
    big, precision = SIZES[size], "32-true"
    network, (image, target) = dynunet(big).to(device), (part.to(device) for part in random_batch(big))
    loss: nn.Module = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    if side.startswith("ours"):
        keep_freed_memory()
        network = fit_for_cpu(network).to(memory_format=torch.channels_last_3d)
        image = image.contiguous(memory_format=torch.channels_last_3d)
        loss = build_loss("nnu_dice+ce")
        precision = choose_precision("auto") if side == "ours" else precision
    else:
        target = target[:, None]
    if compiled:
        network.compile()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.99, nesterov=True)
    times = []
    for _ in range(WARM_UP + big.steps):
        began = now(device)
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed"):
            logits = network(image)
        loss(logits.float(), target).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        times.append(now(device) - began)
    return {"seconds": median(times[WARM_UP:]), "note": precision}


def ours(size: str, precision: Precision = "32-true", device: str = "cpu", compiled: bool = False) -> Found:
    """Return the median seconds of a step of the library's loop on a batch that is ready."""
    need(device, precision)
    ends = step_ends(SIZES[size], ReadyBatch(SIZES[size]), precision, device, compiled=compiled)
    return {"seconds": median(between(ends)), "note": precision}


def step_ends(
    size: Size, stream: Any, precision: Precision, device: str, *, classes: int = CLASSES, compiled: bool = False
) -> list[float]:
    """Return the times at which the steps of a training ended; the last one, which writes the checkpoint, left out."""
    torch.manual_seed(0)
    network = build_network("dynunet", size.topology, classes, width=size.width)
    if compiled:
        network.compile()
    ends: list[float] = []
    count = WARM_UP + size.steps + 1
    settings = Settings(
        steps=count, optimiser="sgd", learning_rate=0.01, schedule="poly", validate_every=count, checkpoint_every=count
    )
    with tempfile.TemporaryDirectory() as folder:
        train(
            network,
            DeepSupervision(build_loss("nnu_dice+ce")),
            stream,
            settings,
            fabric=Fabric(accelerator=device, devices=1, precision=precision),
            checkpoint=Path(folder) / "checkpoint.pt",
            identity={},
            report=lambda _done, _loss, _seconds: ends.append(now(device)),
        )
    return ends[:-1]


def between(ends: list[float]) -> list[float]:
    """Return the seconds of each step after the warm-up."""
    return [after - before for before, after in pairwise(ends[WARM_UP - 1 :])]
