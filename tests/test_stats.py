"""Statistics of metric tables: worked by hand, coverage of intervals, and Table 1 of the paper."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from hnlib.organs import ORGANS
from hnlib.stats import (
    ALL_ORGANS,
    COLUMNS,
    PAPER_NEAREST,
    PRINTED,
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
    paper_table1,
    printed_table,
    rank_experiments,
    seed_averaged,
    seed_interval,
    seed_spread,
    signed_rank,
)
from hnlib.stats.paired import _bootstrap_patients, _jackknife_t
from hnlib.stats.ranking import _friedman, _pairs


def rows(*entries, profile="laptop", metric="dsc"):
    """Metric rows from (experiment, seed, split, case, organ, value)."""
    return pd.DataFrame([(profile, *entry[:5], metric, entry[5]) for entry in entries], columns=COLUMNS)


def study(values, experiment="recipe", split="test", seed=0):
    """Rows of one experiment from an array (cases, organs)."""
    return rows(
        *(
            (experiment, seed, split, f"pt_{case}", organ, value)
            for case, row in enumerate(np.asarray(values))
            for organ, value in zip(("mandible", "larynx", "brainstem"), row, strict=False)
        )
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


def test_table1_of_tappeiner_2022_is_complete():
    """Four configurations, seven organs and the average, three metrics; names of the vocabulary."""
    table = paper_table1()
    assert len(table) == 4 * 8 * 3
    assert set(table["organ"]) - {"average"} < set(ORGANS)
    assert set(table["metric"]) == set(PAPER_NEAREST)
    assert not table.duplicated(["configuration", "organ", "metric"]).any()
    assert not table.isna().any(axis=None)


def test_printed_averages_of_table1_are_the_means_of_the_seven_organs():
    """Tappeiner 2022, Table 1: all 12 printed averages within half a unit of their second digit."""
    table = paper_table1()
    printed = table[table["organ"] == "average"].set_index(["configuration", "metric"])["mean"]
    computed = table[table["organ"] != "average"].groupby(["configuration", "metric"])["mean"].mean()
    assert len(printed) == 12
    assert (computed - printed).abs().max() <= 0.005 + 1e-9
    assert computed["large_nnu_dice_ce", "dsc"] == pytest.approx(0.7714, abs=5e-5)
    assert computed["large_ca_dice_ce", "hd95_plastimatch_mm"] == pytest.approx(12.819, abs=5e-4)
    assert computed["small_ca_dice_ce", "surface_dsc_axes_swapped"] == pytest.approx(0.9414, abs=5e-5)


def test_printed_sds_of_table1_pool_cases_and_organs():
    """Tappeiner 2022, Table 1: the "+-" of an average row is the SD of 15 x 7 values, not an uncertainty."""
    table = paper_table1()
    for (configuration, metric), group in table.groupby(["configuration", "metric"]):
        organs = group[group["organ"] != "average"]
        total = (14 * organs["sd"] ** 2).sum() + 15 * ((organs["mean"] - organs["mean"].mean()) ** 2).sum()
        printed = group.loc[group["organ"] == "average", "sd"].item()
        assert np.sqrt(total / 104) == pytest.approx(printed, abs=0.012), (configuration, metric)


@pytest.mark.parametrize("paper", PRINTED)
def test_printed_tables_are_whole(paper):
    """No value twice, none lacking, none out of range."""
    table = printed_table(paper)
    assert not table.duplicated(["table", "method", "organ", "metric"]).any()
    assert table["mean"].gt(0).all()
    shares = table[table["metric"].str.endswith("_percent")]
    assert shares["mean"].lt(100).all()


@pytest.mark.parametrize(
    ("paper", "table", "unit"), [("gao2019", "1", 0.1), ("gao2019", "3", 0.1), ("hosseini2024", "1", 0.01)]
)
def test_printed_averages_are_the_means_of_their_rows(paper, table, unit):
    """All but one: the atlas row of Gao 2019, Table 1, prints 62.3 where its organs average 60.1."""
    rows = printed_table(paper).query("table == @table and metric == 'dsc_percent'")
    printed = rows[rows["organ"] == "average"].set_index("method")["mean"]
    computed = rows[rows["organ"] != "average"].groupby("method")["mean"].mean()
    gap = (computed - printed).dropna().abs()
    if "atlas" in gap:
        assert gap.pop("atlas") == pytest.approx(2.167, abs=5e-4)
    assert gap.max() <= unit


# By simulation: what intervals cover, and how often the chain sees what is not there.


def skewed_dsc(rng, patients, *, lost=(0.02, 0.06), error=(0.95, 1.0), organs=5):
    """DSC of two experiments on the same patients, (2, patients, organs): hard patients, skewed errors, failures."""
    hard = np.exp(0.35 * rng.standard_normal((patients, 1)))
    scale = np.array([0.12, 0.15, 0.14, 0.13, 0.09])[:organs]
    arms = []
    for share, factor in zip(lost, error, strict=True):
        dsc = 1 - np.minimum(scale * hard * factor * np.exp(0.2 * rng.standard_normal((patients, organs))), 1)
        failed = rng.random((patients, organs)) < share
        arms.append(np.where(failed, dsc * rng.uniform(0, 0.7, (patients, organs)), dsc))
    return np.array(arms)


@pytest.mark.parametrize("patients", [10, 15, 30])
def test_t_interval_covers_skewed_differences(patients):
    """95 % nominal: at least 93 % on DSC where the baseline loses 6 % of the organs and the other one 2 %."""
    generator, repeats = rng(), 1000
    new, base = skewed_dsc(generator, 200_000)
    truth = (new - base).mean()
    new, base = skewed_dsc(generator, repeats * patients).reshape(2, repeats, patients, 5)
    interval = scipy_stats.ttest_1samp((new - base).mean(axis=2), 0, axis=1).confidence_interval(0.95)
    covered = ((interval.low <= truth) & (truth <= interval.high)).mean()
    assert 0.93 <= covered <= 0.97
    table = pd.concat([study(base[0][:, :3], "base"), study(new[0][:, :3])])
    found = paired_difference(table, "recipe", "base")
    one = scipy_stats.ttest_1samp((new - base)[0][:, :3].mean(axis=1), 0).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(one.low), pytest.approx(one.high))


def test_t_interval_covers_when_an_organ_is_outlined_in_half_of_the_patients():
    """The jackknife of the mean of organ means: 95 % nominal, at least 92 % in 400 studies of 20 patients."""
    generator, hits = rng(), 0
    new, base = skewed_dsc(generator, 200_000, organs=3)
    truth = (new - base).mean()
    for _ in range(400):
        new, base = skewed_dsc(generator, 20, organs=3)
        values = new - base
        values[generator.random(20) < 0.5, 2] = np.nan
        low, high, _ = _jackknife_t(values, 0.95)
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_bootstrap_covers_less_which_is_why_t_is_the_default():
    """BCa at 15 patients: between 82 and 93 % in 200 studies, where 95 % were promised."""
    generator, repeats = rng(), 200
    new, base = skewed_dsc(generator, 200_000)
    truth = (new - base).mean()
    new, base = skewed_dsc(generator, repeats * 15).reshape(2, repeats, 15, 5)
    limits = [_bootstrap_patients(values, 0.95, 499, generator)[:2] for values in new - base]
    assert 0.82 <= np.mean([low <= truth <= high for low, high in limits]) <= 0.93


def test_chain_of_tests_raises_few_false_alarms():
    """Two experiments, two organs, two metrics, 20 patients, nothing differs: 250 studies, alarms in 5 % at most.

    One metric is rounded to a grid, as distances between voxels are. Simulation error: 2 SE, 2.8 %.
    """
    generator, studies = rng(), 250
    primary = np.array([True] * 2 + [False] * 8)
    experiment = np.array([0, 1] + [0] * 4 + [1] * 4)
    alarms = np.zeros((studies, 2), dtype=bool)
    for number in range(studies):
        arms = [skewed_dsc(generator, 20, lost=(0.04, 0.04), error=(1, 1), organs=2) for _ in range(2)]
        differences = [new - base for new, base in arms]
        columns = [values.mean(axis=1) for values in differences]
        for values in differences:
            columns += [*values.T, *(np.round(200 * values).T)]
        p = np.array([signed_rank(column).p for column in columns])
        _, shown = gatekept(p, primary, experiment)
        alarms[number] = shown.any(), (np.nan_to_num(holm(p[~primary]), nan=1) < 0.05).any()
    chain, organs_alone = alarms.mean(axis=0)
    assert 0.01 <= chain <= 0.05 + 0.028
    assert organs_alone <= 0.05 + 0.028


def test_comparison_of_trainings_raises_few_false_alarms():
    """Two configurations alike, 20 patients, three seeds each whose means differ by chance: alarms in 5 % at most.

    150 studies; the patients alone would raise an alarm in most of them. Simulation error: 2 SE, 3.6 %.
    """
    generator, studies = rng(), 150
    alarms, patients = 0, 0
    for _ in range(studies):
        hard = 0.8 + 0.05 * generator.standard_normal((20, 1))
        runs = []
        for name, seed in product(("base", "recipe"), range(3)):
            own = 0.02 * generator.standard_normal() + 0.01 * generator.standard_normal((20, 1))
            runs.append(study(hard + own, name, seed=seed))
        found = compare_experiments(pd.concat(runs), "base", measures=("dsc",))
        alarms += found["shown"].any()
        patients += found["p_holm"].lt(0.05).any()
    assert alarms / studies <= 0.05 + 0.036
    assert patients / studies > 0.5


def test_ranking_raises_few_false_alarms():
    """Three experiments that do not differ, 15 patients: some pair is told apart in 5 % of 200 studies at most."""
    generator, studies = rng(), 200
    alarms = 0
    for _ in range(studies):
        values = skewed_dsc(generator, 15, lost=(0.04,) * 3, error=(1,) * 3, organs=3).mean(axis=2)
        table = pd.DataFrame(values.T, columns=["a", "b", "c"])
        alarms += _friedman(table) < 0.05 and (_pairs(table)["p_holm"] < 0.05).any()
    assert alarms / studies <= 0.05 + 0.031
