"""The training loop: it learns, it is deterministic, and a killed run goes on as if it had not been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from damage import full_disk, read_only
from lightning.fabric import Fabric
from torch import nn

from hnlib import training
from hnlib.augmentation import AUGMENTATIONS, Effect
from hnlib.errors import ConfigError, DataError
from hnlib.experiments import Study, train_run
from hnlib.losses import DeepSupervision, build_loss
from hnlib.networks import build_network, plan_topology
from hnlib.patches import PatchStream
from hnlib.preprocess import Plan, Prepared
from hnlib.sampling import RULES
from hnlib.training import Settings, choose_precision, learning_rate, load_weights, read_checkpoint, train

PATCH = (16, 16, 16)
PLAN = Plan((1.0, 1.0, 1.0), PATCH, (-100.0, 100.0), 0.0, 100.0, ("mandible",))
SETTINGS = Settings(steps=6, learning_rate=3e-3, validate_every=3, checkpoint_every=2)


def ball_case(name: str = "a", radius: float = 6) -> Prepared:
    grid = np.stack(np.meshgrid(*[np.arange(20)] * 3, indexing="ij"))
    labels = (((grid - 9.5) ** 2).sum(axis=0) < radius**2).astype(np.uint8)
    image = (labels + 0.1 * np.random.default_rng(0).standard_normal(labels.shape)).astype(np.float32)
    return Prepared(
        name, image, labels, float(image.min()), ((0, 20),) * 3, (20, 20, 20), (1.0, 1.0, 1.0), frozenset({"mandible"})
    )


def run(
    folder: Path,
    settings: Settings,
    *,
    stop_after: int | None = None,
    identity: str = "x",
    fabric: Fabric | None = None,
    cases: Sequence[Prepared] = (ball_case(),),
) -> Any:
    torch.manual_seed(0)
    network = build_network("dynunet", plan_topology(PATCH, (1, 1, 1)), 2, width=4, cap=8)
    stream = PatchStream(cases, PLAN, RULES["nnunet"], PATCH, 0, batch_size=settings.batch_size)

    def report(step: int, loss: torch.Tensor, seconds: float) -> None:
        if step == stop_after:
            raise KeyboardInterrupt

    return train(
        network,
        DeepSupervision(build_loss("nnu_dice+ce")),
        stream,
        settings,
        fabric=fabric or Fabric(accelerator="cpu", devices=1, precision="32-true"),
        checkpoint=folder / "checkpoint.pt",
        identity={"run": identity},
        report=report,
    )


def test_patches_follow_from_seed_and_step_alone() -> None:
    streams = [PatchStream([ball_case()], PLAN, RULES["nnunet"], PATCH, seed) for seed in (0, 0, 1)]
    first, again, other = (stream.batch(5) for stream in streams)
    assert first[0].shape == (2, 1, *PATCH)
    assert first[1].dtype == torch.int64
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_mirrored_patches_swap_the_sides() -> None:
    """Half of the patches come mirrored along X with the values of a pair exchanged; the others as they are."""
    case = ball_case()
    labels = case.labels.copy()
    labels[:10] *= 2  # the ball's two halves are a pair of organs
    pair = replace(case, labels=labels, labelled=frozenset({"parotid_left"}))
    plan = replace(PLAN, organs=("parotid_left", "parotid_right"))
    plain, mirrored = (
        PatchStream([pair], plan, RULES["nnunet"], PATCH, 0, batch_size=1, mirror=mirror) for mirror in ((), (0, 2, 1))
    )
    flips = 0
    for step in range(60):
        (image, target, known), (other, swapped, known_there) = plain.batch(step), mirrored.batch(step)
        assert known.tolist() == [[True, True, False]]
        if torch.equal(image, other):
            assert torch.equal(target, swapped)
            assert torch.equal(known, known_there)
        else:
            flips += 1
            assert torch.equal(image.flip(2), other)
            assert torch.equal(torch.tensor([0, 2, 1])[target.flip(1)], swapped)
            assert known_there.tolist() == [[True, False, True]]
    assert 15 <= flips <= 45  # 60 fair coins: outside with probability 1e-4


def test_changed_patches_follow_from_seed_and_step_alone() -> None:
    """The centre and half of the labels stay what they were; a process draws what the single one would."""
    changes = replace(AUGMENTATIONS["nnunet"], rotation=1.0, noise=Effect(1.0, 0.1, 0.1))
    plain = PatchStream([ball_case()], PLAN, RULES["nnunet"], PATCH, 0)
    streams = [PatchStream([ball_case()], PLAN, RULES["nnunet"], PATCH, 0, changes=changes) for _ in range(2)]
    for step in range(5):
        (image, target), again, part = streams[0].batch(step), streams[1].batch(step), streams[0].batch(step, 1, 2)
        assert torch.equal(image, again[0])
        assert torch.equal(image[1:], part[0])
        assert torch.equal(target[1:], part[1])
        was = plain.batch(step)
        assert not torch.equal(image, was[0])
        assert torch.equal(target[:, 8, 8, 8], was[1][:, 8, 8, 8])
        assert float(((target > 0) & (was[1] > 0)).sum()) > 0.5 * float((was[1] > 0).sum())


@pytest.mark.parametrize("outlined", [True, False])
def test_an_organ_that_nobody_outlined_is_not_taught_as_background(tmp_path: Path, outlined: bool) -> None:
    """From equal outputs: unknown, it stays equal to the background that it may be part of; known, it is driven out."""
    plan = replace(PLAN, organs=("mandible", "larynx"))
    case = replace(ball_case(), labelled=frozenset(plan.organs if outlined else ("mandible",)))
    network = nn.Conv3d(1, 3, 1)
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    train(
        network,
        DeepSupervision(build_loss("nnu_dice+ce")),
        PatchStream([case], plan, RULES["nnunet"], PATCH, 0),
        SETTINGS,
        fabric=Fabric(accelerator="cpu", devices=1, precision="32-true"),
        checkpoint=tmp_path / "c.pt",
        identity={},
    )
    background, mandible, larynx = network.bias.detach()
    assert mandible < background
    assert bool(torch.isclose(larynx, background, atol=1e-6)) is not outlined
    assert larynx <= background + 1e-6


def test_processes_share_one_batch() -> None:
    """Every second patch each, and together the batch that one process would have."""
    stream = PatchStream([ball_case()], PLAN, RULES["nnunet"], PATCH, 0, batch_size=4)
    image, target = stream.batch(3)
    for rank in range(2):
        part = stream.batch(3, rank, 2)
        assert torch.equal(part[0], image[rank::2])
        assert torch.equal(part[1], target[rank::2])


def test_a_batch_that_cannot_be_shared_is_told(tmp_path: Path) -> None:
    fabric = SimpleNamespace(global_rank=0, world_size=4)
    network = nn.Linear(1, 1)
    with pytest.raises(ConfigError, match="a batch of 2 patches cannot be shared by 4 devices"):
        train(network, network, None, SETTINGS, fabric=fabric, checkpoint=tmp_path / "c.pt", identity={})  # type: ignore[arg-type]


def test_one_of_two_patches_is_centred_on_an_organ() -> None:
    """The rule of the four configurations: the second patch of a batch is forced to a class."""
    stream = PatchStream([ball_case()], PLAN, RULES["nnunet"], (4, 4, 4), seed=0)
    for step in range(20):
        assert stream.batch(step)[1][1, 2, 2, 2] == 1


def test_same_case_takes_both_patches_from_one_scan() -> None:
    cases = [replace(ball_case(str(k)), image=np.full((20, 20, 20), float(k), np.float32)) for k in range(5)]
    stream = PatchStream(cases, PLAN, RULES["uniform"], PATCH, seed=0, same_case=True)
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


def test_an_optimiser_goes_on_where_its_parameters_are(tmp_path: Path) -> None:
    """Fabric moves the network: here to float64, as elsewhere to a GPU. The restored moments follow it."""

    def fabric() -> Fabric:
        return Fabric(accelerator="cpu", devices=1, precision="64-true")

    whole, _ = run(tmp_path / "whole", SETTINGS, fabric=fabric())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", SETTINGS, stop_after=3, fabric=fabric())
    assert read_checkpoint(tmp_path / "cut" / "checkpoint.pt")["step"] == 2
    resumed, _ = run(tmp_path / "cut", SETTINGS, fabric=fabric())
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert a.dtype == torch.float64
        assert torch.equal(a, b)


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


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_no_space_leaves_the_last_good_checkpoint(tmp_path: Path, fault: str) -> None:
    """The run stops with one line, and goes on from there when there is space, to the weights of an untouched run."""
    whole, _ = run(tmp_path / "whole", SETTINGS)
    folder = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        run(folder, SETTINGS, stop_after=3)
    before = (folder / "checkpoint.pt").read_bytes()
    context = full_disk(len(before) // 2) if fault == "full" else read_only(folder)
    with context, pytest.raises(DataError, match=r"file .*checkpoint\.pt: cannot be written \(.*free space") as caught:
        run(folder, SETTINGS)
    assert "\n" not in str(caught.value)
    assert [path.name for path in folder.iterdir()] == ["checkpoint.pt"]
    assert (folder / "checkpoint.pt").read_bytes() == before
    resumed, _ = run(folder, SETTINGS)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_no_training_case_is_told() -> None:
    with pytest.raises(DataError, match="no training case"):
        PatchStream([], PLAN, RULES["nnunet"], PATCH, seed=0)


def test_precision_is_float32_where_it_is_asked_for() -> None:
    assert choose_precision("float32") == "32-true"
    assert choose_precision("bf16") == "bf16-mixed"
    assert choose_precision("auto") in ("32-true", "bf16-mixed")


def command_line(study: Study, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command that trains a run of the smallest study in a folder of its own, and its environment."""
    study.save(folder / "study.json")
    command = [
        sys.executable,
        "-m",
        "hnlib.cli",
        "train",
        str(folder / "study.json"),
        "small_ca_dice_ce",
        "7",
    ]
    return command, {**os.environ, "HNLIB_RUNS": str(folder / "runs")}


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("HNLIB_FULL") != "1", reason="kill test runs with HNLIB_FULL=1")
def test_a_run_that_is_killed_continues_bit_for_bit(tiny_study: Study, tmp_path: Path) -> None:
    """SIGKILL at random moments, start again: the weights are those of a run that nobody touched."""
    whole = read_checkpoint(train_run(tiny_study, "small_ca_dice_ce", 7).folder / "checkpoint.pt")
    command, environment = command_line(tiny_study, tmp_path)
    rng = np.random.default_rng()
    for _ in range(3):
        process = subprocess.Popen(command, env=environment)
        while process.poll() is None and not list(tmp_path.glob("runs/**/checkpoint.pt")):
            time.sleep(0.05)
        time.sleep(float(rng.uniform(0, 4)))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, env=environment, check=True)
    found = read_checkpoint(next(tmp_path.glob("runs/**/checkpoint.pt")))
    assert found["step"] == whole["step"]
    for name, value in whole["network"].items():
        assert torch.equal(value, found["network"][name]), name


