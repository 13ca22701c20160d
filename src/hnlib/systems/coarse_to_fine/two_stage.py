"""The rival of two 3D stages: one network finds the organs in a coarse volume, others outline them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d, interpolate

from hnlib.losses import build_loss
from hnlib.networks import build_network, set_output_prior
from hnlib.preprocess import Prepared
from hnlib.systems.coarse_to_fine.refinement import combine
from hnlib.systems.coarse_to_fine.slices import known_classes
from hnlib.systems.coarse_to_fine.stages import FineStage
from hnlib.systems.coarse_to_fine.target_boxes import OrganBoxes
from hnlib.systems.coarse_to_fine.views import padded
from hnlib.systems.one_network import validation_dsc
from hnlib.systems.system import Material, Part, Predictor, Weights
from hnlib.training import channels_last, load_state

#: By how much the first network's grid is coarser.
COARSER = 2


class Locator(nn.Module):
    """A 3D network over the whole volume on a grid half as fine, with what the boxes are in training."""

    def __init__(self, network: nn.Module, num_organs: int) -> None:
        super().__init__()
        self.network, self.boxes = network, OrganBoxes(num_organs)

    def forward(self, x: Tensor) -> Tensor:
        """Map a coarse volume (N, 1, X, Y, Z) to logits."""
        logits: Tensor = self.network(x)
        return logits


class VolumeStream:
    """Batches of whole volumes on the coarse grid."""

    def __init__(
        self, cases: Sequence[Prepared], seed: int, *, batch_size: int, known: NDArray[np.bool_] | None
    ) -> None:
        self._images = [case.image.astype(np.float32) for case in cases]
        self._labels = [coarse_labels(case.labels) for case in cases]
        self._known, self._seed, self._batch_size = known, seed, batch_size

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, ...]:
        """Return images (N, 1, ...) float32, targets (N, ...) int64, and (N, C) where some class is unknown."""
        rng = np.random.default_rng((self._seed, step))
        chosen = rng.integers(len(self._images), size=self._batch_size)[rank::world_size]
        images = np.stack([self._images[c] for c in chosen])[:, None]
        labels = np.stack([self._labels[c] for c in chosen])
        batch = (avg_pool3d(torch.from_numpy(images), COARSER), torch.from_numpy(labels).long())
        return batch if self._known is None else (*batch, torch.from_numpy(self._known[chosen]))


def coarse_labels(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the commonest label of each coarse voxel, of equals an organ before the background.

    Examples
    --------
    >>> labels = np.zeros((4, 2, 2), np.uint8)
    >>> labels[1:3] = 1
    >>> coarse_labels(labels).ravel()
    array([1, 1], dtype=uint8)
    """
    x, y, z = (n // COARSER for n in labels.shape)
    blocks = labels.reshape(x, COARSER, y, COARSER, z, COARSER)
    counts = [(blocks == label).sum(axis=(1, 3, 5)) for label in range(int(labels.max()) + 1)]
    return np.asarray(len(counts) - 1 - np.argmax(counts[::-1], axis=0), np.uint8)


class TwoStage(FineStage):
    """Locate, then segment, both in 3D (after Wang et al. 2019): the box of each organ from one coarse network.

    Options: ``fine_width``, ``margin_mm``, ``mass``, ``share_pairs`` and ``squeeze`` (false) as in `CoarseToFine`.
    What lies outside an organ's box is none of it, as the second network alone outlines.
    """

    name = "two_stage"
    stages = ("locate", "segment")
    defaults: ClassVar[Mapping[str, Any]] = {
        "share_pairs": False,
        "fine_width": 8,
        "squeeze": False,
        "margin_mm": 8.0,
        "mass": 0.99,
    }

    def trainings(self, stage: str) -> tuple[str, ...]:
        """Return the names of the trainings of a stage."""
        return tuple(self.groups) if stage == "segment" else (stage,)

    def _locator(self) -> Locator:
        blueprint = self.blueprint
        given = {"width": blueprint.width, "cap": blueprint.cap, "squeeze": self.options["squeeze"]}
        network = build_network("se_unet", blueprint.topology, blueprint.num_classes, **given)
        return Locator(network, len(self.organs))

    def part(self, name: str, material: Material, done: Weights) -> Part:
        """Return what one training takes."""
        locator = self._locator()
        if name != "locate":
            load_state(locator, done["locate"], "stage locate")
            return self.fine_part(name, material, locator.boxes)
        cases = [self._even(case) for case in self.in_memory(material)]
        self.learn_boxes(locator.boxes, material)
        if material.prior_bias:
            set_output_prior(locator.network, material.class_fractions)
        known = known_classes(cases, self.organs)
        stream = VolumeStream(cases, material.seed, batch_size=material.budget.batch_size, known=known)
        loss = build_loss(material.loss, class_voxels=lambda: material.class_fractions)
        return Part(locator, loss, stream, self._validation(material) if material.watched else None)

    @staticmethod
    def _even(case: Prepared) -> Prepared:
        """Pad a case so that its coarse grid divides by the network's poolings."""
        beyond = [(0, w - n) for w, n in zip(padded(case.image.shape, 8 * COARSER), case.image.shape, strict=True)]
        image = np.pad(case.image, beyond, constant_values=case.low)
        return replace(case, image=image, labels=np.pad(case.labels, beyond))

    def _validation(self, material: Material) -> Callable[[nn.Module], Mapping[str, float]]:
        def validate(locator: nn.Module) -> Mapping[str, float]:
            predictor = Predictor((locator,), lambda image: located(locator, image, material.device))
            return validation_dsc(predictor, material.watched, material.organs)

        return validate

    def predictor(self, weights: Weights, device: torch.device | str = "cpu") -> Predictor:
        """Return the trained system."""
        locator = self._locator()
        load_state(locator, weights["locate"], "stage locate").to(device).eval()
        fine, share = self.fine_networks(weights, device), self.options["mass"]

        def predict(image: NDArray[np.float32]) -> NDArray[np.float32]:
            probabilities = located(locator, image, device)
            boxes = locator.boxes.locate(probabilities, share)
            return combine(probabilities, boxes, self.outline_all(fine, image, boxes, device), outside=False)

        about = self.about_boxes(lambda image: locator.boxes.locate(located(locator, image, device), share))
        return Predictor((locator, *fine.values()), predict, about)


def located(locator: nn.Module, image: NDArray[np.float32], device: torch.device | str) -> NDArray[np.float32]:
    """Return class probabilities (C, X, Y, Z) of a whole volume by way of the coarse grid."""
    beyond = [(0, w - n) for w, n in zip(padded(image.shape, 8 * COARSER), image.shape, strict=True)]
    filled = np.pad(image, beyond, constant_values=image.min())
    with torch.inference_mode():
        coarse = avg_pool3d(torch.from_numpy(filled)[None, None].to(device), COARSER)
        logits = locator(channels_last(coarse)).float()
        fine = interpolate(logits, scale_factor=COARSER, mode="trilinear", align_corners=False)
        x, y, z = image.shape
        found: NDArray[np.float32] = torch.softmax(fine, dim=1)[0, :, :x, :y, :z].cpu().numpy()
    return found
