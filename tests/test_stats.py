"""Statistics of metric tables, worked by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from metricrows import study
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from hnlib.stats import (
    ALL_ORGANS,
    case_differences,
    choose_by_validation,
    compare_experiments,
    detectable_differences,
    gatekept,
    holm,
    least_p,
    mean_over_organs,
    minimum_detectable_effect,
    organ_summary,
    paired_difference,
    rank_experiments,
    seed_averaged,
    seed_interval,
    seed_spread,
    signed_rank,
)


def rng():
    return np.random.default_rng(0)


def test_seeds_are_averaged_before_cases_are_compared():
    """Two seeds at 0.6 and 0.8 are one case at 0.7."""
    table = pd.concat([study([[0.6], [0.5]]), study([[0.8], [0.5]], seed=1)])
    averaged = seed_averaged(table)
    assert averaged["value"].tolist() == pytest.approx([0.7, 0.5])
    assert averaged["seeds"].tolist() == [2, 2]


def test_organ_summary_by_hand():
    """0.6, 0.7, 0.8: mean 0.7, SD 0.1, t interval 0.7 +- 4.302653 * 0.1 / sqrt(3)."""
    (row,) = organ_summary(study([[0.6], [0.7], [0.8]])).itertuples()
    assert (row.mean, row.sd, row.cases, row.undefined) == (pytest.approx(0.7), pytest.approx(0.1), 3, 0)
    assert (row.low, row.high) == (pytest.approx(0.7 - 0.248414), pytest.approx(0.7 + 0.248414))


def test_undefined_distance_is_counted_and_not_averaged():
    """A missed organ's hd95 is empty: the mean is over the other cases and says so."""
    table = study([[2.0], [4.0], [np.nan]]).assign(metric="hd95_mm")
    (row,) = organ_summary(table).itertuples()
    assert (row.mean, row.cases, row.undefined) == (3.0, 2, 1)
    (row,) = mean_over_organs(table).itertuples()
    assert (row.mean, row.cases, row.undefined) == (3.0, 3, 1)


def test_one_case_has_no_interval():
    """SD and limits of a single case are unknown, not 0."""
    (row,) = organ_summary(study([[0.6]])).itertuples()
    assert row.mean == 0.6
    assert np.isnan([row.sd, row.low, row.high]).all()


def test_mean_over_organs_weighs_organs_alike():
    """An organ labelled in one case of three counts as much as one labelled in all."""
    table = study([[0.9, 0.3], [0.9, np.nan], [0.9, np.nan]]).dropna()
    (row,) = mean_over_organs(table).itertuples()
    assert (row.mean, row.organs, row.cases) == (pytest.approx(0.6), 2, 3)


def test_seed_spread_by_hand_and_unknown_for_one_seed():
    """Seeds at 0.6 and 0.8: mean 0.7, SD 0.1414; one seed has no SD."""
    two = pd.concat([study([[0.6]]), study([[0.8]], seed=1)])
    table = seed_spread(pd.concat([two, study([[0.5]], "focusnet")])).set_index("experiment")
    assert table.loc["recipe", "mean"] == pytest.approx(0.7)
    assert table.loc["recipe", "sd"] == pytest.approx(np.sqrt(0.02))
    assert table["seeds"].to_dict() == {"recipe": 2, "focusnet": 1}
    assert np.isnan(table.loc["focusnet", "sd"])


def test_case_differences_use_the_common_pairs():
    """A pair of case and organ that one side lacks does not enter."""
    base = study([[0.5, 0.5], [0.5, np.nan]], "base")
    table = case_differences(pd.concat([base, study([[0.6, 0.4], [0.8, 0.9]])]), "base")
    found = {(row.case, row.organ): row.difference for row in table.itertuples()}
    assert found == {
        ("pt_0", "mandible"): pytest.approx(0.1),
        ("pt_0", "larynx"): pytest.approx(-0.1),
        ("pt_1", "mandible"): pytest.approx(0.3),
    }
    assert table["experiment"].unique().tolist() == ["recipe"]


