"""The training loop: it learns, it is deterministic, and a killed run goes on as if it had not been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric

from hnlib.errors import DataError
from hnlib.experiments import Study, train_run
from hnlib.losses import DeepSupervision, build_loss
from hnlib.networks import build_network, plan_topology
from hnlib.preprocess import Plan, Prepared
from hnlib.sampling import RULES
from hnlib.training import PatchStream, Settings, choose_precision, learning_rate, load_weights, read_checkpoint, train

PATCH = (16, 16, 16)
PLAN = Plan((1.0, 1.0, 1.0), PATCH, (-100.0, 100.0), 0.0, 100.0, ("mandible",))
SETTINGS = Settings(steps=6, learning_rate=3e-3, validate_every=3, checkpoint_every=2)


def ball_case(name: str = "a") -> Prepared:
    grid = np.stack(np.meshgrid(*[np.arange(20)] * 3, indexing="ij"))
    labels = (((grid - 9.5) ** 2).sum(axis=0) < 36).astype(np.uint8)
    image = (labels + 0.1 * np.random.default_rng(0).standard_normal(labels.shape)).astype(np.float32)
    return Prepared(name, image, labels, ((0, 20),) * 3, (20, 20, 20), (1.0, 1.0, 1.0), frozenset({"mandible"}))


def run(folder: Path, settings: Settings, *, stop_after: int | None = None, identity: str = "x") -> Any:
    torch.manual_seed(0)
    network = build_network("dynunet", plan_topology(PATCH, (1, 1, 1)), 2, width=4, cap=8)
    stream = PatchStream([ball_case()], PLAN, RULES["nnunet"], PATCH, settings, seed=0)

    def report(step: int, loss: float, seconds: float) -> None:
        if step == stop_after:
            raise KeyboardInterrupt

    return train(
        network,
        DeepSupervision(build_loss("nnu_dice+ce")),
        stream,
        settings,
        fabric=Fabric(accelerator="cpu", devices=1, precision="32-true"),
        checkpoint=folder / "checkpoint.pt",
        identity={"run": identity},
        report=report,
    )


def test_patches_follow_from_seed_and_step_alone() -> None:
    streams = [PatchStream([ball_case()], PLAN, RULES["nnunet"], PATCH, SETTINGS, seed) for seed in (0, 0, 1)]
    first, again, other = (stream.batch(5) for stream in streams)
    assert first[0].shape == (2, 1, *PATCH)
    assert first[1].dtype == torch.int64
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_one_of_two_patches_is_centred_on_an_organ() -> None:
    """The rule of the four configurations: the second patch of a batch is forced to a class."""
    stream = PatchStream([ball_case()], PLAN, RULES["nnunet"], (4, 4, 4), SETTINGS, seed=0)
    for step in range(20):
        assert stream.batch(step)[1][1, 2, 2, 2] == 1


def test_same_case_takes_both_patches_from_one_scan() -> None:
    cases = [replace(ball_case(str(k)), image=np.full((20, 20, 20), float(k), np.float32)) for k in range(5)]
    stream = PatchStream(cases, PLAN, RULES["uniform"], PATCH, replace(SETTINGS, same_case=True), seed=0)
    for step in range(10):
        image, _ = stream.batch(step)
        assert image[0].unique().tolist() == image[1].unique().tolist()


def test_poly_schedule_moves_once_an_epoch() -> None:
    """nnU-Net: 0.01 (1 - epoch / epochs)^0.9."""
    settings = Settings(steps=1000, schedule="poly", schedule_steps=125, learning_rate=0.01)
    assert learning_rate(124, settings) == 0.01
    assert learning_rate(125, settings) == pytest.approx(0.01 * (1 - 0.125) ** 0.9)


def test_one_cycle_rises_for_a_tenth_and_ends_near_zero() -> None:
    rates = [learning_rate(step, Settings(steps=100, learning_rate=1.0)) for step in range(100)]
    assert int(np.argmax(rates)) == 10
    assert rates[0] == pytest.approx(0.04)
    assert rates[-1] < 1e-3


def test_the_loop_learns_a_ball(tmp_path: Path) -> None:
    settings = Settings(steps=60, learning_rate=1e-2, validate_every=10, checkpoint_every=60)
    _, history = run(tmp_path, settings)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


def test_two_runs_are_identical(tmp_path: Path) -> None:
    one, _ = run(tmp_path / "one", SETTINGS)
    two, _ = run(tmp_path / "two", SETTINGS)
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("stop_after", [3, 5])
def test_an_interrupted_run_continues_to_the_same_weights(tmp_path: Path, stop_after: int) -> None:
    whole, history = run(tmp_path / "whole", SETTINGS)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", SETTINGS, stop_after=stop_after)
    assert read_checkpoint(tmp_path / "cut" / "checkpoint.pt")["step"] == stop_after - 1
    resumed, again = run(tmp_path / "cut", SETTINGS)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert [row["loss"] for row in history] == [row["loss"] for row in again]


def test_a_checkpoint_of_another_run_is_refused_and_kept(tmp_path: Path) -> None:
    run(tmp_path, SETTINGS)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(DataError, match=r"checkpoint .*checkpoint\.pt: it was written with another run"):
        run(tmp_path, SETTINGS, identity="y")
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_checkpoint_of_another_architecture_is_one_line(tmp_path: Path) -> None:
    run(tmp_path, SETTINGS)
    other = build_network("dynunet", plan_topology(PATCH, (1, 1, 1)), 2, width=6, cap=8)
    with pytest.raises(DataError, match="another architecture") as caught:
        load_weights(tmp_path / "checkpoint.pt", other)
    assert "\n" not in str(caught.value)


def test_a_damaged_checkpoint_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"half")
    with pytest.raises(DataError, match=r"cannot be read .* delete it to train afresh"):
        run(tmp_path, SETTINGS)


def test_no_training_case_is_told() -> None:
    with pytest.raises(DataError, match="no training case"):
        PatchStream([], PLAN, RULES["nnunet"], PATCH, SETTINGS, seed=0)


def test_precision_is_float32_where_it_is_asked_for() -> None:
    assert choose_precision("float32") == "32-true"
    assert choose_precision("bf16") == "bf16-mixed"
    assert choose_precision("auto") in ("32-true", "bf16-mixed")


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("HNLIB_FULL") != "1", reason="kill test runs with HNLIB_FULL=1")
def test_a_run_that_is_killed_continues_bit_for_bit(tiny_study: Study, tmp_path: Path) -> None:
    """SIGKILL in the middle, start again: the weights are those of a run that nobody touched."""
    whole = read_checkpoint(train_run(tiny_study, "small_ca_dice_ce", 7).folder / "checkpoint.pt")
    study = tmp_path / "study.json"
    tiny_study.save(study)
    environment = {**os.environ, "HNLIB_RUNS": str(tmp_path / "runs")}
    command = [sys.executable, "-m", "hnlib.cli", "train", str(study), "small_ca_dice_ce", "7"]
    process = subprocess.Popen(command, env=environment)
    while not list(tmp_path.glob("runs/**/checkpoint.pt")):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command, env=environment, check=True)
    found = read_checkpoint(next(tmp_path.glob("runs/**/checkpoint.pt")))
    assert found["step"] == whole["step"]
    for name, value in whole["network"].items():
        assert torch.equal(value, found["network"][name]), name
