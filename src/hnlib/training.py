"""One training loop, short enough to read: patches in, a checkpoint and a history out."""

from __future__ import annotations

import ctypes
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor, nn

from hnlib.errors import ConfigError, DataError
from hnlib.files import write_atomically

if TYPE_CHECKING:
    from lightning.fabric import Fabric

Row = dict[str, Any]


class Batches(Protocol):
    """Where the batches of a training come from; `hnlib.patches.PatchStream` is one."""

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, ...]:
        """Return one step's input, target and what else the loss takes: a function of the step alone."""


@dataclass(frozen=True)
class Settings:
    """How a network is trained; what is compared (patch, loss, sampling, network) is not here.

    Attributes
    ----------
    steps
        Optimiser steps of the whole run.
    batch_size
        Patches a step.
    same_case
        True: all patches of a step come from one case (the paper's code). False: each from its own.
    optimiser, learning_rate, momentum, weight_decay
        ``sgd`` is with Nesterov momentum; ``adamw`` takes its own momentum.
    schedule
        ``poly``: lr (1 - t/T)^0.9. ``one_cycle``: cosine up over the first tenth, cosine down to 0.
    schedule_steps
        The poly schedule moves once in so many steps (nnU-Net: once an epoch).
    clip_norm
        Largest norm of the gradient; longer ones are shortened.
    validate_every, checkpoint_every
        In steps.

    Raises
    ------
    ValueError
        When a number cannot be: all are above 0 but the weight decay, which may be 0, and the momentum, in 0..1.
    """

    steps: int
    batch_size: int = 2
    same_case: bool = False
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 3e-3
    momentum: float = 0.99
    weight_decay: float = 3e-5
    schedule: Literal["one_cycle", "poly"] = "one_cycle"
    schedule_steps: int = 1
    clip_norm: float = 12.0
    validate_every: int = 250
    checkpoint_every: int = 250

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name not in ("momentum", "weight_decay") and not isinstance(value, str | bool) and not value > 0:
                raise ValueError(f"{name} is {value}; a number above 0 is needed")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}; a number of at least 0 and below 1 is needed")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay is {self.weight_decay}; a number of at least 0 is needed")


def learning_rate(step: int, settings: Settings) -> float:
    """Return the learning rate of a step (counted from 0).

    Examples
    --------
    >>> learning_rate(0, Settings(steps=100, schedule="poly", learning_rate=0.01))
    0.01
    >>> round(learning_rate(10, Settings(steps=100, learning_rate=0.003)), 6)
    0.003
    """
    if settings.schedule == "poly":
        done = step // settings.schedule_steps * settings.schedule_steps / settings.steps
        return float(settings.learning_rate * (1 - done) ** 0.9)
    warm = settings.steps / 10
    if step < warm:
        share = 0.04 + 0.96 * (1 - math.cos(math.pi * step / warm)) / 2
    else:
        share = (1 + math.cos(math.pi * (step - warm) / (settings.steps - warm))) / 2
    return settings.learning_rate * share


