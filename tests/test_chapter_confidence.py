"""Tables and figures of the chapter on confidence: worked by hand, and what they say where nothing was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from hnlib import chapters
from hnlib.confidence import NEAR_TABLES, case_drifts
from hnlib.experiments import load_experiment, load_profile, read_tables
from hnlib.plotting import NOT_MEASURED, case_drift_points, drift_growth, margin_profiles, pooled_bins, reliability
from hnlib.stats import ALL_ORGANS

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "results" / "published"
STUDY = {"dataset": "openkbp", "cases": {"train": 99}, "spacing_mm": [4.0, 4.0, 2.5]}


@pytest.fixture(autouse=True)
def close_figures() -> None:
    yield
    plt.close("all")


def confidence_rows(shift: dict[str, float], seeds: int = 1) -> pd.DataFrame:
    """Rows of experiments whose training cases have so much more soft recall; both other groups are alike."""
    rng = np.random.default_rng(0)
    noise = {(split, case, organ): 0.01 * rng.normal() for split in ("train", "validation", "test") for case in range(6)
             for organ in ("brainstem", "mandible")}  # fmt: skip
    rows = [
        ("laptop", name, seed, split, f"{split}{case}", organ, 500 if organ == "brainstem" else 1500,
         0.7 + value + (drift if split == "train" else 0), 0.8 + value)
        for name, drift in shift.items()
        for seed in range(seeds)
        for (split, case, organ), value in noise.items()
    ]  # fmt: skip
    columns = ["profile", "experiment", "seed", "split", "case", "organ", "voxels", "soft_recall", "soft_precision"]
    return pd.DataFrame(rows, columns=columns)


def margin_rows() -> pd.DataFrame:
    rows = [
        ("laptop", "small_nnu_dice_ce", 0, split, "mandible", depth, 4, 100, 0.5, 0.1, margin, 1.0, 0.1)
        for split, shift in (("train", 1.0), ("validation", 0.0), ("test", 0.0))
        for depth, margin in ((-5.0, -3.0), (0.0, 2.0 + shift), (5.0, 5.0 + 2 * shift))
    ]
    return pd.DataFrame(rows, columns=["profile", "experiment", "seed", *NEAR_TABLES["confidence_margins"]])


def calibration_rows() -> pd.DataFrame:
    rows = [
        ("laptop", "small_nnu_dice_ce", seed, "test", "mandible", 2, voxels, 0.25, fraction)
        for seed, voxels, fraction in ((0, 30, 0.1), (1, 10, 0.5))
    ]
    return pd.DataFrame(rows, columns=["profile", "experiment", "seed", *NEAR_TABLES["calibration"]])


def test_a_drift_is_shown_and_the_control_is_not() -> None:
    """Soft recall falls by 0.1 from six training to six test cases, nothing else moves."""
    rows = confidence_rows({"small_nnu_dice_ce": 0.1})
    tests = chapters.confidence.permutation_tests(rows)
    facts = chapters.confidence.drift_facts(tests, chapters.confidence.drift_growth(rows, STUDY), rows)
    none = "0 fall and 0 rise among 2 organs"
    assert facts["shown"] == f"soft recall: 2 fall and 0 rise among 2 organs; soft precision: {none}"
    assert facts["control"] == f"soft recall: {none}; soft precision: {none}"
    table = chapters.confidence.mean_table(tests)
    assert table.index.tolist() == [("small, nnU-Dice+CE", "soft recall"), ("small, nnU-Dice+CE", "soft precision")]
    by_hand = rows.groupby(["split", "organ"])["soft_recall"].mean().unstack("split")
    drift = (by_hand["train"] - by_hand["test"]).mean()
    assert table["drift"].iloc[0] == f"{drift:+.3f}"
    groups = chapters.confidence.groups_table(rows, tests, "small_nnu_dice_ce")
    assert groups.loc[("Mandible", "soft recall"), "training"] == f"{by_hand.loc['mandible', 'train']:.3f}"
    assert chapters.confidence.seeds_table(rows).loc[("small, nnU-Dice+CE", "soft recall"), "seed 0"] == f"{drift:+.3f}"


def test_drift_grows_as_patients_get_fewer() -> None:
    """Drifts of 0.3, 0.2 and 0.1 with 8, 25 and all 99 patients, of organs of 20 and 60 ml."""
    shift = {"small_nnu_dice_ce": 0.1, "small_nnu_dice_ce_25_cases": 0.2, "small_nnu_dice_ce_8_cases": 0.3}
    growth = chapters.confidence.drift_growth(confidence_rows(shift, seeds=2), STUDY)
    recall = growth[(growth["measure"] == "soft_recall") & (growth["organ"] == ALL_ORGANS)]
    assert recall["patients"].tolist() == [8, 25, 99]
    assert np.diff(recall["drift"]) == pytest.approx([-0.1, -0.1])
    assert set(recall["seeds"]) == {2}
    single = chapters.confidence.by_organ(growth)
    assert single.groupby("organ")["volume_ml"].first().to_dict() == {"brainstem": 20.0, "mandible": 60.0}
    assert chapters.confidence.growth_table(growth).index.tolist() == [
        ("small", 8, "2 of 3"),
        ("small", 25, "2 of 3"),
        ("small", 99, "2 of 5"),
    ]
    facts = chapters.confidence.drift_facts(
        chapters.confidence.permutation_tests(confidence_rows(shift)), growth, confidence_rows(shift)
    )
    partial = "Partial: 2 of 5 seeds at the fewest. "
    assert facts["growth"].startswith(
        f"{partial}Drift of soft recall, mean over organs (training patients in brackets)"
    )
    assert facts["growth"].endswith("(99).")
    upper, lower = drift_growth(single, "patients").axes
    assert [label.get_text() for label in lower.get_xticklabels()] == ["8", "25", "99"]
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("drift of soft recall", "drift of soft precision")
    with pytest.raises(ValueError, match="patients"):
        drift_growth(single, "volume_ml")


def test_margins_are_those_of_the_first_profile_that_measured_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"confidence_margins": margin_rows(), "calibration": calibration_rows(),
            "confidence": confidence_rows({"small_nnu_dice_ce": 0.1})}  # fmt: skip
    monkeypatch.setattr(
        chapters.confidence, "load_if_any", lambda _, name, *, profile: rows[name][rows[name]["profile"] == profile]
    )
    found = chapters.confidence.near_surface("tables", "small_nnu_dice_ce", ("laptop-long", "laptop", "tiny"))
    assert found.profile == "laptop"
    assert [len(table) for table in found[1:]] == [len(table) for table in rows.values()]
    nothing = chapters.confidence.near_surface("tables", "large_nnu_dice_ce", ("laptop-long", "laptop"))
    assert nothing.profile == "laptop"
    assert nothing.margins.empty


def test_on_the_phantom_each_organ_is_a_point_at_its_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 2.5 x 2.5 x 3 mm 500 and 1500 voxels are 9.375 and 28.125 ml; other losses are left out."""
    rows = confidence_rows({"large_nnu_dice_ce": 0.3, "small_nnu_dice_ce": 0.1, "small_ca_dice_ce": 0.5})
    rows = rows.assign(profile="phantom-controlled")
    monkeypatch.setattr(
        chapters.confidence, "load_if_any", lambda *_, **named: rows[rows["profile"] == named["profile"]]
    )
    found = chapters.confidence.by_organ(chapters.confidence.twin_drift("tables", "phantom-controlled"))
    recall = found[found["measure"] == "soft_recall"]
    assert recall.groupby("patch")["drift"].mean().round(2).to_dict() == {"large": 0.3, "small": 0.1}
    assert set(recall["volume_ml"]) == {9.375, 28.125}
    assert set(recall["patients"]) == {16}
    panel = drift_growth(found, "volume_ml").axes[0]
    assert [container.lines[0].get_xdata().tolist() for container in panel.containers] == [[9.375], [28.125]]
    said = chapters.confidence.twin_phrase(chapters.confidence.twin_drift("tables", "phantom-controlled"))
    assert said.startswith("On the phantom, whose organs differ in size as in life, it falls by +")
    assert said.count(" with the large patch") == 2
    assert chapters.confidence.twin_drift("tables", "of-nobody").empty
    assert chapters.confidence.twin_phrase(chapters.confidence.twin_drift("tables", "of-nobody")).endswith("known yet.")


