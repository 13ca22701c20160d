"""What each stage of coarse to fine takes for a case and keeps in a training step, beside a DynUNet as wide."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.memory import kept_bytes
from benchmarks.process import Found, now
from hnlib.inference import predict_probabilities
from hnlib.networks import build_network, plan_topology
from hnlib.systems.coarse_to_fine import VIEWS, OrganBoxes, combine, fuse, outline, view_logits
from hnlib.training import channels_last

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Case:
    """The volume, the fixed boxes of its organs, the width of the networks, and the patch of the DynUNet."""

    volume: Triple
    boxes: tuple[Triple, ...]
    width: int
    patch: Triple
    rounds: int


#: ``full`` is OpenKBP's crop on its isotropic grid with boxes of about its five organs.
CASES = {
    "full": Case(
        (64, 88, 112), ((24, 24, 32), (24, 32, 96), (24, 32, 40), (24, 32, 40), (48, 40, 40)), 8, (24, 32, 64), 3
    ),
    "tiny": Case((24, 16, 16), ((16, 16, 8), (16, 8, 16)), 4, (16, 16, 16), 1),
}


def stages(size: str) -> Found:
    """Return seconds a case, parameters and MiB kept in a training step, of the stages and of the DynUNet."""
    case = CASES["tiny" if size == "tiny" else "full"]
    rng, organs = np.random.default_rng(0), len(case.boxes)
    topology = plan_topology(case.patch, (1.0, 1.0, 1.0))
    given: dict[str, Any] = {"width": case.width, "cap": 128}
    views = {view: build_network("se_unet", topology, organs + 1, spatial_dims=2, **given).eval() for view in VIEWS}
    fine = [build_network("se_unet", topology, 2, **given).eval() for _ in case.boxes]
    whole = build_network("dynunet", topology, organs + 1, **given).eval()
    boxes = OrganBoxes(organs)
    boxes.sizes.copy_(torch.tensor(case.boxes))
    image = rng.normal(size=case.volume).astype(np.float32)
    blobs = _blobs(case)
    times: dict[str, list[float]] = {}

    def timed(name: str, function: Any) -> Any:
        began = now()
        result = function()
        times.setdefault(name, []).append(now() - began)
        return result

    for _ in range(case.rounds):
        timed("views", lambda: fuse([view_logits(network, image, view) for view, network in views.items()]))
        found = timed("boxes", lambda: boxes.locate(blobs))
        masks = timed("fine", lambda: [outline(network, image, box) for network, box in zip(fine, found, strict=True)])  # noqa: B023
        timed("merge", lambda: combine(blobs, found, masks))  # noqa: B023
        timed("whole", lambda: predict_probabilities(whole, image, case.patch))
    seconds = {name: median(values) for name, values in times.items()}
    largest = max(case.boxes, key=lambda box: int(np.prod(box)))
    x, y, z = case.volume
    return {
        **{f"{name}_seconds": value for name, value in seconds.items()},
        "case_seconds": sum(value for name, value in seconds.items() if name != "whole"),
        "views_parameters": _parameters(*views.values()),
        "fine_parameters": _parameters(*fine),
        "whole_parameters": _parameters(whole),
        "views_mib": max(_kept(views["axial"], (16, 1, a, b)) for a, b in ((x, y), (x, z), (y, z))),
        "fine_mib": _kept(fine[0], (4, 1, *largest)),
        "whole_mib": _kept(whole, (2, 1, *case.patch)),
        "note": f"{' x '.join(map(str, case.volume))} voxels, {organs} organs",
    }


def _blobs(case: Case) -> np.ndarray:
    """Return the probabilities of one round organ beside another, each half as wide as its box."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in case.volume], indexing="ij"))
    scores = [np.ones(case.volume)]
    for place, box in enumerate(case.boxes):
        middle = np.array(case.volume) * (place + 1) / (len(case.boxes) + 1)
        apart = (grid - middle[:, None, None, None]) / (np.array(box)[:, None, None, None] / 4)
        scores.append(20 * np.exp(-np.square(apart).sum(axis=0)))
    whole = np.stack(scores)
    return np.asarray(whole / whole.sum(axis=0), np.float32)


def _parameters(*networks: nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())


def _kept(network: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the MiB that a training step of a batch of this shape keeps for its backward pass."""
    image = channels_last(torch.randn(shape))
    return kept_bytes(lambda: network.train()(image), network.parameters()) / 2**20
