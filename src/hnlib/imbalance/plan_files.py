"""A plan as files of others: an experiment of this library, and a plans file of nnU-Net v2."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hnlib.errors import ConfigError, unknown
from hnlib.imbalance.candidates import Vector
from hnlib.imbalance.planner import PatchPlan

#: What is added to the name of nnU-Net's plans, so that both stay usable.
SUFFIX = "_hnlib"
#: Shares of patches are written to this many digits.
_DIGITS = 4


def to_yaml(plan: PatchPlan, title: str = "planned patch", loss: str | None = None) -> str:
    """Return the experiment that trains with a plan, as YAML; its reasons are comments.

    Width, channels and precision are the profile's: the plan's memory holds where they are as stated in the comment.

    Parameters
    ----------
    plan
        From `hnlib.imbalance.plan`.
    title, loss
        As in `hnlib.experiments.Experiment`; without a loss nnU-Net's, and a comment that none was chosen.
    """
    limits = plan.limits
    experiment = {
        "title": title,
        "patch_size": list(plan.candidate.patch_size),
        "loss": loss or "nnu_dice+ce",
        "centres": _rounded(plan.draw.weights),
        "network": limits.network,
        "changes": {"training": {"batch_size": plan.candidate.batch_size}},
    }
    grid = " x ".join(f"{mm:.4g}" for mm in plan.spacing_mm)
    setting = (
        f"Planned at {grid} mm for width {limits.width}, cap {limits.cap}, {limits.precision}, {limits.optimiser}."
    )
    unchosen = [] if loss else ["The loss is nnU-Net's: a plan chooses none; hnlib report compares losses."]
    comments = "".join(f"# {line}\n" for line in (setting, *plan.reasons, *unchosen))
    return comments + yaml.safe_dump(experiment, sort_keys=False, default_flow_style=None, width=120)


def _rounded(weights: Mapping[str, float]) -> dict[str, float]:
    """Return weights of so many digits that still sum to 1, those of 0 left out; the largest takes the rest."""
    rounded = {name: round(weight, _DIGITS) for name, weight in weights.items()}
    most = max(rounded, key=lambda name: rounded[name])
    rounded[most] = round(rounded[most] + 1 - sum(rounded.values()), _DIGITS)
    return {name: weight for name, weight in rounded.items() if weight > 0}


def to_nnunet(plan: PatchPlan, plans: Mapping[str, Any], configuration: str = "3d_fullres") -> dict[str, Any]:
    """Return nnU-Net's plans with the patch, the batch and the network of a plan in one configuration.

    Parameters
    ----------
    plan
        Planned on the configuration's own spacing (`nnunet_spacing`), so that its preprocessed data stay usable.
    plans
        Content of an ``nnUNetPlans.json``; it is not changed.
    configuration
        Name of the configuration that is changed.

    Returns
    -------
    dict
        The plans under another name, ``nnUNetPlans_hnlib``, which nnU-Net takes as ``-p nnUNetPlans_hnlib``. Its own
        trainers draw classes evenly, for a third of the patches; those of `hnlib.nnunet` follow the draw of the plan,
        which stands under ``hnlib_centres``.

    Raises
    ------
    ConfigError
        When the plans lack the configuration or are no plans of nnU-Net v2, or the plan is for another spacing or
        for a network that nnU-Net does not have.

    Notes
    -----
    nnU-Net's arrays are (Z, Y, X), then permuted by ``transpose_forward``. The strides are those of
    `hnlib.networks.plan_topology`; nnU-Net v2 itself halves an axis of less than (not up to) twice the finest spacing
    and stops at a single axis of fewer than 12 voxels, so its own plan for this patch may have another depth.
    """
    spacing = nnunet_spacing(plans, configuration)
    if any(abs(a - b) > 0.01 * b for a, b in zip(plan.spacing_mm, spacing, strict=True)):
        raise ConfigError(
            f"the plan is for {_text(plan.spacing_mm)} mm but nnU-Net's {configuration} for {_text(spacing)} mm; "
            "plan on that grid"
        )
    if plan.limits.network != "dynunet":
        raise ConfigError(f"nnU-Net has no network {plan.limits.network}; plan with dynunet")
    changed = copy.deepcopy(dict(plans))
    forward = changed["transpose_forward"]
    changed["plans_name"] = f"{changed['plans_name']}{SUFFIX}"
    changed["configurations"][configuration] |= {
        "patch_size": _permuted(plan.candidate.patch_size, forward),
        "batch_size": plan.candidate.batch_size,
        "architecture": _architecture(plan, forward),
        "hnlib_centres": _rounded(plan.draw.weights),
    }
    return changed


def _architecture(plan: PatchPlan, forward: Sequence[int]) -> dict[str, Any]:
    """Return the network as nnU-Net v2 states it: its plain U-Net, two convolutions a level."""
    topology = plan.candidate.topology
    levels = topology.num_levels
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": levels,
            "features_per_stage": list(topology.filters(plan.limits.width, plan.limits.cap)),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [_permuted(kernel, forward) for kernel in topology.kernels],
            "strides": [_permuted(stride, forward) for stride in topology.strides],
            "n_conv_per_stage": [2] * levels,
            "n_conv_per_stage_decoder": [2] * (levels - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def nnunet_spacing(plans: Mapping[str, Any], configuration: str = "3d_fullres") -> Vector:
    """Return the voxel edges of a configuration of nnU-Net's plans, along X, Y, Z.

    Raises
    ------
    ConfigError
        When the plans lack the configuration or are no plans of nnU-Net v2.
    """
    try:
        forward, known = [int(axis) for axis in plans["transpose_forward"]], dict(plans["configurations"])
        stored = [float(mm) for mm in known[configuration]["spacing"]] if configuration in known else [1.0] * 3
        if sorted(forward) != [0, 1, 2] or len(stored) != 3 or not str(plans["plans_name"]):
            raise ValueError("three axes are needed")
    except (KeyError, TypeError, ValueError) as fault:
        raise ConfigError(
            f"nnU-Net's plans: no 3D plans of version 2 ({type(fault).__name__}: {fault}); "
            "give what nnUNetv2_plan_and_preprocess wrote"
        ) from None
    if configuration not in known:
        raise unknown("configuration of nnU-Net's plans", configuration, known)
    z, y, x = (stored[forward.index(axis)] for axis in range(3))
    return x, y, z


def read_nnunet(path: Path) -> dict[str, Any]:
    """Read an ``nnUNetPlans.json``.

    Raises
    ------
    ConfigError
        When the file is missing or no JSON object.
    """
    try:
        plans = json.loads(path.read_text("utf-8"))
        if not isinstance(plans, dict):
            raise TypeError("it holds no object")
    except (OSError, TypeError, ValueError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else str(fault)
        raise ConfigError(f"nnU-Net's plans {path}: cannot be read ({why}); give an nnUNetPlans.json") from None
    return plans


def _permuted(values: Sequence[int], forward: Sequence[int]) -> list[int]:
    """Return (X, Y, Z) in nnU-Net's order."""
    stored = list(values)[::-1]
    return [int(stored[axis]) for axis in forward]


def _text(values: Sequence[float]) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
