"""The worst cases of a study: which they are, what went wrong in them, and a picture of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import center_of_mass

#: A volume is wrong where it is this many times too large or too small.
VOLUME_FACTOR = 1.5


def describe_failure(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> dict[str, Any]:
    """Say what is wrong with the outline of one organ.

    Returns
    -------
    dict
        ``dsc``; ``volume_ratio`` (predicted over reference); ``shift_mm``, the distance of the centroids, None where
        nothing was predicted; and ``kind``: ``missed`` (nothing predicted), ``elsewhere`` (no voxel in common),
        ``too large`` and ``too small`` (by more than `VOLUME_FACTOR`), else ``displaced`` where the centroids are
        apart by more than half the radius of a ball of the organ's volume, else ``boundary``.

    Examples
    --------
    >>> truth, found = np.zeros((2, 8, 1, 1), bool)
    >>> truth[:4], found[:1] = True, True
    >>> describe_failure(truth, found, (1, 1, 1))["kind"]
    'too small'
    """
    size, predicted = int(reference.sum()), int(prediction.sum())
    common = int((reference & prediction).sum())
    facts: dict[str, Any] = {"dsc": 2 * common / (size + predicted), "volume_ratio": predicted / size}
    if not predicted:
        return {**facts, "shift_mm": None, "kind": "missed"}
    apart = np.subtract(center_of_mass(prediction), center_of_mass(reference)) * spacing_mm
    facts["shift_mm"] = float(np.linalg.norm(apart))
    radius_mm = (3 * size * float(np.prod(spacing_mm)) / (4 * np.pi)) ** (1 / 3)
    if not common:
        kind = "elsewhere"
    elif predicted > VOLUME_FACTOR * size:
        kind = "too large"
    elif predicted * VOLUME_FACTOR < size:
        kind = "too small"
    else:
        kind = "displaced" if facts["shift_mm"] > radius_mm / 2 else "boundary"
    return {**facts, "kind": kind}


def worst_cases(failures: pd.DataFrame) -> pd.DataFrame:
    """Return for each organ the row of ``failures.csv`` with the lowest DSC, the worst organ first.

    Of equal ones the first case by name.
    """
    ordered = failures.sort_values(["dsc", "case"], kind="stable")
    return ordered.drop_duplicates("organ").reset_index(drop=True)
