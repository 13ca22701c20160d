"""Chapter 10: what the paper changes at once, one thing at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hnlib.chapters.page import DASH, TOO_WEAK, Facts, beyond_both, counted, limits, listed, mean_sd, seeds_phrase, told
from hnlib.chapters.questions import NOT_RUN, apart, lost_organs, lost_words, without_lost
from hnlib.experiment_files import experiment_title
from hnlib.experiments import load_profile, planned_seeds, read_tables


class Contrast(NamedTuple):
    """Two experiments that differ in what is asked."""

    group: str
    question: str
    experiment: str
    baseline: str


_ROWS = (
    ("patch", "small patch, with all that comes with it", "small_nnu_dice_ce", "large_nnu_dice_ce"),
    ("patch", "small patch alone, network of the large", "small_patch_same_net", "large_nnu_dice_ce"),
    ("patch", "small patch alone, network of the small", "small_nnu_dice_ce", "large_patch_small_net"),
    ("patch", "network of the small alone, large patch", "large_patch_small_net", "large_nnu_dice_ce"),
    ("patch", "small patch, equal voxels a step", "small_batch8", "large_nnu_dice_ce"),
    ("patch", "small patch, equal voxels in all", "small_nnu_dice_ce", "large_quarter_steps"),
    ("voxels", "twice the voxels a step, small patch", "small_batch4", "small_nnu_dice_ce"),
    ("voxels", "four times the voxels a step, small patch", "small_batch8", "small_nnu_dice_ce"),
    ("loss", "ca-Dice, all three switches, small patch", "small_ca_dice_ce", "small_nnu_dice_ce"),
    ("loss", "ca-Dice, all three switches, large patch", "large_ca_dice_ce", "large_nnu_dice_ce"),
    ("loss", "each sample for itself, not the batch", "small_sample_dice_ce", "small_nnu_dice_ce"),
    ("loss", "background in", "small_background_dice_ce", "small_nnu_dice_ce"),
    ("loss", "absent classes left out", "small_skip_dice_ce", "small_nnu_dice_ce"),
    ("loss", "ca-Dice as printed, not as released", "small_ca_print_dice_ce", "small_ca_dice_ce"),
    ("draw", "the paper's draw, small patch", "small_paper_draw", "small_nnu_dice_ce"),
    ("draw", "the paper's draw, large patch", "large_paper_draw", "large_nnu_dice_ce"),
    ("draw", "small patch under the paper's draw", "small_paper_draw", "large_paper_draw"),
    ("draw", "ca-Dice under the paper's draw, small patch", "small_ca_paper_draw", "small_paper_draw"),
    ("draw", "ca-Dice under the paper's draw, large patch", "large_ca_paper_draw", "large_paper_draw"),
)
CONTRASTS = tuple(Contrast(*row) for row in _ROWS)
#: Questions about the patch whose answers open the chapter.
_PATCH = {
    "whole": "small patch, with all that comes with it",
    "equal-step": "small patch, equal voxels a step",
    "equal-all": "small patch, equal voxels in all",
}
#: What weights of classes in the loss do; on the phantom alone, where some are tiny.
GENERALISED = (
    Contrast("loss", "generalised Dice, large patch", "large_generalised_dice_ce", "large_nnu_dice_ce"),
    Contrast("loss", "generalised Dice, small patch", "small_generalised_dice_ce", "small_nnu_dice_ce"),
)
#: Organs of the phantom that are tiny in life.
SMALL = ("optic_chiasm", "optic_nerve_left", "optic_nerve_right", "lens_left", "lens_right")
#: Experiments that see more or fewer voxels in a step, for the three readings.
PACES = ("large_nnu_dice_ce", "small_nnu_dice_ce", "small_batch4", "small_batch8")
#: Losses by their switches (sample pooling, background in, absent classes left out), from nnU-Net's Dice to ca-Dice.
CORNERS = {
    (False, False, False): "small_nnu_dice_ce",
    (True, False, False): "small_sample_dice_ce",
    (False, True, False): "small_background_dice_ce",
    (False, False, True): "small_skip_dice_ce",
    (False, True, True): "small_ca_batch_dice_ce",
    (True, False, True): "small_ca_organs_dice_ce",
    (True, True, False): "small_ca_count_dice_ce",
    (True, True, True): "small_ca_dice_ce",
}
SWITCHES = ("each sample for itself", "background in", "absent classes left out")


def load_controlled(tables: Path | str, profile: str = "") -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """Return the study's facts, test metrics and history of the profile in which most questions can be answered.

    Returns
    -------
    tuple
        ``study.json`` with ``profile`` replaced by the chosen one; ``metrics``; ``history`` with ``voxels`` and
        ``hardware`` added. Of equals the study's own profile is chosen.
    """
    read = read_tables(tables)
    runs, own = read["runs"], read["study"]["profile"]

    def answered(name: str) -> tuple[int, bool]:
        return len(_answered(runs[runs["profile"] == name], CONTRASTS)), name == own

    chosen = profile or max(runs["profile"].unique(), key=answered)
    tables_of = {name: read[name][read[name]["profile"] == chosen] for name in ("metrics", "history", "runs")}
    metrics, history, runs = tables_of.values()
    keyed = history.merge(runs[["experiment", "seed", "voxels_per_step", "hardware"]], on=["experiment", "seed"])
    keyed = keyed.assign(voxels=keyed["step"] * keyed["voxels_per_step"])
    return {**read["study"], "profile": chosen}, metrics, keyed


def contrasts(metrics: pd.DataFrame, *, metric: str = "dsc", wanted: Sequence[Contrast] = CONTRASTS) -> pd.DataFrame:
    """Answer each question by the paired difference on the test patients, as far as its runs are there.

    Returns
    -------
    pandas.DataFrame
        ``group``, ``question``, ``value``, ``low``, ``high`` (95 %, over patients), ``seeds_low``, ``seeds_high``
        (over seeds), ``patients``, ``seeds`` (the fewer of both sides) of the profile's ``wanted``, ``lacking``.
        Without runs the numbers are NaN.
    """
    known = set(metrics["experiment"])
    rows = []
    for one in wanted:
        lacking = [name for name in (one.experiment, one.baseline) if name not in known]
        row = _empty(one.group, one.question)
        if not lacking:
            row |= apart(metrics, one.experiment, one.baseline, metric)
            row["wanted"] = planned_seeds(str(metrics["profile"].iloc[0]), (one.experiment, one.baseline))
        rows.append({**row, "lacking": listed([experiment_title(name) for name in lacking]) if lacking else ""})
    return pd.DataFrame(rows)


def _empty(group: str, question: str) -> dict[str, Any]:
    numbers = dict.fromkeys(("value", "low", "high", "seeds_low", "seeds_high"), np.nan)
    return {"group": group, "question": question, **numbers, "patients": 0, "seeds": 0, "wanted": 0}


def switches(metrics: pd.DataFrame, *, metric: str = "dsc") -> pd.DataFrame:
    """Return what each switch of the loss does in the mean over the settings of the other two.

    Returns
    -------
    pandas.DataFrame
        Rows as of `contrasts`. A switch is answered where all eight corners have runs, by the seeds that all of them
        have.
    """
    corners = metrics[metrics["experiment"].isin(CORNERS.values())]
    seeds = [set(rows["seed"]) for _, rows in corners.groupby("experiment")]
    number = len(CORNERS) - len(seeds)
    common = set.intersection(*seeds) if seeds else set()
    lacking = f"{number} of {len(CORNERS)} losses" if number else "" if common else "a seed that all losses have"
    used = corners[corners["seed"].isin(common)]
    rows = []
    for place, switch in enumerate(SWITCHES):
        row = _empty("loss", switch)
        if not lacking:
            sides = {name: "with" if corner[place] else "without" for corner, name in CORNERS.items()}
            keys = ["profile", "experiment", "seed", "split", "case", "organ", "metric"]
            means = used.assign(experiment=used["experiment"].map(sides)).groupby(keys)["value"].mean().reset_index()
            row |= apart(means, "with", "without", metric)
            row["wanted"] = planned_seeds(str(used["profile"].iloc[0]), CORNERS.values())
        rows.append({**row, "lacking": lacking})
    return pd.DataFrame(rows)


def contrast_view(table: pd.DataFrame) -> pd.DataFrame:
    """Return questions and answers for a page; what is not run says so, what has few seeds says partial."""
    found: list[Any] = list(table.itertuples())
    rows = [
        {
            "question": row.question,
            "difference": DASH if np.isnan(row.value) else f"{row.value:+z.3f}",
            "over cases": limits(row.low, row.high),
            "over seeds": limits(row.seeds_low, row.seeds_high),
            "state": _state(row),
        }
        for row in found
    ]
    return pd.DataFrame(rows).set_index("question")


def lost_view(studies: Iterable[tuple[pd.DataFrame, Sequence[Contrast]]]) -> pd.DataFrame:
    """Return the questions of which a run lost an organ (`hnlib.chapters.questions.lost_organs`), with and without it.

    Parameters
    ----------
    studies
        Metrics of one profile and what is asked of them; one or more.

    Returns
    -------
    pandas.DataFrame
        Index ``question``; ``lost`` (run and organ), the difference of ``all runs`` and ``without`` those, and the
        interval ``over seeds`` without those. One row that says so where no run lost an organ.
    """
    rows = {}
    for metrics, wanted in studies:
        for one in _answered(metrics, wanted):
            sides = metrics[metrics["experiment"].isin([one.experiment, one.baseline])]
            lost = lost_organs(sides)
            if len(lost):
                every, other = (contrasts(table, wanted=[one]).iloc[0] for table in (sides, without_lost(sides)))
                rows[one.question] = {
                    "lost": lost_words(lost),
                    "all runs": f"{every['value']:+z.3f}",
                    "without": DASH if other["lacking"] else f"{other['value']:+z.3f}",
                    "without, over seeds": limits(other["seeds_low"], other["seeds_high"]),
                }
    table = pd.DataFrame(rows or {DASH: {"lost": "no run lost an organ"}}).T
    return table.rename_axis("question")


def _state(row: Any) -> str:
    if row.lacking:
        return f"waits for {row.lacking}"
    seeds = counted(row.seeds, "seed") if row.seeds >= row.wanted else f"partial, {row.seeds} of {row.wanted} seeds"
    return f"{row.patients} cases, {seeds}"


# The twin on the phantom


def load_twin(tables: Path | str, profile: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return metrics and confidence of the runs of a profile; without a row where it is not yet run."""
    read = read_tables(tables)
    metrics, confidence = (read[name][read[name]["profile"] == profile] for name in ("metrics", "confidence"))
    return metrics, confidence


