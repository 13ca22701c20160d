"""Slices of a volume along three axes: cut, stacked again, changed at random, predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from hnlib.errors import DataError, unknown
from hnlib.preprocess import Prepared
from hnlib.training import channels_last

Scalar = TypeVar("Scalar", bound=np.generic)
#: View to the axis of (X, Y, Z) that its slices stand on.
VIEWS: Mapping[str, int] = MappingProxyType({"axial": 2, "coronal": 1, "sagittal": 0})


def to_slices(volume: NDArray[Scalar], view: str) -> NDArray[Scalar]:
    """Return the slices of a volume (X, Y, Z): a view of it, shape (slices, ...) with the other axes in their order."""
    return np.moveaxis(volume, _axis(view), 0)


def to_volume(slices: NDArray[Scalar], view: str) -> NDArray[Scalar]:
    """Return the volume (..., X, Y, Z) of slices (slices, ..., rows, columns): the inverse of `to_slices`.

    Examples
    --------
    >>> volume = np.arange(24).reshape(2, 3, 4)
    >>> all((to_volume(to_slices(volume, view), view) == volume).all() for view in VIEWS)
    True
    """
    return np.moveaxis(slices, 0, slices.ndim - 3 + _axis(view))


def _axis(view: str) -> int:
    if view not in VIEWS:
        raise unknown("view", view, VIEWS)
    return VIEWS[view]


def in_memory(cases: Sequence[Prepared], divisor: int = 8) -> list[Prepared]:
    """Read cases whole and pad all, behind, to one shape whose sides divide by ``divisor``.

    Images are kept in half precision, as in the cache: any slice of any view of 100 cases is then at hand.

    Raises
    ------
    DataError
        When there is no case.
    """
    if not cases:
        raise DataError("no training case: check the split of the data set")
    shape = padded(np.max([case.image.shape for case in cases], axis=0), divisor)

    def fill(array: NDArray[Scalar], value: float) -> NDArray[Scalar]:
        beyond = [(0, wide - n) for wide, n in zip(shape, array.shape, strict=True)]
        return np.pad(array, beyond, constant_values=value)

    return [
        replace(
            case,
            image=fill(np.asarray(case.image).astype(np.float16), case.low),
            labels=fill(np.asarray(case.labels), 0),
        )
        for case in cases
    ]


def padded(shape: Sequence[int], divisor: int) -> tuple[int, ...]:
    """Return a shape with each side rounded up to a multiple."""
    return tuple(-(-int(n) // divisor) * divisor for n in shape)


class SliceStream:
    """Batches of slices of one view, drawn uniformly from all slices of all cases, shifted and turned at random.

    Parameters
    ----------
    cases
        From `in_memory`.
    view
        One of `VIEWS`.
    known
        For each case, which classes were outlined in it; None where all were in all.
    shift, degrees
        Largest shift along either axis, in voxels, and largest rotation; both are drawn uniformly for each slice.
        The grid is taken as isotropic.
    """

    def __init__(
        self,
        cases: Sequence[Prepared],
        view: str,
        seed: int,
        *,
        batch_size: int,
        known: NDArray[np.bool_] | None = None,
        shift: float = 0.0,
        degrees: float = 0.0,
    ) -> None:
        self._images = [to_slices(case.image, view) for case in cases]
        self._labels = [to_slices(case.labels, view) for case in cases]
        self._low = [case.low for case in cases]
        self._known, self._seed, self._batch_size = known, seed, batch_size
        self._shift, self._degrees = shift, degrees

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, ...]:
        """Return images (N, 1, rows, columns) float32, targets (N, rows, columns) int64, and (N, C) where some unknown.

        A function of (seed, step); each of several processes has its part of the one batch.
        """
        rng = np.random.default_rng((self._seed, step))
        case = rng.integers(len(self._images), size=self._batch_size)
        place = rng.integers(len(self._images[0]), size=self._batch_size)
        turns = rng.uniform(-1, 1, (self._batch_size, 3)) * (self._degrees, self._shift, self._shift)
        own = slice(rank, None, world_size)
        chosen = list(zip(case[own], place[own], strict=True))
        low = torch.tensor([self._low[c] for c in case[own]], dtype=torch.float32)[:, None, None, None]
        images = torch.from_numpy(np.stack([self._images[c][p].astype(np.float32) for c, p in chosen])[:, None])
        labels = torch.from_numpy(np.stack([self._labels[c][p] for c, p in chosen]))
        if self._shift or self._degrees:
            grid = turned_grid(turns[own], images.shape[2:])
            images = grid_sample(images - low, grid, align_corners=False) + low
            labels = grid_sample(labels[:, None].float(), grid, mode="nearest", align_corners=False)[:, 0]
        batch = (images, labels.long())
        return batch if self._known is None else (*batch, torch.from_numpy(self._known[case[own]]))


def turned_grid(turns: NDArray[np.float64], shape: Sequence[int]) -> Tensor:
    """Return where `torch.nn.functional.grid_sample` reads slices that are turned about their middle and shifted.

    Parameters
    ----------
    turns
        Shape (N, 3): degrees, shift along rows and along columns in voxels.
    shape
        Rows and columns; voxels are squares, so a turn keeps shapes also where the slice is no square.
    """
    angle = np.deg2rad(turns[:, 0])
    rows, columns = shape
    matrix = np.empty((len(turns), 2, 3))  # torch counts columns first
    matrix[:, 0] = np.stack([np.cos(angle), -np.sin(angle) * rows / columns, 2 * turns[:, 2] / columns], 1)
    matrix[:, 1] = np.stack([np.sin(angle) * columns / rows, np.cos(angle), 2 * turns[:, 1] / rows], 1)
    return affine_grid(torch.from_numpy(matrix).float(), [len(turns), 1, rows, columns], align_corners=False)


def view_logits(
    network: nn.Module,
    image: NDArray[np.float32],
    view: str,
    *,
    device: torch.device | str = "cpu",
    slices_at_once: int = 16,
    divisor: int = 8,
) -> NDArray[np.float32]:
    """Return log-probabilities (C, X, Y, Z) of a volume from a 2D network that reads its slices.

    Logits with their free constant fixed, so that those of several views can be weighted class by class.
    """
    beyond = [(0, wide - n) for wide, n in zip(padded(image.shape, divisor), image.shape, strict=True)]
    filled = np.pad(image, beyond, constant_values=image.min())
    slices = np.ascontiguousarray(to_slices(filled, view)[: image.shape[VIEWS[view]], None], np.float32)
    found = []
    with torch.inference_mode():
        for part in torch.from_numpy(slices).split(slices_at_once):
            logits = network(channels_last(part.to(device))).float()
            found.append(torch.log_softmax(logits, dim=1).cpu().numpy())
    x, y, z = image.shape
    return np.ascontiguousarray(to_volume(np.concatenate(found), view)[:, :x, :y, :z])