def test_paired_difference_is_the_difference_of_means_when_all_is_labelled():
    """With every organ in every case, the estimate is the difference of the two means over organs."""
    generator = rng()
    base, new = generator.uniform(size=(2, 12, 3))
    table = pd.concat([study(base, "base"), study(new), study(new + 0.1, seed=1)])
    found = paired_difference(table, "recipe", "base")
    assert found.difference == pytest.approx(new.mean() + 0.05 - base.mean())
    assert found.low < found.difference < found.high
    assert (found.cases, found.organs, found.seeds, found.baseline_seeds, found.method) == (12, 3, 2, 1, "t")


def test_organs_of_a_patient_stay_together():
    """Organs that move together widen the interval; organs that cancel within a patient close it."""
    shift = np.linspace(-0.1, 0.1, 15)[:, None]
    base = study(np.full((15, 2), 0.5), "base")
    cancelling = pd.concat([base, study(0.5 + shift * [1, -1])])
    together = pd.concat([base, study(0.5 + shift * [1, 1])])
    for method in ("t", "BCa"):
        narrow, wide = (
            paired_difference(table, "recipe", "base", method=method, resamples=499, rng=rng())
            for table in (cancelling, together)
        )
        assert narrow.high - narrow.low == pytest.approx(0, abs=1e-12)
        assert wide.high - wide.low > 0.04


def test_interval_is_that_of_the_mean_when_all_is_labelled():
    """The jackknife over patients gives the usual t interval: worked by SciPy on patient means, to the last digit."""
    values = 0.05 + 0.1 * rng().standard_normal((9, 3))
    table = pd.concat([study(np.full((9, 3), 0.5), "base"), study(0.5 + values)])
    found = paired_difference(table, "recipe", "base")
    expected = scipy_stats.ttest_1samp(values.mean(axis=1), 0).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_interval_with_an_organ_that_few_patients_have_by_hand():
    """Organ means 0.2 (patients 0.1, 0.3) and 0.4 (one patient); 0.3 without the first, 0.25 without the other."""
    table = pd.concat([study([[0.0, 0.0], [0.0, np.nan]], "base"), study([[0.1, 0.4], [0.3, np.nan]])]).dropna()
    found = paired_difference(table, "recipe", "base")
    without = np.array([0.3, (0.1 + 0.4) / 2])
    half = 12.706204736 * np.sqrt(without.var())
    assert found.difference == pytest.approx(0.3)
    assert (found.low, found.high) == (pytest.approx(0.3 - half), pytest.approx(0.3 + half))


def test_bootstrap_agrees_with_the_t_interval_on_normal_data():
    """For 30 patients and normal differences BCa and t agree within a tenth of the width; the seed decides the rest."""
    values = 0.05 + 0.1 * rng().standard_normal((30, 1))
    table = pd.concat([study(np.full((30, 1), 0.5), "base"), study(0.5 + values)])
    t = paired_difference(table, "recipe", "base")
    first, second = (paired_difference(table, "recipe", "base", method="BCa", rng=rng()) for _ in range(2))
    assert (first.low, first.high) == (pytest.approx(t.low, abs=0.008), pytest.approx(t.high, abs=0.008))
    assert first == second
    assert (t.method, first.method) == ("t", "BCa")


def test_interval_where_every_patient_gains_the_same():
    """Without spread the interval is the point, and BCa, which then does not exist, gives way to the percentiles."""
    table = pd.concat([study(np.full((5, 2), 0.5), "base"), study(np.full((5, 2), 0.75))])
    found = paired_difference(table, "recipe", "base")
    assert (found.difference, found.low, found.high, found.method) == (0.25, 0.25, 0.25, "t")
    found = paired_difference(table, "recipe", "base", method="BCa", resamples=99, rng=rng())
    assert (found.difference, found.low, found.high, found.method) == (0.25, 0.25, 0.25, "percentile")


