"""A 2D network over the slices of one view: a stage of coarse to fine, and a system of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hnlib.errors import ConfigError, unknown
from hnlib.losses import build_loss
from hnlib.networks import build_network, set_output_prior
from hnlib.preprocess import Prepared
from hnlib.systems.coarse_to_fine.views import VIEWS, SliceStream, in_memory, view_logits
from hnlib.systems.one_network import validation_dsc
from hnlib.systems.system import Blueprint, Material, Part, Predictor, System, Weights
from hnlib.training import load_state


class SliceSystem(System):
    """One 2D network over the slices of one view, all slices of all cases; nothing is known of neighbours.

    Options: ``view`` (axial), ``squeeze`` (false: the plain U-Net), ``checks`` (10: validations of which the best
    counts; 0 takes the last weights), ``shift_mm`` and ``degrees`` (10 each: largest random shift and turn).
    """

    stages = ("network",)
    only_network = "se_unet"
    ignores = ("mirror", "augmentation", "deep_supervision")
    defaults: ClassVar[Mapping[str, Any]] = {
        "view": "axial",
        "squeeze": False,
        "checks": 10,
        "shift_mm": 10.0,
        "degrees": 10.0,
    }

    def __init__(self, blueprint: Blueprint) -> None:
        super().__init__(blueprint)
        self.options = read_options("slices", self.defaults, blueprint.options)
        if self.options["view"] not in VIEWS:
            raise unknown("view", self.options["view"], VIEWS)

    def part(self, name: str, material: Material, done: Weights) -> Part:
        """Return network, loss and slices."""
        cases = in_memory(material.training)
        given = {key: self.options[key] for key in ("squeeze", "shift_mm", "degrees", "checks")}
        return slice_part(self.blueprint, material, cases, self.options["view"], **given)

    def predictor(self, weights: Weights, device: torch.device | str = "cpu") -> Predictor:
        """Return the network over all slices."""
        network = load_state(slice_network(self.blueprint, squeeze=self.options["squeeze"]), weights["network"])
        network.to(device).eval()
        return Predictor((network,), partial(view_probabilities, network, view=self.options["view"], device=device))


#: Least values of options that are numbers; 0 of all others.
LEAST = {"folds": 2, "fusion_cases": 1, "fine_width": 1}


def read_options(system: str, defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a system's options with those given; ConfigError for one that it does not have, or of another kind."""
    for name, value in given.items():
        if name not in defaults:
            raise unknown(f"{system} option", name, defaults)
        kind = type(defaults[name])
        number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        if not (isinstance(value, kind) and isinstance(value, bool) == (kind is bool)) and not (
            kind is float and number
        ):
            raise ConfigError(f"{system} option '{name}' is {value!r}; a value like {defaults[name]!r} is needed")
        if kind in (int, float) and value < LEAST.get(name, 0):
            raise ConfigError(f"{system} option '{name}' is {value}; at least {LEAST.get(name, 0)} is needed")
        if name == "mass" and not 0 < value <= 1:
            raise ConfigError(f"{system} option 'mass' is {value}; a share above 0 and at most 1 is needed")
    return {**defaults, **given}


def slice_network(blueprint: Blueprint, *, squeeze: bool = True) -> nn.Module:
    """Return an untrained 2D U-Net of the blueprint's width."""
    return build_network(
        "se_unet",
        blueprint.topology,
        blueprint.num_classes,
        width=blueprint.width,
        cap=blueprint.cap,
        spatial_dims=2,
        squeeze=squeeze,
    )


def slice_part(
    blueprint: Blueprint,
    material: Material,
    cases: Sequence[Prepared],
    view: str,
    *,
    squeeze: bool = True,
    shift_mm: float = 10.0,
    degrees: float = 10.0,
    checks: int = 0,
) -> Part:
    """Return the training of one 2D network on the slices of one view of cases in memory."""
    network = slice_network(blueprint, squeeze=squeeze)
    if material.prior_bias:
        set_output_prior(network, material.class_fractions)
    stream = SliceStream(
        cases,
        view,
        material.seed,
        batch_size=material.budget.batch_size,
        known=known_classes(cases, material.organs),
        shift=shift_mm / max(blueprint.plan.spacing_mm),
        degrees=degrees,
    )
    loss = build_loss(material.loss, class_voxels=lambda: material.class_fractions)
    validate = slice_validation(material, view) if material.watched and checks else None
    return Part(network, loss, stream, validate, checks=checks if validate else 0)


def known_classes(cases: Sequence[Prepared], organs: Sequence[str]) -> NDArray[np.bool_] | None:
    """Return which classes were outlined in each case (cases, C); None where all were in all."""
    known = np.array([[True, *(organ in case.labelled for organ in organs)] for case in cases])
    return None if known.all() else known


def view_probabilities(
    network: nn.Module, image: NDArray[np.float32], view: str, device: torch.device | str = "cpu"
) -> NDArray[np.float32]:
    """Return class probabilities (C, X, Y, Z) by one view."""
    return np.exp(view_logits(network, image, view, device=device))


def slice_validation(material: Material, view: str) -> Callable[[nn.Module], Mapping[str, float]]:
    """Return the mean DSC by organ of a 2D network over the slices of the watched cases."""

    def validate(network: nn.Module) -> Mapping[str, float]:
        predict = partial(view_probabilities, network, view=view, device=material.device)
        return validation_dsc(Predictor((network,), predict), material.watched, material.organs)

    return validate
