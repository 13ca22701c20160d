"""Chapter 17: coarse to fine, its stages in pictures, its parts in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from hnlib.chapters.controlled import SMALL
from hnlib.chapters.data import picture
from hnlib.chapters.page import DASH, NBSP, TOO_WEAK, Facts, counted, listed, mean_sd, on_one_machine, percent, title
from hnlib.chapters.questions import NOT_RUN, asked, differences, minutes_by_stage
from hnlib.experiment_files import experiment_title
from hnlib.experiments import read_tables
from hnlib.files import read_json
from hnlib.plotting.style import METRIC_LABELS
from hnlib.stats import compare_experiments, mean_over_organs, organ_summary, printed_table

#: Stages and rivals in the order of the tables.
PARTS = ("coarse_axial", "coarse_coronal", "coarse_sagittal", "coarse_fused", "coarse_fused_weights", "coarse_to_fine")
RIVALS = ("unet_2d", "two_stage", "rival_dynunet")
EXTRA = (
    "coarse_to_fine_shared_pairs",
    "coarse_axial_plain",
    "coarse_axial_full_weights",
    "small_ca_dice_ce",
    "hybrid_ca_dice_ce",
)
#: The differences that the chapter puts into words: experiment, baseline.
WHOLE = ("coarse_to_fine", "rival_dynunet")
FUSION = ("coarse_fused", "coarse_axial")
FINE = ("coarse_to_fine", "coarse_fused_weights")
HYBRID = ("hybrid_ca_dice_ce", "small_ca_dice_ce")
#: Differences that the chapter asks for: experiment, baseline.
QUESTIONS = (
    FUSION,
    ("coarse_fused", "coarse_coronal"),
    ("coarse_fused", "coarse_sagittal"),
    ("coarse_fused_weights", "coarse_fused"),
    FINE,
    ("coarse_to_fine", "unet_2d"),
    ("coarse_to_fine", "two_stage"),
    WHOLE,
    ("coarse_axial", "coarse_axial_plain"),
    ("coarse_axial", "coarse_axial_full_weights"),
    ("coarse_to_fine_shared_pairs", "coarse_to_fine"),
    HYBRID,
)
#: The same for the tiny organs of the phantom: what two stages do for them.
TINY_PARTS = ("coarse_axial", "coarse_fused_weights", "coarse_to_fine", "rival_dynunet")
TINY_QUESTIONS = (("coarse_to_fine", "coarse_axial"), FINE, WHOLE)
METHODS = {
    "unet": "U-Net",
    "two_stage_unet": "two-stage 3D U-Net",
    "srm_fcnn": "SRM + FCNN",
    "coarse_to_fine": "Pu et al.",
}
BOX = ("box_recall", "box_fallback")


def stage_facts(tables: Path | str) -> Facts:
    """Return the phrases on the grid and the boxes of the drawn case; see `hnlib.experiments.pictures.draw_stages`."""
    facts = read_json(Path(picture(tables, "stages")).with_suffix(".json"), "draw it again with hnlib stages")
    voxels = math.prod(facts["grid"])
    share = sorted(100 * math.prod(size) / voxels for size in facts["box_voxels"].values())
    return {
        "organs": str(len(share)),
        "smallest": f"{share[0]:.2g} %",
        "largest": f"{share[-1]:.2g} %",
        "grid": " × ".join(map(str, facts["grid"])),
        "edge": f"{facts['spacing_mm'][0]:.1f} mm",
    }


def coarse_runs(tables: Path | str, profile: str) -> dict[str, pd.DataFrame]:
    """Return metrics, history and runs of a profile's coarse-to-fine experiments; empty tables before any is run."""
    found = read_tables(tables)
    names = (*PARTS, *RIVALS, *EXTRA)
    return {
        name: found[name][(found[name]["profile"] == profile) & found[name]["experiment"].isin(names)]
        for name in ("metrics", "history", "runs")
    }


def parts_table(metrics: pd.DataFrame, experiments: tuple[str, ...] = PARTS) -> pd.DataFrame:
    """Return mean test DSC and its SD over cases by organ, one column an experiment; a dash where none is run."""
    test = metrics[(metrics["split"] == "test") & (metrics["metric"] == "dsc")]
    if test.empty:
        return pd.DataFrame({"test DSC": [NOT_RUN]}, index=["all organs"])
    found = organ_summary(test)
    text = found.assign(text=[mean_sd(m, s, 3) for m, s in zip(found["mean"], found["sd"], strict=True)])
    wide = text.pivot_table(index="organ", columns="experiment", values="text", aggfunc="first", sort=False)
    means = mean_over_organs(test).groupby("experiment")["mean"].mean()
    wide = wide.rename(index=title)
    wide.loc["mean over organs"] = [f"{means[name]:.3f}" for name in wide.columns]
    wide.loc["seeds"] = [str(test.loc[test["experiment"] == name, "seed"].nunique()) for name in wide.columns]
    wide = wide.reindex(columns=list(experiments)).astype(object).fillna(DASH)
    return wide.rename(columns=experiment_title).rename_axis(index=None, columns=None)