def test_interval_over_seeds_by_hand():
    """Runs at 0.6, 0.7, 0.8 against 0.5, 0.6, 0.7: 0.1 +- t(4) x sqrt(2 x 0.01 / 3); one seed has none."""
    runs = [study([[mean], [mean]], "recipe", seed=k) for k, mean in enumerate((0.6, 0.7, 0.8))]
    base = [study([[mean], [mean]], "base", seed=k) for k, mean in enumerate((0.5, 0.6, 0.7))]
    low, high = seed_interval(pd.concat([*runs, *base]), "recipe", "base")
    half = 2.776445 * np.sqrt(2 * 0.01 / 3)
    assert (low, high) == (pytest.approx(0.1 - half), pytest.approx(0.1 + half))
    back = seed_interval(pd.concat([*runs, *base]), "base", "recipe")
    assert back == (pytest.approx(-high), pytest.approx(-low))
    assert np.isnan(seed_interval(pd.concat([runs[0], *base]), "recipe", "base")).all()


def test_pairs_that_one_side_lacks_are_counted():
    """A case that only one experiment has, and a distance undefined on one side, are left out and counted."""
    base = study([[2.0, 2.0], [4.0, np.nan], [3.0, 1.0]], "base").assign(metric="hd95_mm")
    new = study([[1.0, 1.0], [1.0, 2.0]]).assign(metric="hd95_mm")
    found = paired_difference(pd.concat([base, new]), "recipe", "base", metric="hd95_mm")
    assert (found.cases, found.left_out) == (2, 3)
    table = compare_experiments(pd.concat([base, new]), "base", measures=("hd95_mm",)).set_index("organ")
    assert table["left_out"].to_dict() == {ALL_ORGANS: 3, "mandible": 1, "larynx": 2}
    assert table["cases"].to_dict() == {ALL_ORGANS: 2, "mandible": 2, "larynx": 1}


def test_one_patient_has_no_interval():
    """A single common patient gives an estimate and no limits."""
    found = paired_difference(pd.concat([study([[0.5]], "base"), study([[0.7]])]), "recipe", "base")
    assert found.difference == pytest.approx(0.2)
    assert np.isnan([found.low, found.high]).all()
    assert found.method == "none"


def test_validation_chooses_and_test_does_not():
    """The experiment that is best on test loses to the one that is best on validation."""
    table = pd.concat(
        [
            study([[0.7], [0.8]], "small", "validation"),
            study([[0.9], [0.5]], "large", "validation"),
            study([[0.1]], "small"),
            study([[0.9]], "large"),
        ]
    )
    assert choose_by_validation(table) == "small"
    assert choose_by_validation(table.assign(value=table["value"].where(table["split"] != "test", 0.5))) == "small"


def test_miss_counts_zero_in_the_choice():
    """0.9 with a miss (0) loses to a steady 0.6."""
    table = pd.concat([study([[0.9], [0.0]], "risky", "validation"), study([[0.6], [0.6]], "steady", "validation")])
    assert choose_by_validation(table) == "steady"


def test_partial_run_is_compared_on_the_cases_it_shares():
    """A run with only the easy case is not preferred for having skipped the hard one."""
    table = pd.concat(
        [
            study([[0.95], [0.4]], "whole", "validation"),
            study([[0.93]], "partial", "validation"),
            study([[0.9]], "partial", "validation", seed=1),
        ]
    )
    assert choose_by_validation(table) == "whole"


def test_signed_rank_by_hand():
    """Ranks 1, 2, 3 in favour and 4 against: (6 - 4) / 10; of 16 sign patterns 14 have a rank sum as extreme."""
    found = signed_rank([0.1, 0.2, 0.3, -0.4])
    assert (found.p, found.rank_biserial, found.note) == (pytest.approx(14 / 16), pytest.approx(0.2), "")