def test_logits_that_are_no_numbers_stop_training_in_one_line() -> None:
    logits = torch.full((1, 2, 4), torch.nan)
    with pytest.raises(DataError, match=r"training: step 3: logits hold NaN or infinity at 4 voxels"):
        training._loss(build_loss("nnu_dice+ce"), logits, torch.zeros(1, 4, dtype=torch.int64), step=2)


SCRIPT = """
from pathlib import Path
from hnlib.training import open_fabric
from test_training import SHARED, UNLIKE, run
run(Path(__file__).parent, SHARED, fabric=open_fabric(2, "32-true"), cases=UNLIKE)
"""
UNLIKE = (ball_case(), ball_case("b", 2))  # so that a Dice of each process alone would differ by ten tolerances
SHARED = replace(SETTINGS, batch_size=4, optimiser="sgd", momentum=0.5, learning_rate=0.1)


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("HNLIB_FULL") != "1", reason="the test of two processes runs with HNLIB_FULL=1")
def test_two_processes_agree_with_one(tmp_path: Path) -> None:
    """DDP over gloo: the weights after six plain SGD steps on the same global batch, batch Dice included."""
    _, one = run(tmp_path / "one", SHARED, cases=UNLIKE)
    (tmp_path / "two.py").write_text(SCRIPT)
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, str(tmp_path / "two.py")], env=environment, check=True, timeout=300)
    alone, together = (read_checkpoint(tmp_path / part / "checkpoint.pt") for part in ("one", "."))
    assert together["history"][-1]["loss"] == pytest.approx(one[-1]["loss"], abs=1e-5)
    for name, value in alone["network"].items():
        assert torch.allclose(value, together["network"][name], atol=2e-5), name