def by_size(metrics: pd.DataFrame, wanted: Sequence[Contrast] = (*CONTRASTS, *GENERALISED)) -> pd.DataFrame:
    """Return each answered question's answer for the organs that are tiny and for the others, apart."""
    wanted = _answered(metrics, wanted)
    if not wanted:
        return pd.DataFrame({"difference": [NOT_RUN]}, index=[""])
    groups = {"small organs": metrics["organ"].isin(SMALL), "the others": ~metrics["organ"].isin(SMALL)}
    parts = {name: contrasts(metrics[chosen], wanted=wanted) for name, chosen in groups.items()}
    table = contrast_view(contrasts(metrics, wanted=wanted))
    for place, (name, answers) in enumerate(parts.items(), start=1):
        rows: list[Any] = list(answers.itertuples())
        words = [_by_size(row, one, metrics[groups[name]]) for row, one in zip(rows, wanted, strict=True)]
        table.insert(place, name, words)
    return table


def _answered(rows: pd.DataFrame, wanted: Sequence[Contrast]) -> list[Contrast]:
    """Return the questions of which both sides have rows."""
    known = set(rows["experiment"])
    return [one for one in wanted if {one.experiment, one.baseline} <= known]


def _by_size(row: Any, asked: Contrast, metrics: pd.DataFrame) -> str:
    if np.isnan(row.value):
        return DASH
    rows = metrics[metrics["experiment"].isin([asked.experiment, asked.baseline]) & (metrics["metric"] == "dsc")]
    if rows[rows["split"] == "test"].groupby("experiment")["value"].mean().max() < TOO_WEAK:
        return "not learnt"
    return f"{row.value:+z.3f} (cases {limits(row.low, row.high)}; seeds {limits(row.seeds_low, row.seeds_high)})"