def test_training_cases_that_not_all_have_seen_do_not_enter() -> None:
    """Two more training cases of one experiment, with a soft recall of 0, change nothing."""
    shift = {"small_nnu_dice_ce": 0.1, "small_nnu_dice_ce_8_cases": 0.3}
    rows = confidence_rows(shift)
    chosen = (rows["experiment"] == "small_nnu_dice_ce") & rows["case"].isin(["train0", "train1"])
    more = rows[chosen].assign(case=lambda t: t["case"] + "x", soft_recall=0.0)
    growth = chapters.confidence.drift_growth(rows, STUDY)
    pd.testing.assert_frame_equal(chapters.confidence.drift_growth(pd.concat([rows, more]), STUDY), growth)


def test_margins_are_compared_at_equal_depth() -> None:
    """The rim drifts by 1 logit and the next 5 mm by 2; with four cases and an SD of 1 each the interval is +-1.73."""
    table = chapters.confidence.depth_table(margin_rows())
    assert table.loc["Mandible", "rim, to 5 mm"].replace("\u00a0", " ") == "+1.00 (-0.73 to +2.73)"
    assert table.loc["Mandible", "5 to 10 mm"].startswith("+2.00")
    assert table.loc["Mandible", "deeper"] == "–"
    (ax,) = margin_profiles(margin_rows()).axes
    assert [container.lines[0].get_ydata().tolist() for container in ax.containers] == [
        [-3.0, 3.0, 7.0],
        [-3.0, 2.0, 5.0],
        [-3.0, 2.0, 5.0],
    ]
    assert [container.lines[0].get_xdata().tolist() for container in ax.containers][1] == [-2.5, 2.5, 7.5]
    (bars,) = ax.containers[1].lines[2]
    assert {np.ptp(segment[:, 1]) for segment in bars.get_segments()} == {0}  # four cases: no interval


