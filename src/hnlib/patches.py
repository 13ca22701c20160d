"""The training patches: which case, which centre, cut out, changed at random and stacked.

The patches of step t are a function of (seed, t) alone, so a run that was killed continues with
the patches it would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hnlib.augmentation import AUGMENTATIONS, Augmentation, change_intensity, draw_matrix, spatial_patch
from hnlib.errors import DataError
from hnlib.preprocess import Plan, Prepared
from hnlib.sampling import CentreDistribution, CentreSampler, extract, patch_start


class PatchStream:
    """The batches of a training run.

    Parameters
    ----------
    cases
        Preprocessed training cases.
    plan
        Their plan; it turns normalised values back into HU for a rule that is gated by HU.
    rule
        The distribution of patch centres.
    patch_size
        Voxels along X, Y, Z.
    seed
        Seed of the run.
    batch_size
        Patches a step.
    same_case
        True: all patches of a step come from one case. False: each from its own.
    mirror
        Value of every label in the mirrored patient (`hnlib.organs.mirror_values`): half of the patches
        are mirrored along X. Empty: none is.
    changes
        The random rotations, scalings and changes of intensity.
    """

    def __init__(
        self,
        cases: Sequence[Prepared],
        plan: Plan,
        rule: CentreDistribution,
        patch_size: Sequence[int],
        seed: int,
        *,
        batch_size: int = 2,
        same_case: bool = False,
        mirror: Sequence[int] = (),
        changes: Augmentation = AUGMENTATIONS["none"],
    ) -> None:
        if not cases:
            raise DataError("no training case: check the split of the data set")
        self._cases, self._plan = cases, plan
        self._rule, self._patch, self._seed = rule, tuple(patch_size), seed
        self._batch_size, self._same_case = batch_size, same_case
        self._mirror, self._changes = np.asarray(mirror, np.int64), changes
        self._samplers = [self._sampler(case) for case in cases]
        known = [[True, *(organ in case.labelled for organ in plan.organs)] for case in cases]
        self._labelled = None if np.all(known) else np.array(known)

    def _sampler(self, case: Prepared) -> CentreSampler:
        """Return the sampler of a case; its volumes are read once and let go."""
        needed = self._rule.needs_image
        image_hu = np.asarray(case.image) * self._plan.sd_hu + self._plan.mean_hu if needed else None
        return CentreSampler(self._rule, np.asarray(case.labels), self._patch, image_hu)

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, ...]:
        """Return one step's images (N, 1, X, Y, Z) float32 and targets (N, X, Y, Z) int64.

        Where some case has organs that nobody outlined, a third tensor (N, C), boolean, says which
        classes were. With several processes each has every ``world_size``-th patch of the one batch
        that a single process would have.
        """
        rng = np.random.default_rng((self._seed, step))
        chosen = rng.integers(len(self._cases), size=self._batch_size)
        images, targets, labelled = [], [], []
        for slot, component in enumerate(self._rule.allocate(self._batch_size, rng)):
            index = int(chosen[0 if self._same_case else slot])
            case = self._cases[index]
            start = patch_start(self._samplers[index].draw(rng, component), case.image.shape, self._patch)
            mirrored = len(self._mirror) > 0 and rng.random() < 0.5
            if slot % world_size != rank:
                continue
            image, target = self._cut(case, start, np.random.default_rng((self._seed, step, slot, 1)))
            known = np.ones(len(self._plan.organs) + 1, bool) if self._labelled is None else self._labelled[index]
            if mirrored:
                image, target, known = image[::-1], self._mirror[target[::-1]], known[self._mirror]
            images.append(image)
            targets.append(target)
            labelled.append(known)
        batch = (torch.from_numpy(np.stack(images)[:, None]), torch.from_numpy(np.stack(targets)))
        return batch if self._labelled is None else (*batch, torch.from_numpy(np.stack(labelled)))

    def _cut(
        self, case: Prepared, start: Sequence[int], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        matrix = draw_matrix(rng, self._changes, self._plan.spacing_mm)
        if matrix is not None:
            image, target = spatial_patch(case.image, case.labels, start, self._patch, matrix, fill=case.low)
        else:
            image = extract(case.image, start, self._patch, case.low)
            target = extract(case.labels, start, self._patch, 0)
        return change_intensity(image, rng, self._changes), target.astype(np.int64)
