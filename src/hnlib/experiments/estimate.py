"""What the unfinished runs of a study will cost, from a few timed steps."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import torch
from torch import nn

from hnlib.experiments.config import load_experiment
from hnlib.experiments.run import supervised_loss, untrained_network
from hnlib.experiments.study import Study
from hnlib.inference import predict_probabilities
from hnlib.training import build_optimiser, keep_freed_memory

TIMED_STEPS = 3


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
        step, case, parameters = _seconds(study, experiment)
        budget = study.settings_of(load_experiment(experiment)).training
        checks = budget.steps // budget.validate_every * settings.validation_cases
        minutes = (budget.steps * step + (checks + cases) * case) / 60
        total += minutes * len(left)
        lines.append(f"{experiment}: {len(left)} runs of {minutes:.1f} min ({step:.2f} s a step, {case:.1f} s a case)")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    disk = parameters * 12 * len(experiments) * len(settings.seeds) / 1e9
    cache = sum(f.stat().st_size for f in Path(study.cache).glob("*")) / 1e9
    lines.append(
        f"together about {total:.0f} min on {os.cpu_count()} cores, {memory + 2 * cache:.1f} GB of memory, "
        f"{disk:.1f} GB for checkpoints beside a cache of {cache:.1f} GB"
    )
    return "\n".join(lines)


def _seconds(study: Study, experiment: str) -> tuple[float, float, int]:
    """Return seconds a step, seconds a case, and the number of parameters."""
    keep_freed_memory()
    found = load_experiment(experiment)
    settings, patch = study.settings_of(found), study.patch(found)
    network = untrained_network(study, found)
    loss: nn.Module = supervised_loss(study, found, [1.0] * study.num_classes)
    optimiser = build_optimiser(network, settings.training)
    image = torch.randn(settings.training.batch_size, 1, *patch).to(memory_format=torch.channels_last_3d)
    target = torch.zeros(settings.training.batch_size, *patch, dtype=torch.int64)
    times = []
    for _ in range(TIMED_STEPS):
        began = time.perf_counter()
        loss(network(image), target).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - began)
    began = time.perf_counter()
    predict_probabilities(network, study.case(study.split["train"][0]).image, patch, mirror=study.mirror(found))
    return min(times), time.perf_counter() - began, sum(p.numel() for p in network.parameters())
