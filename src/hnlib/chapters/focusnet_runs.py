"""Chapter 16: runs of FocusNet and its rivals, where their difference comes from, what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hnlib.chapters.page import DASH, NBSP, Facts, listed, on_one_machine, percent, provenance, title, with_limits
from hnlib.chapters.questions import NOT_RUN, SEEDLESS, asked, differences, minutes_by_stage
from hnlib.experiment_files import experiment_title
from hnlib.experiments import load_experiment, load_profile, planned_seeds
from hnlib.files import read_json, read_table
from hnlib.stats import PairedDifference, paired_difference
from hnlib.systems import FocusNetOptions

ROIS = ("focusnet_roi2", "focusnet_roi5")
WHOLE = ("focusnet", "snet")
#: A region that holds less of its organ is in the wrong place.
HELD = 0.9
#: Names of the bench's rows by what is measured, of S-Net and of FocusNet; the peer of all is the SERes U-Net.
BENCH: Mapping[str, tuple[str, str]] = {
    "time of a step, s": ("s_net_step", "focusnet_step"),
    "memory of a step, MiB": ("s_net_step_memory", "focusnet_step_memory"),
    "time of a case, s": ("", "focusnet_case"),
    "memory of a case, MiB": ("", "focusnet_case_memory"),
}


@dataclass(frozen=True)
class FocusStudy:
    """The runs of one data set under one profile, with the atlas where it has been run; empty before any is.

    Attributes
    ----------
    tables, profile
        Folder and profile.
    metrics, history, runs
        Their rows.
    """

    tables: Path
    profile: str
    metrics: pd.DataFrame
    history: pd.DataFrame
    runs: pd.DataFrame

    @cached_property
    def dsc(self) -> pd.DataFrame:
        """Rows of the test DSC."""
        return self.metrics[(self.metrics["split"] == "test") & (self.metrics["metric"] == "dsc")]

    @cached_property
    def small(self) -> list[str]:
        """The organs that FocusNet locates in these runs: the small ones."""
        return list(self.metrics.loc[self.metrics["metric"] == "centre_error_mm", "organ"].unique())

    def seeds(self, experiment: str) -> str:
        """Return how many of the profile's seeds an experiment has."""
        if experiment in SEEDLESS:
            return DASH
        rows = self.metrics if len(self.metrics) else self.runs
        count = rows.loc[rows["experiment"] == experiment, "seed"].nunique()
        return f"{count} of {planned_seeds(self.profile, [experiment])}"


def focus_study(tables: Path | str, profile: str) -> FocusStudy:
    """Read the runs of a profile from a folder of tables."""
    folder = Path(tables)
    columns = ["profile", "experiment", "seed", "split", "organ", "case", "metric", "value"]
    found = {name: pd.DataFrame(columns=columns) for name in ("metrics", "history", "runs")}
    for name in found:
        if (folder / f"{name}.csv").exists():
            found[name] = read_table(folder / f"{name}.csv", "publish the runs again")
    if (folder / "atlas.csv").exists():
        rows = read_table(folder / "atlas.csv", "run python scripts/atlas.py again")
        found["metrics"] = pd.concat([part for part in (found["metrics"], rows) if len(part)], ignore_index=True)
    chosen = {name: rows[rows["profile"] == profile].reset_index(drop=True) for name, rows in found.items()}
    return FocusStudy(folder, profile, **chosen)


def focus_studies(*wanted: tuple[Path | str, str]) -> dict[str, FocusStudy]:
    """Return the studies of folders of tables and profiles, each once, by data set and profile."""
    return {f"{Path(tables).name}, {profile}": focus_study(tables, profile) for tables, profile in wanted}


def on_each(table: Callable[[FocusStudy], pd.DataFrame], studies: Mapping[str, FocusStudy]) -> pd.DataFrame:
    """Return a table of each study below each other; what one has not stays empty."""
    parts = {name: table(study).astype(object) for name, study in studies.items()}
    return pd.concat(parts, names=["data"]).fillna("")


def _waits(column: str, index: str) -> pd.DataFrame:
    return pd.DataFrame({column: [NOT_RUN]}, index=pd.Index(["FocusNet and its rivals"], name=index))


def focus_results(study: FocusStudy) -> pd.DataFrame:
    """Return mean test DSC of each experiment: over all organs, over the small ones, and seeds and cases behind it."""
    if study.dsc.empty:
        return _waits("all organs", "experiment")
    small, found = study.small, {}
    for name, part in study.dsc.groupby("experiment", sort=False):
        organs = part.groupby("organ")["value"].mean()
        rest = organs.drop(small, errors="ignore")
        found[experiment_title(str(name))] = {
            "all organs": f"{organs.mean():.3f}",
            "small organs": f"{organs.reindex(small).mean():.3f}" if small else DASH,
            "large organs": f"{rest.mean():.3f}" if small and len(rest) else DASH,
            "seeds": study.seeds(str(name)),
            "cases": str(part["case"].nunique()),
        }
    return pd.DataFrame(found).T.rename_axis("experiment")


