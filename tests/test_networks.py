"""Networks: nnU-Net's rule gives the paper's topologies; the lean norm equals PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hnlib.errors import ConfigError
from hnlib.networks import (
    NETWORKS,
    Topology,
    build_network,
    forward_operations,
    halve_in_plane,
    plan_patch,
    plan_topology,
    receptive_field,
    set_output_prior,
)
from hnlib.networks.convolution import use_sound_convolutions
from hnlib.networks.instance_norm import InstanceNorm3d, use_lean_instance_norm

PAPER_SPACING = (0.98000002, 0.98000002, 2.49962478)
LARGE, SMALL = (192, 160, 56), (96, 80, 48)
NUM_CLASSES = 3


def test_large_patch_of_the_paper_gives_its_strides_and_kernels() -> None:
    """Tappeiner et al. 2022, code: 6 levels, strides 111 221 222 222 222 221, first kernel 3 x 3 x 1."""
    topology = plan_topology(LARGE, PAPER_SPACING)
    assert topology.strides == ((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 1))
    assert topology.kernels == ((3, 3, 1), *[(3, 3, 3)] * 5)
    assert topology.filters(32, 320) == (32, 64, 128, 256, 320, 320)
    assert topology.num_heads == 4


def test_small_patch_of_the_paper_gives_its_strides() -> None:
    """Tappeiner et al. 2022, code: 5 levels, strides 111 221 222 222 222."""
    topology = plan_topology(SMALL, PAPER_SPACING)
    assert topology.strides == ((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert topology.filters(32, 320) == (32, 64, 128, 256, 320)
    assert topology.num_heads == 3


@pytest.mark.parametrize(("patch", "printed", "unused"), [(LARGE, 30_758_984, 320), (SMALL, 16_520_256, 256)])
def test_parameter_counts_are_the_papers(patch: tuple[int, int, int], printed: int, unused: int) -> None:
    """MONAI 0.5.0 also built a head on the next coarser level, which the paper's runs never used: 8 (n + 1)."""
    network = build_network("dynunet", plan_topology(patch, PAPER_SPACING), 8, width=32, cap=320)
    assert sum(p.numel() for p in network.parameters()) + 8 * (unused + 1) == printed


def test_planned_patch_fits_the_budget_and_its_own_strides() -> None:
    spacing = (3.92, 3.92, 2.5)
    for budget in (512, 5_000, 60_000, 170_000, 600_000):
        patch = plan_patch((117, 65, 119), spacing, budget)
        assert np.prod(patch) <= budget
        plan_topology(patch, spacing)
        plan_topology(halve_in_plane(patch, spacing), spacing)


def test_planned_patches_of_openkbp() -> None:
    """By hand: from 117 x 65 x 119 the axis that is largest relative to the median shrinks first."""
    large = plan_patch((117, 65, 119), (3.92, 3.92, 2.5), 170_000)
    assert large == (64, 40, 64)
    assert halve_in_plane(large, (3.92, 3.92, 2.5)) == (32, 20, 64)


