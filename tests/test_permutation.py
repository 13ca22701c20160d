"""The permutation test of the drift: by hand, its level by simulation, its power, and what is not defined."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hnlib.stats import ALL_ORGANS, drift_tests

ORGANS = ("brainstem", "mandible", "larynx")


def rows(train: np.ndarray, test: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Rows of one experiment from values of shape (cases, organs); NaN leaves a row out."""
    table = pd.DataFrame(
        [
            ("p", "recipe", seed, split, f"{split}{k}", organ, value)
            for split, values in (("train", train), ("test", test))
            for k, case in enumerate(values)
            for organ, value in zip(ORGANS, case, strict=False)
        ],
        columns=["profile", "experiment", "seed", "split", "case", "organ", "soft_recall"],
    )
    return table.dropna()


def test_three_against_three_by_hand() -> None:
    """Of the 20 ways to split six patients two are as extreme as the one seen: p = 2/20; the drift is 0.6."""
    train, test = np.array([[0.9], [0.8], [0.85]]), np.array([[0.2], [0.3], [0.25]])
    found = drift_tests(rows(train, test), "soft_recall", rng=np.random.default_rng(0)).set_index("organ")
    row = found.loc["brainstem"]
    assert row["drift"] == pytest.approx(0.6)
    assert (row["p"], row["p_together"]) == pytest.approx((0.1, 0.1))
    assert row["low"] < 0.6 < row["high"]
    assert (row["cases_first"], row["cases_second"]) == (3, 3)
    assert found.loc[ALL_ORGANS, "p"] == pytest.approx(0.1)


def test_the_sign_is_first_minus_second_and_seeds_are_averaged() -> None:
    train, test = np.array([[0.5], [0.7]]), np.array([[0.8], [0.9]])
    table = pd.concat([rows(train, test), rows(train - 0.2, test, seed=1)])
    found = drift_tests(table, "soft_recall", rng=np.random.default_rng(0)).set_index("organ")
    assert found.loc["brainstem", "drift"] == pytest.approx(0.5 - 0.85)
    assert found.loc["brainstem", "cases_first"] == 2
    other = drift_tests(table, "soft_recall", rng=np.random.default_rng(0), between=("test", "train"))
    assert other["drift"].to_numpy() == pytest.approx(-found["drift"].to_numpy())


def test_no_more_false_alarms_than_stated_when_the_groups_differ_in_spread() -> None:
    """400 null studies, organs of a patient correlated, one group half as wide: alarms within 5 % and its noise."""
    rng = np.random.default_rng(3)
    alarms = np.zeros(3)
    for _ in range(400):
        patients = rng.normal(size=(24, 1)) + rng.normal(size=(24, 3))
        patients[rng.random((24, 3)) < 0.15] = np.nan
        table = rows(0.5 * patients[:8], patients[8:])
        found = drift_tests(table, "soft_recall", rng=rng, permutations=99).set_index("organ")
        organs = found.drop(ALL_ORGANS)
        alarms += found.loc[ALL_ORGANS, "p"] < 0.05, organs["p_together"].min() < 0.05, organs["p"].min() < 0.05
    together, family, uncorrected = alarms / 400
    most = 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    assert together < most
    assert family < most
    assert uncorrected > family  # three looks without a correction


def test_a_drift_is_found_in_the_organ_that_has_it() -> None:
    rng = np.random.default_rng(1)
    values = 0.05 * rng.normal(size=(46, 3))
    values[:16, 2] += 0.1
    found = drift_tests(rows(values[:16], values[16:]), "soft_recall", rng=rng, permutations=999).set_index("organ")
    assert found.loc["larynx", "p_together"] < 0.01
    assert (found.loc[["brainstem", "mandible"], "p_together"] > 0.05).all()
    assert (found["p_together"].drop(ALL_ORGANS) >= found["p"].drop(ALL_ORGANS)).all()


def test_an_organ_that_a_patient_lacks_does_not_move_the_mean_over_organs() -> None:
    """Larynx has half the confidence of the mandible in both groups and is lacking in test patients: no drift."""
    train = np.array([[0.9, 0.9, 0.4]] * 3)
    test = np.array([[0.9, 0.9, np.nan]] * 2 + [[0.9, 0.9, 0.4]])
    found = drift_tests(rows(train, test), "soft_recall", rng=np.random.default_rng(0)).set_index("organ")
    assert found.loc[ALL_ORGANS, "drift"] == pytest.approx(0)


def test_a_drift_of_all_organs_stays_when_most_test_patients_lack_one() -> None:
    """Both organs fall by 0.2; eight of ten test patients have the first alone."""
    train = np.array([[0.9, 0.5]] * 10)
    test = np.array([[0.7, 0.3]] * 2 + [[0.7, np.nan]] * 8)
    found = drift_tests(rows(train, test), "soft_recall", rng=np.random.default_rng(0)).set_index("organ")
    assert found["drift"].tolist() == pytest.approx([0.2] * 3)


def test_what_is_not_defined_is_nan() -> None:
    """One test patient has a drift but no interval; equal values have no test; an absent split has nothing."""
    one = drift_tests(rows(np.array([[0.9], [0.8]]), np.array([[0.5]])), "soft_recall", rng=np.random.default_rng(0))
    row = one.set_index("organ").loc["brainstem"]
    assert row["drift"] == pytest.approx(0.35)
    assert np.isnan([row["low"], row["p"], row["p_together"]]).all()
    same = drift_tests(rows(np.full((3, 1), 0.5), np.full((3, 1), 0.5)), "soft_recall", rng=np.random.default_rng(0))
    assert same["p"].isna().all()
    assert (same["drift"] == 0).all()
    none = drift_tests(rows(np.zeros((0, 1)), np.eye(3)), "soft_recall", rng=np.random.default_rng(0))
    assert none["drift"].isna().all()
    assert none["cases_first"].eq(0).all()


def test_wrong_tables_are_told() -> None:
    table = rows(np.eye(3), np.eye(3))
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"lacks the columns \['margin'\]"):
        drift_tests(table, "margin", rng=rng)
    with pytest.raises(ValueError, match="hold the profiles"):
        drift_tests(pd.concat([table, table.assign(profile="q")]), "soft_recall", rng=rng)
