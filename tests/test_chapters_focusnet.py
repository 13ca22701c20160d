"""Chapter 16: its tables from runs by hand, what it says before there are runs, and the pictures' geometry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from hnlib import chapters, plotting
from hnlib.chapters import focusnet_printed
from hnlib.chapters import focusnet_runs as tables
from hnlib.chapters.focusnet_runs import FocusStudy, focus_facts, focus_study
from hnlib.chapters.questions import NOT_RUN, differences, minutes_by_stage
from hnlib.stats import COLUMNS

DASH = "\N{EN DASH}"
PROFILE = "phantom-focus"


def rows(values: dict[tuple[str, str, str, str], float], seed: int = 0) -> pd.DataFrame:
    """Test rows: (experiment, case, organ, metric) to value."""
    found = [
        (PROFILE, e, seed, "test", case, organ, metric, value) for (e, case, organ, metric), value in values.items()
    ]
    return pd.DataFrame(found, columns=list(COLUMNS))


def runs(gain: float, seed: int = 0, places: bool = True) -> pd.DataFrame:
    """Four cases, a nerve and a brainstem; FocusNet gains in the nerve by about so much, 0.1 of it by the fusion."""
    values = {}
    for k in range(4):
        case = f"c{k}"
        for experiment, nerve in (("snet", 0.5), ("focusnet", 0.5 + gain + 0.01 * k)):
            values[experiment, case, "optic_nerve_left", "dsc"] = nerve
            values[experiment, case, "brainstem", "dsc"] = 0.9
        values["focusnet", case, "optic_nerve_left", "centre_error_mm"] = 2.0 * k
        values["focusnet", case, "optic_nerve_left", "centre_peak"] = 0.8
        values["focusnet", case, "optic_nerve_left", "located"] = float(k > 0)
        if places:
            values["focusnet", case, "optic_nerve_left", "roi_recall"] = 0.25 * k
            values["focusnet", case, "optic_nerve_left", "s_net_dsc"] = 0.4
            values["focusnet", case, "optic_nerve_left", "fused_dsc"] = 0.5
    return rows(values, seed)


MACHINE = {"hardware": "a machine", "precision": "32-true"}
NONE = pd.DataFrame(columns=["profile", "experiment", "seed", "seconds", "stage", *MACHINE])


def study(metrics: pd.DataFrame, trained: pd.DataFrame = NONE) -> FocusStudy:
    return FocusStudy(Path("nowhere"), PROFILE, metrics, NONE, trained)


# Questions.


def test_all_seeds_of_each_side_count_and_the_fewer_are_named() -> None:
    """S-Net gains 0.2 in its second seed, which FocusNet lacks: the difference is 0.115 less half of that."""
    other = runs(0, seed=1).query("experiment == 'snet'")
    both = pd.concat([runs(0.1), other.assign(value=other["value"] + 0.2)])
    nerve = both[both["organ"] == "optic_nerve_left"]
    row = differences(nerve, [("focusnet", "snet")]).iloc[0]
    assert (row["difference"], row["seeds"], row["cases"], row["over seeds"]) == ("+0.015", 1, 4, DASH)
    facts = focus_facts(study(both))
    assert facts["difference"].startswith("+0.015 DSC (95 % interval over 4 cases -0.006 to +0.036, no interval over")
    assert facts["difference"].endswith("; 1 of 3 seeds)")
    assert tables.focus_results(study(both)).loc["S-Net", "seeds"] == "2 of 3"


def test_before_both_are_run_nothing_is_said() -> None:
    facts = focus_facts(study(runs(0.1).query("experiment == 'focusnet'")))
    assert facts["difference"] == NOT_RUN
    assert "not both been run" in facts["verdict"]


def test_an_atlas_has_no_seed_and_is_compared_on_the_cases_that_both_have() -> None:
    """Of four cases the atlas has two, at 0.4; S-Net 0.5 and 0.7 in two seeds: 0.6 minus 0.4."""
    atlas = rows({("atlas", f"c{k}", "optic_nerve_left", "dsc"): 0.4 for k in range(2)})
    second = runs(0, seed=1).query("experiment == 'snet'")
    both = pd.concat([runs(0), second.assign(value=second["value"] + 0.2), atlas])
    row = differences(both[both["organ"] == "optic_nerve_left"], [("snet", "atlas")]).iloc[0]
    assert (row["difference"], row["cases"], row["seeds"], row["over seeds"]) == ("+0.200", 2, 2, DASH)
    assert tables.focus_results(study(both)).loc["atlas", "seeds"] == DASH


def test_questions_are_asked_of_every_rival_and_control() -> None:
    table = tables.focus_questions(study(runs(0.1)))
    for organs in ("small", "others"):
        asked = table.loc[organs].index
        assert ("FocusNet", "S-Net, steps of FocusNet's S-Net") in asked
        assert ("FocusNet", "S-Net, half of the patches at small organs") in asked
        assert ("FocusNet", "FocusNet, ROI 5 times the diameter") in asked
        assert ("S-Net", "atlas") in asked
    assert table.loc[("others", "FocusNet", "S-Net"), "difference"] == "+0.000"
    assert table.loc[("small", "FocusNet", "DeepLab v3+"), "difference"] == NOT_RUN
    shown = tables.answered_questions(study(runs(0.1)))  # 0.1 and 0, 0.01, 0.02, 0.03 in the four cases
    assert shown.index[-1] == ("both", DASH, f"{len(table) - 2} more")
    assert shown["difference"].tolist() == ["+0.115", "+0.000", NOT_RUN]


def test_minutes_of_a_stage_are_what_it_adds() -> None:
    """S-Net ends after 60 s, SOL-Net after 90: half a minute."""
    history = pd.DataFrame(
        {"experiment": "focusnet", "seed": 0, "stage": ["s_net", "s_net", "sol_net"], "seconds": [30.0, 60.0, 90.0]}
    )
    assert minutes_by_stage(history, "focusnet")["minutes"].to_dict() == {"s_net": 1.0, "sol_net": 0.5}
    assert minutes_by_stage(history, "snet").iloc[0, 0] == NOT_RUN


# Results.


def test_small_organs_are_those_that_focusnet_locates() -> None:
    table = tables.focus_results(study(runs(0.1)))
    assert table.loc["S-Net"].tolist() == ["0.700", "0.500", "0.900", "1 of 3", "4"]
    assert table.loc["FocusNet", "small organs"] == "0.615"


@pytest.mark.parametrize(("gain", "verdict"), [(0.1, "FocusNet is ahead."), (-0.2, "S-Net is ahead.")])
def test_verdict_follows_both_intervals(gain: float, verdict: str) -> None:
    """Two seeds alike confirm it; one alone cannot; two that contradict each other take it back."""
    verdict = f"Over the located organs {verdict}"
    one = focus_facts(study(runs(gain)))
    assert one["verdict"] == f"{verdict} One seed cannot tell how much of it is chance."
    alike = focus_facts(study(pd.concat([runs(gain), runs(gain + 0.001, seed=1)])))
    assert alike["verdict"] == verdict
    apart = focus_facts(study(pd.concat([runs(gain), runs(-gain / 2, seed=1)])))
    nothing = "Over the located organs an interval holds zero: no difference is shown."
    assert apart["verdict"] == nothing
    assert one["elsewhere"].startswith("+0.000 DSC")  # the brainstem, which is the same
    assert (
        focus_facts(study(runs(-0.015)))["verdict"]
        == "Over the located organs an interval holds zero: no difference is shown."
    )


def test_settings_are_those_of_the_experiment() -> None:
    facts = tables.focus_settings()
    assert (facts["longest"], facts["ml"], facts["sigma"], facts["gate"]) == ("70 mm", "38 ml", "5 mm", "0.3")
    assert (facts["s-net"], facts["joint"], facts["draw"]) == ("55 %", "20 %", "50 %")


def test_localisation_by_hand() -> None:
    """Errors 0, 2, 4, 6 mm: median 3, largest 6; a region that holds 0, 1/4, 1/2, 3/4; open in three of four.

    In a fifth case the nerve is outlined as absent, and the gate opens all the same.
    """
    absent = {("focusnet", "c4", "optic_nerve_left", "located"): 1.0}
    absent |= {("focusnet", "c4", "optic_nerve_left", "centre_peak"): 0.8}
    whole = study(pd.concat([runs(0.1), rows(absent)]))
    row = tables.localisation_table(whole).iloc[0]
    assert row.tolist() == ["3.0", "6.0", "0.80", "38 %", "3 of 4", "1 of 1", "1 of 3"]
    assert tables.localisation_table(study(runs(0.1))).iloc[0]["gate open, organ absent"] == DASH
    facts = focus_facts(whole)
    assert (facts["open"], facts["absent"]) == ("3 of 4 organ-cases", "1 of 1")


def test_the_difference_is_that_of_fusion_and_of_budget() -> None:
    """FocusNet 0.315 on average, 0.1 of it by the fusion: its S-Net at 0.215 stands 0.285 below S-Net alone."""
    whole = study(runs(-0.2))
    parts = tables.focus_parts(whole, whole.small)
    assert parts["fusion"].difference == pytest.approx(0.1)
    assert parts["budget"].difference == pytest.approx(-0.285)
    row = tables.reasons_table(whole).loc["Optic nerve L"]
    assert row["in its region"] == "38 %"
    assert row["fused minus unfused"].startswith("+0.100")
    assert row["its S-Net minus S-Net alone"].startswith("-0.285")


@pytest.mark.parametrize(
    ("s_net", "recall", "told"),
    [(0.4, 0.2, "the steps and the draw"), (0.7, 0.2, "regions that miss"), (0.7, 1.0, "what the small networks")],
)
def test_the_reason_is_the_part_that_costs_most(s_net: float, recall: float, told: str) -> None:
    """Behind by 0.185: at 0.4 to 0.5 the fusion helps; at 0.7 to 0.5 it is what costs, by its place or its outlines."""
    metrics = runs(-0.2)
    metrics.loc[metrics["metric"] == "s_net_dsc", "value"] = s_net
    metrics.loc[metrics["metric"] == "roi_recall", "value"] = recall
    assert f"comes from {told}" in focus_facts(study(metrics))["reasons"]
    assert "comes from" not in focus_facts(study(runs(0.2)))["reasons"]


def test_runs_from_before_these_measures_say_that_they_lack_them() -> None:
    old = study(runs(0.1, places=False))
    assert focus_facts(old)["reasons"] == "Where the difference comes from has not been measured in these runs."
    assert tables.reasons_table(old).iloc[0, 0] == NOT_RUN
    assert tables.localisation_table(old).iloc[0]["in its region"] == DASH


def test_worth_weighs_the_gain_against_what_comes_with_it(tmp_path: Path) -> None:
    """100 s for S-Net and 150 s for FocusNet; 1.3 times the memory by the bench, whose row of a case is missing."""
    trained = pd.DataFrame({"experiment": ["snet", "focusnet"], "seed": 0, "seconds": [100.0, 150.0], **MACHINE})
    bench = tmp_path / "bench.json"
    bench.write_text(json.dumps([{"name": "focusnet_step_memory", "ours": 130, "peer": 100.0, "ratio": 1.3}]))
    told = focus_facts(study(runs(0.1), trained), bench)["worth"]
    assert told == (
        "Worth it when +0.115 DSC in the small organs matter more than what comes with it: +0.000 DSC in the other "
        "organs, 1.5 times S-Net's training time and 1.30 times the memory in training of a SERes U-Net."
    )
    assert focus_facts(study(runs(-0.2), trained))["worth"].startswith(
        "Not worth it at this budget: S-Net alone is ahead"
    )
    assert focus_facts(study(runs(-0.015)))["worth"].startswith("Not shown to be worth it")
    table = tables.bench_table(bench)
    assert table.loc["memory of a step, MiB"].tolist() == [DASH, "130", "100", "1.30"]
    assert set(table.loc["time of a case, s"]) == {DASH}
    assert set(tables.bench_table(tmp_path / "none.json").to_numpy().ravel()) == {DASH}


def test_without_runs_the_chapter_says_so(tmp_path: Path) -> None:
    none = focus_study(tmp_path, PROFILE)
    facts = focus_facts(none)
    assert facts["difference"] == NOT_RUN
    assert facts.keys() == focus_facts(study(runs(0.1))).keys()
    for table in (
        tables.focus_results(none),
        tables.localisation_table(none),
        tables.reasons_table(none),
        tables.cost_table(none),
        tables.focus_minutes(none),
    ):
        assert table.iloc[0, 0] == NOT_RUN
    assert tables.focus_sources(none).loc["runs", "value"] == NOT_RUN
    assert set(tables.focus_questions(none)["difference"]) == {NOT_RUN}
    assert focusnet_printed.roi(none)["ours"].tolist() == [NOT_RUN] * 4
    assert focusnet_printed.ablation(none)["ours"].isna().all()


def test_one_run_alone_is_partial_and_shown() -> None:
    """S-Net alone: its row stands, and there is no difference."""
    alone = study(runs(0.1).query("experiment == 'snet'"))
    assert tables.focus_results(alone).loc["S-Net", "all organs"] == "0.700"
    assert focus_facts(alone)["difference"] == NOT_RUN


def test_each_study_is_read_once_with_its_profile_and_its_atlas(tmp_path: Path) -> None:
    folder = tmp_path / "phantom"
    folder.mkdir()
    pd.concat([runs(0.1), runs(0.5).assign(profile="other")]).to_csv(folder / "metrics.csv", index=False)
    rows({("atlas", "c0", "brainstem", "dsc"): 0.8}).to_csv(folder / "atlas.csv", index=False)
    found = tables.focus_studies((folder, PROFILE), (folder, PROFILE), (tmp_path / "none", "laptop-focus"))
    assert list(found) == ["phantom, phantom-focus", "none, laptop-focus"]
    table = tables.on_each(tables.focus_results, found)
    assert table.loc[("phantom, phantom-focus", "atlas"), "all organs"] == "0.800"
    assert table.loc[("phantom, phantom-focus", "FocusNet"), "small organs"] == "0.615"
    assert table.loc["none, laptop-focus", "all organs"].tolist() == [NOT_RUN]


def test_distances_are_compared_where_both_have_found_the_organ() -> None:
    values = {
        (name, f"c{k}", "brainstem", "hd95_mm"): mm + k
        for name, mm in (("snet", 4.0), ("seres_unet", 3.0))
        for k in range(4)
    }
    table = tables.distance_questions(study(rows(values)))
    assert table["difference"].tolist() == ["+1.000"]
    assert tables.distance_questions(study(runs(0.1)))["difference"].tolist() == [NOT_RUN]


def test_costs_have_their_seeds() -> None:
    trained = pd.DataFrame(
        {"experiment": "snet", "seed": [0, 1], "seconds": [60.0, 120.0], "steps": 30, "parameters": 7, **MACHINE}
    )
    row = tables.cost_table(study(pd.concat([runs(0), runs(0, seed=1)]), trained)).loc["S-Net"]
    assert row.tolist() == [7, 30, 3.0, 1.5, "2 of 3"]


# Beside the paper.


def test_printed_gain_over_deeplab_is_in_the_small_organs() -> None:
    """Gao et al. 2019, Table 1: 81.5 against 81.8 over the large organs, 59.6 against 65.1 over the small ones."""
    table = focusnet_printed.by_size()
    assert table.loc["8 large organs", ["DeepLab v3+", "FocusNet"]].tolist() == [81.5, 81.8]
    assert table.loc["10 small organs", ["DeepLab v3+", "FocusNet"]].tolist() == [59.6, 65.1]


def test_printed_ablation_has_ours_beside_it() -> None:
    table = focusnet_printed.ablation(study(runs(0.1)))
    assert table.loc["FocusNet", "printed"] == pytest.approx(0.725)
    assert table.loc["S-Net", ["ours", "seeds"]].tolist() == [pytest.approx(0.7), "1 of 3"]
    assert np.isnan(table.loc["S-Net, 2 down-samplings", "printed"])
    assert "S-Net, 3 down-samplings" in table.index


# Pictures.


def test_no_region_of_the_scene_is_larger_than_the_training_patch() -> None:
    scene, patch = chapters.focusnet.focus_scene(), chapters.focusnet.training_patch(PROFILE)
    assert patch == (64, 32, 24)
    for _, _, across, up in scene.rois.values():
        assert across <= patch[0]
        assert up <= patch[1]
    for text in scene.sizes["ROI in training, voxels"]:
        assert all(int(edge) <= most for edge, most in zip(text.split(" x "), patch, strict=True))
    assert scene.rois[5][3] == 32  # five diameters are more


def test_regions_are_drawn_where_they_lie() -> None:
    """Two pixels of 2 x 3 mm from the corner: a rectangle at 4, 6 mm."""
    labels = np.zeros((10, 8), np.uint8)
    labels[4:6, 3:5] = 1
    fig = plotting.heat_and_rois(
        np.zeros((10, 8)), labels, {"lens_left": labels.astype(float)}, {3: (2, 2, 6, 5)}, step_mm=(2.0, 3.0),
        organs=("lens_left",),
    )  # fmt: skip
    box = fig.axes[1].patches[0]
    assert (*box.get_xy(), box.get_width(), box.get_height()) == (4, 6, 12, 15)
    plt.close(fig)


def test_fusion_has_a_panel_a_mask() -> None:
    mask = np.zeros((6, 6), bool)
    mask[2:4, 2:4] = True
    fig = plotting.fusion_panels(
        np.zeros((6, 6)), mask, {"a": mask, "b": ~mask}, (1, 1, 4, 4), step_mm=(1.0, 1.0), name="lens_left"
    )
    assert [ax.get_xlabel() for ax in fig.axes] == ["a", "b"]
    plt.close(fig)


def test_what_is_not_run_has_no_point_of_ours() -> None:
    table = pd.DataFrame(
        {"printed": [0.6, 0.7], "ours": [np.nan, 0.5], "seeds": ["0 of 3", "2 of 3"]}, index=["a", "b"]
    )
    ax = plotting.beside_print(table)
    ours = next(line for line in ax.lines if line.get_label() == "ours")
    assert np.isnan(ours.get_xdata()[0])
    assert ours.get_xdata()[1] == 0.5
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b, 2 of 3 seeds"]
    plt.close(ax.figure)