def questions_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return each question's difference in mean test DSC with its interval over patients and over seeds."""
    return differences(metrics, QUESTIONS)


def tiny_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return mean test DSC of the phantom's tiny organs and of the others after each stage, and of one 3D network."""
    groups = {"tiny organs": metrics["organ"].isin(SMALL), "the others": ~metrics["organ"].isin(SMALL)}
    tables = {name: parts_table(metrics[chosen], TINY_PARTS) for name, chosen in groups.items()}
    if metrics.empty:
        return tables["tiny organs"]
    seeds = tables["the others"].loc[["seeds"]]
    rows = {name: table.drop(index="seeds") for name, table in tables.items()}
    return pd.concat([*rows.values(), seeds], keys=[*rows, ""]).rename_axis([None, None])


def tiny_questions(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the differences in the mean DSC of the phantom's tiny organs alone."""
    return differences(metrics[metrics["organ"].isin(SMALL)], TINY_QUESTIONS)


def box_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return by organ how much of it the boxes hold on test cases, how often one held less than all, and fallbacks."""
    rows = metrics[(metrics["split"] == "test") & metrics["metric"].isin(BOX)]
    rows = rows[rows["experiment"].isin(("coarse_to_fine", "two_stage"))]
    if rows.empty:
        return pd.DataFrame({"box recall": [NOT_RUN]}, index=["all organs"])
    recall = rows[rows["metric"] == "box_recall"].groupby(["organ", "experiment"], sort=False)["value"]
    found = pd.DataFrame({"mean recall": recall.mean().round(4), "least": recall.min().round(3)})
    found["cut"] = recall.apply(lambda values: f"{int((values < 1).sum())} of {len(values)}")
    fallen = rows[rows["metric"] == "box_fallback"].groupby(["organ", "experiment"], sort=False)["value"].sum()
    found["fall backs"] = fallen.astype(int)
    return found.rename(index=title, level=0).rename(index=experiment_title, level=1).rename_axis(index=["", ""])


def costs_table(history: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return what each experiment cost: seeds, parameters, median minutes on the machine of most runs, steps."""
    if runs.empty:
        return pd.DataFrame({"minutes": [NOT_RUN]}, index=["all experiments"])
    table = runs.groupby("experiment", sort=False).agg(seeds=("seed", "nunique"), parameters=("parameters", "first"))
    table["minutes"] = on_one_machine(runs).groupby("experiment")["seconds"].median() / 60
    table["steps"] = history.groupby("experiment")["step"].max()
    order = [name for name in (*PARTS, *RIVALS, *EXTRA) if name in table.index]
    return table.loc[order].rename(index=experiment_title).round({"minutes": 1}).rename_axis(index=None)


def stage_minutes(history: pd.DataFrame) -> pd.DataFrame:
    """Return the minutes of each training of the whole system, mean over seeds; not yet run before it is."""
    return minutes_by_stage(history, "coarse_to_fine")


def paper_view_table() -> pd.DataFrame:
    """Return Table I of the paper: DSC in per cent of each view and their fusion; other scans than ours."""
    return _printed("I", ("front", "top", "side", "fusion"))


def paper_rival_table() -> pd.DataFrame:
    """Return Tables II and III of the paper, DSC in per cent and HD95 in mm; other scans than ours."""
    parts = {"II, DSC (%)": _printed("II"), "III, HD95 (mm)": _printed("III")}
    return pd.concat(parts, axis=1)


def _printed(table: str, order: tuple[str, ...] = ()) -> pd.DataFrame:
    rows = printed_table("pu2020").query("table == @table")
    wide = rows.pivot_table(index="organ", columns="method", values="mean", sort=False)
    wide.loc["mean"] = wide.mean()
    names = {name: title(name) for name in wide.index if name != "mean"}
    wide = wide[list(order) or list(wide.columns)].round(1 if table != "III" else 2)
    wide = wide.rename(index={**names, "mean": "mean of the nine"}, columns=METHODS)
    return wide.rename_axis(index=None, columns=None)


def coarse_facts(metrics: pd.DataFrame) -> Facts:
    """Return the phrases of the chapter: what the runs say, and what the paper's own tables do."""
    views, rivals = (
        paper_view_table().loc["mean of the nine"],
        paper_rival_table()["II, DSC (%)"].loc["mean of the nine"],
    )
    questions = questions_table(metrics)
    return {
        "verdict": _verdict(questions),
        "parts": _parts(questions),
        "hybrid": _hybrid(questions),
        "paper-fusion": f"{views['fusion'] - views['top']:+z.1f}",
        "paper-fine": f"{rivals[METHODS['coarse_to_fine']] - views['fusion']:+z.1f}",
        "winner": _winner(metrics),
        "state": _state(metrics),
    }


def _verdict(questions: pd.DataFrame) -> str:
    """Say whether the whole system beats one network."""
    whole = asked(questions, WHOLE)
    if whole["difference"] == NOT_RUN:
        return "The system and one network alone have not both been run yet."
    signs = {text[0] for key in ("over cases", "over seeds") for text in whole[key].replace(NBSP, " ").split(" to ")}
    word = {"+": "Yes", "-": "No"}.get("".join(signs), "Not shown")
    return (
        f"{word}: at about equal time the whole system has {whole['difference']} in mean test DSC against one 3D "
        f"network ({_intervals(whole)})."
    ).replace(NBSP, " ")


def _parts(questions: pd.DataFrame) -> str:
    """Say what fusing and what the networks of the organs add."""
    fusion, fine = (asked(questions, pair) for pair in (FUSION, FINE))
    if NOT_RUN in (fusion["difference"], fine["difference"]):
        return "The parts of the system wait for runs."
    return (
        f"Inside the system the plain mean of the views changes the axial view by {fusion['difference']} "
        f"({_intervals(fusion)}), and the networks of the organs the fused views by {fine['difference']} "
        f"({_intervals(fine)})."
    ).replace(NBSP, " ")


def tiny_phrase(metrics: pd.DataFrame) -> str:
    """Say what the system does for the tiny organs of the phantom, against its own coarse stage and one 3D network."""
    questions = tiny_questions(metrics)
    words = [
        f"{row['difference']} against {name} ({_intervals(row)}; {counted(row['seeds'], 'seed')})"
        for name, row in (("the fused views", asked(questions, FINE)), ("one 3D network", asked(questions, WHOLE)))
        if row["difference"] != NOT_RUN
    ]
    if not words:
        return "What it does for tiny organs waits for runs on the phantom."
    views = metrics[(metrics["experiment"] == FINE[1]) & (metrics["split"] == "test") & (metrics["metric"] == "dsc")]
    reached = views[views["organ"].isin(SMALL)]["value"].mean()
    if reached < TOO_WEAK:
        words[0] += f", which have not learnt them (mean DSC {reached:.2f})"
    return f"On the tiny organs of the phantom, which is no patient, it has {listed(words)}.".replace(NBSP, " ")


def _intervals(row: Mapping[str, Any]) -> str:
    return f"over patients {row['over cases']}, over seeds {row['over seeds']}"


def _hybrid(questions: pd.DataFrame) -> str:
    """Say what the network of 2D and 3D layers gains over the 3D one."""
    found = asked(questions, HYBRID)
    if found["difference"] == NOT_RUN:
        return "The hybrid network is not yet run."
    sample = f"{counted(found['seeds'], 'seed')}, {counted(found['cases'], 'case')}"
    seeds = "" if found["over seeds"] == DASH else f", over seeds {found['over seeds']}"
    return (
        f"The hybrid network against the 3D one: {found['difference']} in mean test DSC "
        f"(over patients {found['over cases']}{seeds}; {sample})."
    ).replace(NBSP, " ")


def _state(metrics: pd.DataFrame) -> str:
    """Say what the coarse masks are worth, and what follows where that is little."""
    fused = metrics["experiment"].isin(("coarse_fused", "coarse_fused_weights")) & (metrics["split"] == "test")
    if not fused.any():
        return ""
    means = metrics[fused].groupby(["experiment", "metric"])["value"].mean().unstack()
    words = []
    for name, row in means.reindex(columns=["dsc", "precision", "recall"]).iterrows():
        known = [f"{METRIC_LABELS[str(key)]} {value:.2f}" for key, value in row.dropna().items()]
        words.append(f"{experiment_title(str(name))}: {'nothing marked' if row['dsc'] == 0 else ', '.join(known)}")
    text = f"Over organs and test cases, {'; '.join(words)}."
    boxes = (metrics["experiment"] == "coarse_to_fine") & (metrics["metric"] == "box_fallback")
    boxes &= metrics["split"] == "test"
    if boxes.any():
        share = percent(metrics.loc[boxes, "value"].mean())
        text += f" {share} of the boxes of test cases fell back to their place in training scans."
    if means["dsc"].max() < TOO_WEAK:
        text += " These are no outlines, so that what fusing or refining adds to them says nothing of better ones."
    return text


def _winner(metrics: pd.DataFrame) -> str:
    """Say where two stages beat one: the organs in which the fine stage gains, smallest first."""
    wanted = ("coarse_to_fine", "coarse_fused_weights")
    rows = metrics[metrics["experiment"].isin(wanted) & (metrics["metric"] == "dsc")]
    if rows["experiment"].nunique() < len(wanted):
        return "Where two stages beat one waits for runs."
    tests = compare_experiments(rows, wanted[1], measures=["dsc"]).query("not primary")
    gain = tests[(tests[["low", "seeds_low"]] > 0).all(axis=1)].sort_values("difference", ascending=False)
    loss = tests[(tests[["high", "seeds_high"]] < 0).all(axis=1)].sort_values("difference")
    words = [
        f"{verb} " + ", ".join(f"{title(str(row['organ']))} ({row['difference']:+z.3f})" for _, row in part.iterrows())
        for verb, part in (("gains in", gain), ("loses in", loss))
        if len(part)
    ]
    found = " and ".join(words) or "shows no difference"
    return f"Organ by organ the fine stage {found} (95 % intervals over patients and over seeds)."