# the best weights


class Slope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x


def weight_of(network: nn.Module) -> float:
    return float(network.state_dict()["weight"])


class Ones:
    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> tuple[torch.Tensor, ...]:
        return torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 9.0)


def climb(path: Path, *, keep_best: bool, stop_after: int | None = None) -> tuple[nn.Module, list[dict[str, Any]]]:
    """Train a number that grows from step to step; it is best at about 0.5, in the middle of the run."""

    def report(step: int, loss: torch.Tensor, seconds: float) -> None:
        if step == stop_after:
            raise KeyboardInterrupt

    return train(
        Slope(),
        nn.MSELoss(),
        Ones(),
        Settings(steps=20, learning_rate=0.1, weight_decay=0, validate_every=2, checkpoint_every=3),
        fabric=Fabric(accelerator="cpu", devices=1, precision="32-true"),
        checkpoint=path,
        identity={},
        validate=lambda network: {"mandible": 1 - abs(weight_of(network) - 0.5), "larynx": float("nan")},
        report=report,
        keep_best=keep_best,
    )


def test_the_best_weights_are_kept_and_survive_a_kill(tmp_path: Path) -> None:
    """The weights of the best validation, not the last; the same after a kill; without the option nothing is kept."""
    network, history = climb(tmp_path / "whole.pt", keep_best=True)
    best = max(row["validation_dsc"] for row in history if row["organ"] == "mandible")
    assert 1 - abs(weight_of(network) - 0.5) == pytest.approx(best)
    assert history[-2]["validation_dsc"] < best
    with pytest.raises(KeyboardInterrupt):
        climb(tmp_path / "cut.pt", keep_best=True, stop_after=17)
    again, _ = climb(tmp_path / "cut.pt", keep_best=True)
    assert weight_of(again) == weight_of(network)
    assert float(read_checkpoint(tmp_path / "cut.pt")["network"]["weight"]) == weight_of(network)
    last, _ = climb(tmp_path / "last.pt", keep_best=False)
    assert weight_of(last) > weight_of(network)
    assert "best" not in read_checkpoint(tmp_path / "last.pt")
