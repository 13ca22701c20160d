"""One run: train a network, then predict and measure; every step continues where it was stopped.

A run is a pure function of (data set, profile, experiment, seed). Its folder holds ``run.json``,
``history.csv``, ``checkpoint.pt``, ``predictions/``, ``metrics.csv``, ``confidence.csv``,
``confidence_quantiles.csv`` and ``confidence.parquet`` (every organ voxel's probability of its class).
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import torch
from torch import nn

from hnlib.augmentation import augmentation
from hnlib.confidence import quantile_table, summarise, true_class_probabilities
from hnlib.errors import DataError
from hnlib.experiments.config import Experiment, load_experiment
from hnlib.experiments.export import export_model
from hnlib.experiments.scores import add_scores
from hnlib.experiments.study import Study, check_run, read_record
from hnlib.files import read_table, write_atomically, write_json, write_table
from hnlib.inference import keep_largest_components, predict_probabilities
from hnlib.losses import DeepSupervision, build_loss
from hnlib.losses.build import ClassVoxels
from hnlib.metrics import evaluate_case
from hnlib.networks import build_network, set_output_prior
from hnlib.organs import organ
from hnlib.patches import PatchStream
from hnlib.preprocess import Prepared, restore_probabilities
from hnlib.training import choose_precision, load_weights, open_fabric, train

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


def untrained_network(study: Study, experiment: Experiment) -> nn.Module:
    """Return the network of an experiment with fresh weights."""
    settings, topology = study.settings_of(experiment), study.topology(experiment)
    return build_network(experiment.network, topology, study.num_classes, width=settings.width, cap=settings.cap)


def supervised_loss(study: Study, experiment: Experiment, class_voxels: ClassVoxels) -> DeepSupervision:
    """Return the loss of an experiment on all heads of its network."""
    loss, how = build_loss(experiment.loss, class_voxels=class_voxels), study.settings_of(experiment).deep_supervision
    if how == "sum":
        return DeepSupervision(loss, [1.0] * study.topology(experiment).num_heads, resample="linear")
    return DeepSupervision(loss, resample=how)


def _train(
    study: Study, found: Experiment, experiment: str, seed: int, folder: Path, devices: int, report: Report
) -> None:
    settings, patch, mirror = study.settings_of(found), study.patch(found), study.mirror(found)
    budget = settings.training
    fabric = open_fabric(devices, choose_precision(settings.precision))
    report = report if fabric.is_global_zero else _silent
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = untrained_network(study, found)
    training = [study.open_case(name) for name in study.training_cases(found)]

    @cache
    def fractions() -> list[float]:
        return class_fractions(training, study.plan.organs)

    if settings.prior_bias:
        set_output_prior(network, fractions())
    if settings.compile:
        network.compile()
    stream = PatchStream(
        training,
        study.plan,
        study.centres(found),
        patch,
        seed,
        batch_size=budget.batch_size,
        same_case=budget.same_case,
        mirror=mirror,
        changes=augmentation(settings.augmentation),
    )
    watched = _watched(study, settings.validation_cases)

    def validate(net: nn.Module) -> dict[str, float]:
        return validation_dsc(net, watched, patch, study.plan.organs, fabric.device, mirror)

    name = f"{study.dataset}/{study.profile}/{experiment}/seed{seed}"
    report(f"{name}: {budget.steps} steps of {budget.batch_size} patches of {patch} voxels")
    trained, history = train(
        network,
        supervised_loss(study, found, fractions),
        stream,
        budget,
        fabric=fabric,
        checkpoint=folder / "checkpoint.pt",
        identity={"run": study.run_digest(experiment), "seed": seed},
        validate=validate if watched else None,
        report=_progress(name, budget.steps, report),
    )
    if fabric.is_global_zero:
        record = _record(study, found, experiment, seed, trained, history)
        write_table(folder / "history.csv", pd.DataFrame(history))
        write_json(folder / "run.json", {**record, "devices": devices})
        export_model(study, experiment, seed)
    fabric.barrier()


def _watched(study: Study, count: int) -> list[Prepared]:
    """Return validation cases to score while training, those with the most organs outlined first."""
    names = sorted(study.split["validation"], key=lambda name: -len(study.open_case(name).labelled))
    return [study.case(name) for name in names[:count]]


def _record(
    study: Study,
    found: Experiment,
    experiment: str,
    seed: int,
    trained: nn.Module,
    history: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return what ``run.json`` says of a finished training."""
    settings, patch = study.settings_of(found), study.patch(found)
    budget = settings.training
    return {
        **_run_key(study, experiment, seed),
        "cases": len(study.training_cases(found)),
        "steps": budget.steps,
        "seconds": round(max(float(row["seconds"]) for row in history), 1),
        "parameters": sum(p.numel() for p in trained.parameters()),
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


def class_fractions(cases: Sequence[Prepared], organs: Sequence[str]) -> list[float]:
    """Return the mean share of each class over the training scans in which it was outlined.

    An organ without a voxel counts as one voxel.
    """
    rows = []
    for case in cases:
        counts = np.maximum(np.bincount(np.asarray(case.labels).ravel(), minlength=len(organs) + 1), 1)
        known = [True, *(organ in case.labelled for organ in organs)]
        rows.append(np.where(known, counts / counts.sum(), np.nan))
    shares = np.nanmean(rows, axis=0)
    return [float(v) for v in shares / shares.sum()]


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
    every, first = max(1, steps // 20), [0, 0.0]

    def tell(done: int, loss: torch.Tensor, seconds: float) -> None:
        if first[0] == 0:
            first[:] = [done, seconds]
        elif done % every == 0 or done == steps:
            left = (seconds - first[1]) / (done - first[0]) * (steps - done)
            report(f"{name}: step {done} of {steps}, loss {float(loss):.3f}, {left / 60:.1f} min left")

    return tell


def validation_dsc(
    network: nn.Module,
    cases: Sequence[Prepared],
    patch: Sequence[int],
    organs: Sequence[str],
    device: torch.device,
    mirror: Sequence[int] = (),
) -> dict[str, float]:
    """Return the mean DSC of each organ over cases on the plan's grid; an organ that no case has is NaN."""
    scores: dict[str, list[float]] = {organ: [] for organ in organs}
    for case in cases:
        prediction = predict_probabilities(network, case.image, patch, device=device, mirror=mirror).argmax(axis=0)
        for value, name in enumerate(organs, start=1):
            truth, found = case.labels == value, prediction == value
            if name in case.labelled:
                scores[name].append(2 * float((truth & found).sum()) / max(1, int(truth.sum() + found.sum())))
    return {organ: float(np.mean(values)) if values else float("nan") for organ, values in scores.items()}


# Prediction and measurement.


def measure_run(study: Study, experiment: str, seed: int, *, report: Report = print) -> Path:
    """Predict and measure validation, test and some training cases of a finished run; return its folder.

    Of an experiment that is only in an arm of the profile the test cases alone are measured.
    Metrics are taken on the case's own grid after the largest component of each organ was kept;
    confidence is taken on the plan's grid. Each case is written when it is done.
    """
    found, folder = load_experiment(experiment), study.run_folder(experiment, seed)
    if (folder / "measured.json").exists():
        return folder
    if not (folder / "run.json").exists():
        raise DataError(f"run {folder}: not trained to the end; run hnlib train first")
    patch, mirror = study.patch(found), study.mirror(found)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_weights(folder / "checkpoint.pt", untrained_network(study, found)).to(device).eval()
    data = study.open()
    parts = {**study.split, "train": study.training_cases(found)[: study.settings.drift_cases]}
    if experiment not in study.settings.study:
        parts = {"test": parts["test"]}
    todo = [(split, name) for split, names in parts.items() for name in names]
    began = time.perf_counter()
    for done, (split, name) in enumerate(todo, start=1):
        target = folder / "measured" / f"{name}.parquet"
        if not target.exists():
            prepared = study.case(name)
            probabilities = predict_probabilities(network, prepared.image, patch, device=device, mirror=mirror)
            _measure_case(study, data.load(name).labels, prepared, probabilities, split, folder, target)
        if done % max(1, len(todo) // 10) == 0:
            left = (time.perf_counter() - began) / done * (len(todo) - done)
            report(f"{experiment}/seed{seed}: measured {done} of {len(todo)} cases, {left / 60:.1f} min left")
    _gather(study, experiment, seed, folder, todo)
    add_scores(folder)
    return folder


def _measure_case(
    study: Study,
    reference: np.ndarray,
    prepared: Prepared,
    probabilities: np.ndarray,
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
    summary = summarise(probabilities, prepared.labels, organs, prepared.labelled)
    voxels = true_class_probabilities(probabilities, prepared.labels, organs, prepared.labelled)
    tables = [
        metrics.assign(table="metrics"),
        summary.assign(table="confidence"),
        *(pd.DataFrame({"organ": o, "value": p, "table": "voxels"}) for o, p in voxels.items()),
    ]
    whole = pd.concat(tables, ignore_index=True).assign(split=split, case=prepared.name)
    write_atomically(target, lambda part: whole.to_parquet(part, index=False))


def _gather(study: Study, experiment: str, seed: int, folder: Path, todo: Sequence[tuple[str, str]]) -> None:
    key = {k: v for k, v in _run_key(study, experiment, seed).items() if k != "dataset"}
    whole = pd.concat([pd.read_parquet(folder / "measured" / f"{name}.parquet") for _, name in todo])
    part = dict(iter(whole.groupby("table", sort=False)))
    metrics = part["metrics"][["split", "case", "organ", "metric", "value"]]
    numbers = ["voxels", "soft_recall", "soft_precision", "q05", "q25", "q50", "q75", "q95"]
    confidence = part["confidence"][["split", "case", "organ", *numbers]].astype({"voxels": int})
    voxels = part["voxels"][["split", "case", "organ", "value"]].reset_index(drop=True)
    quantiles = [
        quantile_table([{str(o): p["value"].to_numpy() for o, p in rows.groupby("organ", sort=False)}]).assign(
            split=split
        )
        for split, rows in voxels.groupby("split", sort=False)
    ]
    write_atomically(folder / "confidence.parquet", lambda out: voxels.to_parquet(out, index=False))
    tables = {
        "metrics": metrics,
        "confidence": confidence,
        "confidence_quantiles": pd.concat(quantiles)[["split", "organ", "quantile", "value"]],
    }
    for name, table in tables.items():
        write_table(folder / f"{name}.csv", _keyed(table, key))
    write_json(folder / "measured.json", {**key, "cases": len(todo)})


def _keyed(table: pd.DataFrame, key: Mapping[str, Any]) -> pd.DataFrame:
    keyed = table.reset_index(drop=True)
    for position, (name, value) in enumerate(key.items()):
        keyed.insert(position, name, value)
    return keyed
