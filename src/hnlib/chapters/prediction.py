"""Chapter 07: whether measures of imbalance, known before training, order patches and draws as their results do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hnlib.chapters.page import (
    ALPHA,
    DASH,
    NBSP,
    Facts,
    beyond_both,
    counted,
    inside,
    limits,
    listed,
    made_on,
    title,
    with_limits,
)
from hnlib.chapters.questions import apart, lost_organs, lost_words, without_lost
from hnlib.errors import DataError
from hnlib.experiment_files import experiment_title
from hnlib.experiments import load_experiment, load_profile
from hnlib.files import read_table
from hnlib.imbalance import MEASURES
from hnlib.imbalance.shown import SIGHTINGS
from hnlib.plotting.landscape import QUANTITIES
from hnlib.stats import (
    ALL_ORGANS,
    COLUMNS,
    LEAST_CONFIGURATIONS,
    pair_agreement,
    rank_correlations,
)

#: Measures with one value a configuration: those of chapter 05 that differ in the order of configurations, since one
#: counted twice (the pooled sigma orders as that of the mean does) would cost the correction for their number.
GLOBAL = (
    *("sigma_of_mean", "sigma_foreground", "normalised_entropy", "aitchison_spread"),
    *("least_presence", SIGHTINGS, "rarest_voxels"),
)
#: Measures with a value for every organ; all are better when larger.
OWN: Mapping[str, str] = {
    "own_presence": "the organ's own presence",
    "own_sightings": "patches a step that show the organ",
    "own_voxels": "voxels a step of the organ",
    "own_share": "the organ's share of the foreground",
}
#: No measure of imbalance: what the size of the patch alone would say.
CONTEXT = "context_mm"
TITLES: Mapping[str, str] = {
    **QUANTITIES,
    **OWN,
    CONTEXT: "context (no measure of imbalance)",
}


class Choices(NamedTuple):
    """Rows of ``draws.csv`` and of ``metrics.csv`` of the planner's choice and of nnU-Net's, in this order."""

    draws: pd.DataFrame
    metrics: pd.DataFrame


class DrawStudy(NamedTuple):
    """A profile's patches and draws: what they show, and the results that are in.

    Attributes
    ----------
    draws, classes
        Rows of ``draws.csv`` and ``draws_classes.csv`` of the profile.
    metrics
        Rows of ``metrics.csv`` of its runs; empty while none is in.
    wanted
        Number of runs of the whole study.
    choices
        The same of the two runs beside the study: the planner's own choice and nnU-Net's, in the order of the
        profile's arm ``choices``.
    """

    draws: pd.DataFrame
    classes: pd.DataFrame
    metrics: pd.DataFrame
    wanted: int
    choices: Choices

    @property
    def runs(self) -> pd.DataFrame:
        """The runs that are in: ``experiment``, ``seed``."""
        return self.metrics[["experiment", "seed"]].drop_duplicates()


def load_draws(folder: Path | str, profile: str) -> DrawStudy:
    """Return what a profile's patches and draws show, and the results of its runs that are in the tables.

    Raises
    ------
    DataError
        When the tables of the draws lack the profile.
    """
    place, remedy = Path(folder), "run python scripts/planning_tables.py first"
    found = (read_table(place / f"{name}.csv", remedy) for name in ("draws", "draws_classes"))
    draws, classes = (table[table["profile"] == profile].reset_index(drop=True) for table in found)
    if draws.empty:
        raise DataError(f"draws in {place}: no row of profile '{profile}'; {remedy}")
    path = place / "metrics.csv"
    nothing = pd.DataFrame(columns=list(COLUMNS))
    metrics = read_table(path, "publish the runs again") if path.exists() else nothing
    settings = load_profile(profile)

    def of(arm: str, table: pd.DataFrame, column: str = "experiment") -> pd.DataFrame:
        """Return the rows of an arm's experiments, in its order."""
        names = settings.experiments(arm)
        rows = table[table[column].isin(names)]
        return rows.sort_values(column, key=lambda found: found.map(names.index), kind="stable", ignore_index=True)

    own = metrics[metrics["profile"] == profile]
    choices = Choices(of("choices", draws), of("choices", own))
    nine = of("draws", draws)
    return DrawStudy(nine, of("draws", classes), of("draws", own), len(nine) * len(settings.seeds), choices)


