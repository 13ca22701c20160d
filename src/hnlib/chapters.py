"""What the notebooks call: tables of a study in, small tables and phrases for the prose out.

Notebooks hold the story; this module holds the few lines of table work behind it. Every phrase is
computed from the tables, so that the prose cannot disagree with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hnlib.cases import SPLITS
from hnlib.errors import ConfigError, DataError
from hnlib.experiments import FOUR_CONFIGURATIONS, Run, Study, prepare_study, read_tables
from hnlib.experiments.study import home
from hnlib.files import write_json
from hnlib.imbalance import PAPER_SIGMA, sigma_of_mean, sigma_pooled
from hnlib.organs import ORGANS
from hnlib.plotting import experiment_title, use_style
from hnlib.stats import (
    PAPER_NEAREST,
    choose_by_validation,
    mean_over_organs,
    organ_summary,
    paired_difference,
    paper_table1,
)
from hnlib.stats import seed_spread as spread_over_seeds

Facts = dict[str, str]
DASH = "–"
#: Mean probability of the true class on training voxels above which an organ counts as learnt.
LEARNT = 0.3
NOT_LABELLED = "Larynx and oesophagus are outlined in a part of these patients only and are left out here."


def begin() -> None:
    """Set the one visual style of figures and tables for the running notebook."""
    use_style()
    pd.set_option("display.max_colwidth", None)


def load(tables: Path | str, *names: str, profile: str = "") -> tuple[Any, ...]:
    """Return the study's facts and the named tables; run tables hold the rows of one profile.

    Raises
    ------
    ConfigError
        When no run of that profile is in the tables.
    """
    found = read_tables(tables)
    wanted = profile or found["study"]["profile"]
    chosen = []
    for name in names:
        table = found[name]
        if "profile" in table.columns:
            known = sorted(table["profile"].unique())
            table = table[table["profile"] == wanted].reset_index(drop=True)
            if table.empty:
                raise ConfigError(f"no run of profile '{wanted}' in {tables}; there are {', '.join(known)}")
        chosen.append(table)
    return found["study"], *chosen


def is_phantom(study: Mapping[str, Any]) -> bool:
    """Return whether the study is on the phantom."""
    return bool(study["dataset"] == "phantom")


def title(name: str) -> str:
    """Return the name of an organ or class for prose and tables."""
    return ORGANS[name].title if name in ORGANS else name.capitalize()


def listed(values: list[str]) -> str:
    """Join words as prose does.

    Examples
    --------
    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} and {values[-1]}"


def percent(value: float) -> str:
    """Write a share as a percentage with two significant digits, or more where it is close to one.

    Examples
    --------
    >>> percent(0.0123), percent(0.9876), percent(0.25)
    ('1.2 %', '98.8 %', '25 %')
    """
    number = 100 * value
    return f"{number:.1f} %" if number > 90 else f"{number:.2g} %"


def mean_sd(mean: float, sd: float, digits: int) -> str:
    """Write a mean with its standard deviation; a dash where there is none.

    Examples
    --------
    >>> mean_sd(0.8, 0.05, 2), mean_sd(0.8, float("nan"), 2), mean_sd(float("nan"), float("nan"), 2)
    ('0.80 ± 0.05', '0.80', '–')
    """
    if np.isnan(mean):
        return DASH
    return f"{mean:.{digits}f}" + ("" if np.isnan(sd) else f" ± {sd:.{digits}f}")


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
        "size-ratio": f"{median.iloc[-1] / median.iloc[0]:.2g}",
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
            "voxels": grouped["voxels"].median().astype(int),
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
        raise DataError(f"picture {path}: missing; run the study first")
    return str(path)


def credit(tables: Path | str, name: str) -> Any:
    """Return the line below a picture, as Markdown: which case, chosen how, from where."""
    from IPython.display import Markdown

    facts = json.loads(Path(picture(tables, name)).with_suffix(".json").read_text())
    of = f", {experiment_title(facts['experiment'])}, seed {facts['seed']}" if facts["experiment"] else ""
    return Markdown(  # type: ignore[no-untyped-call]
        f"*{facts['attribution']}, case {facts['case']} ({facts['rule']}){of}.*"
    )


