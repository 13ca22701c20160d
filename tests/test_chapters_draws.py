"""Chapters on planning and prediction: tables and phrases from small tables worked by hand, whatever runs are in."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from hnlib import chapters, plotting
from hnlib.chapters.prediction import GLOBAL, OWN
from hnlib.errors import DataError
from hnlib.experiments import load_experiment, load_profile
from hnlib.imbalance.report import CAUTION
from hnlib.stats import ALL_ORGANS, COLUMNS

PROFILE = "laptop-draws"
ORGANS = ("brainstem", "mandible")
CHOICES = load_profile(PROFILE).arms["choices"]
PATCHES = {"large": (64, 40, 64, 2), "medium": (40, 32, 64, 4), "small": (32, 32, 40, 8)}
DRAWS = {"voxel": "voxel_uniform_two_thirds", "class": "class_uniform_two_thirds", "planned": "planned"}
ROOT = Path(__file__).resolve().parents[1]


def draw_rows() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Nine configurations of which number k shows the brainstem in (k + 1) / 10 of its patches; sigma falls with k."""
    rows, classes = [], []
    for k, ((patch, (x, y, z, batch)), (draw, rule)) in enumerate(product(PATCHES.items(), DRAWS.items())):
        name = f"{patch}_{draw}_draw"
        row: dict[str, Any] = {"profile": PROFILE, "experiment": name, "patch": patch, "patch_x": x, "patch_y": y}
        row |= {"patch_z": z, "batch_size": batch, "voxels_per_step": x * y * z * batch, "draw": rule}
        row |= {"context_mm": 200.0 / batch, "organ_box": {"large": 1.0, "medium": 0.95, "small": 0.5}[patch]}
        row |= dict.fromkeys(GLOBAL, float(k)) | {"sigma_of_mean": 0.3 - 0.01 * k, "least_presence": (k + 1) / 10}
        rows.append(row | {"sightings": batch * (k + 1) / 10})
        for organ, ratio, presence in (
            ("background", 0.9, 1.0),
            ("brainstem", 0.02, (k + 1) / 10),
            ("mandible", 0.08, 0.95),
        ):
            classes.append(
                {"profile": PROFILE, "experiment": name, "class": organ, "ratio": ratio, "presence": presence}
            )
    for name, patch in zip(CHOICES, ((32, 24, 32), (64, 40, 64)), strict=True):
        row = dict(rows[0]) | {"experiment": name, "patch": float("nan"), "draw": "nnunet", "sightings": 3.25}
        rows.append(row | dict(zip(("patch_x", "patch_y", "patch_z"), patch, strict=True)))
    return pd.DataFrame(rows), pd.DataFrame(classes)


def run_rows(runs: list[tuple[int, int]]) -> pd.DataFrame:
    """Rows of some runs (configuration, seed): DSC rises with the configuration, and the first ones miss an organ."""
    names = draw_rows()[0]["experiment"]
    rows = []
    for (k, seed), case, organ in product(runs, range(6), ORGANS):
        dsc = 0.5 + 0.03 * k + 0.002 * case + 0.001 * seed
        key = (PROFILE, names[k], seed, "test", f"pt_{case}", organ)
        rows += [(*key, "dsc", dsc), (*key, "missed", float(organ == "mandible" and case > k))]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_study(folder: Path, runs: list[tuple[int, int]]) -> chapters.prediction.DrawStudy:
    folder.mkdir(exist_ok=True)
    for name, table in zip(("draws", "draws_classes"), draw_rows(), strict=True):
        table.to_csv(folder / f"{name}.csv", index=False)
    other = run_rows([(0, 0)]).assign(profile="laptop", experiment="recipe")
    pd.concat([other, run_rows(runs)]).to_csv(folder / "metrics.csv", index=False)
    return chapters.prediction.load_draws(folder, PROFILE)


def choice_rows(study: chapters.prediction.DrawStudy, gains: tuple[float, ...]) -> chapters.prediction.DrawStudy:
    """Add runs of the planner's choice and of nnU-Net's, so far above 0.5 in DSC; none misses an organ."""
    parts = []
    for name, gain in zip(CHOICES, gains, strict=False):
        rows = run_rows([(0, seed) for seed in range(3)])
        value = np.where(rows["metric"] == "dsc", rows["value"] + gain, 0.0)
        parts.append(rows.assign(experiment=name, value=value))
    return study._replace(choices=study.choices._replace(metrics=pd.concat(parts)))


EVERYTHING = [(k, seed) for k in range(9) for seed in range(3)]


