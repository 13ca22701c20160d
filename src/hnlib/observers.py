"""What two people agree on who outline the same scan: the reference for what a network can reach.

Everything here works on pairs of outlines of the TCIA set (Nikolov et al. 2018). The unit of sampling is the patient:
two scans of one patient are averaged, or resampled together.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage
from scipy import stats as scipy_stats
from scipy.spatial import KDTree

from hnlib.datasets import TCIA
from hnlib.datasets.tcia import OBSERVERS
from hnlib.metrics import DISTANCES, METRICS, TOLERANCE_SLACK_MM, evaluate_case
from hnlib.organs import organ
from hnlib.preprocess import resample_labels
from hnlib.surfaces import Directed, SurfaceDistances, Vector, surface_distances, voxel_box

Mask = NDArray[np.bool_]

OPENKBP_IN_PLANE = 128
"""Voxels along X and Y of OpenKBP, whose in-plane grid is a scan's own field of view at this size."""

HD95_DEFINITIONS = {
    "hd95_mm": "larger of the two directed percentiles, weighted by area (this library, surface-distance)",
    "hd95_mean_mm": "mean of the two directed percentiles, weighted by area",
    "hd95_pooled_mm": "percentile of both surfaces' distances together, weighted by area",
    "hd95_unweighted_mm": "larger of the two directed percentiles, every surface element counted once",
    "hd95_rim_max_mm": "larger of the two directed percentiles over the voxels of the rim (MONAI's definition)",
    "hd95_rim_mean_mm": "mean of the two directed percentiles over the voxels of the rim, value at place 0.95 n - 1 "
    "rounded down (plastimatch, as the paper used it, by our reading of its code)",
}
"""Definitions in use for what is printed as "HD95"."""

SWAPPED = ("surface_dsc_swapped", "hd95_swapped_mm")
"""The two metrics with the spacing in reverse order of the axes, as in the paper's code."""

Verdict = Literal["supported", "too small", "too large"]


def patient(case: str) -> str:
    """Return the patient of a scan; ``a`` and ``b`` behind a number are two scans of one patient.

    Examples
    --------
    >>> patient("0522c0727b"), patient("TCGA-CV-A6JY")
    ('0522c0727', 'TCGA-CV-A6JY')
    """
    return re.sub(r"(?<=\d)[ab]$", "", case)


