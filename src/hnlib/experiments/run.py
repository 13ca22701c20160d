"""One run: train a network, then predict and measure; every step continues where it was stopped.

A run is a pure function of (data set, profile, experiment, seed). Its folder holds ``run.json``,
``history.csv``, ``checkpoint.pt``, ``predictions/``, ``metrics.csv``, the tables of
`hnlib.confidence.run_tables` and ``confidence.parquet`` (every organ voxel's probability of its class).
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import torch

from hnlib.confidence import case_tables, run_tables
from hnlib.errors import ConfigError, DataError
from hnlib.experiments.config import Experiment, load_experiment
from hnlib.experiments.export import export_model
from hnlib.experiments.scores import add_scores
from hnlib.experiments.study import Study, check_run, read_record
from hnlib.files import read_table, write_atomically, write_json, write_table
from hnlib.inference import keep_largest_components
from hnlib.metrics import evaluate_case
from hnlib.organs import organ
from hnlib.preprocess import Prepared, restore_probabilities
from hnlib.systems import SYSTEMS, build_system, read_weights, take_trainings, train_system
from hnlib.training import choose_precision, open_fabric

Report = Callable[[str], None]
PACKAGES = ("torch", "monai", "lightning", "numpy", "scipy")


@dataclass(frozen=True)
class Run:
    """A finished training: its folder, its record (``run.json``) and its history."""

    folder: Path
    record: Mapping[str, Any]
    history: pd.DataFrame


def train_run(study: Study, experiment: str, seed: int, *, devices: int = 1, report: Report = print) -> Run:
    """Train one run, or return it where it is finished already.

    Progress goes to ``report``, one line a twentieth of the run, with the time left. With several
    ``devices`` the calling script is started once for each of them (DDP) and they share every batch.
    """
    found = check_run(study, experiment, seed)
    folder = study.run_folder(experiment, seed)
    if not (folder / "run.json").exists():
        _train(study, found, experiment, seed, folder, devices, report)
    record, remedy = read_record(folder), f"delete {folder / 'run.json'} too and run hnlib train again"
    history = read_table(folder / "history.csv", remedy, keep_default_na=False, na_values=["nan", "NaN"])
    return Run(folder, record, history)


def _train(
    study: Study, found: Experiment, experiment: str, seed: int, folder: Path, devices: int, report: Report
) -> None:
    fabric = open_fabric(devices, choose_precision(study.settings_of(found).precision))
    report = report if fabric.is_global_zero else _silent
    folder.mkdir(parents=True, exist_ok=True)
    system, material = build_system(study.blueprint(found)), study.material(found, seed, fabric.device)
    name = f"{study.dataset}/{study.profile}/{experiment}/seed{seed}"
    budget = material.budget
    report(f"{name}: {budget.steps} steps of {budget.batch_size} patches of {study.patch(found)} voxels")
    for note in system.notes(material):
        report(f"{name}: {note}")
    identity, schedule = {"run": study.run_digest(experiment), "seed": seed}, found.schedule(study.settings)
    if found.takes and fabric.is_global_zero:
        source = study.run_folder(found.takes, seed)
        for taken in take_trainings(system, schedule, folder, source, identity, taken_stages(study, found)):
            report(f"{name}: {taken} taken from {found.takes}")
    fabric.barrier()
    weights, history = train_system(
        system,
        schedule,
        material,
        folder,
        fabric=fabric,
        identity=identity,
        report=lambda stage, steps: _progress(name if stage == "network" else f"{name}, {stage}", steps, report),
    )
    if fabric.is_global_zero:
        parameters = system.predictor(weights).parameters
        record = _record(study, found, experiment, seed, parameters, history)
        write_table(folder / "history.csv", pd.DataFrame(history))
        _forget_measures(folder)  # those of a training before, whose record was deleted
        write_json(folder / "run.json", {**record, "devices": devices})
        export_model(study, experiment, seed)
    fabric.barrier()


def taken_stages(study: Study, found: Experiment) -> tuple[str, ...]:
    """Return the first stages of an experiment that are those of the one it takes trainings from.

    Raises
    ------
    ConfigError
        When the two differ in more than title, stages and the options that come late.
    """
    whole, late = load_experiment(str(found.takes)), SYSTEMS[found.system].late
    mine, theirs = (
        {
            **one.model_dump(exclude={"title", "takes", "stages"}),
            "options": {k: v for k, v in one.options.items() if k not in late},
        }
        for one in (found, whole)
    )
    differing = [key for key in mine if mine[key] != theirs[key]]
    if differing:
        raise ConfigError(f"experiment '{found.title}': takes {found.takes}, but differs in {', '.join(differing)}")
    pairs = zip(found.schedule(study.settings), whole.schedule(study.settings), strict=True)
    return tuple(one.name for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _record(
    study: Study,
    found: Experiment,
    experiment: str,
    seed: int,
    parameters: int,
    history: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what ``run.json`` says of a finished training."""
    settings, patch = study.settings_of(found), study.patch(found)
    budget = settings.training
    return {
        **_run_key(study, experiment, seed),
        "cases": len(study.training_cases(found)),
        "steps": int(max(row["step"] for row in history)),
        "seconds": round(max(float(row["seconds"]) for row in history), 1),
        "parameters": parameters,
        "voxels_per_step": int(np.prod(patch)) * budget.batch_size,
        "patch": list(patch),
        "precision": choose_precision(settings.precision),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "digests": {"run": study.run_digest(experiment), "data": study.data_digest, "cache": Path(study.cache).name},
    }


def _silent(_line: str) -> None:
    """Report nothing: of several processes one speaks."""


