"""Chapters 08 and 09: training, evaluation."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from hnlib.chapters.page import (
    ALPHA,
    DASH,
    NBSP,
    Facts,
    counted,
    limits,
    listed,
    mean_sd,
    on_one_machine,
    seeds_phrase,
    title,
)
from hnlib.experiment_files import FOUR_CONFIGURATIONS, experiment_title
from hnlib.experiments import Run, Study, load_profile, prepare_study, read_tables
from hnlib.files import write_json
from hnlib.plotting.style import METRIC_LABELS
from hnlib.stats import (
    ALL_ORGANS,
    PAPER_NEAREST,
    choose_by_validation,
    compare_experiments,
    detectable_differences,
    least_p,
    mean_over_organs,
    organ_summary,
    paper_layout,
    paper_table1,
    signed_rank,
    table_one,
)
from hnlib.stats import seed_spread as spread_over_seeds

# 08: training


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
    """Return the cost of every experiment; minutes are the median on the machine of most runs."""
    table = runs.groupby("experiment", sort=False).agg(
        seeds=("seed", "nunique"),
        patch=("patch", "first"),
        steps=("steps", "first"),
        parameters=("parameters", "first"),
        voxels_per_step=("voxels_per_step", "first"),
    )
    same = on_one_machine(runs)
    minutes = (same.groupby("experiment")["seconds"].median() / 60).round(1).reindex(table.index)
    table.insert(3, f"minutes, {same['hardware'].iloc[0]}", minutes)
    return table.rename(index=experiment_title, columns={"voxels_per_step": "voxels a step"})


def training_answer(history: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Say how many organs were learnt by the end of the runs, and at which check each was first seen."""
    at_end = history.sort_values("step", kind="stable").groupby(["experiment", "seed", "organ"], sort=False).tail(1)
    last = at_end.groupby(["experiment", "organ"])["validation_dsc"].mean()
    learnt = last[last > 0.5]
    first_seen = history[history["validation_dsc"] > 0.5].groupby("organ")["step"].min()
    minutes = runs["seconds"].max() / 60
    start = (
        f"By the end of the runs {len(learnt)} of {len(last)} pairs of configuration and organ score a DSC above 0.5 "
        f"on the watched validation cases; the longest run took {minutes:.1f} minutes."
    )
    if first_seen.empty:
        return f"{start} No organ is learnt at this budget."
    if len(first_seen) > 1 and (first_seen == history["step"].min()).all():
        return f"{start} Each passes 0.5 in some run by the first check, step {first_seen.min()}: no order is seen."
    names = {step: listed([title(str(name)) for name in rows.index]) for step, rows in first_seen.groupby(first_seen)}
    seen = "; ".join(f"{organs} at step {step}" for step, organs in names.items())
    return f"{start} The first check above 0.5 in any configuration: {seen}."


# 09: evaluation


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
    had, all_organs = len(table) - 1, metrics["organ"].nunique()
    average = "mean over organs" if had == all_organs else f"mean over the {had} of {all_organs} organs that were found"
    nearest = next(key for key, value in PAPER_NEAREST.items() if value == metric)
    paper = paper_table1()
    paper = paper[paper["metric"] == nearest]
    printed = paper.assign(text=[mean_sd(m, s, 2) for m, s in zip(paper["mean"], paper["sd"], strict=True)])
    wide = printed.pivot_table(index="organ", columns="configuration", values="text", aggfunc="first", sort=False)
    wide = wide.reindex(index=table.index, columns=[name for name in table.columns if name in wide.columns])
    wide = wide.dropna(how="all")
    both = pd.concat({"this study": table, "paper": wide}).swaplevel().rename_axis([METRIC_LABELS[metric], ""])
    rows = [
        (organ, source) for organ in table.index for source in ("this study", "paper") if (organ, source) in both.index
    ]
    names = {**{name: title(name) for name in table.index}, "average": average}
    return both.loc[rows].fillna("").rename(index=names, columns=experiment_title).rename_axis(columns=None)


