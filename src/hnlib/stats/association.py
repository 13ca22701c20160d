"""Does a number known before training order configurations as their results do? Rank correlation, with intervals.

The configurations are fixed; patients and seeds are the sample. A correlation over few configurations is easily high by
chance, so that the interval (would other patients and seeds give the same order?) stands beside a test of permutations
(would a measure that knows nothing order these configurations as well?).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from hnlib.stats.tables import lower_is_better, of_one_profile
from hnlib.stats.testing import ALL_ORGANS, holm

Array = NDArray[np.float64]
#: Fewer configurations than these have no order to speak of: three can be in six orders.
LEAST_CONFIGURATIONS = 4


class _Sample(NamedTuple):
    """Results as an array (configurations, seeds, cases, organs), NaN where there is none; more is better."""

    values: Array
    experiments: list[str]
    organs: list[str]


def rank_correlations(
    metrics: pd.DataFrame,
    measures: pd.DataFrame,
    *,
    metric: str = "dsc",
    split: str = "test",
    resamples: int = 2000,
    permutations: int = 9999,
    confidence_level: float = 0.95,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Correlate each measure of the configurations with their results, by rank, organ by organ.

    Parameters
    ----------
    metrics
        Rows of ``metrics.csv`` of one profile.
    measures
        ``measure``, ``experiment``, ``organ``, ``value``, ``higher_is_better``. A measure has one row a configuration
        under `ALL_ORGANS`, which then counts for every organ, or one row a configuration and organ.
    metric, split
        The results.
    resamples, permutations
        Number of bootstrap samples for the interval, and of permutations for the p value (all of them where there are
        fewer).
    confidence_level
        Coverage of the interval in 0..1.
    rng
        Source of both.

    Returns
    -------
    pandas.DataFrame
        One row a measure and organ, and one under `ALL_ORGANS`, the mean of its organs: ``rho``, positive where what
        the measure calls better goes with better results (a higher DSC, fewer misses); ``low`` and ``high``;
        ``configurations``, ``seeds`` (most of any configuration), ``cases``; under `ALL_ORGANS` ``p`` (two-sided) and
        ``p_holm`` over the measures. NaN where a measure or all results are alike, or with fewer than
        `LEAST_CONFIGURATIONS` configurations.

    Raises
    ------
    ValueError
        When the rows hold several profiles, or a configuration lacks a measure.

    Notes
    -----
    Spearman's correlation of the configurations' means over seeds and cases. Percentile bootstrap: cases are drawn
    once for all configurations, since they share them, seeds for each configuration on its own. With one seed a
    configuration is taken as it is, and with two or three the spread over seeds comes out too small. A sample in which
    an organ's results are all alike, such as one without the only patient in whom it is missed, has no order and counts
    as 0; the organs over which the mean is taken stay those that have an order as it is.

    The permutations give the configurations' results to one another, all organs together.
    """
    sample, tables = _sample(metrics, metric, split), _tables(measures)
    rows = []
    enough = len(sample.experiments) >= LEAST_CONFIGURATIONS
    found = _ranked(sample, resamples, rng) if enough else None
    for name, table in tables.items():
        if found is None:
            numbers: list[tuple[Any, ...]] = [(organ, *[np.nan] * 4) for organ in [*sample.organs, ALL_ORGANS]]
        else:
            numbers = _of_measure(
                sample, _measure_ranks(name, table, sample), *found, confidence_level, permutations, rng
            )
        rows += [(name, *row) for row in numbers]
    result = pd.DataFrame(rows, columns=["measure", "organ", "rho", "low", "high", "p"])
    result["p_holm"] = np.nan
    whole = result["organ"] == ALL_ORGANS
    result.loc[whole, "p_holm"] = holm(result.loc[whole, "p"])
    seeds = (~np.isnan(sample.values)).any(axis=(2, 3)).sum(axis=1).max(initial=0)
    return result.assign(
        metric=metric, configurations=len(sample.experiments), seeds=seeds, cases=sample.values.shape[2]
    )


def pair_agreement(metrics: pd.DataFrame, measures: pd.DataFrame, groups: pd.Series[Any], **of: Any) -> pd.DataFrame:
    """Count the pairs of configurations of one group that a measure orders as their results are ordered.

    Parameters
    ----------
    metrics, measures
        As in `rank_correlations`.
    groups
        Group by experiment, such as its patch: pairs across groups are left out.
    of
        ``metric`` and ``split``, as in `rank_correlations`.

    Returns
    -------
    pandas.DataFrame
        ``measure``, ``right`` and ``pairs``: over all pairs and organs; a pair that the measure calls equal, or that
        lacks a result, is no pair.
    """
    sample = _sample(metrics, of.get("metric", "dsc"), of.get("split", "test"))
    if len(sample.experiments) < 2:
        return pd.DataFrame({"measure": list(_tables(measures)), "right": 0, "pairs": 0})
    means = _means(sample.values, *_unweighted(sample.values))[0]
    kind = groups.reindex(sample.experiments).to_numpy()
    first, second = np.triu_indices(len(kind), 1)
    same = kind[first] == kind[second]
    rows = []
    for name, table in _tables(measures).items():
        ranks = _measure_ranks(name, table, sample).T
        expected = np.sign(ranks[first] - ranks[second])[same]
        seen = np.sign(means[first] - means[second])[same]
        rows.append((name, int((expected * seen > 0).sum()), int((np.abs(expected * seen) > 0).sum())))
    return pd.DataFrame(rows, columns=["measure", "right", "pairs"])