def _run_key(study: Study, experiment: str, seed: int) -> dict[str, Any]:
    return {"dataset": study.dataset, "profile": study.profile, "experiment": experiment, "seed": seed}


def hardware() -> str:
    """Return processor or GPU, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {torch.get_num_threads()} of {os.cpu_count()} cores"


def _progress(name: str, steps: int, report: Report) -> Callable[[int, torch.Tensor, float], None]:
    """Return what tells a line now and then: steps done, mean loss since the line before, minutes left."""
    every, first, losses = max(1, steps // 20), [0, 0.0], list[torch.Tensor]()

    def tell(done: int, loss: torch.Tensor, seconds: float) -> None:
        losses.append(loss)
        if first[0] == 0:
            first[:] = [done, seconds]
        elif done % every == 0 or done == steps:
            left = (seconds - first[1]) / (done - first[0]) * (steps - done)
            mean = float(torch.stack(losses).float().mean())
            losses.clear()
            report(f"{name}: step {done} of {steps}, mean loss {mean:.3f}, {left / 60:.1f} min left")

    return tell


# Prediction and measurement.


def measure_run(study: Study, experiment: str, seed: int, *, again: bool = False, report: Report = print) -> Path:
    """Predict and measure validation, test and some training cases of a finished run; return its folder.

    Of an experiment that is only in an arm of the profile the test cases alone are measured, unless the arm is one
    of ``drift_arms``. ``again``: also where the run is measured already, for tables that were added since.
    Metrics are taken on the case's own grid after the largest component of each organ was kept; confidence is
    taken on the plan's grid. Each case is written when it is done.
    """
    found, folder = load_experiment(experiment), study.run_folder(experiment, seed)
    if again:
        _forget_measures(folder)
    if (folder / "measured.json").exists():
        return folder
    if not (folder / "run.json").exists():
        raise DataError(f"run {folder}: not trained to the end; run hnlib train first")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    system = build_system(study.blueprint(found))
    predictor = system.predictor(read_weights(system, folder), device)
    data = study.open()
    parts = {**study.split, "train": study.training_cases(found)[: study.settings.drift_cases]}
    if not study.settings.measures_drift(experiment):
        parts = {"test": parts["test"]}
    todo = [(split, name) for split, names in parts.items() for name in names]
    began = time.perf_counter()
    for done, (split, name) in enumerate(todo, start=1):
        target = folder / "measured" / f"{name}.parquet"
        if not target.exists():
            prepared = study.case(name)
            probabilities = predictor(prepared.image)
            also = predictor.also(prepared) if predictor.also else {}
            _measure_case(study, data.load(name).labels, prepared, probabilities, also, split, folder, target)
        if done % max(1, len(todo) // 10) == 0:
            left = (time.perf_counter() - began) / done * (len(todo) - done)
            report(f"{experiment}/seed{seed}: measured {done} of {len(todo)} cases, {left / 60:.1f} min left")
    _gather(study, experiment, seed, folder, todo)
    add_scores(folder)
    return folder


def _forget_measures(folder: Path) -> None:
    """Remove the measures of a run, the sign that it is measured first; predictions stay until they are replaced."""
    (folder / "measured.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "measured", ignore_errors=True)


def _measure_case(
    study: Study,
    reference: np.ndarray,
    prepared: Prepared,
    probabilities: np.ndarray,
    also: Mapping[tuple[str, str], float],
    split: str,
    folder: Path,
    target: Path,
) -> None:
    organs = study.plan.organs
    prediction = keep_largest_components(restore_probabilities(probabilities, prepared))
    affine = np.diag([*prepared.native_spacing_mm, 1.0])
    image = nibabel.Nifti1Image(prediction, affine)
    write_atomically(folder / "predictions" / f"{prepared.name}.nii.gz", lambda part: nibabel.save(image, part))
    metrics = evaluate_case(
        reference,
        prediction,
        spacing_mm=prepared.native_spacing_mm,
        organs=organs,
        labelled=prepared.labelled,
        tolerances_mm={name: organ(name).tolerance_mm for name in organs},
    )
    rows = [(name, metric, value) for (name, metric), value in also.items()]
    further = [pd.DataFrame(rows, columns=["organ", "metric", "value"])] if rows else []
    confidence = case_tables(probabilities, prepared.labels, organs, prepared.labelled, study.plan.spacing_mm)
    tables = [*(table.assign(table="metrics") for table in (metrics, *further)), *confidence]
    whole = pd.concat(tables, ignore_index=True).assign(split=split, case=prepared.name)
    write_atomically(target, lambda part: whole.to_parquet(part, index=False))


def _gather(study: Study, experiment: str, seed: int, folder: Path, todo: Sequence[tuple[str, str]]) -> None:
    key = {k: v for k, v in _run_key(study, experiment, seed).items() if k != "dataset"}
    whole = pd.concat([pd.read_parquet(folder / "measured" / f"{name}.parquet") for _, name in todo])
    part = dict(iter(whole.groupby("table", sort=False)))
    voxels = part["voxels"][["split", "case", "organ", "value"]].reset_index(drop=True)
    write_atomically(folder / "confidence.parquet", lambda out: voxels.to_parquet(out, index=False))
    tables = {"metrics": part["metrics"][["split", "case", "organ", "metric", "value"]], **run_tables(whole)}
    for name, table in tables.items():
        write_table(folder / f"{name}.csv", _keyed(table, key))
    write_json(folder / "measured.json", {**key, "cases": len(todo)})


def _keyed(table: pd.DataFrame, key: Mapping[str, Any]) -> pd.DataFrame:
    keyed = table.reset_index(drop=True)
    for position, (name, value) in enumerate(key.items()):
        keyed.insert(position, name, value)
    return keyed