# 02: imbalance


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
    return chosen.pivot_table(index="patch", columns="class", values="ratio", sort=False)


def sigma_table(chosen: pd.DataFrame) -> pd.DataFrame:
    """Return sigma of every patch in both readings, and the paper's printed values."""
    rows = []
    for patch, part in chosen.groupby("patch", sort=False):
        ratios = part.pivot_table(index="case", columns="class", values="ratio").to_numpy()
        rows.append((patch, "this study, of the mean", sigma_of_mean(ratios)))
        rows.append((patch, "this study, pooled", sigma_pooled(ratios)))
    for patch, name in (("whole scan", "full"), ("large", "large"), ("small", "small")):
        rows.append((patch, "paper, printed", PAPER_SIGMA[name]))
    return pd.DataFrame(rows, columns=["patch", "source", "sigma"])


def presence_table(imbalance: pd.DataFrame) -> pd.DataFrame:
    """Return the mean presence of every organ by patch and rule, in per cent of the patches."""
    organs = imbalance[(imbalance["class"] != "background") & (imbalance["patch"] != "whole scan")]
    table = organs.pivot_table(index=["patch", "centres"], columns="class", values="presence", sort=False)
    return (100 * table).round(0).astype(int).rename(columns=title).rename_axis(columns=None)


def imbalance_facts(chosen: pd.DataFrame) -> Facts:
    """Return the phrases of the chapter on imbalance."""
    ratios = _mean_ratios(chosen)
    organs = [name for name in ratios.columns if name != "background"]
    rarest = str(ratios.loc["whole scan", organs].idxmin())
    presence = chosen[chosen["class"] == rarest].groupby("patch")["presence"].mean()
    sigma = {patch: f"{sigma_of_mean(row.to_numpy()):.4f}" for patch, row in ratios.iterrows()}
    spread = ratios.loc["whole scan", organs].max() / ratios.loc["whole scan", organs].min()
    return {
        "bg-large": percent(float(ratios["background"]["large"])),
        "bg-small": percent(float(ratios["background"]["small"])),
        "sigma-large": sigma["large"],
        "sigma-small": sigma["small"],
        "rarest": title(rarest),
        "presence-large": percent(float(presence["large"])),
        "presence-small": percent(float(presence["small"])),
        "scope": f"The largest organ has {spread:.2g} times the voxels of the smallest; in the paper it is 99 times.",
    }


# 03: training


def tiny_study() -> Study:
    """Prepare the smallest study on the phantom, for a notebook that is opened without parameters."""
    return prepare_study("phantom", "tiny")


def one_run(run: Run, record: Path | str = "") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return history and run table of one run; write its record where the workflow waits for it."""
    key = {name: run.record[name] for name in ("profile", "experiment", "seed")}
    if record:
        write_json(Path(record), dict(run.record))
    runs = pd.DataFrame([{**run.record, "patch": " x ".join(map(str, run.record["patch"]))}])
    return run.history.assign(**key), runs


def runs_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return cost of every experiment: seeds, steps, minutes, parameters, voxels a step."""
    grouped = runs.assign(minutes=runs["seconds"] / 60).groupby("experiment", sort=False)
    table = grouped.agg(
        seeds=("seed", "nunique"),
        patch=("patch", "first"),
        steps=("steps", "first"),
        minutes=("minutes", "mean"),
        parameters=("parameters", "first"),
        voxels_per_step=("voxels_per_step", "first"),
        hardware=("hardware", "first"),
    )
    return table.rename(index=experiment_title, columns={"voxels_per_step": "voxels a step"}).round({"minutes": 1})


