"""A planned patch: the front of imbalance, context and memory, one choice from it by a stated rule, and its reasons.

Everything is exact for the label maps that it is planned on, and counted, not measured, for the network; nothing is
trained. What a plan promises is what its patches show, not what a network learns from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from hnlib.errors import ConfigError, DataError, unknown
from hnlib.imbalance.candidates import GB, SMALLEST, Candidate, Limits, Vector, candidates
from hnlib.imbalance.draw import AIMS, Draw, best_draw
from hnlib.imbalance.landscape import landscape, organ_centres
from hnlib.imbalance.scans import Scan
from hnlib.imbalance.shown import PLAN_MEASURES, SIGHTINGS, Array, Shown, means_by_size
from hnlib.sampling import UNIFORM

#: Words for Fabric's names.
_ARITHMETIC = {"32-true": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16"}
#: More bytes than any step needs.
_AMPLE = 1e18


@dataclass(frozen=True)
class Wish:
    """What a plan is to be good for.

    Attributes
    ----------
    measure
        Name in `PLAN_MEASURES`.
    aim
        Name in `hnlib.imbalance.draw.AIMS`: what the draw of centres is best for.
    min_uniform
        Least share of patches that are uniform in position.
    targets
        Wanted shares of the foreground by organ, for the aim ``shares``.
    organ_box_fraction
        Share of the largest organ's box that a chosen patch is to hold, where some patch on the front does.
    symmetric
        Give the two organs of a pair the same weight in the draw.
    """

    measure: str = SIGHTINGS
    aim: str = "presence"
    min_uniform: float = 1 / 3
    targets: Mapping[str, float] | None = None
    organ_box_fraction: float = 0.9
    symmetric: bool = True

    def __post_init__(self) -> None:
        if self.measure not in PLAN_MEASURES:
            raise unknown("measure", self.measure, PLAN_MEASURES)
        if self.aim not in AIMS:
            raise unknown("aim", self.aim, AIMS)
        if self.targets is not None and self.aim != "shares":
            raise ConfigError(f"targets are for the aim shares, and the aim is {self.aim}; leave out one of them")
        for name in ("min_uniform", "organ_box_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; a share from 0 to 1 is needed")


@dataclass(frozen=True)
class PatchPlan:
    """A chosen patch with its batch, its network and its draw of centres.

    Attributes
    ----------
    candidate
        Patch, batch, network and memory.
    draw
        Weights of the centre laws.
    organs
        Organs in label order.
    spacing_mm
        Voxel edges along X, Y, Z of the grid that it is planned on.
    limits, wish
        What it keeps to and what it is good for.
    table
        One row a candidate: size, batch, levels, memory, context, what it shows, ``front`` and ``chosen``.
    reasons
        Why this one, in sentences.
    """

    candidate: Candidate
    draw: Draw
    organs: tuple[str, ...]
    spacing_mm: Vector
    limits: Limits
    wish: Wish
    table: pd.DataFrame = field(repr=False)
    reasons: tuple[str, ...] = field(repr=False)

    @property
    def front(self) -> pd.DataFrame:
        """The rows of the table that are on the front, the smallest patch first."""
        return self.table[self.table["front"]].reset_index(drop=True)


def plan(
    scans: Sequence[Scan],
    spacing_mm: Vector,
    limits: Limits,
    wish: Wish | None = None,
    *,
    workers: int = 1,
    cache: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> PatchPlan:
    """Plan the patch, the batch, the network and the draw of centres for a data set.

    Parameters
    ----------
    scans
        Label maps on one grid, such as from `hnlib.imbalance.scans_on_grid`; for training, so that test cases choose
        nothing.
    spacing_mm
        Voxel edges of that grid along X, Y, Z.
    limits
        Memory, network, voxels a step and depth.
    wish
        Measure, aim of the draw, least uniform share. None takes its defaults.
    workers, cache, progress
        As in `hnlib.imbalance.landscape`.

    Returns
    -------
    PatchPlan
        Of all candidates those stay on the front that no other candidate equals or betters in the measure, the
        context, the share of the largest organ's box and the memory. Of the front, those that hold
        ``organ_box_fraction`` of the largest organ's box; of these, the best by the measure (ties: the longer
        context, then the least memory). Where none holds so much, the one that holds most.

    Raises
    ------
    ConfigError
        When no patch meets the limits, or the targets name an unknown organ.
    DataError
        When there is no scan, or an organ has no voxel in any of them.
    """
    wish = wish or Wish()
    organs, largest = _organs(scans), _largest_organ(scans)
    shape = np.median([scan.labels.shape for scan in scans], axis=0).astype(int)
    found = candidates(shape.tolist(), spacing_mm, len(organs) + 1, limits)
    sizes = [candidate.patch_size for candidate in found]
    parts = landscape(
        scans,
        sizes,
        organ_centres(organs),
        quantities=("ratio", "presence"),
        workers=workers,
        cache=cache,
        progress=progress,
    )
    shown = means_by_size(parts, sizes, organs)
    draws = [
        best_draw(
            s.presence,
            s.ratios,
            organs,
            aim=wish.aim,
            min_uniform=wish.min_uniform,
            targets=wish.targets,
            symmetric=wish.symmetric,
        )
        for s in shown
    ]
    rows = [
        _row(candidate, list(draw.weights.values()), values, organs, spacing_mm, wish, largest)
        for candidate, draw, values in zip(found, draws, shown, strict=True)
    ]
    table = pd.DataFrame(rows)
    better = PLAN_MEASURES[wish.measure].higher_is_better
    table["front"] = _front(table, wish.measure, better)
    place = _choose(table, wish, better)
    table["chosen"] = table.index == place
    chosen = PatchPlan(found[place], draws[place], organs, spacing_mm, limits, wish, table, ())
    seen = _seen(shown[place].presence, draws[place], organs)
    more = None
    if limits.voxels_per_step:
        more = len(candidates(shape.tolist(), spacing_mm, len(organs) + 1, replace(limits, memory_bytes=_AMPLE)))
        more -= len(found)
    return replace(chosen, reasons=_reasons(chosen, largest.name, seen, scans, more))


def planned_draw(
    scans: Sequence[Scan],
    patch_size: tuple[int, int, int],
    *,
    aim: str = "presence",
    min_uniform: float = Wish.min_uniform,
    symmetric: bool = False,
) -> Draw:
    """Return the best draw of patch centres for one patch size, as `plan` makes it for every candidate.

    The two sides of a pair are on their own unless ``symmetric`` is asked for: so were the runs drawn whose
    experiments say ``centres: planned``.

    Raises
    ------
    ConfigError, DataError
        As `plan`.
    """
    organs = _organs(scans)
    parts = landscape(scans, [patch_size], organ_centres(organs), quantities=("ratio", "presence"))
    (shown,) = means_by_size(parts, [patch_size], organs)
    return best_draw(shown.presence, shown.ratios, organs, aim=aim, min_uniform=min_uniform, symmetric=symmetric)


def assess(
    scans: Sequence[Scan],
    spacing_mm: Vector,
    candidate: Candidate,
    weights: Mapping[str, float],
    wish: Wish | None = None,
) -> dict[str, Any]:
    """Return what any patch shows under any weights of the centre laws, as a row of a plan's table.

    Parameters
    ----------
    scans, spacing_mm, wish
        As in `plan`; of the wish only the measure counts.
    candidate
        Such as from `hnlib.imbalance.candidates.candidate_of`: it need not meet any limits.
    weights
        Share of the patches by organ, and under ``uniform`` of those that are uniform in position.
    """
    organs = _organs(scans)
    parts = landscape(scans, [candidate.patch_size], organ_centres(organs), quantities=("ratio", "presence"))
    (shown,) = means_by_size(parts, [candidate.patch_size], organs)
    draw = [weights.get(law, 0.0) for law in (UNIFORM, *organs)]
    return _row(candidate, draw, shown, organs, spacing_mm, wish or Wish(), _largest_organ(scans))


def held_organ_box(scans: Sequence[Scan], patch_size: Sequence[int]) -> float:
    """Return the share of the largest organ's box that a patch can hold, mean over the scans with that organ."""
    return _held(_largest_organ(scans), patch_size)