def focus_questions(study: FocusStudy) -> pd.DataFrame:
    """Return FocusNet minus each rival and control, and what the atlas is behind, over small and other organs."""
    arms = load_profile(study.profile).arms
    rivals = [name for name in arms.get("focusnet", ()) if name != "focusnet"]
    regions = [name for name in ROIS if name in load_profile(study.profile).all_experiments]
    pairs = [*(("focusnet", name) for name in (*rivals, *regions, "atlas")), ("snet", "atlas")]
    small = study.dsc["organ"].isin(study.small)
    return pd.concat(
        {"small": differences(study.dsc[small], pairs), "others": differences(study.dsc[~small], pairs)},
        names=["organs"],
    )


def distance_questions(study: FocusStudy) -> pd.DataFrame:
    """Return S-Net minus SERes U-Net in mean HD95, mm, over the organs that both have found; of seeds, in every run."""
    return differences(study.metrics, [("snet", "seres_unet")], "hd95_mm")


def answered_questions(study: FocusStudy) -> pd.DataFrame:
    """Return the rows of `focus_questions` that runs answer, and in a last one how many wait."""
    table = focus_questions(study)
    waits = table["difference"] == NOT_RUN
    last = pd.MultiIndex.from_tuples([("both", DASH, f"{waits.sum()} more")], names=table.index.names)
    rest = pd.DataFrame([[NOT_RUN, DASH, DASH, 0, 0]], last, table.columns)
    return pd.concat([table[~waits], rest]) if waits.any() else table


def localisation_table(study: FocusStudy) -> pd.DataFrame:
    """Return by organ the error of FocusNet's centres, its peak, its region, and how often the gate stood open.

    Where the organ is there and where it is outlined as absent stand apart: the second is the gate's false alarm.
    """
    wide = _wide(study.metrics)
    if wide.empty:
        return _waits("error, median mm", "organ")
    rows = {}
    for organ, part in wide.groupby("organ", sort=False):
        there, absent = part[part["centre_error_mm"].notna()], part[part["centre_error_mm"].isna()]
        recall = there["roi_recall"].mean()
        rows[title(str(organ))] = {
            "error, median mm": f"{there['centre_error_mm'].median():.1f}",
            "error, largest mm": f"{there['centre_error_mm'].max():.1f}",
            "peak, median": f"{there['centre_peak'].median():.2f}",
            "in its region": DASH if np.isnan(recall) else percent(recall),
            "gate open, organ there": _of(there),
            "gate open, organ absent": _of(absent),
            "seeds": study.seeds("focusnet"),
        }
    return pd.DataFrame(rows).T.rename_axis("organ")


def _of(rows: pd.DataFrame) -> str:
    return f"{int(rows['located'].sum())} of {len(rows)}" if len(rows) else DASH


