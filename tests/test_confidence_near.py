"""Margins, strata by distance to the surface, calibration: by hand, in closed form, and what a run keeps of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hnlib.confidence import (
    DEPTHS_MM,
    NEAR_TABLES,
    Near,
    calibration_bins,
    calibration_error,
    case_drifts,
    case_tables,
    drift,
    look_near,
    organ_margin,
    run_tables,
    summarise_depths,
    summarise_near,
)

ORGANS = ("mandible", "larynx")


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=0))
    return powers / powers.sum(axis=0)


def row_of_voxels() -> tuple[np.ndarray, np.ndarray]:
    """Twelve voxels in a row: 4..9 mandible; its probability is 0.9 there but 0.3 at voxel 9, else 0.1."""
    labels = np.zeros((12, 1, 1), np.uint8)
    labels[4:10] = 1
    mandible = np.where(labels == 1, 0.9, 0.1)
    mandible[9] = 0.3
    return np.stack([1 - mandible, mandible, 0 * mandible]).astype(np.float32), labels


def test_the_margin_is_the_difference_of_logits_for_any_number_of_classes() -> None:
    """Softmax loses the common shift of the logits and nothing else."""
    logits = np.random.default_rng(0).normal(scale=3, size=(5, 40))
    for value in range(5):
        others = np.delete(logits, value, axis=0).max(axis=0)
        np.testing.assert_allclose(organ_margin(softmax(logits), value), logits[value] - others, rtol=1e-5, atol=1e-5)


def test_the_decision_boundary_is_where_the_margin_is_0() -> None:
    """The class with the highest probability has the one positive margin; nothing is infinite."""
    probabilities = softmax(np.random.default_rng(1).normal(size=(4, 50)))
    marked = np.stack([organ_margin(probabilities, value) > 0 for value in range(4)])
    np.testing.assert_array_equal(marked.argmax(axis=0), probabilities.argmax(axis=0))
    assert (marked.sum(axis=0) == 1).all()
    certain = np.array([[1.0], [0.0]], np.float32)
    assert [float(organ_margin(certain, value)[0]) for value in (0, 1)] == pytest.approx([69.08, -69.08], abs=0.01)


def test_depth_is_counted_in_mm_from_the_other_side_of_the_surface() -> None:
    """Voxels of 4 mm: outside 8 and 4 mm (12 is out of reach), inside 4, 8, 12, 12, 8, 4."""
    probabilities, labels = row_of_voxels()
    near = look_near(probabilities, labels, 1, (4.0, 1.0, 1.0))
    assert near.depth_mm.tolist() == [-8, -4, 4, 8, 12, 12, 8, 4, -4, -8]
    assert near.inside.tolist() == [False] * 2 + [True] * 6 + [False] * 2
    assert look_near(probabilities, labels, 2, (4.0, 1.0, 1.0)) is None


def test_strata_by_hand() -> None:
    """The rim holds p 0.9 and 0.3, one of them wrong; 5 to 10 mm deep 0.9 twice; deeper 0.9 twice; outside 0.1."""
    table = summarise_depths(look_near(*row_of_voxels(), 1, (4.0, 1.0, 1.0))).set_index("depth_mm")
    assert tuple(table.index) == DEPTHS_MM
    assert table["voxels"].tolist() == [2, 2, 2, 2, 2]
    assert table["probability"].tolist() == pytest.approx([0.1, 0.1, 0.6, 0.9, 0.9])
    assert table["wrong_fraction"].tolist() == [0, 0, 0.5, 0, 0]
    high, low = np.log(0.9 / 0.1), np.log(0.3 / 0.7)
    assert table["margin"].tolist() == pytest.approx([-high, -high, (high + low) / 2, high, high], rel=1e-5)


def test_a_distance_on_a_limit_counts_with_the_voxels_nearer_to_the_surface() -> None:
    """Slices of 2.5 mm: two of them are 5 mm, four are 10 mm, inside and outside alike."""
    labels = np.zeros((20, 1, 1), np.uint8)
    labels[6:15] = 1
    table = summarise_depths(look_near(np.full((2, 20, 1, 1), 0.5, np.float32), labels, 1, (2.5, 9.0, 9.0)))
    assert table.set_index("depth_mm")["voxels"].to_dict() == {-10: 4, -5: 4, 0: 4, 5: 4, 10: 1}
    assert table["wrong_fraction"].eq(0).all()  # on the boundary is on no side


def test_an_organ_that_fills_the_scan_has_no_surface_and_is_deep() -> None:
    labels = np.ones((3, 3, 3), np.uint8)
    table = summarise_depths(look_near(np.full((2, 3, 3, 3), 0.5, np.float32), labels, 1, (1.0, 1.0, 1.0)))
    assert table[["depth_mm", "voxels"]].to_numpy().tolist() == [[10, 27]]


def near_of(probability: np.ndarray, inside: np.ndarray) -> Near:
    return Near(probability.astype(np.float32), np.zeros(len(inside), np.float32), inside, np.where(inside, 4.0, -4.0))


def test_calibration_by_hand() -> None:
    """Two bins: 0.2 on four voxels of which two are organ, 1.0 on one that is: ECE 4/5 x 0.3, Brier 4 x 0.17 / 5."""
    near = near_of(np.array([0.2, 0.2, 0.2, 0.2, 1.0]), np.array([True, True, False, False, True]))
    bins = calibration_bins(near)
    assert bins["bin"].tolist() == [2, 9]
    assert bins["voxels"].tolist() == [4, 1]
    assert bins["organ_fraction"].tolist() == [0.5, 1.0]
    assert calibration_error(bins) == pytest.approx(0.24)
    found = summarise_near(near)
    assert found["ece"] == pytest.approx(0.24)
    assert found["brier"] == pytest.approx((2 * 0.8**2 + 2 * 0.2**2) / 5)


def test_a_predictor_that_knows_the_odds_is_calibrated_and_an_overconfident_one_is_not() -> None:
    """Organ with probability p: ECE near 0 and Brier near mean p (1 - p); pushed to the ends, the ECE is its push."""
    rng = np.random.default_rng(2)
    p = rng.uniform(size=200_000)
    inside = rng.uniform(size=p.size) < p
    honest, bold = (summarise_near(near_of(values, inside)) for values in (p, np.where(p > 0.5, 1.0, 0.0)))
    assert honest["ece"] < 0.005
    assert honest["brier"] == pytest.approx(1 / 6, abs=0.003)
    assert bold["ece"] == pytest.approx(0.25, abs=0.005)
    assert bold["brier"] > honest["brier"]
    sure = summarise_near(near_of(inside.astype(float), inside))
    assert (sure["ece"], sure["brier"]) == (0, 0)


def run_rows() -> pd.DataFrame:
    """Two training cases and one test case on a small grid; nobody outlined the larynx in the second."""
    rng = np.random.default_rng(4)
    tables = []
    both = set(ORGANS)
    for split, case, labelled in (("train", "a", both), ("train", "b", {"mandible"}), ("test", "c", both)):
        labels = np.zeros((9, 9, 9), np.uint8)
        labels[2:6, 2:6, 2:6], labels[7, 7, 7] = 1, 2
        probabilities = softmax(rng.normal(size=(3, 9, 9, 9))).astype(np.float32)
        rows = pd.concat(case_tables(probabilities, labels, ORGANS, labelled, (4.0, 4.0, 3.0)), ignore_index=True)
        tables.append(rows.assign(split=split, case=case))
    return pd.concat(tables)


def test_a_run_keeps_means_by_stratum_and_pooled_bins() -> None:
    rows = run_rows()
    tables = run_tables(rows)
    assert {name: tuple(tables[name].columns) for name in NEAR_TABLES} == dict(NEAR_TABLES)
    confidence = tables["confidence"].set_index(["case", "organ"])
    assert (("b", "larynx") in confidence.index, len(confidence)) == (False, 5)
    margins = tables["confidence_margins"].set_index(["split", "organ", "depth_mm"])
    rim = rows[(rows["table"] == "margins") & (rows["organ"] == "mandible") & (rows["depth_mm"] == 0)]
    train = rim[rim["split"] == "train"]
    found = margins.loc[("train", "mandible", 0.0)]
    assert (found["cases"], found["voxels"]) == (2, train["voxels"].sum())
    assert found["margin"] == pytest.approx(train["margin"].mean(), abs=1e-4)
    assert found["margin_sd"] == pytest.approx(train["margin"].std(), abs=1e-4)
    assert np.isnan(margins.loc[("test", "larynx", 0.0), "margin_sd"])
    bins = tables["calibration"]
    whole = bins[(bins["split"] == "train") & (bins["organ"] == "mandible")]
    parts = rows[(rows["table"] == "calibration") & (rows["organ"] == "mandible") & (rows["split"] == "train")]
    assert whole["voxels"].sum() == parts["voxels"].sum()
    assert np.average(whole["probability"], weights=whole["voxels"]) == pytest.approx(
        np.average(parts["probability"].astype(float), weights=parts["voxels"].astype(float)), abs=1e-4
    )


def test_the_mean_of_the_strata_is_the_mean_of_the_organ() -> None:
    """Inside, margins weighted by voxels give the margin of the whole organ, and the wrong voxels add up."""
    rows = run_rows().query("case == 'c' and organ == 'mandible'")
    inside = rows[(rows["table"] == "margins") & (rows["depth_mm"] >= 0)]
    summary = rows[rows["table"] == "confidence"].iloc[0]
    for measure in ("margin", "wrong_fraction"):
        assert np.average(inside[measure], weights=inside["voxels"].astype(float)) == pytest.approx(summary[measure])


def test_a_run_that_was_measured_in_part_before_has_the_old_tables_alone() -> None:
    rows = run_rows()
    older = rows[~(rows["case"].eq("a") & rows["table"].isin(["margins", "calibration"]))]
    tables = run_tables(older)
    assert set(tables) == {"confidence", "confidence_quantiles"}
    assert "margin" not in tables["confidence"]


def test_an_organ_lost_in_resampling_has_no_margin() -> None:
    labels = np.zeros((4, 4, 4), np.uint8)
    tables = case_tables(np.full((3, 4, 4, 4), 1 / 3, np.float32), labels, ORGANS, set(ORGANS), (1.0, 1.0, 1.0))
    assert tables[0][["margin", "wrong_fraction", "ece", "brier"]].isna().all(axis=None)
    assert sum(map(len, tables[1:])) == 0


def drift_rows() -> pd.DataFrame:
    rows = [("train", "a", 0.9), ("train", "b", 0.7), ("validation", "v", 0.75), ("test", "c", 0.6), ("test", "d", 0.9)]
    table = pd.DataFrame(rows, columns=["split", "case", "margin"])
    return table.assign(profile="laptop", experiment="recipe", seed=0, organ="larynx")


def test_the_drift_of_a_case_is_signed_and_their_mean_is_that_of_the_run() -> None:
    """Training mean 0.8: +0.05 for v, +0.2 for c, -0.1 for d; the run drifts by 0.05."""
    cases = case_drifts(drift_rows(), ["margin"]).set_index("case")["drift"]
    assert cases.to_dict() == pytest.approx({"v": 0.05, "c": 0.2, "d": -0.1})
    (row,) = drift(drift_rows(), ["margin"]).itertuples()
    assert row.margin_drift == pytest.approx(cases[["c", "d"]].mean())
    assert (row.margin_validation, row.cases_validation) == (0.75, 1)
    assert case_drifts(drift_rows().query("split != 'train'"), ["margin"])["drift"].isna().all()
