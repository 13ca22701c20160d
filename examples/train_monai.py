"""Train a plain MONAI network with a loss of hnlib; nothing else of hnlib is imported.

    python examples/train_monai.py "topk_dice(percent=30)+ce"

The data are made up: a large ball, a small one, and patches that hold no organ at all.
"""

from __future__ import annotations

import sys

import torch
from monai.networks.nets import UNet
from torch import Tensor

from hnlib.losses import build_loss

CLASSES = 3


def patches(generator: torch.Generator, batch: int = 2, size: int = 24) -> tuple[Tensor, Tensor]:
    """Return images (N, 1, X, Y, Z) and label maps (N, X, Y, Z): 0 background, 1 large ball, 2 small ball."""
    axis = torch.arange(size)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    target = torch.zeros(batch, size, size, size, dtype=torch.int64)
    for sample in target:
        for label, radius in ((1, 6), (2, 3)):
            if torch.rand((), generator=generator) < 0.8:  # else the organ is absent
                centre = torch.randint(radius, size - radius, (3, 1, 1, 1), generator=generator)
                sample[(grid - centre).square().sum(dim=0) <= radius**2] = label
    return target.unsqueeze(1) + 0.3 * torch.randn(target.unsqueeze(1).shape, generator=generator), target


def train(name: str = "ca_dice+ce", steps: int = 60) -> list[float]:
    """Return the loss of every step."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    network = UNet(3, 1, CLASSES, channels=(8, 16), strides=(2,))
    loss = build_loss(name, class_voxels=[12_000, 900, 120])  # only losses weighted by class look at these
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.01)
    values = []
    for _ in range(steps):
        image, target = patches(generator)
        value = loss(network(image), target)  # logits (N, C, X, Y, Z); labels as they are, not one-hot
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())
    return values


if __name__ == "__main__":
    history = train(*sys.argv[1:2])
    print(f"loss {history[0]:.3f} at first, {sum(history[-5:]) / 5:.3f} over the last five steps")
