"""Coarse to fine as a system: its stages, what each is trained on, and how a case passes through all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hnlib.errors import DataError, unknown
from hnlib.losses import build_loss
from hnlib.networks import build_network, set_output_prior
from hnlib.organs import organ
from hnlib.preprocess import Prepared
from hnlib.systems.coarse_to_fine.fusion import Fusion, FusionStream, folds, fuse, informative
from hnlib.systems.coarse_to_fine.refinement import BoxStream, combine, outline
from hnlib.systems.coarse_to_fine.slices import known_classes, read_options, slice_network, slice_part
from hnlib.systems.coarse_to_fine.target_boxes import OrganBoxes, TargetBox, label_box
from hnlib.systems.coarse_to_fine.views import VIEWS, in_memory, view_logits
from hnlib.systems.system import Blueprint, Material, Part, Predictor, System, Weights
from hnlib.training import load_state

MEAN, WEIGHTS, FINE = "mean", "weights", "fine"
#: What a system may put out, besides one view: the mean of the views, their weighted sum, the whole.
OUTPUTS = (*VIEWS, MEAN, WEIGHTS, FINE)


def partners(organs: Sequence[str]) -> tuple[int, ...]:
    """Return for each label value that of its partner on the other side, or its own where the set has none.

    Examples
    --------
    >>> partners(["brainstem", "parotid_left", "lens_left", "parotid_right"])
    (0, 1, 4, 3, 2)
    """
    names = list(organs)
    both = [str(organ(name).mirror) if organ(name).mirror in names else name for name in names]
    return (0, *(1 + names.index(name) for name in both))


class FineStage(System):
    """What both systems of two stages share: an organ's own 3D network in its box."""

    name: str
    only_network = "se_unet"
    ignores = ("mirror", "augmentation", "deep_supervision")
    late = frozenset({"output", "share_pairs"})

    def __init__(self, blueprint: Blueprint) -> None:
        super().__init__(blueprint)
        self.options = read_options(self.name, self.defaults, blueprint.options)
        self._read: tuple[Sequence[Prepared], list[Prepared]] | None = None

    @property
    def organs(self) -> tuple[str, ...]:
        """Organs of the study."""
        return self.blueprint.plan.organs

    @cached_property
    def groups(self) -> Mapping[str, tuple[int, ...]]:
        """The trainings of the fine stage: name to the organs' places, two where a pair shares one network."""
        groups: dict[str, tuple[int, ...]] = {}
        pairs = partners(self.organs) if self.options["share_pairs"] else tuple(range(len(self.organs) + 1))
        for place, name in enumerate(self.organs):
            partner = pairs[place + 1] - 1
            if partner >= place:
                stem = name if partner == place else name.rsplit("_", 1)[0]
                groups[f"fine-{stem}"] = tuple(dict.fromkeys((place, partner)))
        return groups

    def in_memory(self, material: Material) -> list[Prepared]:
        """Return the training cases, read once for all stages."""
        if self._read is None or self._read[0] is not material.training:
            self._read = (material.training, in_memory(material.training))
        return self._read[1]

    def learn_boxes(self, boxes: OrganBoxes, material: Material) -> OrganBoxes:
        """Learn what the boxes are in the training cases."""
        margin = [round(self.options["margin_mm"] / mm) for mm in self.blueprint.plan.spacing_mm]
        shapes = [case.labels.shape for case in material.training]
        cases = self.in_memory(material)
        return boxes.learn(cases, self.organs, margin=margin, pairs=partners(self.organs), shapes=shapes)

    def fine_network(self) -> nn.Module:
        """Return an untrained network of two classes, background and the organ."""
        blueprint = self.blueprint
        return build_network(
            "se_unet",
            blueprint.topology,
            2,
            width=self.options["fine_width"],
            cap=blueprint.cap,
            squeeze=self.options["squeeze"],
        )

    def fine_part(self, name: str, material: Material, boxes: OrganBoxes) -> Part:
        """Return the training of one fine network."""
        network, places, cases = self.fine_network(), self.groups[name], self.in_memory(material)
        stream = BoxStream(
            cases, self.organs, places, boxes, material.seed, batch_size=material.budget.batch_size
        )  # fmt: skip
        if material.prior_bias:
            voxels = float(np.prod(boxes.size(places[0])))
            found = [
                int((case.labels == places[0] + 1).sum()) for case in cases if self.organs[places[0]] in case.labelled
            ]
            share = float(np.mean([n for n in found if n])) / voxels
            set_output_prior(network, [max(1 - share, 1e-3), share])
        return Part(network, build_loss(material.loss), stream)

    def fine_networks(self, weights: Weights, device: torch.device | str) -> dict[str, nn.Module]:
        """Return the trained fine networks."""
        return {
            name: load_state(self.fine_network(), weights[name], f"stage {name}").to(device).eval()
            for name in self.groups
        }

    def outline_all(
        self,
        networks: Mapping[str, nn.Module],
        image: NDArray[np.float32],
        boxes: Sequence[TargetBox],
        device: torch.device | str,
    ) -> list[NDArray[np.float32]]:
        """Return each organ's probability in its box, in label order."""
        fine: dict[int, NDArray[np.float32]] = {}
        for name, places in self.groups.items():
            for place in places:
                mirrored = place in places[1:]
                fine[place] = outline(networks[name], image, boxes[place], mirrored=mirrored, device=device)
        return [fine[place] for place in range(len(self.organs))]

    def about_boxes(
        self, locate: Callable[[NDArray[np.float32]], Sequence[TargetBox]]
    ) -> Callable[[Prepared], dict[tuple[str, str], float]]:
        """Return what measures the boxes of a case: the share of each organ inside, and whether its map was empty."""

        def measure(case: Prepared) -> dict[tuple[str, str], float]:
            found: dict[tuple[str, str], float] = {}
            for place, (name, box) in enumerate(zip(self.organs, locate(case.image), strict=True)):
                mask = np.asarray(case.labels) == place + 1
                if name in case.labelled and mask.any():
                    found[name, "box_recall"], found[name, "box_fallback"] = box.recall(mask), float(box.fallback)
            return found

        return measure


