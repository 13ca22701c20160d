"""Runs and tables: a study from scan to published tables, what is measured of an arm, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from hnlib.confidence import NEAR_TABLES
from hnlib.errors import DataError
from hnlib.experiments import (
    Study,
    describe_study,
    load_experiment,
    measure_run,
    publish,
    read_tables,
    run,
    train_run,
    write_tables,
)
from hnlib.experiments.pictures import draw_case, draw_ignored, draw_predictions
from hnlib.experiments.run import _progress
from hnlib.experiments.tables import _measure_imbalance, _replace_rows, _run_rows, publishable_pictures
from hnlib.files import read_table
from hnlib.losses import DeepSupervision, WeightedCrossEntropy
from hnlib.metrics import METRICS
from hnlib.stats import COLUMNS
from hnlib.systems import class_fractions, schedule


def test_progress_tells_the_mean_loss_since_the_line_before() -> None:
    """40 steps, a line every second: losses 1, 2 | 3, 4 | ...; the first step only starts the clock."""
    told: list[str] = []
    tell = _progress("run", 40, told.append)
    for step in range(1, 5):
        tell(step, torch.tensor(float(step)), 60.0 * step)
    assert told == [
        "run: step 2 of 40, mean loss 1.500, 38.0 min left",
        "run: step 4 of 40, mean loss 3.500, 36.0 min left",
    ]


def test_imbalance_counts_no_organ_that_nobody_outlined(tiny_study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    name = tiny_study.split["train"][0]
    case = tiny_study.case(name)
    first, *others = tiny_study.plan.organs
    monkeypatch.setattr(Study, "case", lambda _self, _name: replace(case, labelled=tuple(others)))
    rows = _measure_imbalance((tiny_study, name))
    assert {row["class"] for row in rows} == {"background", *others}
    assert first not in others


@pytest.mark.slow
def test_from_scan_to_published_tables(tiny_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole path on the smallest study: train, measure, describe, gather, publish, read."""
    told: list[str] = []
    for experiment in tiny_study.settings.study:
        run = train_run(tiny_study, experiment, 0, report=told.append)
        assert train_run(tiny_study, experiment, 0, report=pytest.fail).record == run.record  # found again
        measure_run(tiny_study, experiment, 0, report=told.append)
    assert any("min left" in line for line in told)

    results = tmp_path / "results" / "phantom"
    describe_study(tiny_study, results, report=told.append)
    draw_case(tiny_study, results / "pictures")
    assert write_tables(tiny_study, results) == 2
    draw_predictions(tiny_study, results, results / "pictures")
    drawn = draw_ignored(tiny_study, "small_ca_dice_ce", 0, results / "pictures", percents=(100, 10))
    shown = json.loads(drawn.with_suffix(".json").read_text())
    assert (shown["percents"], shown["experiment"], shown["case"] in tiny_study.split["train"]) == (
        [100, 10], "small_ca_dice_ce", True,
    )  # fmt: skip
    with pytest.raises(DataError, match="not trained to the end"):
        draw_ignored(tiny_study, "small_ca_dice_ce", 7, results / "pictures")
    assert publish(tiny_study, tmp_path / "results", tmp_path / "published")[0] == 2
    assert publish(tiny_study, tmp_path / "results", tmp_path / "published")[0] == 2  # again: the same rows

    tables = read_tables(tmp_path / "published" / "phantom")
    metrics = tables["metrics"]
    assert tuple(metrics.columns) == COLUMNS
    assert set(metrics["metric"]) == set(METRICS)
    assert set(metrics["split"]) == {"train", "validation", "test"}
    assert not metrics.duplicated(["profile", "experiment", "seed", "case", "organ", "metric"]).any()
    missed = metrics[metrics["metric"] == "missed"].set_index(["experiment", "case", "organ"])["value"]
    dsc = metrics[metrics["metric"] == "dsc"].set_index(["experiment", "case", "organ"])["value"]
    assert (dsc[missed == 1] == 0).all()
    assert len(tables["runs"]) == 2
    assert set(tables["confidence"]["split"]) == {"train", "validation", "test"}
    sums = tables["imbalance"].groupby(["patch", "centres", "case"])["ratio"].sum()
    assert sums.between(1 - 1e-4, 1 + 1e-4).all()
    assert json.loads((tmp_path / "published" / "phantom" / "pictures" / "case.json").read_text())["attribution"]

    assert {p.parent.name for p in publishable_pictures("phantom", results)} == {"pictures", "viewer"}
    assert {p.parent.name for p in publishable_pictures("openkbp", results)} == {"pictures"}  # no volume of a patient
    assert (tmp_path / "published" / "phantom" / "viewer" / "prediction.json").exists()
    assert set(pd.read_csv(tmp_path / "published" / "phantom" / "failures.csv")["case"]) == set(
        tiny_study.split["test"]
    )

    first = tmp_path / "published" / "phantom" / "study.json"  # as if another profile had been published first
    first.write_text(json.dumps({**tables["study"], "profile": "laptop"}))
    count, written = publish(tiny_study, tmp_path / "results", tmp_path / "published")
    assert (count, "phantom/runs" in written, "phantom/dataset" in written) == (2, True, False)
    assert read_tables(first.parent)["study"]["profile"] == "laptop"
    assert len(read_tables(first.parent)["runs"]) == 2


