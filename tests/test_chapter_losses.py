"""Tables and phrases of the chapters on losses: worked by hand on small tables, complete on the published ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from hnlib import chapters, plotting
from hnlib.chapters.compared import BY_PERCENT, MEASURES, coverage_phrase
from hnlib.chapters.ignition import PAIRS, organ_pull, switch_on_steps
from hnlib.chapters.losses import NAMED, STEPS
from hnlib.errors import ConfigError, DataError
from hnlib.losses import LOSSES, DiceLoss
from hnlib.stats import COLUMNS

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "results" / "published"
DASH = "\N{EN DASH}"


@pytest.fixture(scope="module")
def audited() -> tuple[pd.DataFrame, pd.DataFrame]:
    return chapters.losses.load_audit(PUBLISHED / "losses")


def metric_rows(values: dict[tuple[str, str], float], seeds: int = 1) -> pd.DataFrame:
    """Rows of twelve cases and one organ: (experiment, metric) to value; cases differ a little."""
    rows = [
        ("laptop", experiment, seed, "test", f"c{case}", "mandible", metric, value + 0.002 * case)
        for (experiment, metric), value in values.items()
        for seed in range(seeds)
        for case in range(12)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def history_rows(curves: dict[tuple[str, int, str], list[float]]) -> pd.DataFrame:
    """Rows of a history: (experiment, seed, organ) to DSC at steps 100, 200, ..."""
    rows = [
        ("laptop", experiment, seed, 100 * (k + 1), organ, dsc)
        for (experiment, seed, organ), curve in curves.items()
        for k, dsc in enumerate(curve)
    ]
    return pd.DataFrame(rows, columns=["profile", "experiment", "seed", "step", "organ", "validation_dsc"])


# Chapter 13


def test_every_named_loss_has_its_row(audited: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Names and steps together are all losses; a loss without a ratio of pulls is the only one that may lack."""
    rows, warnings = audited
    assert {*NAMED, *STEPS} == set(LOSSES)
    assert list(chapters.losses.gradient_table(rows).index) == list(NAMED)
    assert list(chapters.losses.false_positive_table(rows, warnings).index) == list(NAMED)
    assert set(chapters.losses.pull_ratio_table(rows, STEPS).index) == set(STEPS)
    warned = warnings.set_index("loss")["warning"] != ""
    assert [name for name in STEPS if warned[name]] == [name for name in STEPS if "_organs_" in name]


