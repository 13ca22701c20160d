"""A schedule of stages, run through the one training loop; a killed run goes on in the stage where it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hnlib.errors import DataError
from hnlib.files import write_atomically
from hnlib.systems.system import Material, Stage, System, Weights
from hnlib.training import Row, Settings, check_identity, plain, read_checkpoint, train

if TYPE_CHECKING:
    from lightning.fabric import Fabric

#: Makes the report of a training: called with its name and its steps.
Reporter = Callable[[str, int], Callable[[int, Tensor, float], None]]


def checkpoint_path(folder: Path, name: str) -> Path:
    """Return the checkpoint of a training in a run's folder."""
    return folder / ("checkpoint.pt" if name == "network" else f"checkpoint-{name}.pt")


def train_system(
    system: System,
    schedule: Sequence[Stage],
    material: Material,
    folder: Path,
    *,
    fabric: Fabric,
    identity: Mapping[str, Any],
    report: Reporter | None = None,
) -> tuple[Weights, list[Row]]:
    """Train the stages of a system one after the other; what is finished is read and not trained again.

    Parameters
    ----------
    schedule
        The system's stages in their order; the steps of a stage are shared by its trainings.
    folder
        Gets one checkpoint a training.
    identity
        What every checkpoint must agree on to be continued.

    Returns
    -------
    weights, history
        The state of each network, and the rows of `hnlib.training.train` with the training's name under
        ``stage``; step and seconds go on from stage to stage.
    """
    done: dict[str, Mapping[str, Tensor]] = {}
    history: list[Row] = []
    place = -1  # of a training among all: its seed is the same whether others are left out or not
    for stage in schedule:
        names = system.trainings(stage.name)
        given = replace(material, loss=stage.loss, budget=share(stage.budget, len(names)))
        for name in names:
            place += 1
            if name not in system.needed:
                continue
            torch.manual_seed(material.seed + 1000 * place)
            weights, rows = _train_one(system, name, given, done, folder, fabric, identity, report)
            done[name] = weights
            history += _go_on(rows, history, name)
    return done, history


def share(budget: Settings, trainings: int) -> Settings:
    """Return the budget of one of so many trainings of a stage."""
    return replace(budget, steps=max(1, round(budget.steps / trainings)))


def _train_one(
    system: System,
    name: str,
    material: Material,
    done: Weights,
    folder: Path,
    fabric: Fabric,
    identity: Mapping[str, Any],
    report: Reporter | None,
) -> tuple[Mapping[str, Tensor], list[Row]]:
    path, steps = checkpoint_path(folder, name), material.budget.steps
    if path.exists():
        content = read_checkpoint(path)
        check_identity(path, content, identity)
        if content["step"] == steps:
            return content["network"], content["history"]
    part, budget = system.part(name, material, done), material.budget
    if part.checks:
        budget = replace(budget, validate_every=max(1, steps // part.checks))
    try:
        trained, rows = train(
            part.network,
            part.loss,
            part.stream,
            budget,
            fabric=fabric,
            checkpoint=path,
            identity=identity,
            validate=part.validate,
            report=report(name, steps) if report else None,
            keep_best=part.checks > 0,
        )
    except DataError as fault:
        raise DataError(f"{name}, {fault}") from None
    return plain(trained).state_dict(), rows


def take_trainings(
    system: System,
    schedule: Sequence[Stage],
    folder: Path,
    source: Path,
    identity: Mapping[str, Any],
    stages: Sequence[str],
) -> list[str]:
    """Take over from another run's folder the finished trainings of some stages; return their names.

    That the trainings are the same is the caller's to know. What is in `folder` already stays.
    """
    taken = []
    for stage in schedule:
        names = system.trainings(stage.name)
        for name in names:
            old, new = checkpoint_path(source, name), checkpoint_path(folder, name)
            if stage.name not in stages or name not in system.needed or new.exists() or not old.exists():
                continue
            content = read_checkpoint(old)
            if content["step"] == share(stage.budget, len(names)).steps:
                content["identity"] = dict(identity)
                write_atomically(new, partial(torch.save, content))
                taken.append(name)
    return taken


def _go_on(rows: Sequence[Row], before: Sequence[Row], name: str) -> list[Row]:
    """Return a stage's rows with step and seconds counted from the start of the run."""
    step, seconds = (before[-1]["step"], before[-1]["seconds"]) if before else (0, 0.0)
    return [{**row, "step": row["step"] + step, "seconds": row["seconds"] + seconds, "stage": name} for row in rows]


def read_weights(system: System, folder: Path) -> Weights:
    """Read from a run's folder the weights that a predictor needs.

    Raises
    ------
    DataError
        When a checkpoint is missing or damaged.
    """
    for name in system.deployed:
        path = checkpoint_path(folder, name)
        if not path.exists():
            raise DataError(
                f"run {folder}: its checkpoint {path.name} is missing; delete run.json there and train again"
            )
    return {name: read_checkpoint(checkpoint_path(folder, name))["network"] for name in system.deployed}
