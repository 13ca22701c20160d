"""Chapter 11: confidence drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hnlib.chapters.page import ALPHA, DASH, NBSP, Facts, inside, is_phantom, limits, listed, load, title, with_limits
from hnlib.confidence import DRIFT_MEASURES, calibration_error, drift
from hnlib.errors import ConfigError
from hnlib.experiment_files import FOUR_CONFIGURATIONS, experiment_title
from hnlib.experiments import load_experiment, load_profile, planned_seeds, read_tables
from hnlib.plotting import MEASURES, NOT_MEASURED, pooled_bins
from hnlib.stats import ALL_ORGANS, Group, drift_tests, mean_difference

#: Mean probability of the true class on training voxels above which an organ counts as learnt.
LEARNT = 0.3
_GROWTH = ["patch", "patients", "organ", "volume_ml", "measure", "drift", "low", "high", "p_together"]
_GROWTH += ["seeds", "planned"]
#: Permutations are drawn from this seed, so that a page is the same every time.
PERMUTATION_SEED = 0


def load_if_any(tables: Path | str, name: str, *, profile: str, arms: str = "") -> pd.DataFrame:
    """Return the rows of a table, none where the profile, its arms or their runs are not in the tables."""
    try:
        found: pd.DataFrame = load(tables, name, profile=profile, arms=arms)[1]
    except ConfigError:
        return pd.DataFrame(read_tables(tables)[name].iloc[:0])
    return found


class Near(NamedTuple):
    """What one experiment's runs of a profile say near the organs: rows of the tables of these names."""

    profile: str
    margins: pd.DataFrame
    calibration: pd.DataFrame
    confidence: pd.DataFrame


def near_surface(tables: Path | str, experiment: str, profiles: Sequence[str]) -> Near:
    """Return margins and calibration of an experiment by the first of the profiles that measured them.

    Where none did, they are of the last one and have no row.
    """
    names = ("confidence_margins", "calibration", "confidence")
    for profile in profiles:
        parts = [of_experiment(load_if_any(tables, name, profile=profile), experiment) for name in names]
        found = Near(profile, *parts)
        if len(found.margins):
            break
    return found


