"""Chapter 14: networks trained with each loss, beside the tables of Hosseini 2024."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hnlib.chapters.page import ALPHA, DASH, Facts, counted, limits, listed, mean_sd, title, told
from hnlib.chapters.questions import apart, differences
from hnlib.errors import ConfigError
from hnlib.experiment_files import experiment_title
from hnlib.experiments import load_profile, read_tables
from hnlib.experiments.audits import PROFILE
from hnlib.plotting.style import METRIC_LABELS
from hnlib.stats import (
    ALL_ORGANS,
    compare_experiments,
    organ_summary,
    paired_difference,
    printed_table,
    seed_averaged,
    seed_spread,
)

MEASURES = ("dsc", "iou", "precision", "recall")
#: Hosseini's names of methods and ours, in the order of his tables.
HOSSEINI: Mapping[str, str] = {
    "ce": "small_ce",
    "ce_dice": "small_dice_ce",
    "focal_dice": "small_focal_dice",
    "topk_ce_dice": "small_topk_ce_dice",
    "ce_topk_dice": "small_topk_dice_ce",
}
HOSSEINI_TITLES = ("CE", "CE + Dice", "focal + Dice", "topK CE + Dice", "CE + TopK Dice")
HOSSEINI_DATA = {"1": "abdomen, CT (Synapse)", "2": "heart, MR (ACDC)", "3": "brain lesions, MR (MSSEG)"}
#: So many losses are named in a sentence; of more, how many there are.
FEW = 4
#: K in percent and the experiment that trains with it, all else alike.
BY_PERCENT = {100: "small_dice_ce", 50: "small_topk_dice_ce", 30: "small_topk30_dice_ce"}


def load_arms(tables: Path | str, *arms: str) -> tuple[Any, ...]:
    """Return study, metrics, history and runs of the experiments of arms, from the profile that has most of them.

    Parameters
    ----------
    tables
        Folder of a study's tables.
    arms
        Names of arms of the profile `PROFILE`. Other profiles may have trained some of their experiments.

    Raises
    ------
    ConfigError
        When no run of any of them is in the tables.
    """
    found = read_tables(tables)
    wanted = _experiments(arms)
    known = found["runs"][found["runs"]["experiment"].isin(wanted)]
    if known.empty:
        raise ConfigError(f"no run of the arms {listed(list(arms))} in {tables}; train one first")
    counts = known.groupby("profile", sort=False)["experiment"].nunique()
    profile = str(counts.idxmax())
    order = {experiment: place for place, experiment in enumerate(wanted)}

    def chosen(table: pd.DataFrame) -> pd.DataFrame:
        rows = table[(table["profile"] == profile) & table["experiment"].isin(wanted)]
        return rows.sort_values("experiment", key=lambda names: names.map(order), kind="stable", ignore_index=True)

    return found["study"], *(chosen(found[name]) for name in ("metrics", "history", "runs"))


def _experiments(arms: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name for arm in arms for name in load_profile(PROFILE).experiments(arm)))


def coverage(runs: pd.DataFrame, *arms: str) -> pd.DataFrame:
    """Return which runs of the arms are there: seeds and steps by experiment, a dash for what is missing."""
    seeds = runs.groupby("experiment")["seed"].unique()
    steps = runs.groupby("experiment")["steps"].first()
    rows = []
    for name in _experiments(arms):
        there = sorted(seeds[name]) if name in seeds.index else []
        rows.append(
            {
                "experiment": experiment_title(name),
                "seeds": ", ".join(map(str, there)) or DASH,
                "steps": str(int(steps[name])) if name in steps.index else DASH,
            }
        )
    return pd.DataFrame(rows).set_index("experiment")


def coverage_phrase(runs: pd.DataFrame, *arms: str) -> str:
    """Say how many of the runs of the arms the tables hold, of which profile."""
    wanted = _experiments(arms)
    planned = sum(len(load_profile(PROFILE).seeds_for(name)) for name in wanted)
    lacking = [experiment_title(name) for name in wanted if name not in set(runs["experiment"])]
    text = (
        f"These tables hold {len(runs)} of {planned} runs, of {len(wanted) - len(lacking)} of "
        f"{len(wanted)} experiments, of profile {runs['profile'].iloc[0]}."
    )
    return f"{text} Not trained yet: {listed(lacking)}." if lacking else text


def baseline_of(metrics: pd.DataFrame) -> str:
    """Return what the others are compared with: Dice + CE, as in Hosseini 2024, or the first that was trained."""
    names = list(metrics["experiment"].unique())
    return HOSSEINI["ce_dice"] if HOSSEINI["ce_dice"] in names else str(names[0])


def organ_means(metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the mean over organs with its SD over seeds by experiment, and the mean over test cases of each organ."""
    rows = metrics[(metrics["metric"] == metric) & (metrics["split"] == "test")]
    found = organ_summary(rows)
    text = found.assign(value=[f"{mean:.3f}" for mean in found["mean"]])
    table = text.pivot_table(index="experiment", columns="organ", values="value", aggfunc="first", sort=False)
    spread = seed_spread(rows).set_index("experiment").loc[table.index]
    table.insert(0, ALL_ORGANS, [mean_sd(m, s, 3) for m, s in zip(spread["mean"], spread["sd"], strict=True)])
    organs = {str(name): title(str(name)) for name in found["organ"].unique()}
    return table.rename(index=experiment_title, columns=organs).rename_axis(index=None, columns=METRIC_LABELS[metric])