def test_signed_rank_has_its_floor():
    """Five patients in one direction: 2 / 2^5, which is not below 5 %; six are."""
    assert signed_rank([1, 2, 3, 4, 5]).p == pytest.approx(0.0625)
    assert signed_rank([1, 2, 3, 4, 5, 6]).p == pytest.approx(0.03125)
    assert signed_rank([1, 2, 3, 4, 5]).rank_biserial == 1


@pytest.mark.parametrize(
    ("differences", "note"),
    [([0.0, 0.0, 0.0], "all differences are zero"), ([0.1], "1 case"), ([np.nan, 0.1], "1 case"), ([], "0 cases")],
)
def test_a_test_that_does_not_exist_says_so(differences, note):
    """No p value is made up, and no warning comes instead of a sentence."""
    found = signed_rank(differences)
    assert np.isnan([found.p, found.rank_biserial]).all()
    assert found.note == f"not defined: {note}"


def test_holm_by_hand():
    """0.01, 0.02, 0.03 of three: 0.03, 0.04, 0.04; an undefined one takes its place in the count."""
    assert holm([0.02, 0.01, 0.03]).tolist() == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.02, np.nan])[0] == pytest.approx(0.04)


def test_holm_is_that_of_statsmodels():
    """On families of 1 to 50 with ties."""
    for size in (1, 2, 7, 50):
        p = np.round(rng().beta(0.3, 1, size), 2)
        assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm([]).size == 0


def test_nothing_is_shown_behind_a_primary_endpoint_that_is_not():
    """The second experiment's strong organ stays unshown because its mean over organs shows nothing."""
    corrected, shown = gatekept([0.01, 0.2, 0.001, 0.001], [True, True, False, False], ["a", "b", "a", "b"])
    assert corrected.tolist() == pytest.approx([0.02, 0.2, 0.002, 0.002])
    assert shown.tolist() == [True, False, True, False]


def test_comparison_has_a_row_for_every_experiment_metric_and_organ():
    """Six patients gain 0.1 in one organ and nothing in the other: found, and zero differences are said to be so."""
    base = np.linspace(0.5, 0.8, 6)[:, None] * [1, 1]
    gain = np.array([[0.1, 0.0]]) + np.linspace(-0.01, 0.01, 6)[:, None] * [1, 0]
    table = pd.concat([study(base, "base"), study(base + gain), study(base, "same")])
    table = pd.concat([table, table.assign(metric="surface_dsc")])
    found = compare_experiments(table, "base", measures=("dsc", "surface_dsc"))
    assert len(found) == 2 * 2 * 3
    assert found["primary"].sum() == 2
    rows = found.set_index(["experiment", "metric", "organ"])
    first = rows.loc[("recipe", "dsc", ALL_ORGANS)]
    assert first["difference"] == pytest.approx(0.05)
    assert first["low"] < 0.05 < first["high"]
    assert first["p"] == pytest.approx(0.03125)
    assert first["rank_biserial"] == 1
    assert rows.loc[("recipe", "dsc", "larynx"), "note"] == "not defined: all differences are zero"
    assert rows.loc[("same", "dsc", ALL_ORGANS), "note"] == "not defined: all differences are zero"
    assert not rows["shown"].any()
    both = table[table["experiment"] != "same"]
    given = compare_experiments(table, "base", measures=("dsc", "surface_dsc"), seeds=False)
    assert not given["shown"].any()  # 2 x 0.03125 is above 5 %: six patients cannot show it for two experiments
    alone = compare_experiments(both, "base", measures=("dsc", "surface_dsc"), seeds=False)
    assert alone.loc[alone["shown"], ["metric", "organ"]].to_numpy().tolist() == [["dsc", ALL_ORGANS]]
    assert not compare_experiments(both, "base", measures=("dsc", "surface_dsc"))["shown"].any()  # one seed