def test_seeds_are_pooled_for_calibration() -> None:
    """Thirty voxels with a share of 0.1 and ten with 0.5 are forty with 0.2; the gap to 0.25 is 0.05."""
    rows = calibration_rows()
    assert pooled_bins(rows, ["organ", "split", "bin"])["organ_fraction"].tolist() == pytest.approx([0.2])
    cases = pd.DataFrame({"organ": ["mandible"] * 2, "split": ["test"] * 2, "brier": [0.1, 0.3]})
    table = chapters.confidence.calibration_table(rows, cases)
    assert table.loc[("Mandible", "ECE"), "test"] == pytest.approx(0.05)
    assert table.loc[("Mandible", "Brier score"), "test"] == pytest.approx(0.2)
    (ax,) = reliability(rows).axes
    points = [line.get_xydata().tolist() for line in ax.lines if line.get_marker() == "^"]
    assert points == [[[0.25, pytest.approx(0.2)]]]


def test_every_unseen_case_is_a_point() -> None:
    """Six validation and six test cases for each organ; the diamond stands at the drift of the table."""
    rows = confidence_rows({"small_nnu_dice_ce": 0.1}, seeds=2)
    tests = chapters.confidence.seen(chapters.confidence.permutation_tests(rows))
    left, right = case_drift_points(case_drifts(rows), tests).axes
    assert (left.get_xlabel(), right.get_xlabel()) == ("drift of soft recall", "drift of soft precision")
    counts = [len(line.get_xdata()) for line in left.lines if line.get_linestyle() == "None" and line.get_alpha()]
    assert counts == [6] * 4
    diamonds = [line.get_xdata()[0] for line in left.lines if line.get_marker() == "D" and not line.get_alpha()]
    expected = tests[(tests["measure"] == "soft_recall") & (tests["organ"] != ALL_ORGANS)]["drift"]
    assert sorted(diamonds) == pytest.approx(sorted(expected))


def test_old_tables_are_read_and_said_to_lack_the_new_ones(tmp_path: Path) -> None:
    """Tables that were published before margins were measured give the old pages, and a line where they end."""
    for name in ("phantom", "openkbp"):
        tables = read_tables(PUBLISHED / name)
        assert {table: set(columns) <= set(tables[table].columns) for table, columns in NEAR_TABLES.items()} == {
            "confidence_margins": True,
            "calibration": True,
        }
    nothing = pd.DataFrame(columns=["experiment", *NEAR_TABLES["confidence_margins"]])
    bins = pd.DataFrame(columns=["experiment", *NEAR_TABLES["calibration"]])
    rows = confidence_rows({"small_nnu_dice_ce": 0.1})
    growth = chapters.confidence.drift_growth(rows, STUDY)
    for table in (
        chapters.confidence.depth_table(nothing),
        chapters.confidence.calibration_table(bins, rows),
        chapters.confidence.calibration_table(calibration_rows(), rows),  # bins, but no Brier scores
        chapters.confidence.growth_table(growth),
    ):
        assert table.iloc[0, 0] == NOT_MEASURED
    for figure in (margin_profiles(nothing), reliability(bins), drift_growth(growth, "patients")):
        assert [text.get_text() for text in figure.axes[0].texts] == [NOT_MEASURED]
    assert chapters.confidence.load_if_any(PUBLISHED / "phantom", "confidence", profile="laptop", arms="drift").empty


def test_the_arm_of_the_drift_differs_in_patients_alone() -> None:
    """Equal steps, one loss and network; eight and 25 of the training patients, and all."""
    profile = load_profile("laptop")
    assert profile.drift_arms == ("drift",)
    assert all(profile.measures_drift(name) for name in profile.experiments("drift"))
    assert not profile.measures_drift("small_focal_dice")
    looks = [load_experiment(name) for name in profile.experiments("drift")]
    assert len({look.under(profile).training for look in looks}) == 1
    for patch in ("small", "large"):
        same = [look.model_dump(exclude={"title", "train_cases"}) for look in looks if look.patch == patch]
        assert len(same) == 3
        assert same[0] == same[1] == same[2]
        assert {look.train_cases for look in looks if look.patch == patch} == {8, 25, "all"}
