"""How sure a network is of the true class, by organ: soft recall, soft precision, quantiles.

The mean softmax probability of an organ over the organ's own voxels is a soft recall: a network that
inflates the organ raises it. The share of the probability mass that lies inside the organ is a soft
precision. The two are reported together, and their harmonic mean is the soft Dice coefficient.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SUMMARY_QUANTILES = {"q05": 0.05, "q25": 0.25, "q50": 0.50, "q75": 0.75, "q95": 0.95}
"""Columns of a summary and the quantile of each."""

POOLED_QUANTILES = tuple((index + 0.5) / 100 for index in range(100))
"""The quantiles of a pooled distribution: 0.005, 0.015, ..., 0.995, each standing for 1 % of the voxels."""


def true_class_probabilities(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    organs: Sequence[str],
    labelled: Collection[str],
) -> dict[str, NDArray[np.float32]]:
    """Return the softmax probability of the true class on the voxels of each organ.

    Parameters
    ----------
    probabilities
        Softmax output, shape (C, X, Y, Z), in 0..1, C = 1 + number of organs, background first.
    labels
        Label map on the same grid, shape (X, Y, Z): ``i + 1`` is ``organs[i]``.
    organs
        Names of the organs in label order.
    labelled
        Organs that were outlined in this case.

    Returns
    -------
    dict
        Organ to a float32 array, one value a voxel of the organ. An organ outside ``labelled`` has no entry;
        an outlined one that resampling has left without a voxel has an empty array.

    Raises
    ------
    ValueError
        When shapes, number of classes or names do not fit together.

    Notes
    -----
    Tappeiner et al. 2022, Figure 2: p_y(v) at every voxel v of true class y, after the softmax, on the
    network's grid and without any filter of components.

    Examples
    --------
    >>> p = np.array([0.9, 0.4, 0.2], np.float32)
    >>> found = true_class_probabilities(
    ...     np.stack([1 - p, p]).reshape(2, 3, 1, 1), np.array([1, 1, 0]).reshape(3, 1, 1),
    ...     ("mandible",), {"mandible"},
    ... )
    >>> found["mandible"].tolist()
    [0.8999999761581421, 0.4000000059604645]
    """
    check_fit(probabilities, labels, organs, labelled)
    return {
        organ: np.asarray(probabilities[value][labels == value], dtype=np.float32)
        for value, organ in enumerate(organs, start=1)
        if organ in labelled
    }


def summarise(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    organs: Sequence[str],
    labelled: Collection[str],
) -> pd.DataFrame:
    """Summarise the confidence of one case by organ.

    Parameters
    ----------
    probabilities, labels, organs, labelled
        As for ``true_class_probabilities``.

    Returns
    -------
    pandas.DataFrame
        One row for each labelled organ: ``organ``, ``voxels`` (of the label map), ``soft_recall``,
        ``soft_precision`` and the quantiles ``q05`` .. ``q95`` of the true-class probability, all in 0..1.
        Without a voxel of the organ, recall and quantiles are NaN; without any probability, precision is.

    Raises
    ------
    ValueError
        When shapes, number of classes or names do not fit together.

    Notes
    -----
    With g = 1 on the organ and p its probability: soft_recall = sum(p g) / sum(g) and
    soft_precision = sum(p g) / sum(p), both over the whole volume given, in float64.
    """
    found = true_class_probabilities(probabilities, labels, organs, labelled)
    rows = []
    for value, organ in enumerate(organs, start=1):
        if organ not in found:
            continue
        inside = found[organ].astype(np.float64)
        mass = float(probabilities[value].sum(dtype=np.float64))
        levels = np.quantile(inside, list(SUMMARY_QUANTILES.values())) if inside.size else np.full(5, np.nan)
        rows.append(
            {
                "organ": organ,
                "voxels": inside.size,
                "soft_recall": inside.mean() if inside.size else np.nan,
                "soft_precision": inside.sum() / mass if mass > 0 else np.nan,
                **dict(zip(SUMMARY_QUANTILES, levels, strict=True)),
            }
        )
    return pd.DataFrame(rows, columns=["organ", "voxels", "soft_recall", "soft_precision", *SUMMARY_QUANTILES])


def quantile_table(values: Iterable[Mapping[str, NDArray[np.floating]]]) -> pd.DataFrame:
    """Pool the voxels of many cases and describe each organ's distribution by 100 quantiles.

    Parameters
    ----------
    values
        One mapping a case, organ to true-class probabilities, as ``true_class_probabilities`` returns.

    Returns
    -------
    pandas.DataFrame
        Columns ``organ``, ``quantile`` (``POOLED_QUANTILES``) and ``value`` in 0..1. An organ without any
        voxel has no rows. A case weighs by its number of voxels, so these describe voxels and say nothing
        about the uncertainty over patients.

    Examples
    --------
    >>> table = quantile_table([{"mandible": np.array([0.0])}, {"mandible": np.array([1.0])}])
    >>> table["value"].iloc[[0, -1]].round(3).tolist()
    [0.005, 0.995]
    """
    pooled: dict[str, list[NDArray[np.floating]]] = {}
    for case in values:
        for organ, found in case.items():
            if found.size:
                pooled.setdefault(organ, []).append(found)
    tables = [
        pd.DataFrame(
            {
                "organ": organ,
                "quantile": POOLED_QUANTILES,
                "value": np.quantile(np.concatenate(parts).astype(np.float64), POOLED_QUANTILES),
            }
        )
        for organ, parts in pooled.items()
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["organ", "quantile", "value"])


def check_fit(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    organs: Sequence[str],
    labelled: Collection[str],
) -> None:
    """Refuse volumes and names that do not belong together.

    Raises
    ------
    ValueError
        When shapes, number of classes or names do not fit.
    """
    if labels.ndim != 3 or probabilities.shape != (len(organs) + 1, *labels.shape):
        raise ValueError(
            f"probabilities have shape {probabilities.shape} and labels {labels.shape} for {len(organs)} organs; "
            "needed: (1 + organs, X, Y, Z) and (X, Y, Z)"
        )
    if foreign := sorted(set(labelled) - set(organs)):
        raise ValueError(f"labelled holds {foreign}, which are not among organs {tuple(organs)}")