def test_the_audit_says_what_theory_says(audited: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Closed forms are met; batch pooling depends on the split; TopK lowers the cut; an absent class is left alone."""
    rows, warnings = audited
    assert chapters.losses.closed_form_error(rows) < 0.01
    split = chapters.losses.split_table_of_losses(rows)["invariant"]
    assert (split["nnu_dice"], split["dice"], split["ca_dice_print"]) == ("no", "yes", "no")
    pressure = (
        chapters.losses.pressure_rows(rows).set_index(["form", "measure", "check", "percent"])["value"].sort_index()
    )
    for form in ("squared", "linear"):
        cut = pressure[form, "cut", "ambiguous voxels"]
        assert cut[100] > cut[70] > cut[50] > cut[30]
    table = chapters.losses.false_positive_table(rows, warnings)
    assert table.loc["topk_dice", ("hard", "P = 1")] == "0"
    assert table.loc["dice", ("hard", "P = 1")] == "0.33"
    facts = chapters.losses.audit_facts(rows, warnings)
    assert float(facts["dice-slope"]) < 1e-3 < float(facts["ca-slope"])


def test_a_missing_audit_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="write it with hnlib audit --out"):
        chapters.losses.load_audit(tmp_path)


def test_k_in_trained_networks_is_judged_by_both_metrics() -> None:
    """Recall up and precision down is as predicted; the reverse is told as it came; one network alone says nothing."""
    base = {(BY_PERCENT[100], name): 0.7 for name in ("dsc", "precision", "recall")}
    alone = metric_rows(base)
    assert "not both in these tables" in chapters.compared.percent_phrase(alone)
    table = chapters.compared.percent_table(alone)
    assert table.loc["K = 100 %"].tolist() == ["0.711", "0.711", "0.711", "1"]
    assert table.loc["K = 50 %"].tolist() == [DASH, DASH, DASH, "0"]
    for sign, verdict in ((1, "as predicted"), (-1, "against the prediction")):
        own = {(BY_PERCENT[50], n): 0.7 + sign * d for n, d in (("dsc", 0), ("precision", -0.1), ("recall", 0.1))}
        rows = metric_rows(base | own)
        rows["value"] += np.where(rows["experiment"] == BY_PERCENT[50], 0.002, 0) * (rows["seed"] + 1)
        phrase = chapters.compared.percent_phrase(rows)
        assert phrase.endswith(f"{verdict}.")
        assert f"recall by {sign * 0.1 + 0.002:+.3f}" in phrase
    third = metric_rows(
        base | {(BY_PERCENT[k], name): 0.7 for k in (50, 30) for name in ("dsc", "precision", "recall")}
    )
    said = chapters.compared.percent_phrase(third)
    assert said.count("which decides nothing.") == 2
    assert "From K = 50 to K = 30" in said


# Chapter 14


def test_arms_come_from_the_profile_that_has_most_of_them() -> None:
    """The published tables hold two of the losses at least, in the order of the arms, of one profile."""
    _, metrics, history, runs = chapters.compared.load_arms(PUBLISHED / "openkbp", "losses")
    assert runs["profile"].nunique() == metrics["profile"].nunique() == history["profile"].nunique() == 1
    assert list(runs["experiment"].unique()[:2]) == ["small_nnu_dice_ce", "small_ca_dice_ce"]
    table = chapters.compared.coverage(runs, "losses")
    assert table.loc["small, nnU-Dice+CE", "seeds"] != DASH
    missing = set(table.index[table["seeds"] == DASH])
    assert all(name in coverage_phrase(runs, "losses") for name in missing)
    with pytest.raises(ConfigError, match="unknown arms"):
        chapters.compared.load_arms(PUBLISHED / "openkbp", "loses")


def test_tables_without_a_run_of_the_arms_are_told() -> None:
    with pytest.raises(ConfigError, match="no run of the arms ignition in"):
        chapters.compared.load_arms(PUBLISHED / "phantom", "ignition")


def test_gains_stand_beside_the_printed_ones() -> None:
    """Hosseini's Table 1: 82.73 - 81.75 = 0.98 points; ours by hand 5; a dash for what is not trained."""
    rows = metric_rows({("small_dice_ce", "dsc"): 0.7, ("small_topk_dice_ce", "dsc"): 0.75})
    table = chapters.compared.beside_hosseini(rows)
    assert table.loc["CE + TopK Dice"].tolist()[:2] == ["+5.00", "+0.98"]
    assert table.loc["CE + Dice"].tolist()[0] == "+0.00"
    assert table.loc["CE"].tolist() == [DASH, "-0.65", "+0.00", "-0.92"]
    assert chapters.compared.hosseini_table("3").loc[("recall, %", "mean"), "CE + TopK Dice"] == 66.03
    assert chapters.compared.baseline_of(rows) == "small_dice_ce"


def test_means_by_loss_carry_cases_and_seeds() -> None:
    rows = metric_rows({("small_ce", "dsc"): 0.5, ("small_dice_ce", "dsc"): 0.7}, seeds=2)
    rows.loc[rows["seed"] == 1, "value"] += 0.01
    table = chapters.compared.organ_means(rows, "dsc")
    assert list(table.columns) == ["all organs", "Mandible"]
    assert table.loc["small, CE"].tolist() == ["0.516\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.007", "0.516"]
    values = {("small_ce", name): 0.5 for name in MEASURES} | {("small_dice_ce", name): 0.7 for name in MEASURES}
    tests = chapters.compared.loss_tests(metric_rows(values), "small_dice_ce")
    assert chapters.compared.primary_table(tests)["difference in DSC"].to_dict() == {"small, CE": "-0.2000"}
    second = chapters.compared.secondary_table(tests)
    assert second.loc[("recall", "small, CE")].to_dict() == {"Mandible": "-0.200", "all organs": "-0.200"}
    axes = plotting.metric_differences(chapters.compared.metric_rows(tests), ("dsc", "recall")).axes
    assert [ax.get_xlabel() for ax in axes] == ["DSC", "recall"]


def test_a_difference_within_the_spread_of_seeds_is_not_called_beyond_it() -> None:
    """Every patient gains 0.004, and seeds differ by 0.01: shown over patients alone. A loss of 0.2: by both."""
    values = {(e, name): v for e, v in (("small_dice_ce", 0.7), ("small_focal_dice", 0.704)) for name in MEASURES}
    rows = metric_rows(values | {("small_ce", name): 0.5 for name in MEASURES}, seeds=3)
    rows["value"] += rows["seed"].map({0: 0.0, 1: 0.01, 2: -0.01})
    tests = chapters.compared.loss_tests(rows, "small_dice_ce")
    table = chapters.compared.primary_table(tests)
    assert table["shown"].to_dict() == {"small, focal+Dice": "for these runs", "small, CE": "yes"}
    assert table.loc["small, focal+Dice", "over seeds"].startswith("-0.0")
    runs = rows[["profile", "experiment", "seed"]].drop_duplicates()
    facts = chapters.compared.compared_facts(rows, tests, runs, "small_dice_ce")
    assert facts["verdict"].endswith("test patients and seeds show a difference for small, CE (-0.200).")
    said = "For the runs at hand alone the test patients show a difference for small, focal+Dice (+0.004)."
    assert facts["alone"] == said
    assert facts["topk"] == "TopK Dice and Dice are not both in these tables yet."
    both = metric_rows({(loss, name): 0.5 for loss in ("small_dice_ce", "small_topk_dice_ce") for name in MEASURES})
    tests = chapters.compared.loss_tests(both, "small_dice_ce")
    runs = both[["profile", "experiment", "seed"]].drop_duplicates()
    said = chapters.compared.compared_facts(both, tests, runs, "small_dice_ce")["topk"]
    assert said.startswith("TopK Dice for Dice changes the mean DSC by +0.000 (")
    assert said.endswith(": not shown), in the paper by +0.010, +0.004 and +0.009.")


def test_what_cross_entropy_adds_is_shown_as_far_as_it_was_run() -> None:
    assert chapters.compared.without_ce(PUBLISHED / "openkbp")["difference"].item().startswith("+")
    assert chapters.compared.without_ce(PUBLISHED / "phantom")["difference"].item() == "not yet run"


def test_one_loss_alone_has_nothing_to_be_compared_with() -> None:
    values = {("small_ce", name): 0.5 for name in MEASURES}
    rows = metric_rows(values)
    tests = chapters.compared.loss_tests(rows, "small_ce")
    runs = rows[["profile", "experiment", "seed"]].drop_duplicates()
    facts = chapters.compared.compared_facts(rows, tests, runs, "small_ce")
    assert facts["verdict"] == "There is nothing to compare it with yet."
    assert facts["coverage"].startswith("These tables hold 1 of ")
    assert chapters.compared.primary_table(tests).empty
    assert chapters.compared.secondary_table(tests).empty
    assert plotting.metric_differences(chapters.compared.metric_rows(tests), ("dsc",)).axes


# Chapter 15


def test_an_organ_is_switched_on_at_the_first_check_above_the_threshold() -> None:
    """0.3 itself does not count; an organ that falls back stays on; never is told apart from late."""
    history = history_rows(
        {("a", 0, "mandible"): [0.3, 0.31, 0.0], ("a", 1, "mandible"): [0, 0, 0.5], ("a", 0, "brainstem"): [0, 0, 0.2]}
    )
    steps = switch_on_steps(history).set_index(["seed", "organ"])["step"]
    assert (steps[0, "mandible"], steps[1, "mandible"]) == (200, 300)
    assert math.isnan(steps[0, "brainstem"])
    row = chapters.ignition.switch_on_table(history).loc["a"]
    assert row.to_dict() == {"Mandible": f"200{DASH}300", "Brainstem": "never", "seeds": 2, "steps": 300}


def test_pairs_are_counted_over_organs_and_seeds() -> None:
    """Squared sooner, at the same check, later than a linear one; never is later than any step."""
    _, linear, squared = PAIRS[0]
    history = history_rows(
        {
            (linear, 0, "mandible"): [0, 1], (squared, 0, "mandible"): [1, 1],
            (linear, 0, "brainstem"): [0, 0], (squared, 0, "brainstem"): [0, 1],
            (linear, 1, "mandible"): [1, 1], (squared, 1, "mandible"): [0, 1],
            (linear, 1, "brainstem"): [0, 0], (squared, 1, "brainstem"): [0, 0],
        }
    )  # fmt: skip
    pairs = chapters.ignition.pair_table(history)
    assert pairs.iloc[0].tolist() == ["2", "0", "1", "1", "2"]
    assert pairs.iloc[1].tolist() == [DASH, DASH, DASH, DASH, "0"]
    runs = history[["profile", "experiment", "seed"]].drop_duplicates()
    facts = chapters.ignition.ignition_facts(history, runs, pairs)
    assert facts["verdict"].startswith("In 2 of 4 pairs of organ and run the squared")
    assert facts["switched"] == "5 of 8"
    assert "SGD" in facts["missing-pairs"]


@pytest.mark.parametrize(
    ("checks", "words"),
    [
        ({"mandible": [1, 1], "brainstem": [0, 1]}, "mandible first and brainstem last"),
        ({"mandible": [1, 1], "brainstem": [1, 1]}, "all organs at about the same check"),
        (
            {"mandible": [1, 1], "brainstem": [0, 1], "larynx": [0, 0]},
            "mandible first and brainstem last; in most runs not by the last check: larynx",
        ),
        (
            {"mandible": [1, 1], "larynx": [0, 0]},
            "mandible at about the same check; in most runs not by the last check: larynx",
        ),
        ({"mandible": [0, 0], "larynx": [0, 0]}, "no organ in most of its runs"),
    ],
)
def test_an_organ_that_is_never_switched_on_is_not_called_last(checks: dict[str, list[float]], words: str) -> None:
    history = history_rows({("a", 0, organ): curve for organ, curve in checks.items()})
    pairs = chapters.ignition.pair_table(history)
    runs = history[["profile", "experiment", "seed"]].drop_duplicates()
    assert chapters.ignition.ignition_facts(history, runs, pairs)["order-seen"] == words


def test_the_order_of_losses_is_followed_from_check_to_check() -> None:
    """Three losses whose order at the first check is the reverse of the last."""
    curves = {("a", 0, "mandible"): [0.3, 0.4], ("b", 0, "mandible"): [0.2, 0.5], ("c", 0, "mandible"): [0.1, 0.6]}
    table = chapters.ignition.budget_table(history_rows(curves))
    assert table.iloc[-1].tolist() == ["-1.00", "1.00"]
    assert table.loc["b"].tolist() == ["0.200", "0.500"]


def test_larger_organs_first_is_a_negative_rank_correlation() -> None:
    curves = {("a", 0, "mandible"): [1, 1, 1], ("a", 0, "brainstem"): [0, 1, 1], ("a", 0, "optic_chiasm"): [0, 0, 0]}
    sizes = {"mandible": 0.1, "brainstem": 0.01, "optic_chiasm": 0.001}
    assert chapters.ignition.order_by_size(history_rows(curves), sizes).endswith("-1.00.")
    assert "do not differ" in chapters.ignition.order_by_size(history_rows({k: [1, 1] for k in curves}), sizes)


@pytest.mark.parametrize(("name", "squared"), [("linear Dice", False), ("squared Dice", True)])
def test_the_pull_is_the_gradient_of_the_loss(name: str, squared: bool) -> None:
    """Two classes, all voxels alike: DiceLoss of the organ alone, whose logit is the only free one."""
    fraction, p, voxels = 0.1, 0.3, 1000
    target = torch.zeros(1, voxels, dtype=torch.int64)
    target[0, : int(fraction * voxels)] = 1
    z = torch.full((1, voxels), math.log(p / (1 - p)), dtype=torch.float64, requires_grad=True)
    logits = torch.stack([torch.zeros_like(z), z], dim=1)
    switches = {"background": False, "absent": "skip", "smooth_numerator": 0.0, "smooth_denominator": 0.0}
    DiceLoss(pooling="sample", squared=squared, **switches)(logits, target).backward()
    assert z.grad is not None
    assert float(organ_pull(name, p, fraction, 1)) == pytest.approx(-float(z.grad[target == 1].sum()), rel=1e-6)


def test_linear_dice_pulls_by_size_and_squared_dice_by_its_root() -> None:
    """The limits of the derivation: at most 2 f / F for linear Dice, sqrt(f) / F at p = sqrt(f) for squared."""
    fraction, organs = 1e-4, 5
    p = np.geomspace(1e-5, 0.99, 999)
    assert organ_pull("linear Dice", p, fraction, organs).max() <= 2 * fraction / organs
    at_root = float(organ_pull("squared Dice", fraction**0.5, fraction, organs))
    assert at_root == pytest.approx(fraction**0.5 / organs, rel=0.03)
    facts = chapters.ignition.pull_facts(pd.Series({"mandible": 1e-2, "optic_chiasm": 1e-4}))
    assert float(facts["linear-even"]) > 5 * float(facts["squared-even"])


def test_curves_start_where_trainings_start() -> None:
    """Vertical lines at the organ's share and at one over the number of classes, one panel an organ."""
    curves, starts = chapters.ignition.pull_tables(pd.Series({"mandible": 0.05, "brainstem": 0.01}))
    figure = plotting.pull_curves(curves, starts=starts)
    assert len(figure.axes) == 2
    found = [[line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 2] for ax in figure.axes]
    assert found == [[0.05, 1 / 3], [0.01, 1 / 3]]


# Figures of chapter 13


def test_figures_show_the_numbers_of_the_tables(audited: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """Ratios as points in the order of rows; slopes of 0 at the foot; K on the axis of both panels."""
    rows, _ = audited
    table = chapters.losses.pull_ratio_table(rows)
    drawn = plotting.pull_ratios(table, voxels=chapters.losses.VOXELS_RATIO).lines[-1]
    assert drawn.get_xdata() == pytest.approx(table["trained"].to_numpy())
    slopes = pd.DataFrame({"loss": ["a", "a"], "mass": [1.0, 100.0], "slope": [0.0, 2.0]})
    ax = plotting.false_positive_slopes(slopes, floor=1e-9)
    assert list(ax.lines[0].get_ydata()) == [1e-9, 2.0]
    figure = plotting.pressure_by_percent(chapters.losses.pressure_rows(rows))
    assert [list(ax.lines[1].get_xdata()) for ax in figure.axes] == [[10, 30, 50, 70, 90, 100]] * 2