def table_in_layout(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the results as the paper's Table 1 has them; a star where `hnlib.stats.table_one` marks the best value."""
    table = table_one(metrics)
    words = {**METRIC_LABELS, **{name: title(name) for name in set(metrics["organ"])}}
    layout = paper_layout(table, lambda name: words.get(name, experiment_title(name)))
    return layout.replace(" ", NBSP, regex=True).rename_axis(["", ""])


def missed_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """Count misses of the test cases over all seeds: misses of cases times seeds; one line where there is none."""
    rows = metrics.query("split == 'test' and metric == 'missed'")
    if not rows["value"].any():
        return pd.DataFrame({"missed": [f"none of {len(rows)}, over all experiments and seeds"]}, index=["all organs"])
    counts = rows.groupby(["organ", "experiment"], sort=False)["value"].agg(["sum", "count"]).astype(int)
    text = pd.Series(
        [f"{row['sum']} of {row['count']}".replace(" ", NBSP) for _, row in counts.iterrows()], index=counts.index
    )
    return text.unstack("experiment").rename(index=title, columns=experiment_title).rename_axis(columns=None)


def partial_table(tables: Path | str) -> pd.DataFrame:
    """Return test DSC of the profiles that have an organ which not every test patient has, beside other profiles.

    Returns
    -------
    pandas.DataFrame
        One row an organ, with the number of test patients who have it; one column each profile of the
        study's experiments that such a profile trains. A line that says so where there is none.
    """
    read = read_tables(tables)
    metrics = read["metrics"]
    own = metrics[metrics["experiment"].isin(load_profile(read["study"]["profile"]).study)]
    found = organ_summary(own).query("split == 'test' and metric == 'dsc'")
    wider = found.groupby("profile")["cases"].transform("nunique") > 1
    if not wider.any():
        return pd.DataFrame({"": ["no profile of this study trains such organs"]}, index=[""])
    counts = found[wider].groupby("organ", sort=False)["cases"].max()
    shown = found[found["experiment"].isin(found[wider]["experiment"])]
    text = shown.assign(value=[mean_sd(m, s, 3) for m, s in zip(shown["mean"], shown["sd"], strict=True)])
    wide = text.pivot_table(index="organ", columns=["experiment", "profile"], values="value", aggfunc="first")
    wide = wide.reindex(counts.index).fillna(DASH)
    wide.insert(0, ("test", "patients"), counts)
    return wide.rename(index=title, columns=experiment_title).rename_axis(index=None, columns=["", ""])


def comparison(metrics: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return the tests of every experiment against the baseline by those metrics that the rows hold."""
    return compare_experiments(metrics, baseline, measures=_measured(metrics))


def _measured(metrics: pd.DataFrame) -> list[str]:
    return [name for name in ("dsc", "surface_dsc", "hd95_mm") if (metrics["metric"] == name).any()]


def difference_table(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the primary endpoint, the difference in mean DSC over organs: over patients, over seeds, and its test."""
    table = tests[tests["primary"].astype(bool)].set_index("experiment")
    numbers = ["difference", "low", "high", "seeds_low", "seeds_high"]
    columns = [*numbers, "p", "p_holm", "rank_biserial", "shown", "cases", "left_out", "note"]
    return table[columns].rename(index=experiment_title)


def difference_view(differences: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `difference_table` for a page: limits of an interval in one column."""

    def interval(low: str, high: str) -> list[str]:
        return [limits(a, b) for a, b in zip(differences[low], differences[high], strict=True)]

    return pd.DataFrame(
        {
            "difference": [f"{value:+z.4f}" for value in differences["difference"]],
            "over cases": interval("low", "high"),
            "over seeds": interval("seeds_low", "seeds_high"),
            "p (Holm)": _p_text(differences["p_holm"]),
            "effect": differences["rank_biserial"].round(2).to_numpy(),
            "shown": ["yes" if shown else "no" for shown in differences["shown"]],
        },
        index=differences.index,
    )


def _p_text(values: pd.Series[float]) -> list[str]:
    return [DASH if np.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.4f}" for p in values]


def shown_table(tests: pd.DataFrame) -> pd.DataFrame:
    """Return differences by organ and metric, one column an experiment; a star where the chain of tests shows them."""
    rows = tests[~tests["primary"].astype(bool)]
    text = [
        DASH if np.isnan(value) else f"{value:+z.{2 if str(metric).endswith('_mm') else 3}f}{'*' if shown else ''}"
        for value, metric, shown in zip(rows["difference"], rows["metric"], rows["shown"], strict=True)
    ]
    wide = rows.assign(text=text).pivot(index=["metric", "organ"], columns="experiment", values="text")
    wide = wide.loc[rows.set_index(["metric", "organ"]).index.unique(), rows["experiment"].unique()]
    names = {name: name if name == ALL_ORGANS else title(name) for name in rows["organ"].unique()}
    wide = wide.rename(index=names, level="organ").rename(index=METRIC_LABELS, level="metric")
    return wide.rename(columns=experiment_title).rename_axis(columns=None)


def detectable_table(metrics: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Return the smallest difference in DSC that the test patients would show with a probability of 80 %; or a dash.

    The SD of the difference is that of the validation patients; without them the effects are in SDs alone.
    """
    known = (metrics["split"] == "validation") & (metrics["experiment"] == baseline)
    split = "validation" if known.any() else None
    table = detectable_differences(metrics, baseline, measures=_measured(metrics), sd_split=split).set_index("organ")
    names = {
        "cases": "test patients",
        "sd": "SD of the difference",
        "detectable": "one test",
        "detectable_holm": "first of all tests",
        "detectable_sd": "one test, in SDs",
        "detectable_holm_sd": "first of all, in SDs",
    }
    digits = {"sd": 4, "detectable": 4, "detectable_holm": 4, "detectable_sd": 2, "detectable_holm_sd": 2}
    named = table.round(digits).rename(index=lambda name: name if name == ALL_ORGANS else title(name), columns=names)
    return named.astype(object).where(named.notna(), DASH)


def seed_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return mean test DSC over organs and its spread over seeds, by experiment."""
    rows = spread_over_seeds(metrics).query("split == 'test' and metric == 'dsc'")
    table = rows.set_index("experiment")[["mean", "sd", "seeds"]].rename(
        columns={"mean": "mean DSC", "sd": "SD over seeds"}
    )
    numbers = {name: table[name].map("{:.4f}".format).where(table[name].notna(), DASH) for name in table.columns[:2]}
    return table.assign(**numbers).rename(index=experiment_title)


def evaluation_facts(metrics: pd.DataFrame, differences: pd.DataFrame) -> Facts:
    """Return the phrases of the chapter on evaluation."""
    chosen = choose_by_validation(metrics, FOUR_CONFIGURATIONS)
    test = metrics.query("split == 'test' and metric == 'dsc'")
    means = mean_over_organs(metrics).query("split == 'test' and metric == 'dsc' and experiment == @chosen")["mean"]
    seeds = metrics.groupby("experiment")["seed"].nunique()
    caveat = (
        f"Behind the table stand {seeds_phrase(metrics)}. Few seeds give a rough idea of the spread between runs, no "
        "more; one gives none."
        if seeds.max() > 1
        else "One seed: how far a second training of the same configuration would differ is not known here."
    )
    return {
        "chosen": experiment_title(chosen),
        "chosen-dsc": f"{means.mean():.3f}",
        "test-cases": counted(test["case"].nunique(), "test case"),
        "num-organs": counted(test["organ"].nunique(), "organ"),
        "verdict": _verdict(differences),
        "alone": _alone(differences),
        "seeds-caveat": caveat,
        "same": _same_configuration(test),
    }


def _verdict(differences: pd.DataFrame) -> str:
    """Say which differences from the baseline are shown."""
    if not len(differences):
        return "There is nothing to compare it with."
    shown = differences["shown"].astype(bool)
    what = f"a difference for {_signs(differences[shown])}" if shown.any() else "no difference"
    return f"Against the baseline test patients and seeds, corrected for the number of tests, show {what}."


def _alone(differences: pd.DataFrame) -> str:
    """Say which of the differences that are not shown the patients alone tell from none, and what could not be."""
    if not len(differences):
        return ""
    text = ""
    runs = differences[~differences["shown"].astype(bool) & (differences["p_holm"] < ALPHA)]
    if len(runs):
        text = f"For the runs at hand alone the test patients show a difference for {_signs(runs)}."
        unknown = [str(name) for name in runs.index[runs["seeds_low"].isna()]]
        text += f" With one seed on a side the spread of {listed(unknown)} is not known." if unknown else ""
    cases = int(differences["cases"].min())
    if least_p(cases) > ALPHA / len(differences):
        text += f" {cases} test cases could not have shown any difference, however large."
    return text.lstrip()


def _same_configuration(test: pd.DataFrame) -> str:
    """Say how many pairs of runs of one configuration the patients alone tell apart: all of these are false alarms."""
    by_run = test.groupby(["experiment", "case", "seed"])["value"].mean().unstack("seed")
    p = [
        signed_rank(runs[one] - runs[two]).p
        for _, runs in by_run.groupby(level="experiment")
        for one, two in combinations(runs.dropna(axis=1, how="all").columns, 2)
    ]
    if not p:
        return "here no configuration has two runs."
    return f"here the patients alone tell {sum(one < ALPHA for one in p)} of {len(p)} pairs of such runs apart."


def _signs(rows: pd.DataFrame) -> str:
    return listed([f"{name} ({value:+z.3f})" for name, value in rows["difference"].items()])
