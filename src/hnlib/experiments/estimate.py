"""What the unfinished runs of a study will cost, from a few timed steps."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from hnlib.experiments.config import load_experiment
from hnlib.experiments.run import taken_stages
from hnlib.experiments.study import Study
from hnlib.systems import Part, build_system
from hnlib.training import Settings, build_optimiser, channels_last, keep_freed_memory

#: Enough to time a step and to know a system's statistics of its training cases roughly.
TIMED_STEPS, TIMED_CASES = 3, 2


def estimate_study(study: Study, arms: str = "") -> str:
    """Return one line an experiment of the study and the named arms, plus the sum: minutes, memory, disk."""
    settings, experiments = study.settings, study.settings.runs_with(arms)
    cases = sum(len(study.split[split]) for split in ("validation", "test"))
    cases += min(settings.drift_cases, len(study.split["train"]))
    lines, total, parameters = [], 0.0, 0
    for experiment in experiments:
        left = [s for s in settings.seeds if not (study.run_folder(experiment, s) / "measured.json").exists()]
        if not left:
            lines.append(f"{experiment}: finished")
            continue
        found = load_experiment(experiment)
        taken = taken_stages(study, found) if found.takes in experiments else ()
        steps, case, parameters = _seconds(study, experiment, taken)
        budget = study.settings_of(found).training
        checks = budget.steps // budget.validate_every * settings.validation_cases
        minutes = (steps + (checks + cases) * case) / 60
        total += minutes * len(left)
        each = f"{steps / budget.steps:.2f} s a step, {case:.1f} s a case"
        lines.append(f"{experiment}: {len(left)} runs of {minutes:.1f} min ({each})")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    disk = parameters * 12 * len(experiments) * len(settings.seeds) / 1e9
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
    system, material = build_system(study.blueprint(found)), study.material(found, 0)
    material = replace(material, training=material.training[:TIMED_CASES])
    weights: dict[str, Mapping[str, Tensor]] = {}
    seconds = 0.0
    for stage in found.schedule(study.settings):
        names = system.trainings(stage.name)
        given = replace(material, loss=stage.loss, budget=stage.budget)
        for name in filter(system.needed.__contains__, names):
            part = system.part(name, given, weights)
            if stage.name not in taken:
                seconds += _step_seconds(part, stage.budget) * stage.budget.steps / len(names)
            weights[name] = part.network.state_dict()
    predictor = system.predictor(weights)
    began = time.perf_counter()
    predictor(np.asarray(material.training[0].image))
    return seconds, time.perf_counter() - began, predictor.parameters


def _step_seconds(part: Part, budget: Settings) -> float:
    """Return the seconds of one step without the loading of its batch, which runs beside it."""
    optimiser = build_optimiser(part.network, budget)
    image, target, *labelled = part.stream.batch(0)
    times = []
    for _ in range(TIMED_STEPS):
        began = time.perf_counter()
        part.loss(part.network(channels_last(image)), target, *labelled).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - began)
    return min(times)
