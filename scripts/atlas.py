"""Segment test cases by registered training cases; writes ``atlas.csv``, rows of ``metrics.csv`` of experiment atlas.

    python scripts/atlas.py STUDY --out FOLDER [--atlases N] [--cases N]

STUDY is the ``study.json`` of ``hnlib prepare``. The atlases are the first training cases in which every organ of the
study is outlined, the same for all test cases, which are the first of the split. Each case is written when it is done.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from hnlib.atlas import carry_labels, fuse_votes
from hnlib.experiments import Study, load_study
from hnlib.files import write_table
from hnlib.inference import keep_largest_components
from hnlib.metrics import evaluate_case
from hnlib.preprocess import Prepared, restore_probabilities


def complete(study: Study, count: int) -> list[Prepared]:
    """Return the first training cases in which every organ is outlined."""
    names = study.split["train"]
    whole = [name for name in names if set(study.open_case(name).labelled) >= set(study.plan.organs)]
    return [study.case(name) for name in whole[:count]]


def segment(study: Study, case: Prepared, atlases: Sequence[Prepared]) -> pd.DataFrame:
    """Return the metrics of one test case on its own grid."""
    plan = study.plan
    votes = [carry_labels(case.image, one.image, one.labels, plan.spacing_mm) for one in atlases]
    shares = fuse_votes(votes, [one.labelled for one in atlases], plan.organs)
    return evaluate_case(
        study.open().load(case.name).labels,
        keep_largest_components(restore_probabilities(shares, case)),
        spacing_mm=case.native_spacing_mm,
        organs=plan.organs,
        labelled=case.labelled,
    )


def main() -> None:
    """Segment the cases that are not done yet and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--atlases", type=int, default=5)
    parser.add_argument("--cases", type=int, default=10)
    given = parser.parse_args()
    study = load_study(given.study)
    atlases = complete(study, given.atlases)
    parts = given.out / "atlas" / f"{Path(study.cache).name}-{len(atlases)}"
    names = study.split["test"][: given.cases]
    for name in names:
        target = parts / f"{name}.csv"
        if not target.exists():
            key = {"profile": study.profile, "experiment": "atlas", "seed": 0, "split": "test", "case": name}
            rows = segment(study, study.case(name), atlases).assign(**key)
            write_table(target, rows[[*key, "organ", "metric", "value"]])
            print(f"{name}: mean DSC {rows[rows['metric'] == 'dsc']['value'].mean():.3f}", flush=True)
    done = [pd.read_csv(parts / f"{name}.csv") for name in sorted(names)]
    write_table(given.out / "atlas.csv", pd.concat(done, ignore_index=True))


if __name__ == "__main__":
    main()