def measure_scan(data: TCIA, case: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare the two observers of one scan, on its own grid and on one like OpenKBP's.

    The oncologist's outlines take the place of the reference. An organ enters where both outlined it.

    Returns
    -------
    tuple of pandas.DataFrame
        Metrics (``grid``, ``case``, ``organ``, ``metric``, ``value``), where ``outlined_by_one`` counts an organ that
        one observer left out, and ``lost`` one that the coarse grid has lost; and distances (``case``, ``organ``,
        ``distance_mm``, ``area_mm2``): the area of both surfaces by distance, rounded to 0.01 mm, on the own grid.
    """
    (one, found), (two, again) = (data.load_labels(case, observer) for observer in OBSERVERS)
    both = [name for name in data.organs if name in found & again]
    metrics = [_rows(name, {"outlined_by_one": 1.0}).assign(grid="native") for name in sorted(found ^ again)]
    shape, spacing = one.array.shape, one.spacing_mm
    coarse_shape = (OPENKBP_IN_PLANE, OPENKBP_IN_PLANE, shape[2])
    coarse = [resample_labels(labels, coarse_shape, len(data.organs) + 1) for labels in (one.array, two.array)]
    edges = [edge * old / new for edge, old, new in zip(spacing, shape, coarse_shape, strict=True)]
    box = voxel_box(one.array | two.array)  # organs fill a small part of a scan
    maps = (one.array[box], two.array[box])
    metrics.append(_measure(maps, spacing, data.organs, both).assign(grid="native"))
    kept = [name for name in both if all((labels == data.organs.index(name) + 1).any() for labels in coarse)]
    lost = [_rows(name, {"lost": float(name not in kept)}) for name in both]
    found_coarse = _measure((coarse[0], coarse[1]), (edges[0], edges[1], edges[2]), data.organs, kept)
    metrics.append(pd.concat([found_coarse, *lost]).assign(grid="openkbp"))
    distances = [_binned(*maps, data.organs.index(name) + 1, spacing, name) for name in both]
    return (
        pd.concat(metrics, ignore_index=True).assign(case=case)[["grid", "case", "organ", "metric", "value"]],
        pd.concat(distances, ignore_index=True).assign(case=case)[["case", "organ", "distance_mm", "area_mm2"]],
    )


def _rows(name: str, values: dict[str, float]) -> pd.DataFrame:
    return pd.DataFrame({"organ": name, "metric": list(values), "value": list(values.values())})


def _measure(
    maps: tuple[NDArray[np.integer], NDArray[np.integer]], spacing: Vector, organs: Sequence[str], both: Sequence[str]
) -> pd.DataFrame:
    table = evaluate_case(*maps, spacing_mm=spacing, organs=organs, labelled=both, metrics=METRICS + DISTANCES)
    tables = [table]
    for name in both:
        masks = _cropped(*maps, organs.index(name) + 1)
        tables.append(_rows(name, other_definitions(*masks, spacing, organ(name).tolerance_mm)))
    return pd.concat(tables, ignore_index=True)


def _cropped(one: NDArray[np.integer], two: NDArray[np.integer], value: int) -> tuple[Mask, Mask]:
    box = voxel_box((one == value) | (two == value))
    assert box is not None, "both observers outlined the organ"
    return one[box] == value, two[box] == value


def other_definitions(one: Mask, two: Mask, spacing_mm: Vector, tolerance_mm: float) -> dict[str, float]:
    """Return HD95 under the definitions that `hnlib.metrics` does not have, and the two metrics with swapped axes."""
    found = surface_distances(one, two, spacing_mm)
    swapped = surface_distances(one, two, (spacing_mm[2], spacing_mm[1], spacing_mm[0]))
    rims = _rim_distances(one, two, spacing_mm)
    return {
        "hd95_pooled_mm": found.hd_mm(95.0, of="pooled"),
        "hd95_unweighted_mm": _unweighted(found).hd_mm(95.0),
        "hd95_rim_max_mm": max(float(np.percentile(d, 95)) for d in rims),
        "hd95_rim_mean_mm": float(np.mean([np.sort(d)[max(0, int(0.95 * d.size - 1))] for d in rims])),
        "surface_dsc_swapped": swapped.surface_dsc(tolerance_mm + TOLERANCE_SLACK_MM),
        "hd95_swapped_mm": swapped.hd_mm(95.0),
    }


def _unweighted(found: SurfaceDistances) -> SurfaceDistances:
    there, back = (
        Directed(one.distance_mm, np.ones_like(one.area_mm2)) for one in (found.from_reference, found.from_prediction)
    )
    return SurfaceDistances(there, back)


def _rim_distances(one: Mask, two: Mask, spacing_mm: Vector) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return, both ways, the distances between voxels of the masks that touch the outside with a face."""
    rims = [np.argwhere(mask & ~ndimage.binary_erosion(mask)) * np.asarray(spacing_mm) for mask in (one, two)]
    return np.asarray(KDTree(rims[1]).query(rims[0])[0]), np.asarray(KDTree(rims[0]).query(rims[1])[0])


def _binned(
    one: NDArray[np.integer], two: NDArray[np.integer], value: int, spacing_mm: Vector, name: str
) -> pd.DataFrame:
    found = surface_distances(*_cropped(one, two, value), spacing_mm)
    sides = (found.from_reference, found.from_prediction)
    distance = np.round(np.concatenate([side.distance_mm for side in sides]), 2)
    table = pd.DataFrame({"distance_mm": distance, "area_mm2": np.concatenate([side.area_mm2 for side in sides])})
    return table.groupby("distance_mm")["area_mm2"].sum().reset_index().assign(organ=name)


# From rows of `measure_scan` to tables over patients. `splits` says which scans form a group, such as all or test.


def agreement(pairs: pd.DataFrame, *, rng: np.random.Generator) -> pd.DataFrame:
    """Summarise the agreement of the observers by organ.

    Parameters
    ----------
    pairs
        ``grid``, ``case``, ``organ``, ``metric``, ``value``.
    rng
        Source of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        ``grid``, ``organ``, ``metric``, ``mean``, ``sd`` over patients, ``low``, ``high`` (95 %), ``method`` (``BCa``;
        ``percentile`` where that does not exist; ``none``), ``patients``, ``scans``. For ``lost`` the mean is a
        share of patients; ``outlined_by_one`` has a row where that happened, in ``scans`` many.
    """
    rows = []
    for (grid, name, metric), found in pairs.groupby(["grid", "organ", "metric"], sort=False):
        values = by_patient(found)
        low, high, method = mean_interval(values, rng)
        row = {"grid": grid, "organ": name, "metric": metric, "mean": _mean(values), "sd": _sd(values)}
        rows.append({**row, "low": low, "high": high, "method": method, "patients": len(values), "scans": len(found)})
    return pd.DataFrame(rows)


def by_patient(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Return the mean value of each patient, in order of their names; empty values are left out."""
    found = rows.dropna(subset="value")
    return found.groupby(found["case"].map(patient))["value"].mean().to_numpy(dtype=np.float64)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _sd(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def mean_interval(
    values: NDArray[np.float64], rng: np.random.Generator, *, resamples: int = 9999
) -> tuple[float, float, str]:
    """Return the 95 % bootstrap interval of a mean over patients and its method: BCa where that exists (Efron 1987).

    Equal values have no BCa interval; theirs is the value itself. One value has none.
    """
    if len(values) < 2:
        return float("nan"), float("nan"), "none"
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0]), "percentile"
    with warnings.catch_warnings():
        # With very few patients BCa may not exist; the percentile interval then follows.
        warnings.simplefilter("ignore", scipy_stats.DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        for method in ("BCa", "percentile"):
            interval = scipy_stats.bootstrap(
                (values,), np.mean, n_resamples=resamples, method=method, rng=rng, vectorized=True
            ).confidence_interval
            if np.isfinite(interval.low) and np.isfinite(interval.high):
                break
    return float(interval.low), float(interval.high), method


def tolerances(distances: pd.DataFrame, *, rng: np.random.Generator, resamples: int = 4999) -> pd.DataFrame:
    """Derive the tolerance of surface Dice by organ, and judge the published one by it.

    Parameters
    ----------
    distances
        ``case``, ``organ``, ``distance_mm``, ``area_mm2`` of `measure_scan`.

    Returns
    -------
    pandas.DataFrame
        ``organ``, ``p95_mm`` with ``low`` and ``high``: the 95th percentile of the distances between the observers,
        all scans pooled by area; ``published_mm`` and ``source``; ``within``, the share of the surfaces' area that
        the published value covers, with ``within_low`` and ``within_high``; ``verdict``; ``patients``, ``scans``.

    Notes
    -----
    By its definition (Nikolov et al. 2018) a tolerance covers 95 % of the area. It is ``supported`` where the interval
    of the share that it covers holds 0.95, or that of the percentile holds it: distances move in steps of a voxel, so
    that the least one that covers 95 % may cover more. Else it is ``too small`` or ``too large``.
    Intervals: 95 % percentile bootstrap over patients.
    """
    rows = []
    for name, found in distances.groupby("organ", sort=False):
        area = found.assign(patient=found["case"].map(patient)).pivot_table(
            index="patient", columns="distance_mm", values="area_mm2", aggfunc="sum", fill_value=0.0
        )
        look, number = organ(str(name)), len(area)
        draws = np.vstack([np.ones(number), rng.multinomial(number, np.full(number, 1 / number), size=resamples)])
        upto = np.cumsum(draws @ area.to_numpy(), axis=1)
        upto /= upto[:, -1:]
        steps = area.columns.to_numpy(dtype=np.float64)
        p95 = steps[(upto < 0.95).sum(axis=1)]
        covered = int(np.searchsorted(steps, look.tolerance_mm + TOLERANCE_SLACK_MM, side="right"))
        within = upto[:, covered - 1] if covered else np.zeros(len(upto))
        limits = [np.percentile(part[1:], (2.5, 97.5)) if number > 1 else (np.nan, np.nan) for part in (p95, within)]
        verdict = _verdict(look.tolerance_mm, [float(v) for v in limits[0]], [float(v) for v in limits[1]])
        row = {"organ": name, "p95_mm": p95[0], "low": limits[0][0], "high": limits[0][1]}
        row |= {"published_mm": look.tolerance_mm, "source": look.tolerance_source, "within": within[0]}
        row |= {"within_low": limits[1][0], "within_high": limits[1][1], "verdict": verdict}
        rows.append({**row, "patients": number, "scans": found["case"].nunique()})
    return pd.DataFrame(rows)


def _verdict(tolerance_mm: float, p95: Sequence[float], within: Sequence[float]) -> Verdict | Literal["not defined"]:
    if np.isnan(within[0]):
        return "not defined"
    if within[0] <= 0.95 <= within[1] or p95[0] <= tolerance_mm <= p95[1]:
        return "supported"
    return "too small" if within[1] < 0.95 else "too large"


def swapped_axes(pairs: pd.DataFrame, *, rng: np.random.Generator) -> pd.DataFrame:
    """Measure what the spacing in reverse order of the axes does to the same pairs of outlines.

    Returns
    -------
    pandas.DataFrame
        ``organ``, ``metric``, ``right`` and ``swapped`` means over patients, ``difference`` (swapped minus right) with
        ``low`` and ``high`` (95 %), ``largest``, the difference of one scan that is farthest from 0, and ``patients``.
    """
    native = pairs[pairs["grid"] == "native"]
    rows = []
    for metric, other in zip(("surface_dsc", "hd95_mm"), SWAPPED, strict=True):
        wide = native[native["metric"].isin([metric, other])].pivot(
            index=["organ", "case"], columns="metric", values="value"
        )
        for name in native["organ"].unique():
            if name not in wide.index.get_level_values("organ"):
                continue
            found = wide.loc[name].dropna()
            change = found[other] - found[metric]
            values = [by_patient(one.rename("value").reset_index()) for one in (found[metric], found[other], change)]
            low, high, _ = mean_interval(values[2], rng)
            row = {"organ": name, "metric": metric, "right": values[0].mean(), "swapped": values[1].mean()}
            row |= {"difference": values[2].mean(), "low": low, "high": high}
            rows.append({**row, "largest": change.loc[change.abs().idxmax()], "patients": len(values[2])})
    return pd.DataFrame(rows)
