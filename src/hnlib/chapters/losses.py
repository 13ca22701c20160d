"""Chapter 13: what each loss does to large and small, present and absent classes."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from hnlib.chapters.page import Facts
from hnlib.experiments.audits import SWEEPS
from hnlib.files import read_table
from hnlib.losses import LOSSES

#: Names of the library without the steps between nnu_dice and ca_dice, which fill a table of their own.
NAMED = tuple(name for name in LOSSES if not re.match("dice_(batch|sample)_", name))
STEPS = tuple(name for name in LOSSES if re.match("dice_(batch|sample)_", name))
#: Losses whose penalty on an absent class differs in kind.
CONTRASTED = ("ce", "dice", "squared_dice", "ca_dice", "focal", "topk_dice")
STAGES = ("random", "half-trained", "trained")
VOXELS_RATIO = 200.0  # 8000 and 40 voxels


def load_audit(folder: Path | str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of the audit and its warnings, one a loss.

    Raises
    ------
    DataError
        When a table is missing.
    """
    remedy = f"write it with hnlib audit --out {folder}"
    rows = read_table(Path(folder) / "audit.csv", remedy)
    return rows, read_table(Path(folder) / "warnings.csv", remedy, keep_default_na=False)


def _pick(rows: pd.DataFrame, losses: tuple[str, ...], **keys: str) -> pd.DataFrame:
    chosen = rows[rows["loss"].isin(losses)]
    for column, value in keys.items():
        chosen = chosen[chosen[column] == value]
    order = {name: place for place, name in enumerate(losses)}
    return chosen.sort_values("loss", key=lambda names: names.map(order), kind="stable")


def pull_ratio_table(rows: pd.DataFrame, losses: tuple[str, ...] = NAMED) -> pd.DataFrame:
    """Return, for each loss and stage, the pull at the large organ over that at the small one.

    A loss without such a ratio (no pull at the small organ, or one that pushes it away) is left out.
    """
    found = _pick(rows, losses, check="gradient", measure="pull_ratio")
    wide = found.pivot_table(index="loss", columns="prediction", values="value", sort=False)[list(STAGES)]
    return wide[(wide > 0).all(axis=1)].rename_axis(columns=None)


def gradient_table(rows: pd.DataFrame, losses: tuple[str, ...] = NAMED) -> pd.DataFrame:
    """Return the norm of the gradient on the logits of each class, at each stage."""
    found = _pick(rows, losses, check="gradient", measure="gradient_norm")
    found = found[found["class"].isin(["large", "small", "absent"])]
    wide = found.pivot_table(index="loss", columns=["prediction", "class"], values="value", sort=False)
    order = [(stage, name) for stage in ("random", "half-trained", "perfect") for name in ("large", "small", "absent")]
    return wide[order].map(_short).rename_axis(columns=["", ""])


def closed_form_error(rows: pd.DataFrame) -> float:
    """Return the largest deviation of a measured pull or norm from its closed form, as a share of it."""
    found = rows[(rows["check"] == "gradient") & (rows["prediction"] != "perfect") & rows["analytic"].notna()]
    found = found[found["analytic"].abs() > 1e-8]
    return float((found["value"] / found["analytic"] - 1).abs().max())


def slope_rows(rows: pd.DataFrame, losses: tuple[str, ...] = CONTRASTED) -> pd.DataFrame:
    """Return the slope of losses over the mass of an absent class: ``loss``, ``mass``, ``slope``."""
    found = _pick(rows, losses, check="false positive", measure="slope_in_ce")
    masses = found["class"].str.removeprefix("P = ").astype(float)
    return pd.DataFrame({"loss": found["loss"], "mass": masses, "slope": found["value"]})