@pytest.mark.parametrize(
    ("patch", "text"), [((7, 7, 7), "two levels"), ((9, 16, 16), "must divide"), ((0, 8, 8), "positive")]
)
def test_impossible_patches_are_refused(patch: tuple[int, int, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        plan_topology(patch, (1.0, 1.0, 1.0))


def test_unknown_network_is_told() -> None:
    with pytest.raises(ConfigError, match="unknown network 'dynunett': did you mean 'dynunet'"):
        build_network("dynunett", plan_topology((16, 16, 16), (1, 1, 1)), 2, width=4)


def test_heads_in_training_and_one_output_in_evaluation() -> None:
    topology = plan_topology((32, 32, 32), (1.0, 1.0, 1.0))
    network = build_network("dynunet", topology, 3, width=4, cap=16)
    image = torch.randn(2, 1, 32, 32, 32)
    heads = network.train()(image)
    assert [tuple(h.shape) for h in heads] == [(2, 3, 32, 32, 32), (2, 3, 16, 16, 16)]
    assert tuple(network.eval()(image).shape) == (2, 3, 32, 32, 32)


def test_slim_network_halves_the_finest_level_alone() -> None:
    topology = plan_topology((32, 32, 32), (1.0, 1.0, 1.0))
    full, slim = (build_network(name, topology, 3, width=8, cap=16) for name in ("dynunet", "slim_dynunet"))
    widths = [{m.out_channels for m in n.modules() if isinstance(m, nn.Conv3d)} for n in (full, slim)]
    assert widths[1] - widths[0] == {4}
    heads = slim.train()(torch.randn(2, 1, 32, 32, 32))
    assert [tuple(h.shape) for h in heads] == [(2, 3, 32, 32, 32), (2, 3, 16, 16, 16)]
    assert tuple(slim.eval()(torch.randn(1, 1, 32, 32, 32)).shape) == (1, 3, 32, 32, 32)


def test_output_prior_gives_the_class_fractions_before_training() -> None:
    """With zero weights in the output convolution the first prediction is the prior itself."""
    network = build_network("dynunet", plan_topology((16, 16, 16), (1, 1, 1)), 3, width=4, cap=8)
    set_output_prior(network, [0.9, 0.09, 0.01])
    heads = [
        m
        for m in network.modules()
        if isinstance(m, nn.Conv3d) and m.out_channels == NUM_CLASSES and m.bias is not None
    ]
    assert heads
    for head in heads:
        assert torch.softmax(head.bias, 0).tolist() == pytest.approx([0.9, 0.09, 0.01], abs=1e-6)
    with pytest.raises(ValueError, match="must be positive"):
        set_output_prior(network, [1.0, 0.0, 0.0])


def test_lean_instance_norm_equals_pytorchs_in_value_and_gradient() -> None:
    torch.manual_seed(0)
    plain = nn.InstanceNorm3d(5, affine=True)
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    lean = use_lean_instance_norm(nn.Sequential(nn.InstanceNorm3d(5, affine=True)))
    assert type(lean[0]) is InstanceNorm3d
    lean[0].load_state_dict(plain.state_dict())
    base = torch.randn(3, 5, 6, 7, 4) * 3 + 10
    gradient = torch.randn_like(base)
    results = []
    for module, layout in ((plain, torch.contiguous_format), (lean, torch.channels_last_3d)):
        x = base.clone().contiguous(memory_format=layout).requires_grad_()
        y = module(x)
        y.backward(gradient.contiguous(memory_format=layout))
        results.append([y.detach(), x.grad, *(p.grad for p in module.parameters())])
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, atol=2e-4, rtol=1e-4)
    assert results[1][0].is_contiguous(memory_format=torch.channels_last_3d)


def test_lean_instance_norm_of_bfloat16_is_that_of_float32_rounded() -> None:
    """Under autocast its input is bfloat16 and its weights float32: statistics and gradients are summed in float32."""
    torch.manual_seed(0)
    plain = nn.InstanceNorm3d(4, affine=True)
    nn.init.normal_(plain.weight)
    lean = use_lean_instance_norm(nn.Sequential(nn.InstanceNorm3d(4, affine=True)))
    lean[0].load_state_dict(plain.state_dict())
    base = (torch.randn(2, 4, 8, 8, 8) * 3 + 10).bfloat16()
    gradient = torch.randn(2, 4, 8, 8, 8).bfloat16()
    x = base.float().requires_grad_()
    plain(x).backward(gradient.float())
    narrow = base.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    y = lean(narrow)
    y.backward(gradient.contiguous(memory_format=torch.channels_last_3d))
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.allclose(y.float(), plain(x), atol=2e-2, rtol=1e-2)  # bfloat16 keeps 8 bits
    assert torch.allclose(narrow.grad.float(), x.grad, atol=1e-2, rtol=2e-2)
    for one, other in zip(lean.parameters(), plain.parameters(), strict=True):
        assert one.grad.dtype == torch.float32
        assert torch.allclose(one.grad, other.grad, atol=1e-2, rtol=2e-3)


def test_lean_instance_norm_passes_gradcheck_through_the_general_path() -> None:
    """Float64 takes PyTorch's own kernel, so gradcheck and other devices keep working."""
    module = use_lean_instance_norm(nn.Sequential(nn.InstanceNorm3d(2, affine=True))).double()
    assert torch.autograd.gradcheck(module, torch.randn(2, 2, 3, 2, 2, dtype=torch.float64, requires_grad=True))


def test_heads_at_coarse_levels_and_a_decoder_that_ends_there() -> None:
    """Heads at 1/4 and 1/8 (the bottleneck): in training as they are, in evaluation the finest, enlarged linearly."""
    topology = plan_topology((32, 32, 32), (1.0, 1.0, 1.0), heads=[2, 3])
    network = build_network("dynunet", topology, 3, width=4, cap=16)
    image = torch.randn(2, 1, 32, 32, 32)
    heads = network.train()(image)
    assert [tuple(h.shape) for h in heads] == [(2, 3, 8, 8, 8), (2, 3, 4, 4, 4)]
    expected = nn.functional.interpolate(heads[0], size=(32, 32, 32), mode="trilinear")
    torch.testing.assert_close(network.eval()(image), expected)
    whole = build_network("dynunet", plan_topology((32, 32, 32), (1.0, 1.0, 1.0)), 3, width=4, cap=16)
    assert sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in whole.parameters())
    sum(head.sum() for head in heads).backward()
    assert all(p.grad is not None for p in network.parameters())  # nothing of the finer decoder is left


