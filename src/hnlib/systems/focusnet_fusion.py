"""FocusNet's prediction of a case: where the small organs are, what the small networks say there, and both fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hnlib.inference import keep_largest_components, sliding_window
from hnlib.metrics import centre_error_mm
from hnlib.networks.focusnet import FocusNet, highest_voxels, roi_starts
from hnlib.preprocess import Plan, Prepared
from hnlib.systems.one_network import dsc

Triple = tuple[int, int, int]
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """What a scan's heat map and ROI gave for one small organ.

    Attributes
    ----------
    value
        Label of the organ.
    centre, peak
        The highest voxel of its heat map, and its height.
    accepted
        Whether the peak passes the gate.
    start, size
        First voxel of the ROI, and its edges; where the scan is shorter it ends with the scan.
    probability
        Of the organ in its ROI, (x, y, z); None where the gate is shut.
    """

    value: int
    centre: Triple
    peak: float
    accepted: bool
    start: Triple
    size: Triple
    probability: Array | None = None

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The ROI."""
        x, y, z = (slice(s, s + n) for s, n in zip(self.start, self.size, strict=True))
        return x, y, z


@dataclass(frozen=True)
class Look:
    """What FocusNet made of a scan on its way to the probabilities.

    Attributes
    ----------
    found
        One entry for each small organ.
    before, after
        Class map (X, Y, Z), uint8, by S-Net alone and fused.
    """

    found: Sequence[Found]
    before: NDArray[np.uint8]
    after: NDArray[np.uint8]


