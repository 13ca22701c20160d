"""An organ and its surroundings: margins of the logits, strata by distance to the surface, calibration.

Voxels far from an organ are background that no network mistakes; they would swamp every mean. So all that is here
looks at the organ's voxels and at those within ``REACH_MM`` of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from hnlib.surfaces import voxel_box

REACH_MM = 10.0
"""How far outside an organ its surroundings reach."""

DEPTHS_MM = (-10.0, -5.0, 0.0, 5.0, 10.0)
"""Lower ends of the strata: 10 to 5 mm outside, 5 to 0 mm outside, the rim of 5 mm, 5 to 10 mm deep, deeper."""

BINS = 10
"""Equal bins of the probability, from 0 to 1, of a reliability diagram."""

_LOWEST = np.float32(1e-30)
_TIE_MM = 1e-6  # two slices of 2.5 mm are 5 mm on every machine
_Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Near:
    """The voxels of one organ and of its surroundings, flat.

    Attributes
    ----------
    probability
        Softmax probability of the organ, in 0..1.
    margin
        Logit of the organ minus the largest other logit; see `organ_margin`.
    inside
        Whether the label map holds the organ.
    depth_mm
        Distance between voxel centres to the nearest voxel on the other side of the organ's surface: positive
        inside, negative outside.
    """

    probability: _Floats
    margin: _Floats
    inside: NDArray[np.bool_]
    depth_mm: NDArray[np.float64]


def organ_margin(probabilities: NDArray[np.floating], value: int) -> _Floats:
    """Return the logit of a class minus the largest logit of any other class.

    Parameters
    ----------
    probabilities
        Softmax output, shape (C, ...), C of 2 or more.
    value
        The class.

    Returns
    -------
    ndarray
        Shape (...), float32. The network marks the class where the margin is above 0, whatever the number of
        classes. On voxels of another class a margin above 0 is a false mark.

    Notes
    -----
    softmax(z)_k = exp(z_k) / S with the same S for all k, so z_c - max z_k = log p_c - log max p_k exactly. A
    probability below 1e-30 counts as that, so margins end at +-69. Of averaged predictions (mirrored scans) it is
    the margin of the mean probabilities.

    Examples
    --------
    >>> print(organ_margin(np.array([0.2, 0.3, 0.5]).reshape(3, 1), 2).round(3))
    [0.511]
    """
    others = np.delete(probabilities, value, axis=0).max(axis=0)
    ratio = np.log(np.maximum(probabilities[value], _LOWEST)) - np.log(np.maximum(others, _LOWEST))
    return np.asarray(ratio, dtype=np.float32)


def look_near(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], value: int, spacing_mm: Sequence[float]
) -> Near | None:
    """Cut out an organ with its surroundings of ``REACH_MM``.

    Parameters
    ----------
    probabilities
        Softmax output, shape (C, X, Y, Z), in 0..1.
    labels
        Label map on the same grid, shape (X, Y, Z).
    value
        Label of the organ.
    spacing_mm
        Voxel edges along X, Y, Z.

    Returns
    -------
    Near or None
        None where the label map does not hold the organ.

    Notes
    -----
    What lies beyond the scan is not known and is no surface: an organ that the scan cuts off is as deep there as
    the voxels within the scan say.
    """
    mask = labels == value
    box = voxel_box(mask)
    if box is None:
        return None
    steps = [int(np.ceil(REACH_MM / edge)) + 1 for edge in spacing_mm]
    grown = tuple(slice(max(0, part.start - n), part.stop + n) for part, n in zip(box, steps, strict=True))
    mask, found = mask[grown], probabilities[(slice(None), *grown)]
    outward = distance_transform_edt(~mask, sampling=spacing_mm)
    inward = np.full(mask.shape, np.inf) if mask.all() else distance_transform_edt(mask, sampling=spacing_mm)
    chosen = outward <= REACH_MM + _TIE_MM
    return Near(
        probability=np.asarray(found[value][chosen], dtype=np.float32),
        margin=organ_margin(found[:, chosen], value),
        inside=mask[chosen],
        depth_mm=np.where(mask, inward, -outward)[chosen],
    )


def summarise_near(near: Near | None) -> dict[str, float]:
    """Summarise an organ and its surroundings in four numbers.

    Returns
    -------
    dict
        ``margin``, mean over the organ's voxels; ``wrong_fraction``, the share of them on the wrong side of the
        decision boundary; ``ece`` and ``brier`` of the organ's probability over organ and surroundings. All NaN
        without a voxel of the organ.

    Notes
    -----
    Brier score (Brier 1950) of one class: mean of (p - g)^2. The expected calibration error is `calibration_error`
    of this case's own bins: with few voxels chance alone lifts it above 0, so cases of one organ compare, a case and
    a pool do not.
    """
    if near is None:
        return dict.fromkeys(("margin", "wrong_fraction", "ece", "brier"), float("nan"))
    margin = near.margin[near.inside].astype(np.float64)
    gap = near.probability.astype(np.float64) - near.inside
    return {
        "margin": float(margin.mean()),
        "wrong_fraction": float((margin < 0).mean()),
        "ece": calibration_error(calibration_bins(near)),
        "brier": float((gap**2).mean()),
    }


def summarise_depths(near: Near | None) -> pd.DataFrame:
    """Summarise an organ and its surroundings by distance to the surface.

    Returns
    -------
    pandas.DataFrame
        One row for each stratum of ``DEPTHS_MM`` that holds a voxel: ``depth_mm``, its lower end; ``voxels``;
        ``probability`` and ``margin`` of the organ, means; ``wrong_fraction``, the share on the wrong side of the
        decision boundary (inside: margin below 0; outside: above). A distance on a limit counts with the voxels
        nearer to the surface.
    """
    columns = ["depth_mm", "voxels", "probability", "margin", "wrong_fraction"]
    if near is None:
        return pd.DataFrame(columns=columns)
    lowest, rim = np.asarray(DEPTHS_MM), DEPTHS_MM.index(0.0)
    band = np.digitize(np.abs(near.depth_mm) - _TIE_MM, lowest[rim + 1 :], right=True)
    lower = lowest[np.where(near.inside, rim + band, rim - 1 - band)]
    wrong = np.where(near.inside, near.margin < 0, near.margin > 0)
    values = (near.probability, near.margin, wrong)
    table = pd.DataFrame(
        {"depth_mm": lower, **{name: v.astype(np.float64) for name, v in zip(columns[2:], values, strict=True)}}
    )
    means = table.groupby("depth_mm").mean()
    means.insert(0, "voxels", table.groupby("depth_mm").size())
    return means.reset_index()


def calibration_bins(near: Near | None) -> pd.DataFrame:
    """Sort the voxels of an organ and its surroundings into bins of the organ's probability.

    Returns
    -------
    pandas.DataFrame
        One row for each of ``BINS`` equal bins that holds a voxel: ``bin`` from 0; ``voxels``; ``probability``,
        their mean; ``organ_fraction``, the share of them that is the organ. A network is calibrated where the two
        agree.
    """
    columns = ["bin", "voxels", "probability", "organ_fraction"]
    if near is None:
        return pd.DataFrame(columns=columns)
    table = pd.DataFrame(
        {
            "bin": np.minimum((near.probability * BINS).astype(int), BINS - 1),
            "probability": near.probability.astype(np.float64),
            "organ_fraction": near.inside.astype(np.float64),
        }
    )
    means = table.groupby("bin").mean()
    means.insert(0, "voxels", table.groupby("bin").size())
    return means.reset_index()


def calibration_error(bins: pd.DataFrame) -> float:
    """Return the expected calibration error of one class.

    Parameters
    ----------
    bins
        Columns ``voxels``, ``probability``, ``organ_fraction``, as `calibration_bins` returns.

    Returns
    -------
    float
        In 0..1; NaN without a voxel.

    Notes
    -----
    sum_b n_b / N abs(p_b - f_b) over bins of equal width (Naeini et al. 2015), for the probability of one class
    against the rest (class-wise, Nixon et al. 2019).

    Examples
    --------
    >>> calibration_error(pd.DataFrame({"voxels": [3, 1], "probability": [0.1, 0.9], "organ_fraction": [0.0, 1.0]}))
    0.1
    """
    if not bins["voxels"].sum():
        return float("nan")
    gap = (bins["probability"] - bins["organ_fraction"]).abs()
    return float(np.average(gap.to_numpy(), weights=bins["voxels"].to_numpy(dtype=np.float64)))
