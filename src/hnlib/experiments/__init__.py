"""Configuration, run folders and tables: what ties the library's parts into a study."""

from hnlib.experiments.config import (
    Experiment,
    Profile,
    load_experiment,
    load_profile,
    planned_seeds,
)
from hnlib.experiments.run import Run, measure_run, train_run
from hnlib.experiments.study import Study, left_out, load_study, prepare_study
from hnlib.experiments.tables import describe_study, publish, read_tables, write_tables

__all__ = [
    "Experiment",
    "Profile",
    "Run",
    "Study",
    "describe_study",
    "left_out",
    "load_experiment",
    "load_profile",
    "load_study",
    "measure_run",
    "planned_seeds",
    "prepare_study",
    "publish",
    "read_tables",
    "train_run",
    "write_tables",
]
