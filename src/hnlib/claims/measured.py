"""Rules that ask the tables of published runs. What the tables lack is not yet run, or partial; it is never guessed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from hnlib.claims.finding import NOT_REPRODUCED, NOT_RUN, NOT_TOLD, REPRODUCED, UNDECIDED, Finding, Verdict, weakest
from hnlib.experiment_files import FOUR_CONFIGURATIONS
from hnlib.files import read_table
from hnlib.stats import Group, Interval, lower_is_better, mean_difference, paired_difference, seed_interval, verdict

Planned = Callable[[str, Sequence[str]], int]
"""Profile and experiments to the number of seeds that are planned for the one with the fewest."""
LEARNT = 0.3
"""Mean DSC below which an organ counts as not learnt, so that nothing can be said about it."""
NOTHING = 0.05
"""Mean DSC below which an experiment has next to nothing of an organ."""
EVALUATION, CONFIDENCE, IMBALANCE = "09_evaluation", "11_confidence", "04_imbalance"


class Evidence:
    """The tables below one folder, ``<root>/<dataset>/<name>.csv``, read once.

    Parameters
    ----------
    root
        Folder of studies, such as ``results/published``.
    planned
        How many seeds a profile plans, such as `hnlib.experiments.planned_seeds`.

    Notes
    -----
    A data set is named as ``openkbp``, for the runs of its study's own profile, or as ``openkbp@gpu`` for those of
    another one. The atlas, where it has been run, stands among its metrics.
    """

    def __init__(self, root: Path | str, planned: Planned) -> None:
        self.root, self.planned = Path(root), planned
        self._tables: dict[tuple[str, str], pd.DataFrame | None] = {}

    def table(self, dataset: str, name: str) -> pd.DataFrame | None:
        """Return a table, rows of one profile where it has profiles; None where it is missing."""
        if (dataset, name) not in self._tables:
            self._tables[dataset, name] = self._load(dataset, name)
        return self._tables[dataset, name]

    def _load(self, dataset: str, name: str) -> pd.DataFrame | None:
        dataset, _, wanted = dataset.partition("@")
        folder = self.root / dataset
        if not (folder / f"{name}.csv").exists() or not (folder / "study.json").exists():
            return None
        found = read_table(folder / f"{name}.csv", "publish it again")
        if name == "metrics" and (folder / "atlas.csv").exists():
            atlas = read_table(folder / "atlas.csv", "run python scripts/atlas.py again").drop(columns="seed")
            seeds = found[["profile", "seed"]].drop_duplicates()
            found = pd.concat([found, atlas.merge(seeds, on="profile")])  # no training: alike beside every seed
        if "profile" not in found.columns:
            return found
        profile = wanted or json.loads((folder / "study.json").read_text())["profile"]
        return found[found["profile"] == profile].reset_index(drop=True)


def difference(
    evidence: Evidence,
    dataset: str,
    experiment: str,
    baseline: str,
    *,
    metric: str = "dsc",
    more: bool = True,
    organs: Sequence[str] = (),
    margin: float = 0.0,
) -> Finding:
    """Ask whether an experiment is better than another on the same test patients, or worse (``more`` False).

    Reproduced where the 95 % intervals of the difference, mean over organs, over patients and over seeds exclude zero
    on the claimed side; with a ``margin`` (in the metric's unit), where both exclude being worse by more than that.
    ``organs`` restricts the rows.
    """
    row = f"{dataset}, metrics.csv: {experiment} minus {baseline}, {metric}, {', '.join(organs) or 'all organs'}"
    rows, lacking = _runs(evidence, dataset, "metrics", (experiment, baseline), organs)
    if rows is None:
        return Finding(NOT_RUN, lacking, row=row, chapter=EVALUATION)
    if unlearnt := _not_learnt(rows, organs):
        return Finding(NOT_RUN, unlearnt, row=row, chapter=EVALUATION)
    try:
        found = paired_difference(rows, experiment, baseline, metric=metric)
    except ValueError as fault:  # the runs have no such metric, or no test patient in common
        return Finding(NOT_RUN, str(fault), row=row, chapter=EVALUATION)
    interval = Interval(found.difference, found.low, found.high)
    sign = 1 if more != lower_is_better(metric) else -1
    judged, word = _sided(interval, seed_interval(rows, experiment, baseline, metric=metric), sign, sign * margin)
    if margin:
        word = word.replace("zero", f"{margin:g} less").replace("the opposite", f"worse by more than {margin:g}")
    scale, unit = _scale(metric)
    text = f"{scale * found.difference:+z.2f}{unit}{word}, {_sample(dataset, found.cases)}{_nothing(rows)}"
    partial = _partial(evidence, rows, (experiment, baseline))
    return Finding(judged, text, _interval_text(interval, scale), partial, row, EVALUATION)


def ahead_of_all(
    evidence: Evidence, dataset: str, experiment: str, baselines: Sequence[str], *, organs: Sequence[str] = ()
) -> Finding:
    """Ask whether an experiment is better than each of several others, as `difference` asks of one.

    Reproduced where all are; one that is not decides, before one that is not decided or has not been run.
    """
    found = {name: difference(evidence, dataset, experiment, name, organs=organs) for name in baselines}
    decisive = weakest(list(found.values()))
    text = "; ".join(f"against {name.replace('_', ' ')}: {one.found}" for name, one in found.items())
    rows = "; ".join(one.row for one in found.values())
    return Finding(decisive.verdict, text, decisive.interval, decisive.partial, rows, EVALUATION)


def interaction(evidence: Evidence, dataset: str) -> Finding:
    """Ask whether ca-Dice gains more at the small patch than at the large one, on the same test patients."""
    row = f"{dataset}, metrics.csv: (small ca - small nnU) minus (large ca - large nnU), dsc"
    rows, lacking = _runs(evidence, dataset, "metrics", FOUR_CONFIGURATIONS)
    if rows is None:
        return Finding(NOT_RUN, lacking, row=row, chapter=EVALUATION)
    values = rows[(rows["metric"] == "dsc") & (rows["split"] == "test")]
    keys = ["case", "organ", "experiment"]
    means = values.groupby(keys)["value"].mean().unstack("experiment")
    wide = means.reindex(columns=list(FOUR_CONFIGURATIONS)).dropna()
    if wide.empty:
        return Finding(NOT_RUN, "no dsc of the same test patients in all four", row=row, chapter=EVALUATION)
    gain = {size: wide[f"{size}_ca_dice_ce"] - wide[f"{size}_nnu_dice_ce"] for size in ("small", "large")}
    sums = pd.DataFrame({"small": gain["small"], "large": gain["large"]}).reset_index()
    long = sums.melt(["case", "organ"], ["small", "large"], "experiment", "value")
    long = long.assign(profile="", seed=0, split="test", metric="dsc")
    found = paired_difference(long, "small", "large")
    interval = Interval(found.difference, found.low, found.high)
    by_seed = values.groupby(["seed", "organ", "experiment"])["value"].mean().unstack("experiment")
    per_run = [
        (by_seed[f"{size}_ca_dice_ce"] - by_seed[f"{size}_nnu_dice_ce"]).groupby("seed").mean().dropna().rename(size)
        for size in ("small", "large")
    ]
    judged, word = _sided(interval, _over_seeds(*per_run), 1)
    scale, unit = _scale("dsc")
    text = f"{scale * found.difference:+z.2f}{unit}{word}, {_sample(dataset, found.cases)}"
    return Finding(
        judged, text, _interval_text(interval, scale), _partial(evidence, rows, FOUR_CONFIGURATIONS), row, EVALUATION
    )


def drift_larger(
    evidence: Evidence,
    dataset: str,
    organs: Sequence[str],
    *,
    experiments: Sequence[str] = FOUR_CONFIGURATIONS,
    larger: bool = True,
) -> Finding:
    """Ask whether organs lose more mean confidence from training to test than the others (less: ``larger`` False).

    Each case gives the mean soft recall over the organs named minus that over the others; the drift of this
    difference, train minus test, has Welch's interval over patients, and Student's over the seeds that all experiments
    have. All experiments count alike. Other organs that are not learnt are left out.
    """
    where = "the four" if tuple(experiments) == FOUR_CONFIGURATIONS else ", ".join(experiments)
    row = f"{dataset}, confidence.csv: drift of {', '.join(organs)} minus that of the others, in {where}"
    rows, lacking = _runs(evidence, dataset, "confidence", experiments)
    if rows is None:
        return Finding(NOT_RUN, lacking, row=row, chapter=CONFIDENCE)
    if lacking := _confidence_lacks(evidence, dataset, rows, organs, experiments):
        return Finding(NOT_RUN, lacking, row=row, chapter=CONFIDENCE)
    metrics, _ = _runs(evidence, dataset, "metrics", experiments)
    rows = rows[rows["organ"].isin(organs) | ~rows["organ"].isin([] if metrics is None else _low(metrics).index)]
    inside = rows["organ"].isin(organs)
    if inside.all():
        return Finding(NOT_RUN, "no other organ is learnt at this budget", row=row, chapter=CONFIDENCE)
    keys = ["experiment", "seed", "split", "case"]
    parts = [rows[chosen].groupby(keys)["soft_recall"].mean() for chosen in (inside, ~inside)]
    by_run = (parts[0] - parts[1]).dropna()
    interval = _drift(by_run.groupby(["experiment", "split", "case"]).mean().groupby(["split", "case"]).mean())
    means = by_run.groupby(["seed", "experiment", "split"]).mean().unstack("split")
    drifts = (means["train"] - means["test"]).unstack("experiment").dropna().mean(axis=1)
    judged, word = _sided(interval, _of_seeds(drifts), 1 if larger else -1)
    text = f"{interval.value:+z.3f}{word}"
    return Finding(judged, text, _interval_text(interval), _partial(evidence, rows, experiments), row, CONFIDENCE)


def drift_within(
    evidence: Evidence,
    dataset: str,
    organs: Sequence[str],
    *,
    most: float,
    experiments: Sequence[str] = FOUR_CONFIGURATIONS,
) -> Finding:
    """Ask whether each of some organs loses at most so much mean confidence from training to test in every experiment.

    Reproduced where all intervals, Welch's over patients and Student's over seeds, lie below ``most``; not reproduced
    where both of an organ and experiment lie above it; undecided otherwise.
    """
    row = f"{dataset}, confidence.csv: drift of {', '.join(organs)}"
    rows, lacking = _runs(evidence, dataset, "confidence", experiments, organs)
    if rows is None:
        return Finding(NOT_RUN, lacking, row=row, chapter=CONFIDENCE)
    if lacking := _confidence_lacks(evidence, dataset, rows, organs, experiments):
        return Finding(NOT_RUN, lacking, row=row, chapter=CONFIDENCE)
    found = {}
    for (experiment, organ), part in rows.groupby(["experiment", "organ"]):
        means = part.groupby(["seed", "split"])["soft_recall"].mean().unstack("split")
        interval = _drift(part.groupby(["split", "case"])["soft_recall"].mean())
        found[str(experiment), str(organ)] = interval, _of_seeds(means["train"] - means["test"])
    if all(interval.high < most and seeds[1] < most for interval, seeds in found.values()):
        judged: Verdict = REPRODUCED
    else:
        beyond = any(interval.low > most and seeds[0] > most for interval, seeds in found.values())
        judged = NOT_REPRODUCED if beyond else UNDECIDED
    worst = max(found, key=lambda name: found[name][0].value)
    largest = found[worst][0]
    text = f"largest loss {largest.value:+z.3f}, {worst[1].replace('_', ' ')} by {worst[0]}; {most:g} allowed"
    return Finding(judged, text, _interval_text(largest), _partial(evidence, rows, experiments), row, CONFIDENCE)


def drift_changes(
    evidence: Evidence,
    dataset: str,
    experiment: str,
    baseline: str,
    *,
    organs: Sequence[str] = (),
    margin: float = 0.0,
) -> Finding:
    """Ask whether an experiment lowers the loss of confidence of organs against a baseline.

    With a ``margin`` the claim is that it does not: reproduced where the intervals over patients and over seeds both
    exclude a fall by more than the margin, not reproduced where both lie beyond it, and undecided otherwise.
    """
    row = f"{dataset}, confidence.csv: drift of {experiment} minus {baseline}, {', '.join(organs) or 'all organs'}"
    both = (experiment, baseline)
    rows, lacking = _runs(evidence, dataset, "confidence", both, organs)
    if rows is None:
        return Finding(NOT_RUN, lacking, row=row, chapter=CONFIDENCE)
    if lacking := _confidence_lacks(evidence, dataset, rows, organs, both):
        return Finding(NOT_RUN, lacking, row=row, chapter=CONFIDENCE)
    interval = _drift(_paired_confidence(rows, experiment, baseline))
    per_run = [
        rows[rows["experiment"] == name].groupby(["seed", "split", "organ"])["soft_recall"].mean().unstack("split")
        for name in both
    ]
    seeds = _over_seeds(*((part["train"] - part["test"]).groupby("seed").mean() for part in per_run))
    judged, word = _no_fall(interval, seeds, margin) if margin else _sided(interval, seeds, -1)
    partial = _partial(evidence, rows, both)
    return Finding(judged, f"{interval.value:+z.3f}{word}", _interval_text(interval), partial, row, CONFIDENCE)


def confidence_rises(evidence: Evidence, dataset: str, experiment: str, baseline: str) -> Finding:
    """Ask whether an experiment has a higher mean confidence than a baseline on the same test patients."""
    row = f"{dataset}, confidence.csv: test soft recall of {experiment} minus {baseline}, all organs"
    both = (experiment, baseline)
    rows, lacking = _runs(evidence, dataset, "confidence", both)
    if rows is None:
        return Finding(NOT_RUN, lacking, row=row, chapter=CONFIDENCE)
    long = rows.rename(columns={"soft_recall": "value"}).assign(metric="soft_recall")
    try:
        found = paired_difference(long, experiment, baseline, metric="soft_recall")
    except ValueError as fault:  # no test patient in common
        return Finding(NOT_RUN, str(fault), row=row, chapter=CONFIDENCE)
    interval = Interval(found.difference, found.low, found.high)
    judged, word = _sided(interval, seed_interval(long, experiment, baseline, metric="soft_recall"), 1)
    text = f"{found.difference:+z.3f}{word}, {_sample(dataset, found.cases)}"
    return Finding(judged, text, _interval_text(interval), _partial(evidence, rows, both), row, CONFIDENCE)


def sigma_falls_on(evidence: Evidence, dataset: str, *, centres: str = "paper") -> Finding:
    """Ask whether sigma falls from the large to the small patch in other scans; exact, without training."""
    row = f"{dataset}, imbalance.csv: centres {centres}"
    table = evidence.table(dataset, "imbalance")
    if table is None:
        return Finding(NOT_RUN, f"no table of {dataset}", row=row, chapter=IMBALANCE)
    chosen = table[table["centres"] == centres]
    sigma = chosen.groupby(["patch", "class"])["ratio"].mean().groupby("patch").std(ddof=0)
    judged = REPRODUCED if sigma["small"] < sigma["large"] else NOT_REPRODUCED
    return Finding(judged, f"{sigma['large']:.4f} to {sigma['small']:.4f}", row=row, chapter=IMBALANCE)


def rarely_absent(
    evidence: Evidence, dataset: str, *, patch: str = "large", centres: str = "paper", most: float
) -> Finding:
    """Ask whether every organ is in most batches of two: absent from both patches with probability ``most`` or less."""
    row = f"{dataset}, imbalance.csv: presence in the {patch} patch, centres {centres}"
    table = evidence.table(dataset, "imbalance")
    if table is None:
        return Finding(NOT_RUN, f"no table of {dataset}", row=row, chapter=IMBALANCE)
    chosen = table[(table["centres"] == centres) & (table["patch"] == patch) & (table["class"] != "background")]
    absent = ((1 - chosen["presence"]) ** 2).groupby(chosen["class"]).mean()
    worst = str(absent.idxmax())
    share = f"{100 * absent.max():.1f} % of the batches of two, {100 * most:g} % allowed"
    text = f"at worst the {worst.replace('_', ' ')} is absent from {share}"
    return Finding(REPRODUCED if absent.max() <= most else NOT_REPRODUCED, text, row=row, chapter=IMBALANCE)


def _runs(
    evidence: Evidence, dataset: str, name: str, experiments: Sequence[str], organs: Sequence[str] = ()
) -> tuple[pd.DataFrame | None, str]:
    """Return the rows of experiments and organs, or None and what is lacking."""
    table = evidence.table(dataset, name)
    if table is None:
        return None, f"no study of {dataset}"
    if without := [one for one in experiments if one not in set(table["experiment"])]:
        return None, f"no run of {', '.join(without)} on {dataset}"
    rows = table[table["experiment"].isin(experiments)]
    if without := [one for one in organs if one not in set(rows["organ"])]:
        return None, f"no {', '.join(without)} in the runs on {dataset}"
    return (rows[rows["organ"].isin(organs)] if organs else rows), ""


def _not_learnt(metrics: pd.DataFrame, organs: Sequence[str]) -> str:
    """Return why nothing can be said of organs that no experiment has learnt; empty where all are."""
    low = _low(metrics)
    if low.empty or (not organs and len(low) < metrics["organ"].nunique()):
        return ""
    return "not learnt at this budget: " + ", ".join(f"{name} (DSC {value:.2f})" for name, value in low.items())


def _low(metrics: pd.DataFrame) -> pd.Series[Any]:
    """Return the organs whose mean test DSC stays below ``LEARNT`` in every experiment, with the best of them."""
    rows = metrics[(metrics["metric"] == "dsc") & (metrics["split"] == "test")]
    reached = rows.groupby(["organ", "experiment"])["value"].mean().groupby("organ").max()
    return reached[reached < LEARNT]


def _nothing(metrics: pd.DataFrame) -> str:
    """Name the experiments of rows that have next to nothing of an organ, for a difference to them says little."""
    rows = metrics[(metrics["metric"] == "dsc") & (metrics["split"] == "test")]
    means = rows.groupby(["experiment", "organ"])["value"].mean()
    lacking = means[means < NOTHING].reset_index().groupby("experiment")["organ"].agg(list)
    return "".join(f"; {name} has not learnt {', '.join(organs)}" for name, organs in lacking.items())


def _confidence_lacks(
    evidence: Evidence, dataset: str, rows: pd.DataFrame, organs: Sequence[str], experiments: Sequence[str]
) -> str:
    if not {"train", "test"} <= set(rows["split"]):
        return f"no training and test cases in the runs on {dataset}"
    if without := [one for one in organs if one not in set(rows["organ"])]:
        return f"no {', '.join(without)} in the runs on {dataset}"
    metrics, lacking = _runs(evidence, dataset, "metrics", experiments, organs)
    return lacking if metrics is None else _not_learnt(metrics, organs)


def _paired_confidence(rows: pd.DataFrame, experiment: str, baseline: str) -> pd.Series[Any]:
    """Return the difference in mean soft recall of every case, index (split, case)."""
    by_organ = rows.groupby(["split", "case", "organ", "experiment"])["soft_recall"].mean().unstack("experiment")
    return (by_organ[experiment] - by_organ[baseline]).dropna().groupby(["split", "case"]).mean()


def _drift(values: pd.Series[Any]) -> Interval:
    """Return mean over training cases minus mean over test cases with Welch's 95 % interval."""
    groups = []
    for split in ("train", "test"):
        part = values.xs(split, level="split")
        groups.append(Group(float(part.mean()), float(part.std()), len(part)))
    if min(group.cases for group in groups) < 2:
        return Interval(groups[0].mean - groups[1].mean, np.nan, np.nan)
    return mean_difference(*groups, confidence_level=0.95)


def _sided(interval: Interval, seeds: tuple[float, float], sign: int, margin: float = 0.0) -> tuple[Verdict, str]:
    """Return the verdict on a claimed direction, and what to add to the figure.

    Both intervals, over patients and over seeds, must exclude zero, or ``-margin``. What patients tell from it and
    seeds do not is undecided, and so is what the patients do not tell from a margin.
    """
    if np.isnan(interval.low):
        return NOT_RUN, " (one patient: no interval)"
    if interval.low + margin <= 0 <= interval.high + margin:
        return (UNDECIDED if margin else NOT_REPRODUCED), f" ({NOT_TOLD})"
    if np.isnan(seeds[0]):
        return UNDECIDED, " (one seed: their spread is not known)"
    if not (seeds[0] + margin > 0 if interval.low + margin > 0 else seeds[1] + margin < 0):
        return UNDECIDED, " (within the spread between seeds: too few to say)"
    claimed = sign * (interval.value + margin) > 0
    return (REPRODUCED, "") if claimed else (NOT_REPRODUCED, " (the opposite)")


def _no_fall(interval: Interval, seeds: tuple[float, float], margin: float) -> tuple[Verdict, str]:
    """Return the verdict on the claim that nothing falls by more than a margin."""
    if np.isnan(interval.low):
        return NOT_RUN, " (one patient: no interval)"
    if np.isnan(seeds[0]):
        return UNDECIDED, " (one seed: their spread is not known)"
    found = {verdict(one, (-margin, np.inf)) for one in (interval, Interval(interval.value, *seeds))}
    if found == {"equivalent"}:
        return REPRODUCED, f" (no fall beyond {margin:g})"
    if found == {"different"}:
        return NOT_REPRODUCED, f" (a fall beyond {margin:g})"
    return UNDECIDED, f" (a fall beyond {margin:g} is not excluded)"


def _over_seeds(first: pd.Series[Any], second: pd.Series[Any]) -> tuple[float, float]:
    """Return Welch's 95 % interval of the difference of two sets of runs; NaN where one has fewer than two."""
    if min(len(first), len(second)) < 2:
        return np.nan, np.nan
    groups = [Group(float(part.mean()), float(part.std()), len(part)) for part in (first, second)]
    found = mean_difference(*groups, confidence_level=0.95)
    return found.low, found.high


def _of_seeds(values: pd.Series[Any]) -> tuple[float, float]:
    """Return Student's 95 % interval of a mean over seeds; NaN with fewer than two."""
    if len(values) < 2:
        return np.nan, np.nan
    half = float(scipy_stats.t.ppf(0.975, len(values) - 1) * values.std() / np.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def _sample(dataset: str, cases: int) -> str:
    return f"{cases} phantom cases, no patients" if dataset.startswith("phantom") else f"{cases} patients"


def _scale(metric: str) -> tuple[float, str]:
    return (1.0, " mm") if metric.endswith("_mm") else (100.0, " points")


def _interval_text(interval: Interval, scale: float = 1.0) -> str:
    if np.isnan(interval.low):
        return ""
    digits = 3 if scale == 1.0 and abs(interval.high) < 1 else 2
    return f"{scale * interval.low:+z.{digits}f} to {scale * interval.high:+z.{digits}f}"


def _partial(evidence: Evidence, rows: pd.DataFrame, experiments: Sequence[str]) -> str:
    """Return how many of the planned seeds the scarcest experiment has; empty where it has them."""
    wanted = evidence.planned(str(rows["profile"].iloc[0]), experiments)
    have = int(rows.groupby("experiment")["seed"].nunique().min())
    return f"{have} of {wanted} seeds" if have < wanted else ""