def drift_by_size(confidence: pd.DataFrame) -> pd.DataFrame:
    """Return the fall of mean confidence from training to test cases of tiny and of other organs, by experiment."""
    if confidence.empty:
        return pd.DataFrame({"drift of soft recall": [NOT_RUN]}, index=[""])
    rows = confidence.assign(group=np.where(confidence["organ"].isin(SMALL), "small organs", "the others"))
    means = rows.groupby(["experiment", "seed", "group", "split"])["soft_recall"].mean().unstack("split")
    drifts = (means["train"] - means["test"]).groupby(["experiment", "group"]).agg(["mean", "std"])
    text = pd.Series([mean_sd(m, s, 3) for m, s in zip(drifts["mean"], drifts["std"], strict=True)], index=drifts.index)
    wide = text.unstack("group").assign(seeds=rows.groupby("experiment")["seed"].nunique())
    return wide.rename(index=experiment_title).rename_axis(index="drift of soft recall", columns=None)


def twin_phrase(metrics: pd.DataFrame, profile: str) -> str:
    """Say what there is of the twin."""
    if metrics.empty:
        return f"The profile {profile} is not yet run."
    cases = metrics.loc[metrics["split"] == "test", "case"].nunique()
    asked = (*CONTRASTS, *GENERALISED)
    waiting = len(asked) - len(_answered(metrics, asked))
    more = f" Of {len(asked)} questions {waiting} wait for runs and are not shown." if waiting else ""
    return f"Runs of the profile {profile}: {seeds_phrase(metrics)}, on {cases} test cases.{more}"


