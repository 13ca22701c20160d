"""What the notebooks call: tables of a study in, small tables and phrases for the prose out.

Notebooks hold the story; this module holds the few lines of table work behind it. Every phrase is
computed from the tables, so that the prose cannot disagree with them.
"""

from hnlib.chapters.data import (
    by_rule,
    credit,
    dataset_facts,
    imbalance_facts,
    organ_table,
    picture,
    plan_table,
    presence_table,
    sigma_table,
    split_table,
)
from hnlib.chapters.page import begin, is_phantom, listed, load, mean_sd, percent, provenance, title
from hnlib.chapters.runs import (
    confidence_facts,
    difference_table,
    drift_table,
    evaluation_facts,
    missed_table,
    one_run,
    partial_table,
    results_table,
    runs_summary,
    runs_table,
    seed_table,
    tiny_study,
    training_answer,
)

__all__ = [
    "begin",
    "by_rule",
    "confidence_facts",
    "credit",
    "dataset_facts",
    "difference_table",
    "drift_table",
    "evaluation_facts",
    "imbalance_facts",
    "is_phantom",
    "listed",
    "load",
    "mean_sd",
    "missed_table",
    "one_run",
    "organ_table",
    "partial_table",
    "percent",
    "picture",
    "plan_table",
    "presence_table",
    "provenance",
    "results_table",
    "runs_summary",
    "runs_table",
    "seed_table",
    "sigma_table",
    "split_table",
    "tiny_study",
    "title",
    "training_answer",
]