def test_heads_of_the_usual_levels_give_the_usual_network() -> None:
    """With heads at levels 0 and 1 named one by one, and the weights of the usual network, its outputs."""
    usual, named = (
        build_network("dynunet", plan_topology((32, 32, 32), (1.0, 1.0, 1.0), heads=heads), 3, width=4, cap=16)
        for heads in ((), (0, 1))
    )
    weights = usual.state_dict()
    names = {"level_heads.0.": "output_block.", "level_heads.1.": "deep_supervision_heads.0."}
    renamed = {
        key: weights[next((own + key.removeprefix(new) for new, own in names.items() if key.startswith(new)), key)]
        for key in named.state_dict()
    }
    named.load_state_dict(renamed)
    image = torch.randn(1, 1, 32, 32, 32)
    for one, other in zip(named.train()(image), usual.train()(image), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(named.eval()(image), usual.eval()(image))


def test_output_prior_reaches_coarse_heads() -> None:
    topology = plan_topology((32, 32, 32), (1.0, 1.0, 1.0), heads=[2])
    network = build_network("slim_dynunet", topology, 3, width=4, cap=16)
    set_output_prior(network, [0.9, 0.09, 0.01])
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.zeros_(parameter)
    probs = network.eval()(torch.randn(1, 1, 32, 32, 32)).softmax(1)
    torch.testing.assert_close(probs.mean((0, 2, 3, 4)), torch.tensor([0.9, 0.09, 0.01]))


@pytest.mark.parametrize("heads", [(2, 1), (0, 4), (-1,), (1, 1)])
def test_heads_at_levels_that_are_not_there_are_refused(heads: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"heads are at levels .*; levels of 0 to 3 are needed, finest first"):
        plan_topology((32, 32, 32), (1.0, 1.0, 1.0), heads=heads)


def test_operations_by_hand() -> None:
    """Two levels of 2 and 3 channels on 4 x 4 x 4 voxels, counted term by term."""
    topology = Topology(((3, 3, 3), (3, 3, 3)), ((1, 1, 1), (2, 2, 2)))
    encoder = 2 * 27 * 64 * (1 * 2 + 2 * 2) + 2 * 27 * 8 * (2 * 3 + 3 * 3)
    decoder = 2 * 64 * 3 * 2 + 2 * 27 * 64 * (4 * 2 + 2 * 2)
    head = 2 * 64 * 2 * 5
    assert encoder + decoder + head == 70_736 == forward_operations(topology, (2, 3), (4, 4, 4), 5)


@pytest.mark.parametrize("heads", [(), (1, 2)])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.0, 1.0, 3.0)])
def test_operations_are_those_that_torch_counts(spacing_mm: tuple[float, float, float], heads: tuple[int, ...]) -> None:
    """The formula agrees with what passes through torch in one forward pass, anisotropic kernels and heads included."""
    topology = plan_topology((16, 16, 16), spacing_mm, heads=heads)
    network = build_network("dynunet", topology, 5, width=2, cap=6)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 1, 16, 16, 16))
    expected = forward_operations(topology, topology.filters(2, 6), (16, 16, 16), 5)
    assert counter.get_total_flops() == expected


