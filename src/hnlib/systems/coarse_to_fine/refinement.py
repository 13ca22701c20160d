"""The fine stage: boxes cut out for training, organs outlined in their boxes, and all put together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hnlib.errors import DataError
from hnlib.preprocess import Prepared
from hnlib.sampling import extract
from hnlib.systems.coarse_to_fine.target_boxes import OrganBoxes, TargetBox, label_box, start_about
from hnlib.training import channels_last


class BoxStream:
    """Batches of organ boxes, moved at random by what the boxes of the coarse stage are off.

    Parameters
    ----------
    cases
        Training cases in memory.
    organs
        Of the labels.
    places
        The organ, by its place in `organs`, or the two of a pair: then each sample is of either, and the second's
        box is mirrored along X, so that one network learns both.
    boxes
        Sizes and jitter.
    """

    def __init__(
        self,
        cases: Sequence[Prepared],
        organs: Sequence[str],
        places: Sequence[int],
        boxes: OrganBoxes,
        seed: int,
        *,
        batch_size: int,
    ) -> None:
        self._seed, self._batch_size, self._boxes = seed, batch_size, boxes
        self._samples = [
            (case, place, [(a + b) / 2 for a, b in box])
            for case in cases
            for place in places
            if (box := label_box(case, organs, organs[place]))
        ]
        self._mirrored = places[1:]
        if not self._samples:
            raise DataError(f"organ {organs[places[0]]}: is in no training case; leave it out (organs)")

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, ...]:
        """Return images (N, 1, ...) float32 and masks of the organ (N, ...) int64."""
        rng = np.random.default_rng((self._seed, step))
        chosen = rng.integers(len(self._samples), size=self._batch_size)
        offsets = rng.normal(size=(self._batch_size, 3))
        images, masks = [], []
        for index, offset in list(zip(chosen, offsets, strict=True))[rank::world_size]:
            case, place, middle = self._samples[index]
            size = self._boxes.size(place)
            moved = np.asarray(middle) + offset * self._boxes.jitter[place].numpy()
            start = start_about(moved.tolist(), case.image.shape, size)
            image = extract(case.image, start, size, case.low).astype(np.float32)
            mask = (extract(case.labels, start, size, 0) == place + 1).astype(np.int64)
            flip = slice(None, None, -1 if place in self._mirrored else 1)
            images.append(image[flip])
            masks.append(mask[flip])
        return torch.from_numpy(np.stack(images)[:, None]), torch.from_numpy(np.stack(masks))


def outline(
    network: nn.Module,
    image: NDArray[np.float32],
    box: TargetBox,
    *,
    mirrored: bool = False,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Return the probability of an organ in its box.

    Parameters
    ----------
    network
        Two classes, the organ the second.
    image
        The whole volume (X, Y, Z); where the box leaves it, its lowest value is read.
    mirrored
        Mirror the box along X for the network: it knows the partner on the other side.
    """
    flip = slice(None, None, -1 if mirrored else 1)
    cut = np.ascontiguousarray(extract(image, box.start, box.size, float(image.min()))[flip], np.float32)
    with torch.inference_mode():
        logits = network(channels_last(torch.from_numpy(cut)[None, None].to(device))).float()
        found: NDArray[np.float32] = torch.softmax(logits, dim=1)[0, 1].cpu().numpy()
    return np.ascontiguousarray(found[flip])


def combine(
    coarse: NDArray[np.float32],
    boxes: Sequence[TargetBox],
    fine: Sequence[NDArray[np.float32]],
    *,
    outside: bool = True,
) -> NDArray[np.float32]:
    r"""Return probabilities (C, X, Y, Z) from the fine masks in their boxes and the coarse ones elsewhere.

    Parameters
    ----------
    coarse
        Probabilities (C, X, Y, Z).
    boxes, fine
        For each organ, in label order, its box and the probability in it. What lies outside the volume is dropped.
    outside
        Whether an organ keeps its coarse probability outside its box; else it has none there.

    Raises
    ------
    ValueError
        When there are not as many boxes as organs, or a mask has not its box's size.

    Notes
    -----
    Each organ has a probability s of its own. Given that a voxel has at most one of them, organ j has
    :math:`o_j / (1 + \sum_k o_k)` with odds :math:`o = s / (1 - s)`: the most probable class is the organ with the
    largest s if that is above one half, else background, in whatever order the organs come.
    """
    if len(boxes) != len(coarse) - 1 or len(fine) != len(boxes):
        raise ValueError(f"{len(boxes)} boxes and {len(fine)} masks for {len(coarse) - 1} organs; one each is needed")
    own = coarse[1:].copy() if outside else np.zeros_like(coarse[1:])
    for place, (box, mask) in enumerate(zip(boxes, fine, strict=True)):
        if mask.shape != box.size:
            raise ValueError(f"a mask of shape {mask.shape} for a box of {box.size}")
        goal = tuple(
            slice(max(s, 0), min(s + n, wide)) for s, n, wide in zip(box.start, box.size, own.shape[1:], strict=True)
        )
        source = tuple(slice(g.start - s, g.stop - s) for g, s in zip(goal, box.start, strict=True))
        own[place][goal] = mask[source]
    own = np.clip(own, 0, 1 - 1e-6)
    odds = own / (1 - own)
    whole = np.concatenate([np.ones_like(odds[:1]), odds])
    return np.asarray(whole / whole.sum(axis=0), np.float32)
