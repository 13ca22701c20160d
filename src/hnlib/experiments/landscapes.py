"""The landscape of patch sizes of a data set: what patches of every size would show of its cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from hnlib.experiments.study import Study
from hnlib.imbalance import Scan, ScanSource, landscape, summarise
from hnlib.imbalance.summary import PATCH
from hnlib.processes import WORKERS
from hnlib.sampling import Triple, centre_rule

#: Sizes go up in eighths of the large patch, in plane and along Z on their own.
STEPS = range(1, 13)
TABLES = ("landscape", "landscape_classes")


def landscape_sizes(large: Triple, others: Sequence[Triple] = ()) -> list[Triple]:
    """Return a grid of sizes from an eighth to one and a half of the large patch, in plane and along Z, and others.

    Examples
    --------
    >>> sizes = landscape_sizes((64, 40, 64))
    >>> len(sizes), sizes[0], sizes[-1]
    (144, (8, 5, 8), (96, 60, 96))
    """
    x, y, z = large
    grid = [(-(-k * x // 8), -(-k * y // 8), -(-m * z // 8)) for k in STEPS for m in STEPS]
    return list(dict.fromkeys([*grid, *others]))


def landscape_tables(
    scans: Sequence[ScanSource],
    sizes: Sequence[Triple],
    rules: Sequence[str],
    *,
    workers: int = WORKERS,
    cache: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, pd.DataFrame]:
    """Return the tables of `TABLES`: measures of imbalance, and shares and presence by class, for every size and rule.

    Means are over the cases; those of an organ, over the cases that have it.
    """
    laws = {name: centre_rule(name) for name in rules}
    rows = landscape(
        scans, sizes, laws, quantities=("ratio", "presence"), workers=workers, cache=cache, progress=progress
    )
    classes = rows.groupby([*PATCH, "centres", "class"], sort=False, observed=True)
    shares = classes[["ratio", "presence"]].mean().join(classes["case"].nunique().rename("cases")).reset_index()
    return {"landscape": summarise(rows), "landscape_classes": shares}


def training_scans(study: Study) -> list[ScanSource]:
    """Return what reads the training cases of a study on the plan's grid."""
    return [partial(_scan, study, name) for name in study.split["train"]]


def _scan(study: Study, name: str) -> Scan:
    case = study.case(name)
    hu = case.image * study.plan.sd_hu + study.plan.mean_hu
    return Scan(name, case.labels, study.plan.organs, frozenset(case.labelled), hu)
