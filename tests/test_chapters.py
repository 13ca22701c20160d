"""Tables and phrases of the chapters: computed from the tables, worked by hand on small ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from hnlib import chapters, plotting
from hnlib.confidence import drift
from hnlib.datasets.phantom_anatomy import ALL_ORGANS
from hnlib.errors import ConfigError, DataError
from hnlib.files import read_table
from hnlib.imbalance.summary import PATCH
from hnlib.stats import COLUMNS

ROOT = Path(__file__).resolve().parents[1]
PHANTOM = ROOT / "results" / "published" / "phantom"


def metric_rows(values: dict[tuple[str, str], float], metric: str = "dsc", split: str = "test") -> pd.DataFrame:
    """Rows of one case: (experiment, organ) to value."""
    rows = [("laptop", e, 0, split, "a", organ, metric, value) for (e, organ), value in values.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_the_paper_stands_below_ours_where_the_organ_is_the_same() -> None:
    """Brainstem of the large patch with nnU-Dice is printed as 0.88; the cord is not in the paper."""
    values = {("large_nnu_dice_ce", "brainstem"): 0.8, ("large_nnu_dice_ce", "spinal_cord"): 0.6}
    table = chapters.runs.results_table(metric_rows(values), "dsc")
    column = table.iloc[:, 0]
    assert column[("Brainstem", "this study")] == "0.800"
    assert column[("Brainstem", "paper")] == "0.88\u00a0±\u00a00.02"
    assert ("Spinal cord", "paper") not in column.index
    assert column[("mean over organs", "this study")] == "0.700"
    assert column[("mean over organs", "paper")] == "0.77\u00a0±\u00a00.17"


def test_misses_are_counted_by_organ() -> None:
    rows = metric_rows({("large_nnu_dice_ce", "brainstem"): 1.0, ("small_ca_dice_ce", "brainstem"): 0.0}, "missed")
    assert chapters.runs.missed_table(rows).loc["Brainstem"].tolist() == ["1\u00a0of\u00a01", "0\u00a0of\u00a01"]


def test_a_run_of_fewer_steps_counts_at_its_own_end() -> None:
    rows = [("a", 0, 100, 0.4), ("a", 0, 200, 0.9), ("b", 0, 100, 0.8)]
    history = pd.DataFrame(rows, columns=["experiment", "seed", "step", "validation_dsc"]).assign(organ="mandible")
    assert "2 of 2 pairs" in chapters.runs.training_answer(history, pd.DataFrame({"seconds": [60.0]}))


def test_provenance_counts_the_runs_of_each_arithmetic() -> None:
    """Runs of one comparison may come from processors with and without bfloat16."""
    rows = [("32-true", "a", 1800.0), ("bf16-mixed", "b", 900.0), ("bf16-mixed", "b", 900.0)]
    runs = pd.DataFrame(rows, columns=["precision", "hardware", "seconds"]).assign(versions="torch 2")
    made = chapters.page.made_on(runs)
    assert made["training, hours"] == "1.00"
    assert made["arithmetic"] == "bfloat16 (weights and losses in float32) in 2 runs; float32 in 1 run"
    assert made["hardware"] == "a; b"
    assert set(chapters.page.made_on(runs[:0]).values()) == {"0.00", "–"}


def test_provenance_tells_of_the_runs_that_a_page_used() -> None:
    """Of none: the data alone. Of one run named by three rows of results: that one."""
    assert list(chapters.provenance(PHANTOM).index) == ["data", "data digest"]
    runs = read_table(PHANTOM / "runs.csv", "publish")
    one = runs[runs["experiment"] == "small_class_draw"].iloc[[1, 1, 1]]
    found = chapters.provenance(PHANTOM, one, one[:0])["value"]
    assert found["runs"] == f"1 (1 experiment; seeds {one['seed'].iloc[0]})"
    assert found["profile"] == one["profile"].iloc[0]
    assert found["training, hours"] == f"{one['seconds'].iloc[0] / 3600:.2f}"
    assert chapters.provenance(PHANTOM, runs[:0])["value"]["hardware"] == "–"


def test_the_chosen_configuration_is_one_of_the_four() -> None:
    """A better experiment outside the four does not take their place."""
    values = {("large_nnu_dice_ce", "brainstem"): 0.7, ("recipe", "brainstem"): 0.9}
    rows = pd.concat([metric_rows(values), metric_rows(values, split="validation")])
    facts = chapters.runs.evaluation_facts(rows, pd.DataFrame(columns=["difference", "shown"]))
    assert facts["chosen"] == "large, nnU-Dice+CE"
    assert facts["chosen-dsc"] == "0.700"


def gaining_rows(seeds: int) -> pd.DataFrame:
    """Twelve cases that all gain in one organ and not in the other; seeds differ by 0.01 and organs alike."""
    rows = pd.concat(
        metric_rows({("base", "brainstem"): 0.5, ("base", "mandible"): 0.5}).assign(case=f"c{k}") for k in range(12)
    )
    gain = rows["organ"].eq("brainstem") * (0.1 + 0.0021 * rows["case"].str[1:].astype(int))
    both = pd.concat([rows, rows.assign(experiment="small_ca_dice_ce", value=rows["value"] + gain)])
    return pd.concat(both.assign(seed=k, value=both["value"] + 0.01 * k) for k in range(seeds))


def test_what_the_tests_show_is_starred() -> None:
    """With three seeds the gain is beyond patients and seeds; the phrase names the primary endpoint."""
    rows = gaining_rows(3)
    tests = chapters.runs.comparison(rows, "base")
    column = chapters.runs.shown_table(tests)["small, ca-Dice+CE"]
    assert column.to_dict() == {("DSC", "Brainstem"): "+0.112*", ("DSC", "Mandible"): "+0.000"}
    table = chapters.runs.difference_table(tests)
    row = table.loc["small, ca-Dice+CE", ["difference", "cases", "left_out"]].tolist()
    assert row == pytest.approx([0.055775, 12, 0])
    view = chapters.runs.difference_view(table).loc["small, ca-Dice+CE"]
    assert (view["difference"], view["shown"]) == ("+0.0558", "yes")
    assert view["over cases"].startswith("+0.0")
    assert view["over seeds"].startswith("+0.03")  # 0.0558 - t(4) 0.01 sqrt(2 / 3) = 0.0331
    chosen = pd.concat([rows, rows.assign(split="validation")])
    facts = chapters.runs.evaluation_facts(chosen, table)
    assert facts["verdict"].endswith("number of tests, show a difference for small, ca-Dice+CE (+0.056).")
    assert "3 seeds (base); and 3 of 5 seeds (small, ca-Dice+CE)" in facts["seeds-caveat"]
    assert facts["same"] == "here the patients alone tell 6 of 6 pairs of such runs apart."
    detectable = chapters.runs.detectable_table(chosen, "base")
    assert detectable.loc["Brainstem", "first of all tests"] > detectable.loc["Brainstem", "one test"] > 0
    alone = chapters.runs.detectable_table(rows, "base").loc["Brainstem"]
    assert (alone["one test"], alone["one test, in SDs"]) == ("\N{EN DASH}", 0.89)


def test_with_one_seed_nothing_is_shown_but_of_the_runs_at_hand() -> None:
    rows = gaining_rows(1)
    tests = chapters.runs.comparison(rows, "base")
    assert not tests["shown"].any()
    assert "*" not in "".join(chapters.runs.shown_table(tests)["small, ca-Dice+CE"])
    table = chapters.runs.difference_table(tests)
    assert chapters.runs.difference_view(table).loc["small, ca-Dice+CE", "over seeds"] == "\N{EN DASH}"
    facts = chapters.runs.evaluation_facts(pd.concat([rows, rows.assign(split="validation")]), table)
    assert facts["verdict"].endswith("show no difference.")
    assert facts["alone"].startswith("For the runs at hand alone the test patients show a difference for small, ca-D")
    assert facts["alone"].endswith("With one seed on a side the spread of small, ca-Dice+CE is not known.")
    assert facts["same"] == "here no configuration has two runs."


def test_an_organ_that_was_not_learnt_has_no_drift_to_speak_of() -> None:
    rows = [
        ("p", "large_nnu_dice_ce", 0, split, split, organ, value, 0.5)
        for organ, train, test in (("mandible", 0.9, 0.8), ("brainstem", 0.9, 0.7), ("optic_chiasm", 0.01, 0.0))
        for split, value in (("train", train), ("test", test))
    ]
    names = ["profile", "experiment", "seed", "split", "case", "organ", "soft_recall", "soft_precision"]
    facts = chapters.confidence.confidence_facts(drift(pd.DataFrame(rows, columns=names)), {"dataset": "phantom"})
    assert (facts["worst"], facts["worst-drift"]) == ("Brainstem", "0.200")
    assert (facts["best"], facts["best-drift"]) == ("Mandible", "0.100")
    assert "neither the most nor the least of the answer: Optic chiasm." in facts["order"]


def test_organs_of_some_patients_stand_beside_the_organs_of_all(tmp_path: Path) -> None:
    """A second profile with one organ more: two patients have it, and a profile without it shows a dash."""
    shutil.copytree(PHANTOM, tmp_path / "tables")
    assert "no profile" in chapters.runs.partial_table(tmp_path / "tables").iloc[0, 0]
    path = tmp_path / "tables" / "metrics.csv"
    rows = [
        ("wide", "large_nnu_dice_ce", 0, "test", case, organ, "dsc", value)
        for case, organ, value in (("a", "larynx", 0.5), ("b", "larynx", 0.7), ("a", "mandible", 0.9))
    ]
    pd.concat([read_table(path, ""), pd.DataFrame(rows, columns=list(COLUMNS))]).to_csv(path, index=False)
    table = chapters.runs.partial_table(tmp_path / "tables")
    assert table[("test", "patients")].to_dict() == {"Larynx": 2, "Mandible": 1}
    assert table.loc["Larynx", ("large, nnU-Dice+CE", "wide")] == "0.600\u00a0±\u00a00.141"
    assert table.loc["Larynx", ("large, nnU-Dice+CE", "phantom")] == chapters.mean_sd(float("nan"), 0, 3)


def test_the_drift_table_names_organs_and_what_drifts() -> None:
    """By hand: soft recall falls from 0.9 to 0.8 and soft precision does not move; any organ has a title."""
    rows = [
        ("p", "small_ca_dice_ce", 0, split, split, organ, value, 0.5)
        for organ in ("mandible", "thyroid")
        for split, value in (("train", 0.9), ("test", 0.8))
    ]
    names = ["profile", "experiment", "seed", "split", "case", "organ", "soft_recall", "soft_precision"]
    table = chapters.confidence.drift_table(drift(pd.DataFrame(rows, columns=names)))
    assert table["small, ca-Dice+CE"].to_dict() == {
        ("Mandible", "soft recall"): 0.1,
        ("Mandible", "soft precision"): 0.0,
        ("Thyroid", "soft recall"): 0.1,
        ("Thyroid", "soft precision"): 0.0,
    }


def test_sigma_is_set_beside_the_printed_values() -> None:
    _, imbalance = chapters.load(PHANTOM, "imbalance")
    table = chapters.data.sigma_table(chapters.data.by_rule(imbalance, "nnunet")).set_index(["source", "patch"])[
        "sigma"
    ]
    assert table["paper, printed", "large"] == 0.32605
    for patch in ("large", "small"):
        assert table["this study, pooled", patch] >= table["this study, of the mean", patch]


def test_sigma_of_partly_outlined_scans_takes_each_organ_from_the_scans_that_have_it() -> None:
    shares = [
        ("a", "background", 0.7),
        ("a", "cord", 0.1),
        ("a", "lens", 0.2),
        ("b", "background", 0.7),
        ("b", "cord", 0.3),
    ]
    rows = pd.DataFrame(shares, columns=["case", "class", "ratio"]).assign(patch="small")
    table = chapters.data.sigma_table(rows).set_index(["source", "patch"])["sigma"]
    # means 0.2 and 0.2, so background 0.6; only "a" is outlined whole
    assert table["this study, of the mean", "small"] == pytest.approx(np.std([0.6, 0.2, 0.2]))
    assert table["this study, pooled", "small"] == pytest.approx(np.std([0.7, 0.1, 0.2]))
    table = chapters.data.sigma_table(rows[rows["class"].ne("cord") | rows["case"].eq("b")])
    assert table.query("source == 'this study, pooled'")["sigma"].isna().all()  # none is outlined whole


def test_unknown_rules_profiles_and_missing_pictures_are_told(tmp_path: Path) -> None:
    _, imbalance = chapters.load(PHANTOM, "imbalance")
    with pytest.raises(ConfigError, match="rule 'nnu' is not in the table"):
        chapters.data.by_rule(imbalance, "nnu")
    with pytest.raises(ConfigError, match="no run of profile 'paper'"):
        chapters.load(PHANTOM, "metrics", profile="paper")
    shutil.copytree(PHANTOM, tmp_path / "phantom")
    (tmp_path / "phantom" / "pictures" / "case.png").unlink()
    with pytest.raises(DataError, match=r"picture .*case\.png: missing"):
        chapters.data.picture(tmp_path / "phantom", "case")


def test_a_phantom_is_named_as_one_in_every_phrase_about_its_cases() -> None:
    study, data = chapters.load(PHANTOM, "dataset")
    facts = chapters.data.dataset_facts(study, data)
    assert "phantom" in facts["cases"]
    assert "phantom" in facts["caption"].lower()
    assert "patients" not in facts["cases"]


def comparison_rows() -> pd.DataFrame:
    """Three comparisons: one equivalent, one undecided, one different."""
    rows = [
        ("brainstem", "volume_ml", "ratio", 27.44, 28.1, 1.02, 0.95, 1.1, 0.8, 1.25, "equivalent"),
        ("mandible", "volume_ml", "ratio", 61.6, 70.0, 1.14, 1.0, 1.3, 0.8, 1.25, "undecided"),
        ("mandible", "mean_hu", "difference", 710.3, 810.0, 99.7, 80.0, 120.0, -70, 70, "different"),
        ("optic_chiasm", "volume_over_nerve", "ratio", 0.797, 0.8, 1.0, 0.99, 1.01, 0.8, 1.25, "equivalent"),
    ]
    names = ["organ", "quantity", "comparison", "real", "phantom", "value", "low", "high", "margin_low", "margin_high"]
    table = pd.DataFrame(rows, columns=[*names, "verdict"])
    return table.assign(real_cases=30, phantom_cases=60, source="by hand")


def test_the_comparison_is_counted_and_named() -> None:
    facts = chapters.phantom.comparison_facts(comparison_rows())
    assert [facts[k] for k in ("comparisons", "equivalent", "undecided", "different")] == ["4", "2", "1", "1"]
    assert facts["different-list"] == "Different: mean HU (Mandible)."
    assert facts["undecided-list"] == "Undecided: volume (Mandible)."
    assert (facts["real-heads"], facts["phantom-cases"]) == ("30", "60")
    same = comparison_rows().query("verdict == 'equivalent'")
    assert chapters.phantom.comparison_facts(same)["different-list"] == "Different: none."


def test_a_comparison_that_is_not_equivalent_is_starred() -> None:
    table = chapters.phantom.comparison_table(comparison_rows(), ("volume_ml", "mean_hu"))
    assert table.loc["Brainstem"].tolist() == ["27.4 / 28.1", "–"]
    assert table.loc["Mandible"].tolist() == ["61.6 / 70.0*", "710 / 810**"]


def test_cord_and_chiasm_stand_with_the_volumes_in_the_figure() -> None:
    found = chapters.phantom.sizes(comparison_rows())
    assert list(found["organ"]) == ["brainstem", "mandible", "optic_chiasm"]
    assert set(found["quantity"]) == {"volume_ml"}


def test_the_published_comparison_holds_every_organ_against_its_margin() -> None:
    """Each verdict follows from its interval and margin; every organ of the phantom is in the table."""
    table = chapters.phantom.load_comparison(PHANTOM)
    assert set(table["organ"]) == set(ALL_ORGANS)
    for row in table.itertuples():
        inside = row.margin_low <= row.low and row.high <= row.margin_high
        outside = row.high < row.margin_low or row.low > row.margin_high
        assert row.verdict == ("equivalent" if inside else "different" if outside else "undecided")
        assert row.low <= row.value <= row.high
    volumes = table[table["quantity"] == "volume_ml"]
    assert (volumes["verdict"] == "equivalent").all()


def test_claims_are_listed_with_what_was_found_and_a_link() -> None:
    """The counts add up; each claim has a row, its verdict, and the page or printed table that carries it."""
    table = chapters.claims.claims_ledger(ROOT / "book" / "claims.yaml", PHANTOM)
    facts = chapters.claims.claims_facts(table)
    kinds = ("reproduced", "not-reproduced", "contradicted", "not-testable", "undecided", "not-run")
    assert sum(int(facts[kind]) for kind in kinds) == int(facts["total"]) == len(table)
    html = chapters.claims.claims_of(table, 0).data
    assert html.count("<tr>") == (table["paper"] == table["paper"].iloc[0]).sum()
    assert "<b>C6c</b>" in html
    assert "3.32 mm without it" in html
    assert '<a href="09_evaluation.html">openkbp, metrics.csv: small ca dice ce minus large nnu dice ce' in html
    assert "Tappeiner 2022, Table 1" in html


def test_a_missing_comparison_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"equivalence\.csv: cannot be read .*; run python scripts/phantom_"):
        chapters.phantom.load_comparison(tmp_path)


def test_recommendations_are_for_against_or_undecided() -> None:
    """A verdict becomes a word for the reader who must decide; a difference that may be zero is neither."""
    columns = ["paper", "id", "what", "verdict", "found", "partial", "interval", "row", "chapter"]
    rows = [
        ("a", "A1", "other", "reproduced", "", "", "", "", ""),
        ("s", "S1", "one", "reproduced", "+2 points", "", "", "", ""),
        ("s", "S2", "two", "not reproduced", "+0.1 points (not told from zero)", "", "", "", ""),
        ("s", "S3", "three", "not reproduced", "-3 points (the opposite)", "3 of 5 seeds", "", "", ""),
        ("s", "S4", "four", "contradicted by the paper's own numbers", "", "", "", "", ""),
        ("s", "S5", "five", "not yet judged", "", "", "", "", ""),
    ]
    table = pd.DataFrame(rows, columns=columns)
    assert chapters.claims.recommendation_facts(table, 1) == {"total": "5", "for": "1", "against": "2", "none": "2"}
    page = chapters.claims.recommendations(table, 1).data
    assert [word in page for word in ("<b>for</b>", "<b>none found</b>", "<b>against</b>", "<b>none yet</b>")] == [
        True
    ] * 4
    assert "A1" not in page


def test_the_cost_of_exact_shares_is_the_benchs(tmp_path: Path) -> None:
    """Both sides where they were measured, ours alone without the peer, and no number without a file."""
    file = tmp_path / "bench.json"
    assert chapters.data.exact_cost(file) == "was not timed here"
    row = {"name": "imbalance_one", "ours": 0.389, "peer": 1996.3, "hardware": "a machine"}
    file.write_text(json.dumps([row]))
    both = (
        "takes 0.39 s on a full-size scan; sampling it as finely as the paper prints it, 1996 s (make bench, a machine)"
    )
    assert chapters.data.exact_cost(file) == both
    file.write_text(json.dumps([{**row, "peer": None}]))
    assert chapters.data.exact_cost(file) == "takes 0.39 s on a full-size scan (make bench, a machine)"


def test_figure_1_has_the_papers_vectors_first_and_patches_in_order() -> None:
    """Means over two cases by hand, the larger patch first; the paper's own shares come as they are printed."""
    rows = [
        (patch, edge, edge, edge, rule, case, name, ratio)
        for patch, edge in (("small", 8), ("large", 16))
        for rule, factor in (("paper", 1.0), ("nnunet", 5.0))
        for case, name, ratio in (("a", "mandible", 0.1), ("b", "mandible", 0.3), ("a", "background", 0.8))
        for ratio in [ratio * factor * edge / 8]
    ]
    names = ["patch", "patch_x", "patch_y", "patch_z", "centres", "case", "class", "ratio"]
    found = chapters.landscape.ratio_sources({"openkbp": pd.DataFrame(rows, columns=names)})
    assert list(found["source"].unique()) == ["paper, PDDCA", "OpenKBP"]
    ours = found[found["source"] == "OpenKBP"]
    assert list(ours["patch"].unique()) == ["large", "small"]
    shares = ours.set_index(["patch", "class"])["ratio"]
    assert shares["small", "mandible"] == pytest.approx(0.2)
    assert shares["large", "mandible"] == pytest.approx(0.4)
    paper = found.set_index(["source", "patch", "class"])["ratio"]
    assert paper["paper, PDDCA", "8x8x8", "background"] == pytest.approx(0.840925347)
    figure = plotting.class_ratio_panels(found)
    assert [axes.get_title() for axes in figure.axes] == ["paper, PDDCA", "OpenKBP"]
    plt.close(figure)