def training_answer(history: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Say how many organs were learnt by the end of the runs, and which came last."""
    last = history[history["step"] == history["step"].max()].groupby(["experiment", "organ"])["validation_dsc"].mean()
    learnt = last[last > 0.5]
    first_seen = history[history["validation_dsc"] > 0.5].groupby("organ")["step"].min()
    minutes = runs["seconds"].max() / 60
    start = (
        f"By the end of the runs {len(learnt)} of {len(last)} pairs of configuration and organ score a DSC above 0.5 "
        f"on the watched validation cases; the longest run took {minutes:.1f} minutes."
    )
    if first_seen.empty:
        return f"{start} No organ is learnt at this budget."
    order = listed([title(str(name)) for name in first_seen.sort_values(kind="stable").index])
    return f"{start} In the order in which any configuration first passes 0.5: {order}."


# 04: evaluation


def runs_summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Return which runs stand behind the chapter."""
    grouped = runs.groupby("experiment", sort=False)
    table = grouped.agg(seeds=("seed", "nunique"), steps=("steps", "first"), patch=("patch", "first"))
    return table.rename(index=experiment_title)


def results_table(metrics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return mean and SD over test cases by organ and experiment, with the paper's value beside each.

    The row ``mean over organs`` is the mean of the organ means; the paper's is its printed average.
    """
    found = organ_summary(metrics).query("split == 'test' and metric == @metric")
    digits = 1 if metric.endswith("_mm") else 3
    ours = found.assign(text=[mean_sd(m, s, digits) for m, s in zip(found["mean"], found["sd"], strict=True)])
    table = ours.pivot_table(index="organ", columns="experiment", values="text", aggfunc="first", sort=False)
    means = (
        mean_over_organs(metrics).query("split == 'test' and metric == @metric").groupby("experiment")["mean"].mean()
    )
    table.loc["average"] = [mean_sd(means[name], np.nan, digits) for name in table.columns]
    nearest = next(key for key, value in PAPER_NEAREST.items() if value == metric)
    paper = paper_table1()
    paper = paper[paper["metric"] == nearest]
    printed = paper.assign(text=[mean_sd(m, s, 2) for m, s in zip(paper["mean"], paper["sd"], strict=True)])
    wide = printed.pivot_table(index="organ", columns="configuration", values="text", aggfunc="first", sort=False)
    wide = wide.reindex(index=table.index, columns=[name for name in table.columns if name in wide.columns])
    wide = wide.dropna(how="all")
    both = pd.concat({"this study": table, "paper": wide}).swaplevel().rename_axis([metric, ""])
    rows = [
        (organ, source) for organ in table.index for source in ("this study", "paper") if (organ, source) in both.index
    ]
    names = {**{name: title(name) for name in ORGANS}, "average": "mean over organs"}
    return both.loc[rows].fillna("").rename(index=names, columns=experiment_title).rename_axis(columns=None)


def missed_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """Count missed organs of the test cases over all seeds: misses of cases times seeds."""
    rows = metrics.query("split == 'test' and metric == 'missed'")
    counts = rows.groupby(["organ", "experiment"], sort=False)["value"].agg(["sum", "count"]).astype(int)
    text = pd.Series([f"{row['sum']} of {row['count']}" for _, row in counts.iterrows()], index=counts.index)
    return text.unstack("experiment").rename(index=title, columns=experiment_title).rename_axis(columns=None)


def difference_table(metrics: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return the paired difference in mean DSC of every experiment from the baseline, with its interval."""
    rng = np.random.default_rng(0)
    others = [name for name in metrics["experiment"].unique() if name != baseline]
    found = [paired_difference(metrics, name, baseline, rng=rng) for name in others]
    columns = ["experiment", "difference", "low", "high", "cases", "organs", "seeds"]
    table = pd.DataFrame([{name: getattr(row, name) for name in columns} for row in found], columns=columns)
    return table.set_index("experiment").rename(index=experiment_title).round({"difference": 3, "low": 3, "high": 3})


def seed_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return mean test DSC over organs and its spread over seeds, by experiment."""
    rows = spread_over_seeds(metrics).query("split == 'test' and metric == 'dsc'")
    table = rows.set_index("experiment")[["mean", "sd", "seeds"]].rename(
        columns={"mean": "mean DSC", "sd": "SD over seeds"}
    )
    return table.rename(index=experiment_title).round(4)


def evaluation_facts(metrics: pd.DataFrame, differences: pd.DataFrame) -> Facts:
    """Return the phrases of the chapter on evaluation."""
    chosen = choose_by_validation(metrics, FOUR_CONFIGURATIONS)
    test = metrics.query("split == 'test' and metric == 'dsc'")
    means = mean_over_organs(metrics).query("split == 'test' and metric == 'dsc' and experiment == @chosen")["mean"]
    seeds = int(metrics["seed"].nunique())
    clear = [name for name, row in differences.iterrows() if row["low"] > 0 or row["high"] < 0]
    if not len(differences):
        verdict = "There is nothing to compare it with."
    elif clear:
        signs = ", ".join(
            f"{name} ({value:+.3f})" for name, value in differences["difference"].items() if name in clear
        )
        verdict = f"Against the baseline the 95 % interval over patients excludes zero for {signs}."
    else:
        verdict = "Against the baseline no 95 % interval over patients excludes zero."
    caveat = (
        f"{seeds} seeds give a rough idea of the spread between runs, no more."
        if seeds > 1
        else "One seed: how far a second training of the same configuration would differ is not known here."
    )
    return {
        "chosen": experiment_title(chosen),
        "chosen-dsc": f"{means.mean():.3f}",
        "test-cases": str(test["case"].nunique()),
        "num-organs": str(test["organ"].nunique()),
        "verdict": verdict,
        "seeds-caveat": caveat,
    }


# 05: confidence


def drift_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return drift of soft recall and soft precision by organ and experiment, seeds averaged."""
    names = {"soft_recall_drift": "soft recall", "soft_precision_drift": "soft precision"}
    long = table.rename(columns=names).melt(["organ", "experiment"], list(names.values()), "drift of", "drift")
    wide = long.pivot_table(index=["organ", "drift of"], columns="experiment", values="drift", sort=False).round(3)
    known = [name for name in FOUR_CONFIGURATIONS if name in wide.columns]
    wide = wide[[*known, *(name for name in wide.columns if name not in known)]]
    return wide.rename(index=title, columns=experiment_title).rename_axis(columns=None)


def confidence_facts(table: pd.DataFrame, study: Mapping[str, Any]) -> Facts:
    """Return the phrases of the chapter on confidence."""
    means = table.groupby("organ")[["soft_recall_drift", "soft_recall_train"]].mean()
    learnt = means["soft_recall_train"] > LEARNT
    drift = means.loc[learnt if learnt.any() else ~learnt, "soft_recall_drift"].sort_values()
    worst, best = str(drift.index[-1]), str(drift.index[0])
    cases = f"{int(table['cases_train'].max())} training and {int(table['cases_test'].max())} test cases"
    small = [str(name) for name in drift.index if str(name).startswith("optic_")]
    if small:
        leading = sum(name in small for name in drift.index[-len(small) :])
        order = f"Of the {len(small)} largest drifts, {leading} belong to the optic nerves and chiasm."
    else:
        order = "Organs as small as those of the paper's claim are not among these."
    if not learnt.all():
        order += (
            f" Not learnt at this budget and left out here: {listed([title(str(n)) for n in means.index[~learnt]])}."
        )
    difference = "both are drawn by the same rules" if is_phantom(study) else "they are different patients"
    return {
        "worst": title(worst),
        "worst-drift": f"{drift.iloc[-1]:.3f}",
        "best": title(best),
        "best-drift": f"{drift.iloc[0]:.3f}",
        "order": order,
        "scope": f"The drift compares {cases}; {difference}.",
    }


# Every chapter


def provenance(tables: Path | str) -> pd.DataFrame:
    """Return where the numbers of a chapter come from: data, runs, versions, hardware."""
    if not tables:
        return pd.DataFrame({"value": {"runs": "trained in this notebook", "run folders": str(home("runs").name)}})
    found = read_tables(tables)
    study, runs = found["study"], found["runs"]
    shown = runs[runs["profile"] == study["profile"]]
    seeds = ", ".join(map(str, sorted(shown["seed"].unique())))
    rows = {
        "data": study["attribution"],
        "profile": study["profile"],
        "runs": f"{len(shown)} ({shown['experiment'].nunique()} experiments, seeds {seeds})",
        "training, hours": f"{shown['seconds'].sum() / 3600:.2f}",
        "hardware": "; ".join(shown["hardware"].unique()),
        "versions": "; ".join(shown["versions"].unique()),
        "data digest": study["data_digest"],
    }
    return pd.DataFrame({"value": rows}).rename_axis("provenance")
