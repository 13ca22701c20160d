"""A model file: a trained network with all that is needed to use it, and what its training images were like.

It needs neither the study nor the experiment files that made it, and holds numbers, text and tensors only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

from hnlib.errors import DataError
from hnlib.files import write_atomically
from hnlib.networks import Topology
from hnlib.preprocess import Plan, Prepared
from hnlib.systems import SYSTEMS, Blueprint, Predictor, Weights, build_system

FORMAT = "hnlib-model"
VERSION = 3
#: Name of the model file in a run's folder, and of the one that comes with the package.
MODEL_NAME = "model.safetensors"
RELEASED = "openkbp_seven.safetensors"
#: The largest number in half precision.
HALF_LARGEST = 65504.0
#: An image is far from the training images where its voxel edges, or the extent of the body, are outside theirs by
#: more than these factors, or a quantile of its HU by more than the margin or the spread of the training images.
SPACING_FACTOR = 2.0
EXTENT_FACTOR = 1.5
MARGIN_HU = 100.0
#: An organ's volume is far from those of training where it is smaller or larger by more than this factor.
VOLUME_FACTOR = 2.0
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
Range = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Seen:
    """What the training images were like: smallest and largest of each number over the cases.

    Attributes
    ----------
    cases
        How many there were.
    spacing_mm
        Voxel edges of the scans along X, Y, Z.
    extent_mm
        Size of the box around the body along X, Y, Z.
    quantiles_hu
        The `QUANTILES` of the HU in that box, cut to the plan's range as the network sees them.
    volumes_ml
        Volume of each organ where it was outlined; 0 to infinity where it never was.
    """

    cases: int
    spacing_mm: Range
    extent_mm: Range
    quantiles_hu: Range
    volumes_ml: Range


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds.

    Attributes
    ----------
    blueprint
        The system: network, grid, window, options.
    seen
        What the training images were like.
    attribution
        Where they come from.
    weights
        The state of each network that takes part.
    provenance
        How the system was made: data set, experiment, steps, versions, digests.
    """

    blueprint: Blueprint
    seen: Seen
    attribution: str
    weights: Weights
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """Grid, intensity scale and organs."""
        return self.blueprint.plan

    def predictor(self, device: torch.device | str = "cpu") -> Predictor:
        """Return the trained system.

        Raises
        ------
        DataError
            When the weights are not those of the system described.
        """
        if self.blueprint.system not in SYSTEMS:
            raise DataError(f"model: this hnlib does not know its system '{self.blueprint.system}'; update it")
        try:
            return build_system(self.blueprint).predictor(self.weights, device)
        except KeyError as fault:
            raise DataError(f"model: it lacks the weights of {fault}; export it again") from None


def look_at(prepared: Prepared, plan: Plan) -> dict[str, tuple[float, ...]]:
    """Return the numbers of one preprocessed image that `Seen` is made of."""
    values = np.asarray(prepared.image, np.float32) * plan.sd_hu + plan.mean_hu
    extent = [(stop - start) * mm for (start, stop), mm in zip(prepared.box, prepared.native_spacing_mm, strict=True)]
    return {
        "spacing_mm": tuple(float(mm) for mm in prepared.native_spacing_mm),
        "extent_mm": tuple(float(mm) for mm in extent),
        "quantiles_hu": tuple(float(v) for v in np.quantile(values, QUANTILES)),
    }


def see(cases: Iterable[Prepared], plan: Plan) -> Seen:
    """Return what the training images were like.

    Raises
    ------
    DataError
        When there is none.
    """
    found, volumes = [], []
    for case in cases:
        found.append(look_at(case, plan))
        volumes.append(_volumes_ml(case, plan.organs))
    if not found:
        raise DataError("model: no training case to describe; check the split of the data set")
    ranges = {
        key: tuple(tuple(pick(one[key][i] for one in found) for i in range(len(found[0][key]))) for pick in (min, max))
        for key in found[0]
    }
    by_organ = [[v for v in column if v is not None] for column in zip(*volumes, strict=True)]
    smallest = tuple(min(column, default=0.0) for column in by_organ)
    largest = tuple(max(column, default=math.inf) for column in by_organ)
    return Seen(cases=len(found), volumes_ml=(smallest, largest), **ranges)  # type: ignore[arg-type]


def _volumes_ml(case: Prepared, organs: Sequence[str]) -> list[float | None]:
    labels = np.asarray(case.labels)
    box_mm = [(stop - start) * mm for (start, stop), mm in zip(case.box, case.native_spacing_mm, strict=True)]
    counts = np.bincount(labels.ravel(), minlength=len(organs) + 1)[1:]
    volumes = counts * float(np.prod(box_mm)) / labels.size / 1000
    return [float(v) if organ in case.labelled else None for organ, v in zip(organs, volumes, strict=True)]


def how_far(prepared: Prepared, plan: Plan, seen: Seen) -> list[str]:
    """Return in words where an image lies far from the training images; empty where it does not."""
    own = look_at(prepared, plan)
    reasons = []
    for key, what, factor in (
        ("spacing_mm", "voxel edges", SPACING_FACTOR),
        ("extent_mm", "body", EXTENT_FACTOR),
    ):
        low, high = (np.asarray(part) for part in getattr(seen, key))
        value = np.asarray(own[key])
        if (value < low / factor).any() or (value > high * factor).any():
            reasons.append(f"{what} {_times(value)} mm where training had {_times(low)} to {_times(high)} mm")
    low, high = (np.asarray(part) for part in seen.quantiles_hu)
    value, margin = np.asarray(own["quantiles_hu"]), np.maximum(high - low, MARGIN_HU)
    outside = np.flatnonzero((value < low - margin) | (value > high + margin))
    if outside.size:
        k = int(outside[0])
        reasons.append(
            f"the {QUANTILES[k]:.0%} quantile of HU is {value[k]:.0f} where training had {low[k]:.0f} to {high[k]:.0f}"
        )
    return reasons