def false_positive_table(rows: pd.DataFrame, warnings: pd.DataFrame, losses: tuple[str, ...] = NAMED) -> pd.DataFrame:
    """Return what false positives of an absent class cost, soft and hard, and the audit's warning."""
    found = _pick(rows, losses, check="false positive", measure="cost")
    wide = found.pivot_table(index="loss", columns=["prediction", "class"], values="value", sort=False)
    order = [("soft", "P = 1e-06"), ("soft", "P = 0.001"), ("soft", "P = 1"), ("soft", "P = 100"), ("hard", "P = 1")]
    table = wide[order].map(_short)
    said = warnings.set_index("loss")["warning"].reindex(table.index)
    table["warning", ""] = said.str.partition(" (")[0].str.removeprefix("class absent: false positives ")
    return table.rename_axis(columns=["", ""])


def split_table_of_losses(rows: pd.DataFrame, losses: tuple[str, ...] = NAMED) -> pd.DataFrame:
    """Return the loss of a batch beside the mean of its samples' losses, and whether they are one number."""
    found = _pick(rows, losses, check="batch split")
    found = found[found["measure"].isin(["loss_of_batch", "mean_of_samples"])]
    wide = found.pivot_table(index="loss", columns="measure", values="value", sort=False)
    same = (wide["loss_of_batch"] - wide["mean_of_samples"]).abs() <= 1e-4 * wide["mean_of_samples"].abs()
    table = wide.map(lambda value: f"{value:.4f}").assign(invariant=same.map({True: "yes", False: "no"}))
    return table.rename(columns=lambda name: str(name).replace("_", " ")).rename_axis(columns=None)


def pressure_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return cut and volume of topK Dice by K: ``form``, ``percent``, ``check``, ``measure``, ``value``."""
    found = _pick(rows, SWEEPS)
    found = found[found["check"].isin(["ambiguous voxels", "jittered ball"])]
    return pd.DataFrame(
        {
            "form": found["loss"].str.contains("squared=false").map({True: "linear", False: "squared"}),
            "percent": found["loss"].str.extract(r"percent=(\d+)")[0].astype(int),
            **{column: found[column] for column in ("check", "measure", "value", "analytic")},
        }
    )


def audit_facts(rows: pd.DataFrame, warnings: pd.DataFrame) -> Facts:
    """Return the phrases of the chapter."""
    ratio = pull_ratio_table(rows).to_dict("index")
    slopes = slope_rows(rows).set_index(["loss", "mass"])["slope"]
    chosen = _pick(rows, CONTRASTED, check="false positive", measure="cost")
    costs = chosen.set_index(["loss", "prediction", "class"])["value"]
    pressure = pressure_rows(rows).set_index(["form", "check", "measure", "percent"])["value"].sort_index()
    cut, volume = (
        pressure["squared", check, measure]
        for check, measure in (("ambiguous voxels", "cut"), ("jittered ball", "volume_ratio"))
    )
    own = warnings[warnings["loss"].isin([*NAMED, *STEPS])]
    return {
        "losses": str(rows["loss"].nunique()),
        "names": str(len(own)),
        "warned": str(int((own["warning"] != "").sum())),
        "warned-list": ", ".join(own.loc[(own["warning"] != "") & own["loss"].isin(NAMED), "loss"]),
        "closed-form": f"{100 * closed_form_error(rows):.2g} %",
        "ce-random": f"{ratio['ce']['random']:.0f}",
        "dice-random": f"{ratio['dice']['random']:.0f}",
        "dice-trained": f"{ratio['dice']['trained']:.0f}",
        "squared-half": f"{ratio['squared_dice']['half-trained']:.2g}",
        "dice-hard": f"{costs['dice', 'hard', 'P = 1']:.3f}",
        "dice-soft": f"{costs['dice', 'soft', 'P = 0.001']:.3f}",
        "dice-slope": f"{slopes['dice', 100.0]:.1g}",
        "squared-slope": f"{slopes['squared_dice', 100.0]:.2g}",
        "ca-slope": f"{slopes['ca_dice', 100.0]:.1g}",
        "cut-100": f"{cut[100]:.2f}",
        "cut-50": f"{cut[50]:.2f}",
        "cut-30": f"{cut[30]:.2f}",
        "volume-100": f"{volume[100]:.2f}",
        "volume-most": f"{volume.max():.2f}",
        "volume-most-k": str(int(volume.idxmax())),
    }


def _short(value: float) -> str:
    return "0" if value == 0 else f"{value:.2g}"