def test_the_full_resolution_appears_when_it_was_measured(tmp_path: Path) -> None:
    """Nothing without tables; with them a paragraph whose numbers are theirs, and a row an organ."""
    nothing = chapters.landscape.full_resolution(tmp_path)
    assert nothing is None
    assert chapters.landscape.full_resolution_note(nothing) is None
    assert chapters.landscape.full_resolution_table(nothing) is None
    assert chapters.landscape.full_resolution_answer(nothing) == ""
    for name in ("landscape", "landscape_classes"):
        table = pd.read_csv(PHANTOM / f"{name}.csv")
        first, second = [24, 32, 64], [12, 16, 64]
        for size, ours in zip(([192, 160, 56], [96, 80, 48]), (first, second), strict=True):
            table.loc[(table[PATCH] == ours).all(axis=1), PATCH] = size
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    full = chapters.landscape.full_resolution(tmp_path)
    assert full is not None
    smallest = chapters.landscape.smallest_organ(full[1])
    rows = full[1].query("patch_x == 96 and centres == 'class_uniform' and `class` == @smallest")
    seen = rows["presence"].item()
    text = chapters.landscape.full_resolution_note(full).data
    name = chapters.title(smallest)
    assert f"the {name[0].lower()}{name[1:]}, is in" in text
    assert chapters.percent(seen) in text
    table = chapters.landscape.full_resolution_table(full)
    assert table is not None
    assert table.loc[name, ("small", "class-uniform")] == round(100 * seen)


