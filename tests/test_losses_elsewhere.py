"""Losses under torch.compile and in several processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from test_losses import build, example, gradient
from torch import Tensor, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from hnlib.losses import DeepSupervision

COMPILED = (
    "ca_dice+ce",
    "squared_dice+weighted_ce",
    "topk_dice(percent=20, floor=1)+topk_ce",
    "ca_topk_dice(pooling=batch, floor=1)+focal",
    "generalised_dice+tversky+weighted_focal",
    "ca_dice_margin+asymmetric_ce",
)
# PyTorch's own tracing of an autograd function instantiates it, of which PyTorch warns
tracing = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@pytest.mark.slow
@tracing
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_in_one_graph_it_is_the_same(name: str) -> None:
    """Traced, differentiated and run as one graph; code generation is the next test's."""
    torch.compiler.reset()
    logits, target = example(dtype=torch.float32)
    loss = build(name)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(logits, target), loss(logits, target))
    torch.testing.assert_close(gradient(compiled, logits, target), gradient(loss, logits, target))


@pytest.mark.full
@pytest.mark.slow
@tracing
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # inductor's own imports
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # dynamo's own look at what it is given
@pytest.mark.skipif(os.environ.get("HNLIB_FULL") != "1", reason="code generation takes minutes: HNLIB_FULL=1")
def test_compiled_to_machine_code_it_is_the_same() -> None:
    torch.compiler.reset()
    logits, target = example(dtype=torch.float32)
    for name in ("ca_dice+ce", "topk_dice(floor=1)+weighted_focal"):
        loss = DeepSupervision(build(name))
        compiled = torch.compile(loss)
        torch.testing.assert_close(compiled(logits, target), loss(logits, target))
        torch.testing.assert_close(gradient(compiled, logits, target), gradient(loss, logits, target))


SHARED = (
    "nnu_dice+ce",
    "generalised_dice(pooling=batch)",
    "tversky(pooling=batch)",
    "ca_dice_margin(pooling=batch)+asymmetric_ce",
    "topk_dice+topk_ce",
    "topk_dice(percent=100, pooling=batch)+weighted_ce+focal",
)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Conv3d(4, 4, 1).double()


def part(rank: int, place: str) -> None:
    """Write the gradients that one of two processes has after DDP averaged them."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{place}/meeting", rank=rank, world_size=2)
    logits, target = example(batch=2)
    wrapped = DistributedDataParallel(network())
    found: dict[str, Tensor] = {}
    for name in SHARED:
        wrapped.zero_grad()
        build(name)(wrapped(logits[rank : rank + 1].detach()), target[rank : rank + 1]).backward()
        found[name] = wrapped.module.weight.grad.clone()
    torch.save(found, f"{place}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    """Of one batch split in two; sums of a pooled batch run over both."""
    multiprocessing.spawn(part, (str(tmp_path),), nprocs=2)
    logits, target = example(batch=2)
    alone = network()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name in SHARED:
        alone.zero_grad()
        build(name)(alone(logits.detach()), target).backward()
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], alone.weight.grad)
