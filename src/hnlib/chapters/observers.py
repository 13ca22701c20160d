"""Chapter 03: what two people agree on, and what stands beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hnlib.chapters.page import DASH, NBSP, Facts, is_phantom, listed, percent, title, with_limits
from hnlib.datasets.phantom import PhantomDataset as Phantom
from hnlib.errors import DataError
from hnlib.experiment_files import experiment_title
from hnlib.files import read_json, read_table
from hnlib.metrics import evaluate_case
from hnlib.observers import by_patient
from hnlib.stats import (
    COLUMNS,
    Group,
    mean_difference,
    organ_summary,
    paired_non_inferiority,
    paper_table1,
    seed_averaged,
    verdict,
)

Tables = Mapping[str, pd.DataFrame]
TABLES = ("agreement", "pairs", "tolerances", "swapped_axes", "hd95_definitions")
AGREEMENT = {"dsc": "DSC", "surface_dsc": "surface DSC", "hd95_mm": "HD95 (mm)"}
TOLERANCES = {"tolerance": "tolerance (mm)", "within": "surface within the published one"}
SWAPPED_AXES = {"surface_dsc": "surface DSC, swapped minus right", "hd95_mm": "HD95, swapped minus right (mm)"}
GRIDS = {"native": "two observers, scan's own grid", "openkbp": "two observers, OpenKBP's grid"}
#: The paper marks organs whose surface Dice lies within this much of the observers' (its Figure 3).
NEAR = 0.05


def load_observers(folder: Path | str, split: str = "all") -> tuple[Tables, Mapping[str, Any]]:
    """Read the tables of the human reference, of all scans or of those of one split, and what they are.

    Raises
    ------
    DataError
        When a table is missing or has no row of that split.
    """
    place, remedy = Path(folder), "run python scripts/human_reference.py, or name another folder"
    tables = {}
    for name in TABLES:
        found = read_table(place / f"{name}.csv", remedy)
        whole = name == "pairs" and split == "all"
        tables[name] = found if whole else found[found["split"] == split].reset_index(drop=True)
        if tables[name].empty:
            raise DataError(f"table {place / name}.csv: no row of split '{split}'; {remedy}")
    return tables, read_json(place / "about.json", remedy)


def agreement_series(tables: Tables) -> pd.DataFrame:
    """Return the agreement of the observers on both grids, for `hnlib.plotting.intervals_by_organ`."""
    found = tables["agreement"].rename(columns={"metric": "quantity", "mean": "value"})
    return found[found["quantity"].isin(AGREEMENT)].assign(series=found["grid"].map(GRIDS))


def agreement_table(tables: Tables) -> pd.DataFrame:
    """Return mean and 95 % interval of the agreement on the scans' own grids, by organ."""
    found = tables["agreement"].query("grid == 'native'").set_index(["organ", "metric"])
    organs = [name for name in found.index.unique("organ") if (name, "dsc") in found.index]
    rows = {}
    for name in organs:
        parts = {label: _interval(found.loc[(name, metric)]) for metric, label in AGREEMENT.items()}
        left_out = found["scans"].get((name, "outlined_by_one"), 0)
        counts = {"patients": int(found.loc[(name, "dsc"), "patients"]), "scans outlined by one": int(left_out)}
        rows[title(str(name))] = {**parts, **counts}
    return pd.DataFrame(rows).T.rename_axis("organ")


def _interval(row: Any) -> str:
    return with_limits(row["mean"], row["low"], row["high"], 2 if row["mean"] > 1 else 3, sign="")


def tolerance_series(tables: Tables) -> pd.DataFrame:
    """Return derived and published tolerances, and the share of the surfaces that the published ones cover."""
    found, none = tables["tolerances"], float("nan")
    derived = found.assign(quantity="tolerance", series="derived here (95 % interval)", value=found["p95_mm"])
    published = found.assign(quantity="tolerance", series="published", value=found["published_mm"], low=none, high=none)
    within = found.assign(quantity="within", series="derived here (95 % interval)", value=found["within"])
    within = within.assign(low=found["within_low"], high=found["within_high"])
    return pd.concat([derived, published, within], ignore_index=True)


def tolerance_table(tables: Tables) -> pd.DataFrame:
    """Return derived and published tolerance of every organ, with the verdict on the published one."""
    found = tables["tolerances"]
    limits = zip(found["p95_mm"], found["low"], found["high"], strict=True)
    shares = zip(found["within"], found["within_low"], found["within_high"], strict=True)
    table = pd.DataFrame(
        {
            "organ": [title(str(name)) for name in found["organ"]],
            "derived (mm)": [with_limits(*row, digits=2, sign="") for row in limits],
            "published (mm)": [f"{value:.2f}" for value in found["published_mm"]],
            "covered": [f"{100 * a:.1f} ({100 * b:.1f} to {100 * c:.1f}) %".replace(" ", NBSP) for a, b, c in shares],
            "verdict": found["verdict"],
            "source of the published one": found["source"],
        }
    )
    return table.set_index("organ")


