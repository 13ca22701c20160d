"""What a training step keeps for its backward pass and holds at its peak, beside the count of `hnlib.networks`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from benchmarks.process import Found, need
from hnlib.losses import DeepSupervision, build_loss
from hnlib.networks import build_network, plan_topology, training_memory
from hnlib.training import Settings, build_optimiser

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Network:
    """One network and the step that it is measured on."""

    name: str
    patch_size: Triple
    spacing_mm: tuple[float, float, float]
    num_classes: int
    batch_size: int
    width: int
    cap: int
    precision: str


#: Deep and shallow, isotropic and not, few and many classes, float32 and bfloat16.
NETWORKS = (
    Network("dynunet", (16, 16, 16), (1.0, 1.0, 1.0), 3, 2, 16, 64, "32-true"),
    Network("dynunet", (48, 40, 24), (0.98, 0.98, 2.5), 8, 2, 8, 320, "32-true"),
    Network("dynunet", (32, 32, 32), (1.0, 1.0, 1.0), 4, 3, 12, 24, "bf16-mixed"),
    Network("slim_dynunet", (32, 24, 32), (3.9, 3.9, 2.5), 6, 2, 16, 128, "32-true"),
    Network("slim_dynunet", (40, 32, 16), (1.0, 1.0, 3.0), 13, 4, 16, 32, "bf16-mixed"),
)
#: The same kinds where a GPU measures them.
GPU_NETWORKS = (
    Network("dynunet", (192, 160, 56), (0.98, 0.98, 2.5), 8, 2, 32, 320, "bf16-mixed"),
    Network("dynunet", (96, 80, 48), (0.98, 0.98, 2.5), 8, 2, 32, 320, "32-true"),
    Network("dynunet", (128, 128, 64), (1.0, 1.0, 2.0), 13, 4, 16, 128, "bf16-mixed"),
    Network("slim_dynunet", (96, 96, 96), (1.0, 1.0, 1.0), 6, 2, 32, 320, "32-true"),
    Network("slim_dynunet", (64, 64, 64), (1.0, 1.0, 1.0), 17, 8, 32, 128, "bf16-mixed"),
)


def kept_bytes(forward: Callable[[], Any], parameters: Iterable[Tensor]) -> int:
    """Return the bytes that a forward pass keeps for its backward pass, each storage once, parameters left out."""
    own = {parameter.untyped_storage()._cdata for parameter in parameters}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept.setdefault(storage, tensor)
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()  # noqa: F841  (the graph holds what it keeps as long as its result lives)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def peak_bytes(step: Callable[[], Any], device: str = "cpu") -> int:
    """Return the most bytes that a step holds at once beyond what was there before it."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    changes = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def measure_network(given: Network, device: str = "cpu") -> dict[str, int]:
    """Return bytes kept by the network and by the loss and the peak of a step, each with its count."""
    torch.manual_seed(0)
    topology = plan_topology(given.patch_size, given.spacing_mm)
    network = build_network(given.name, topology, given.num_classes, width=given.width, cap=given.cap).to(device)
    loss: nn.Module = DeepSupervision(build_loss("nnu_dice+ce"))
    image = torch.randn(given.batch_size, 1, *given.patch_size).to(device, memory_format=torch.channels_last_3d)
    target = torch.randint(0, given.num_classes, (given.batch_size, *given.patch_size), device=device)
    optimiser = build_optimiser(network, Settings(steps=1))

    def forward() -> list[Tensor]:
        with torch.autocast(device, torch.bfloat16, enabled=given.precision != "32-true"):
            heads = network.train()(image)
        return [head.float() for head in (heads if isinstance(heads, list) else [heads])]

    def step() -> None:
        loss(forward(), target).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    in_loss = _kept_by_loss(loss, forward(), target)
    step()  # the optimiser makes its numbers in the first step
    count = training_memory(
        given.name,
        topology,
        given.patch_size,
        given.batch_size,
        given.num_classes,
        width=given.width,
        cap=given.cap,
        precision=given.precision,
    )
    numbers = sum(parameter.numel() for parameter in network.parameters())
    return {
        "kept": kept_bytes(forward, network.parameters()),
        "kept_by_count": count.activations + count.weights - 4 * numbers,
        "loss": in_loss,
        "loss_by_count": count.loss,
        "peak": peak_bytes(step, device) + 12 * numbers + image.nbytes,
        "peak_by_count": count.total,
    }


def _kept_by_loss(loss: nn.Module, logits: list[Tensor], target: Tensor) -> int:
    heads = [head.detach().requires_grad_() for head in logits]
    return kept_bytes(lambda: loss(heads, target), [])


def networks(device: str = "cpu") -> Found:
    """Return the MiB of five networks, counted and measured: what network and loss keep, and the peak of a step."""
    need(device)
    found = [measure_network(network, device) for network in (GPU_NETWORKS if device == "cuda" else NETWORKS)]
    return {"networks": [{part: number / 2**20 for part, number in one.items()} for one in found]}