def _wide(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return FocusNet's test cases by organ, seed and case: the gate, the place, DSC before and after the fusion."""
    columns = ("located", "centre_peak", "centre_error_mm", "roi_recall", "s_net_dsc", "fused_dsc", "dsc")
    rows = metrics[(metrics["split"] == "test") & (metrics["experiment"] == "focusnet")]
    wide = rows.pivot_table(index=["organ", "seed", "case"], columns="metric", values="value", sort=False)
    wide = wide.reindex(columns=list(columns))
    return wide[wide["located"].notna()]


# Why.


def focus_parts(study: FocusStudy, organs: list[str]) -> dict[str, PairedDifference]:
    """Return the two parts of FocusNet minus S-Net over organs: ``fusion`` and ``budget``; nothing before both are run.

    FocusNet's own S-Net has the DSC of FocusNet less what the fusion adds on the plan's grid. ``fusion`` is FocusNet
    minus its own S-Net; ``budget`` is that minus S-Net alone, which has more steps and another draw.
    """
    rows = study.metrics[study.metrics["organ"].isin(organs)]
    wide = _wide(rows).dropna(subset=["s_net_dsc", "fused_dsc", "dsc"])
    alone = rows[(rows["experiment"] == "snet") & (rows["metric"] == "dsc") & (rows["split"] == "test")]
    if wide.empty or alone.empty:
        return {}
    own = (wide["dsc"] - wide["fused_dsc"] + wide["s_net_dsc"]).rename("value").reset_index()
    whole = wide["dsc"].rename("value").reset_index()
    sides = {"fused": whole, "own": own, "snet": alone[["organ", "seed", "case", "value"]]}
    long = pd.concat([part.assign(experiment=name) for name, part in sides.items()], ignore_index=True)
    long = long.assign(profile=study.profile, split="test", metric="dsc")
    return {
        "fusion": paired_difference(long, "fused", "own"),
        "budget": paired_difference(long, "own", "snet"),
    }


def reasons_table(study: FocusStudy) -> pd.DataFrame:
    """Return by small organ what its region holds, and what fusion and budget add to S-Net's DSC."""
    rows = {}
    recall = _wide(study.metrics).groupby("organ", sort=False)["roi_recall"].mean()
    for organ in study.small:
        parts = focus_parts(study, [organ])
        if parts:
            rows[title(organ)] = {
                "in its region": percent(recall[organ]),
                "fused minus unfused": _limits(parts["fusion"]),
                "its S-Net minus S-Net alone": _limits(parts["budget"]),
                "seeds": str(min(parts["budget"].seeds, parts["budget"].baseline_seeds)),
            }
    return pd.DataFrame(rows).T.rename_axis("organ") if rows else _waits("in its region", "organ")


def _limits(found: PairedDifference) -> str:
    return with_limits(found.difference, found.low, found.high)


def _reasons(study: FocusStudy, ahead: bool) -> str:
    """Say where FocusNet's difference over the small organs comes from and, where it is not ahead, what costs most."""
    parts = focus_parts(study, study.small)
    if not parts:
        return "Where the difference comes from has not been measured in these runs."
    recall = float(_wide(study.metrics)["roi_recall"].mean())
    fusion, budget = parts["fusion"], parts["budget"]
    text = (
        f"Over the small organs the fusion changes the outlines of FocusNet's own S-Net by {_limits(fusion)}; that "
        f"S-Net, of fewer steps and another draw, differs from S-Net alone by {_limits(budget)}. The regions hold "
        f"{percent(recall)} of the organs."
    )
    if not ahead:
        place = "regions that miss their organs" if recall < HELD else "what the small networks outline"
        costs = "the steps and the draw of its S-Net" if budget.difference <= fusion.difference else place
        text += f" The larger loss in these runs comes from {costs}"
        few = min(budget.seeds, budget.baseline_seeds) < 2
        text += "; one seed cannot tell how much of it is chance." if few else "."
    return text.replace(NBSP, " ")


# In words.


def focus_facts(study: FocusStudy, bench: Path | str = "") -> Facts:
    """Return the phrases of the answer: FocusNet against S-Net over the small organs and over the others, and why."""
    questions = focus_questions(study)
    found, others = (asked(questions.loc[[organs]].droplevel("organs"), WHOLE) for organs in ("small", "others"))
    if found["difference"] == NOT_RUN:
        names = ("difference", "small", "open", "absent", "elsewhere")
        waits = "The two have not both been run on this data yet."
        facts = dict.fromkeys(names, NOT_RUN) | {"verdict": waits, "reasons": waits}
        return facts | {"worth": "Whether it is worth it here waits for runs."}
    ahead, behind = _sides(found)
    wide = _wide(study.metrics)
    there = wide["centre_error_mm"].notna()
    text = {name: _with_seeds(row, study) for name, row in (("difference", found), ("elsewhere", others))}
    return {
        **text,
        "verdict": _verdict(found, ahead, behind),
        "small": str(len(study.small)),
        "open": f"{_of(wide[there])} organ-cases",
        "absent": f"{_of(wide[~there])}" if (~there).any() else "none, as no outlined organ is absent there",
        "reasons": _reasons(study, ahead),
        "worth": _worth(study, found, others, (ahead, behind), bench),
    }


def _sides(row: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether every interval that there is lies above zero, and whether every one lies below."""
    texts = [str(row[key]).replace(NBSP, " ") for key in ("over cases", "over seeds") if row[key] != DASH]
    signs = {part[0] for text in texts for part in text.split(" to ")}
    return signs == {"+"}, signs == {"-"}


def _with_seeds(row: Mapping[str, Any], study: FocusStudy) -> str:
    if row["difference"] == NOT_RUN:
        return "not defined: there is none"
    seeds = f"{row['seeds']} of {planned_seeds(study.profile, ['focusnet'])} seeds"
    over = f"over seeds {row['over seeds']}" if row["over seeds"] != DASH else "no interval over seeds"
    text = f"{row['difference']} DSC (95 % interval over {row['cases']} cases {row['over cases']}, {over}; {seeds})"
    return text.replace(NBSP, " ")


def _verdict(row: Mapping[str, Any], ahead: bool, behind: bool) -> str:
    if not ahead and not behind:
        return "Over the located organs an interval holds zero: no difference is shown."
    word = f"Over the located organs {'FocusNet' if ahead else 'S-Net'} is ahead."
    return word if row["over seeds"] != DASH else f"{word} One seed cannot tell how much of it is chance."


def _worth(
    study: FocusStudy, small: Mapping[str, Any], others: Mapping[str, Any], sides: tuple[bool, bool], bench: Path | str
) -> str:
    """Say when FocusNet is worth its cost, from what it gains and loses and what its training and a case take."""
    costs = [] if others["difference"] == NOT_RUN else [f"{others['difference']} DSC in the other organs"]
    seconds = on_one_machine(study.runs).groupby("experiment")["seconds"].median()
    if set(WHOLE) <= set(seconds.index):
        costs.append(f"{seconds['focusnet'] / seconds['snet']:.1f} times S-Net's training time")
    table = bench_table(bench)["FocusNet / SERes U-Net"]
    for name, words in (("memory of a step, MiB", "memory in training"), ("time of a case, s", "time a case")):
        if table[name] != DASH:
            costs.append(f"{table[name]} times the {words} of a SERes U-Net")
    gain, price = f"{small['difference']} DSC in the small organs", listed(costs) if costs else "its cost"
    ahead, behind = sides
    if ahead:
        return f"Worth it when {gain} matter more than what comes with it: {price}."
    means = "as far as one seed tells it means" if small["over seeds"] == DASH else "it means"
    word = "S-Net alone is ahead" if behind else "no gain is shown"
    return f"{'Not' if behind else 'Not shown to be'} worth it at this budget: {word} ({gain}), and {means} {price}."


def focus_settings() -> Facts:
    """Return what the experiment sets: longest side, SD of a heat map, gate, draw, shares of the steps."""
    found = load_experiment("focusnet")
    options = FocusNetOptions.model_validate(found.options)
    shares = {stage.name.replace("_", "-"): f"{100 * stage.share:.0f} %" for stage in found.stages}
    return {
        "longest": f"{options.longest_mm:.0f} mm",
        "ml": f"{options.below_ml:.0f} ml",
        "sigma": f"{options.sigma_mm:.0f} mm",
        "gate": f"{options.gate:.1f}",
        "draw": percent(options.small_draw),
        **shares,
    }


# Costs.


def cost_table(study: FocusStudy) -> pd.DataFrame:
    """Return parameters of each experiment, and its median time on the machine of most runs."""
    if study.runs.empty:
        return _waits("parameters", "experiment")
    grouped = study.runs.groupby("experiment", sort=False)
    steps = grouped["steps"].first()
    seconds = on_one_machine(study.runs).groupby("experiment")["seconds"].median().reindex(steps.index)
    table = pd.DataFrame(
        {
            "parameters": grouped["parameters"].first(),
            "steps": steps,
            "s a step": (seconds / steps).round(2),
            "minutes": (seconds / 60).round(1),
            "seeds": [study.seeds(str(name)) for name in steps.index],
        }
    )
    return table.rename(index=experiment_title).rename_axis("experiment")


def focus_minutes(study: FocusStudy) -> pd.DataFrame:
    """Return the minutes of each of FocusNet's stages, mean over seeds."""
    return minutes_by_stage(study.history, "focusnet").rename_axis("stage")


def bench_table(bench: Path | str) -> pd.DataFrame:
    """Return what the bench says of a step and of a case, beside a SERes U-Net; a dash for what is not measured."""
    there = bool(bench) and Path(bench).exists()
    rows = {row["name"]: row for row in read_json(Path(bench), "run make bench again")} if there else {}
    table = {}
    for what, (main, whole) in BENCH.items():
        first, second = rows.get(main, {}), rows.get(whole, {})
        table[what] = {
            "S-Net": _number(first.get("ours")),
            "FocusNet": _number(second.get("ours")),
            "SERes U-Net": _number(second.get("peer")),
            "FocusNet / SERes U-Net": _number(second.get("ratio")),
        }
    return pd.DataFrame(table).T.rename_axis("in the bench")


def _number(value: float | None) -> str:
    return DASH if value is None else f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def focus_sources(study: FocusStudy) -> pd.DataFrame:
    """Return where the numbers come from; nothing but the profile before there are tables."""
    if not (study.tables / "study.json").exists():
        return pd.DataFrame({"value": {"profile": study.profile, "runs": NOT_RUN}}).rename_axis("provenance")
    return provenance(study.tables, study.runs)