def measure_rows(study: DrawStudy) -> pd.DataFrame:
    """Return every measure of every configuration, as `hnlib.stats.rank_correlations` reads them."""
    parts = []
    for name in (*GLOBAL, CONTEXT):
        higher = MEASURES[name].higher_is_better if name in MEASURES else True
        part = study.draws[["experiment"]].assign(value=study.draws[name], organ=ALL_ORGANS)
        parts.append(part.assign(measure=name, higher_is_better=higher))
    shown = study.classes[study.classes["class"] != "background"].merge(
        study.draws[["experiment", "batch_size", "voxels_per_step"]], on="experiment"
    )
    own = {
        "own_presence": shown["presence"],
        "own_sightings": shown["presence"] * shown["batch_size"],
        "own_voxels": shown["ratio"] * shown["voxels_per_step"],
        "own_share": shown["ratio"] / shown.groupby("experiment")["ratio"].transform("sum"),
    }
    for name, values in own.items():
        part = shown[["experiment"]].assign(value=values, organ=shown["class"])
        parts.append(part.assign(measure=name, higher_is_better=True))
    return pd.concat(parts, ignore_index=True)


def runs_in_table(study: DrawStudy) -> pd.DataFrame:
    """Return how many seeds of every configuration are in, and its mean test DSC over organs and seeds."""
    seeds = study.runs.groupby("experiment")["seed"].nunique()
    means = _means(study.metrics)
    wanted = study.wanted // len(study.draws)
    rows = study.draws.to_dict("records")
    table = pd.DataFrame(
        {
            "patch": [" x ".join(str(row[f"patch_{axis}"]) for axis in "xyz") for row in rows],
            "patches a step": [row["batch_size"] for row in rows],
            "draw": [_draw(row["draw"]) for row in rows],
            "seeds in": [f"{seeds.get(row['experiment'], 0)} of {wanted}" for row in rows],
            "DSC": [f"{means[name]:.3f}" if (name := row["experiment"]) in means else DASH for row in rows],
            "σ": [f"{row['sigma_of_mean']:.4f}" for row in rows],
            "least presence": [f"{row['least_presence']:.2f}" for row in rows],
            "sightings": [f"{row[SIGHTINGS]:.2f}" for row in rows],
        }
    )
    return table.set_index("patch")


def _draw(rule: str) -> str:
    return rule.removesuffix("_two_thirds").replace("_", "-")


def result_points(study: DrawStudy, measure: str, metric: str = "dsc") -> pd.DataFrame:
    """Return one row a run and organ: the measure, the mean of a metric over test cases, patch and draw."""
    rows = study.metrics[(study.metrics["split"] == "test") & (study.metrics["metric"] == metric)]
    means = rows.groupby(["experiment", "seed", "organ"], as_index=False)["value"].mean()
    values = measure_rows(study).query("measure == @measure").rename(columns={"value": "measured"})
    own = measure in OWN
    on = ["experiment", "organ"] if own else ["experiment"]
    points = means.merge(values[[*on, "measured"]], on=on)
    design = study.draws[["experiment", "patch", "draw"]].assign(draw=[_draw(rule) for rule in study.draws["draw"]])
    joined: pd.DataFrame = points.merge(design, on="experiment")
    return joined


def result_matrix(study: DrawStudy, found: pd.DataFrame) -> pd.DataFrame:
    """Return one row a measure, run and organ: the rank by the measure, the metric of ``found``, and its correlation.

    Parameters
    ----------
    study
        As from `load_draws`.
    found
        As from `correlations`.
    """
    metric = str(found["metric"].iloc[0])
    signs = measure_rows(study).groupby("measure")["higher_is_better"].first()
    rho = found.set_index(["measure", "organ"])["rho"]
    parts = []
    for name in found["measure"].unique():
        points = result_points(study, name, metric).assign(measure=name)
        better = points["measured"] if signs[name] else -points["measured"]
        # rounded, since the last digits of a solver decide nothing
        points["rank"] = better.map("{:.9g}".format).astype(float).groupby(points["organ"]).rank("dense")
        parts.append(points.assign(rho=[rho[name, organ] for organ in points["organ"]]))
    return pd.concat(parts, ignore_index=True)