@pytest.mark.parametrize("runs", [[], [(1, 0)], [(1, 0), (1, 1), (8, 0), (4, 2)]])
def test_unfinished_studies_say_how_much_is_in_and_claim_nothing(runs: list[tuple[int, int]], tmp_path: Path) -> None:
    """None, one and four runs of 27: tables, figures and phrases exist, and no measure is said to predict."""
    study = write_study(tmp_path / "t", runs)
    found, misses = chapters.prediction.correlations(study), chapters.prediction.correlations(study, "missed")
    facts = chapters.prediction.prediction_facts(study, found, misses)
    assert facts["runs"] == f"{len(runs)} of 27"
    assert facts["verdict"].startswith(f"With {len(runs)} of 27 runs, of ")
    assert "nothing is said yet" in facts["verdict"]
    assert facts["sigma"] == "not known yet"
    assert (chapters.prediction.correlation_table(found, misses, study)["with DSC"] == "–").all()
    assert chapters.prediction.runs_in_table(study)["seeds in"].iloc[0] == "0 of 3"
    points = chapters.prediction.result_points(study, "sigma_of_mean")
    assert len(points) == 2 * len(runs)
    figure = plotting.results_by_measure(points, ORGANS, "σ")
    drawn = sum(len(line.get_xdata()) for axes in figure.axes for line in axes.lines)
    assert drawn == 2 * len(runs)
    assert [t.get_text() for axes in figure.axes for t in axes.texts] == ([] if runs else ["no run yet"] * 2)
    assert facts["misses"] == "Of misses nothing is said yet."
    matrix = plotting.results_matrix(chapters.prediction.result_matrix(study, found), chapters.prediction.TITLES)
    assert sum(len(line.get_xdata()) for axes in matrix.axes for line in axes.lines) == 12 * 2 * len(runs)
    axes = plotting.correlation_intervals(found, chapters.prediction.TITLES, ALL_ORGANS)
    assert "no order to speak of yet" in axes.texts[0].get_text()
    plt.close("all")


def test_a_run_that_lost_an_organ_is_named_with_the_mean_without_it(tmp_path: Path) -> None:
    study = write_study(tmp_path / "t", EVERYTHING)
    name = study.draws["experiment"].iloc[0]
    dsc = (study.metrics["experiment"] == name) & (study.metrics["metric"] == "dsc")
    lost = dsc & (study.metrics["seed"] == 0) & (study.metrics["organ"] == ORGANS[0])
    values = study.metrics["value"].mask(dsc, 0.6).mask(lost, 0.0)
    study = study._replace(metrics=study.metrics.assign(value=values))
    found, misses = (chapters.prediction.correlations(study, metric) for metric in ("dsc", "missed"))
    said = chapters.prediction.prediction_facts(study, found, misses)["lost"]
    assert said.startswith("In 1 run an organ was lost")
    assert said.endswith(" 0.500, and without 0.600.")  # of two organs and three seeds one is 0 in place of 0.6


def test_a_planted_order_becomes_the_verdict(tmp_path: Path) -> None:
    """All runs in, DSC in the order of least presence, and against that of context."""
    study = write_study(tmp_path / "t", EVERYTHING)
    found = chapters.prediction.correlations(study)
    misses = chapters.prediction.correlations(study, "missed")
    facts = chapters.prediction.prediction_facts(study, found, misses)
    assert (facts["runs"], facts["configurations"], facts["cases"]) == ("27 of 27", "9 of 9", "6")
    assert facts["verdict"].startswith("These predict: ")
    assert "presence of the organ shown least (+1.00, interval +" in facts["verdict"]
    right, wrong = facts["verdict"].split(" Shown to point the wrong way: ")
    assert "context" in wrong
    assert "context" not in right
    assert facts["sigma"].startswith("+1.00 (")
    table = chapters.prediction.correlation_table(found, chapters.prediction.correlations(study, "missed"), study)
    row = table.loc["presence of the organ shown least"]
    assert row["same patch"] == "18 of 18"
    assert row["same draw"] == "18 of 18"
    assert row["with misses"].startswith("+")
    assert facts["misses"].startswith("All misses are of 1 organ in 5 of 6 test patients. Shown to go with them, ")
    assert "presence of the organ shown least (+" in facts["misses"]
    points = chapters.prediction.result_matrix(study, found).query("organ == 'brainstem' and seed == 0")
    ranks = points.pivot(index="measure", columns="experiment", values="rank")
    order = list(study.draws["experiment"])
    assert ranks.loc["least_presence", order].tolist() == ranks.loc["sigma_of_mean", order].tolist() == [*range(1, 10)]
    assert set(points.query("measure == 'least_presence'")["rho"]) == {1.0}
    by_organ = chapters.prediction.organ_correlation_table(found)
    assert by_organ.loc[OWN["own_presence"], "Brainstem"].startswith("+1.00")
    assert by_organ.loc[OWN["own_presence"], "Mandible"] == "–"  # it is shown alike everywhere


