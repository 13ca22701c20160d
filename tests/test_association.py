"""Rank correlation of measures with results: a planted order is found, and where there is none, none is claimed."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from hnlib.stats import ALL_ORGANS, COLUMNS, pair_agreement, rank_correlations

CONFIGURATIONS = [f"c{k}" for k in range(9)]
ORGANS = ("brainstem", "mandible")


def simulated(
    means: NDArray[np.float64], rng: np.random.Generator, *, seeds: int = 3, cases: int = 20, noise: float = 0.02
) -> pd.DataFrame:
    """Rows of metrics with these means (configurations, organs): patients differ, and so do single results."""
    patient = rng.normal(0, 0.05, (cases, means.shape[1]))
    run = rng.normal(0, noise / 2, (len(means), seeds))
    rows = []
    for (e, name), s, c, (o, organ) in product(
        enumerate(CONFIGURATIONS[: len(means)]), range(seeds), range(cases), enumerate(ORGANS[: means.shape[1]])
    ):
        value = means[e, o] + patient[c, o] + run[e, s] + rng.normal(0, noise)
        rows.append(("p", name, s, "test", f"case_{c}", organ, "dsc", value))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def measure(
    values: NDArray[np.float64], name: str = "m", organ: str = ALL_ORGANS, *, higher: bool = True
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "measure": name,
            "experiment": CONFIGURATIONS[: len(values)],
            "organ": organ,
            "value": values,
            "higher_is_better": higher,
        }
    )


def test_a_planted_order_is_found_whichever_way_the_measure_points() -> None:
    """DSC rises with the measure from 0.5 to 0.9; the same measure turned over, and called so, says the same."""
    steps = np.linspace(0.5, 0.9, 9)
    rows = simulated(np.column_stack([steps, steps]), np.random.default_rng(1))
    both = pd.concat([measure(steps**3, "up"), measure(-steps, "down", higher=False), measure(-steps, "wrong")])
    table = rank_correlations(rows, both, resamples=200, rng=np.random.default_rng(2)).set_index(["measure", "organ"])
    for name, sign in (("up", 1), ("down", 1), ("wrong", -1)):
        found = table.loc[(name, ALL_ORGANS)]
        assert found["rho"] == pytest.approx(sign)
        assert sign * found["low"] > 0.9
        assert sign * found["high"] > 0.9
        assert found["p"] < 0.001
        assert found["p_holm"] < 0.005
        assert found[["configurations", "seeds", "cases"]].tolist() == [9, 3, 20]
        assert np.isnan(table.loc[(name, "mandible"), "p"])


def test_intervals_cover_zero_where_there_is_nothing_to_find() -> None:
    """Sixty studies of configurations that are alike: intervals leave 0 out, and p is below 0.05, about once in 20."""
    covered, surprising = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rows = simulated(np.full((9, 1), 0.7), rng, seeds=2, cases=8, noise=0.1)
        table = rank_correlations(rows, measure(rng.random(9)), resamples=200, permutations=199, rng=rng)
        found = table[table["organ"] == ALL_ORGANS].iloc[0]
        covered.append(found["low"] <= 0 <= found["high"])
        surprising.append(found["p"] < 0.05)
    assert np.mean(covered) >= 0.85
    assert np.mean(surprising) <= 0.12


def test_rho_is_spearmans_of_the_means_and_its_mean_over_organs() -> None:
    """Beside SciPy on the means over seeds and cases, ties in the measure included."""
    rng = np.random.default_rng(3)
    rows = simulated(rng.random((9, 2)), rng)
    values = np.array([1, 1, 2, 2, 3, 3, 4, 5, 6.0])
    table = rank_correlations(rows, measure(values), resamples=50, permutations=99, rng=rng).set_index("organ")
    means = rows.groupby(["experiment", "organ"])["value"].mean().unstack()
    expected = [spearmanr(values, means[organ]).statistic for organ in ORGANS]
    assert table.loc[list(ORGANS), "rho"].tolist() == pytest.approx(expected)
    assert table.loc[ALL_ORGANS, "rho"] == pytest.approx(np.mean(expected))


def test_an_organ_may_have_a_measure_of_its_own_and_seeds_may_be_unfinished() -> None:
    """One organ rises with its own values, the other falls with the same; two configurations have one seed of three."""
    steps = np.linspace(0.5, 0.9, 9)
    rows = simulated(np.column_stack([steps, steps]), np.random.default_rng(4), noise=1e-6)
    rows = rows[~(rows["experiment"].isin(["c3", "c7"]) & (rows["seed"] > 0))]
    own = pd.concat([measure(steps, organ="brainstem"), measure(-steps, organ="mandible")])
    table = rank_correlations(rows, own, resamples=50, permutations=99, rng=np.random.default_rng(0)).set_index("organ")
    assert table["rho"].to_dict() == pytest.approx({"brainstem": 1, "mandible": -1, ALL_ORGANS: 0})


def test_fewer_misses_are_better_and_an_organ_that_nobody_misses_has_no_order() -> None:
    rows = simulated(np.zeros((9, 2)), np.random.default_rng(5), seeds=1, cases=10)
    number, configuration = rows["case"].str[5:].astype(int), rows["experiment"].str[1:].astype(int)
    missed = ((rows["organ"] == "brainstem") & (number < 9 - configuration)).astype(float)
    rows = rows.assign(metric="missed", value=missed)
    table = rank_correlations(
        rows, measure(np.arange(9.0)), metric="missed", resamples=50, permutations=99, rng=np.random.default_rng(0)
    ).set_index("organ")
    assert table.loc[["brainstem", ALL_ORGANS], "rho"].tolist() == pytest.approx([1, 1])
    assert np.isnan(table.loc["mandible", ["rho", "low", "high"]].astype(float)).all()


def test_an_order_that_hangs_on_one_patient_is_not_shown() -> None:
    """One of ten patients carries all misses: of the samples 0.9^10 = 35 % lack that patient and have no order."""
    rows = simulated(np.zeros((9, 1)), np.random.default_rng(5), seeds=1, cases=10)
    configuration = rows["experiment"].str[1:].astype(int)
    missed = ((rows["case"] == "case_0") & (configuration < 4)).astype(float)
    table = rank_correlations(
        rows.assign(metric="missed", value=missed),
        measure(np.arange(9.0)),
        metric="missed",
        permutations=99,
        rng=np.random.default_rng(0),
    ).set_index("organ")
    for organ in ("brainstem", ALL_ORGANS):
        assert table.loc[organ, "rho"] > 0.8
        assert table.loc[organ, "low"] == 0


@pytest.mark.parametrize("number", [0, 1, 3])
def test_too_few_configurations_have_no_correlation(number: int) -> None:
    """With the runs that are in: rows without numbers, and how many configurations there are."""
    rows = simulated(np.full((number, 2), 0.5), np.random.default_rng(0))
    table = rank_correlations(rows, measure(np.arange(9.0)), rng=np.random.default_rng(0))
    assert table[["rho", "low", "high", "p"]].isna().all(axis=None)
    assert set(table["configurations"]) == {number}
    assert ALL_ORGANS in set(table["organ"])


def test_a_configuration_without_a_measure_is_told() -> None:
    rows = simulated(np.full((5, 1), 0.5), np.random.default_rng(0))
    with pytest.raises(ValueError, match="measure m has no value for configuration c4"):
        rank_correlations(rows, measure(np.arange(4.0)), rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="measure m has no value for organ brainstem"):
        rank_correlations(rows, measure(np.arange(5.0), organ="larynx"), rng=np.random.default_rng(0))
    one = measure(np.array([0.0, 1, 2, 3, np.nan]), organ="brainstem")
    with pytest.raises(ValueError, match="measure m has no value for configuration c4, organ brainstem"):
        rank_correlations(rows, one, rng=np.random.default_rng(0))
    mixed = pd.concat([rows, rows.assign(profile="q")])
    with pytest.raises(ValueError, match="the rows hold the profiles"):
        rank_correlations(mixed, measure(np.arange(5.0)), rng=np.random.default_rng(0))


def test_pairs_within_a_group_are_counted_by_hand() -> None:
    """Means 1, 2, 3, 4 in groups a, a, b, b: the measure has the first pair right, the second not; equal is no pair."""
    rows = simulated(np.array([[1.0], [2], [3], [4]]), np.random.default_rng(0), noise=1e-9)
    groups = pd.Series(["a", "a", "b", "b"], index=CONFIGURATIONS[:4])
    several = pd.concat([measure(np.array([1.0, 2, 9, 8])), measure(np.array([5.0, 5, 1, 2]), "tied")])
    found = pair_agreement(rows, several, groups).set_index("measure")
    assert found.loc["m"].tolist() == [1, 2]
    assert found.loc["tied"].tolist() == [1, 1]


def test_a_pair_without_a_result_is_no_pair() -> None:
    """Of three configurations of one group the last has no result: one pair is left, and it is right."""
    rows = simulated(np.array([[1.0], [2], [3]]), np.random.default_rng(0), noise=1e-9)
    rows.loc[rows["experiment"] == "c2", "value"] = np.nan
    groups = pd.Series("a", index=CONFIGURATIONS[:3])
    assert pair_agreement(rows, measure(np.arange(3.0)), groups)[["right", "pairs"]].to_numpy().tolist() == [[1, 1]]