# Three readings


def readings(history: pd.DataFrame) -> pd.DataFrame:
    """Return the mean validation DSC of the experiments of `PACES` along steps, voxels seen and seconds.

    Of a study that has none of them all experiments are read.

    Returns
    -------
    pandas.DataFrame
        ``experiment``, ``seeds``, ``step``, ``voxels``, ``seconds``, ``dsc``; one row a validation that all seeds of
        the experiment have. Seconds are the least over its seeds on the hardware that most experiments share, for
        other work on a machine only adds to them; NaN for an experiment without a run there.
    """
    paced = history[history["experiment"].isin(PACES)]
    table = (history if paced.empty else paced).dropna(subset="validation_dsc")
    keys = ["experiment", "seed", "hardware", "step", "voxels", "seconds"]
    by_run = table.groupby(keys, as_index=False, sort=False)["validation_dsc"].mean()
    if by_run.empty:
        return pd.DataFrame(columns=["experiment", "step", "voxels", "dsc", "seeds", "seconds"])
    machine = by_run.groupby("hardware")["experiment"].nunique().idxmax()
    grouped = by_run.groupby(["experiment", "step", "voxels"], sort=False)
    found = grouped.agg(dsc=("validation_dsc", "mean"), seeds=("seed", "nunique")).reset_index()
    there = by_run[by_run["hardware"] == machine].groupby(["experiment", "step"])["seconds"].min()
    found = found.merge(there.reset_index(), on=["experiment", "step"], how="left")
    whole = found.groupby("experiment")["seeds"].transform("max")
    return found[found["seeds"] == whole].sort_values(["experiment", "step"], ignore_index=True)


def readings_table(table: pd.DataFrame, profile: str) -> pd.DataFrame:
    """Return the validation DSC of each experiment at the largest budget that all have reached, read three ways.

    Beside it stand the seeds that there are, of those that the profile plans.

    Between two validations the DSC is taken to change evenly; before the first one it is not known.
    """
    axes = {"step": "equal steps", "voxels": "equal voxels", "seconds": "equal time"}
    columns: dict[str, dict[str, str]] = {}
    for axis, words in axes.items():
        known = table.dropna(subset=axis)
        if known["experiment"].nunique() < 2:
            continue
        budget = known.groupby("experiment")[axis].max().min()
        label = f"{words} ({_amount(axis, budget)})"
        columns[label] = {}
        for name, rows in known.groupby("experiment"):
            value = np.interp(budget, rows[axis], rows["dsc"], left=np.nan)
            columns[label][experiment_title(str(name))] = DASH if np.isnan(value) else f"{value:.3f}"
    have = table.groupby("experiment")["seeds"].max()
    columns["seeds"] = {
        experiment_title(str(name)): f"{number} of {planned_seeds(profile, [str(name)])}"
        for name, number in have.items()
    }
    return pd.DataFrame(columns).fillna(DASH).rename_axis("validation DSC")


def _amount(axis: str, budget: float) -> str:
    return {"step": f"{budget:.0f}", "voxels": f"{budget / 1e6:.1f} million", "seconds": f"{budget:.0f} s"}[axis]


def controlled_facts(answers: pd.DataFrame, by_switch: pd.DataFrame, study: dict[str, Any]) -> Facts:
    """Return the phrases of the chapter."""
    done = answers[answers["lacking"] == ""]
    words = [f"{row['question']} ({row['value']:+z.3f})" for row in done.to_dict("records") if beyond_both(row)]
    partial = int((done["seeds"] < done["wanted"]).sum())
    rows = {str(row["question"]): row for row in answers.to_dict("records")}
    parts = {name: NOT_RUN if np.isnan(rows[asked]["value"]) else told(rows[asked]) for name, asked in _PATCH.items()}
    return {
        **parts,
        "profile": str(study["profile"]),
        "steps": str(load_profile(str(study["profile"])).training.steps),
        "questions": str(len(answers)),
        "answered": str(len(done)),
        "partial": str(partial),
        "clear": f"shown by both intervals: {listed(words)}" if words else "both intervals show none of them",
        "switches": str(int((by_switch["lacking"] == "").sum())),
    }