def of_experiment(table: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Return the rows of one experiment; none in a table without that column's values."""
    return table[table["experiment"] == experiment]


def drift_points(cases: pd.DataFrame, measure: str = "soft_recall") -> pd.DataFrame:
    """Return the drift of every test case and organ, seeds averaged, for `hnlib.plotting.linked_points`.

    Parameters
    ----------
    cases
        As `hnlib.confidence.case_drifts` returns it.
    measure
        Whose drift.
    """
    test = cases[(cases["measure"] == measure) & (cases["split"] == "test")]
    found = test.groupby(["organ", "case"], sort=False)["drift"].mean().rename("value").reset_index()
    rows = found.to_dict("records")
    return found.assign(text=[f"{row['case']}, {title(str(row['organ']))}: drift {row['value']:+z.3f}" for row in rows])


def drift_table(table: pd.DataFrame) -> pd.DataFrame:
    """Return drift of soft recall and soft precision by organ and experiment, seeds averaged."""
    names = {"soft_recall_drift": "soft recall", "soft_precision_drift": "soft precision"}
    long = table.rename(columns=names).melt(["organ", "experiment"], list(names.values()), "drift of", "drift")
    wide = long.pivot_table(index=["organ", "drift of"], columns="experiment", values="drift", sort=False).round(3)
    known = [name for name in FOUR_CONFIGURATIONS if name in wide.columns]
    wide = wide[[*known, *(name for name in wide.columns if name not in known)]]
    return wide.rename(index=title, level="organ").rename(columns=experiment_title).rename_axis(columns=None)


def permutation_tests(confidence: pd.DataFrame, measures: Sequence[str] = DRIFT_MEASURES) -> pd.DataFrame:
    """Return the tests of train against test, and of validation against test as the control, for each measure.

    A measure that the runs do not have is left out.
    """
    known = [name for name in measures if name in confidence and confidence[name].notna().any()]
    tests = [
        drift_tests(confidence, measure, between=between, rng=np.random.default_rng(PERMUTATION_SEED))
        for measure in known
        for between in (("train", "test"), ("validation", "test"))
    ]
    return pd.concat(tests, ignore_index=True)


def seen(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the tests of train against test."""
    return tests[tests["first"] == "train"]


def mean_table(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the drift of the mean over organs of every experiment: interval, test, and the control."""
    rows = tests[tests["organ"] == ALL_ORGANS]
    rows = rows.set_index(["experiment", "measure"])
    train, control = (rows[rows["first"] == first] for first in ("train", "validation"))
    table = pd.DataFrame(
        {
            "drift": [_signed(value) for value in train["drift"]],
            "95 % interval": _intervals(train),
            "p": [_p(value) for value in train["p"]],
            "control": [_signed(value) for value in control["drift"].reindex(train.index)],
            "p of control": [_p(value) for value in control["p"].reindex(train.index)],
        },
        index=train.index,
    )
    table = table.sort_index(level="experiment", key=lambda names: names.map(_place), sort_remaining=False)
    return table.rename(index=experiment_title, level=0).rename(index=MEASURES, level=1).rename_axis(["", "drift of"])


def groups_table(confidence: pd.DataFrame, tests: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Return, for one experiment, the means in the three groups of cases and the test of the drift, by organ."""
    measures = list(tests["measure"].unique())
    means = drift(of_experiment(confidence, experiment), measures).groupby("organ", sort=False).mean(numeric_only=True)
    found = seen(of_experiment(tests, experiment)).set_index(["organ", "measure"])
    rows = {}
    for organ in means.index:
        for measure in measures:
            test = found.loc[(organ, measure)]
            splits = {"train": "training", "validation": "validation", "test": "test"}
            rows[title(str(organ)), MEASURES[measure]] = {
                **{name: f"{means.loc[organ, f'{measure}_{split}']:.3f}" for split, name in splits.items()},
                "drift": _signed(test["drift"]),
                "95 % interval": limits(test["low"], test["high"]),
                "p (organs together)": _p(test["p_together"]),
            }
    return pd.DataFrame.from_dict(rows, orient="index").replace("nan", DASH)


def seeds_table(confidence: pd.DataFrame) -> pd.DataFrame:
    """Return the signed drift of every run, averaged over organs: one column a seed."""
    table = drift(confidence)
    columns = {f"{measure}_drift": MEASURES[measure] for measure in DRIFT_MEASURES}
    means = table.groupby(["experiment", "seed"])[list(columns)].mean().rename(columns=columns)
    wide = pd.DataFrame(means.rename_axis(columns="drift of").stack().unstack("seed"))
    wide = wide.sort_index(level="experiment", key=lambda names: names.map(_place), sort_remaining=False)
    text = wide.map(lambda value: DASH if np.isnan(value) else _signed(value))
    text.columns = pd.Index([f"seed {seed}" for seed in wide.columns])
    return text.rename(index=experiment_title, level=0)


def depth_table(margins: pd.DataFrame) -> pd.DataFrame:
    """Return, for one experiment, the drift of the margin at equal distance to the surface, inside the organ.

    Seeds are averaged, and so are their SDs over cases, so that the interval (Welch, over patients) is no narrower
    than with one seed.
    """
    if margins.empty:
        return _not_measured()
    inside = margins[margins["depth_mm"] >= 0]
    means = inside.groupby(["organ", "depth_mm", "split"])[["margin", "margin_sd", "cases"]].mean()
    names = {0.0: "rim, to 5 mm", 5.0: "5 to 10 mm", 10.0: "deeper"}
    rows: dict[str, dict[str, str]] = {}
    for organ in means.index.unique("organ"):
        for depth, name in names.items():
            found = means.index.get_level_values("depth_mm") == depth
            splits = means[found & (means.index.get_level_values("organ") == organ)].droplevel(["organ", "depth_mm"])
            if {"train", "test"} <= set(splits.index):
                rows.setdefault(title(str(organ)), {})[name] = _depth_drift(splits)
    return (
        pd.DataFrame.from_dict(rows, orient="index").reindex(columns=list(names.values())).astype(object).fillna(DASH)
    )


def _depth_drift(splits: pd.DataFrame) -> str:
    mean, sd, cases = (splits[name] for name in ("margin", "margin_sd", "cases"))
    groups = [Group(float(mean[name]), float(sd[name]), int(cases[name])) for name in ("train", "test")]
    if min(group.cases for group in groups) < 2:
        return f"{groups[0].mean - groups[1].mean:+z.2f}"
    found = mean_difference(*groups, confidence_level=0.95)
    return with_limits(found.value, found.low, found.high, digits=2)


def calibration_table(calibration: pd.DataFrame, confidence: pd.DataFrame) -> pd.DataFrame:
    """Return, for one experiment, class-wise ECE (voxels pooled) and Brier score (mean over cases) by organ."""
    if calibration.empty or "brier" not in confidence:
        return _not_measured()
    pooled = pooled_bins(calibration, ["organ", "split", "bin"])
    errors = {key: calibration_error(rows) for key, rows in pooled.groupby(["organ", "split"])}
    brier = confidence.groupby(["organ", "split"])["brier"].mean()
    table: pd.DataFrame = pd.concat({"ECE": pd.Series(errors), "Brier score": brier}).unstack().round(3)
    splits = [name for name in ("train", "validation", "test") if name in table]
    table = table[splits].swaplevel().sort_index(level=0, sort_remaining=False)
    return table.rename(index=title, level=0).rename(columns={"train": "training"}).rename_axis(["", ""])


# Drift as data shrink


def drift_growth(
    confidence: pd.DataFrame, study: Mapping[str, Any], measures: Sequence[str] = DRIFT_MEASURES
) -> pd.DataFrame:
    """Return the drift by number of training patients and by organ.

    Parameters
    ----------
    confidence
        Rows of ``confidence.csv`` of the arm in which experiments differ by patch and training patients alone.
    study
        The study's facts, for the voxel size and the number of all training patients.
    measures
        What drifts.

    Returns
    -------
    pandas.DataFrame
        ``patch``, ``patients``, ``organ`` (and one row for all), ``volume_ml`` (median over the cases, on the
        network's grid), ``measure``, ``drift``, ``low``, ``high``, ``p_together``, ``seeds``, ``planned``. Empty where
        fewer than two numbers of patients were trained on.

    Notes
    -----
    Training cases are those that all experiments were trained on and have measured, so that the numbers of patients
    differ in what the networks saw and not in which cases are looked at.
    """
    if len(set(_training_cases(confidence, study).values())) < 2:
        return pd.DataFrame(columns=_GROWTH)
    return _by_patch_and_cases(_shared_training_cases(confidence), study, measures)


def twin_drift(tables: Path | str, profile: str, measures: Sequence[str] = DRIFT_MEASURES) -> pd.DataFrame:
    """Return the drift by organ of both patches under nnU-Net's Dice on the phantom, whose organs differ in size.

    Returns
    -------
    pandas.DataFrame
        As of `drift_growth`, with one number of training cases; empty while the profile is not run.
    """
    rows = load_if_any(tables, "confidence", profile=profile)
    rows = rows[rows["experiment"].isin(("large_nnu_dice_ce", "small_nnu_dice_ce"))]
    if rows.empty:
        return pd.DataFrame(columns=_GROWTH)
    settings = load_profile(profile)
    study = {"spacing_mm": settings.phantom_spacing_mm, "cases": settings.num_cases}
    return _by_patch_and_cases(rows, study, measures)


def _training_cases(confidence: pd.DataFrame, study: Mapping[str, Any]) -> dict[str, int]:
    """Return on how many cases each experiment was trained."""
    looks = {str(name): load_experiment(str(name)).train_cases for name in confidence["experiment"].unique()}
    return {name: study["cases"]["train"] if number == "all" else int(number) for name, number in looks.items()}


def _by_patch_and_cases(confidence: pd.DataFrame, study: Mapping[str, Any], measures: Sequence[str]) -> pd.DataFrame:
    profile, counts = str(confidence["profile"].iloc[0]), _training_cases(confidence, study)
    volumes = confidence.drop_duplicates(["case", "organ"]).groupby("organ")["voxels"].median()
    volumes = volumes * float(np.prod(study["spacing_mm"])) / 1000
    table = seen(permutation_tests(confidence, measures))
    table = table.assign(
        patch=table["experiment"].map({name: load_experiment(name).patch for name in counts}),
        patients=table["experiment"].map(counts),
        volume_ml=table["organ"].map(volumes),
        seeds=table["experiment"].map(confidence.groupby("experiment")["seed"].nunique()),
        planned=table["experiment"].map({name: planned_seeds(profile, [name]) for name in counts}),
    )
    return table[_GROWTH].sort_values(["patch", "patients"], ascending=[False, True], ignore_index=True)


def _shared_training_cases(confidence: pd.DataFrame) -> pd.DataFrame:
    """Leave out the training cases that not all experiments have."""
    train = confidence["split"] == "train"
    cases = [set(rows["case"]) for _, rows in confidence[train].groupby("experiment")]
    return confidence[~train | confidence["case"].isin(set.intersection(*cases))]


def by_organ(growth: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of single organs."""
    return growth[growth["organ"] != ALL_ORGANS]


def growth_table(growth: pd.DataFrame) -> pd.DataFrame:
    """Return the drift of the mean over organs by patch and number of training patients."""
    if growth.empty:
        return _not_measured()
    rows = growth[growth["organ"] == ALL_ORGANS]
    text = [f"{_signed(value)} ({text})" for value, text in zip(rows["drift"], _intervals(rows), strict=True)]
    seeds = [f"{have} of {planned}" for have, planned in zip(rows["seeds"], rows["planned"], strict=True)]
    rows = rows.assign(text=text, seeds=seeds)
    wide = rows.pivot(index=["patch", "patients", "seeds"], columns="measure", values="text")
    wide = wide.sort_index(level=["patch", "patients"], ascending=[False, True])
    return wide.rename(columns=MEASURES).rename_axis(columns=None)


def _not_measured() -> pd.DataFrame:
    return pd.DataFrame({"": [NOT_MEASURED]}, index=[""])


# Phrases


def confidence_facts(table: pd.DataFrame, study: Mapping[str, Any]) -> Facts:
    """Return the phrases of the chapter on the drift of single organs."""
    means = table.groupby("organ")[["soft_recall_drift", "soft_recall_train"]].mean()
    learnt = means["soft_recall_train"] > LEARNT
    drifts = means.loc[learnt if learnt.any() else ~learnt, "soft_recall_drift"].sort_values()
    worst, best = str(drifts.index[-1]), str(drifts.index[0])
    cases = f"{int(table['cases_train'].max())} training and {int(table['cases_test'].max())} test cases"
    small = [str(name) for name in drifts.index if str(name).startswith("optic_")]
    if small:
        leading = sum(name in small for name in drifts.index[-len(small) :])
        order = f"Of the {len(small)} largest drifts, {leading} belong to the optic nerves and chiasm."
        if len(small) == 1:
            order = f"The largest drift is {'' if leading else 'not '}that of the {title(small[0]).lower()}."
    elif means.index.astype(str).str.startswith("optic_").any():
        order = "No organ as small as those of the paper's claim was learnt."
    else:
        order = "Organs as small as those of the paper's claim are not among these."
    if not learnt.all():
        names = listed([title(str(name)) for name in means.index[~learnt]])
        order += f" Not learnt at this budget, and neither the most nor the least of the answer: {names}."
    difference = "both are drawn by the same rules" if is_phantom(study) else "they are different patients"
    return {
        "worst": title(worst),
        "worst-drift": f"{drifts.iloc[-1]:.3f}",
        "best": title(best),
        "best-drift": f"{drifts.iloc[0]:.3f}",
        "sign": " (negative: it rises)" if drifts.iloc[0] < 0 else "",
        "order": order,
        "scope": f"The drift compares {cases}; {difference}.",
    }


def drift_facts(tests: pd.DataFrame, growth: pd.DataFrame, confidence: pd.DataFrame) -> Facts:
    """Return the phrases on what the permutation test shows, and on how the drift grows."""
    single = tests[tests["organ"] != ALL_ORGANS]
    train, control = (single[single["first"] == first] for first in ("train", "validation"))
    return {
        "shown": _count_shown(train),
        "control": _count_shown(control),
        "seeds": str(confidence["seed"].nunique()),
        "experiment": experiment_title(str(confidence["experiment"].iloc[0])),
        "growth": _growth_phrase(growth),
    }


def _count_shown(tests: pd.DataFrame) -> str:
    defined = tests.dropna(subset="p_together")
    if defined.empty:
        return "no test is defined"
    parts = []
    for measure, rows in defined.groupby("measure", sort=False):
        shown = rows[rows["p_together"] < ALPHA]
        down = int((shown["drift"] > 0).sum())
        parts.append(f"{MEASURES[str(measure)]}: {down} fall and {len(shown) - down} rise among {len(rows)} organs")
    return "; ".join(parts)


def _growth_phrase(growth: pd.DataFrame) -> str:
    if growth.empty:
        return "Runs on fewer training patients are not among these tables."
    rows = growth[(growth["organ"] == ALL_ORGANS) & (growth["measure"] == "soft_recall")]
    parts = [
        f"{patch} patch, {listed([f'{row.drift:+z.3f} ({row.patients:g})' for row in found.itertuples()])}"
        for patch, found in rows.groupby("patch", sort=False)
    ]
    few = rows[rows["seeds"] < rows["planned"]]
    least = few.assign(share=few["seeds"] / few["planned"]).nsmallest(1, "share")
    said = "".join(f"Partial: {row.seeds} of {row.planned} seeds at the fewest. " for row in least.itertuples())
    return f"{said}Drift of soft recall, mean over organs (training patients in brackets): {'; '.join(parts)}."


def twin_phrase(growth: pd.DataFrame) -> str:
    """Say how much confidence the smallest and the largest organ of the phantom lose, in each patch (`twin_drift`)."""
    rows = by_organ(growth)
    rows = rows[rows["measure"] == "soft_recall"]
    if rows.empty:
        return "On the phantom, whose organs differ in size as in life, nothing is known yet."
    volumes = rows.groupby("organ")["volume_ml"].first()
    words = []
    for name in (str(volumes.idxmin()), str(volumes.idxmax())):
        patches = [
            f"{row['drift']:+z.3f} ({limits(row['low'], row['high'])}) with the {row['patch']} patch"
            for row in rows[rows["organ"] == name].to_dict("records")
        ]
        words.append(f"{listed(patches)} for the {inside(name)}")
    text = f"On the phantom, whose organs differ in size as in life, it falls by {'; and by '.join(words)}."
    return text.replace(NBSP, " ")


def _place(name: str) -> int:
    return FOUR_CONFIGURATIONS.index(name) if name in FOUR_CONFIGURATIONS else len(FOUR_CONFIGURATIONS)


def _signed(value: float) -> str:
    return DASH if np.isnan(value) else f"{value:+z.3f}"


def _intervals(rows: pd.DataFrame) -> list[str]:
    return [limits(low, high) for low, high in zip(rows["low"], rows["high"], strict=True)]


def _p(value: float) -> str:
    return DASH if np.isnan(value) else "< 0.001" if value < 1e-3 else f"{value:.3f}"
