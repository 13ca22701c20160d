"""FocusNet (Gao et al. 2019): one network for all organs, a heat map and a small network of its own for each small one.

The main network (S-Net) segments all organs. The localisation network (SOL-Net) reads its last features and gives one
heat map for each small organ. A region of interest (ROI) around the highest voxel is cut out of features, image and
heat map, and the organ's own network (SOS-Net) segments it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from hnlib.networks.plan import Index

if TYPE_CHECKING:
    from hnlib.networks.seres_unet import SEResUNet

Reach = Literal["s_net", "sol_net", "sos_net", "joint"]
#: Of SOL-Net's output at the start, at every voxel: nearly nothing, as a heat map is. From a far lower logit at an
#: organ the squared error of a sigmoid has no gradient, and the organ's map never comes to life.
COLD_LOGIT = -4.0


class Focused(NamedTuple):
    """What FocusNet gives for a batch.

    Attributes
    ----------
    logits
        Of S-Net, (N, num_classes, X, Y, Z).
    heat
        Heat maps in 0..1, (N, S, X, Y, Z), one for each small organ.
    starts
        First voxel of each ROI, (N, S, 3).
    rois
        Logits of each small organ in its ROI, S tensors (N, 1, x, y, z).
    """

    logits: Tensor
    heat: Tensor
    starts: Tensor
    rois: tuple[Tensor, ...]


class FocusNet(nn.Module):
    """S-Net, SOL-Net and one SOS-Net for each small organ.

    Parameters
    ----------
    snet
        Gives features of its first and last level.
    channels
        Of each of these features.
    values
        Label value of each small organ.
    roi_voxels
        Size of each small organ's ROI along X, Y, Z.
    sos_channels
        Of the SOS-Nets.

    Notes
    -----
    Values and ROI sizes are buffers: they come from training statistics and travel with the weights.
    """

    values: Tensor
    roi_voxels: Tensor

    def __init__(
        self, snet: SEResUNet, channels: int, values: Sequence[int], roi_voxels: Sequence[Index], sos_channels: int
    ) -> None:
        super().__init__()
        self.snet = snet
        self.sol = _head(channels, channels, len(values))
        nn.init.zeros_(self.sol[-1].weight)  # type: ignore[arg-type]
        nn.init.constant_(self.sol[-1].bias, COLD_LOGIT)  # type: ignore[arg-type]
        self.sos = nn.ModuleList(_head(2 * channels + 2, sos_channels, 1) for _ in values)
        self.register_buffer("values", torch.tensor(values, dtype=torch.long))
        self.register_buffer("roi_voxels", torch.tensor(roi_voxels, dtype=torch.long).reshape(-1, 3))
        self.reach: Reach = "joint"

    @property
    def sizes(self) -> list[Index]:
        """ROI size of each small organ."""
        return [(int(x), int(y), int(z)) for x, y, z in self.roi_voxels.tolist()]

    def train_stage(self, stage: Reach) -> FocusNet:
        """Freeze what a stage does not train, and compute no more than it needs; return self."""
        self.reach = stage
        trained = {"s_net": (self.snet,), "sol_net": (self.sol,), "sos_net": (self.sos,)}
        self.requires_grad_(stage == "joint")
        for module in trained.get(stage, ()):
            module.requires_grad_(True)
        return self

    def forward(self, image: Tensor) -> Tensor | Focused:
        """Map an image (N, 1, X, Y, Z) to S-Net's logits (stage s_net), the heat maps (sol_net) or everything."""
        if self.reach == "s_net":
            logits: Tensor = self.snet(image)
            return logits
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.reach == "joint"):
            first, last = self.snet.features(image)
        heat = self.locate(last)
        if self.reach == "sol_net":
            return heat
        starts = roi_starts(highest_voxels(heat), heat.shape[2:], self.sizes)
        rois = tuple(self.segment(k, first, last, image, heat, starts[:, k]) for k in range(len(self.sos)))
        return Focused(self.snet.head(last), heat, starts, rois)

    def locate(self, last: Tensor) -> Tensor:
        """Return heat maps in 0..1, float32, from the features of S-Net's last level."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.reach != "sos_net"):
            return torch.sigmoid(self.sol(last).float())

    def segment(self, organ: int, first: Tensor, last: Tensor, image: Tensor, heat: Tensor, starts: Tensor) -> Tensor:
        """Return the logits (N, 1, x, y, z) of one small organ in the ROIs that begin at `starts` (N, 3)."""
        size = self.sizes[organ]
        parts = [roi_pool(part, starts, size) for part in (last, first, image, heat[:, organ : organ + 1])]
        logits: Tensor = self.sos[organ](torch.cat([part.to(parts[0].dtype) for part in parts], dim=1))
        return logits


def _head(in_channels: int, channels: int, out_channels: int) -> nn.Sequential:
    """Return two blocks and a convolution of kernel 1."""
    from hnlib.networks.squeeze_excitation import SEResBlock  # MONAI takes seconds to import

    blocks = SEResBlock(3, in_channels, channels), SEResBlock(3, channels, channels)
    return nn.Sequential(*blocks, nn.Conv3d(channels, out_channels, 1))


def highest_voxels(heat: Tensor) -> Tensor:
    """Return the index (N, S, 3) of the highest voxel of each map (N, S, X, Y, Z); of equal ones the first.

    A map without a peak gives the first voxel; its height tells (`hnlib.systems.focusnet` has a gate for it).

    Examples
    --------
    >>> heat = torch.zeros(1, 1, 2, 3, 4)
    >>> heat[0, 0, 1, 2, 3] = 1
    >>> highest_voxels(heat).tolist()
    [[[1, 2, 3]]]
    """
    place = heat.flatten(2).argmax(dim=2)
    return torch.stack(torch.unravel_index(place, heat.shape[2:]), dim=-1)


def roi_starts(centres: Tensor, shape: Sequence[int], sizes: Sequence[Index]) -> Tensor:
    """Return the first voxel (N, S, 3) of the ROI around each centre (N, S, 3), moved into the volume at a border.

    The rule is that of training patches: centre - size // 2, clamped. A ROI longer than the volume starts at 0.
    """
    size = torch.as_tensor(sizes, device=centres.device).reshape(-1, 3)
    last = (torch.as_tensor(shape, device=centres.device) - size).clamp(min=0)
    return torch.minimum((centres - size // 2).clamp(min=0), last)


def roi_pool(volume: Tensor, starts: Tensor, size: Sequence[int]) -> Tensor:
    """Cut the ROI of each sample out of a volume (N, C, X, Y, Z): whole voxels, differentiable in their values.

    Where the volume is shorter than the ROI along an axis, so is the result.
    """
    (x, y, z), pieces = size, []
    for sample, (i, j, k) in zip(volume, starts.tolist(), strict=True):
        pieces.append(sample[:, i : i + x, j : j + y, k : k + z])
    return torch.stack(pieces)
