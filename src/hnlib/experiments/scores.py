"""What a measured run says of itself in a few lines: test DSC, HD95 and misses by organ, and where it was located."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from hnlib.files import read_table
from hnlib.model_file import MODEL_NAME, load_model, save_model

#: What systems that locate organs first measure of it, and how a line says its mean.
PLACE = {
    "centre_error_mm": "centre off by {:.1f} mm",
    "located": "gate open in {:.0%}",
    "roi_recall": "{:.0%} of it in its region",
    "box_recall": "{:.1%} of it in its box",
    "box_fallback": "box at its place in training in {:.0%}",
}


def organ_scores(folder: Path) -> pd.DataFrame:
    """Return the test cases' scores of a measured run, one row an organ.

    Returns
    -------
    pandas.DataFrame
        Index ``organ``; ``dsc``, mean over cases with a miss as 0; ``hd95_mm``, mean over the cases that have one;
        ``missed``, how many of the ``cases``; and of `PLACE`, means, what the system measured. Empty without test
        cases.

    Raises
    ------
    DataError
        When the run's ``metrics.csv`` is missing or damaged.
    """
    metrics = read_table(folder / "metrics.csv", f"delete {folder / 'measured.json'} and run hnlib measure again")
    test = metrics[metrics["split"] == "test"]
    wide = test.pivot_table(index="organ", columns="metric", values="value", aggfunc="mean", sort=False, dropna=False)
    counted = test[test["metric"] == "missed"].groupby("organ")["value"].agg(missed="sum", cases="count").astype(int)
    return wide.reindex(columns=["dsc", "hd95_mm", *(name for name in PLACE if name in wide)]).join(counted)


def score_lines(folder: Path) -> Iterator[str]:
    """Yield a line an organ, and the mean over organs."""
    table = organ_scores(folder)
    for organ, row in table.iterrows():
        distance = "undefined" if pd.isna(row["hd95_mm"]) else f"{row['hd95_mm']:.1f} mm"
        missed = f"missed {row['missed']:.0f} of {row['cases']:.0f}"
        place = [form.format(row[name]) for name, form in PLACE.items() if not pd.isna(row.get(name))]
        yield ", ".join([f"{organ}: test DSC {row['dsc']:.3f}", f"HD95 {distance}", missed, *place])
    yield f"mean over {len(table)} organs: test DSC {table['dsc'].mean():.3f}" if len(table) else "no test case"


def add_scores(folder: Path) -> None:
    """Write the test scores of a measured run into its model file, where it has one."""
    path = folder / MODEL_NAME
    if path.exists():
        model = load_model(path)
        save_model(path, replace(model, provenance={**model.provenance, **scores_for_model(folder)}))


def scores_for_model(folder: Path) -> dict[str, Any]:
    """Return what a model file says of its test; nothing before the run is measured."""
    table = organ_scores(folder) if (folder / "measured.json").exists() else pd.DataFrame()
    if table.empty:
        return {}
    dsc = {str(organ): round(float(value), 4) for organ, value in table["dsc"].items()}
    return {"test": {"mean_dsc": round(float(table["dsc"].mean()), 4), "cases": int(table["cases"].max()), "dsc": dsc}}
