"""The squeeze-and-excitation residual block, for images and volumes alike.

It imports MONAI, which takes seconds: builders import it where they need it.
"""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.blocks.squeeze_and_excitation import ChannelSELayer
from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn


class SEResBlock(nn.Module):
    """Twice (norm, ReLU, convolution), channels weighted by squeeze and excitation, plus a shortcut.

    Parameters
    ----------
    spatial_dims
        2 for images (N, C, X, Y), 3 for volumes (N, C, X, Y, Z).
    in_channels, out_channels
        Where they differ, the shortcut is a convolution of kernel 1.
    kernel_size
        Odd, one number or one an axis; the output has the input's size.
    reduction
        Channels over hidden channels of the excitation (Hu et al. 2018 have 16; small networks less).

    Raises
    ------
    ValueError
        When the excitation would have no hidden channel, or a kernel is even.

    Notes
    -----
    Norms are of one sample (instance norm), as batches of one or two have no useful statistics. They stand before the
    convolutions, not between convolution and excitation: there every channel's mean, which is all that the excitation
    sees, would be a constant. The excitation weights the residual branch before the sum, as Hu et al. 2018 have it.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int | Sequence[int] = 3,
        reduction: int = 2,
    ) -> None:
        super().__init__()
        kernel = (kernel_size,) * spatial_dims if isinstance(kernel_size, int) else tuple(kernel_size)
        if len(kernel) != spatial_dims or any(k % 2 == 0 for k in kernel):
            raise ValueError(f"kernel_size must be {spatial_dims} odd numbers, got {kernel}")
        conv, norm = Conv["conv", spatial_dims], Norm["instance", spatial_dims]
        padding = tuple(k // 2 for k in kernel)
        self.branch = nn.Sequential(
            norm(in_channels, affine=True),
            nn.ReLU(inplace=True),
            conv(in_channels, out_channels, kernel, padding=padding, bias=False),
            norm(out_channels, affine=True),
            nn.ReLU(inplace=True),
            conv(out_channels, out_channels, kernel, padding=padding, bias=False),
        )
        self.excitation = ChannelSELayer(spatial_dims, out_channels, r=reduction)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else conv(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, ...) to (N, out_channels, ...) of the same size."""
        result: Tensor = self.excitation(self.branch(x)) + self.shortcut(x)
        return result
