"""Confidence of the true class: worked by hand, and the identity with soft Dice."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hnlib.confidence import POOLED_QUANTILES, drift, quantile_table, summarise, true_class_probabilities

ORGANS = ("mandible", "larynx")


def volume():
    """Six voxels in a row: two of mandible, one of larynx, three of background."""
    labels = np.array([1, 1, 2, 0, 0, 0], np.uint8).reshape(6, 1, 1)
    mandible = [0.8, 0.6, 0.1, 0.2, 0.0, 0.3]
    larynx = [0.1, 0.2, 0.7, 0.0, 0.1, 0.1]
    background = 1 - np.add(mandible, larynx)
    return np.array([background, mandible, larynx]).reshape(3, 6, 1, 1), labels


def test_true_class_probabilities_are_those_on_the_organs_own_voxels():
    """Each organ's channel is read where the label map holds that organ, and nowhere else."""
    found = true_class_probabilities(*volume(), ORGANS, set(ORGANS))
    assert {organ: values.tolist() for organ, values in found.items()} == {
        "mandible": pytest.approx([0.8, 0.6]),
        "larynx": pytest.approx([0.7]),
    }
    assert all(values.dtype == np.float32 for values in found.values())


def test_unlabelled_organ_is_left_out():
    """Nobody knows the true class of an organ that was not outlined."""
    assert list(true_class_probabilities(*volume(), ORGANS, {"larynx"})) == ["larynx"]
    assert summarise(*volume(), ORGANS, {"larynx"}).organ.tolist() == ["larynx"]


def test_summary_by_hand():
    """Mandible: p on label voxels 0.8 + 0.6 of a total probability of 2.0."""
    row = summarise(*volume(), ORGANS, set(ORGANS)).set_index("organ").loc["mandible"]
    assert row["voxels"] == 2
    assert row["soft_recall"] == pytest.approx(1.4 / 2)
    assert row["soft_precision"] == pytest.approx(1.4 / 2.0)
    assert row["q50"] == pytest.approx(0.7)
    assert row["q05"] == pytest.approx(0.61)
    assert row["q95"] == pytest.approx(0.79)


def test_soft_dice_is_the_harmonic_mean_of_soft_recall_and_soft_precision():
    """2 R Q / (R + Q) = 2 sum(p g) / (sum(p) + sum(g)), exactly."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 8, 7, 6))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=0)
    labels = rng.integers(0, 3, (8, 7, 6))
    for value, row in enumerate(summarise(probabilities, labels, ORGANS, ORGANS).itertuples(), start=1):
        p, g = probabilities[value], labels == value
        recall, precision = row.soft_recall, row.soft_precision
        soft_dice = 2 * (p * g).sum() / (p.sum() + g.sum())
        assert 2 * recall * precision / (recall + precision) == pytest.approx(soft_dice, rel=1e-6)


def test_organ_lost_in_resampling_has_no_recall():
    """A labelled organ without a voxel on the network's grid: 0 voxels, NaN recall, precision 0."""
    probabilities, labels = volume()
    row = summarise(probabilities, np.where(labels == 2, 0, labels), ORGANS, ORGANS).iloc[1]
    assert row["voxels"] == 0
    assert np.isnan(row["soft_recall"])
    assert np.isnan(row["q50"])
    assert row["soft_precision"] == 0


def test_quantiles_pool_voxels_over_cases():
    """0..999 in two cases of unequal size have the quantiles of 0..999."""
    values = np.random.default_rng(1).permutation(1000) / 999
    table = quantile_table([{"larynx": values[:100]}, {"larynx": values[100:], "mandible": np.array([])}])
    assert table.organ.unique().tolist() == ["larynx"]
    assert table["quantile"].tolist() == list(POOLED_QUANTILES)
    assert (len(POOLED_QUANTILES), POOLED_QUANTILES[0], POOLED_QUANTILES[-1]) == (100, 0.005, 0.995)
    np.testing.assert_allclose(table["value"], POOLED_QUANTILES, atol=1e-9)


def test_mean_of_the_quantiles_is_close_to_the_mean_of_the_voxels():
    """Each of the 100 quantiles stands for 1 % of the voxels."""
    values = np.random.default_rng(2).beta(5, 1, 20_000)
    assert quantile_table([{"larynx": values}])["value"].mean() == pytest.approx(values.mean(), abs=1e-3)


def test_no_case_gives_an_empty_table():
    """Nothing in, nothing out, with the columns in place."""
    assert list(quantile_table([]).columns) == ["organ", "quantile", "value"]


def confidence_rows():
    rows = [
        ("train", "a", 0.90, 0.80),
        ("train", "b", 0.80, 0.60),
        ("validation", "v", 0.10, 0.10),
        ("test", "c", 0.70, 0.75),
    ]
    table = pd.DataFrame(rows, columns=["split", "case", "soft_recall", "soft_precision"])
    return table.assign(profile="laptop", experiment="recipe", seed=0, organ="larynx")


def test_drift_is_train_minus_test_mean_over_cases():
    """(0.9 + 0.8) / 2 - 0.7 and (0.8 + 0.6) / 2 - 0.75; validation plays no part."""
    (row,) = drift(confidence_rows()).itertuples()
    assert row.soft_recall_drift == pytest.approx(0.15)
    assert row.soft_precision_drift == pytest.approx(-0.05)
    assert (row.cases_train, row.cases_test) == (2, 1)


def test_drift_keeps_runs_apart():
    """One row for each profile, experiment, seed and organ."""
    table = pd.concat([confidence_rows(), confidence_rows().assign(seed=1), confidence_rows().assign(organ="mandible")])
    assert drift(table)[["seed", "organ"]].to_numpy().tolist() == [[0, "larynx"], [0, "mandible"], [1, "larynx"]]


def test_drift_without_training_cases_is_unknown():
    """A run that has only test rows so far has no drift."""
    (row,) = drift(confidence_rows().query("split == 'test'")).itertuples()
    assert np.isnan(row.soft_recall_drift)
    assert (row.cases_train, row.soft_recall_test) == (0, 0.7)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda p, g: true_class_probabilities(p[:2], g, ORGANS, ORGANS), "for 2 organs; needed"),
        (lambda p, g: summarise(p, g[:2], ORGANS, ORGANS), "for 2 organs; needed"),
        (lambda p, g: summarise(p, g, ORGANS, {"lens_left"}), "not among organs"),
        (lambda p, g: drift(pd.DataFrame({"seed": [0]})), "lacks the columns"),
    ],
)
def test_arguments_that_do_not_fit_are_named(call, text):
    """Each wrong argument is named in one line."""
    with pytest.raises(ValueError, match=text):
        call(*volume())