@dataclass(frozen=True)
class _Largest:
    """The organ with the most voxels, and its box in every scan that holds it."""

    name: str
    boxes: NDArray[np.intp]


def _held(largest: _Largest, patch_size: Sequence[int]) -> float:
    return float(np.minimum(1, np.asarray(patch_size) / largest.boxes).prod(axis=1).mean())


def _organs(scans: Sequence[Scan]) -> tuple[str, ...]:
    if not scans:
        raise DataError("no scan to plan on: check the folder and the split of the data set")
    return scans[0].organs


def _largest_organ(scans: Sequence[Scan]) -> _Largest:
    organs = scans[0].organs
    counts = np.array([np.bincount(scan.labels.reshape(-1), minlength=len(organs) + 1)[1:] for scan in scans])
    absent = [organ for organ, total in zip(organs, counts.sum(axis=0), strict=True) if total == 0]
    if absent:
        raise DataError(
            f"organ {absent[0]}: no voxel in any of the {len(scans)} cases that are planned on, the training cases of "
            "the split; leave it out, give more cases, or split them otherwise"
        )
    held = np.array([(counts[:, k].sum() / (counts[:, k] > 0).sum()) for k in range(len(organs))])
    label = int(held.argmax()) + 1
    boxes = [find_objects(scan.labels, len(organs))[label - 1] for scan in scans]
    sides = [[span.stop - span.start for span in box] for box in boxes if box is not None]
    return _Largest(organs[label - 1], np.array(sides))


