"""Measures of class imbalance: one number from class ratios or presences, and what each is blind to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hnlib.organs import PAPER_ORGANS

#: Classes of `PAPER_RATIOS`, in the paper's order, by the names of `hnlib.organs`.
PAPER_CLASSES: tuple[str, ...] = ("background", *PAPER_ORGANS)

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


def foreground_shares(ratios: ArrayLike) -> NDArray[np.float64]:
    """Return the share of each organ in the mean foreground.

    Parameters
    ----------
    ratios
        As for `sigma_of_mean`: class 0 is the background.

    Returns
    -------
    ndarray
        Shape (classes - 1,), sum 1.

    Raises
    ------
    ValueError
        When the rows are no shares, or there is no foreground.
    """
    organs = _rows(ratios).mean(axis=0)[1:]
    if not organs.sum() > 0:
        raise ValueError("the ratios hold the background alone; at least one organ with a ratio above 0 is needed")
    shares: NDArray[np.float64] = organs / organs.sum()
    return shares


def sigma_foreground(ratios: ArrayLike) -> float:
    """Return the standard deviation over organs of their shares in the foreground: sigma without the background.

    Parameters and errors are those of `foreground_shares`.

    Returns
    -------
    float
        Population standard deviation, 0 when all organs are equally frequent.

    Examples
    --------
    >>> [round(sigma_foreground(PAPER_RATIOS[name]), 4) for name in PAPER_RATIOS]
    [0.1334, 0.1293, 0.128, 0.1312]
    """
    return float(np.std(foreground_shares(ratios)))


def normalised_entropy(ratios: ArrayLike) -> float:
    """Return the entropy of the organs' shares in the foreground over its maximum.

    Parameters and errors are those of `foreground_shares`.

    Returns
    -------
    float
        In 0..1: 1 when all organs are equally frequent (or there is one), 0 when one of several is alone.

    Notes
    -----
    -sum_k p_k log p_k / log K for K organs; a share of 0 adds 0.

    Examples
    --------
    >>> normalised_entropy([0.5, 0.25, 0.25]), normalised_entropy([0.5, 0.5, 0.0])
    (1.0, 0.0)
    """
    shares = foreground_shares(ratios)
    return 1.0 if shares.size == 1 else _entropy(shares) / math.log(shares.size)


def effective_classes(ratios: ArrayLike) -> float:
    """Return the effective number of organs: how many equally frequent ones have the entropy of these.

    Parameters and errors are those of `foreground_shares`.

    Returns
    -------
    float
        exp(entropy), in 1..K for K organs (Hill number of order 1).

    Examples
    --------
    >>> [round(effective_classes(PAPER_RATIOS[name]), 2) for name in PAPER_RATIOS]
    [4.09, 4.16, 4.15, 3.96]
    """
    return math.exp(_entropy(foreground_shares(ratios)))


def effective_classes_simpson(ratios: ArrayLike) -> float:
    """Return the effective number of organs by Simpson's index: 1 / sum of the squared shares.

    Parameters and errors are those of `foreground_shares`.

    Returns
    -------
    float
        In 1..K for K organs (Hill number of order 2); never above `effective_classes`.

    Examples
    --------
    >>> [round(effective_classes_simpson(PAPER_RATIOS[name]), 2) for name in PAPER_RATIOS]
    [3.74, 3.85, 3.88, 3.8]
    """
    return float(1 / np.square(foreground_shares(ratios)).sum())


def aitchison_spread(ratios: ArrayLike) -> float:
    """Return the standard deviation over organs of the log-ratios of their shares.

    Parameters and errors are those of `foreground_shares`.

    Returns
    -------
    float
        0 when all organs are equally frequent; ``inf`` when one has the share 0, since no finite
        factor makes up for it.

    Notes
    -----
    The centred log-ratio of organ k is log p_k less the mean of the logs (Aitchison 1986); this is
    their root mean square. Multiplying the background changes nothing, halving one organ moves all.

    Examples
    --------
    >>> aitchison_spread([0.7, 0.15, 0.15]), aitchison_spread([0.5, 0.5, 0.0])
    (0.0, inf)
    """
    shares = foreground_shares(ratios)
    return float(np.std(np.log(shares))) if shares.min() > 0 else math.inf


def least_presence(presence: ArrayLike) -> float:
    """Return the probability that a patch holds the organ that patches hold least often.

    Parameters
    ----------
    presence
        Presence of each class, class 0 the background: shape (classes,), or one row a case, of which
        the mean is taken first.

    Raises
    ------
    ValueError
        When a value is no probability or there is no organ.

    Examples
    --------
    >>> least_presence([1.0, 0.5, 0.25])
    0.25
    """
    chances = np.asarray(presence, dtype=np.float64)
    if chances.ndim not in (1, 2) or chances.shape[-1] < 2 or not ((chances >= 0) & (chances <= 1 + 1e-9)).all():
        raise ValueError(
            f"presence of shape {chances.shape}: (classes,) or (cases, classes) with the background first, an organ "
            "and values in 0..1 is needed"
        )
    return float(np.atleast_2d(chances).mean(axis=0)[1:].min())


def rarest_voxels(ratios: ArrayLike, voxels_per_step: float) -> float:
    """Return the expected voxels of the rarest organ in a training step.

    Parameters
    ----------
    ratios
        As for `sigma_of_mean`.
    voxels_per_step
        Voxels of all patches of a step together.

    Raises
    ------
    ValueError
        When the rows are no shares, or there is no organ.

    Examples
    --------
    >>> rarest_voxels([0.9, 0.09, 0.01], voxels_per_step=2000)
    20.0
    """
    rows = _rows(ratios)
    if rows.shape[1] < 2:
        raise ValueError("the ratios hold the background alone; at least one organ is needed")
    return float(rows.mean(axis=0)[1:].min() * voxels_per_step)


def _entropy(shares: NDArray[np.float64]) -> float:
    seen = shares[shares > 0]
    return abs(float((seen * np.log(seen)).sum()))


class Measure(NamedTuple):
    """A measure of imbalance.

    Attributes
    ----------
    function
        It, as a function of an array with one row a case.
    blind_to
        What it cannot see, in one line.
    needs
        What its rows hold; ``voxels`` means ratios, and the voxels of a step as second argument.
    higher_is_better
        Whether a larger value means better balance.
    """

    function: Callable[..., float]
    blind_to: str
    needs: Literal["ratio", "presence", "voxels"] = "ratio"
    higher_is_better: bool = False


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        "sigma_of_mean": Measure(
            sigma_of_mean,
            "the balance among organs: while the background dominates it follows from its share alone, and "
            "where a rule centres patches on organs the smallest patch is the best",
        ),
        "sigma_pooled": Measure(
            sigma_pooled, "the balance among organs, as the sigma of the mean; it adds the variance between cases"
        ),
        "sigma_foreground": Measure(
            sigma_foreground,
            "the background, and tiny organs: an organ of a hundredth of the foreground counts like one of none",
        ),
        "normalised_entropy": Measure(
            normalised_entropy,
            "the background, and which organ is rare; an organ never seen costs as little as a rare one",
            higher_is_better=True,
        ),
        "effective_classes": Measure(
            effective_classes, "the same as the normalised entropy, of which it is a monotone function", "ratio", True
        ),
        "effective_classes_simpson": Measure(
            effective_classes_simpson, "the background, and all organs but those that dominate", "ratio", True
        ),
        "aitchison_spread": Measure(
            aitchison_spread, "the background and how much of anything there is: only quotients of organs enter"
        ),
        "least_presence": Measure(
            least_presence,
            "how much of the organ is there (a sliver counts as a whole one), and every organ but the least present",
            "presence",
            True,
        ),
        "rarest_voxels": Measure(
            rarest_voxels,
            "how often: a few large portions count like many small ones; and every organ but the rarest",
            "voxels",
            True,
        ),
    }
)
