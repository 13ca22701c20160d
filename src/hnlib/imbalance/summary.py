"""From the rows of a landscape to one number a patch size: every measure, over cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hnlib.errors import ConfigError, unknown
from hnlib.imbalance.landscape import BACKGROUND
from hnlib.imbalance.measures import MEASURES

PATCH = ["patch_x", "patch_y", "patch_z"]


def summarise(table: pd.DataFrame, measures: Sequence[str] | None = None, *, patches_per_step: int = 2) -> pd.DataFrame:
    """Return measures of imbalance for every patch size and law of centres.

    Parameters
    ----------
    table
        As from `hnlib.imbalance.landscape`.
    measures
        Names of `hnlib.imbalance.MEASURES`. None takes those for which the table holds the columns.
    patches_per_step
        Patches of a training step, for the expected voxels of the rarest organ.

    Returns
    -------
    DataFrame
        One row a size and law, sorted: ``patch_x, patch_y, patch_z, centres, cases, complete_cases``
        and a column a measure. ``cases`` is the number of cases, ``complete_cases`` that of cases in
        which every organ was outlined. Where some organ was not, the mean of an organ is over the
        cases that have it, the background is what the organs' means leave, and ``sigma_pooled``,
        which needs whole rows, is over the complete cases: ``inf`` never stands for a missing value,
        and without a complete case the column is left out.

    Raises
    ------
    ConfigError
        For an unknown measure, or one whose column the table has not.
    """
    named = list(MEASURES) if measures is None else list(measures)
    for name in named:
        if name not in MEASURES:
            raise unknown("measure", name, MEASURES)
    columns = {name: "presence" if MEASURES[name].needs == "presence" else "ratio" for name in named}
    if measures is None:
        named = [name for name in named if columns[name] in table]
    missing = {columns[name] for name in named} - set(table.columns)
    if missing or not named:
        wanted = " or ".join(sorted(missing)) or "ratio"
        raise ConfigError(f"the table has no column {wanted}; ask the landscape for it")
    blocks = {column: _blocks(table, column) for column in {columns[name] for name in named}}
    index, first = next(iter(blocks.values()))
    complete = ~np.isnan(first[0]).any(axis=1)
    out = index.assign(cases=len(complete), complete_cases=int(complete.sum()))
    volume = index[PATCH].prod(axis=1).to_numpy() * patches_per_step
    for name in named:
        if name == "sigma_pooled" and not complete.any():
            continue
        measure, values = MEASURES[name], blocks[columns[name]][1]
        rows = values[:, complete] if name == "sigma_pooled" else _means(values, columns[name] == "ratio")
        more = [[v] if measure.needs == "voxels" else [] for v in volume]
        out[name] = [measure.function(row, *extra) for row, extra in zip(rows, more, strict=True)]
    return out


def _blocks(table: pd.DataFrame, column: str) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    """Return sizes and laws, and a value for each of them, case and class (background first); NaN where none is."""
    wide = table.set_index([*PATCH, "centres", "case", "class"])[column].unstack(["case", "class"])
    cases = table["case"].unique()
    names = [BACKGROUND, *(name for name in table["class"].unique() if name != BACKGROUND)]
    wide = wide.reindex(columns=pd.MultiIndex.from_product([cases, names], names=["case", "class"]))
    values = wide.to_numpy(dtype=np.float64).reshape(len(wide), len(cases), len(names))
    return wide.index.to_frame(index=False), values


def _means(values: NDArray[np.float64], shares: bool) -> NDArray[np.float64]:
    """Return the mean over the cases that have a class; of shares, the background is what the organs leave."""
    means: NDArray[np.float64] = np.nanmean(values, axis=1)
    if shares:
        means[:, 0] = np.maximum(1 - means[:, 1:].sum(axis=1), 0.0)
    return means
