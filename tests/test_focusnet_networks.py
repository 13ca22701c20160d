"""FocusNet's networks: shapes, what a voxel sees, where ROIs lie, and what each stage trains."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hnlib.errors import ConfigError
from hnlib.networks import build_network, plan_topology, set_output_prior
from hnlib.networks.dense_aspp import DenseASPP
from hnlib.networks.focusnet import Focused, FocusNet, highest_voxels, roi_pool, roi_starts
from hnlib.networks.focusnet_build import build_focusnet, num_parameters
from hnlib.sampling import patch_start

PATCH = (16, 16, 16)
TOPOLOGY = plan_topology(PATCH, (2, 2, 2.5))
NEAR = {"dilations": (1, 2)}
ROIS = [(6, 6, 6), (5, 4, 3)]


@pytest.fixture
def network() -> FocusNet:
    torch.manual_seed(0)
    return build_focusnet(TOPOLOGY, 4, [2, 3], ROIS, width=4, dilations=(1, 2))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("snet", NEAR),
        ("snet", {**NEAR, "downsamplings": 2}),
        ("seres_unet", {"downsamplings": 1}),
        ("seres_unet", {"downsamplings": 2}),
        ("deeplab", {"downsamplings": 2, **NEAR}),
        ("fat_snet", {**NEAR, "branches": 2}),
    ],
)
def test_every_rival_gives_one_logit_a_class_and_voxel(name: str, options: dict[str, object]) -> None:
    network = build_network(name, TOPOLOGY, 4, width=4, **options)
    assert network(torch.zeros(2, 1, *PATCH)).shape == (2, 4, *PATCH)


@pytest.mark.parametrize("name", ["snet", "seres_unet", "deeplab"])
@pytest.mark.parametrize("downsamplings", [0, 3])
def test_down_samplings_that_the_patch_does_not_have_are_refused(name: str, downsamplings: int) -> None:
    """The network that was asked for is named."""
    with pytest.raises(ConfigError, match=rf"^{name}: downsamplings is {downsamplings}; 1 to 2 are possible"):
        build_network(name, TOPOLOGY, 4, width=4, downsamplings=downsamplings)


def test_values_that_give_no_network_are_told_with_their_names() -> None:
    with pytest.raises(ConfigError, match="network snet: cannot be built with width 4, cap 320, downsamplings '2' "):
        build_network("snet", TOPOLOGY, 4, width=4, downsamplings="2")


@pytest.mark.parametrize("branches", [1, 2, 5])
def test_fat_snet_has_the_width_whose_parameters_are_nearest_to_focusnets(branches: int) -> None:
    values = [1] * branches
    rival = num_parameters(build_focusnet(TOPOLOGY, 4, values, [(1, 1, 1)] * branches, width=4, dilations=(1, 2)))
    fat = build_network("fat_snet", TOPOLOGY, 4, width=4, branches=branches, **NEAR)
    gaps = {
        width: abs(num_parameters(build_network("snet", TOPOLOGY, 4, width=width, **NEAR)) - rival)
        for width in range(4, 12)
    }
    assert abs(num_parameters(fat) - rival) == min(gaps.values())
    assert 4 < fat.stem.out_channels < 11


def test_fat_snet_stays_within_the_cap() -> None:
    """The cap of 6 channels leaves it smaller than its rival."""
    fat = build_network("fat_snet", TOPOLOGY, 4, width=4, cap=6, branches=5, **NEAR)
    assert fat.stem.out_channels == 6
    assert max(conv.out_channels for conv in fat.modules() if isinstance(conv, nn.Conv3d)) <= 6


def test_output_prior_reaches_the_head_of_deeplab_and_no_other_convolution() -> None:
    """Four classes where the pyramid has four channels too: one bias is the logarithm of the shares."""
    network = build_network("deeplab", TOPOLOGY, 4, width=2, downsamplings=2, **NEAR)
    set_output_prior(network, [0.7, 0.1, 0.1, 0.1])
    set_ones = [m for m in network.modules() if isinstance(m, nn.Conv3d) and m.bias is not None and m.out_channels == 4]
    assert set_ones == [network.head]
    assert network.mean[1].out_channels == 4
    assert network.head.bias.exp().tolist() == pytest.approx([0.7, 0.1, 0.1, 0.1])


def test_a_voxel_sees_as_far_as_the_dilations_add_up_to() -> None:
    """Without norms a voxel of DenseASPP sees 1 + 2 (1 + 2 + 3) = 13 voxels in plane and 1 + 2 x 3 = 7 across."""
    pyramid = DenseASPP(2, (1, 2, 3))
    for module in pyramid.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.InstanceNorm3d | nn.ReLU):
                setattr(module, name, nn.Identity())
    assert pyramid.out_channels == 5
    x = torch.zeros(1, 2, 21, 21, 13, requires_grad=True)
    out = pyramid(x)
    assert out.shape == (1, 5, 21, 21, 13)
    out[0, -1, 10, 10, 6].backward()
    assert x.grad is not None
    seen = torch.nonzero(x.grad.abs().sum(dim=(0, 1)))
    assert (seen.amax(dim=0) - seen.amin(dim=0) + 1).tolist() == [13, 13, 7]


def test_dense_aspp_hands_its_input_on() -> None:
    x = torch.randn(1, 4, 6, 6, 6)
    torch.testing.assert_close(DenseASPP(4, (1, 2))(x)[:, :4], x)
    with pytest.raises(ValueError, match="one or more whole numbers"):
        DenseASPP(4, ())


@pytest.mark.parametrize("centre", [(0, 0, 0), (9, 8, 7), (5, 4, 3), (0, 4, 7), (9, 0, 3), (1, 1, 1), (8, 7, 6)])
@pytest.mark.parametrize("size", [(4, 3, 2), (10, 9, 8), (5, 5, 5)])
def test_roi_is_a_plain_crop_moved_inside_at_every_border(
    centre: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    """The rule is that of training patches, and the ROI keeps its size."""
    volume = torch.arange(2 * 10 * 9 * 8).reshape(1, 2, 10, 9, 8)
    starts = roi_starts(torch.tensor([[centre]]), volume.shape[2:], [size])[:, 0]
    x, y, z = patch_start(centre, (10, 9, 8), size)
    assert starts.tolist() == [[x, y, z]]
    wanted = volume[:, :, x : x + size[0], y : y + size[1], z : z + size[2]]
    found = roi_pool(volume, starts, size)
    assert found.shape[2:] == size
    assert torch.equal(found, wanted)


def test_roi_longer_than_the_volume_is_the_volume_along_that_axis() -> None:
    volume = torch.rand(1, 1, 4, 9, 8)
    starts = roi_starts(torch.tensor([[[3, 8, 0]]]), volume.shape[2:], [(6, 5, 5)])
    assert starts.tolist() == [[[0, 4, 0]]]
    assert torch.equal(roi_pool(volume, starts[:, 0], (6, 5, 5)), volume[:, :, :, 4:9, 0:5])


def test_each_sample_has_its_own_roi() -> None:
    volume = torch.rand(2, 1, 8, 8, 8)
    found = roi_pool(volume, torch.tensor([[0, 1, 2], [4, 3, 2]]), (3, 3, 3))
    assert torch.equal(found[1], volume[1, :, 4:7, 3:6, 2:5])
    assert torch.equal(found[0], volume[0, :, 0:3, 1:4, 2:5])


def test_highest_voxel_of_each_sample_and_map() -> None:
    """Of a map without a peak it is the first voxel, and the height tells that there is none."""
    heat = torch.zeros(2, 2, 3, 4, 5)
    heat[0, 0, 2, 3, 4] = heat[1, 1, 0, 1, 2] = 1
    assert highest_voxels(heat).tolist() == [[[2, 3, 4], [0, 0, 0]], [[0, 0, 0], [0, 1, 2]]]


def test_a_delta_lies_on_the_same_roi_voxel_in_all_inputs(network: FocusNet) -> None:
    """Planted at one voxel of features, image and heat map, it reaches the SOS-Net at one place in all channels."""
    seen: list[Tensor] = []
    network.sos[0].register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    delta = torch.zeros(1, 1, *PATCH)
    delta[..., 9, 3, 14] = 1
    features = delta.expand(1, 4, *PATCH)
    starts = roi_starts(torch.tensor([[[9, 3, 14]]]), PATCH, ROIS[:1])[:, 0]
    network.segment(0, features, features, delta, delta.expand(1, 2, *PATCH), starts)
    place = torch.tensor([9, 3, 14]) - starts[0]
    assert seen[0].shape == (1, 4 + 4 + 1 + 1, 6, 6, 6)
    for channel in seen[0][0]:
        assert torch.nonzero(channel).tolist() == [place.tolist()]


def moved(network: FocusNet, stage: str) -> set[str]:
    """Return the parts whose weights a step of a stage moves."""
    network.train_stage(stage)  # type: ignore[arg-type]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.01)
    out = network(torch.randn(2, 1, *PATCH))
    parts = [out] if isinstance(out, Tensor) else [out.logits, out.heat, *out.rois]
    loss: Tensor = sum((part.square().mean() for part in parts if part.requires_grad), torch.zeros(()))
    loss.backward()
    optimiser.step()
    return {name.split(".")[0] for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def test_a_stage_moves_what_it_trains_and_nothing_else(network: FocusNet) -> None:
    assert moved(network, "s_net") == {"snet"}
    assert moved(network, "sol_net") == {"sol"}
    assert moved(network, "sos_net") == {"sos"}
    assert moved(network, "joint") == {"snet", "sol", "sos"}


def test_gradient_goes_through_the_features_of_a_roi_and_not_outside_it(network: FocusNet) -> None:
    """The crop is differentiable in the values it cuts; where it lies is a whole number and has no gradient."""
    last = torch.randn(1, 4, *PATCH, requires_grad=True)
    rest = torch.randn(1, 4, *PATCH), torch.randn(1, 1, *PATCH), torch.rand(1, 2, *PATCH)
    network.segment(0, rest[0], last, rest[1], rest[2], torch.tensor([[2, 3, 4]])).square().sum().backward()
    assert last.grad is not None
    inside = torch.zeros(PATCH, dtype=torch.bool)
    inside[2:8, 3:9, 4:10] = True
    touched = last.grad.abs().sum(dim=(0, 1)) > 0
    assert bool(touched[inside].all())
    assert not bool(touched[~inside].any())


def test_joint_stage_gives_everything(network: FocusNet) -> None:
    out = network.train_stage("joint")(torch.randn(2, 1, *PATCH))
    assert isinstance(out, Focused)
    assert out.logits.shape == (2, 4, *PATCH)
    assert out.heat.shape == (2, 2, *PATCH)
    assert [tuple(roi.shape) for roi in out.rois] == [(2, 1, 6, 6, 6), (2, 1, 5, 4, 3)]
    assert torch.allclose(out.heat, torch.sigmoid(torch.tensor(-4.0)))  # cold at the start, everywhere alike
