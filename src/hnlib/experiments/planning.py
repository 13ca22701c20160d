"""A plan for the data of a study, and what the patches and draws of its profile show: tables for the chapters.

Everything here is exact and needs no training. The cases are those that the profile's first experiment trains on, so
that test cases choose nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hnlib.experiments.config import load_experiment
from hnlib.experiments.landscapes import landscape_sizes
from hnlib.experiments.study import Study
from hnlib.files import read_table, write_json, write_table
from hnlib.imbalance import Limits, PatchPlan, Scan, landscape, plan, summarise
from hnlib.imbalance.candidates import Candidate, candidate_of
from hnlib.imbalance.planner import assess, held_organ_box
from hnlib.imbalance.shown import SIGHTINGS
from hnlib.networks import plan_patch, receptive_field, training_memory
from hnlib.sampling import RULES, UNIFORM, CentreDistribution, Triple

#: The draws that a plan is shown beside; both leave a third of the patches uniform in position.
NAMED_DRAWS = {"class-uniform": "class_uniform_two_thirds", "voxel-uniform": "voxel_uniform_two_thirds"}
#: Draw of the maps over patch sizes.
MAPPED = "class_uniform_two_thirds"
#: Share of a step that nnU-Net forces onto a class, before it is rounded to patches.
OVERSAMPLE = 0.33


def planning_scans(study: Study) -> list[Scan]:
    """Return the label maps on the study's grid that the profile's first experiment trains on."""
    names = study.training_cases(load_experiment(study.settings.study[0]))
    cases = [study.open_case(name) for name in names]
    return [Scan(c.name, np.asarray(c.labels), study.plan.organs, frozenset(c.labelled)) for c in cases]


def study_limits(study: Study, memory_bytes: float) -> Limits:
    """Return limits with the network, the optimiser and the voxels a step of the profile's first experiment.

    Bytes are those of float32, which a machine without a faster arithmetic takes.
    """
    found = load_experiment(study.settings.study[0])
    settings = study.settings_of(found)
    training = settings.training
    return Limits(
        memory_bytes,
        found.network,
        settings.width,
        settings.cap,
        optimiser=training.optimiser,
        voxels_per_step=int(np.prod(study.patch(found))) * training.batch_size,
    )


# The patches and draws of a profile


def draw_tables(study: Study, scans: Sequence[Scan]) -> dict[str, pd.DataFrame]:
    """Return what every experiment of a profile shows: measures (`draws`), shares and presence (`draws_classes`).

    Returns
    -------
    dict of DataFrame
        ``draws``: one row an experiment, with patch, batch, context of its network in mm, share of the largest
        organ's box, every measure and ``sightings``. ``draws_classes``: one row an experiment and class, with the
        expected ``ratio`` of a patch and the ``presence``.
    """
    rows, classes = [], []
    for name in study.settings.all_experiments:
        row, shown = _experiment(study, name, scans)
        rows.append(row)
        classes.append(shown)
    return {"draws": pd.DataFrame(rows), "draws_classes": pd.concat(classes, ignore_index=True)}


def _experiment(study: Study, name: str, scans: Sequence[Scan]) -> tuple[dict[str, Any], pd.DataFrame]:
    found = load_experiment(name)
    patch, topology, settings = study.patch(found), study.topology(found), study.settings_of(found)
    batch = settings.training.batch_size
    memory = training_memory(
        found.network, topology, patch, batch, study.num_classes, width=settings.width, cap=settings.cap
    )
    candidate = Candidate(patch, batch, topology, memory, receptive_field(topology))
    shown = landscape(scans, [patch], {name: study.centres(found).for_batch(batch)}, quantities=("ratio", "presence"))
    measures: dict[Any, Any] = summarise(shown, patches_per_step=batch).drop(columns=["centres"]).to_dict("records")[0]
    key = {"profile": study.profile, "experiment": name}
    row = {
        **key,
        "patch": found.patch,
        **{edge: int(measures.pop(edge)) for edge in ("patch_x", "patch_y", "patch_z")},
        "batch_size": batch,
        "voxels_per_step": candidate.voxels_per_step,
        "draw": found.centres if isinstance(found.centres, str) else "weights",
        "context_mm": candidate.context_mm(study.plan.spacing_mm),
        "organ_box": held_organ_box(scans, patch),
        **measures,
        SIGHTINGS: measures["least_presence"] * batch,
    }
    means = shown.groupby("class", sort=False, observed=True)[["ratio", "presence"]].mean().reset_index()
    return row, means.assign(**key)[[*key, "class", "ratio", "presence"]]


# A plan


def plan_tables(
    study: Study, scans: Sequence[Scan], limits: Limits, others: Mapping[str, tuple[Triple, int]]
) -> tuple[dict[str, pd.DataFrame], PatchPlan]:
    """Plan for a study's data and set the plan beside nnU-Net's choices.

    Parameters
    ----------
    limits
        As from `study_limits`.
    others
        Patch and batch by name that somebody else chose for the same data, such as nnU-Net v2.

    Returns
    -------
    dict of DataFrame
        ``plan``: the candidates; ``plan_choices``: the plan and the others with what they show; ``plan_draws``: weight
        and presence of every organ under several draws of the planned patch; ``plan_landscape``: measures over a
        grid of patch sizes.
    PatchPlan
        The plan.
    """
    spacing = study.plan.spacing_mm
    made = plan(scans, spacing, limits)
    voxels = int(limits.voxels_per_step or made.candidate.voxels_per_step)
    rule = plan_patch(study.plan.median_shape, spacing, voxels // 2)
    given = {"nnU-Net's rule, as many voxels": (rule, 2), **others}
    tables = {
        "plan": made.table,
        "plan_choices": _choices(made, scans, given),
        "plan_draws": _draws(made, scans),
        "plan_landscape": _map(scans, study.patches["large"], [made.candidate.patch_size, rule], voxels),
    }
    return {name: table.assign(profile=study.profile) for name, table in tables.items()}, made


def nnunet_forced(batch_size: int) -> float:
    """Return the share of a step's patches that nnU-Net v2 forces onto a class.

    Those from place ``round(0.67 * batch_size)`` on (`nnunetv2`, `nnUNetDataLoader._oversample_last_XX_percent`).

    Examples
    --------
    >>> [nnunet_forced(batch) for batch in (2, 4, 5)]
    [0.5, 0.25, 0.4]
    """
    return (batch_size - round(batch_size * (1 - OVERSAMPLE))) / batch_size


def _choices(made: PatchPlan, scans: Sequence[Scan], others: Mapping[str, tuple[Triple, int]]) -> pd.DataFrame:
    """Return the plan with its draw, and every choice with nnU-Net's: all classes alike, the last third forced."""
    organs, classes = made.organs, len(made.organs) + 1
    chosen: dict[Any, Any] = made.table[made.table["chosen"]].to_dict("records")[0]
    rows = [{"choice": "planned", "draw": "planned", **chosen}]
    for name, (patch, batch) in others.items():
        candidate = candidate_of(patch, batch, made.spacing_mm, classes, made.limits)
        forced = nnunet_forced(batch)
        weights = {UNIFORM: 1 - forced, **dict.fromkeys(organs, forced / len(organs))}
        row = assess(scans, made.spacing_mm, candidate, weights, made.wish)
        rows.append({"choice": name, "draw": "nnU-Net's", **row})
    return pd.DataFrame(rows).drop(columns=["front", "chosen"])