def correlations(study: DrawStudy, metric: str = "dsc", seed: int = 0) -> pd.DataFrame:
    """Return the rank correlation of every measure with a metric on the test cases, by organ and over organs."""
    return rank_correlations(study.metrics, measure_rows(study), metric=metric, rng=np.random.default_rng(seed))


def correlation_table(found: pd.DataFrame, misses: pd.DataFrame, study: DrawStudy) -> pd.DataFrame:
    """Return every measure's correlation with DSC and misses over organs, and the pairs that it orders right."""
    dsc, missed = (table[table["organ"] == ALL_ORGANS].set_index("measure") for table in (found, misses))
    table = pd.DataFrame(
        {
            "with DSC": [_interval(row) for row in dsc.to_dict("records")],
            "p (Holm)": [DASH if np.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}" for p in dsc["p_holm"]],
            "with misses": [_interval(row) for row in missed.reindex(dsc.index).to_dict("records")],
        },
        index=[TITLES[name] for name in dsc.index],
    )
    for column, name in (("patch", "same patch"), ("draw", "same draw")):
        groups = study.draws.set_index("experiment")[column]
        pairs = pair_agreement(study.metrics, measure_rows(study), groups)
        counts = zip(pairs["right"], pairs["pairs"], strict=True)
        table[name] = [f"{right} of {number}" if number else DASH for right, number in counts]
    return table.rename_axis("measure")


def _interval(row: Mapping[Any, Any]) -> str:
    if np.isnan(row["rho"]):
        return DASH
    return with_limits(row["rho"], row["low"], row["high"], digits=2)


def organ_correlation_table(found: pd.DataFrame) -> pd.DataFrame:
    """Return the rank correlation of every measure by organ, with its interval."""
    rows = found[found["organ"] != ALL_ORGANS]
    # seven organs are wider than a page unless an interval may break
    text = rows.assign(text=[_interval(row).replace(NBSP, " ") for row in rows.to_dict("records")])
    wide = text.pivot(index="measure", columns="organ", values="text").reindex(
        index=rows["measure"].unique(), columns=rows["organ"].unique()
    )
    return wide.rename(index=TITLES, columns=title).rename_axis(columns=None)


def prediction_facts(study: DrawStudy, found: pd.DataFrame, misses: pd.DataFrame) -> Facts:
    """Return the phrases of the chapter: how much is in, and which measure predicts DSC and misses."""
    means = found[found["organ"] == ALL_ORGANS].set_index("measure")
    runs, configurations = len(study.runs), int(study.runs["experiment"].nunique())
    sigma, verdict = means.loc["sigma_of_mean"], _verdict(study, means, configurations, runs)
    return {
        "runs": f"{runs} of {study.wanted}",
        "configurations": f"{configurations} of {len(study.draws)}",
        "cases": str(study.metrics.query("split == 'test'")["case"].nunique()),
        "measures": str(len(means)),
        "sigma": "not known yet" if np.isnan(sigma["rho"]) else _interval(sigma.to_dict()).replace(NBSP, " "),
        "verdict": verdict,
        "answer": verdict[:1].lower() + verdict[1:],
        "misses": _misses(study, misses),
        "lost": _lost(study),
        "choices": choices_phrase(study),
        "choices-organs": choices_organs_phrase(study),
    }