def test_results_that_follow_no_measure_are_not_claimed(tmp_path: Path) -> None:
    """DSC alike but for noise: the verdict is that none is shown, and it names the nearest."""
    study = write_study(tmp_path / "t", EVERYTHING)
    noise = np.random.default_rng(1).normal(0.7, 0.05, len(study.metrics))
    study = study._replace(metrics=study.metrics.assign(value=noise))
    found = chapters.prediction.correlations(study)
    facts = chapters.prediction.prediction_facts(study, found, found)
    assert facts["verdict"].startswith(
        "None of the 12 measures, context among them, is shown to predict; nearest comes "
    )


def test_own_measures_by_hand(tmp_path: Path) -> None:
    """Third configuration: presence 0.3 in two patches; 0.02 of 327,680 voxels; 0.02 of 0.10 of the foreground."""
    study = write_study(tmp_path / "t", [])
    rows = chapters.prediction.measure_rows(study).query("experiment == 'large_planned_draw' and organ == 'brainstem'")
    values = rows.set_index("measure")["value"]
    assert values["own_presence"] == pytest.approx(0.3)
    assert values["own_sightings"] == pytest.approx(0.6)
    assert values["own_voxels"] == pytest.approx(0.02 * 327_680)
    assert values["own_share"] == pytest.approx(0.2)


def test_the_plan_stands_beside_nnunets_choice(tmp_path: Path) -> None:
    """The plan 0.02 above in every case, in three seeds each; before both are trained there are dashes."""
    study = write_study(tmp_path / "t", EVERYTHING)
    table = chapters.prediction.choices_table(choice_rows(study, (0.03, 0.01)))
    assert table.loc["patch"].tolist() == ["32 x 24 x 32", "64 x 40 x 64"]
    assert table.loc["seeds in"].tolist() == [3, 3]
    found = chapters.prediction.planned_beside_nnunet(choice_rows(study, (0.03, 0.01)))
    assert found.loc["DSC", ["difference", "seeds"]].tolist() == ["+0.0200", "3"]
    assert found.loc["missed", "difference"] == "+0.0000"
    said = chapters.prediction.choices_phrase(choice_rows(study, (0.03, 0.01)))
    assert said.replace("\N{NO-BREAK SPACE}", " ").startswith("+0.0200 (over cases +0.020 to +0.020; over seeds +0.01")
    by_organ = chapters.prediction.choices_by_organ(choice_rows(study, (0.03, 0.01)))
    assert by_organ["difference"].to_dict() == {"Brainstem": "+0.0200", "Mandible": "+0.0200"}
    phrase = chapters.prediction.choices_organs_phrase(choice_rows(study, (0.03, 0.01)))
    assert phrase == "By both intervals it gains brainstem (+0.020) and mandible (+0.020)."
    for runs in (study, choice_rows(study, (0.03,))):
        assert chapters.prediction.choices_organs_phrase(runs) == "Organ by organ nothing is known yet."
        assert (chapters.prediction.planned_beside_nnunet(runs) == "–").all(axis=None)
        assert chapters.prediction.choices_phrase(runs) == "not yet known"


def test_what_a_plan_is_cautioned_with_is_what_the_published_runs_say() -> None:
    """On real scans the plan loses beyond patients and seeds, and on no organ to which its draw gives a centre."""
    assert "lost on organs to which its draw gives no centre of their own" in CAUTION
    study = chapters.prediction.load_draws(ROOT / "results" / "published" / "openkbp", PROFILE)
    assert chapters.prediction.choices_phrase(study).startswith("-0.0")
    (_, lost), forced = chapters.prediction.choices_organs_phrase(study).split("loses "), forced_organs()
    assert lost.count("(-0.0") >= 2
    assert not [name for name in forced if name in lost]


def test_what_the_front_page_says_of_measures_is_what_the_published_runs_say() -> None:
    """Sigma, presence and sightings have intervals that hold 0 or lie below it."""
    stated = " ".join((ROOT / "README.md").read_text().split())
    assert "Neither the paper's sigma nor how often patches show an organ" in stated
    found = chapters.prediction.correlations(
        chapters.prediction.load_draws(ROOT / "results" / "published" / "openkbp", PROFILE)
    )
    means = found[found["organ"] == ALL_ORGANS].set_index("measure")
    assert (
        means.loc[["sigma_of_mean", "least_presence", "sightings", "own_presence", "own_sightings"], "low"] < 0
    ).all()


