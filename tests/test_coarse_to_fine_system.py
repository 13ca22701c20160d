"""Coarse to fine and its rivals trained through the one loop: on made volumes of a few thousand voxels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

from hnlib.errors import ConfigError, DataError
from hnlib.experiments import load_experiment, pictures
from hnlib.experiments.config import load_profile
from hnlib.model_file import ModelFile, load_model, save_model, see
from hnlib.networks import plan_topology
from hnlib.preprocess import Plan, Prepared
from hnlib.sampling import RULES
from hnlib.stats import COLUMNS
from hnlib.systems import (
    Blueprint,
    Material,
    Stage,
    Weights,
    build_system,
    checkpoint_path,
    read_weights,
    take_trainings,
    train_system,
)
from hnlib.systems.coarse_to_fine import stages
from hnlib.systems.coarse_to_fine.slices import slice_network
from hnlib.systems.coarse_to_fine.two_stage import coarse_labels
from hnlib.training import Settings, open_fabric, read_checkpoint

SHAPE = (24, 16, 16)
ORGANS = ("brainstem", "parotid_left", "parotid_right")
PLAN = Plan((4.0, 4.0, 4.0), SHAPE, (-400.0, 800.0), 0.0, 1200.0, ORGANS, SHAPE)
IDENTITY = {"run": "x", "seed": 0}


def patient(number: int, labelled: Sequence[str] = ORGANS) -> Prepared:
    """Return a head: a brainstem in the middle, a parotid on each side, all brighter than the rest."""
    rng = np.random.default_rng(number)
    labels = np.zeros(SHAPE, np.uint8)
    move = int(rng.integers(-1, 2))
    labels[10:14, 6:10, 4 + move : 10 + move] = 1
    labels[3:7, 6:10, 6 + move : 10 + move] = 2
    labels[17:21, 6:10, 6 + move : 10 + move] = 3
    image = (labels > 0) + 0.3 * (labels == 1) + 0.1 * rng.standard_normal(SHAPE)
    labels[~np.isin(labels, [0, *(1 + ORGANS.index(name) for name in labelled)])] = 0
    box = tuple((0, n) for n in SHAPE)
    image = image.astype(np.float32)
    return Prepared(str(number), image, labels, float(image.min()), box, SHAPE, (4.0, 4.0, 4.0), frozenset(labelled))


def blueprint(system: str = "coarse_to_fine", **options: Any) -> Blueprint:
    topology = plan_topology((16, 16, 16), (4.0, 4.0, 4.0))
    small = {} if system == "slices" else {"fine_width": 4}
    return Blueprint("se_unet", 4, 8, topology, (16, 16, 16), PLAN, system=system, options={**small, **options})


def material(cases: Sequence[Prepared] | None = None) -> Material:
    return Material(
        training=cases or [patient(k) for k in range(4)],
        watched=[patient(9)],
        organs=ORGANS,
        centres=RULES["nnunet"],
        loss="ce",
        budget=budget(1),
        seed=0,
        device=torch.device("cpu"),
    )


def budget(steps: int, batch: int = 4) -> Settings:
    return Settings(steps=steps, batch_size=batch, learning_rate=0.01, validate_every=50, checkpoint_every=2)


SCHEDULE = (
    Stage("coarse", budget(60), "weighted_ce"),
    Stage("folds", budget(120), "weighted_ce"),
    Stage("fusion", replace(budget(20), learning_rate=0.05), "ce"),
    Stage("fine", budget(90), "generalised_dice"),
)


def fit(
    given: Blueprint, folder: Path, schedule: Sequence[Stage] = SCHEDULE, report: Any = None, cases: Any = None
) -> Weights:
    system = build_system(given)
    fabric = open_fabric(1, "32-true")
    return train_system(
        system, schedule, material(cases), folder, fabric=fabric, identity=IDENTITY, report=report
    )[0]  # fmt: skip


@cache
def whole() -> Path:
    """Return the folder of the whole system, trained once for all tests."""
    folder = Path(mkdtemp())
    fit(blueprint(), folder)
    return folder


def test_the_whole_goes_from_slices_to_fine_masks() -> None:
    """All stages train; the predictor finds each organ; a distribution on the whole grid; boxes are measured."""
    system = build_system(blueprint())
    assert system.trainings("folds") == tuple(
        f"fold{k}-{view}" for k in range(2) for view in ("axial", "coronal", "sagittal")
    )
    assert not any(name.startswith("fold") for name in system.deployed)
    predictor = system.predictor(read_weights(system, whole()))
    case = patient(20)
    found = predictor(case.image)
    assert found.shape == (4, *SHAPE)
    assert np.allclose(found.sum(axis=0), 1, atol=1e-5)
    labels = found.argmax(axis=0)
    dsc = [
        2 * ((labels == v) & (case.labels == v)).sum() / ((labels == v).sum() + (case.labels == v).sum())
        for v in (1, 2, 3)
    ]
    assert min(dsc) > 0.5
    assert predictor.also is not None
    about = predictor.also(case)
    assert about["brainstem", "box_recall"] > 0.9
    assert {metric for _, metric in about} == {"box_recall", "box_fallback"}


def test_what_was_learned_of_boxes_is_in_the_weights(tmp_path: Path) -> None:
    """A model file alone predicts as the run does."""
    system = build_system(blueprint())
    weights = read_weights(system, whole())
    path = tmp_path / "model.safetensors"
    save_model(path, ModelFile(blueprint(), see([patient(0)], PLAN), "made", weights))
    image = patient(21).image
    assert np.array_equal(load_model(path).predictor()(image), system.predictor(weights)(image))
    assert weights["fusion"]["boxes.sizes"].tolist()[1] == weights["fusion"]["boxes.sizes"].tolist()[2]


@pytest.mark.parametrize("output", ["axial", "coronal", "mean", "weights"])
def test_a_part_of_the_system_is_that_of_the_whole(output: str, tmp_path: Path) -> None:
    """Its trainings have the same weights, trained by itself or taken over, whichever others are left out."""
    part, names = build_system(blueprint(output=output)), {"mean": 3, "weights": 10}.get(output, 1)
    assert len(part.needed) == names
    taken = take_trainings(part, SCHEDULE, tmp_path, whole(), {"run": "y"}, ("coarse", "folds", "fusion"))
    assert taken == list(part.needed)
    assert read_checkpoint(checkpoint_path(tmp_path, taken[0]))["identity"] == {"run": "y"}
    if output == "coronal":
        alone = fit(blueprint(output=output), tmp_path / "alone")
        theirs = read_checkpoint(checkpoint_path(whole(), "coronal"))["network"]
        assert all(torch.equal(alone["coronal"][key], theirs[key]) for key in theirs)
    found = part.predictor(read_weights(part, tmp_path))(patient(3).image)
    assert found.shape == (4, *SHAPE)


def test_what_is_of_other_length_is_not_taken(tmp_path: Path) -> None:
    longer = (replace(SCHEDULE[0], budget=budget(63)), *SCHEDULE[1:])
    system = build_system(blueprint(output="mean"))
    assert take_trainings(system, longer, tmp_path, whole(), IDENTITY, ("coarse",)) == []
    assert take_trainings(system, SCHEDULE, tmp_path, tmp_path / "none", IDENTITY, ("coarse",)) == []


def test_a_shared_pair_has_one_network() -> None:
    system = build_system(blueprint(share_pairs=True))
    assert system.trainings("fine") == ("fine-brainstem", "fine-parotid")
    assert build_system(blueprint()).trainings("fine") == tuple(f"fine-{organ}" for organ in ORGANS)


def test_a_run_killed_while_views_are_fused_goes_on(tmp_path: Path) -> None:
    """Finished stages are read; the weights are those of an uninterrupted run."""

    class KilledError(Exception):
        pass

    def report(name: str, _steps: int) -> Any:
        def tell(done: int, _loss: torch.Tensor, _seconds: float) -> None:
            if (name, done) == ("fusion", 7):
                raise KilledError

        return tell

    given = blueprint(output="weights")
    system = build_system(given)
    take_trainings(system, SCHEDULE, tmp_path, whole(), IDENTITY, ("coarse", "folds"))
    with pytest.raises(KilledError):
        fit(given, tmp_path, report=report)
    again = fit(given, tmp_path)
    theirs = read_checkpoint(checkpoint_path(whole(), "fusion"))["network"]
    assert all(torch.equal(again["fusion"][key], theirs[key]) for key in theirs)


def test_a_missing_stage_is_told(tmp_path: Path) -> None:
    system = build_system(blueprint(output="mean"))
    take_trainings(system, SCHEDULE, tmp_path, whole(), IDENTITY, ("coarse",))
    checkpoint_path(tmp_path, "sagittal").unlink()
    with pytest.raises(DataError, match=r"checkpoint-sagittal\.pt is missing; delete run\.json there and train again"):
        read_weights(system, tmp_path)


def test_views_with_other_classes_are_told() -> None:
    """A checkpoint of a view with fewer organs is no view of this system."""
    system = build_system(blueprint(output="mean"))
    weights = {name: dict(state) for name, state in read_weights(system, whole()).items()}
    weights["coronal"]["head.weight"] = weights["coronal"]["head.weight"][:3]
    with pytest.raises(DataError, match="stage coronal: its weights are of another architecture"):
        system.predictor(weights)


def test_two_stages_locate_and_segment(tmp_path: Path) -> None:
    schedule = (Stage("locate", budget(60, 2), "ce"), Stage("segment", budget(90), "nnu_dice+ce"))
    given = blueprint("two_stage")
    weights = fit(given, tmp_path, schedule)
    assert list(weights) == ["locate", *(f"fine-{organ}" for organ in ORGANS)]
    predictor = build_system(given).predictor(weights)
    case = patient(22)
    found = predictor(case.image)
    assert (found.argmax(axis=0)[case.labels == 1] == 1).mean() > 0.5
    assert predictor.also is not None
    assert predictor.also(case)["parotid_left", "box_recall"] > 0.5


def test_coarse_labels_lie_where_the_coarse_image_does() -> None:
    """Of balls at random places, enlarged again, the centroids are on average where they were."""
    rng, off = np.random.default_rng(0), []
    for _ in range(100):
        centre = rng.uniform(6, 18, 3)
        ball = (np.square(np.indices((24, 24, 24)) - centre[:, None, None, None]).sum(axis=0) < 16).astype(np.uint8)
        enlarged = coarse_labels(ball).repeat(2, 0).repeat(2, 1).repeat(2, 2)
        off.append(np.argwhere(enlarged).mean(axis=0) - np.argwhere(ball).mean(axis=0))
    assert np.abs(np.mean(off, axis=0)).max() < 0.1


def test_a_patient_in_whom_nothing_is_to_be_weighed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """No label, and no view sees an organ: the stage goes on without; with such patients alone it says so."""
    monkeypatch.setattr(stages, "informative", lambda _, labels: np.flatnonzero(labels))
    system = build_system(blueprint())
    monkeypatch.setattr(system, "_slice_network", lambda *_: slice_network(system.blueprint).eval())
    empty = replace(patient(5, ORGANS[:1]), labels=np.zeros_like(patient(5).labels))
    stream = system.part("fusion", material([patient(0), empty, patient(1), empty]), {}).stream
    assert all(len(stream.batch(step)) == 2 for step in range(4))  # no patient of unknown organs is left
    monkeypatch.setattr(stages, "informative", lambda *_: np.empty(0, np.intp))
    with pytest.raises(DataError, match="stage fusion: no training case has a voxel"):
        system.part("fusion", material([patient(0), patient(1)]), {})


def thin(case: Prepared, depth: int) -> Prepared:
    """Return the lower slices of a case."""
    image, labels = (np.ascontiguousarray(whole[:, :, :depth]) for whole in (case.image, case.labels))
    box = tuple((0, n) for n in image.shape)
    return replace(case, image=image, labels=labels, box=box, native_shape=image.shape)


def test_half_precision_keeps_what_it_cannot_hold(tmp_path: Path) -> None:
    """A quarter of an organ of 440 000 voxels is beyond the largest half-precision number."""
    weights = {"fusion": {"boxes.least": torch.tensor([110_000.0, 24.0]), "scale": torch.tensor([1.5])}}
    path = tmp_path / "model.safetensors"
    save_model(path, ModelFile(blueprint(), see([patient(0)], PLAN), "made", weights), half=True)
    found = load_model(path).weights["fusion"]
    assert found["boxes.least"].tolist() == [110_000.0, 24.0]
    assert found["scale"].tolist() == [1.5]
    with safe_open(path, "pt") as file:
        assert file.get_tensor("fusion/scale").dtype == torch.float16


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coarse_to_fine", "two_stage", "slices"])
def test_scans_thinner_than_the_patch_are_trained_on_and_predicted(name: str, tmp_path: Path) -> None:
    """The patch has 16 slices, scans of training 12, the one to predict 5."""
    given, system = blueprint(name), build_system(blueprint(name))
    schedule = [Stage(stage, budget(2), "generalised_dice" if stage == "fine" else "ce") for stage in system.stages]
    fit(given, tmp_path, schedule, cases=[thin(patient(k), 12) for k in range(4)])
    found = system.predictor(read_weights(system, tmp_path))(thin(patient(20), 5).image)
    assert found.shape == (4, 24, 16, 5)
    assert np.allclose(found.sum(axis=0), 1, atol=1e-4)


def test_slices_alone_are_a_system(tmp_path: Path) -> None:
    """Also where an organ was outlined in some cases only."""
    cases = [patient(0), patient(1, ORGANS[:1])]
    weights = fit(blueprint("slices", view="sagittal"), tmp_path, (Stage("network", budget(30), "ce"),), cases=cases)
    found = build_system(blueprint("slices", view="sagittal")).predictor(weights)(patient(0).image)
    assert np.allclose(found.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("system", "options", "text"),
    [
        ("coarse_to_fine", {"output": "front"}, "unknown output 'front'"),
        ("coarse_to_fine", {"foldz": 3}, "unknown coarse_to_fine option 'foldz': did you mean 'folds'"),
        ("coarse_to_fine", {"folds": 1}, "option 'folds' is 1; at least 2 is needed"),
        ("coarse_to_fine", {"mass": 1.5}, "option 'mass' is 1.5; a share above 0"),
        ("two_stage", {"mass": 0.0}, "option 'mass' is 0.0; a share above 0"),
        ("coarse_to_fine", {"fusion_cases": 0}, "option 'fusion_cases' is 0; at least 1"),
        ("coarse_to_fine", {"fine_width": 0}, "option 'fine_width' is 0; at least 1"),
        ("coarse_to_fine", {"margin_mm": -20.0}, "option 'margin_mm' is -20.0; at least 0"),
        ("slices", {"checks": -1}, "option 'checks' is -1; at least 0"),
        ("coarse_to_fine", {"share_pairs": 1}, "option 'share_pairs' is 1"),
        ("slices", {"view": "front"}, "unknown view 'front'"),
        ("two_stage", {"folds": 2}, "unknown two_stage option"),
    ],
)
def test_wrong_options_are_refused(system: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build_system(replace(blueprint(system), options=options))


@pytest.mark.parametrize("system", ["coarse_to_fine", "two_stage", "slices"])
def test_a_network_that_would_not_be_used_is_refused(system: str) -> None:
    with pytest.raises(ConfigError, match=f"system {system}: network is 'dynunet'; its own is se_unet"):
        build_system(replace(blueprint(system), network="dynunet"))


def test_an_organ_that_is_in_no_training_case_is_told(tmp_path: Path) -> None:
    cases = [patient(k, ORGANS[:2]) for k in range(4)]
    with pytest.raises(DataError, match="organ parotid_right: outlined in no training case"):
        fit(blueprint("slices"), tmp_path, (Stage("network", budget(2), "ce"),), cases=cases)


def test_fewer_patients_than_folds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="training cases: 1, one a fold is needed for 2 folds"):
        fit(blueprint(output="weights"), tmp_path, cases=[patient(0)])


@pytest.mark.parametrize("name", ["laptop-coarse", "phantom-coarse", "tiny-coarse"])
def test_the_profiles_have_the_whole_and_its_parts(name: str) -> None:
    profile = load_profile(name)
    whole_of = load_experiment("coarse_to_fine")
    assert profile.preprocessing == "coarse_to_fine"
    for experiment in profile.all_experiments:
        found = load_experiment(experiment)
        if found.takes:
            assert found.takes == "coarse_to_fine"
            assert found.schedule(profile) == whole_of.schedule(profile)


def test_the_stages_of_a_run_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three test cases the one of median DSC, its boxes beside the picture; a part of the system has no stages."""
    scores = [
        ("p", "coarse_to_fine", 0, "test", str(k), "brainstem", "dsc", dsc) for k, dsc in ((4, 0.9), (5, 0.7), (6, 0.8))
    ]
    shutil.copytree(whole(), tmp_path / "run")
    pd.DataFrame(scores, columns=list(COLUMNS)).to_csv(tmp_path / "run" / "metrics.csv", index=False)

    def study(**options: Any) -> Any:
        return SimpleNamespace(
            run_folder=lambda *_: tmp_path / "run",
            blueprint=lambda _: blueprint(**options),
            case=lambda name: patient(int(name)),
            plan=PLAN,
            attribution="made volumes",
        )

    monkeypatch.setattr(pictures, "check_run", lambda *_: None)
    drawn = pictures.draw_stages(study(), "coarse_to_fine", 0, tmp_path)
    facts = json.loads(drawn.with_suffix(".json").read_text())
    assert drawn.stat().st_size > 10_000
    assert (facts["case"], facts["grid"], list(facts["box_voxels"])) == ("6", list(SHAPE), list(ORGANS))
    assert all(0 < n <= m for size in facts["box_voxels"].values() for n, m in zip(size, SHAPE, strict=True))
    with pytest.raises(DataError, match="'coarse_axial' has no stages to draw"):
        pictures.draw_stages(study(output="axial"), "coarse_axial", 0, tmp_path)