class _Everything(nn.Module):
    """Logits and features of S-Net side by side, as the sliding window wants one tensor."""

    def __init__(self, network: FocusNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        first, last = self.network.snet.features(image)
        return torch.cat([self.network.snet.head(last), first, last], dim=1).float()


class FocusPredictor:
    """A trained FocusNet: a sliding window for S-Net, then one pass of SOL-Net and of each SOS-Net.

    Parameters
    ----------
    network
        Trained.
    patch
        Voxels of the sliding window.
    gate
        Least height of a heat map's peak; below it the organ counts as not located, and S-Net has the word.
    mirror
        As for `hnlib.inference.predict_probabilities`.
    largest_voxels
        SOL-Net reads a scan of at most so many voxels at once, a larger one through the window.
    device
        Where the networks are.

    Attributes
    ----------
    last
        What was made of the last scan.

    Notes
    -----
    ``largest_voxels`` bounds SOL-Net's pass and nothing else. Whatever the size of the scan, S-Net's logits and its
    first and last features of all of it are held, float32: 4 bytes a voxel for each class and twice for each channel
    of the width (9 organs and a width of 8: 104 bytes), and the probabilities before and after the fusion. The
    features are blended over overlapping windows, as the logits are, before SOL-Net and the SOS-Nets read them; in
    training these read the features of one patch.
    """

    last: Look

    def __init__(
        self,
        network: FocusNet,
        patch: Sequence[int],
        *,
        gate: float,
        mirror: Sequence[int] = (),
        largest_voxels: int = 2**24,
        device: torch.device | str = "cpu",
    ) -> None:
        self.network, self.patch, self.gate, self.mirror = network, tuple(patch), gate, tuple(mirror)
        self.largest_voxels, self.device = largest_voxels, device

    def __call__(self, image: Array) -> Array:
        """Return class probabilities (C, X, Y, Z), float32, of one normalised image (X, Y, Z)."""
        before, after, found = self.look(image)
        if self.mirror:
            turned = self.look(np.ascontiguousarray(image[::-1]))[:2]
            before, after = (
                ((straight + other[list(self.mirror), ::-1]) / 2).astype(np.float32)
                for straight, other in zip((before, after), turned, strict=True)
            )
        self.last = Look(found, *(part.argmax(axis=0).astype(np.uint8) for part in (before, after)))
        return after

    def look(self, image: Array) -> tuple[Array, Array, list[Found]]:
        """Return an image's probabilities by S-Net alone and fused, and what was found of each small organ."""
        network, was_training = self.network, self.network.training
        network.eval()
        with torch.inference_mode():
            tensor = torch.from_numpy(np.ascontiguousarray(image))[None, None].to(self.device)
            tensor = tensor.contiguous(memory_format=torch.channels_last_3d)
            whole = sliding_window(_Everything(network), tensor, self.patch)
            classes = network.snet.head.out_channels
            first, last = whole[:, classes:].chunk(2, dim=1)
            heat = self.heat(last)
            found = [self._look_at(organ, first, last, tensor, heat) for organ in range(len(network.sos))]
            probabilities = torch.softmax(whole[0, :classes], dim=0).cpu().numpy()
        network.train(was_training)
        return probabilities, fuse(probabilities, found), found

    def heat(self, last: Tensor) -> Tensor:
        """Return the heat maps of a scan from its features, at once where memory allows."""
        if last[0, 0].numel() <= self.largest_voxels:
            return self.network.locate(last)
        return sliding_window(_Locate(self.network), last, self.patch)

    def _look_at(self, organ: int, first: Tensor, last: Tensor, image: Tensor, heat: Tensor) -> Found:
        network = self.network
        centres = highest_voxels(heat)[:, organ : organ + 1]
        starts = roi_starts(centres, image.shape[2:], [network.sizes[organ]])
        x, y, z = centres[0, 0].tolist()
        peak = float(heat[0, organ, x, y, z])
        i, j, k = starts[0, 0].tolist()
        probability = None
        if peak >= self.gate:
            logits = network.segment(organ, first, last, image, heat, starts[:, 0])
            probability = torch.sigmoid(logits.float())[0, 0].cpu().numpy()
        size, value = network.sizes[organ], int(network.values[organ])
        return Found(value, (x, y, z), peak, peak >= self.gate, (i, j, k), size, probability)


def localisation(look: Look, prepared: Prepared, plan: Plan) -> dict[tuple[str, str], float]:
    """Return what FocusNet's way to a case's prediction is worth, on the plan's grid, by (organ, metric).

    Returns
    -------
    dict
        Of each small organ that is outlined: ``located``, whether the gate is open, and ``centre_peak``, also where the
        organ has no voxel, so that a gate that opens for nothing is seen. Of those that have a voxel besides:
        ``centre_error_mm``; ``roi_recall``, the share of the organ's voxels inside its ROI, whatever the gate says; and
        the DSC before and after the fusion, ``s_net_dsc`` and ``fused_dsc``, the largest component kept as in the
        metrics of the case.
    """
    values: dict[tuple[str, str], float] = {}
    labels = np.asarray(prepared.labels)
    maps = {"s_net_dsc": keep_largest_components(look.before), "fused_dsc": keep_largest_components(look.after)}
    for one in look.found:
        name, mask = plan.organs[one.value - 1], labels == one.value
        if name not in prepared.labelled:
            continue
        values[name, "located"], values[name, "centre_peak"] = float(one.accepted), one.peak
        if mask.any():
            values[name, "centre_error_mm"] = centre_error_mm(mask, one.centre, plan.spacing_mm)
            values[name, "roi_recall"] = float(mask[one.box].sum() / mask.sum())
            values |= {(name, metric): dsc(mask, found == one.value) for metric, found in maps.items()}
    return values


class _Locate(nn.Module):
    def __init__(self, network: FocusNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, last: Tensor) -> Tensor:
        return self.network.locate(last)


def fuse(probabilities: Array, found: Sequence[Found]) -> Array:
    """Put the small networks' probabilities in the place of the main network's, each inside its ROI.

    Parameters
    ----------
    probabilities
        Of S-Net, (C, X, Y, Z), summing to 1 over C.
    found
        Of each small organ. One that the gate refused, or of whose ROI no voxel is above one half, is left as S-Net
        has it: a small network that sees nothing is no evidence of absence.

    Returns
    -------
    ndarray
        (C, X, Y, Z), float32, summing to 1. Inside the ROIs an organ has the probability of its own network, one of at
        most one half counted as 0, so that no organ stands where its own network says no; the other classes share what
        is left as S-Net has them. Where ROIs overlap and the organs' probabilities sum to more than 1 they are divided
        by the sum, so that the higher one wins. Outside nothing changes: what S-Net marks there stays.
    """
    seen = [f for f in found if f.probability is not None and bool((f.probability > 0.5).any())]
    fused = probabilities.astype(np.float32, copy=True)
    covered = np.zeros((len(seen), *probabilities.shape[1:]), bool)
    for mask, f in zip(covered, seen, strict=True):
        says = np.asarray(f.probability)
        fused[(f.value, *f.box)] = np.where(says > 0.5, says, 0)
        mask[f.box] = True
    if not seen:
        return fused
    where = covered.any(axis=0)
    own = np.zeros((len(probabilities), int(where.sum())), bool)
    for mask, f in zip(covered, seen, strict=True):
        own[f.value] = mask[where]
    inside = fused[:, where]
    small = np.where(own, inside, 0)
    rest = np.where(own, 0, inside)
    claimed = small.sum(axis=0)
    left = np.maximum(1 - claimed, 0)
    total = rest.sum(axis=0)
    rest = rest * (left / np.maximum(total, 1e-12))
    rest[0] += np.where(total > 1e-12, 0, left)  # S-Net gave all to the organ: what is left is background
    fused[:, where] = small / np.maximum(claimed, 1) + rest
    return fused