def forced_organs() -> list[str]:
    """Return the organs to which the published plan's draw gives centres."""
    draws = pd.read_csv(ROOT / "results" / "published" / "openkbp" / "plan_draws.csv")
    rows = draws[(draws["draw"] == "planned") & (draws["weight"] > 0)]
    return [chapters.page.inside(name) for name in rows["class"]]


def test_profiles_of_the_draws_have_the_same_experiments() -> None:
    """The twin differs in costs and loss, not in what is compared; every step shows as many voxels."""
    real, twin = load_profile("laptop-draws"), load_profile("phantom-draws")
    assert (real.arms["draws"], real.seeds, real.study) == (twin.arms["draws"], twin.seeds, twin.study)
    for profile in (real, twin):
        patches, found = profile.patches, [load_experiment(name) for name in profile.arms["draws"]]
        assert patches is not None
        voxels = {int(np.prod(patches[e.patch])) * e.under(profile).training.batch_size for e in found if e.patch}
        assert len(voxels) == 1


@pytest.mark.parametrize(("data", "profile"), [("openkbp", PROFILE), ("phantom", "phantom-draws")])
def test_the_choices_that_are_trained_are_those_of_the_published_plan(data: str, profile: str) -> None:
    """Patch, batch and draw of the planner, to three digits of its weights; patch and batch of nnU-Net."""
    place = ROOT / "results" / "published" / data
    choices = pd.read_csv(place / "plan_choices.csv").set_index("choice")
    weights = pd.read_csv(place / "plan_draws.csv").query("draw == 'planned'").set_index("class")["weight"]
    plan, nnunet = (load_experiment(name) for name in load_profile(profile).arms["choices"])
    for experiment, row in ((plan, choices.loc["planned"]), (nnunet, choices.loc["nnU-Net's rule, as many voxels"])):
        assert list(experiment.patch_size or ()) == row[["patch_x", "patch_y", "patch_z"]].tolist()
        assert experiment.under(load_profile(profile)).training.batch_size == row["batch_size"]
    assert nnunet.centres == "nnunet"
    wanted = weights[weights > 0].to_dict()
    assert plan.centres == pytest.approx({**wanted, "uniform": 1 - sum(wanted.values())}, abs=1e-3)


def test_missing_tables_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run python scripts/planning_tables\.py first"):
        chapters.prediction.load_draws(tmp_path, PROFILE)
    write_study(tmp_path / "t", [])
    with pytest.raises(DataError, match="no row of profile 'phantom-draws'"):
        chapters.prediction.load_draws(tmp_path / "t", "phantom-draws")
    with pytest.raises(DataError, match=r"plan\.json"):
        chapters.planning.load_plan(tmp_path)


# Planning


def write_plan(folder: Path) -> chapters.planning.PlanTables:
    """Three candidates, two of them on the front, nnU-Net's choices on the budget and off it."""
    size = {"patch_x": [32, 64, 16], "patch_y": [24, 40, 16], "patch_z": [32, 64, 16]}
    candidates = pd.DataFrame({**size, "batch_size": [12, 2, 80], "voxels_per_step": [300_000, 327_680, 327_680]})
    candidates = candidates.assign(levels=4, memory_gb=[0.2, 0.3, 0.2], context_mm=[98.0, 185.0, 50.0])
    candidates = candidates.assign(organ_box=[0.92, 1.0, 0.1], rarest="brainstem", least_presence=[0.3, 0.6, 0.01])
    candidates = candidates.assign(sightings=[3.6, 1.2, 0.8], front=[True, True, False], chosen=[True, False, False])
    choices = pd.concat([candidates.iloc[[0, 1, 1, 1]]], ignore_index=True).drop(columns=["front", "chosen"])
    names = ["planned", "nnU-Net's rule, as many voxels", "nnU-Net v2, 8 GB", "nnU-Net v2, 0.6 GB"]
    choices = choices.assign(choice=names, draw=["planned", *["nnU-Net's"] * 3])
    choices.loc[2, ["patch_x", "voxels_per_step"]] = [128, 655_360]
    draws = pd.DataFrame(
        [
            (draw, organ, weight, 0.01, presence)
            for draw, values in {
                "planned": ((0.6, 0.4), (0.0667, 0.5)),
                "class-uniform": ((1 / 3, 0.3), (1 / 3, 0.45)),
                "voxel-uniform": ((0.1, 0.2), (0.5667, 0.7)),
            }.items()
            for organ, (weight, presence) in zip(ORGANS, values, strict=True)
        ],
        columns=["draw", "class", "weight", "ratio", "presence"],
    )
    folder.mkdir(exist_ok=True)
    for name, table in {
        "plan": candidates,
        "plan_choices": choices,
        "plan_draws": draws,
        "plan_landscape": draws,
    }.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    limits = {"network": "slim_dynunet", "width": 16, "cap": 128, "precision": "32-true"}
    limits |= {"voxels_per_step": 327_680, "memory_bytes": 4e9}
    facts = {"attribution": "Made up", "cases": 5, "profile": "p", "spacing_mm": [1, 1, 2], "limits": limits}
    facts |= {"reasons": ["One.", "Two."], "data_digest": "0"}
    facts |= {"notes": dict.fromkeys(names[2:], "nnunetv2 2.6")}
    (folder / "plan.json").write_text(json.dumps(facts))
    return chapters.planning.load_plan(folder)


