"""One training step of FocusNet's stages and of SERes U-Net, at one width, patch and batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.batch import random_batch
from benchmarks.process import Found
from benchmarks.sizes import CLASSES, SIZES, WARM_UP, Size
from hnlib.losses import build_loss
from hnlib.networks import build_focusnet, build_network
from hnlib.systems.focusnet_losses import FocusLoss, HeatLoss, RoiLoss
from hnlib.training import keep_freed_memory

#: Label values of the small organs; the ROI is half of the patch along each axis.
SMALL = (2, 3, 4)
SPACING_MM = (2.0, 2.0, 2.5)


def seres_unet(size: Size) -> tuple[nn.Module, Callable[..., Any]]:
    depth = min(4, size.levels - 1)
    network = build_network("seres_unet", size.topology, CLASSES, width=size.width, downsamplings=depth)
    return network, _main()


def s_net(size: Size) -> tuple[nn.Module, Callable[..., Any]]:
    return build_network("snet", size.topology, CLASSES, width=size.width), _main()


def joint(size: Size) -> tuple[nn.Module, Callable[..., Any]]:
    x, y, z = (edge // 2 for edge in size.patch)
    network = build_focusnet(size.topology, CLASSES, SMALL, [(x, y, z)] * len(SMALL), width=size.width)
    losses = [build_loss("weighted_focal+gao_dice", class_voxels=(9, 1)) for _ in SMALL]
    return network.train_stage("joint"), FocusLoss(RoiLoss(losses, SMALL), _main(), HeatLoss(SMALL, SPACING_MM))


def _main() -> nn.Module:
    return build_loss("weighted_focal+gao_dice", class_voxels=(1,) * CLASSES)


NETWORKS = {"seres_unet": seres_unet, "s_net": s_net, "focusnet": joint}


def step(network: str, size: str) -> Found:
    """Return the median seconds of a step, forward, backward and optimiser, of one of `NETWORKS`."""
    keep_freed_memory()
    torch.manual_seed(0)
    big = SIZES[size]
    built, loss = NETWORKS[network](big)
    image, target = random_batch(big)
    image = image.contiguous(memory_format=torch.channels_last_3d)
    optimiser = torch.optim.AdamW(built.parameters())
    times = []
    for _ in range(WARM_UP + big.steps):
        began = time.perf_counter()
        loss(built(image), target).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - began)
    return {"seconds": median(times[WARM_UP:]), "note": f"{sum(p.numel() for p in built.parameters())} parameters"}