class CoarseToFine(FineStage):
    """Pu et al.: three 2D views, fused, a box for each organ, its own 3D network there.

    Stages: ``coarse`` (a training a view), ``folds`` (the views again, on all but a fold of the patients each),
    ``fusion`` (weights by view and class, on the patients left out), ``fine`` (a training an organ).

    Options: ``output`` (fine; or axial, coronal, sagittal, mean, weights: the case leaves the system there, and what
    comes after is not trained), ``share_pairs`` (left and right have one fine network, by mirroring), ``folds`` (2),
    ``fusion_cases`` (24: patients whose predictions the weights are learned on), ``fine_width`` (8: channels of the
    fine networks' finest level), ``squeeze``, ``margin_mm`` (8: about the largest label box), ``mass`` (0.99: of the
    organ's probability in its box), ``checks``, ``shift_mm`` and ``degrees`` as in `SliceSystem`.
    """

    name = "coarse_to_fine"
    stages = ("coarse", "folds", "fusion", "fine")
    defaults: ClassVar[Mapping[str, Any]] = {
        "output": FINE,
        "share_pairs": False,
        "folds": 2,
        "fusion_cases": 24,
        "fine_width": 8,
        "squeeze": True,
        "margin_mm": 8.0,
        "mass": 0.99,
        "checks": 10,
        "shift_mm": 10.0,
        "degrees": 10.0,
    }

    def __init__(self, blueprint: Blueprint) -> None:
        super().__init__(blueprint)
        if self.options["output"] not in OUTPUTS:
            raise unknown("output", self.options["output"], OUTPUTS)
        self.output, self.num_folds = self.options["output"], self.options["folds"]

    def trainings(self, stage: str) -> tuple[str, ...]:
        """Return the names of the trainings of a stage."""
        if stage == "folds":
            return tuple(f"fold{fold}-{view}" for fold in range(self.num_folds) for view in VIEWS)
        return {"coarse": tuple(VIEWS), "fine": tuple(self.groups)}.get(stage, (stage,))

    @property
    def needed(self) -> tuple[str, ...]:
        """The trainings up to where a case leaves the system."""
        if self.output in VIEWS:
            return (self.output,)
        stages = {MEAN: self.stages[:1], WEIGHTS: self.stages[:3]}.get(self.output, self.stages)
        return tuple(name for stage in stages for name in self.trainings(stage))

    @property
    def deployed(self) -> tuple[str, ...]:
        """What is needed, without the folds, which only the weights are learned from."""
        return tuple(name for name in self.needed if not name.startswith("fold"))

    def part(self, name: str, material: Material, done: Weights) -> Part:
        """Return what one training takes."""
        cases = self.in_memory(material)
        given: dict[str, Any] = {key: self.options[key] for key in ("squeeze", "shift_mm", "degrees")}
        if "fusion" in self.needed and len(cases) < self.num_folds:  # told before hours of views, not after
            wanted = f"{self.num_folds} folds; give more cases, or lower option 'folds' (to 2 at least)"
            raise DataError(f"training cases: {len(cases)}, one a fold is needed for {wanted}")
        if name in VIEWS:
            return slice_part(self.blueprint, material, cases, name, checks=self.options["checks"], **given)
        if name.startswith("fold"):
            fold, view = name.removeprefix("fold").split("-")
            return slice_part(self.blueprint, material, folds(cases, self.num_folds, int(fold)), view, **given)
        if name == "fusion":
            return self._fusion_part(material, done)
        return self.fine_part(name, material, self._fusion(done).boxes)

    def _fusion_part(self, material: Material, done: Weights) -> Part:
        """Return the training of the weights, and learn the boxes on the way: both need predictions out of fold."""
        cases = self.in_memory(material)
        fusion = Fusion(len(VIEWS), self.blueprint.num_classes)
        self.learn_boxes(fusion.boxes, material)
        logits, labels, offsets, used = [], [], [], []
        networks = {name: self._slice_network(name, done) for name in self.trainings("folds")}
        for place, case in enumerate(cases[: self.options["fusion_cases"]]):
            fold = place % self.num_folds
            image = case.image.astype(np.float32)
            views = [
                view_logits(networks[f"fold{fold}-{view}"].to(material.device), image, view, device=material.device)
                for view in VIEWS
            ]
            at = informative(views, case.labels)
            if not at.size:  # no label, and no view sees an organ: nothing to weigh
                continue
            used.append(case)
            logits.append(np.concatenate(views).reshape(-1, case.labels.size)[:, at].T.copy())
            labels.append(case.labels.ravel()[at])
            offsets.append(self._offsets(fusion.boxes, fuse(views), case))
        if not used:
            raise DataError("stage fusion: no training case has a voxel that a label or a view calls an organ")
        fusion.boxes.jitter.copy_(torch.from_numpy(_spread(np.array(offsets))))
        known = known_classes(used, self.organs)
        batch = material.budget.batch_size
        stream = FusionStream(logits, labels, material.seed, batch_size=batch, known=known)
        counts = np.bincount(np.concatenate(labels), minlength=self.blueprint.num_classes)
        return Part(fusion, build_loss(material.loss, class_voxels=[max(int(n), 1) for n in counts]), stream)

    def _offsets(self, boxes: OrganBoxes, probabilities: NDArray[np.float32], case: Prepared) -> NDArray[np.float64]:
        """Return by how many voxels the middle of each organ's box lies beside its label's; NaN where there is none."""
        offsets = np.full((len(self.organs), 3), np.nan)
        for place, (name, box) in enumerate(zip(self.organs, boxes.locate(probabilities), strict=True)):
            truth = label_box(case, self.organs, name)
            if truth and not box.fallback:
                middle = [s + n / 2 for s, n in zip(box.start, box.size, strict=True)]
                inside = boxes.around(place, truth, case.labels.shape)  # both were moved into the volume
                offsets[place] = np.subtract(
                    middle, [s + n / 2 for s, n in zip(inside.start, inside.size, strict=True)]
                )
        return offsets

    def _slice_network(self, name: str, weights: Weights) -> nn.Module:
        network = slice_network(self.blueprint, squeeze=self.options["squeeze"])
        return load_state(network, weights[name], f"stage {name}").eval()

    def _fusion(self, weights: Weights) -> Fusion:
        fusion = Fusion(len(VIEWS), self.blueprint.num_classes)
        load_state(fusion, weights["fusion"], "stage fusion")
        return fusion

    def locate(self, weights: Weights, probabilities: NDArray[np.float32]) -> list[TargetBox]:
        """Return the box of each organ, in label order, for fused probabilities (C, X, Y, Z)."""
        return self._fusion(weights).boxes.locate(probabilities, share=self.options["mass"])

    def predictor(self, weights: Weights, device: torch.device | str = "cpu") -> Predictor:
        """Return the trained system, as far as a case goes in it."""
        views = tuple(view for view in VIEWS if view in self.deployed)
        networks = {view: self._slice_network(view, weights).to(device) for view in views}
        fusion = self._fusion(weights) if "fusion" in self.deployed else None
        factors = fusion.weights.detach().cpu().numpy() if fusion else None

        def coarse(image: NDArray[np.float32]) -> NDArray[np.float32]:
            return fuse([view_logits(networks[view], image, view, device=device) for view in views], factors)

        if self.output != FINE or fusion is None:
            return Predictor((*networks.values(), *([fusion] if fusion else [])), coarse)
        fine = self.fine_networks(weights, device)
        locate = partial(fusion.boxes.locate, share=self.options["mass"])

        def predict(image: NDArray[np.float32]) -> NDArray[np.float32]:
            probabilities = coarse(image)
            boxes = locate(probabilities)
            return combine(probabilities, boxes, self.outline_all(fine, image, boxes, device))

        about = self.about_boxes(lambda image: locate(coarse(image)))
        return Predictor((*networks.values(), fusion, *fine.values()), predict, about)


def _spread(offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return root mean squares over patients, at least one voxel and at most 8; 2 where an organ was never found."""
    found = ~np.isnan(offsets)
    sums = np.square(np.where(found, offsets, 0)).sum(axis=0)
    return np.where(found.any(axis=0), np.sqrt(sums / found.sum(axis=0).clip(1)), 2.0).clip(1, 8)