@pytest.mark.parametrize(
    ("large", "small", "way"), [(0.001, 0.002, "a larger part: 10 % and 20 %"), (0.002, 0.001, "a smaller part, too")]
)
def test_the_full_resolution_says_which_way_the_smallest_organ_goes(large: float, small: float, way: str) -> None:
    """Of 0.01 of a patch that is organ, the chiasm is one or two tenths."""
    patches = chapters.landscape.PAPER_PATCHES
    rows = [
        {**dict(zip(PATCH, size, strict=True)), "centres": rule, "class": name, "ratio": ratio}
        for size, chiasm in ((patches["large"], large), (patches["small"], small))
        for rule in ("uniform", "voxel_uniform")
        for name, ratio in (("background", 0.99), ("mandible", 0.01 - chiasm), ("optic_chiasm", chiasm))
    ]
    text = chapters.landscape.full_resolution_answer((pd.DataFrame(), pd.DataFrame(rows)))
    assert f"the optic chiasm, {way}" in text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    "quantities", [chapters.phantom.SIZE_COLUMNS, tuple(chapters.phantom.POSITIONS), tuple(chapters.phantom.NUMBERS)]
)
def test_the_phantom_is_compared_organ_by_organ(quantities: tuple[str, ...]) -> None:
    table = chapters.phantom.comparison_table(chapters.phantom.load_comparison(PHANTOM), quantities)
    assert table.shape[0] >= 5
    assert table.shape[1] >= 3