def _sample(metrics: pd.DataFrame, metric: str, split: str) -> _Sample:
    used = of_one_profile(metrics, metric, split)
    axes = [list(used[name].unique()) for name in ("experiment", "seed", "case", "organ")]
    series = used.set_index(["experiment", "seed", "case", "organ"])["value"]
    values = series.reindex(pd.MultiIndex.from_product(axes)).to_numpy(np.float64).reshape([len(axis) for axis in axes])
    return _Sample(-values if lower_is_better(metric) else values, axes[0], axes[3])


def _tables(measures: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {str(name): table for name, table in measures.groupby("measure", sort=False)}


def _measure_ranks(name: str, table: pd.DataFrame, sample: _Sample) -> Array:
    """Return the ranks of the configurations by a measure, the best last: (organs, configurations)."""
    sign = np.where(table["higher_is_better"].astype(bool), 1.0, -1.0)
    wide = table.assign(value=sign * table["value"]).pivot(index="organ", columns="experiment", values="value")
    lacking = [experiment for experiment in sample.experiments if experiment not in wide]
    rows = [organ if organ in wide.index else ALL_ORGANS for organ in sample.organs]
    if lacking or not set(rows) <= set(wide.index):
        what = f"configuration {lacking[0]}" if lacking else f"organ {sample.organs[0]} or {ALL_ORGANS}"
        raise ValueError(f"measure {name} has no value for {what}")
    # Rounded, since the last digits of a solver decide nothing.
    values = wide.loc[rows, sample.experiments].to_numpy(np.float64)
    if (unknown := np.argwhere(np.isnan(values))).size:
        organ, experiment = unknown[0]
        raise ValueError(
            f"measure {name} has no value for configuration {sample.experiments[experiment]}, organ {rows[organ]}"
        )
    scale = np.maximum(np.abs(np.where(np.isfinite(values), values, 0.0)).max(axis=1, keepdims=True), 1e-300)
    ranks: Array = scipy_stats.rankdata(np.round(values / scale, 9), axis=1)
    return ranks


def _unweighted(values: Array) -> tuple[Array, Array]:
    return np.ones((1, *values.shape[:2])), np.ones((1, values.shape[2]))


def _means(values: Array, seeds: Array, cases: Array) -> Array:
    """Return means (samples, configurations, organs) for weights of seeds and cases; NaN where nothing is."""
    known = ~np.isnan(values)
    total, weight = (
        np.einsum("bes,bc,esco->beo", seeds, cases, part, optimize=True)
        for part in (np.where(known, values, 0.0), known.astype(np.float64))
    )
    means: Array = np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)
    return means


def _ranked(sample: _Sample, resamples: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return ranks of the results, (1 and samples, organs, configurations): as they are, and resampled."""
    values = sample.values
    has: NDArray[np.bool_] = np.asarray((~np.isnan(values)).any(axis=(2, 3)))
    seeds = np.zeros((resamples, *has.shape))
    for place in range(len(has)):
        row = has[place]
        seeds[:, place, row] = rng.multinomial(row.sum(), np.full(row.sum(), 1 / row.sum()), size=resamples)
    number = values.shape[2]
    cases = rng.multinomial(number, np.full(number, 1 / number), size=resamples).astype(np.float64)
    as_is, drawn = _means(values, *_unweighted(values)), _means(values, seeds, cases)
    whole, parts = (scipy_stats.rankdata(np.round(m, 12), axis=1).swapaxes(1, 2) for m in (as_is, drawn))
    return whole[0], parts


def _of_measure(
    sample: _Sample,
    measure: Array,
    results: Array,
    resampled: Array,
    confidence_level: float,
    permutations: int,
    rng: np.random.Generator,
) -> list[tuple[Any, ...]]:
    """Return (organ, rho, low, high, p) of every organ and of all."""
    rho = _pearson(measure, results)
    drawn = np.where(np.isnan(rho), np.nan, np.nan_to_num(_pearson(measure, resampled)))

    def mean_rho(order: NDArray[np.intp], axis: int = -1) -> Array:
        moved = np.moveaxis(measure[:, np.moveaxis(order, axis, -1)], 0, -2)
        rho_of_order: Array = _mean(_pearson(moved, results))
        return rho_of_order

    p = np.nan
    if not np.isnan(_mean(rho)):
        test = scipy_stats.permutation_test(
            (np.arange(len(sample.experiments)),),
            mean_rho,
            permutation_type="pairings",
            vectorized=True,
            n_resamples=permutations,
            batch=1000,
            rng=rng,
        )
        p = float(test.pvalue)
    rows: list[tuple[Any, ...]] = []
    for organ, value, one in [*zip(sample.organs, rho, drawn.T, strict=True), (ALL_ORGANS, _mean(rho), _mean(drawn))]:
        tail = (1 - confidence_level) / 2
        low, high = np.quantile(one, [tail, 1 - tail])
        rows.append((organ, float(value), float(low), float(high), p if organ == ALL_ORGANS else np.nan))
    return rows


def _pearson(one: Array, other: Array) -> Array:
    """Return the correlation along the last axis; NaN where one of the two is constant."""
    a, b = one - one.mean(axis=-1, keepdims=True), other - other.mean(axis=-1, keepdims=True)
    size = np.sqrt((a**2).sum(axis=-1) * (b**2).sum(axis=-1))
    product: Array = (a * b).sum(axis=-1)
    found: Array = np.divide(product, size, out=np.full(np.broadcast(product, size).shape, np.nan), where=size > 1e-9)
    return found


def _mean(rho: Array) -> Any:
    """Return the mean over organs, those left out whose correlation is not defined."""
    known = ~np.isnan(rho)
    count = known.sum(axis=-1)
    return np.where(count > 0, np.where(known, rho, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)
