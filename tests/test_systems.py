"""Staged systems: one schedule, one loop; what is finished stays, what is frozen does not move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hnlib.errors import ConfigError, DataError
from hnlib.experiments import Study, load_experiment
from hnlib.experiments.config import Experiment, StageOf
from hnlib.systems import (
    SYSTEMS,
    Blueprint,
    Material,
    Part,
    Predictor,
    Stage,
    System,
    Weights,
    build_system,
    checkpoint_path,
    read_weights,
    train_system,
)
from hnlib.training import Settings, load_state, open_fabric


class Line(nn.Module):
    """Two scalars: first * x + second."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.first * x + self.second


class Points:
    """y = 2 x + 1 at random points."""

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[Tensor, ...]:
        x = torch.randn(4, 1, 2, 2, 2, generator=torch.Generator().manual_seed(step))
        return x, 2 * x + 1


class TwoSteps(System):
    """First the slope, then, with the slope frozen, the offset, twice."""

    stages = ("slope", "offset")

    def __init__(self, blueprint: Blueprint) -> None:
        super().__init__(blueprint)
        self.built: list[str] = []

    def trainings(self, stage: str) -> tuple[str, ...]:
        return ("offset-a", "offset-b") if stage == "offset" else (stage,)

    def part(self, name: str, material: Material, done: Weights) -> Part:
        self.built.append(name)
        line = Line()
        if name != "slope":
            load_state(line, done["slope"])
            line.first.requires_grad_(False)
        return Part(line, nn.MSELoss(), Points())

    def predictor(self, weights: Weights, device: torch.device | str = "cpu") -> Predictor:
        line = load_state(Line(), weights["offset-b"])
        return Predictor((line,), lambda image: line(torch.as_tensor(image)).detach().numpy())


@pytest.fixture
def system(tiny_study: Study) -> TwoSteps:
    return TwoSteps(tiny_study.blueprint(load_experiment("small_ca_dice_ce")))


@pytest.fixture
def material(tiny_study: Study) -> Material:
    return tiny_study.material(load_experiment("small_ca_dice_ce"), 0)


def settings(steps: int) -> Settings:
    return Settings(
        steps=steps, batch_size=4, learning_rate=0.05, validate_every=10, checkpoint_every=1, weight_decay=0
    )


SCHEDULE = (Stage("slope", settings(40), "ce"), Stage("offset", settings(80), "ce"))


def run(system: System, material: Material, folder: Path, report: Any = None) -> tuple[Weights, list[dict[str, Any]]]:
    fabric = open_fabric(1, "32-true")
    return train_system(system, SCHEDULE, material, folder, fabric=fabric, identity={"run": "x"}, report=report)


def test_stages_follow_each_other_and_what_is_frozen_stays(
    system: TwoSteps, material: Material, tmp_path: Path
) -> None:
    weights, history = run(system, material, tmp_path)
    assert system.built == ["slope", "offset-a", "offset-b"]
    assert list(weights) == system.built
    assert weights["offset-a"]["first"] == weights["slope"]["first"] != 0
    assert weights["offset-b"]["second"] != weights["slope"]["second"]
    # 40 steps, then 80 shared by two; steps and seconds go on
    assert [(row["stage"], row["step"]) for row in history if row["step"] % 40 == 0] == [
        ("slope", 40), ("offset-a", 80), ("offset-b", 120)
    ]  # fmt: skip
    seconds = [row["seconds"] for row in history]
    assert seconds == sorted(seconds)


def test_a_killed_run_goes_on_where_it_was(system: TwoSteps, material: Material, tmp_path: Path) -> None:
    """Interrupted in the second training, resumed: the weights of an uninterrupted run, the first not built again."""
    whole, history = run(system, material, tmp_path / "whole")

    class KilledError(Exception):
        pass

    def report(name: str, _steps: int) -> Any:
        def tell(done: int, _loss: Tensor, _seconds: float) -> None:
            if name == "offset-a" and done == 17:
                raise KilledError

        return tell

    with pytest.raises(KilledError):
        run(system, material, tmp_path / "cut", report)
    system.built.clear()
    again, told = run(system, material, tmp_path / "cut")
    assert system.built == ["offset-a", "offset-b"]
    assert all(torch.equal(again[part][k], whole[part][k]) for part in whole for k in whole[part])
    assert [(r["step"], r["loss"], r["stage"]) for r in told] == [(r["step"], r["loss"], r["stage"]) for r in history]


def test_a_predictor_is_built_from_the_run_folder(system: TwoSteps, material: Material, tmp_path: Path) -> None:
    run(system, material, tmp_path)
    predictor = system.predictor(read_weights(system, tmp_path))
    assert predictor.parameters == 2
    assert predictor(np.zeros((1, 1, 1), np.float32)).item() == pytest.approx(predictor.modules[0].second.item())
    checkpoint_path(tmp_path, "offset-a").unlink()
    with pytest.raises(DataError, match=r"checkpoint-offset-a\.pt is missing; delete run\.json there and train again"):
        read_weights(system, tmp_path)


def test_a_checkpoint_of_another_run_is_refused(system: TwoSteps, material: Material, tmp_path: Path) -> None:
    run(system, material, tmp_path)
    with pytest.raises(DataError, match="written with another run"):
        train_system(
            system, SCHEDULE, material, tmp_path, fabric=open_fabric(1, "32-true"), identity={"run": "y"}
        )  # fmt: skip


def staged(**changes: Any) -> Experiment:
    return load_experiment("small_ca_dice_ce").model_copy(update={"title": "mine", "system": "two_steps", **changes})


def test_a_schedule_divides_the_steps(tiny_study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SYSTEMS, "two_steps", TwoSteps)  # type: ignore[arg-type]
    stages = (
        StageOf(name="slope", share=0.25, loss="ce"),
        StageOf(name="offset", share=0.75, training={"learning_rate": 0.1}),
    )
    profile = tiny_study.settings
    slope, offset = staged(stages=stages).schedule(profile)
    assert slope.budget.steps == round(profile.training.steps / 4)
    assert slope.loss == "ce"
    assert offset.loss == load_experiment("small_ca_dice_ce").loss
    assert (slope.budget.learning_rate, offset.budget.learning_rate) == (profile.training.learning_rate, 0.1)


@pytest.mark.parametrize(
    ("stages", "told"),
    [
        ([("offset", 0.5), ("slope", 0.5)], "stages are offset, slope; two_steps has slope, offset"),
        ([("slope", 0.5)], "two_steps has slope, offset"),
        ([("slope", 0.5), ("offset", 0.6)], "sum to 1.1; 1 is needed"),
    ],
)
def test_a_wrong_schedule_is_refused(
    stages: list[tuple[str, float]], told: str, tiny_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SYSTEMS, "two_steps", TwoSteps)  # type: ignore[arg-type]
    declared = tuple(StageOf(name=name, share=share) for name, share in stages)
    with pytest.raises(ConfigError, match=told):
        staged(stages=declared).schedule(tiny_study.settings)


def test_options_of_one_network_reach_its_builder(tiny_study: Study) -> None:
    """A wrong one is told with the builder's own."""
    blueprint = tiny_study.blueprint(load_experiment("small_ca_dice_ce"))
    object.__setattr__(blueprint, "options", {"depth": 3})
    system = build_system(blueprint)
    with pytest.raises(ConfigError, match="unknown dynunet option 'depth': Known: none"):
        system.part("network", tiny_study.material(load_experiment("small_ca_dice_ce"), 0), {})
