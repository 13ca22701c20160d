"""Statistics of metric tables: worked by hand, coverage of intervals, and Table 1 of the paper."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hnlib.organs import ORGANS
from hnlib.stats import (
    COLUMNS,
    PAPER_NEAREST,
    case_differences,
    choose_by_validation,
    mean_over_organs,
    organ_summary,
    paired_difference,
    paper_table1,
    seed_averaged,
    seed_spread,
)


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
    found = paired_difference(table, "recipe", "base", resamples=499, rng=rng())
    assert found.difference == pytest.approx(new.mean() + 0.05 - base.mean())
    assert found.low < found.difference < found.high
    assert (found.cases, found.organs, found.seeds, found.baseline_seeds, found.method) == (12, 3, 2, 1, "BCa")


def test_organs_of_a_patient_stay_together():
    """Organs that move together widen the interval; organs that cancel within a patient close it."""
    shift = np.linspace(-0.1, 0.1, 15)[:, None]
    base = study(np.full((15, 2), 0.5), "base")
    cancelling = pd.concat([base, study(0.5 + shift * [1, -1])])
    together = pd.concat([base, study(0.5 + shift * [1, 1])])
    narrow = paired_difference(cancelling, "recipe", "base", resamples=499, rng=rng())
    wide = paired_difference(together, "recipe", "base", resamples=499, rng=rng())
    assert narrow.high - narrow.low == pytest.approx(0, abs=1e-12)
    assert wide.high - wide.low > 0.04


def test_interval_agrees_with_the_t_interval_on_normal_data():
    """For one organ and normal differences BCa and t agree within a tenth of the width."""
    values = 0.05 + 0.1 * rng().standard_normal((30, 1))
    table = pd.concat([study(np.full((30, 1), 0.5), "base"), study(0.5 + values)])
    found = paired_difference(table, "recipe", "base", resamples=4999, rng=rng())
    (row,) = organ_summary(study(values)).itertuples()
    assert (found.low, found.high) == (pytest.approx(row.low, abs=0.008), pytest.approx(row.high, abs=0.008))


def test_interval_is_reproducible_from_the_generator():
    """The same generator state gives the same interval."""
    table = pd.concat([study(rng().uniform(size=(8, 2)), "base"), study(rng().uniform(size=(8, 2)) ** 2)])
    first, second = (paired_difference(table, "recipe", "base", resamples=199, rng=rng()) for _ in range(2))
    assert first == second


def test_interval_where_every_patient_gains_the_same():
    """Without spread BCa does not exist; the percentile interval is the point."""
    table = pd.concat([study(np.full((5, 2), 0.5), "base"), study(np.full((5, 2), 0.75))])
    found = paired_difference(table, "recipe", "base", resamples=99, rng=rng())
    assert (found.difference, found.low, found.high, found.method) == (0.25, 0.25, 0.25, "percentile")


def test_one_patient_has_no_interval():
    """A single common patient gives an estimate and no limits."""
    found = paired_difference(pd.concat([study([[0.5]], "base"), study([[0.7]])]), "recipe", "base", rng=rng())
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


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda t: mean_over_organs(t.drop(columns="seed")), r"lacks the columns \['seed'\]"),
        (lambda t: choose_by_validation(t), "no validation case"),
        (lambda t: case_differences(t, "nobody"), "for baseline 'nobody'"),
        (lambda t: case_differences(pd.concat([t, t.assign(profile="gpu")]), "base"), "budgets are not comparable"),
        (lambda t: paired_difference(t, "nobody", "base", rng=rng()), "share no test case"),
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
