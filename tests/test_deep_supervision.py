"""Deep supervision: weights of the heads, labels on coarse grids, faulty heads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hnlib.losses import (
    DeepSupervision,
    build_loss,
    deep_supervision_weights,
    downsample_labels,
)


def test_deep_supervision_weights_halve_and_add_up_to_one() -> None:
    """Facts file section 3: 8/15 4/15 2/15 1/15 for the large patch, 4/7 2/7 1/7 for the small one."""
    assert deep_supervision_weights(4) == pytest.approx([8 / 15, 4 / 15, 2 / 15, 1 / 15])
    assert deep_supervision_weights(3) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert deep_supervision_weights(1) == (1.0,)


def heads_example() -> tuple[list[Tensor], Tensor]:
    """Return three heads (2, 3, X, Y, Z) of halving resolution and labels of the finest."""
    generator = torch.Generator().manual_seed(3)
    shapes = [(8, 8, 4), (4, 4, 4), (2, 2, 2)]
    heads = [torch.randn((2, 3, *shape), generator=generator, requires_grad=True) for shape in shapes]
    return heads, torch.randint(0, 3, (2, 8, 8, 4), generator=generator)


def test_coarse_heads_meet_labels_on_their_own_grid() -> None:
    """New voxel i of a halved axis has its centre at old voxel 2 i + 1 (MONAI's and nnU-Net's nearest-exact)."""
    heads, target = heads_example()
    loss = build_loss("ca_dice+ce")
    wanted = (
        4 / 7 * loss(heads[0], target)
        + 2 / 7 * loss(heads[1], target[:, 1::2, 1::2])
        + 1 / 7 * loss(heads[2], target[:, 2::4, 2::4, 1::2])
    )
    value = DeepSupervision(loss)(heads, target)
    torch.testing.assert_close(value, wanted)
    value.backward()
    assert all(head.grad is not None and head.grad.abs().sum() > 0 for head in heads)


@pytest.mark.parametrize("shape", [(8, 8, 4), (4, 8, 2), (3, 5, 4), (1, 1, 1)])
def test_labels_are_brought_to_a_coarser_grid_by_nearest_exact(shape: tuple[int, int, int]) -> None:
    _, target = heads_example()
    wanted = nn.functional.interpolate(target[:, None].double(), size=shape, mode="nearest-exact")[:, 0]
    assert torch.equal(downsample_labels(target, shape), wanted.to(target.dtype))


def test_coarse_heads_can_be_brought_to_the_labels() -> None:
    heads, target = heads_example()
    loss = build_loss("nnu_dice+ce")
    full = [heads[0], heads[1].repeat_interleave(2, 2).repeat_interleave(2, 3)]
    wanted = 0.75 * loss(full[0], target) + 0.25 * loss(full[1], target)
    value = DeepSupervision(loss, (0.75, 0.25), resample="heads")(heads[:2], target)
    torch.testing.assert_close(value, wanted)


def test_heads_are_enlarged_linearly() -> None:
    """1D by hand: 0 and 4 on a grid of four become 0, 1, 3, 4."""
    seen = []

    class Keep(nn.Module):
        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            seen.append((logits, target))
            return logits.mean()

    target = torch.tensor([[0, 0, 1, 1]])
    DeepSupervision(Keep(), resample="linear")([torch.tensor([[[0.0, 4.0]]])], target)
    assert seen[0][0].tolist() == [[[0.0, 1.0, 3.0, 4.0]]]
    assert seen[0][1] is target
    for shape in ((1, 2, 4, 4), (1, 2, 4, 4, 4)):
        found = DeepSupervision(Keep(), resample="linear")(
            [torch.ones(shape)], torch.zeros(1, *(8,) * (len(shape) - 2))
        )
        assert float(found) == pytest.approx(1)
    assert seen[-1][0].shape == (1, 2, 8, 8, 8)


def test_a_stack_of_heads_is_a_list_of_heads() -> None:
    """MONAI's DynUNet returns (N, heads, C, X, Y, Z) in training mode, all at full resolution."""
    heads, target = heads_example()
    pair = [heads[0], heads[0].flip(2)]
    loss = DeepSupervision(build_loss("nnu_dice+ce"))
    torch.testing.assert_close(loss(torch.stack(pair, dim=1), target), loss(pair, target))


def test_dynunet_in_training_and_evaluation_mode_is_accepted() -> None:
    nets = pytest.importorskip("monai.networks.nets")
    net = nets.DynUNet(
        3, 1, 3, [3, 3, 3, 3], [1, 2, 2, 2], [2, 2, 2], filters=[2, 2, 2, 2], deep_supervision=True, deep_supr_num=2
    )
    loss = DeepSupervision(build_loss("nnu_dice+ce"))
    image, target = torch.randn(2, 1, 16, 16, 16), torch.randint(0, 3, (2, 16, 16, 16))
    loss(net(image), target).backward()
    single = net.eval()(image)
    torch.testing.assert_close(loss(single, target), build_loss("nnu_dice+ce")(single, target))


def test_faulty_heads_are_refused() -> None:
    heads, target = heads_example()
    loss = build_loss("ce")
    with pytest.raises(ValueError, match="3 heads but 2 weights"):
        DeepSupervision(loss, (1, 1))(heads, target)
    with pytest.raises(ValueError, match="empty sequence"):
        DeepSupervision(loss)([], target)
    with pytest.raises(ValueError, match="weights are empty"):
        DeepSupervision(loss, ())
    with pytest.raises(ValueError, match="one of labels, heads"):
        DeepSupervision(loss, resample="nearest")
    with pytest.raises(ValueError, match="loss is 'ce'; one called as"):
        DeepSupervision("ce")  # type: ignore[arg-type]
    for weights in ((1, -1), (1, float("nan"))):
        with pytest.raises(ValueError, match="finite numbers of at least 0"):
            DeepSupervision(loss, weights)
    with pytest.raises(ValueError, match="the finest comes first"):
        DeepSupervision(loss)(heads[::-1], target)
    with pytest.raises(ValueError, match="finer than the target"):
        DeepSupervision(loss)(heads, target[:, ::2])
