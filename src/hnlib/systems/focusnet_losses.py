"""The losses of FocusNet's stages: heat maps of the small organs' centres, and their masks in the ROIs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hnlib.networks.focusnet import Focused, roi_pool

#: A voxel whose target is above it is a positive.
POSITIVE = 0.01


def heat_targets(
    target: Tensor, values: Sequence[int], spacing_mm: Sequence[float], sigma_mm: float
) -> tuple[Tensor, Tensor]:
    r"""Return the heat map of each small organ, and in which samples it is known.

    Parameters
    ----------
    target
        Label map (N, X, Y, Z).
    values
        Label value of each small organ.
    spacing_mm, sigma_mm
        Voxel edges, and SD of the Gaussian along every axis.

    Returns
    -------
    heat, known
        float32 (N, S, X, Y, Z) and boolean (N, S). An organ without a voxel has a map of zeros. Of an organ that
        touches the border of the patch the centre is not known: no loss.

    Notes
    -----
    .. math:: h(v) = \exp(-|v - c|^2 / 2 \sigma^2)

    with c the centroid of the label's voxels, in mm, between voxels if need be; cut to 0 below 0.01.
    """
    spacing = torch.as_tensor(spacing_mm, dtype=torch.float32, device=target.device)
    axes = [torch.arange(n, device=target.device) * mm for n, mm in zip(target.shape[1:], spacing, strict=True)]
    heat = torch.zeros(len(target), len(values), *target.shape[1:], device=target.device)
    known = torch.ones(len(target), len(values), dtype=torch.bool, device=target.device)
    for sample, labels in enumerate(target):
        for organ, value in enumerate(values):
            index = torch.nonzero(labels == value)
            if not len(index):
                continue
            last = torch.as_tensor(labels.shape, device=target.device) - 1
            known[sample, organ] = not bool(((index == 0) | (index == last)).any())
            centre = index.float().mean(dim=0) * spacing
            x, y, z = (torch.exp(-((axis - c) ** 2) / (2 * sigma_mm**2)) for axis, c in zip(axes, centre, strict=True))
            heat[sample, organ] = x[:, None, None] * y[:, None] * z
    return torch.where(heat > POSITIVE, heat, 0.0), known


class HeatLoss(nn.Module):
    r"""Mean squared error of heat maps in which the few positives count more.

    Parameters
    ----------
    values, spacing_mm, sigma_mm
        As for `heat_targets`.
    power
        A positive voxel weighs (negatives / positives) ** power of its map: 0 is the plain error, 1 gives both
        equal parts. At 1/2 the positives, a thousandth of a patch, have a thirtieth of the weight.

    Notes
    -----
    Gao et al. 2019 say mean squared error and no more. There the all-zero map has an error of 2e-4 and hardly a
    gradient away from it, so that the imbalance which the heat map was to remove is back.
    """

    def __init__(
        self, values: Sequence[int], spacing_mm: Sequence[float], sigma_mm: float = 5.0, *, power: float = 1.0
    ) -> None:
        super().__init__()
        self.values, self.spacing_mm, self.sigma_mm, self.power = tuple(values), tuple(spacing_mm), sigma_mm, power

    def forward(self, heat: Tensor, target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar, for maps (N, S, X, Y, Z) and labels (N, X, Y, Z)."""
        wanted, known = heat_targets(target, self.values, self.spacing_mm, self.sigma_mm)
        if labelled is not None:
            known = known & labelled.to(known.device)[:, list(self.values)]
        positive = wanted > 0
        share = positive.float().mean(dim=(2, 3, 4), keepdim=True).clamp(min=1e-6)
        weight = torch.where(positive, ((1 - share) / share) ** self.power, 1.0)
        errors = (weight * (heat.float() - wanted) ** 2).sum(dim=(2, 3, 4)) / weight.sum(dim=(2, 3, 4))
        return (errors * known).sum() / known.sum().clamp(min=1)


class RoiLoss(nn.Module):
    """Mean over the small organs of a loss of two classes in their ROIs.

    A sample counts for an organ where the organ is outlined and the ROI, which lies where SOL-Net put it, has a voxel
    of it: an absent organ gives no loss.

    Parameters
    ----------
    losses
        One for each small organ, called as ``loss(logits, target)`` with logits (N, 2, x, y, z).
    values
        Label value of each small organ.
    """

    def __init__(self, losses: Sequence[nn.Module], values: Sequence[int]) -> None:
        super().__init__()
        self.losses, self.values = nn.ModuleList(losses), tuple(values)

    def forward(self, output: Focused, target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar; 0 with a live graph where no ROI has its organ."""
        total, counted = sum((roi.float().sum() * 0 for roi in output.rois), torch.zeros(())), 0
        for organ, (value, loss) in enumerate(zip(self.values, self.losses, strict=True)):
            logits = output.rois[organ]
            truth = roi_pool(target[:, None], output.starts[:, organ], logits.shape[2:])[:, 0] == value
            present = truth.flatten(1).any(dim=1)
            if labelled is not None:
                present = present & labelled.to(present.device)[:, value]
            if present.any():
                total = total + loss(two_classes(logits[present]), truth[present].long())
                counted += 1
        return total / max(1, counted)


class FocusLoss(nn.Module):
    """Sum of the losses of S-Net, SOL-Net and SOS-Nets, for training them together; or of the ROIs alone."""

    def __init__(self, rois: RoiLoss, main: nn.Module | None = None, heat: HeatLoss | None = None) -> None:
        super().__init__()
        self.rois, self.main, self.heat = rois, main, heat

    def forward(self, output: Focused, target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar, for all that `hnlib.networks.focusnet.FocusNet` gives."""
        total: Tensor = self.rois(output, target, labelled)
        if self.main is not None:
            total = total + (self.main(output.logits, target) if labelled is None else self.main(
                output.logits, target, labelled
            ))  # fmt: skip
        if self.heat is not None:
            total = total + self.heat(output.heat, target, labelled)
        return total


def two_classes(logits: Tensor) -> Tensor:
    """Return the logits (N, 2, ...) of a softmax that equals the sigmoid of logits (N, 1, ...)."""
    return torch.cat([torch.zeros_like(logits), logits], dim=1)
