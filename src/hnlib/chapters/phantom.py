"""Chapter 02: the phantom beside real heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from hnlib.cases import Case
from hnlib.chapters.page import DASH, Facts, listed, title
from hnlib.datasets import PhantomDataset
from hnlib.datasets.phantom import VERSION
from hnlib.datasets.phantom_anatomy import ALL_ORGANS
from hnlib.files import read_table

#: What is compared, in words, by the figure in which it stands.
SIZES: Mapping[str, str] = {"volume_ml": "volume (ratio)", "volume_ml_spread": "its spread (ratio)"}
SIZE_COLUMNS = ("volume_ml", "volume_ml_spread", "area_mm2", "area_mm2_spread", "volume_over_nerve")
POSITIONS: Mapping[str, str] = {
    "x_mm": "to the right (mm)",
    "y_mm": "anterior (mm)",
    "z_mm": "superior (mm)",
    "position_spread_mm": "spread (ratio)",
}
NUMBERS: Mapping[str, str] = {
    "mean_hu": "mean (HU)",
    "mean_spread_hu": "its spread (ratio)",
    "sd_hu": "SD inside (ratio)",
}
OBSERVERS: Mapping[str, str] = {"observer_dsc": "DSC of two observers (difference)"}
_WORDS = {
    "volume_ml": "volume",
    "volume_ml_spread": "spread of the volume",
    "area_mm2": "area of a slice",
    "area_mm2_spread": "spread of the area",
    "volume_over_nerve": "volume over that of a nerve",
    "position_spread_mm": "spread of the position",
    "x_mm": "place to the right",
    "y_mm": "place anterior",
    "z_mm": "place superior",
    "mean_hu": "mean HU",
    "mean_spread_hu": "spread of the mean HU",
    "sd_hu": "SD of the HU",
    "observer_dsc": "agreement of two observers",
}


_HEADS = {
    "volume_ml": "volume, ml",
    "volume_ml_spread": "SD of log volume",
    "area_mm2": "slice, mm²",
    "area_mm2_spread": "SD of log area",
    "volume_over_nerve": "over a nerve",
    "x_mm": "right, mm",
    "y_mm": "anterior, mm",
    "z_mm": "superior, mm",
    "position_spread_mm": "SD over heads, mm",
    "mean_hu": "mean, HU",
    "mean_spread_hu": "SD over cases, HU",
    "sd_hu": "SD inside, HU",
    "observer_dsc": "DSC",
}


def load_comparison(folder: Path | str) -> pd.DataFrame:
    """Read the comparison of the phantom with real heads.

    Cord and chiasm have measures of size of their own; see `sizes`.

    Raises
    ------
    DataError
        When the table is missing.
    """
    return read_table(Path(folder) / "equivalence.csv", "run python scripts/phantom_equivalence.py")


def sizes(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows on size under the names of volume: the cord's is the area of a slice, for a scan cuts it."""
    names = {"area_mm2": "volume_ml", "area_mm2_spread": "volume_ml_spread", "volume_over_nerve": "volume_ml"}
    found = table[table["quantity"].isin(SIZE_COLUMNS)]
    return found.assign(quantity=found["quantity"].replace(names))


def comparison_table(table: pd.DataFrame, quantities: Sequence[str]) -> pd.DataFrame:
    """Return real and phantom value of every organ, one column a quantity; a star where not shown to be equivalent."""
    used = table[table["quantity"].isin(quantities)]
    marks = used["verdict"].map({"equivalent": "", "undecided": "*", "different": "**"})
    pairs = zip(used["real"].map(_digits), used["phantom"].map(_digits), marks, strict=True)
    text = [f"{real} / {ours}{mark}" for real, ours, mark in pairs]
    wide = used.assign(text=text).pivot(index="organ", columns="quantity", values="text")
    wide = wide.loc[used["organ"].unique()]
    wide = wide[[name for name in quantities if name in wide.columns]].fillna(DASH)
    return wide.rename(index=title, columns=_HEADS).rename_axis(index="real / phantom", columns=None)


def _digits(value: float) -> str:
    """Write three significant digits, zeros at the end too."""
    return f"{value:#.3g}".rstrip(".")


def comparison_facts(table: pd.DataFrame) -> Facts:
    """Return the phrases of the chapter."""
    counts = table["verdict"].value_counts()
    by_kind = {kind: table[table["verdict"] == kind] for kind in ("different", "undecided")}
    return {
        "comparisons": str(len(table)),
        "equivalent": str(counts.get("equivalent", 0)),
        "different": str(counts.get("different", 0)),
        "undecided": str(counts.get("undecided", 0)),
        "different-list": _sentence("Different", by_kind["different"]),
        "undecided-list": _sentence("Undecided", by_kind["undecided"]),
        "phantom-cases": str(int(table["phantom_cases"].max())),
        "real-heads": str(int(table.loc[table["quantity"] == "volume_ml", "real_cases"].max())),
    }


def comparison_sources(table: pd.DataFrame) -> pd.DataFrame:
    """Return where the comparison comes from."""
    rows = {
        "phantom": f"version {VERSION} of the anatomy, {int(table['phantom_cases'].max())} cases",
        **{f"real, {k}": source for k, source in enumerate(table["source"].unique(), start=1)},
        "command": "python scripts/phantom_equivalence.py",
    }
    return pd.DataFrame({"value": rows}).rename_axis("comparison")


def one_phantom() -> Case:
    """Make the first phantom on its own grid, with every organ that can be labelled."""
    return PhantomDataset({"test": 1}, organs=ALL_ORGANS).load("phantom_000")


def _sentence(kind: str, rows: pd.DataFrame) -> str:
    if rows.empty:
        return f"{kind}: none."
    words = []
    for quantity, part in rows.groupby("quantity", sort=False):
        organs = listed([title(str(name)) for name in part["organ"]])
        words.append(f"{_WORDS[str(quantity)]} ({organs})")
    return f"{kind}: {'; '.join(words)}."
