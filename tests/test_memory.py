"""Memory of a training step: the count from the layers beside what torch keeps and holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.memory import NETWORKS, Network, kept_bytes, measure_network
from hnlib.errors import ConfigError
from hnlib.networks import Topology, build_network, plan_topology, training_memory
from hnlib.networks.memory import num_parameters
from hnlib.training import supports_bf16


def test_memory_by_hand() -> None:
    """Two levels of 2 and 4 channels on 4 x 4 x 4 voxels and one patch, counted term by term."""
    topology = Topology(((3, 3, 3), (3, 3, 3)), ((1, 1, 1), (2, 2, 2)))
    found = training_memory("dynunet", topology, (4, 4, 4), 1, 5, width=2)
    finest, coarsest = 64 * 2 * (4 + 2 + 4), 8 * 4 * 4
    assert found.activations == 4 * (64 * 1 + finest + coarsest) == 5888
    assert found.loss == 64 * (5 * 4 + 8 + 4) == 2048
    encoder = 27 * (1 * 2 + 2 * 2) + 2 * 4 + 27 * (2 * 4 + 4 * 4) + 2 * 8
    weights = encoder + 8 * 4 * 2 + 27 * (4 * 2 + 2 * 2) + 2 * 4 + (2 + 1) * 5
    assert weights == num_parameters(topology, (2, 4), 5)
    assert (found.weights, found.gradients, found.optimiser) == (4 * weights, 4 * weights, 8 * weights)
    assert found.buffers == 64 * (2 * 5 * 4 + 2 * 4)
    assert found.total == 5888 + 2048 + 16 * weights + 64 * 48


def test_half_precision_halves_the_volumes_and_adds_a_copy_of_the_weights() -> None:
    topology = plan_topology((32, 32, 16), (1.0, 1.0, 2.5))
    full, half, sgd = (
        training_memory("dynunet", topology, (32, 32, 16), 2, 4, width=8, precision=precision, optimiser=optimiser)
        for precision, optimiser in (("32-true", "adamw"), ("bf16-mixed", "adamw"), ("32-true", "sgd"))
    )
    assert full.activations == 2 * half.activations
    assert (full.loss, full.gradients) == (half.loss, half.gradients)
    assert half.weights == full.weights * 3 / 2
    assert sgd.optimiser == full.optimiser / 2


def test_memory_grows_with_the_batch_but_weights_do_not() -> None:
    topology = plan_topology((16, 16, 16), (1.0, 1.0, 1.0))
    one, three = (training_memory("dynunet", topology, (16, 16, 16), n, 4, width=8) for n in (1, 3))
    assert (three.activations, three.loss, three.buffers) == (3 * one.activations, 3 * one.loss, 3 * one.buffers)
    assert (three.weights, three.optimiser) == (one.weights, one.optimiser)


@pytest.mark.parametrize("network", ["dynunet", "slim_dynunet"])
@pytest.mark.parametrize(
    ("spacing_mm", "heads"), [((1.0, 1.0, 1.0), ()), ((1.0, 1.0, 3.0), ()), ((1.0, 1.0, 1.0), (1, 2))]
)
def test_weights_are_those_of_the_network(
    network: str, spacing_mm: tuple[float, float, float], heads: tuple[int, ...]
) -> None:
    """Anisotropic kernels, the cap, heads and learned windows included."""
    topology = plan_topology((32, 16, 32), spacing_mm, heads=heads)
    built = build_network(network, topology, 5, width=6, cap=20)
    counted = training_memory(network, topology, (32, 16, 32), 1, 5, width=6, cap=20).weights
    assert counted == 4 * sum(p.numel() for p in built.parameters())


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{n.name} {n.patch_size} {n.precision}")
def test_count_agrees_with_what_torch_keeps_and_holds(network: Network) -> None:
    """Five networks, none of which the count has been fitted to: within 1 % of kept bytes, 15 % of the peak.

    A CPU without bfloat16 holds float32 copies of what it computes, so that its peak is not the one that is counted.
    """
    found = measure_network(network)
    own = network.precision == "32-true" or supports_bf16()
    for part, most in (("kept", 0.01), ("loss", 0.01), *([("peak", 0.15)] if own else [])):
        assert found[f"{part}_by_count"] == pytest.approx(found[part], rel=most)


def test_what_is_kept_twice_is_counted_once() -> None:
    """Two layers that read one tensor keep it once, and parameters are no activations."""
    x, layers = torch.randn(1, 2, 8, 8, 8), nn.ModuleList([nn.Conv3d(2, 1, 1), nn.Conv3d(2, 1, 1)])

    def forward() -> list[Any]:
        return [layer(x) for layer in layers]

    assert kept_bytes(forward, layers.parameters()) == x.nbytes


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"network": "dynunett"}, "unknown network of the memory model 'dynunett': did you mean 'dynunet'"),
        ({"precision": "bf16"}, "unknown precision 'bf16'"),
        ({"optimiser": "adam"}, "unknown optimiser 'adam': did you mean 'adamw'"),
    ],
)
def test_unknown_names_are_told(change: dict[str, str], text: str) -> None:
    given: dict[str, Any] = {"network": "dynunet", "precision": "32-true", "optimiser": "adamw", **change}
    call: Callable[..., Any] = training_memory
    with pytest.raises(ConfigError, match=text):
        call(given.pop("network"), plan_topology((16, 16, 16), (1, 1, 1)), (16, 16, 16), 2, 3, width=8, **given)