def _draws(made: PatchPlan, scans: Sequence[Scan]) -> pd.DataFrame:
    """Return weight, share and presence of every organ under the planned draw and the named ones."""
    organs, size = made.organs, made.candidate.patch_size
    shares = np.mean([np.bincount(scan.labels.reshape(-1), minlength=len(organs) + 1)[1:] for scan in scans], axis=0)
    forced = RULES[NAMED_DRAWS["class-uniform"]].weights[1]
    weights = {
        "planned": made.draw.weights,
        "class-uniform": {UNIFORM: 1 - forced, **dict.fromkeys(organs, forced / len(organs))},
        "voxel-uniform": {UNIFORM: 1 - forced, **dict(zip(organs, forced * shares / shares.sum(), strict=True))},
    }
    laws: dict[str, CentreDistribution] = {
        "planned": made.draw.centres(organs),
        **{name: RULES[rule] for name, rule in NAMED_DRAWS.items()},
    }
    shown = landscape(scans, [size], laws, quantities=("ratio", "presence"))
    means = shown.groupby(["centres", "class"], sort=False, observed=True)[["ratio", "presence"]].mean().reset_index()
    found = means[means["class"].isin(organs)].rename(columns={"centres": "draw"}).astype({"draw": str, "class": str})
    centred = [weights[draw].get(organ, 0.0) for draw, organ in zip(found["draw"], found["class"], strict=True)]
    return found.assign(weight=centred)[["draw", "class", "weight", "ratio", "presence"]]


def _map(scans: Sequence[Scan], large: Triple, others: Sequence[Triple], voxels: int) -> pd.DataFrame:
    """Return measures over a grid of sizes; ``sightings`` is for a step of so many voxels, whatever the patch."""
    sizes = landscape_sizes(large, others)
    rows = landscape(scans, sizes, {MAPPED: RULES[MAPPED]}, quantities=("ratio", "presence"))
    table = summarise(rows)
    volume = table[["patch_x", "patch_y", "patch_z"]].prod(axis=1)
    return table.assign(**{SIGHTINGS: table["least_presence"] * voxels / volume})


# Files


def write_planning(
    study: Study, folder: Path, memory_bytes: float, others: Mapping[str, tuple[Triple, int]], notes: Mapping[str, str]
) -> PatchPlan:
    """Write the tables ``plan*`` and ``draws*`` and ``plan.json`` of a study; draws of other profiles stay in them."""
    scans, limits = planning_scans(study), study_limits(study, memory_bytes)
    tables, made = plan_tables(study, scans, limits, others)
    for name, table in tables.items():
        write_table(folder / f"{name}.csv", table)
    for name, table in draw_tables(study, scans).items():
        path = folder / f"{name}.csv"
        if path.exists():
            old = read_table(path, "delete it and run python scripts/planning_tables.py again")
            table = pd.concat([old[old["profile"] != study.profile], table], ignore_index=True)
        write_table(path, table)
    facts = {
        "dataset": study.dataset,
        "profile": study.profile,
        "attribution": study.attribution,
        "data_digest": study.data_digest,
        "cases": len(scans),
        "organs": list(made.organs),
        "spacing_mm": list(made.spacing_mm),
        "median_shape": list(study.plan.median_shape),
        "limits": asdict(limits),
        "wish": {key: value for key, value in asdict(made.wish).items() if value is not None},
        "reasons": list(made.reasons),
        "notes": dict(notes),
    }
    write_json(folder / "plan.json", facts)
    return made
