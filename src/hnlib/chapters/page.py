"""What every chapter needs: its tables, its style, words for numbers, and where the numbers come from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hnlib.errors import ConfigError
from hnlib.experiment_files import experiment_title
from hnlib.experiments import load_profile, planned_seeds, read_tables
from hnlib.experiments.study import home
from hnlib.html_page import one_head
from hnlib.organs import RESERVED, organ
from hnlib.plotting import describe_figures, use_style

Facts = dict[str, str]
#: Level of the tests.
ALPHA = 0.05
#: Below this mean test DSC a network's masks are no outlines.
TOO_WEAK = 0.2
DASH = "–"
NBSP = "\u00a0"  # keeps a number in one line of a table
#: Fabric's names of the arithmetic of a training, in words.
PRECISIONS: Mapping[str, str] = {"32-true": "float32", "bf16-mixed": "bfloat16 (weights and losses in float32)"}


def begin() -> None:
    """Set the one visual style of figures and tables for the running notebook, and give its figures their words."""
    from IPython.core.getipython import get_ipython

    use_style()
    describe_figures()
    pd.set_option("display.max_colwidth", None)
    formatter = getattr(get_ipython(), "display_formatter", None)
    if formatter is not None:
        html = formatter.formatters["text/html"]
        html.for_type(pd.DataFrame, lambda table: one_head(table.to_html(border=0, justify="left")))


def load(tables: Path | str, *names: str, profile: str = "", arms: str = "") -> tuple[Any, ...]:
    """Return the study's facts and the named tables; run tables hold the rows of one profile's study, or of its arms.

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
            table = table[table["experiment"].isin(load_profile(wanted).experiments(arms))].reset_index(drop=True)
            if table.empty:
                raise ConfigError(f"no run of the {arms or 'study'} of profile '{wanted}' in {tables}; train one first")
        chosen.append(table)
    return found["study"], *chosen


def is_phantom(study: Mapping[str, Any]) -> bool:
    """Return whether the study is on the phantom."""
    return bool(study["dataset"] == "phantom")


def title(name: str) -> str:
    """Return the name of an organ or class for prose and tables."""
    return name.capitalize() if name in RESERVED else organ(name).title


def inside(name: object) -> str:
    """Return the name of an organ inside a sentence; its side stays a capital.

    Examples
    --------
    >>> inside("parotid_left")
    'parotid L'
    """
    words = title(str(name))
    return words[0].lower() + words[1:]


def listed(values: list[str]) -> str:
    """Join words as prose does.

    Examples
    --------
    >>> listed(["a", "b", "c"])
    'a, b and c'
    >>> listed(["small, CE", "large, CE"])
    'small, CE; and large, CE'
    """
    if len(values) == 1:
        return values[0]
    comma, last = ("; ", "; and ") if any(", " in value for value in values) else (", ", " and ")
    return comma.join(values[:-1]) + last + values[-1]


