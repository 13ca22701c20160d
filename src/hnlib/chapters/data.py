"""Chapters 01 and 04: the scans, and class imbalance inside patches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hnlib.cases import SPLITS
from hnlib.chapters.page import Facts, is_phantom, percent, title
from hnlib.errors import ConfigError, DataError
from hnlib.experiment_files import experiment_title
from hnlib.files import read_json
from hnlib.imbalance import PAPER_SIGMA, sigma_of_mean, sigma_pooled

NOT_LABELLED = "Larynx and oesophagus are outlined in a part of these patients only and are left out here."

# 01: the scans


def split_table(data: pd.DataFrame) -> pd.DataFrame:
    """Count cases by split, and by organ in how many of them it is outlined."""
    counts = data.groupby("split")["case"].nunique().rename("cases")
    organs = data.pivot_table(index="split", columns="organ", values="case", aggfunc="count", sort=False)
    organs.columns = [title(name) for name in organs.columns]
    return pd.concat([counts, organs], axis=1).reindex(SPLITS).rename_axis("split")


def dataset_facts(study: Mapping[str, Any], data: pd.DataFrame) -> Facts:
    """Return the phrases of the chapter on the scans."""
    median = data.groupby("organ", sort=False)["volume_ml"].median().sort_values()
    voxels = data.groupby("case").agg(
        inside=("voxels", "sum"), x=("body_x", "first"), y=("body_y", "first"), z=("body_z", "first")
    )
    kind = "phantom cases" if is_phantom(study) else "patients"
    count = data["case"].nunique()
    caveat = "A phantom is simpler than a patient: shapes are smooth and every organ is where it belongs."
    return {
        "cases": f"{count} {kind}",
        "num-organs": str(len(median)),
        "largest": title(str(median.index[-1])),
        "smallest": title(str(median.index[0])),
        "size-ratio": f"{median.iloc[-1] / median.iloc[0]:.3g}",
        "foreground": percent(float((voxels["inside"] / (voxels["x"] * voxels["y"] * voxels["z"])).median())),
        "caption": f"{count} {kind}; {study['attribution']}",
        "caveat": caveat if is_phantom(study) else NOT_LABELLED,
    }


def organ_table(data: pd.DataFrame) -> pd.DataFrame:
    """Return volume, voxels and CT numbers of every organ: medians over cases with the 5th and 95th percentile."""
    grouped = data.groupby("organ", sort=False)
    volume = grouped["volume_ml"]
    table = pd.DataFrame(
        {
            "cases": grouped["case"].nunique(),
            "volume, ml": volume.median().round(2),
            "5 % to 95 %, ml": [
                f"{a:.2g} to {b:.2g}" for a, b in zip(volume.quantile(0.05), volume.quantile(0.95), strict=True)
            ],
            "voxels, scan's own grid": grouped["voxels"].median().astype(int),
            "mean HU": grouped["mean_hu"].median().round(0).astype(int),
            "SD within, HU": grouped["sd_hu"].median().round(0).astype(int),
        }
    )
    return table.rename(index=title).rename_axis("organ").sort_values("volume, ml", ascending=False)


def plan_table(study: Mapping[str, Any]) -> pd.DataFrame:
    """Return grid and intensity scale of the study."""
    size = " x ".join
    rows = {
        "voxel size, mm": size(f"{v:.2f}" for v in study["spacing_mm"]),
        "median scan after cropping, voxels": size(map(str, study["median_shape"])),
        **{f"{name} patch, voxels": size(map(str, patch)) for name, patch in study["patches"].items()},
        "clipped to, HU": f"{study['clip_hu'][0]:.0f} to {study['clip_hu'][1]:.0f}",
        "mean and SD of organ voxels, HU": f"{study['mean_hu']:.0f} and {study['sd_hu']:.0f}",
    }
    return pd.DataFrame({"value": rows}).rename_axis("plan")


def picture(tables: Path | str, name: str) -> str:
    """Return the path of a still picture of the study.

    Raises
    ------
    DataError
        When the picture is missing.
    """
    path = Path(tables) / "pictures" / f"{name}.png"
    if not path.exists():
        raise DataError(f"picture {path}: missing; run the study first (hnlib ignored and hnlib stages draw theirs)")
    return str(path)


def credit(tables: Path | str, name: str) -> Any:
    """Return the line below a picture, as Markdown: which case, chosen how, from where."""
    from IPython.display import Markdown

    facts = json.loads(Path(picture(tables, name)).with_suffix(".json").read_text())
    of = f", {experiment_title(facts['experiment'])}, seed {facts['seed']}" if facts["experiment"] else ""
    return Markdown(  # type: ignore[no-untyped-call]
        f"*{facts['attribution']}, case {facts['case']} ({facts['rule']}){of}.*"
    )


def surface_errors(tables: Path | str) -> Mapping[str, Any]:
    """Return the meshes of the organs' surfaces with the errors of a prediction, by organ."""
    return dict(json.loads(Path(picture(tables, "surfaces")).with_suffix(".json").read_text())["meshes"])


