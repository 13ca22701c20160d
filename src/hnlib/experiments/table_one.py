"""The results of a study as a table that a paper could print."""

from __future__ import annotations

from pathlib import Path

from hnlib.errors import DataError
from hnlib.experiment_files import experiment_title
from hnlib.experiments.config import load_profile
from hnlib.experiments.tables import read_tables
from hnlib.files import write_table, write_text
from hnlib.organs import organ
from hnlib.plotting.style import METRIC_LABELS
from hnlib.stats import latex, paper_layout, table_one


def write_table_one(source: Path, target: Path, profile: str = "") -> list[Path]:
    """Write a study's results as Table 1 of Tappeiner et al. 2022 has them: ``table1.csv`` and ``table1.tex``.

    Parameters
    ----------
    source
        Folder of the study's tables.
    target
        Folder of the two files.
    profile
        Whose study is shown; empty: the tables' own.

    Raises
    ------
    DataError
        When the folder lacks a table, has no run of the profile, or no test rows of a metric.
    """
    read = read_tables(source)
    wanted = profile or str(read["study"]["profile"])
    metrics = read["metrics"]
    chosen = metrics[(metrics["profile"] == wanted) & metrics["experiment"].isin(load_profile(wanted).study)]
    if chosen.empty:
        raise DataError(f"tables in {source}: no run of profile '{wanted}'; train one first, or name another profile")
    try:
        table = table_one(chosen)
    except ValueError as fault:
        raise DataError(f"tables in {source}, profile '{wanted}': {fault}") from None
    words = {**METRIC_LABELS, **{name: organ(name).title for name in set(chosen["organ"])}}
    layout = paper_layout(table, lambda name: words.get(name, experiment_title(name)), r"\textbf{{{}}}".format)
    seeds = chosen.groupby("experiment", sort=False)["seed"].nunique()
    counts = "; ".join(f"{experiment_title(str(name))}: {count}" for name, count in seeds.items())
    caption = (
        f"Test results, mean and SD over cases, seeds averaged (number of seeds: {counts}). "
        f"{read['study']['attribution']}. All organs: the mean over those of which every configuration has a value in "
        "the case. Bold: better than all other configurations on the cases that both have, "
        "by Wilcoxon's test over patients and Welch's over seeds, Holm's correction over the whole table."
    )
    paths = [target / "table1.csv", target / "table1.tex"]
    write_table(paths[0], table)
    write_text(paths[1], latex(layout, caption))
    return paths