def loss_tests(metrics: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return the tests of every experiment against the baseline; the mean DSC over organs is the primary endpoint."""
    return compare_experiments(metrics, baseline, measures=MEASURES)


def primary_table(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the primary endpoint of each experiment: difference, intervals, Holm's p over patients, what is shown."""
    rows = _primary(tests)
    return pd.DataFrame(
        {
            "difference in DSC": [f"{value:+z.4f}" for value in rows["difference"]],
            "over cases": [limits(a, b) for a, b in zip(rows["low"], rows["high"], strict=True)],
            "p (Holm)": [f"{p:.2g}" for p in rows["p_holm"]],
            "over seeds": [limits(a, b) for a, b in zip(rows["seeds_low"], rows["seeds_high"], strict=True)],
            "shown": [_shown(row) for row in rows.itertuples()],
        },
        index=pd.Index([experiment_title(str(name)) for name in rows["experiment"]], name="experiment"),
    )


def _primary(tests: pd.DataFrame) -> pd.DataFrame:
    return tests[tests["primary"].astype(bool)] if len(tests) else tests


def _runs_alone(rows: pd.DataFrame) -> pd.Series[bool]:
    """Say of each primary endpoint whether the patients show a difference and the seeds do not."""
    return ~rows["shown"].astype(bool) & (rows["p_holm"] < ALPHA)


def _shown(row: Any) -> str:
    """Say whether patients and seeds show a difference, or the patients alone, for the runs at hand."""
    return "yes" if row.shown else "for these runs" if row.p_holm < ALPHA else "no"


def secondary_table(tests: pd.DataFrame) -> pd.DataFrame:
    """Return differences by metric and experiment (rows) and organ; a star where the chain of tests shows them."""
    rows = tests[~tests["primary"].astype(bool)] if len(tests) else tests
    text = [
        f"{value:+z.3f}{'*' if shown else ''}" for value, shown in zip(rows["difference"], rows["shown"], strict=True)
    ]
    wide = rows.assign(text=text).pivot_table(
        index=["metric", "experiment"], columns="organ", values="text", aggfunc="first", sort=False
    )
    organs = {str(name): title(str(name)) for name in wide.columns if name != ALL_ORGANS}
    wide = wide[[*organs, *([ALL_ORGANS] if ALL_ORGANS in wide else [])]].fillna("")
    wide = wide.rename(index=experiment_title, level="experiment").rename(index=METRIC_LABELS, level="metric")
    return wide.rename(columns=organs).rename_axis(columns=None)


def metric_rows(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the differences over all organs, for the figure."""
    return tests[tests["organ"] == ALL_ORGANS]


def hosseini_table(number: str) -> pd.DataFrame:
    """Return one of Hosseini's tables as printed, in per cent: structures and metrics by method."""
    rows = printed_table("hosseini2024")
    rows = rows[rows["table"] == number]
    wide = rows.pivot_table(index=["metric", "organ"], columns="method", values="mean", sort=False)[list(HOSSEINI)]
    wide.columns = pd.Index(HOSSEINI_TITLES)
    names = {
        "dsc_percent": "DSC, %",
        "iou_percent": "IoU, %",
        "precision_percent": "precision, %",
        "recall_percent": "recall, %",
    }
    return (
        wide.rename(index=names, level="metric")
        .rename(index=_structure, level="organ")
        .rename_axis(["", HOSSEINI_DATA[number]])
    )


def _structure(name: str) -> str:
    return "mean" if name == "average" else name.replace("_", " ")


def beside_hosseini(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the gain of each method over Dice + CE in mean DSC, in points: ours, and those of his three tables."""
    printed = printed_table("hosseini2024")
    printed = printed[(printed["organ"] == "average") & (printed["metric"] == "dsc_percent")]
    wide = printed.pivot_table(index="method", columns="table", values="mean").loc[list(HOSSEINI)]
    gains = (wide - wide.loc["ce_dice"]).rename(columns=HOSSEINI_DATA)
    known = set(metrics["experiment"])
    ours = [
        100 * paired_difference(metrics, own, HOSSEINI["ce_dice"]).difference
        if {own, HOSSEINI["ce_dice"]} <= known and own != HOSSEINI["ce_dice"]
        else (0.0 if own in known and own == HOSSEINI["ce_dice"] else np.nan)
        for own in HOSSEINI.values()
    ]
    table = gains.map(lambda value: f"{value:+z.2f}")
    table.insert(0, "head and neck, CT (here)", [DASH if np.isnan(gain) else f"{gain:+z.2f}" for gain in ours])
    table.index = pd.Index(HOSSEINI_TITLES, name="gain over CE + Dice, points")
    return table.rename_axis(columns=None)


def percent_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return DSC, precision and recall of the networks trained at each K, as far as there are any: means over organs.

    The differences from K = 100 carry their 95 % intervals over patients.
    """
    test, whole = metrics[metrics["split"] == "test"], BY_PERCENT[100]
    rows = {}
    for percent, name in BY_PERCENT.items():
        own = seed_averaged(test[test["experiment"] == name])
        cells = {}
        for metric in ("dsc", "precision", "recall"):
            means = own[own["metric"] == metric].groupby("organ")["value"].mean()
            cells[metric] = DASH if means.empty else f"{means.mean():.3f}"
            if percent != 100 and len(means) and (test["experiment"] == whole).any():
                found = paired_difference(test, name, whole, metric=metric)
                cells[metric] += f" ({found.low:+z.3f} to {found.high:+z.3f})"
        cells = {METRIC_LABELS[metric]: text for metric, text in cells.items()}
        rows[f"K = {percent} %"] = {**cells, "seeds": str(test.loc[test["experiment"] == name, "seed"].nunique())}
    return pd.DataFrame(rows).T


def percent_phrase(metrics: pd.DataFrame) -> str:
    """Say whether recall rises and precision falls in networks from each trained K to the next smaller one."""
    test = metrics[metrics["split"] == "test"]
    there = [percent for percent, name in BY_PERCENT.items() if name in set(test["experiment"])]
    if there[:2] != [100, 50]:
        return "Networks trained at K = 100 and K = 50 are not both in these tables yet."
    said = []
    for more, fewer in pairwise(there):
        found = {
            name: paired_difference(test, BY_PERCENT[fewer], BY_PERCENT[more], metric=name)
            for name in ("precision", "recall")
        }
        words = [
            f"{name} by {one.difference:+z.3f} ({one.low:+z.3f} to {one.high:+z.3f})" for name, one in found.items()
        ]
        agrees = found["precision"].high < 0 < found["recall"].low
        against = found["precision"].low > 0 or found["recall"].high < 0
        verdict = "as predicted" if agrees else "against the prediction" if against else "which decides nothing"
        said.append(f"From K = {more} to K = {fewer} the trained networks change in {listed(words)}, {verdict}.")
    return " ".join(said)


def compared_facts(metrics: pd.DataFrame, tests: pd.DataFrame, runs: pd.DataFrame, baseline: str) -> Facts:
    """Return the phrases of the chapter."""
    means = seed_spread(metrics[metrics["split"] == "test"]).query("metric == 'dsc'").set_index("experiment")["mean"]
    rows = _primary(tests)
    seeds = runs.groupby("experiment")["seed"].nunique()
    fewer = "" if seeds.min() == seeds.max() else f"{seeds.min()} to "
    return {
        "coverage": coverage_phrase(runs, "losses"),
        "best": experiment_title(str(means.idxmax())),
        "best-dsc": f"{means.max():.3f}",
        "baseline": experiment_title(baseline),
        "baseline-dsc": f"{means[baseline]:.3f}",
        "verdict": _verdict(rows),
        "alone": _alone(rows),
        "cases": str(metrics.loc[metrics["split"] == "test", "case"].nunique()),
        "seeds": f"{fewer}{counted(seeds.max(), 'seed')}",
        "percent": percent_phrase(metrics),
        "topk": _topk(metrics),
    }


def without_ce(tables: Path | str) -> pd.DataFrame:
    """Return what adding cross-entropy to TopK Dice changes in the mean DSC, or that it is not yet run."""
    metrics = read_tables(tables)["metrics"]
    return differences(metrics[metrics["profile"] == PROFILE], [(HOSSEINI["ce_topk_dice"], "small_topk_dice")])


def _topk(metrics: pd.DataFrame) -> str:
    """Say what TopK Dice gains over Dice here, and in the three tables of Hosseini."""
    names = [HOSSEINI["ce_topk_dice"], HOSSEINI["ce_dice"]]
    if not set(names) <= set(metrics["experiment"]):
        return "TopK Dice and Dice are not both in these tables yet."
    printed = beside_hosseini(metrics).loc["CE + TopK Dice", list(HOSSEINI_DATA.values())].astype(float) / 100
    theirs = listed([f"{gain:+.3f}" for gain in printed])
    return f"TopK Dice for Dice changes the mean DSC by {told(apart(metrics, *names))}, in the paper by {theirs}."


def _verdict(rows: pd.DataFrame) -> str:
    """Say which losses differ from the baseline over patients and seeds."""
    if not len(rows):
        return "There is nothing to compare it with yet."
    shown = rows[rows["shown"].astype(bool)]
    what = f"a difference for {_which(shown, rows)}" if len(shown) else "no difference for any other"
    return f"Corrected for the number of losses, test patients and seeds show {what}."


def _alone(rows: pd.DataFrame) -> str:
    """Say which of the other losses the patients alone tell from the baseline."""
    if not len(rows):
        return ""
    alone, text = rows[_runs_alone(rows)], ""
    if len(alone):
        words = listed(_named(alone)) if len(alone) <= FEW else f"{len(alone)} more, {_range(alone)}"
        text = f"For the runs at hand alone the test patients show a difference for {words}."
    if rows["p_seeds"].isna().all():
        text += " With one seed it is not known whether a second training would show the same."
    return text.lstrip()


def _which(rows: pd.DataFrame, others: pd.DataFrame) -> str:
    words = _named(rows)
    return listed(words) if len(words) <= FEW else f"{len(words)} of {len(others)} others, {_range(rows)}"


def _range(rows: pd.DataFrame) -> str:
    return f"from {rows['difference'].min():+z.3f} to {rows['difference'].max():+z.3f}"


def _named(rows: pd.DataFrame) -> list[str]:
    """Return experiments with their differences, in words."""
    pairs = zip(rows["experiment"], rows["difference"], strict=True)
    return [f"{experiment_title(str(name))} ({difference:+z.3f})" for name, difference in pairs]