def swapped_series(tables: Tables) -> pd.DataFrame:
    """Return what swapped axes do to both metrics, for `hnlib.plotting.intervals_by_organ`."""
    found = tables["swapped_axes"].rename(columns={"metric": "quantity", "difference": "value"})
    return found.assign(series="swapped minus right")


def swapped_table(tables: Tables) -> pd.DataFrame:
    """Return surface DSC right and with swapped axes, the difference with its interval, and the worst scan."""
    found = tables["swapped_axes"].query("metric == 'surface_dsc'")
    limits = zip(found["difference"], found["low"], found["high"], strict=True)
    table = pd.DataFrame(
        {
            "organ": [title(str(name)) for name in found["organ"]],
            "right": found["right"].map("{:.3f}".format),
            "swapped": found["swapped"].map("{:.3f}".format),
            "difference": [with_limits(*row) for row in limits],
            "scan that moves most": found["largest"].map("{:+z.3f}".format),
        }
    )
    return table.set_index("organ")


def definitions_table(tables: Tables) -> pd.DataFrame:
    """Return mean HD95 in mm over patients by organ, one column a definition."""
    found = tables["hd95_definitions"].query("grid == 'native'")
    wide = found.pivot_table(index="organ", columns="metric", values="mean", sort=False).round(2)
    return wide.rename(index=title, columns=_definition).rename_axis(columns=None)


def definitions_legend(about: Mapping[str, Any]) -> pd.DataFrame:
    """Return what each definition of HD95 is."""
    rows = {_definition(name): str(words) for name, words in about["hd95_definitions"].items()}
    return pd.DataFrame({"definition": rows}).rename_axis("HD95")


def _definition(metric: str) -> str:
    """Return the short name of a definition of HD95."""
    words = metric.removesuffix("_mm").removeprefix("hd95").removeprefix("_").replace("_", " ")
    return words or "larger, by area"


def context_series(tables: Tables, metrics: pd.DataFrame, study: Mapping[str, Any]) -> pd.DataFrame:
    """Return networks beside observers on the organs that both have, each on its own patients.

    Where they have no organ in common the observers stand alone.
    """
    people = agreement_series(tables)
    found = organ_summary(metrics).query("split == 'test'").rename(columns={"metric": "quantity", "mean": "value"})
    data = "phantom" if is_phantom(study) else "OpenKBP" if study["dataset"] == "openkbp" else study["dataset"]
    networks = found[found["quantity"].isin(AGREEMENT)]
    networks = networks.assign(series=[f"{experiment_title(str(name))} ({data})" for name in networks["experiment"]])
    both = pd.concat([people, networks], ignore_index=True)
    both = both.assign(low=both["low"].clip(lower=0))  # Student's interval knows nothing of the end of the scale
    common = set(people["organ"]) & set(networks["organ"])
    return both[both["organ"].isin(common or set(people["organ"]))][
        ["organ", "series", "quantity", "value", "low", "high"]
    ]