@pytest.mark.parametrize(("patch", "spacing_mm"), [((16, 16, 16), (1.0, 1.0, 1.0)), ((8, 16, 32), (1.0, 1.0, 3.0))])
def test_receptive_field_is_what_a_gradient_reaches(
    patch: tuple[int, int, int], spacing_mm: tuple[float, float, float]
) -> None:
    """The widest span of input voxels with a gradient, over output voxels along each axis, norms taken out."""
    topology = plan_topology(patch, spacing_mm)
    network = build_network("dynunet", topology, 2, width=1, cap=2)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.InstanceNorm3d | nn.LeakyReLU):
                setattr(parent, name, nn.Identity())
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.01)
    field = receptive_field(topology)
    for axis, divisor in enumerate(topology.divisor):
        shape = [2 * d for d in topology.divisor]
        shape[axis] = (2 * field[axis] // divisor + 2) * divisor
        spans = []
        for at in range(divisor):
            image = torch.zeros(1, 1, *shape, requires_grad=True)
            place = [n // 2 for n in shape]
            place[axis] = shape[axis] // 2 // divisor * divisor + at
            network.eval()(image)[(0, 0, *place)].backward()
            others = [other for other in range(3) if other != axis]
            reached = image.grad[0, 0].abs().sum(dim=others).nonzero().ravel()
            spans.append(int(reached[-1] - reached[0] + 1))
        assert max(spans) == field[axis]


@pytest.mark.parametrize("dims", [2, 3])
def test_one_se_unet_for_slices_and_volumes(dims: int) -> None:
    """Logits of the image's size, the output alone biased; three poolings: sides divide by 8 or it says so."""
    network = build_network("se_unet", plan_topology(SMALL, PAPER_SPACING), 3, width=4, cap=16, spatial_dims=dims)
    assert network(torch.zeros(1, 1, *(16,) * dims)).shape == (1, 3, *(16,) * dims)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)]
    assert [m.out_channels for m in convolutions if m.bias is not None] == [3]
    set_output_prior(network, [0.5, 0.25, 0.25])
    assert network.head.bias.exp().tolist() == pytest.approx([0.5, 0.25, 0.25])
    with pytest.raises(ValueError, match="do not divide by 8; pad"):
        network(torch.zeros(1, 1, *(12,) * dims))


def test_without_squeeze_the_gates_are_gone() -> None:
    topology = plan_topology(SMALL, PAPER_SPACING)
    with_gates, without = (build_network("se_unet", topology, 2, width=4, cap=16, squeeze=s) for s in (True, False))
    assert sum(p.numel() for p in without.parameters()) < sum(p.numel() for p in with_gates.parameters())
    assert any("excitation" in name for name, _ in with_gates.named_parameters())
    assert not any("excitation" in name for name, _ in without.named_parameters())


def test_a_hybrid_is_flat_above_and_deep_below() -> None:
    """A voxel's value reaches its own slice alone through the two shallow levels; the deep ones see the neighbours."""
    topology = plan_topology((16, 16, 16), (1.0, 1.0, 1.0))
    network = build_network("hybrid", topology, 2, width=4, cap=8, flat_levels=1)
    kernels = [m.kernel_size for m in network.modules() if isinstance(m, nn.Conv3d) and m.kernel_size[0] == 3]
    assert (3, 3, 1) in kernels
    assert (3, 3, 3) in kernels
    plain = build_network("dynunet", topology, 2, width=4, cap=8)
    assert sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in plain.parameters())
    with pytest.raises(ConfigError, match="flat_levels is 9"):
        build_network("hybrid", topology, 2, width=4, cap=8, flat_levels=9)


# Convolutions in bfloat16 on a CPU


def weight_gradient(conv: nn.Module, x: torch.Tensor, bfloat16: bool) -> torch.Tensor:
    conv.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        out = conv(x)
    assert out.dtype == (torch.bfloat16 if bfloat16 else torch.float32)
    out.float().square().mean().backward()
    return next(conv.parameters()).grad.clone()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 2, 2), (1, 4, 1), (3, 4, 1), (3, 3, 3), (2, 1), (4, 4)])
def test_gradients_of_few_voxels_in_bfloat16_are_those_of_float32(shape: tuple[int, ...], stride: int) -> None:
    """Where oneDNN's bfloat16 kernels read beyond their memory; PyTorch's own class may end the process there."""
    make = nn.Conv3d if len(shape) == 3 else nn.Conv2d
    torch.manual_seed(0)
    conv = use_sound_convolutions(nn.Sequential(make(8, 8, 3, stride=stride, padding=1)))
    x = torch.randn(2, 8, *shape)
    wanted, found = weight_gradient(conv, x, False), weight_gradient(conv, x, True)
    assert float((found - wanted).abs().max()) < 0.05 * float(wanted.abs().max())


def test_only_small_inputs_in_bfloat16_are_computed_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = nn.Conv3d.forward

    def watched(conv: nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cpu"))
        return plain(conv, x)

    monkeypatch.setattr(nn.Conv3d, "forward", watched)
    conv = use_sound_convolutions(nn.Sequential(nn.Conv3d(1, 1, 3, padding=1)))
    with torch.autocast("cpu", torch.bfloat16):
        conv(torch.zeros(1, 1, 3, 3, 3))
        conv(torch.zeros(1, 1, 2, 3, 3))
    conv(torch.zeros(1, 1, 2, 3, 3))
    assert seen == [True, False, False]


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_has_sound_convolutions(name: str) -> None:
    network = build_network(name, plan_topology((64, 64, 64), (1, 1, 1)), 3, width=4, cap=8)
    kinds = {type(layer) for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d)}
    assert kinds
    assert not kinds & {nn.Conv2d, nn.Conv3d}
