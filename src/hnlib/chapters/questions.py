"""What chapters ask of runs: one experiment minus another, over the patients that both have and all seeds of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from hnlib.chapters.page import DASH, TOO_WEAK, limits, title
from hnlib.experiment_files import experiment_title
from hnlib.stats import paired_difference, seed_interval

NOT_RUN = "not yet run"
#: What is no training and so has no seeds: it is compared with all seeds of the other side.
SEEDLESS = ("atlas",)
_RUN = ["profile", "experiment", "seed"]


def differences(metrics: pd.DataFrame, pairs: Sequence[tuple[str, str]], metric: str = "dsc") -> pd.DataFrame:
    """Return for each pair (experiment, baseline) the difference in mean test DSC, over all seeds that each side has.

    Another ``metric`` of ``metrics.csv`` takes the place of the DSC where it is named.

    Returns
    -------
    pandas.DataFrame
        Index ``experiment`` and ``minus``, by their titles; ``difference``, its intervals ``over cases`` and ``over
        seeds`` (a dash where there is none), and the ``cases`` and ``seeds`` behind it. A pair without a test case in
        common is not yet run.
    """
    rows = metrics[(metrics["metric"] == metric) & (metrics["split"] == "test")]
    return pd.DataFrame([_row(rows, *pair, metric) for pair in pairs]).set_index(["experiment", "minus"])


def apart(metrics: pd.DataFrame, experiment: str, baseline: str, metric: str = "dsc") -> dict[str, Any]:
    """Return one experiment minus another: how far, how surely, on how many patients and seeds.

    All seeds of a side count, since trainings of one seed are no pair: with one loss more or one patch smaller the
    whole course differs. The interval over seeds is that of two sets of runs.

    Returns
    -------
    dict
        ``value``, ``low``, ``high`` (95 %, over patients), ``seeds_low``, ``seeds_high`` (over seeds), ``patients``,
        ``seeds`` (the fewer of both sides; of what has no seeds, the other's).
    """
    found = paired_difference(metrics, experiment, baseline, metric=metric)
    low, high = seed_interval(metrics, experiment, baseline, metric=metric)
    answer = {"value": found.difference, "low": found.low, "high": found.high, "seeds_low": low, "seeds_high": high}
    seeds = {experiment: found.seeds, baseline: found.baseline_seeds}
    fewest = min(count for name, count in seeds.items() if name not in SEEDLESS)
    return {**answer, "patients": found.cases, "seeds": fewest}


def _row(table: pd.DataFrame, experiment: str, baseline: str, metric: str) -> dict[str, Any]:
    row: dict[str, Any] = {"experiment": experiment_title(experiment), "minus": experiment_title(baseline)}
    ours, theirs = (set(table.loc[table["experiment"] == name, "case"]) for name in (experiment, baseline))
    if not ours & theirs:
        return row | {"difference": NOT_RUN, "over cases": DASH, "over seeds": DASH, "cases": 0, "seeds": 0}
    one = apart(table, experiment, baseline, metric)
    row |= {"difference": f"{one['value']:+z.3f}", "over cases": limits(one["low"], one["high"])}
    return row | {
        "over seeds": limits(one["seeds_low"], one["seeds_high"]),
        "cases": one["patients"],
        "seeds": one["seeds"],
    }


def lost_organs(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that lost an organ: outlined in no test case, though another seed of the experiment outlines it.

    Returns
    -------
    pandas.DataFrame
        One row a run and organ: ``profile``, ``experiment``, ``seed``, ``organ`` and ``cases`` (test cases that have
        the organ). Another seed outlines it where its mean DSC is `TOO_WEAK` at least.
    """
    dsc = metrics[(metrics["metric"] == "dsc") & (metrics["split"] == "test")]
    found = dsc.groupby([*_RUN, "organ"])["value"].agg(["max", "mean", "size"]).reset_index()
    best = found.groupby(["profile", "experiment", "organ"])["mean"].transform("max")
    lost = found[(found["max"] == 0) & (best >= TOO_WEAK)]
    return lost.rename(columns={"size": "cases"})[[*_RUN, "organ", "cases"]].reset_index(drop=True)


def without_lost(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of runs that lost no organ."""
    lost = pd.MultiIndex.from_frame(lost_organs(metrics)[_RUN])
    return metrics[~pd.MultiIndex.from_frame(metrics[_RUN]).isin(lost)]


def lost_words(lost: pd.DataFrame) -> str:
    """Name the runs of `lost_organs`, as a table does."""
    words = []
    for row in lost.to_dict("records"):
        run = f"{experiment_title(str(row['experiment']))}, seed {row['seed']}"
        words.append(f"{run}, {title(row['organ'])} in {row['cases']} cases")
    return "; ".join(words)


def asked(questions: pd.DataFrame, pair: tuple[str, str]) -> dict[str, Any]:
    """Return the row of one pair in a table of `differences`."""
    (row,) = questions.loc[[tuple(map(experiment_title, pair))]].to_dict("records")
    return {str(key): value for key, value in row.items()}


def minutes_by_stage(history: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Return the minutes of each training of a system of stages, mean over seeds; not yet run before it is."""
    rows = history[history["experiment"] == experiment] if len(history) else history
    if rows.empty or "stage" not in rows:
        return pd.DataFrame({"minutes": [NOT_RUN]}, index=["all stages"])
    ends = rows.groupby(["seed", "stage"], sort=False)["seconds"].max().reset_index()
    spent = ends.assign(seconds=ends.groupby("seed")["seconds"].diff().fillna(ends["seconds"]))
    return (spent.groupby("stage", sort=False)["seconds"].mean() / 60).round(2).rename("minutes").to_frame()
