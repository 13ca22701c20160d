"""Several views of a volume made one: by their plain mean, or by weights learned on predictions out of fold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hnlib.preprocess import Prepared
from hnlib.systems.coarse_to_fine.target_boxes import OrganBoxes

#: Voxels of a patient that the weights see in a step.
VOXELS = 4096


class Fusion(nn.Module):
    """One weight for each view and class on its log-probabilities; softmax comes after, with the loss or the user.

    Attributes
    ----------
    weights
        (views, classes), at first 1 / views: the plain mean.
    boxes
        What the later stages must know of the organs' boxes; no part of the sum.
    """

    def __init__(self, num_views: int, num_classes: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((num_views, num_classes), 1 / num_views))
        self.boxes = OrganBoxes(num_classes - 1)

    def forward(self, logits: Tensor) -> Tensor:
        """Map the views' logits, one behind the other (N, views * C, ...), to fused ones (N, C, ...)."""
        views = logits.unflatten(1, tuple(self.weights.shape))
        fused: Tensor = (views * self.weights.view(1, *self.weights.shape, *[1] * (logits.ndim - 2))).sum(dim=1)
        return fused


def fuse(views: Sequence[NDArray[np.float32]], weights: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Return probabilities (C, X, Y, Z) from the log-probabilities of several views: weighted sum, then softmax.

    Parameters
    ----------
    views
        Each (C, X, Y, Z).
    weights
        (views, C), of a `Fusion`; None takes the mean of the logits.

    Raises
    ------
    ValueError
        When the views differ in classes or grid, are no log-probabilities, or the weights are not theirs.

    Examples
    --------
    Two views of one voxel, the odds of its second class 1 and 9: the mean of the logits has their geometric mean, 3.

    >>> one, two = (np.log(np.array([[1 - p], [p]])).reshape(2, 1, 1, 1) for p in (0.5, 0.9))
    >>> fuse([one, two]).ravel().round(3).tolist()
    [0.25, 0.75]
    """
    shapes = {view.shape for view in views}
    if len(shapes) != 1:
        raise ValueError(f"views have shapes {sorted(shapes)}; the same classes and grid are needed in all")
    highest = max(float(view.max()) for view in views)
    if highest > 1e-3:
        raise ValueError(f"a view has values up to {highest:.3g}; log-probabilities are needed, none above 0")
    if weights is None:
        weights = np.full((len(views), len(views[0])), 1 / len(views), np.float32)
    if weights.shape != (len(views), len(views[0])):
        raise ValueError(
            f"weights have shape {weights.shape}; {(len(views), len(views[0]))} is needed, views by classes"
        )
    logits = sum(w[:, None, None, None] * view for w, view in zip(weights, views, strict=True))
    probabilities: NDArray[np.float32] = torch.softmax(torch.from_numpy(np.asarray(logits)), dim=0).numpy()
    return probabilities


def informative(views: Sequence[NDArray[np.float32]], labels: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Return the flat indices of the voxels that are organ by the label or by some view.

    Where all agree on background, which is nearly everywhere, no weighting changes anything.
    """
    seen = labels > 0
    for view in views:
        seen = seen | (view.argmax(axis=0) > 0)
    return np.flatnonzero(seen)


class FusionStream:
    """Batches of voxels of patients whose predictions come from networks that were not trained on them.

    Parameters
    ----------
    logits
        For each patient (voxels, views * classes): log-probabilities at voxels from `informative`.
    labels
        For each patient (voxels,).
    known
        For each patient the classes that were outlined; None where all were in all.
    """

    def __init__(
        self,
        logits: Sequence[NDArray[np.float32]],
        labels: Sequence[NDArray[np.uint8]],
        seed: int,
        *,
        batch_size: int,
        known: NDArray[np.bool_] | None = None,
    ) -> None:
        self._logits, self._labels, self._known = logits, labels, known
        self._seed, self._batch_size = seed, batch_size

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, ...]:
        """Return logits (N, views * C, voxels, 1), targets (N, voxels, 1), and (N, C) where some class is unknown."""
        rng = np.random.default_rng((self._seed, step))
        chosen = rng.integers(len(self._logits), size=self._batch_size)
        places = rng.random((self._batch_size, VOXELS))
        logits, labels = [], []
        for patient, place in list(zip(chosen, places, strict=True))[rank::world_size]:
            at = (place * len(self._labels[patient])).astype(np.intp)
            logits.append(self._logits[patient][at].T)
            labels.append(self._labels[patient][at])
        batch = (torch.from_numpy(np.stack(logits))[..., None], torch.from_numpy(np.stack(labels)).long()[..., None])
        return batch if self._known is None else (*batch, torch.from_numpy(self._known[chosen[rank::world_size]]))


def folds(cases: Sequence[Prepared], count: int, fold: int) -> list[Prepared]:
    """Return the cases of all folds but one; case i is of fold ``i % count``."""
    return [case for place, case in enumerate(cases) if place % count != fold]