def _verdict(study: DrawStudy, means: pd.DataFrame, configurations: int, runs: int) -> str:
    if configurations < LEAST_CONFIGURATIONS:
        return (
            f"With {runs} of {study.wanted} runs, of {configurations} of the {len(study.draws)} configurations, "
            f"nothing is said yet: fewer than {LEAST_CONFIGURATIONS} configurations have no order to speak of."
        )
    begin = "" if runs == study.wanted else f"So far, with {runs} of {study.wanted} runs: "
    known, shown = means.dropna(subset=["rho"]), _shown(means)
    right, wrong = shown[shown["rho"] > 0], shown[shown["rho"] < 0]
    if known.empty:
        return f"{begin}all results are alike, so that no measure can be told from another."
    parts = []
    if len(right):
        names = [f"{TITLES[str(name)]} ({_plain(row)})" for name, row in _by_size(right)]
        parts.append(f"{'these predict' if len(names) > 1 else 'one predicts'}: {'; '.join(names)}.")
    else:
        name, row = max(known.iterrows(), key=lambda found: float(found[1]["rho"]))
        parts.append(
            f"none of the {len(means)} measures, context among them, is shown to predict; nearest comes "
            f"{TITLES[str(name)]} ({_plain(row)}, p {row['p_holm']:.2g} after correction)."
        )
    if len(wrong):
        names = [f"{TITLES[str(name)]} ({_plain(row)})" for name, row in _by_size(wrong)]
        parts.append(f"Shown to point the wrong way: {'; '.join(names)}.")
    text = begin + " ".join(parts)
    return text[:1].upper() + text[1:]


def _lost(study: DrawStudy) -> str:
    """Name the runs that lost an organ, with the mean DSC of their configuration with and without them."""
    lost = lost_organs(study.metrics)
    if lost.empty:
        return "No run lost an organ that another seed of its configuration outlines."
    every, other = (_means(rows) for rows in (study.metrics, without_lost(study.metrics)))
    names, number = lost["experiment"].unique(), len(lost.drop_duplicates(["experiment", "seed"]))
    means = [f"{experiment_title(n)} {every[n]:.3f}, and without {other.get(n, np.nan):.3f}" for n in names]
    return (
        f"In {counted(number, 'run')} an organ was lost that another seed of the configuration outlines "
        f"({lost_words(lost)}). The mean DSC: {listed(means)}."
    )


def _means(metrics: pd.DataFrame) -> pd.Series:
    """Return the mean test DSC by experiment, over organs, of means over cases and seeds."""
    test = metrics.query("split == 'test' and metric == 'dsc'")
    return test.groupby(["experiment", "organ"])["value"].mean().groupby("experiment").mean()


def _misses(study: DrawStudy, found: pd.DataFrame) -> str:
    """Say how many organs and patients the misses are of, and which measure predicts them."""
    rows = study.metrics.query("split == 'test' and metric == 'missed'")
    if found["configurations"].max() < LEAST_CONFIGURATIONS:
        return "Of misses nothing is said yet."
    missed = rows[rows["value"] > 0]
    if missed.empty:
        return "No run misses an organ, so that misses have no order."
    many = (
        f"All misses are of {counted(missed['organ'].nunique(), 'organ')} in {missed['case'].nunique()} of "
        f"{counted(rows['case'].nunique(), 'test patient')}. "
    )
    shown = _shown(found[found["organ"] == ALL_ORGANS].set_index("measure"))
    if shown.empty:
        return f"{many}No measure is shown to predict them."
    names = [f"{TITLES[str(name)]} ({_plain(row)})" for name, row in _by_size(shown)]
    return f"{many}Shown to go with them, right where positive: {'; '.join(names)}."