def _row(
    candidate: Candidate,
    draw: Sequence[float],
    shown: Shown,
    organs: Sequence[str],
    spacing_mm: Vector,
    wish: Wish,
    largest: _Largest,
) -> dict[str, Any]:
    weights = np.array(draw)
    presence = shown.presence.T @ weights
    return {
        **dict(zip(("patch_x", "patch_y", "patch_z"), candidate.patch_size, strict=True)),
        "batch_size": candidate.batch_size,
        "voxels_per_step": candidate.voxels_per_step,
        "levels": candidate.topology.num_levels,
        "memory_gb": candidate.memory.total / GB,
        "context_mm": candidate.context_mm(spacing_mm),
        "organ_box": _held(largest, candidate.patch_size),
        "rarest": organs[int(np.lexsort((shown.ratios.T @ weights, presence.round(6)))[0])],  # of a tie the smallest
        "least_presence": float(presence.min()),
        wish.measure: float(shown.value(wish.measure, weights, candidate)),
    }


def _front(table: pd.DataFrame, measure: str, more_is_better: bool) -> NDArray[np.bool_]:
    """Say of each row whether no other is at least as good in everything and better in something."""
    sign = 1 if more_is_better else -1
    goods = np.column_stack([sign * table[measure], table["context_mm"], table["organ_box"], -table["memory_gb"]])
    goods = np.nan_to_num(goods, posinf=1e300, neginf=-1e300)
    goods = np.round(goods / np.maximum(np.abs(goods).max(axis=0), 1e-300), 9)  # the last digits decide nothing
    dominated = [bool(((goods >= row).all(axis=1) & (goods > row).any(axis=1)).any()) for row in goods]
    return ~np.array(dominated)


def _choose(table: pd.DataFrame, wish: Wish, more_is_better: bool) -> int:
    front = table[table["front"]]
    enough = front[front["organ_box"] >= min(wish.organ_box_fraction, front["organ_box"].max())]
    order = enough.sort_values(
        [wish.measure, "context_mm", "memory_gb"], ascending=[not more_is_better, False, True], kind="stable"
    )
    return int(order.index[0])


