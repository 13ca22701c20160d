"""Tables of a plan and of a profile's draws: what they say is what the exact functions say of the same cases."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hnlib import chapters
from hnlib.datasets.phantom_anatomy import ALL_ORGANS
from hnlib.experiments import load_experiment, load_profile
from hnlib.experiments.planning import draw_tables, planning_scans, study_limits, write_planning
from hnlib.experiments.study import Study
from hnlib.imbalance import expected_ratios, presence, sigma_of_mean
from hnlib.networks import plan_patch
from hnlib.preprocess import Plan

ORGANS = tuple(ALL_ORGANS[:3])
SHAPE = (72, 72, 40)
PROFILE = "phantom-draws"
PATCHES = {str(name): size for name, size in (load_profile(PROFILE).patches or {}).items()}
#: Every experiment of the profile shows as many voxels a step as two large patches.
VOXELS = 2 * int(np.prod(PATCHES["large"]))


def labels(seed: int, organs: int = 3) -> np.ndarray:
    """Return blocks of organs, the last one tiny; the third case of the study lacks it."""
    rng = np.random.default_rng(seed)
    found = np.zeros(SHAPE, np.uint8)
    for value, edge in zip(range(1, organs + 1), (12, 8, 2), strict=False):
        x, y, z = (int(rng.integers(4, n - edge - 4)) for n in SHAPE)
        found[x : x + edge, y : y + edge, z : z + edge] = value
    return found


CASES = {
    name: SimpleNamespace(name=name, labels=labels(k, number), labelled=frozenset(ORGANS[:number]))
    for k, (name, number) in enumerate((("a", 3), ("b", 3), ("c", 2)))
}


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study in memory: two complete training cases and one in which nobody outlined the tiny organ."""
    monkeypatch.setattr(Study, "open_case", lambda _, name: CASES[name])
    plan = Plan((2.5, 2.5, 3.0), SHAPE, (-100.0, 1500.0), 300.0, 400.0, ORGANS)
    split = {"train": ("a", "b", "c"), "validation": (), "test": ()}
    return Study("phantom", PROFILE, "", "Made up", "0", "cache", split, PATCHES, plan)


def test_only_complete_training_cases_are_planned_on(study: Study) -> None:
    assert [scan.name for scan in planning_scans(study)] == ["a", "b"]
    limits = study_limits(study, 4e9)
    assert (limits.voxels_per_step, limits.network, limits.width) == (
        VOXELS,
        "slim_dynunet",
        load_profile(PROFILE).width,
    )


def test_draws_hold_what_the_exact_functions_say(study: Study) -> None:
    """One experiment by hand: presence and share of each organ, sigma of the mean, sightings."""
    tables = draw_tables(study, planning_scans(study))
    draws = tables["draws"].set_index("experiment")
    assert list(draws.index) == list(study.settings.all_experiments)
    nine = draws.loc[list(study.settings.arms["draws"])]
    assert set(nine["voxels_per_step"]) == {VOXELS}
    name, size = "small_voxel_draw", PATCHES["small"]
    rule, row = study.centres(load_experiment(name)), draws.loc[name]
    shown = np.mean([presence(CASES[c].labels, 4, size, rule) for c in "ab"], axis=0)
    ratios = np.mean([expected_ratios(CASES[c].labels, 4, size, rule) for c in "ab"], axis=0)
    classes = tables["draws_classes"].query("experiment == @name").set_index("class")
    assert classes.loc[["background", *ORGANS], "presence"].tolist() == pytest.approx(shown.tolist())
    assert classes.loc[["background", *ORGANS], "ratio"].tolist() == pytest.approx(ratios.tolist())
    assert row["sigma_of_mean"] == pytest.approx(sigma_of_mean(ratios))
    assert row["least_presence"] == pytest.approx(shown[1:].min())
    assert row["sightings"] == pytest.approx(VOXELS / np.prod(size) * shown[1:].min())
    assert row["organ_box"] == 1
    planned = draws.loc["small_planned_draw", "least_presence"]
    assert planned >= draws.loc[["small_voxel_draw", "small_class_draw"], "least_presence"].max() - 1e-9


def test_files_keep_the_draws_of_other_profiles_and_are_what_the_chapters_read(study: Study, tmp_path: Path) -> None:
    pd.DataFrame({"profile": ["other", PROFILE], "experiment": ["x", "old"]}).to_csv(
        tmp_path / "draws.csv", index=False
    )
    made = write_planning(
        study, tmp_path, 4e9, {"nnU-Net v2, 8 GB": ((64, 64, 32), 2)}, {"nnU-Net v2, 8 GB": "made up"}
    )
    assert set(pd.read_csv(tmp_path / "draws.csv")["profile"]) == {"other", PROFILE}
    assert "old" not in set(pd.read_csv(tmp_path / "draws.csv")["experiment"])
    plan = chapters.planning.load_plan(tmp_path)
    row = plan.choices.iloc[0]
    assert (row["patch_x"], row["patch_y"], row["patch_z"]) == made.candidate.patch_size
    assert row["sightings"] == pytest.approx(made.table.loc[made.table["chosen"], "sightings"].item(), rel=1e-5)
    rule = plan.choices.iloc[1]
    assert (rule["patch_x"], rule["patch_y"], rule["patch_z"]) == plan_patch(SHAPE, (2.5, 2.5, 3.0), VOXELS // 2)
    assert plan.draws.groupby("draw")["weight"].sum().max() <= 1 - 1 / 3 + 1e-4
    assert json.loads((tmp_path / "plan.json").read_text())["reasons"] == list(made.reasons)
    assert len(chapters.prediction.load_draws(tmp_path, PROFILE).draws) == 9


@pytest.mark.parametrize("dataset", ["openkbp", "phantom"])
def test_published_reasons_are_in_the_planners_words_and_numbers(dataset: str) -> None:
    """The first two sentences of plan.json are those of the rows of plan.csv, so that neither is older."""
    folder = Path(__file__).resolve().parents[1] / "results" / "published" / dataset
    reasons = json.loads((folder / "plan.json").read_text())["reasons"]
    table = pd.read_csv(folder / "plan.csv")
    assert reasons[0].split(". ", 1)[1].startswith(f"{len(table)} patches are candidates: sides from 8 voxels")
    assert reasons[1].startswith(f"{table['front'].sum()} of them are on the front")
