"""The chapter on the controlled study: questions, switches and three readings, worked on made runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hnlib import chapters, plotting
from hnlib.chapters.controlled import CONTRASTS, CORNERS, PACES, SWITCHES
from hnlib.experiments import load_profile
from hnlib.files import read_table
from hnlib.stats import COLUMNS

PHANTOM = Path(__file__).resolve().parents[1] / "results" / "published" / "phantom"


def metrics(values: dict[str, float], seeds: int = 3) -> pd.DataFrame:
    """Test DSC of six patients: a value each experiment, plus the patient's own and a little of the seed's."""
    rows = [
        ("laptop", name, seed, "test", f"c{case}", "mandible", "dsc", value + 0.02 * case + 0.001 * seed)
        for name, value in values.items()
        for seed in range(seeds)
        for case in range(6)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


@pytest.mark.parametrize("profile", ["laptop", "phantom-controlled"])
def test_every_experiment_asked_for_is_in_the_arm(profile: str) -> None:
    arm = set(load_profile(profile).experiments("controlled"))
    asked = {name for one in CONTRASTS for name in (one.experiment, one.baseline)} | set(CORNERS.values()) | set(PACES)
    assert asked == arm


def test_a_question_is_answered_or_says_what_it_lacks() -> None:
    table = chapters.controlled.contrasts(
        metrics({"large_nnu_dice_ce": 0.7, "small_nnu_dice_ce": 0.6, "small_batch4": 0.65})
    )
    by_question = table.set_index("question")
    whole = by_question.loc["small patch, with all that comes with it"]
    assert whole["value"] == pytest.approx(-0.1)
    assert (whole["patients"], whole["seeds"], whole["wanted"], whole["lacking"]) == (6, 3, 5, "")
    batch = by_question.loc["twice the voxels a step, small patch"]
    assert batch["value"] == pytest.approx(0.05)
    assert batch["wanted"] == 3
    assert (table["lacking"] != "").sum() == len(CONTRASTS) - 2
    view = chapters.controlled.contrast_view(table)
    assert view.loc[batch.name, "state"] == "6 cases, 3 seeds"
    assert view.loc[whole.name, "state"] == "6 cases, partial, 3 of 5 seeds"
    assert view.loc["background in", "state"] == "waits for small, Dice with background"


def test_a_run_that_lost_an_organ_is_named_with_the_answer_without_it() -> None:
    """Both have DSC 0.7 in both organs, but seed 2 of the large patch finds no parotid: its mean over seeds and organs
    is 0.583, which without that run is 0.7 again. An organ that no seed has learnt is not lost."""
    rows = metrics({"large_nnu_dice_ce": 0.7, "small_nnu_dice_ce": 0.7}).assign(value=0.7)
    parotid, chiasm = rows.assign(organ="parotid_left"), rows.assign(organ="optic_chiasm", value=0.0)
    lost = (parotid["experiment"] == "large_nnu_dice_ce") & (parotid["seed"] == 2)
    parotid.loc[lost, "value"] = 0.0
    table = chapters.controlled.lost_view([(pd.concat([rows, parotid, chiasm]), CONTRASTS)])
    row = table.loc["small patch, with all that comes with it"]
    assert row["lost"] == "large, nnU-Dice+CE, seed 2, Parotid L in 6 cases"
    assert (row["all runs"], row["without"]) == ("+0.078", "+0.000")
    assert len(table) == 1
    assert chapters.controlled.lost_view([(rows, CONTRASTS)])["lost"].tolist() == ["no run lost an organ"]


def test_a_switch_is_the_mean_over_the_settings_of_the_others() -> None:
    """DSC adds 0.04 for sample pooling, takes 0.02 for the background; absent classes do nothing."""
    effects = (0.04, -0.02, 0.0)
    values = {name: 0.7 + sum(np.multiply(corner, effects)) for corner, name in CORNERS.items()}
    table = chapters.controlled.switches(metrics(values)).set_index("question")
    for switch, effect in zip(SWITCHES, effects, strict=True):
        assert table.loc[switch, "value"] == pytest.approx(effect, abs=1e-9)
    del values["small_skip_dice_ce"]
    assert set(chapters.controlled.switches(metrics(values))["lacking"]) == {"1 of 8 losses"}


def test_switches_use_the_seeds_that_all_losses_have() -> None:
    """Two more seeds of two corners, far off, move nothing; without a common seed there is no answer."""
    values = {name: 0.7 + 0.04 * corner[0] for corner, name in CORNERS.items()}
    table = metrics(values)
    far = metrics(dict.fromkeys(("small_nnu_dice_ce", "small_ca_dice_ce"), 0.1), seeds=5).query("seed > 2")
    found = chapters.controlled.switches(pd.concat([table, far])).set_index("question")
    assert found.loc[SWITCHES[0], "value"] == pytest.approx(0.04)
    assert found["seeds"].tolist() == [3, 3, 3]
    assert found["wanted"].tolist() == [3, 3, 3]
    few = table[(table["experiment"] != "small_skip_dice_ce") | (table["seed"] == 0)]
    assert chapters.controlled.switches(few)["seeds"].tolist() == [1, 1, 1]
    other = table[(table["experiment"] == "small_skip_dice_ce") != (table["seed"] < 2)]
    assert set(chapters.controlled.switches(other)["lacking"]) == {"a seed that all losses have"}


def test_tiny_organs_are_answered_apart_or_not_yet_run() -> None:
    """The small patch costs the mandible 0.1 and gains 0.05 in the chiasm; a nerve that nobody learns says so."""
    asked = CONTRASTS[:1]
    whole = metrics({"large_nnu_dice_ce": 0.7, "small_nnu_dice_ce": 0.6})
    small = metrics({"large_nnu_dice_ce": 0.4, "small_nnu_dice_ce": 0.45}).assign(organ="optic_chiasm")
    row = chapters.controlled.by_size(pd.concat([whole, small]), asked).iloc[0]
    assert row["difference"] == "-0.025"
    assert row["small organs"].startswith("+0.050 (cases ")
    assert row["the others"].startswith("-0.100 (cases ")
    lost = small.assign(value=0.01)
    assert chapters.controlled.by_size(pd.concat([whole, lost]), asked).iloc[0]["small organs"] == "not learnt"
    study, confidence = chapters.controlled.load_twin(PHANTOM, "of-nobody")
    assert chapters.controlled.twin_phrase(study, "of-nobody") == "The profile of-nobody is not yet run."
    assert chapters.controlled.by_size(study).iloc[0, 0] == "not yet run"
    assert chapters.controlled.drift_by_size(confidence).iloc[0, 0] == "not yet run"


def test_the_drift_of_tiny_organs_by_hand() -> None:
    """The chiasm falls by 0.3 and the mandible by 0.1 in one seed, by 0.5 and 0.1 in the other: 0.4 and 0.1."""
    rows = [
        ("large_nnu_dice_ce", seed, split, organ, 0.9 - (split == "test") * fall)
        for seed, small in ((0, 0.3), (1, 0.5))
        for organ, fall in (("optic_chiasm", small), ("mandible", 0.1))
        for split in ("train", "test")
    ]
    names = ["experiment", "seed", "split", "organ", "soft_recall"]
    row = chapters.controlled.drift_by_size(pd.DataFrame(rows, columns=names)).iloc[0]
    assert row["small organs"].startswith("0.400")
    assert row["the others"].startswith("0.100")
    assert row["seeds"] == 2


def history() -> pd.DataFrame:
    """A large patch of 40 voxels and 4 s a step, a small one of 10 and 1 s; DSC rises by 0.1 every 10 steps."""
    rows = [
        (name, seed, step, slow * step + seed, "mandible", start + 0.01 * step, voxels, "cpu")
        for name, voxels, slow, start in (("large_nnu_dice_ce", 40, 4, 0.2), ("small_nnu_dice_ce", 10, 1, 0.1))
        for seed in (0, 1)
        for step in (10, 20, 30, 40)
    ]
    names = ["experiment", "seed", "step", "seconds", "organ", "validation_dsc", "voxels_per_step", "hardware"]
    return pd.DataFrame(rows, columns=names).assign(voxels=lambda t: t["step"] * t["voxels_per_step"])


def test_three_readings_by_hand() -> None:
    """Equal steps (40): 0.6 and 0.5. Equal voxels (400) and time (40 s): the large patch stands at 10 steps, 0.3."""
    curves = chapters.controlled.readings(history())
    assert curves["seconds"].tolist()[:4] == [40, 80, 120, 160]  # the least over seeds
    table = chapters.controlled.readings_table(curves, "laptop")
    assert list(table.columns) == ["equal steps (40)", "equal voxels (0.0 million)", "equal time (40 s)", "seeds"]
    assert table.loc["large, nnU-Dice+CE"].tolist() == ["0.600", "0.300", "0.300", "2 of 5"]
    assert table.loc["small, nnU-Dice+CE"].tolist() == ["0.500", "0.500", "0.500", "2 of 5"]


def test_a_budget_before_the_first_validation_is_not_read() -> None:
    late = history().query("experiment != 'large_nnu_dice_ce' or step > 10")
    assert chapters.controlled.readings_table(chapters.controlled.readings(late), "laptop").loc[
        "large, nnU-Dice+CE"
    ].tolist() == ["0.600", "–", "–", "2 of 5"]


def test_a_study_without_any_of_the_paces_is_read_whole() -> None:
    named = history().assign(experiment=lambda t: t["experiment"].str.replace("_nnu_dice_ce", ""))
    assert set(chapters.controlled.readings(named)["experiment"]) == {"large", "small"}


def test_times_of_other_hardware_are_not_compared() -> None:
    """Both experiments ran on one machine; a faster seed of one of them elsewhere does not count."""
    table = history()
    elsewhere = table[table["seed"] == 1].assign(seed=2, hardware="gpu", seconds=0.1)
    found = chapters.controlled.readings(pd.concat([table, elsewhere.query("experiment == 'large_nnu_dice_ce'")]))
    assert found["seconds"].min() == 10


def test_the_profile_that_answers_most_is_read(tmp_path: Path) -> None:
    """Runs of a second profile with one more experiment take the place of the study's own."""
    folder = tmp_path / "phantom"
    shutil.copytree(PHANTOM, folder)
    study, own, _ = chapters.controlled.load_controlled(folder)
    assert study["profile"] == "phantom"
    for name in ("runs", "metrics", "history"):
        table = read_table(folder / f"{name}.csv", "").query("profile == 'phantom'")
        more = table[table["experiment"] == "small_nnu_dice_ce"].assign(experiment="small_batch4")
        pd.concat([table, pd.concat([table, more]).assign(profile="laptop")]).to_csv(
            folder / f"{name}.csv", index=False
        )
    study, metrics_found, keyed = chapters.controlled.load_controlled(folder)
    assert study["profile"] == "laptop"
    assert set(metrics_found["experiment"]) == {*own["experiment"], "small_batch4"}
    assert (keyed["voxels"] == keyed["step"] * keyed["voxels_per_step"]).all()
    facts = chapters.controlled.controlled_facts(
        chapters.controlled.contrasts(metrics_found), chapters.controlled.switches(metrics_found), study
    )
    assert (facts["answered"], facts["partial"], facts["switches"]) == ("4", "4", "0")


def test_answers_are_drawn_and_gaps_are_named() -> None:
    table = chapters.controlled.contrasts(metrics({"large_nnu_dice_ce": 0.7, "small_nnu_dice_ce": 0.6}))
    ax = plotting.contrasts(table, "difference")
    points = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
    assert points == [pytest.approx(-0.1)]
    assert [text.get_text() for text in ax.texts].count("waits for runs") == len(CONTRASTS) - 1
    figure = plotting.three_readings(chapters.controlled.readings(history()))
    assert [len(ax.lines) for ax in figure.axes] == [2, 2, 2]
    with pytest.raises(ValueError, match="no run has a history"):
        plotting.three_readings(chapters.controlled.readings(history()).iloc[:0])
