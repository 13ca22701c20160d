"""One training step, and the prediction of one case, of FocusNet and of SERes U-Net, at one width and patch."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.batch import random_batch
from benchmarks.process import Found, now
from benchmarks.sizes import CLASSES, SIZES, WARM_UP, Size
from hnlib.inference import predict_probabilities
from hnlib.losses import build_loss
from hnlib.networks import FocusNet, build_focusnet, build_network
from hnlib.systems import FocusLoss, FocusPredictor, HeatLoss, RoiLoss
from hnlib.training import keep_freed_memory

#: Label values of the small organs; the ROI is half of the patch along each axis.
SMALL = (2, 3, 4)
SPACING_MM = (2.0, 2.0, 2.5)
#: Edges of the scan that is predicted over those of the patch.
CASE = 2


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


def case(network: str, size: str) -> Found:
    """Return the seconds for a scan of `CASE` patches along each axis: the gate open, so that all networks run."""
    torch.manual_seed(0)
    big = SIZES[size]
    built, _ = NETWORKS[network](big)
    image = np.random.default_rng(0).normal(size=[CASE * edge for edge in big.patch]).astype(np.float32)
    predict: Callable[[Any], Any] = partial(predict_probabilities, built, patch_size=big.patch)
    if isinstance(built, FocusNet):
        predict = FocusPredictor(built, big.patch, gate=0.0)
    began = now()
    predict(image)
    return {"seconds": now() - began, "note": f"{' x '.join(map(str, image.shape))} voxels"}
