"""What patches of one size show of every organ under the parts of a draw, and a plan's measures of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hnlib.errors import DataError
from hnlib.imbalance.candidates import Candidate
from hnlib.imbalance.measures import MEASURES, Measure, least_presence
from hnlib.imbalance.summary import PATCH
from hnlib.sampling import UNIFORM

Array = NDArray[np.float64]

#: The measure of a plan beside those of `hnlib.imbalance.MEASURES`.
SIGHTINGS = "sightings"
#: Measures that a plan can be made by; sightings are the patches a step that show the rarest organ, in expectation.
PLAN_MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        SIGHTINGS: Measure(least_presence, f"{MEASURES['least_presence'].blind_to}", "presence", True),
        **MEASURES,
    }
)


@dataclass(frozen=True)
class Shown:
    """What patches of one size show, by law of centres (uniform first) and organ.

    Attributes
    ----------
    presence, ratios
        Means over the cases that hold the organ, shape (laws, organs).
    whole
        Ratios of each case that holds every organ, shape (cases, laws, organs).
    """

    presence: Array
    ratios: Array
    whole: Array

    def value(self, name: str, weights: Array, candidate: Candidate) -> float:
        """Return a measure under a draw."""
        measure = PLAN_MEASURES[name]
        if measure.needs == "presence":
            least = measure.function(np.append(1.0, self.presence.T @ weights))
            return least * candidate.batch_size if name == SIGHTINGS else least
        rows = _with_background(np.einsum("nlk,l->nk", self.whole, weights))
        mean = _with_background(self.ratios.T @ weights)
        if measure.needs == "voxels":
            return measure.function(mean, candidate.voxels_per_step)
        if name == "sigma_pooled":
            if not len(rows):
                raise DataError("sigma_pooled needs a case that holds every organ; choose another measure")
            return measure.function(rows)
        return measure.function(mean)


def _with_background(organs: Array) -> Array:
    rows = np.atleast_2d(organs)
    with_background: Array = np.column_stack([np.maximum(0.0, 1 - rows.sum(axis=1)), rows])
    return with_background


def means_by_size(parts: pd.DataFrame, sizes: Sequence[Any], organs: tuple[str, ...]) -> list[Shown]:
    """Return what patches of every size show, from the landscape of the parts of a draw."""
    rows = parts[parts["class"].isin(organs)]
    axes = {"centres": [UNIFORM, *organs], "class": list(organs), "case": list(parts["case"].unique())}
    place = [pd.MultiIndex.from_tuples(sizes).get_indexer(pd.MultiIndex.from_frame(rows[PATCH]))]
    place += [pd.Index(names).get_indexer(rows[column].astype(str)) for column, names in axes.items()]
    found = {}
    for name in ("presence", "ratio"):
        found[name] = np.full((len(sizes), *map(len, axes.values())), np.nan)
        found[name][tuple(place)] = rows[name]
    # an organ is in a case where patches centred on it show it; elsewhere its law is the uniform one
    held = np.stack([found["presence"][0, 1 + k, k] > 0 for k in range(len(organs))])
    presence, ratios = (np.nanmean(np.where(held, values, np.nan), axis=3) for values in found.values())
    whole = found["ratio"][..., held.all(axis=0)].transpose(0, 3, 1, 2)
    return [Shown(*one) for one in zip(presence, ratios, whole, strict=True)]
