"""The squeeze-and-excitation residual block in two and three dimensions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hnlib.networks.squeeze_excitation import SEResBlock


@pytest.mark.parametrize("shape", [(2, 3, 6, 5), (2, 3, 6, 5, 4)])
@pytest.mark.parametrize("out_channels", [3, 8])
def test_block_keeps_the_size_in_two_and_three_dimensions(shape: tuple[int, ...], out_channels: int) -> None:
    block = SEResBlock(len(shape) - 2, 3, out_channels)
    assert block(torch.randn(shape)).shape == (2, out_channels, *shape[2:])


def test_a_silent_branch_leaves_the_shortcut() -> None:
    """Last convolution zero: equal channels come back as they are, others through the kernel of one."""
    x = torch.randn(1, 4, 5, 5, 5)
    same, other = SEResBlock(3, 4, 4), SEResBlock(3, 4, 6)
    for block in (same, other):
        nn.init.zeros_(block.branch[-1].weight)
    torch.testing.assert_close(same(x), x)
    assert isinstance(other.shortcut, nn.Conv3d)
    torch.testing.assert_close(other(x), other.shortcut(x))


def test_excitation_weights_the_branch_and_not_the_shortcut() -> None:
    """With all weights closed (sigmoid of -100) only the shortcut is left; with open ones the sum."""
    block, x = SEResBlock(3, 4, 4), torch.randn(1, 4, 5, 5, 5)
    last = block.excitation.fc[2]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, -100)
    torch.testing.assert_close(block(x), x)
    nn.init.constant_(last.bias, 100)
    torch.testing.assert_close(block(x), x + block.branch(x))


def test_excitation_sees_means_that_differ_between_images() -> None:
    """The norms stand before the convolutions, so the channel means that the excitation reads are no constant."""
    torch.manual_seed(0)
    block = SEResBlock(3, 4, 4)
    ramp = torch.linspace(-1, 1, 8).expand(1, 4, 8, 8, 8)
    spike = torch.zeros(1, 4, 8, 8, 8)
    spike[..., 4, 4, 4] = 1
    means = [block.branch(x).mean(dim=(2, 3, 4)) for x in (ramp, spike)]
    assert (means[0] - means[1]).abs().max() > 1e-2


def test_kernel_of_one_along_an_axis_sees_nothing_along_it() -> None:
    """A change in one plane of Z moves no other plane but through norms and excitation, which are shut here."""
    block = SEResBlock(3, 2, 2, kernel_size=(3, 3, 1))
    convolutions = [m for m in block.branch if isinstance(m, nn.Conv3d)]
    assert [m.kernel_size for m in convolutions] == [(3, 3, 1)] * 2
    assert [m.padding for m in convolutions] == [(1, 1, 0)] * 2


def test_gradient_reaches_every_weight() -> None:
    torch.manual_seed(0)
    block = SEResBlock(2, 3, 8)
    block(torch.randn(2, 3, 9, 9)).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in block.parameters())


@pytest.mark.parametrize("kernel", [2, (3, 3), (3, 3, 4)])
def test_a_kernel_that_would_change_the_size_is_refused(kernel: int | tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="3 odd numbers"):
        SEResBlock(3, 4, 4, kernel_size=kernel)


def test_an_excitation_without_hidden_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="r must be positive"):
        SEResBlock(3, 4, 4, reduction=8)
