"""The best draw of patch centres for a stated aim, solved as a linear programme.

Share and presence of a class are linear in the weights of a mixture of centre laws, so the best weights of "anywhere"
and "on organ k" are the solution of a linear programme. Sigma itself has only a trivial answer there (all weight on
the foreground), so the aims are about the organs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linprog

from hnlib.errors import unknown
from hnlib.organs import organ
from hnlib.sampling import UNIFORM, CentreDistribution, weighted_centres

Array = NDArray[np.float64]

#: What a draw can be best for, by name, with one line on it.
AIMS: Mapping[str, str] = MappingProxyType(
    {
        "presence": "the organ that a patch shows least often is shown as often as possible",
        "voxels": "the organ with the fewest expected voxels in a patch has as many as possible",
        "shares": "the organs' expected shares of the foreground are as near to the targets as possible",
    }
)
#: A bound from a first solution is eased by this part of itself in the second, as the solver rounds.
_EASE = 1e-7


@dataclass(frozen=True)
class Draw:
    """Weights of a mixture of centre laws, and what they reach.

    Attributes
    ----------
    aim
        Name in `AIMS`.
    value
        Least presence (``presence``), least expected share of a patch (``voxels``), or largest distance of a share
        of the foreground from its target (``shares``).
    weights
        Share of the patches by organ, and under ``uniform`` of those that are uniform in position; sum 1.
    """

    aim: str
    value: float
    weights: Mapping[str, float]

    def centres(self, organs: Sequence[str]) -> CentreDistribution:
        """Return the law of centres to train with."""
        return weighted_centres(self.weights, organs)


def best_draw(
    presence: ArrayLike,
    ratios: ArrayLike,
    organs: Sequence[str],
    *,
    aim: str = "presence",
    min_uniform: float = 0.0,
    targets: Mapping[str, float] | None = None,
    symmetric: bool = False,
) -> Draw:
    r"""Return the weights of the centre laws that are best for an aim.

    Parameters
    ----------
    presence, ratios
        Probability that a patch holds an organ, and the organ's expected share of the patch, by law of centres and
        organ: shape (1 + K, K), the first row for patches uniform in position, row 1 + k for those centred on
        organ k. In 0..1.
    organs
        Names of the K organs.
    aim
        Name in `AIMS`.
    min_uniform
        Least share of patches that are uniform in position, in 0..1: they show the network what is no organ.
    targets
        Wanted shares of the foreground by organ, for the aim ``shares``; scaled to the sum 1. None: all equal.
    symmetric
        Give the two organs of a pair, as `hnlib.organs.organ` knows them, the same weight. Without it the solution is
        a corner of the programme and often rests on one side alone, for a gain that is a matter of these cases.

    Returns
    -------
    Draw
        Of all best weights, those with the largest mean presence (``presence``), or with the largest share of all
        organs together (the others); where that is a tie too, those with the most patches uniform in position.

    Raises
    ------
    ConfigError
        When the aim or an organ of the targets is unknown.
    ValueError
        When the arrays have another shape or hold what is no share, ``min_uniform`` lies outside 0..1, or the
        targets are no shares.

    Notes
    -----
    With presence P and shares R, each (laws, organs), weights w >= 0 that sum to 1 and w_0 >= f (and, where wanted,
    equal weights for the two sides):

    presence: max t with (P' w)_k >= t for all k; voxels: the same with R.

    shares: min d with :math:`|(R'w)_k / \sum_j (R'w)_j - \tau_k| \le d`, a quotient of linear forms; with
    y = w / sum_j (R'w)_j and s = 1 / sum_j (R'w)_j it is linear (Charnes and Cooper 1962).

    Examples
    --------
    Anywhere shows organ a in 0.2 and b in 0.1 of the patches; a patch on one of them never shows the other:

    >>> shown = [[0.2, 0.1], [1.0, 0.0], [0.0, 1.0]]
    >>> draw = best_draw(shown, shown, ["a", "b"], min_uniform=0.5)
    >>> round(draw.value, 3), {name: round(weight, 3) for name, weight in draw.weights.items()}
    (0.325, {'uniform': 0.5, 'a': 0.225, 'b': 0.275})
    """
    if aim not in AIMS:
        raise unknown("aim", aim, AIMS)
    shown, shares = _checked("presence", presence, len(organs)), _checked("ratios", ratios, len(organs))
    if not 0 <= min_uniform <= 1:
        raise ValueError(f"min_uniform is {min_uniform}; a share of the patches, 0 to 1, is needed")
    wanted, alike = _targets(targets, organs), _pairs(organs) if symmetric else []
    if aim == "shares":
        weights = _nearest_shares(shares, wanted, min_uniform, alike)
        held = shares.T @ weights
        value = float(np.abs(held / held.sum() - wanted).max())
    else:
        table = shown if aim == "presence" else shares
        weights = _largest_least(table, min_uniform, alike)
        value = float((table.T @ weights).min())
    return Draw(aim, value, dict(zip([UNIFORM, *organs], weights.tolist(), strict=True)))


def _largest_least(table: Array, min_uniform: float, alike: Sequence[tuple[int, int]]) -> Array:
    """Maximise the least of table' w, then its mean."""
    laws, organs = table.shape
    scale = table.max() or 1.0
    least = np.column_stack([-table.T / scale, np.ones(organs)])  # t - (table' w)_k <= 0
    whole, to = np.vstack([np.ones(laws), _differences(alike, laws)]), np.append(1.0, np.zeros(len(alike)))
    bounds = _bounds(laws, min_uniform)
    with_t = np.column_stack([whole, np.zeros(len(whole))])
    best = _solve(np.append(np.zeros(laws), -1.0), least, np.zeros(organs), with_t, to, [*bounds, (None, None)])
    floor = best[-1] - _EASE * abs(best[-1])
    mean = table.mean(axis=1) / scale
    mean[0] += _EASE  # where nothing is gained by forcing, nothing is forced
    weights = _solve(-mean, -table.T / scale, np.full(organs, -floor), whole, to, bounds)
    return _tidy(weights)


def _nearest_shares(table: Array, wanted: Array, min_uniform: float, alike: Sequence[tuple[int, int]]) -> Array:
    """Minimise the largest distance from the wanted shares of the foreground, then the background."""
    laws, organs = table.shape
    if not table.any():
        raise ValueError("no patch holds an organ; shares of the foreground are not defined")
    held = table.T / table.max()
    one, none = np.ones((organs, 1)), np.zeros((organs, 1))
    near = np.block([[held, none, -one], [-held, none, -one]])  # variables y, s, d
    enough = np.zeros((1, laws + 2))
    enough[0, 0], enough[0, laws] = -1.0, min_uniform  # y_0 >= f s
    bound, limit = np.vstack([near, enough]), np.concatenate([wanted, -wanted, [0.0]])
    equal = np.zeros((2 + len(alike), laws + 2))
    equal[0, :laws] = held.sum(axis=0)  # the shares sum to 1
    equal[1, :laws], equal[1, laws] = 1.0, -1.0  # the weights sum to 1
    equal[2:, :laws] = _differences(alike, laws)
    to = np.append([1.0, 0.0], np.zeros(len(alike)))
    free = [(0.0, None)] * (laws + 2)
    aim = np.zeros(laws + 2)
    aim[-1] = 1.0
    best = _solve(aim, bound, limit, equal, to, free)
    second = np.zeros(laws + 2)
    second[laws] = 1.0  # least s is most foreground
    free[-1] = (0.0, best[-1] + _EASE)
    found = _solve(second, bound, limit, equal, to, free)
    return _tidy(found[:laws] / found[laws])


def _pairs(organs: Sequence[str]) -> list[tuple[int, int]]:
    """Return the places of the two organs of every pair that the set holds whole."""
    places = {name: place for place, name in enumerate(organs)}
    partners = ((place, places.get(organ(name).mirror or "", -1)) for name, place in places.items())
    return [(place, partner) for place, partner in partners if place < partner]


def _differences(alike: Sequence[tuple[int, int]], laws: int) -> Array:
    """Return a row for each pair that is 0 times weights where its two have the same: (pairs, laws)."""
    rows = np.zeros((len(alike), laws))
    for row, (first, second) in zip(rows, alike, strict=True):
        row[1 + first], row[1 + second] = 1.0, -1.0
    return rows


def _bounds(laws: int, min_uniform: float) -> list[tuple[float | None, float | None]]:
    return [(min_uniform, 1.0), *[(0.0, 1.0)] * (laws - 1)]


def _solve(aim: Array, upper: Array, limit: Array, equal: Array, to: Any, bounds: Any) -> Array:
    found = linprog(aim, A_ub=upper, b_ub=limit, A_eq=equal, b_eq=to, bounds=bounds, method="highs")
    if not found.success:
        raise ValueError(f"the linear programme of the draw has no solution: {found.message}")
    return np.asarray(found.x, dtype=np.float64)


def _tidy(weights: Array) -> Array:
    """Take off the solver's rounding: weights of less than a millionth are none."""
    weights = np.where(weights < 1e-6, 0.0, weights)
    result: Array = weights / weights.sum()
    return result


def _checked(name: str, values: ArrayLike, num_organs: int) -> Array:
    table = np.asarray(values, dtype=np.float64)
    if table.shape != (num_organs + 1, num_organs) or num_organs < 1:
        raise ValueError(f"{name} has shape {table.shape}; (1 + organs, organs) is needed, for {num_organs} organs")
    if not ((table >= 0) & (table <= 1 + 1e-9)).all():
        raise ValueError(f"{name} holds values outside 0..1 or NaN; leave out an organ that no case has")
    return table


def _targets(targets: Mapping[str, float] | None, organs: Sequence[str]) -> Array:
    if targets is None:
        return np.full(len(organs), 1 / len(organs))
    for name in targets:
        if name not in organs:
            raise unknown("organ of the targets", name, organs)
    wanted = np.array([targets.get(organ, 0.0) for organ in organs], dtype=np.float64)
    if not np.isfinite(wanted).all() or wanted.min() < 0 or not wanted.sum() > 0:
        raise ValueError(f"targets {dict(targets)}: shares of at least 0, not all of them 0, are needed")
    shares: Array = wanted / wanted.sum()
    return shares