def odd_volumes(volumes_ml: Mapping[str, float], model: ModelFile) -> Iterator[str]:
    """Yield a line for each organ found whose volume is far from those of training."""
    for organ, low, high in zip(model.plan.organs, *model.seen.volumes_ml, strict=True):
        volume = volumes_ml.get(organ, 0.0)
        if volume and not low / VOLUME_FACTOR <= volume <= high * VOLUME_FACTOR:
            yield f"{organ} has {volume:.3g} ml where training had {low:.3g} to {high:.3g} ml; look at its outline"


def origin(model: ModelFile) -> str:
    """Return in a line how a model was made and how well it did on test cases, as far as its file says."""
    about = model.provenance
    made = "/".join(str(about[key]) for key in ("dataset", "profile", "experiment") if key in about) or "origin unknown"
    steps = f", {about['steps']} steps" if "steps" in about else ""
    test = about.get("test")
    if not test:
        return f"{made}{steps}; not measured (hnlib measure and hnlib export add its test DSC)"
    return f"{made}{steps}; mean test DSC {test['mean_dsc']:.3f} over {len(test['dsc'])} organs, {test['cases']} cases"


def save_model(path: Path, model: ModelFile, *, half: bool = False) -> None:
    """Write a model file: safetensors, with all that is no tensor as JSON in its header.

    Parameters
    ----------
    path
        Where it goes; a good file there is replaced only by a whole one.
    model
        What it holds.
    half
        Store the weights in half precision: half the size, and predictions that differ by rounding. A tensor with a
        value that half precision cannot hold (the voxels of a large organ's box) stays as it is.
    """
    blueprint = model.blueprint
    tensors, same = _distinct(model.weights, half)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "system": {"name": blueprint.system, "options": dict(blueprint.options)},
        "network": {
            "name": blueprint.network,
            "width": blueprint.width,
            "cap": blueprint.cap,
            "patch": blueprint.patch,
        },
        "topology": asdict(blueprint.topology),
        "plan": asdict(blueprint.plan),
        "mirror": blueprint.mirror,
        "seen": asdict(model.seen),
        "attribution": model.attribution,
        "provenance": dict(model.provenance),
        "same": same,
    }
    packed = safetensors.torch.save(tensors, {FORMAT: json.dumps(content)})
    write_atomically(path, lambda part: part.write_bytes(packed))


def _distinct(weights: Weights, half: bool) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return each tensor once, as ``part/name``, and which other names stand for it; MONAI's networks have many."""
    tensors: dict[str, torch.Tensor] = {}
    same: dict[str, str] = {}
    for part, state in weights.items():
        first: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
        for name, tensor in state.items():
            key = f"{part}/{name}"
            known = first.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), key)
            if known != key and tensor.numel():
                same[key] = known
                continue
            small = half and tensor.dtype == torch.float32 and not bool((tensor.abs() > HALF_LARGEST).any())
            tensors[key] = tensor.detach().cpu().to(torch.float16 if small else tensor.dtype).contiguous()
    return tensors, same


def released_model() -> Path:
    """Return the path of the trained model that comes with the package; book page "A model to start with"."""
    return Path(__file__).parent / "data" / RELEASED


def load_model(path: Path) -> ModelFile:
    """Read a model file, or the one in a run's folder.

    Raises
    ------
    DataError
        When the file is missing, damaged, no model file, or of another version.
    """
    path = path / MODEL_NAME if path.is_dir() else path
    if not path.exists():
        raise DataError(f"model {path}: no such file; give a model file, or a run's folder that holds {MODEL_NAME}")
    try:
        with safetensors.safe_open(path, "pt") as file:
            content: Any = json.loads((file.metadata() or {}).get(FORMAT, "null"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - the file is no dict
    except (safetensors.SafetensorError, OSError, ValueError):
        raise DataError(f"model {path}: is no model file, or cut off; give the one that hnlib export writes") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"model {path}: is no model file; a run's checkpoint becomes one through hnlib export")
    if content.get("version") != VERSION:
        raise DataError(f"model {path}: is of version {content.get('version')}, this hnlib reads {VERSION}; update it")
    try:
        return _model(content, tensors)
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        reason = " ".join(str(fault).split())[:80]
        raise DataError(
            f"model {path}: is damaged ({type(fault).__name__} {reason}); copy or export it again"
        ) from None


def _model(content: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> ModelFile:
    network, system = dict(content["network"]), dict(content["system"])
    x, y, z = (int(n) for n in network["patch"])
    tensors = {**tensors, **{key: tensors[known] for key, known in content["same"].items()}}
    weights: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        part, name = key.split("/", 1)
        weights.setdefault(part, {})[name] = tensor.float() if tensor.dtype == torch.float16 else tensor
    blueprint = Blueprint(
        network=str(network["name"]),
        width=int(network["width"]),
        cap=int(network["cap"]),
        topology=Topology(**_tuples(content["topology"])),
        patch=(x, y, z),
        plan=Plan(**_tuples(content["plan"])),
        mirror=tuple(int(v) for v in content["mirror"]),
        system=str(system["name"]),
        options=dict(system["options"]),
    )
    return ModelFile(
        blueprint=blueprint,
        seen=Seen(**_tuples(content["seen"])),
        attribution=str(content["attribution"]),
        weights=weights,
        provenance=dict(content["provenance"]),
    )


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(part) for key, part in value.items()}
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def _times(numbers: Iterable[float]) -> str:
    return " x ".join(f"{n:.3g}" for n in numbers)