def test_a_plan_stands_beside_the_choices_of_others(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "t")
    table = chapters.planning.choices_table(plan)
    assert table.loc["patch, voxels"].tolist() == ["32 x 24 x 32", "64 x 40 x 64", "128 x 40 x 64", "64 x 40 x 64"]
    assert table.loc["patches a step that show it", "planned"] == "3.60"
    assert plan.marks == {"planned": (32, 24, 32), "nnU-Net's rule": (64, 40, 64)}  # one name a patch, on this budget
    front = chapters.planning.front_table(plan)
    assert front.index.tolist() == ["64 x 40 x 64", "32 x 24 x 32"]
    assert front[""].tolist() == ["", "chosen"]
    assert chapters.planning.plan_provenance(plan).loc["nnU-Net", "value"] == "nnunetv2 2.6"
    assert chapters.planning.plan_reasons(plan).data == "- One.\n- Two."


def test_where_every_patch_shows_every_organ_none_is_shown_least(tmp_path: Path) -> None:
    """A tie of presences of 1 names no organ; 0.99 does."""
    plan = write_plan(tmp_path / "t")
    choices = plan.choices.assign(least_presence=[0.3, 1.0, 0.99, 0.6])
    table = chapters.planning.choices_table(plan._replace(choices=choices))
    assert table.loc["organ shown least"].tolist() == ["Brainstem", "all alike", "Brainstem", "Brainstem"]


def test_the_phrases_of_a_plan_are_those_of_its_tables(tmp_path: Path) -> None:
    plan = write_plan(tmp_path / "t")
    facts = chapters.planning.plan_facts(plan)
    assert (facts["candidates"], facts["front"], facts["patch"]) == ("3", "2", "32 x 24 x 32")
    assert facts["presence-planned"] == "40 % (brainstem)"
    assert facts["presence-voxel-uniform"] == "20 % (brainstem)"
    assert facts["weights"] == "brainstem 60 % and mandible 6.7 %"
    assert facts["through"] == ""
    assert facts["memory"] == "0.20 to 0.30 of 4 GB"
    assert chapters.planning.command(plan) == (
        "hnlib plan ROOT --memory 4GB --network slim_dynunet --width 16 --cap 128 \\\n"
        "  --precision float32 --voxels-per-step 327680 --spacing-mm 1 1 2"
    )
    assert "128 x 40 x 64 at batch 2 (8 GB) and 64 x 40 x 64 at batch 2 (0.6 GB)." in facts["nnunet"]
    assert facts["nnunet"].endswith("The rule as this library computes it gives 64 x 40 x 64 too.")


def test_figures_of_a_plan_draw_its_rows(tmp_path: Path) -> None:
    """Every candidate is a point in one of four groups; every organ has a mark a draw in both panels."""
    plan = write_plan(tmp_path / "t")
    rows = plan.choices.set_index("choice").loc[["planned"]]
    axes = plotting.plan_front(plan.candidates, {"planned": rows.iloc[0]}, 0.9)
    offsets = np.concatenate([c.get_offsets() for c in axes.collections])
    assert sorted(map(tuple, offsets.tolist())) == [(50.0, 0.8), (98.0, 3.6), (185.0, 1.2)]
    assert "planned" in [text.get_text() for text in axes.texts]
    figure = plotting.draw_comparison(plan.draws)
    weights = {line.get_label(): list(line.get_xdata()) for line in figure.axes[0].lines}
    assert weights["planned"] == pytest.approx([60, 6.67])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["Brainstem", "Mandible"]
    plt.close("all")