@pytest.mark.slow
def test_of_an_arm_the_test_cases_alone_are_measured(
    tiny_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, arm = tiny_study.settings.study
    changed = tiny_study.settings.model_copy(update={"study": (own,), "arms": {"other": (arm,)}})
    for module in ("study", "tables"):
        monkeypatch.setattr(f"hnlib.experiments.{module}.load_profile", lambda _: changed)
    monkeypatch.setenv("HNLIB_RUNS", str(tmp_path / "runs"))
    for experiment in (own, arm):
        train_run(tiny_study, experiment, 0, report=lambda _: None)
        measure_run(tiny_study, experiment, 0, report=lambda _: None)
    assert write_tables(tiny_study, tmp_path) == 2
    metrics, confidence = (read_table(tmp_path / f"{name}.csv", "") for name in ("metrics", "confidence"))
    assert metrics.groupby("experiment")["split"].nunique().to_dict() == {own: 3, arm: 1}
    assert set(confidence["experiment"]) == {own}

    # The arm becomes one of the drift: measured again, on all splits, from the same checkpoint.
    drifting = changed.model_copy(update={"drift_arms": ("other",)})
    for module in ("study", "tables"):
        monkeypatch.setattr(f"hnlib.experiments.{module}.load_profile", lambda _: drifting)
    folder = measure_run(tiny_study, arm, 0, report=lambda _: None)
    assert set(pd.read_csv(folder / "confidence.csv")["split"]) == {"test"}  # it is measured already
    measure_run(tiny_study, arm, 0, again=True, report=lambda _: None)
    write_tables(tiny_study, tmp_path)
    tables = {name: read_table(tmp_path / f"{name}.csv", "") for name in ("metrics", "confidence", *NEAR_TABLES)}
    assert tables["metrics"].groupby("experiment")["split"].nunique().to_dict() == {own: 3, arm: 1}
    for name in ("confidence", *NEAR_TABLES):
        assert tables[name].groupby("experiment")["split"].nunique().to_dict() == {own: 3, arm: 3}

    # A run from before these tables existed adds nothing to them and is still gathered.
    for name in NEAR_TABLES:
        (folder / f"{name}.csv").unlink()
    (tmp_path / "old").mkdir()
    assert write_tables(tiny_study, tmp_path / "old") == 2
    assert set(pd.read_csv(tmp_path / "old" / "calibration.csv")["experiment"]) == {own}


@pytest.mark.parametrize(
    ("experiment", "kept"),
    [
        ("small_nnu_dice_ce", {"metrics", "confidence", "confidence_quantiles", *NEAR_TABLES}),
        ("small_nnu_dice_ce_8_cases", {"metrics", "confidence", *NEAR_TABLES}),
        ("small_focal_dice", {"metrics"}),
    ],
)
def test_what_a_run_gives_to_the_tables(tmp_path: Path, experiment: str, kept: set[str]) -> None:
    """The study gives all, an arm of the drift no quantiles, another arm its metrics; older runs what they have."""
    rows = pd.DataFrame({"split": ["train", "test"], "value": [1, 2]})
    for name in ("metrics", "confidence", "confidence_quantiles", *NEAR_TABLES):
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
    pd.DataFrame({"step": [1]}).to_csv(tmp_path / "history.csv", index=False)
    names = ("steps", "seconds", "parameters", "voxels_per_step", "precision", "hardware")
    record = {**dict.fromkeys(names, 1), "patch": [1, 2, 3], "versions": {}, "digests": {}}
    (tmp_path / "run.json").write_text(json.dumps(record))
    found = _run_rows(tmp_path, experiment, 0, "laptop")
    assert set(found) == {*kept, "history", "runs"}
    assert len(found["metrics"]) == (2 if experiment == "small_nnu_dice_ce" else 1)  # of an arm the test cases
    for name in NEAR_TABLES:
        (tmp_path / f"{name}.csv").unlink()
    assert set(_run_rows(tmp_path, experiment, 0, "laptop")) == {*kept, "history", "runs"} - set(NEAR_TABLES)


def test_a_weighted_loss_receives_the_class_shares_of_the_training_cases(
    tiny_study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    class GivenError(Exception):
        pass

    def hand_over(_network: object, loss: DeepSupervision, *_: object, **__: object) -> None:
        raise GivenError(loss.loss)

    name = tiny_study.settings.study[0]
    weighted = load_experiment(name).model_copy(update={"loss": "weighted_ce"})
    monkeypatch.setattr(run, "check_run", lambda *_: weighted)
    monkeypatch.setattr(schedule, "train", hand_over)
    with pytest.raises(GivenError) as caught:
        train_run(tiny_study, name, 8, report=lambda _: None)
    cases = [tiny_study.open_case(case) for case in tiny_study.split["train"]]
    shares = class_fractions(cases, tiny_study.plan.organs)
    assert len(shares) == tiny_study.num_classes
    assert repr(caught.value.args[0]) == repr(WeightedCrossEntropy(class_voxels=shares))


def test_an_unfinished_run_is_not_measured(tiny_study: Study) -> None:
    with pytest.raises(DataError, match="run hnlib train first"):
        measure_run(tiny_study, tiny_study.settings.study[0], 7)


def test_publishing_replaces_a_run_and_keeps_the_others(tmp_path: Path) -> None:
    old = pd.DataFrame({"profile": ["p", "p"], "experiment": ["a", "b"], "seed": [0, 0], "value": [1, 2]})
    new = pd.DataFrame({"profile": ["p"], "experiment": ["b"], "seed": [0], "value": [3]})
    assert _replace_rows(old, new)["value"].tolist() == [1, 3]


def test_missing_tables_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run the study first"):
        read_tables(tmp_path)