def test_a_difference_is_shown_where_patients_and_seeds_tell_it_from_zero():
    """Six patients gain 0.05. Seeds 0.01 apart: 0.05 +- t(4) 0.01 sqrt(2 / 3); 0.1 apart: ten times as wide."""
    base, gain = np.linspace(0.5, 0.8, 6)[:, None], 0.05 + np.linspace(-0.01, 0.01, 6)[:, None]

    def compared(step):
        runs = [(study(base + step * k, "base", seed=k), study(base + gain + step * k, seed=k)) for k in range(3)]
        return compare_experiments(pd.concat([one for pair in runs for one in pair]), "base", measures=("dsc",)).iloc[0]

    half = 2.776445 * 0.01 * np.sqrt(2 / 3)
    close = compared(0.01)
    assert (close["seeds_low"], close["seeds_high"]) == (pytest.approx(0.05 - half), pytest.approx(0.05 + half))
    assert close["p_seeds"] == pytest.approx(2 * scipy_stats.t.sf(0.05 / (0.01 * np.sqrt(2 / 3)), 4))
    assert close["shown"]
    wide = compared(0.1)
    assert wide["p"] == close["p"] < 0.05
    assert not wide["shown"]


def test_seeds_of_several_experiments_are_corrected_for_their_number():
    """p over seeds 0.03 is shown of one experiment and not of two; NaN, one seed, is never."""
    for number in (1, 2):
        _, shown = gatekept([1e-6] * number, [True] * number, range(number), p_seeds=[0.03] * number)
        assert shown.tolist() == [number == 1] * number
    assert gatekept([1e-6], [True], ["a"], p_seeds=[np.nan])[1].tolist() == [False]
    assert gatekept([1e-6] * 2, [True, False], ["a", "a"], p_seeds=[0.06, 0.01])[1].tolist() == [False, False]


def test_what_one_side_lacks_is_not_in_the_interval_over_seeds():
    """The case that the baseline lacks would move every run of the other by 0.1."""
    runs = [study([[0.5], [0.5], [0.8]], seed=k) for k in range(2)]
    base = [study([[0.5], [0.5]], "base", seed=k) for k in range(2)]
    assert seed_interval(pd.concat([*runs, *base]), "recipe", "base") == (0, 0)


def test_a_distance_that_one_run_lacks_does_not_move_the_interval_over_seeds():
    """Organs at 2 and 20 mm in all runs, one of which has no distance for the second: no difference, no width."""
    runs = [study([[2.0, 20.0]] * 3, name, seed=k) for name in ("recipe", "base") for k in range(3)]
    runs[0] = study([[2.0, np.nan], [2.0, 20.0], [2.0, 20.0]], seed=0)
    table = pd.concat(runs).assign(metric="hd95_mm")
    assert seed_interval(table, "recipe", "base", metric="hd95_mm") == (0, 0)


def test_what_the_mean_and_the_ranks_see_in_opposite_directions_is_not_shown():
    """Fourteen of 15 patients lose a little, one gains a whole organ: the mean rises, the test shows a fall."""
    base = np.full((15, 1), 0.8)
    values = base - np.linspace(0.008, 0.012, 15)[:, None]
    base[14], values[14] = 0.0, 0.9
    found = compare_experiments(pd.concat([study(base, "base"), study(values)]), "base", measures=("dsc",), seeds=False)
    first = found.iloc[0]
    assert first["difference"] > 0 > first["rank_biserial"]
    assert first["p"] < 0.05
    assert np.isnan(first["p_holm"])
    assert not found["shown"].any()
    assert "opposite signs" in first["note"]