def _seen(presence: Array, draw: Draw, organs: Sequence[str]) -> str:
    """Say which organs are seen least under a draw, which were all forced equally often, and which the draw costs most.

    ``presence`` by law of centres, uniform first, and organ: (1 + organs, organs).
    """
    uniform = draw.weights[UNIFORM]
    evenly = np.append(uniform, np.full(len(organs), (1 - uniform) / len(organs)))
    planned, even = presence.T @ np.array(list(draw.weights.values())), presence.T @ evenly
    if planned.min() > 1 - 1e-6:
        return "Every patch shows every organ."

    def least(values: Array) -> str:
        tied = [organ.replace("_", " ") for organ, one in zip(organs, values, strict=True) if one < values.min() + 5e-4]
        return " and ".join([*([", ".join(tied[:-1])] if tied[1:] else []), tied[-1]])

    cost = even - planned
    most = int(cost.argmax())
    fallen = f" {organs[most].replace('_', ' ').capitalize()} falls from {even[most]:.1%} to {planned[most]:.1%}."
    return (
        f"Seen least: {least(planned)}, in {planned.min():.1%} of the patches; were all organs forced equally often "
        f"beside as many patches anywhere, {least(even)} in {even.min():.1%}.{fallen if cost[most] > 0.01 else ''}"
    )


def _reasons(chosen: PatchPlan, largest: str, seen: str, scans: Sequence[Scan], more: int | None) -> tuple[str, ...]:
    """Say why; ``more`` is the number of patches that only the memory keeps out, None where it sets the voxels."""
    table, candidate, wish, draw, limits = chosen.table, chosen.candidate, chosen.wish, chosen.draw, chosen.limits
    row, front = table[table["chosen"]].iloc[0], table[table["front"]]
    measure, memory = wish.measure.replace("_", " "), candidate.memory
    holding = int((front["organ_box"] >= wish.organ_box_fraction).sum())
    largest_text = f"of the box of the largest organ, {largest.replace('_', ' ')}"
    hold = "holds" if holding == 1 else "hold"
    held = f"{holding} of them {hold} at least {wish.organ_box_fraction:.0%} {largest_text}; this one holds "
    if not holding:
        held = f"None of them holds {wish.organ_box_fraction:.0%} {largest_text}; this one holds most, "
    padded = sum(any(w > n for w, n in zip(candidate.patch_size, scan.labels.shape, strict=True)) for scan in scans)
    shared = (memory.activations + memory.loss + memory.buffers) / GB
    meaning = " (patches a step that show the organ seen least)" if wish.measure == SIGHTINGS else ""
    budget = (
        f" So many voxels has a step of the largest patch that fits both scans and memory, "
        f"{limits.min_batch} at a time; where the scans set that size, more memory changes nothing."
    )
    text = [
        f"Planned on {len(scans)} case{'s' if len(scans) > 1 else ''}. {len(table)} patches are candidates: sides from "
        f"{SMALLEST} voxels to the length of the scans that divide by "
        f"the network's strides, {limits.min_levels} levels or more, no edge more than {limits.max_aspect:g} times as "
        f"long in mm as another, and {limits.min_batch} to {limits.max_batch} of them within "
        f"{limits.voxel_tolerance:.0%} of the voxels a step and within the memory.",
        f"{len(front)} of them are on the front: no other is as good in the measure, the context, the largest organ's "
        "box and the memory and better in one of them.",
        f"{held}{row['organ_box']:.0%}, and of these it has the best {measure}{meaning}, {row[wish.measure]:.4g} "
        f"(on the front {front[wish.measure].min():.4g} to {front[wish.measure].max():.4g}).",
        f"That measure does not see {PLAN_MEASURES[wish.measure].blind_to}.",
        f"The draw is best for the aim '{wish.aim}': {AIMS[wish.aim]} ({draw.value:.4g}). {seen}"
        + (" The two sides of a pair have the same weight." if wish.symmetric else ""),
        f"A step of {candidate.batch_size} patches, {candidate.voxels_per_step} voxels, needs "
        f"{memory.total / GB:.2f} of {limits.memory_bytes / GB:.3g} GB in {_ARITHMETIC[limits.precision]}, counted "
        f"from the layers: {shared:.2f} GB for volumes, {memory.total / GB - shared:.2f} GB for weights and optimiser."
        + (budget if more is None else f" More memory would add {more} candidates."),
        f"The network has {candidate.topology.num_levels} levels and sees "
        f"{' x '.join(map(str, candidate.receptive_field))} voxels; inside the patch that is as much as a cube of "
        f"{row['context_mm']:.0f} mm.",
    ]
    if padded:
        text.append(f"{padded} of {len(scans)} scans are shorter than the patch along an axis and are padded there.")
    return tuple(text)
