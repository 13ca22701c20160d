"""What the unfinished runs of a study will cost, from a few timed steps."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from hnlib.experiments.config import load_experiment
from hnlib.experiments.run import taken_stages
from hnlib.experiments.study import Study
from hnlib.preprocess import Prepared
from hnlib.systems import Part, build_system
from hnlib.training import (
    Settings,
    build_optimiser,
    channels_last,
    choose_precision,
    keep_freed_memory,
    open_fabric,
    plain,
)

if TYPE_CHECKING:
    from lightning.fabric import Fabric

#: Enough to time a step and to know a system's statistics of its training cases roughly.
TIMED_STEPS, TIMED_CASES = 3, 2


def estimate_study(study: Study, arms: str = "") -> str:
    """Return one line an experiment of the study and the named arms, plus the sum: minutes, memory, disk."""
    settings, experiments = study.settings, study.settings.runs_with(arms)
    lines, total, weights = [], 0.0, 0
    for experiment in experiments:
        seeds = settings.seeds_for(experiment)
        left = [s for s in seeds if not (study.run_folder(experiment, s) / "measured.json").exists()]
        if not left:
            lines.append(f"{experiment}: finished")
            continue
        found = load_experiment(experiment)
        taken = taken_stages(study, found) if found.takes in experiments else ()
        steps, case, parameters = _seconds(study, experiment, taken)
        budget = study.settings_of(found).training
        cases = len(study.split["test"])
        if settings.measures_drift(experiment):
            cases += len(study.split["validation"]) + min(settings.drift_cases, len(study.split["train"]))
        checks = budget.steps // budget.validate_every * settings.validation_cases
        minutes = (steps + (checks + cases) * case) / 60
        total += minutes * len(left)
        weights += parameters * len(left)
        each = f"{steps / budget.steps:.2f} s a step, {case:.1f} s a case"
        lines.append(f"{experiment}: {len(left)} runs of {minutes:.1f} min ({each})")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    disk = weights * 12 / 1e9  # weights and two moments of the optimiser
    cache = sum(f.stat().st_size for f in Path(study.cache).glob("*")) / 1e9
    lines.append(
        f"together about {total:.0f} min on {os.cpu_count()} cores, {memory + 2 * cache:.1f} GB of memory, "
        f"{disk:.1f} GB for checkpoints beside a cache of {cache:.1f} GB"
    )
    return "\n".join(lines)


def _seconds(study: Study, experiment: str, taken: Sequence[str] = ()) -> tuple[float, float, int]:
    """Return seconds of all steps of a run, seconds a case, and the number of parameters; stages taken cost nothing."""
    keep_freed_memory()
    found = load_experiment(experiment)
    fabric = open_fabric(1, choose_precision(study.settings_of(found).precision))
    system, material = build_system(study.blueprint(found)), study.material(found, 0, fabric.device)
    material = replace(material, training=_few(material.training))
    weights: dict[str, Mapping[str, Tensor]] = {}
    seconds = 0.0
    for stage in found.schedule(study.settings):
        names = system.trainings(stage.name)
        given = replace(material, loss=stage.loss, budget=stage.budget)
        for name in filter(system.needed.__contains__, names):
            part = system.part(name, given, weights)
            if stage.name not in taken:
                seconds += _step_seconds(part, stage.budget, fabric) * stage.budget.steps / len(names)
            weights[name] = plain(part.network).state_dict()
    predictor = system.predictor(weights, fabric.device)
    began = time.perf_counter()
    predictor(np.asarray(material.training[0].image))
    return seconds, time.perf_counter() - began, predictor.parameters


def _few(cases: Sequence[Prepared]) -> list[Prepared]:
    """Return the first cases, and of the others those that have an organ outlined which none before has."""
    chosen = list(cases[:TIMED_CASES])
    known = {organ for case in chosen for organ in case.labelled}
    for case in cases[TIMED_CASES:]:
        if not known.issuperset(case.labelled):
            chosen.append(case)
            known.update(case.labelled)
    return chosen


def _step_seconds(part: Part, budget: Settings, fabric: Fabric) -> float:
    """Return the seconds of one step without the loading of its batch, which runs beside it."""
    network, optimiser = fabric.setup(part.network, build_optimiser(part.network, budget))
    image, target, *labelled = (tensor.to(fabric.device) for tensor in part.stream.batch(0))
    times = []
    for _ in range(TIMED_STEPS):
        began = time.perf_counter()
        value = part.loss(network(channels_last(image)), target, *labelled)
        fabric.backward(value)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        value.item()  # waits for an accelerator
        times.append(time.perf_counter() - began)
    return min(times)