def test_a_single_case_is_compared_without_interval_and_test():
    """The difference is there; interval and p are not, and the note says why."""
    found = compare_experiments(pd.concat([study([[0.5]], "base"), study([[0.7]])]), "base", measures=("dsc",))
    assert found["difference"].tolist() == pytest.approx([0.2, 0.2])
    assert found[["low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert set(found["note"]) == {"not defined: 1 case"}


@pytest.mark.parametrize(("cases", "effect"), [(10, 1.00), (15, 0.78), (25, 0.58), (50, 0.41)])
def test_smallest_effect_that_is_found_with_power_80(cases, effect):
    """In SDs of the paired difference; a second SD doubles it."""
    assert minimum_detectable_effect(cases) == pytest.approx(effect, abs=0.006)
    assert minimum_detectable_effect(cases, sd=2) == pytest.approx(2 * minimum_detectable_effect(cases))
    assert np.isnan(minimum_detectable_effect(1))


def test_detectable_effect_is_found_in_four_of_five_studies():
    """By simulation: 15 patients with the effect that the function names for the first of seven tests."""
    effect = minimum_detectable_effect(15, tests=7)
    values = effect + rng().standard_normal((4000, 15))
    p = scipy_stats.ttest_1samp(values, 0, axis=1).pvalue
    assert (p < 0.05 / 7).mean() == pytest.approx(0.8, abs=0.02)


def test_detectable_differences_by_hand():
    """SD 0.1 in one organ and none in the other on validation; nine test patients; of six tests one is primary."""
    shift = np.tile([-0.1, 0.0, 0.1], 3) * np.sqrt(8 / 6)  # sample SD of nine values
    parts = [study(np.full((9, 2), 0.5), "base"), study(0.5 + 7 * shift[:, None] * [1, 1])]
    parts += [
        study(np.full((9, 2), 0.5), "base", "validation"),
        study(0.5 + shift[:, None] * [1, 0], split="validation"),
    ]
    table = pd.concat([one.assign(metric=metric) for one in parts for metric in ("dsc", "hd95_mm")])
    found = detectable_differences(table, "base", measures=("dsc", "hd95_mm")).set_index("organ")
    assert found.loc[[ALL_ORGANS, "mandible", "larynx"], "sd"].tolist() == pytest.approx([0.05, 0.1, 0])
    assert set(found["cases"]) == {9}
    assert found.loc["mandible", "detectable"] == pytest.approx(minimum_detectable_effect(9, sd=0.1))
    assert found.loc["mandible", "detectable_holm"] == pytest.approx(minimum_detectable_effect(9, sd=0.1, tests=5))
    assert found.loc[ALL_ORGANS, "detectable_holm"] == found.loc[ALL_ORGANS, "detectable"]
    assert np.isnan(found.loc["larynx", "detectable"])  # nothing varies
    assert found.loc["larynx", "detectable_holm_sd"] == pytest.approx(minimum_detectable_effect(9, tests=5))
    assert len(compare_experiments(table, "base", measures=("dsc", "hd95_mm"))) == 6
    alone = detectable_differences(table, "base", measures=("dsc",), sd_split=None)
    assert alone["sd"].isna().all()
    assert alone["detectable_sd"].notna().all()


def test_an_organ_that_one_side_lacks_has_no_cases_to_detect_in():
    """Only the baseline has a larynx, and of two experiments one."""
    both, one = np.full((9, 2), 0.5), np.full((9, 1), 0.5)
    for others in ([study(one)], [study(one), study(both, "third")]):
        found = detectable_differences(
            pd.concat([study(both, "base"), *others]), "base", measures=("dsc",), sd_split=None
        )
        assert found.set_index("organ")["cases"].to_dict() == {ALL_ORGANS: 9, "mandible": 9, "larynx": 0}


def test_what_signed_ranks_can_never_show_is_not_called_detectable():
    """Of six patients the least p is 1/32: below 0.05, above half of it."""
    shift = np.array([-0.1, 0.0, 0.1, 0.2, 0.1, 0.0])
    table = pd.concat([study(np.full((6, 2), 0.5), "base"), study(0.5 + shift[:, None] * [1, 1])])
    found = detectable_differences(table, "base", measures=("dsc",), sd_split="test").set_index("organ")
    assert found.loc["mandible", "detectable"] > 0
    assert np.isnan(found.loc["mandible", "detectable_holm"])
    assert signed_rank(np.arange(1.0, 7.0)).p == pytest.approx(least_p(6))


def ranked(seeds=1, **columns):
    """Ranking of one organ: experiment to its values over the cases, once a seed, each 0.001 above the one before."""
    runs = [(name, np.array(values)[:, None], seed) for name, values in columns.items() for seed in range(seeds)]
    return rank_experiments(pd.concat([study(values + 0.001 * seed, name, seed=seed) for name, values, seed in runs]))


def test_ranks_by_hand():
    """Three experiments on two cases: ranks (1, 2, 3) and (2, 1, 3)."""
    found = ranked(a=[0.9, 0.7], b=[0.8, 0.8], c=[0.1, 0.1])
    assert found.ranks["experiment"].tolist() == ["a", "b", "c"]
    assert found.ranks["mean_rank"].tolist() == [1.5, 1.5, 3]
    assert found.ranks["mean"].tolist() == pytest.approx([0.8, 0.8, 0.1])
    assert found.groups == (("a", "b", "c"),)
    assert (found.cases, len(found.pairs)) == (2, 3)


def test_experiments_that_differ_are_in_different_groups():
    """a and b are mixed, c is below both in every one of 12 cases; a distance ranks the other way round."""
    noise = 0.01 * rng().standard_normal((3, 12))
    values = {"a": 0.8 + noise[0], "b": 0.8 + noise[1], "c": 0.5 + noise[2]}
    assert ranked(**values).groups == (("a", "b", "c"),)  # with one seed no two configurations are told apart
    found = ranked(seeds=3, **values)
    assert found.friedman_p < 0.001
    assert set(found.groups[0]) == {"a", "b"}
    assert len(found.groups) == 1
    pair = found.pairs[(found.pairs["second"] == "c")]
    assert pair["rank_biserial"].tolist() == [1, 1]
    assert pair["p_holm"].tolist() == pytest.approx([3 / 2**11] * 2)
    table = pd.concat([study(v[:, None], name) for name, v in values.items()]).assign(metric="hd95_mm")
    assert rank_experiments(table, metric="hd95_mm").ranks["experiment"][0] == "c"


def test_two_experiments_are_a_pair_without_friedman():
    """Friedman's test needs three; the pair is tested all the same."""
    found = ranked(seeds=3, a=np.linspace(0.6, 0.9, 8), b=np.linspace(0.5, 0.7, 8))
    assert np.isnan(found.friedman_p)
    assert found.groups == ()


def test_only_what_all_experiments_have_is_ranked():
    """A case that one experiment lacks is left out and counted."""
    found = ranked(a=[0.9, 0.8, 0.7], b=[0.8, 0.7, 0.6], c=[0.7, 0.6])
    assert (found.cases, found.left_out) == (2, 1)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda t: mean_over_organs(t.drop(columns="seed")), r"lacks the columns \['seed'\]"),
        (lambda t: choose_by_validation(t), "no validation case"),
        (lambda t: case_differences(t, "nobody"), "for baseline 'nobody'"),
        (lambda t: case_differences(pd.concat([t, t.assign(profile="gpu")]), "base"), "budgets are not comparable"),
        (lambda t: paired_difference(t, "nobody", "base"), "share no test case"),
        (lambda t: paired_difference(t, "base", "base", method="BCa"), "give rng"),
        (lambda t: compare_experiments(t, "nobody"), "for baseline 'nobody'"),
        (lambda t: compare_experiments(t, "base"), "no test rows of surface_dsc"),
        (lambda t: rank_experiments(t, metric="hd95_mm"), "no test case has a value of hd95_mm"),
    ],
)
def test_tables_that_do_not_serve_are_refused(call, text):
    """One line says what is lacking."""
    with pytest.raises(ValueError, match=text):
        call(study([[0.5]], "base"))