def context_table(tables: Tables, metrics: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Return a network's surface DSC minus the observers' on OpenKBP's grid, unpaired, beside the paper's 5 points.

    Returns
    -------
    pandas.DataFrame
        ``observers``, ``network``, ``difference`` with Welch's 90 % interval, ``within 0.05`` by two one-sided tests.
    """
    pairs = tables["pairs"].query("grid == 'openkbp' and metric == 'surface_dsc'")
    rows = metrics.query("split == 'test' and metric == 'surface_dsc' and experiment == @experiment")
    values = seed_averaged(rows)
    found = {}
    for name in pairs["organ"].unique():
        people = by_patient(pairs[pairs["organ"] == name])
        network = values.loc[values["organ"] == name, "value"].dropna().to_numpy()
        if min(len(people), len(network)) < 2:
            continue
        sides = [Group(float(v.mean()), float(v.std(ddof=1)), len(v)) for v in (network, people)]
        interval = mean_difference(*sides)
        found[title(str(name))] = {
            "observers": f"{people.mean():.3f} (n = {len(people)})".replace(" ", NBSP),
            "network": f"{network.mean():.3f} (n = {len(network)})".replace(" ", NBSP),
            "difference": with_limits(interval.value, interval.low, interval.high),
            f"within {NEAR}": verdict(interval, (-NEAR, NEAR)).replace("equivalent", "yes").replace("different", "no"),
        }
    return pd.DataFrame(found).T.rename_axis("organ")


#: How much worse than a second observer is accepted, in the mean over organs.
MARGINS = {"dsc": 0.03, "surface_dsc": 0.05}
SECOND, THIRD = (f"simulated observer {number}" for number in (2, 3))


def simulated_observers(cases: int = 8, spacing_mm: tuple[float, float, float] = (4.0, 4.0, 3.0)) -> pd.DataFrame:
    """Return rows of ``metrics.csv`` of two simulated observers of phantom heads, measured against a third one.

    The grid is coarse, for speed.
    """
    counts = {"train": 0, "validation": 0, "test": cases}
    heads = [Phantom(counts, spacing_mm=spacing_mm, observer=number) for number in range(3)]
    rows = []
    for name in heads[0].split()["test"]:
        truth, *others = (head.load(name) for head in heads)
        for observer, other in zip((SECOND, THIRD), others, strict=True):
            found = evaluate_case(
                truth.labels, other.labels, spacing_mm=spacing_mm, organs=truth.organs, metrics=tuple(MARGINS)
            )
            rows.append(found.assign(profile="simulated", experiment=observer, seed=0, split="test", case=name))
    return pd.concat(rows, ignore_index=True)[list(COLUMNS)]


def non_inferiority_table(metrics: pd.DataFrame, candidate: str = THIRD, reference: str = SECOND) -> pd.DataFrame:
    """Return for each metric whether a candidate is worse than a second observer by less than the margin."""
    rows = {}
    for metric, margin in MARGINS.items():
        found = paired_non_inferiority(metrics, candidate, reference, margin=margin, metric=metric)
        rows[AGREEMENT[metric]] = {
            "margin": f"{margin:.2f}",
            "difference": f"{found.difference:+z.3f}",
            "lower limit (95 %, one-sided)": f"{found.low:+z.3f}",
            "p": "< 0.001" if found.p < 1e-3 else f"{found.p:.3f}",
            "not inferior": "shown" if found.shown else "not shown",
            "patients": found.patients,
        }
    return pd.DataFrame(rows).T.rename_axis(f"{candidate} against {reference}")


def observer_facts(tables: Tables, context: pd.DataFrame) -> Facts:
    """Return the phrases of the chapter."""
    own = tables["agreement"].query("grid == 'native' and metric == 'dsc'").set_index("organ")["mean"]
    wrong = tables["tolerances"].query("verdict in ('too small', 'too large')")
    judged = [f"{title(str(row.organ))} ({row.verdict})" for row in wrong.itertuples()]
    near = context[f"within {NEAR}"].eq("yes") if len(context) else pd.Series(dtype=bool)
    return {
        "patients": str(int(tables["agreement"]["patients"].max())),
        "organs": str(len(own)),
        "lowest": title(str(own.idxmin())),
        "lowest-dsc": f"{own.min():.2f}",
        "highest": title(str(own.idxmax())),
        "highest-dsc": f"{own.max():.2f}",
        "supported": str(int((tables["tolerances"]["verdict"] == "supported").sum())),
        "tolerances": str(len(tables["tolerances"])),
        "not-supported": listed(judged) if judged else "none",
        "near": f"{int(near.sum())} of {len(near)}" if len(near) else DASH,
        **_metric_facts(tables),
    }


def _metric_facts(tables: Tables) -> Facts:
    """Return the phrases on grids, swapped axes and definitions of HD95."""
    swapped = tables["swapped_axes"].query("metric == 'surface_dsc'").set_index("organ")
    clear = (swapped["low"] > 0) | (swapped["high"] < 0)
    found = tables["hd95_definitions"].query("grid == 'native'")
    wide = found.pivot_table(index="organ", columns="metric", values="mean")
    ratio = wide.max(axis=1) / wide.min(axis=1)
    surface = tables["agreement"].query("metric == 'surface_dsc'").set_index(["grid", "organ"])["mean"]
    change = (surface["openkbp"] - surface["native"]).dropna()
    lost = tables["agreement"].query("metric == 'lost' and mean > 0").set_index("organ")["mean"]
    shares = [f"{title(str(name))} {percent(float(share))}" for name, share in lost.items()]
    paper = paper_table1().query("organ == 'average' and metric == 'surface_dsc_axes_swapped'")["mean"]
    return {
        "swapped-clear": str(int(clear.sum())),
        "swapped-up": str(int((clear & (swapped["difference"] > 0)).sum())),
        "swapped-largest": f"{100 * swapped['difference'].abs().max():.1f}",
        "swapped-scan": f"{100 * swapped['largest'].abs().max():.1f}",
        "paper-range": f"{100 * (paper.max() - paper.min()):.1f}",
        "definitions-least": f"{ratio.min():.2f}",
        "definitions-most": f"{ratio.max():.2f}",
        "lost": listed(shares) if shares else "none",
        "grid-change": f"{change.min():+z.3f} to {change.max():+z.3f}",
    }
