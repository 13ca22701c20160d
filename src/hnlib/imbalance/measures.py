"""Measures of class imbalance: one number from class ratios."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Classes of `PAPER_RATIOS`, in the paper's order, by the names of `hnlib.organs`.
PAPER_CLASSES: tuple[str, ...] = (
    "background",
    "brainstem",
    "optic_chiasm",
    "optic_nerve_left",
    "optic_nerve_right",
    "parotid_left",
    "parotid_right",
    "mandible",
)

#: Mean class ratios over 25 PDDCA cases as the authors' code holds them (the paper does not print
#: them): the whole scan, patches of 192 x 160 x 56, 96 x 80 x 48 and 8 x 8 x 8 voxels.
PAPER_RATIOS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "full": (
            9.98349192e-01,
            3.25376987e-04,
            6.34431839e-06,
            8.39114189e-06,
            7.53879547e-06,
            3.32211256e-04,
            3.42189074e-04,
            6.28756285e-04,
        ),
        "large": (
            9.87633591e-01,
            3.63019206e-03,
            6.02492560e-05,
            6.87662760e-05,
            6.25627790e-05,
            2.25030227e-03,
            2.22780180e-03,
            4.06653413e-03,
        ),
        "small": (
            9.80502550e-01,
            4.63969998e-03,
            9.02099609e-05,
            8.25005425e-05,
            7.28434245e-05,
            3.74850532e-03,
            4.14233398e-03,
            6.72135688e-03,
        ),
        "8x8x8": (
            8.40925347e-01,
            3.70588108e-02,
            1.02213542e-04,
            1.61024306e-04,
            1.94444444e-04,
            3.13012153e-02,
            3.42521701e-02,
            5.60047743e-02,
        ),
    }
)

#: Sigma as Tappeiner et al. 2022 print it. ``small`` and ``8x8x8`` lie above `sigma_of_mean` of
#: `PAPER_RATIOS`, as `sigma_pooled` must.
PAPER_SIGMA: Mapping[str, float] = MappingProxyType(
    {"full": 0.3301, "large": 0.32605, "small": 0.32337, "8x8x8": 0.27146}
)


def _rows(ratios: ArrayLike) -> NDArray[np.float64]:
    """Return ratios as (cases, classes), refusing what is no set of shares."""
    rows = np.asarray(ratios, dtype=np.float64)
    if rows.ndim not in (1, 2) or rows.size == 0:
        raise ValueError(f"ratios have shape {rows.shape}; (classes,) or (cases, classes) is needed")
    rows = np.atleast_2d(rows)
    sums = rows.sum(axis=1)
    if not (np.abs(sums - 1.0) < 1e-6).all() or rows.min() < 0:
        worst = int(np.argmax(np.where(np.isfinite(sums), np.abs(sums - 1.0), np.inf)))
        raise ValueError(
            f"ratios of row {worst} sum to {sums[worst]} and the smallest of all is {rows.min()}; "
            "rows of shares, at least 0 and summing to 1, background included, are needed"
        )
    return rows


def sigma_of_mean(ratios: ArrayLike) -> float:
    """Return the standard deviation over classes of the mean class ratios: sigma as printed.

    Parameters
    ----------
    ratios
        The mean vector, shape (classes,), or one row a case, shape (cases, classes), of which the
        mean is taken first. Background included; every row sums to 1.

    Returns
    -------
    float
        Population standard deviation (divisor C, the number of classes), in 0..sqrt(C - 1) / C:
        0 when all classes are equally frequent, the most when one class is alone.

    Raises
    ------
    ValueError
        When the rows are no shares that sum to 1.

    Notes
    -----
    With mean ratios r_k, sigma = sqrt(sum_k (r_k - 1 / C)^2 / C): Tappeiner et al. 2022, section
    3.3, which calls it an average distance although it is a root mean square. The authors' code
    computes `sigma_pooled`.

    Examples
    --------
    >>> sigma_of_mean([0.5, 0.5]), sigma_of_mean([1.0, 0.0])
    (0.0, 0.5)
    >>> round(sigma_of_mean(PAPER_RATIOS["small"]), 6)
    0.323358
    """
    return float(np.std(_rows(ratios).mean(axis=0)))


def sigma_pooled(ratios_by_case: ArrayLike) -> float:
    """Return the standard deviation over all cases and classes together: sigma as coded.

    Parameters
    ----------
    ratios_by_case
        One row a case, shape (cases, classes), background included; every row sums to 1.

    Returns
    -------
    float
        Population standard deviation, in 0..sqrt(C - 1) / C; never below `sigma_of_mean`.

    Raises
    ------
    ValueError
        When the array is not two-dimensional or its rows are no shares that sum to 1.

    Notes
    -----
    Each row has mean 1 / C, so the square of this is the mean over cases of the squared
    per-case sigma, and exceeds the square of `sigma_of_mean` by the mean over classes of the
    variance between cases. From the code of Tappeiner et al. 2022.

    Examples
    --------
    >>> rows = [[1.0, 0.0], [0.0, 1.0]]
    >>> sigma_pooled(rows), sigma_of_mean(rows)
    (0.5, 0.0)
    """
    if np.ndim(ratios_by_case) != 2:
        raise ValueError(f"ratios_by_case has shape {np.shape(ratios_by_case)}; (cases, classes) is needed")
    return float(np.std(_rows(ratios_by_case)))