def build_optimiser(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Return the optimiser that the settings name, for the parameters that require a gradient."""
    trained = [p for p in network.parameters() if p.requires_grad]
    if settings.optimiser == "sgd":
        return torch.optim.SGD(
            trained,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            nesterov=True,
            weight_decay=settings.weight_decay,
        )
    return torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def train(
    network: nn.Module,
    loss: nn.Module,
    stream: Batches,
    settings: Settings,
    *,
    fabric: Fabric,
    checkpoint: Path,
    identity: Mapping[str, Any],
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    report: Callable[[int, Tensor, float], None] | None = None,
    keep_best: bool = False,
) -> tuple[nn.Module, list[Row]]:
    """Train a network, from its checkpoint if there is one.

    Parameters
    ----------
    network, loss
        The loss takes the network's output, the target and what else the stream gives: for patches a target
        (N, X, Y, Z) and, where some case has organs that nobody outlined, which classes were (N, C).
        Parameters that do not require a gradient stay as they are.
    stream
        Gives the input, target, ... of each step.
    fabric
        Device and precision.
    checkpoint
        File that is written every ``checkpoint_every`` steps and at the end.
    identity
        What the checkpoint must agree on to be continued; written into it.
    validate
        Returns validation DSC by organ.
    report
        Called after every step with (steps done, loss, seconds so far).
    keep_best
        End with the weights of the validation whose mean DSC over organs was the highest (the last of them), not with
        the last ones. They are in the checkpoint, so that a killed run ends with the same.

    Returns
    -------
    network, history
        The trained network and one row an organ and validation: step, seconds, learning_rate, loss
        (mean since the last validation), organ, validation_dsc.
    """
    keep_freed_memory()
    rank, world_size = fabric.global_rank, fabric.world_size
    if settings.batch_size % world_size:
        raise ConfigError(f"a batch of {settings.batch_size} patches cannot be shared by {world_size} devices")
    optimiser = build_optimiser(network, settings)
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "history": [], "losses": [], "identity": dict(identity)}
    network, optimiser = fabric.setup(network, optimiser)
    _resume(checkpoint, network, optimiser, state)  # now: an optimiser's state is put where its parameters are
    began = time.perf_counter() - state["seconds"]
    network.train()
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(stream.batch, state["step"], rank, world_size)
        for step in range(state["step"], settings.steps):
            rate = learning_rate(step, settings)
            optimiser.param_groups[0]["lr"] = rate
            image, target, *labelled = coming.result()
            image, target = (_to_device(tensor, fabric.device) for tensor in (image, target))
            coming = ahead.submit(stream.batch, step + 1, rank, world_size)
            value = _loss(loss, network(channels_last(image)), target, *labelled, step=step)
            fabric.backward(value)
            fabric.clip_gradients(network, optimiser, max_norm=settings.clip_norm, error_if_nonfinite=False)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

            state["losses"].append(value.detach())
            done, last = step + 1, step + 1 == settings.steps
            if last or done % settings.validate_every == 0:
                row = {"step": done, "seconds": time.perf_counter() - began, "learning_rate": rate}
                state["history"] += _history_rows(row, state["losses"], validate, network, fabric)
                state["losses"] = []
                if keep_best:
                    _keep_best(network, state, last, fabric)
            if rank == 0 and (last or done % settings.checkpoint_every == 0):
                state.update(step=done, seconds=time.perf_counter() - began)
                _save(checkpoint, network, optimiser, state)
            if report is not None:
                report(done, value.detach(), time.perf_counter() - began)
    return network, state["history"]


def _loss(loss: nn.Module, output: Tensor, *given: Tensor, step: int) -> Tensor:
    try:
        value: Tensor = loss(output, *given)
    except ValueError as fault:  # logits that are no numbers, say
        raise DataError(f"training: step {step + 1}: {fault}") from None
    return value


def channels_last(image: Tensor) -> Tensor:
    """Return a batch of images (N, C, X, Y) or (N, C, X, Y, Z) with the channels of a voxel side by side."""
    return image.to(memory_format=torch.channels_last if image.ndim == 4 else torch.channels_last_3d)


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; to a GPU from pinned memory, so that the copy runs beside the arithmetic."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _history_rows(
    row: Row,
    losses: Sequence[Tensor],
    validate: Callable[[nn.Module], Mapping[str, float]] | None,
    network: nn.Module,
    fabric: Fabric,
) -> list[Row]:
    # those from a checkpoint are still on the CPU
    own = torch.stack([torch.as_tensor(v, device=fabric.device).float() for v in losses]).mean()
    mean = float(torch.as_tensor(fabric.all_reduce(own, reduce_op="mean")))
    if not math.isfinite(mean):
        raise DataError(
            f"training: the loss is {mean} near step {row['step']}; lower the learning rate and start again"
        )
    row = {**row, "loss": mean}
    if validate is None or fabric.global_rank:
        return [{**row, "organ": "", "validation_dsc": math.nan}]
    inner = plain(network)  # the wrapper of several processes would wait for those that do not validate
    inner.eval()
    with torch.no_grad(), fabric.autocast():
        scores = validate(inner)
    inner.train()
    return [{**row, "organ": organ, "validation_dsc": dsc} for organ, dsc in scores.items()]


def _keep_best(network: nn.Module, state: dict[str, Any], last: bool, fabric: Fabric) -> None:
    """Keep the weights if no validation before was as good; at the end go back to those kept."""
    step = state["history"][-1]["step"]
    scores = [row["validation_dsc"] for row in state["history"] if row["step"] == step]
    known = [score for score in scores if not math.isnan(score)]
    score, best = (sum(known) / len(known) if known else -1.0), state.get("best")
    if best is None or score >= best["score"]:
        weights = {name: tensor.detach().cpu().clone() for name, tensor in plain(network).state_dict().items()}
        state["best"] = {"score": score, "step": step, "network": weights}
    if last:
        state["best"] = fabric.broadcast(state["best"])  # the first process alone has validated
        plain(network).load_state_dict(state["best"]["network"])


def _save(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    content = {
        **state,
        "rng": torch.get_rng_state(),
        "network": plain(network).state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    write_atomically(path, lambda part: torch.save(content, part))


def plain(network: nn.Module) -> nn.Module:
    """Return the module inside Fabric's wrapper, or the module itself."""
    inner = getattr(network, "module", network)
    return inner if isinstance(inner, nn.Module) else network


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint.

    Raises
    ------
    DataError
        When the file is missing or damaged.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as fault:  # torch.load raises many types for a damaged file
        reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise DataError(f"checkpoint {path}: cannot be read ({reason}); delete it to train afresh") from None
    return content


def load_weights(path: Path, network: nn.Module, content: Mapping[str, Any] | None = None) -> nn.Module:
    """Put a checkpoint's weights into a network of the same architecture.

    Raises
    ------
    DataError
        When the checkpoint is damaged or of another architecture.
    """
    content = content or read_checkpoint(path)
    return load_state(
        network,
        content.get("network", {}),
        f"checkpoint {path}",
        "use the experiment and profile that wrote it, or delete it to train afresh",
    )


def load_state(
    network: nn.Module, state: Mapping[str, Tensor], source: str = "model", remedy: str = "export it again"
) -> nn.Module:
    """Put a state into a network of the same architecture and return the network.

    Raises
    ------
    DataError
        When the state is of another architecture.
    """
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as fault:
        reason = " ".join(str(fault).split())[:120]
        raise DataError(f"{source}: its weights are of another architecture ({reason} ...); {remedy}") from None
    return network


def check_identity(path: Path, content: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another run.

    Raises
    ------
    DataError
        When it differs in something of `identity`.
    """
    differing = [key for key, value in identity.items() if content.get("identity", {}).get(key) != value]
    if differing:
        raise DataError(
            f"checkpoint {path}: it was written with another {', '.join(differing)}; "
            "move the run folder away to train afresh"
        )


def _resume(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    if not path.exists():
        return
    content = read_checkpoint(path)
    check_identity(path, content, state["identity"])
    load_weights(path, plain(network), content)
    optimiser.load_state_dict(content["optimiser"])
    torch.set_rng_state(content["rng"])
    state.update({key: content[key] for key in ("step", "seconds", "history", "losses", "best") if key in content})


def supports_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware (AMX or AVX512-BF16)."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def choose_precision(wanted: str) -> Literal["bf16-mixed", "32-true"]:
    """Return Fabric's name of a precision: ``auto`` takes bfloat16 where the hardware has it."""
    has = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else supports_bf16()
    return "bf16-mixed" if wanted == "bf16" or (wanted == "auto" and has) else "32-true"


def open_fabric(devices: int, precision: Literal["bf16-mixed", "32-true"]) -> Fabric:
    """Return the devices of a training: a GPU where there is one, several processes (DDP) where asked for.

    On CPU the processes talk through gloo. Several devices start the calling script once more for each.
    """
    if devices < 1:
        raise ConfigError(f"devices is {devices}; at least 1 is needed")
    from lightning.fabric import Fabric  # it takes seconds to import

    fabric = Fabric(accelerator="auto", devices=devices, strategy="ddp" if devices > 1 else "auto", precision=precision)
    if devices > 1:
        fabric.launch()
    return fabric


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory: without it each step asks the kernel for the same pages again."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_top_pad, 2**28)
