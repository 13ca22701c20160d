"""Statistics by simulation: coverage of intervals, false alarms of the chain of tests and of rankings."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from metricrows import study
from scipy import stats as scipy_stats

from hnlib.stats import (
    compare_experiments,
    gatekept,
    holm,
    paired_difference,
    signed_rank,
)
from hnlib.stats.paired import _bootstrap_patients, _jackknife_t
from hnlib.stats.ranking import _friedman, _pairs


def rng():
    return np.random.default_rng(0)


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