def _shown(means: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose interval leaves 0 out and whose corrected p is small."""
    known = means.dropna(subset=["rho"])
    return known[(known["p_holm"] < ALPHA) & ((known["low"] > 0) | (known["high"] < 0))]


def _by_size(rows: pd.DataFrame) -> list[tuple[object, pd.Series]]:
    return list(rows.reindex(rows["rho"].abs().sort_values(ascending=False).index).iterrows())


def _plain(row: pd.Series) -> str:
    return _interval(row.to_dict()).replace(NBSP, " ").replace(" (", ", interval ").rstrip(")")


# The planned patch beside nnU-Net's


def choices_table(study: DrawStudy) -> pd.DataFrame:
    """Return what the planner and nnU-Net choose for the same scans, as they were trained."""
    seeds = study.choices.metrics.groupby("experiment")["seed"].nunique()
    rows = study.choices.draws.to_dict("records")
    table = pd.DataFrame(
        {
            "patch": [" x ".join(str(row[f"patch_{axis}"]) for axis in "xyz") for row in rows],
            "patches a step": [row["batch_size"] for row in rows],
            "context": [f"{row['context_mm']:.0f} mm" for row in rows],
            "least presence": [f"{row['least_presence']:.2f}" for row in rows],
            "sightings": [f"{row[SIGHTINGS]:.2f}" for row in rows],
            "seeds in": [int(seeds.get(row["experiment"], 0)) for row in rows],
        },
        index=[experiment_title(str(row["experiment"])) for row in rows],
    )
    return table.T.rename_axis(index=None, columns=None)


def planned_beside_nnunet(study: DrawStudy) -> pd.DataFrame:
    """Return the difference of the planner's choice to nnU-Net's, by metric; a dash while a run is missing."""
    planned, other = study.choices.draws["experiment"]
    rows = {name: _words(_planned_apart(study, metric)) for metric, name in (("dsc", "DSC"), ("missed", "missed"))}
    return pd.DataFrame(rows).T.rename_axis(f"{experiment_title(planned)} minus {experiment_title(other)}")


def choices_by_organ(study: DrawStudy) -> pd.DataFrame:
    """Return the difference of the planner's choice to nnU-Net's in DSC, organ by organ."""
    rows = {title(name): _words(_planned_apart(study, "dsc", name)) for name in _organs(study)}
    return pd.DataFrame(rows).T.rename_axis("DSC")


def choices_organs_phrase(study: DrawStudy) -> str:
    """Say in which organs the planner's choice gains and loses beside nnU-Net's, as both intervals show."""
    if study.choices.metrics["experiment"].nunique() < 2:
        return "Organ by organ nothing is known yet."
    found = {name: _planned_apart(study, "dsc", name) for name in _organs(study)}
    clear = {inside(name): row["value"] for name, row in found.items() if beyond_both(row)}
    sides = {
        "gains": [f"{name} ({value:+z.3f})" for name, value in clear.items() if value > 0],
        "loses": [f"{name} ({value:+z.3f})" for name, value in clear.items() if value < 0],
    }
    parts = [f"it {verb} {listed(names)}" for verb, names in sides.items() if names]
    return f"By both intervals {listed(parts)}." if parts else "Both intervals show a difference in no organ."


def _organs(study: DrawStudy) -> list[str]:
    return [str(name) for name in study.classes["class"].unique() if name != "background"]


def _planned_apart(study: DrawStudy, metric: str, organ: str = "") -> dict[str, Any]:
    """Return the planner's choice minus nnU-Net's; empty without runs."""
    pair, (planned, other) = study.choices.metrics, study.choices.draws["experiment"]
    pair = pair[pair["organ"] == organ] if organ else pair
    if pair["experiment"].nunique() < 2:
        return {}
    return apart(pair, planned, other, metric)


def _words(row: Mapping[str, float]) -> dict[str, str]:
    if not row:
        return dict.fromkeys(("difference", "over cases", "over seeds", "seeds"), DASH)
    return {
        "difference": f"{row['value']:+z.4f}",
        "over cases": limits(row["low"], row["high"]),
        "over seeds": limits(row["seeds_low"], row["seeds_high"]),
        "seeds": f"{row['seeds']}",
    }


def choices_phrase(study: DrawStudy) -> str:
    """Say how far the mean DSC of the planner's choice is from that of nnU-Net's."""
    row = planned_beside_nnunet(study).loc["DSC"]
    if row["difference"] == DASH:
        return "not yet known"
    return f"{row['difference']} (over cases {row['over cases']}; over seeds {row['over seeds']})"


def draws_provenance(folder: Path | str, study: DrawStudy) -> pd.DataFrame:
    """Return where the results of a profile come from."""
    path = Path(folder) / "runs.csv"
    nothing = pd.DataFrame(columns=["profile", "seconds", "precision", "hardware", "versions"])
    runs = read_table(path, "publish the runs again") if path.exists() else nothing
    shown = runs[runs["profile"] == study.draws["profile"].iloc[0]]
    profile = str(study.draws["profile"].iloc[0])
    rows = {
        "profile": profile,
        "runs": f"{len(study.runs)} of {study.wanted}, and {len(shown) - len(study.runs)} of the two choices",
        "loss": load_profile(profile).loss or load_experiment(str(study.draws["experiment"].iloc[0])).loss,
        **made_on(shown),
    }
    return pd.DataFrame({"value": rows}).rename_axis("provenance")