# 04: imbalance


def by_rule(imbalance: pd.DataFrame, centres: str) -> pd.DataFrame:
    """Return the rows of one rule for patch centres; the whole scan has the same shares under every rule.

    Raises
    ------
    ConfigError
        When the rule is not in the table.
    """
    chosen = imbalance[imbalance["centres"] == centres]
    if chosen.empty:
        raise ConfigError(f"rule '{centres}' is not in the table; there are {', '.join(imbalance['centres'].unique())}")
    return chosen


def _mean_ratios(chosen: pd.DataFrame) -> pd.DataFrame:
    """Return the mean share of each class by patch: of an organ over the cases that have it, of background the rest."""
    ratios = chosen.pivot_table(index="patch", columns="class", values="ratio", sort=False)
    return ratios.assign(background=1 - ratios.drop(columns="background").sum(axis=1))


def sigma_table(chosen: pd.DataFrame) -> pd.DataFrame:
    """Return sigma of every patch in both readings, and the paper's printed values.

    Pooled over the cases in which all organs are outlined; NaN where there is none.
    """
    rows: list[tuple[Any, str, float]] = []
    means = _mean_ratios(chosen)
    for patch, part in chosen.groupby("patch", sort=False):
        whole = part.pivot_table(index="case", columns="class", values="ratio").dropna().to_numpy()
        rows.append((patch, "this study, of the mean", sigma_of_mean(means.loc[patch].to_numpy())))
        rows.append((patch, "this study, pooled", sigma_pooled(whole) if len(whole) else np.nan))
    for patch, name in (("whole scan", "full"), ("large", "large"), ("small", "small")):
        rows.append((patch, "paper, printed", PAPER_SIGMA[name]))
    return pd.DataFrame(rows, columns=["patch", "source", "sigma"])


def presence_table(imbalance: pd.DataFrame) -> pd.DataFrame:
    """Return the mean presence of every organ by patch and rule, in per cent of the patches."""
    organs = imbalance[(imbalance["class"] != "background") & (imbalance["patch"] != "whole scan")]
    table = organs.pivot_table(index=["patch", "centres"], columns="class", values="presence", sort=False)
    return (100 * table).round(0).astype(int).rename(columns=title).rename_axis(columns=None)


def exact_cost(bench: Path | str) -> str:
    """Return what the exact shares of one patch size cost beside sampled ones, as ``make bench`` measured it."""
    rows = read_json(Path(bench), "run make bench") if Path(bench).exists() else []
    row: Mapping[str, Any] = next((row for row in rows if row["name"] == "imbalance_one"), {})
    if row.get("ours") is None:
        return "was not timed here"
    sampled = f"; sampling it as finely as the paper prints it, {row['peer']:.0f} s" if row["peer"] else ""
    return f"takes {row['ours']:.2g} s on a full-size scan{sampled} (make bench, {row['hardware']})"


def imbalance_facts(chosen: pd.DataFrame) -> Facts:
    """Return the phrases of the chapter on imbalance."""
    ratios = _mean_ratios(chosen)
    organs = [name for name in ratios.columns if name != "background"]
    rarest = str(ratios.loc["whole scan", organs].idxmin())
    presence = chosen.groupby(["patch", "class"])["presence"].mean().unstack("class")[organs]
    least = str(presence.loc["small"].idxmin())
    sigma = {patch: f"{sigma_of_mean(row.to_numpy()):.4f}" for patch, row in ratios.iterrows()}
    spread = ratios.loc["whole scan", organs].max() / ratios.loc["whole scan", organs].min()
    times = f"{spread:.{0 if spread > 10 else 1}f}"
    return {
        "bg-large": percent(float(ratios["background"]["large"])),
        "bg-small": percent(float(ratios["background"]["small"])),
        "sigma-large": sigma["large"],
        "sigma-small": sigma["small"],
        "rarest": title(rarest),
        "presence-large": percent(float(presence[rarest]["large"])),
        "presence-small": percent(float(presence[rarest]["small"])),
        "least": title(least),
        "least-large": percent(float(presence[least]["large"])),
        "least-small": percent(float(presence[least]["small"])),
        "spread": times,
        "scope": f"The largest organ has {times} times the voxels of the smallest on average, in the paper 99 times.",
    }