def counted(number: int, noun: str) -> str:
    """Write how many there are of something.

    Examples
    --------
    >>> counted(1, "seed"), counted(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def seeds_phrase(runs: pd.DataFrame) -> str:
    """Say how many seeds the experiments of a profile have, and of how many planned ones where some are lacking.

    Parameters
    ----------
    runs
        Rows with ``profile``, ``experiment`` and ``seed``.
    """
    found: dict[str, list[str]] = {}
    counts = runs.groupby(["profile", "experiment"], sort=False)["seed"].nunique().reset_index()
    for row in counts.to_dict("records"):
        number, planned = int(row["seed"]), planned_seeds(str(row["profile"]), [str(row["experiment"])])
        text = counted(number, "seed") if number >= planned else f"{number} of {counted(planned, 'seed')}"
        found.setdefault(text, []).append(experiment_title(str(row["experiment"])))
    if len(found) == 1:
        return next(iter(found))
    return listed([f"{text} ({'; '.join(names)})" for text, names in found.items()])


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
    r"""Write a mean with its standard deviation; a dash where there is none.

    Examples
    --------
    >>> mean_sd(0.8, 0.05, 2), mean_sd(0.8, float("nan"), 2), mean_sd(float("nan"), float("nan"), 2)
    ('0.80\xa0±\xa00.05', '0.80', '–')
    """
    if np.isnan(mean):
        return DASH
    return f"{mean:.{digits}f}" + ("" if np.isnan(sd) else f"{NBSP}±{NBSP}{sd:.{digits}f}")


def limits(low: float, high: float, digits: int = 3) -> str:
    r"""Write the limits of an interval of a difference, in one line; a dash where there is none.

    Examples
    --------
    >>> limits(-0.01, 0.02).replace(NBSP, " "), limits(float("nan"), float("nan"))
    ('-0.010 to +0.020', '–')
    """
    return DASH if np.isnan(low) else f"{low:+z.{digits}f} to {high:+z.{digits}f}".replace(" ", NBSP)


def beyond_both(row: Mapping[Any, Any]) -> bool:
    """Return whether the intervals over patients (low, high) and over seeds (seeds_low, seeds_high) leave 0 out.

    Examples
    --------
    >>> beyond_both({"low": 0.1, "high": 0.2, "seeds_low": -0.1, "seeds_high": 0.4})
    False
    """
    return all(row[f"{one}low"] > 0 or row[f"{one}high"] < 0 for one in ("", "seeds_"))


def told(row: Mapping[Any, Any]) -> str:
    """Write a difference for the prose, with both of its intervals and whether they show it.

    Parameters
    ----------
    row
        ``value``, ``low``, ``high``, ``seeds_low``, ``seeds_high`` as of `hnlib.chapters.questions.apart`.

    Examples
    --------
    >>> told({"value": 0.15, "low": 0.1, "high": 0.2, "seeds_low": -0.1, "seeds_high": 0.4})
    '+0.150 (over patients +0.100 to +0.200, over seeds -0.100 to +0.400: not shown)'
    """
    seeds = "one seed" if np.isnan(row["seeds_low"]) else f"over seeds {limits(row['seeds_low'], row['seeds_high'])}"
    shown = "" if beyond_both(row) else ": not shown"
    text = f"{row['value']:+z.3f} (over patients {limits(row['low'], row['high'])}, {seeds}{shown})"
    return text.replace(NBSP, " ")


def with_limits(value: float, low: float, high: float, digits: int = 3, sign: str = "+") -> str:
    """Write an estimate with the limits of its interval, in one line.

    Examples
    --------
    >>> with_limits(0.01, -0.0001, 0.03).replace(NBSP, " "), with_limits(9.5, 9, 10, 1, sign="").replace(NBSP, " ")
    ('+0.010 (+0.000 to +0.030)', '9.5 (9.0 to 10.0)')
    """
    form = f"{sign}z.{digits}f"
    return f"{value:{form}} ({low:{form}} to {high:{form}})".replace(" ", NBSP)


# Every chapter


def provenance(tables: Path | str, *used: pd.DataFrame) -> pd.DataFrame:
    """Return where the numbers of a chapter come from: the data and, of the runs it used, how and on what.

    Parameters
    ----------
    tables
        Folder of a study's tables; empty where the notebook trained its own run.
    used
        Rows of results: with ``profile``, ``experiment`` and ``seed``.
    """
    if not tables:
        return pd.DataFrame({"value": {"runs": "trained in this notebook", "run folders": str(home("runs").name)}})
    found = read_tables(tables)
    study, runs = found["study"], found["runs"]
    rows, digests = {"data": study["attribution"]}, ""
    if used:
        keys = ["profile", "experiment", "seed"]
        runs = runs.merge(pd.concat([table[keys] for table in used]).drop_duplicates())
        seeds = ", ".join(map(str, sorted(runs["seed"].unique()))) or "none"
        rows |= {
            "profile": "; ".join(runs["profile"].unique()) or DASH,
            "runs": f"{len(runs)} ({counted(runs['experiment'].nunique(), 'experiment')}; seeds {seeds})",
            **made_on(runs),
        }
        digests = "; ".join(runs["digests"].str.extract(r"data=(\w+)")[0].unique())
    rows["data digest"] = digests or study["data_digest"]
    return pd.DataFrame({"value": rows}).rename_axis("provenance")


def on_one_machine(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of the hardware and arithmetic by which most experiments were trained: their times compare.

    Examples
    --------
    >>> runs = pd.DataFrame({"experiment": ["a", "b", "b"], "seconds": [9, 2, 3], "precision": "32-true"})
    >>> on_one_machine(runs.assign(hardware=["old", "new", "new"]).iloc[1:])["seconds"].tolist()
    [2, 3]
    """
    kinds = runs.groupby(["hardware", "precision"])["experiment"].nunique()
    if kinds.empty:
        return runs
    machine: Any = kinds.idxmax()
    chosen: pd.DataFrame = runs[(runs["hardware"] == machine[0]) & (runs["precision"] == machine[1])]
    return chosen


def made_on(runs: pd.DataFrame) -> dict[str, str]:
    """Return what rows of ``runs.csv`` say of how long, how, on what and with what they were trained."""
    counts = runs["precision"].value_counts()
    arithmetic = [f"{PRECISIONS[str(name)]} in {counted(number, 'run')}" for name, number in counts.items()]
    return {
        "training, hours": f"{runs['seconds'].sum() / 3600:.2f}",
        "arithmetic": "; ".join(arithmetic) or DASH,
        "hardware": "; ".join(runs["hardware"].unique()) or DASH,
        "versions": "; ".join(runs["versions"].unique()) or DASH,
    }
