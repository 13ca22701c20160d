"""The simplest system: one network, one stage, a sliding window."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hnlib.errors import ConfigError
from hnlib.inference import predict_probabilities
from hnlib.losses import DeepSupervision, build_loss
from hnlib.networks import set_output_prior
from hnlib.patches import PatchStream
from hnlib.preprocess import Prepared
from hnlib.systems.system import Blueprint, Material, Part, Predictor, System, Weights
from hnlib.training import load_state

ONE_NETWORK = "one_network"


class OneNetwork(System):
    """One network from random patches; the options go to its builder."""

    stages = ("network",)

    def part(self, name: str, material: Material, done: Weights) -> Part:
        """Return network, loss and patches as the experiment says.

        Raises
        ------
        ConfigError
            When the network cannot take its patches.
        """
        network, patch = self.blueprint.build(**self.blueprint.options), self.blueprint.patch
        divisor = int(getattr(network, "divisor", 1))
        if any(edge % divisor for edge in patch):
            size = " x ".join(map(str, patch))
            raise ConfigError(
                f"network {self.blueprint.network}: patch {size}; edges that divide by {divisor} are needed"
            )
        return network_part(self.blueprint, material, network)

    def predictor(self, weights: Weights, device: torch.device | str = "cpu") -> Predictor:
        """Return the network behind a sliding window."""
        blueprint = self.blueprint
        network = load_state(blueprint.build(**blueprint.options), weights["network"]).to(device).eval()
        window = partial(
            predict_probabilities, network, patch_size=blueprint.patch, device=device, mirror=blueprint.mirror
        )
        return Predictor((network,), window)


def network_part(blueprint: Blueprint, material: Material, network: nn.Module) -> Part:
    """Return the training of one 3D network from random patches, for any stage that is such a one."""
    if material.prior_bias:
        set_output_prior(network, material.class_fractions)
    if material.compile:
        network.compile()
    return Part(
        network,
        supervised_loss(blueprint, material),
        patch_stream(blueprint, material),
        window_validation(blueprint, material) if material.watched else None,
    )


def supervised_loss(blueprint: Blueprint, material: Material) -> DeepSupervision:
    """Return the loss of a stage on all heads of its network."""
    loss = build_loss(material.loss, class_voxels=lambda: material.class_fractions)
    if material.deep_supervision == "sum":
        return DeepSupervision(loss, [1.0] * blueprint.topology.num_heads, resample="linear")
    return DeepSupervision(loss, resample=material.deep_supervision)


def patch_stream(blueprint: Blueprint, material: Material) -> PatchStream:
    """Return the training patches of a run."""
    return PatchStream(
        material.training,
        blueprint.plan,
        material.centres,
        blueprint.patch,
        material.seed,
        batch_size=material.budget.batch_size,
        same_case=material.budget.same_case,
        mirror=blueprint.mirror,
        changes=material.changes,
    )


def window_validation(blueprint: Blueprint, material: Material) -> Callable[[nn.Module], Mapping[str, float]]:
    """Return the mean DSC by organ of a network behind the sliding window, over the watched cases."""

    def validate(network: nn.Module) -> Mapping[str, float]:
        window = partial(
            predict_probabilities, network, patch_size=blueprint.patch, device=material.device, mirror=blueprint.mirror
        )
        return validation_dsc(Predictor((network,), window), material.watched, blueprint.plan.organs)

    return validate


def validation_dsc(predictor: Predictor, cases: Sequence[Prepared], organs: Sequence[str]) -> dict[str, float]:
    """Return the mean DSC of each organ over cases on the plan's grid; an organ that no case has is NaN."""
    scores: dict[str, list[float]] = {organ: [] for organ in organs}
    for case in cases:
        prediction = predictor(case.image).argmax(axis=0)
        for value, name in enumerate(organs, start=1):
            truth, found = case.labels == value, prediction == value
            if name in case.labelled:
                scores[name].append(dsc(truth, found))
    return {organ: float(np.mean(values)) if values else float("nan") for organ, values in scores.items()}


def dsc(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """Return the DSC of two masks on the plan's grid; 0 where both are empty."""
    return 2 * float((truth & found).sum()) / max(1, int(truth.sum() + found.sum()))
