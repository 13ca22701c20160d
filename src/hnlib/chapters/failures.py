"""What the chapter on failures shows: kinds of errors, the worst case of each organ, a scan to scroll through."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hnlib.chapters.page import Facts, listed, percent, title
from hnlib.errors import DataError
from hnlib.experiment_files import experiment_title
from hnlib.experiments.failures import VOLUME_FACTOR, worst_cases
from hnlib.files import read_table
from hnlib.plotting import viewer

#: What is wrong with an outline, in the order of the table, and what the word means.
KINDS = {
    "missed": "nothing is outlined",
    "elsewhere": "no voxel is right",
    "too large": f"more than {VOLUME_FACTOR:g} times the volume",
    "too small": f"less than 1/{VOLUME_FACTOR:g} of the volume",
    "displaced": "the right size, its centre off by more than half a radius",
    "boundary": "the right size and place; the surface is off",
}


def load_failures(tables: Path | str) -> pd.DataFrame:
    """Read ``failures.csv``: a row a test case and organ of the configuration that validation chose."""
    return read_table(Path(tables) / "failures.csv", "run hnlib tables for the study")


def kinds_table(failures: pd.DataFrame, below: float) -> pd.DataFrame:
    """Return, of the outlines with a DSC below a bound, how many are of each kind, by organ."""
    bad = failures[failures["dsc"] < below]
    counts = bad.groupby(["organ", "kind"]).size().unstack(fill_value=0)
    counts = counts.reindex(index=failures["organ"].unique(), columns=list(KINDS), fill_value=0)
    counts.insert(0, "outlines", failures.groupby("organ").size())
    return counts.rename(index=title).rename_axis(index=None, columns=None)


def failure_facts(failures: pd.DataFrame, below: float) -> Facts:
    """Return the phrases of the chapter on failures."""
    bad = failures[failures["dsc"] < below]
    counts = bad["kind"].value_counts()
    by_organ = bad.groupby("organ").size().sort_values(ascending=False, kind="stable")
    worst = worst_cases(failures).iloc[0]
    ties = int((failures["dsc"] == worst["dsc"]).sum()) - 1
    share = f"{len(bad)} of {len(failures)} outlines ({percent(len(bad) / len(failures))})"
    return {
        "which": f"{experiment_title(str(failures['experiment'].iloc[0]))}, seed {failures['seed'].iloc[0]}",
        "below": f"{below:g}",
        "share": share,
        "commonest": "none" if bad.empty else f"{counts.index[0]} ({counts.iloc[0]} of {len(bad)})",
        "organs": "no organ" if bad.empty else listed([f"{title(str(o))} ({n})" for o, n in by_organ.head(3).items()]),
        "worst": f"{title(str(worst['organ']))} of case {worst['case']}, DSC {worst['dsc']:.2f}"
        + (f", and {ties} other{'s are' if ties > 1 else ' is'} as bad" if ties else ""),
    }


def worst_pictures(tables: Path | str, below: float) -> Any:
    """Return the worst outline of each organ as pictures with what went wrong below, the worst organ first.

    One whose DSC is not below the bound is called no failure.
    """
    from IPython.display import HTML

    parts = []
    for row in worst_cases(load_failures(tables)).to_dict("records"):
        path = Path(tables) / "pictures" / f"worst_{row['organ']}.png"
        facts = json.loads(path.with_suffix(".json").read_text())
        shift = "" if facts["shift_mm"] is None else f", its centre {facts['shift_mm']:.0f} mm off"
        kind = f"{row['kind']} ({KINDS[str(row['kind'])]})" if row["dsc"] < below else "no failure, above the bound"
        text = (
            f"{title(str(row['organ']))}: {kind}; DSC {row['dsc']:.2f}, "
            f"{row['volume_ratio']:.1f} times the reference's volume{shift}. "
            f"Case {row['case']}, {facts['attribution']}."
        )
        alt = html.escape(f"CT slices with reference (solid) and prediction (dashed). {text}", quote=True)
        data = base64.b64encode(path.read_bytes()).decode()
        picture = f'<img src="data:image/png;base64,{data}" alt="{alt}" width="640" loading="lazy">'
        parts.append(
            f'<figure id="{_picture_name(row)}">{picture}<figcaption>{html.escape(text)}</figcaption></figure>'
        )
    return HTML("".join(parts))  # type: ignore[no-untyped-call]


def failure_points(failures: pd.DataFrame) -> pd.DataFrame:
    """Return every outline as a point for `hnlib.plotting.linked_points`; the worst of each organ has a picture."""
    text = [
        f"{row['case']}, {title(str(row['organ']))}: DSC {row['dsc']:.2f}, {row['kind']}, "
        f"{row['volume_ratio']:.1f} times the volume"
        for row in failures.to_dict("records")
    ]
    worst = {(row["case"], row["organ"]): _picture_name(row) for row in worst_cases(failures).to_dict("records")}
    pictures = [worst.get(key, "") for key in zip(failures["case"], failures["organ"], strict=True)]
    return failures[["organ", "case"]].assign(value=failures["dsc"], text=text, picture=pictures)


def _picture_name(row: Mapping[Any, Any]) -> str:
    return f"worst-{row['organ']}"


def scan_viewer(tables: Path | str, phantom: Path | str) -> Any:
    """Return a test case to scroll through: of the study where its volume is there, else of the published phantom.

    The volume of a real scan is on the disk of those who have the data and ran the study; it is never published.
    """
    from IPython.display import HTML

    place = next((Path(p) for p in (tables, phantom) if (Path(p) / "viewer" / "prediction.json").exists()), None)
    if place is None:
        raise DataError(f"{phantom}/viewer/prediction.json: missing; run hnlib tables for the phantom")
    packed = json.loads((place / "viewer" / "prediction.json").read_text())
    still = place / "pictures" / "prediction.png"
    what = f"{packed['attribution']}, case {packed['case']}: three planes with reference and prediction"
    caption = f"<p><em>{html.escape(what)}. Blue in Errors: missed; vermilion: outlined in excess.</em></p>"
    return HTML(viewer(packed, still, what) + caption)  # type: ignore[no-untyped-call]
