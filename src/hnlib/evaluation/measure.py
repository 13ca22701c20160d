"""Every case of a folder of predictions, measured; and two folders, compared on the same cases."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hnlib.datasets.label_folders import GIVEN, LabelFolder, open_folder
from hnlib.errors import ConfigError, DataError
from hnlib.metrics import DISTANCES, METRICS, evaluate_case
from hnlib.stats import COLUMNS, compare_experiments
from hnlib.surfaces import voxel_box
from hnlib.volumes import Volume, read_volume, same_grid

Progress = Callable[[str, int, int], None]
LEFT_OUT = ("predictions", "case", "organ", "why")
"""Columns of ``left_out.csv``; the organ is empty where a whole case is left out."""
#: Why a case or organ has no row, in the words of the notes.
NO_PREDICTION, NO_REFERENCE = "without a prediction", "without a reference"
NOTHING = "with no voxel of a named organ in the reference"
NOT_NAMED = "predicted and not scored, as the reference has no such name"
NOT_OUTLINED = (
    "predicted where the reference has no voxel of the organ, and not scored, as the organ may just not have been "
    "outlined (with --absent these count as hallucinated)"
)
ONE_SIDE = "in one folder only, and not compared"
COMPARED = ("dsc", "surface_dsc", "hd95_mm")
"""Metrics of a comparison; the mean over organs of the first is the primary endpoint."""


@dataclass(frozen=True)
class Evaluation:
    """What was found in one folder of predictions.

    Attributes
    ----------
    name
        Of the predictions: it stands in the column ``experiment``.
    metrics
        Rows of ``metrics.csv`` with ``METRICS``, ``DISTANCES`` and ``hallucinated``; profile ``external``.
    left_out
        Columns ``LEFT_OUT``: every case and organ without a row, and why.
    notes
        Sentences about what was left out or is not defined. Nothing is left out without one.
    """

    name: str
    metrics: pd.DataFrame
    left_out: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Two folders of predictions on the same cases: differences are the first minus the second."""

    first: Evaluation
    second: Evaluation
    metrics: pd.DataFrame
    table: pd.DataFrame
    left_out: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Rules:
    """How folders are read.

    Attributes
    ----------
    organs
        Names by comma in the order of the values; empty looks for a file that says so.
    absent
        An organ without a voxel in a reference is one that the patient does not have: predicting it is counted.
        Otherwise it is unknown and has no row.
    common
        Take the cases that both sides have; otherwise a case that one side lacks is an error.
    workers
        Cases at a time; 0 takes as many as there are cores, 8 at most.
    """

    organs: str = ""
    absent: bool = False
    common: bool = False
    workers: int = 0


def evaluate_folders(
    prediction: Path, reference: Path, rules: Rules | None = None, *, name: str = "", progress: Progress | None = None
) -> Evaluation:
    """Compare each label map of a folder with the one of the same name in another.

    Raises
    ------
    DataError
        When a folder or file is missing or damaged, a prediction lies on another grid than its reference, or a label
        map holds a value without a name.
    ConfigError
        When nothing says which value is which organ.
    """
    rules = rules or Rules()
    truth = open_folder(reference, rules.organs, prediction)
    return _evaluate(prediction, truth, rules, name or prediction.absolute().name, progress)


def _evaluate(prediction: Path, truth: LabelFolder, rules: Rules, name: str, progress: Progress | None) -> Evaluation:
    ours = open_folder(prediction, rules.organs, truth.root)
    cases, lacking = _shared_cases(ours, truth, rules.common)

    def one(case: str) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
        return _measure_case(case, ours, truth, rules.absent)

    tables, left_out = [], [(case, "", why) for case, why in lacking]
    with ThreadPoolExecutor(rules.workers or min(8, os.cpu_count() or 1)) as pool:
        for done, (case, (table, strays)) in enumerate(zip(cases, pool.map(one, cases), strict=True), start=1):
            tables.append(table.assign(case=case))
            left_out += [(case, organ, why) for organ, why in strays]
            if progress is not None:
                progress(name, done, len(cases))
    metrics = pd.concat(tables, ignore_index=True).assign(profile="external", experiment=name, seed=0, split="test")
    if metrics.empty:
        raise DataError(f"folder {truth.root}: no reference holds a voxel of a named organ; check {truth.source}")
    rows = pd.DataFrame([(name, *row) for row in left_out], columns=list(LEFT_OUT))
    notes = (*_named_elsewhere(ours, truth), *_said(rows), *_never_named(ours, truth))
    notes += (*_not_defined(metrics, metrics["case"].nunique()),)
    return Evaluation(name, metrics[list(COLUMNS)], rows, notes)


def _said(left_out: pd.DataFrame) -> list[str]:
    """Return a sentence for each reason, with the first of what it concerns."""
    notes = []
    for why, rows in left_out.groupby("why", sort=False):
        pairs = zip(rows["case"].astype(str), rows["organ"].astype(str), strict=True)
        names = [f"{case} ({organ})" if organ else case for case, organ in pairs]
        notes.append(f"{'organs' if rows['organ'].any() else 'cases'} {why}, left out: {_listed(names)}")
    return notes


def _named_elsewhere(*sides: LabelFolder) -> list[str]:
    """Return which file names the organs of a folder, where it lies in none of those given."""
    given = {side.root.absolute() for side in sides}
    return [
        f"organs of {side.root} are named by {side.source}"
        for side in sides
        if side.source != GIVEN and Path(side.source).parent.absolute() not in given
    ]


def _never_named(ours: LabelFolder, truth: LabelFolder) -> list[str]:
    names = [name for name in truth.organs.values() if name not in ours.organs.values()]
    where = f"{ours.source} does not name {', '.join(names)}"
    return [f"{where}: outlined in the reference, they count as missed"] if names else []


def compare_folders(
    first: Path, second: Path, reference: Path, rules: Rules | None = None, *, progress: Progress | None = None
) -> Comparison:
    """Measure two folders against one reference and compare them case by case; the first minus the second.

    Raises
    ------
    DataError, ConfigError
        As `evaluate_folders`; also where the two share no case.
    """
    names, rules = _distinct(first, second), rules or Rules()
    truth = _one_reference(reference, (first, second), rules.organs)
    one, two = (
        _evaluate(root, truth, rules, name, progress) for root, name in zip((first, second), names, strict=True)
    )
    metrics = pd.concat([one.metrics, two.metrics], ignore_index=True)
    cases = [set(found.metrics["case"]) for found in (one, two)]
    scored = [set(found.metrics.loc[found.metrics["metric"] == "dsc", "case"]) for found in (one, two)]
    if not scored[0] & scored[1]:
        raise DataError(
            f"folders {first} and {second} share no case with an outlined organ; give folders of the same cases"
        )
    alone = [
        (found.name, case, "", ONE_SIDE)
        for found, own, other in ((one, cases[0], cases[1]), (two, cases[1], cases[0]))
        for case in sorted(own - other)
    ]
    only = pd.DataFrame(alone, columns=list(LEFT_OUT))
    notes = [f"{found.name}: {note}" for found in (one, two) for note in found.notes] + _said(only)
    table = compare_experiments(metrics, names[1], measures=COMPARED, seeds=False)
    left_out = pd.concat([one.left_out, two.left_out, only], ignore_index=True)
    return Comparison(one, two, metrics, table, left_out, tuple(dict.fromkeys(notes)))


def _one_reference(reference: Path, folders: tuple[Path, Path], organs: str) -> LabelFolder:
    """Return the reference; one without names of its own takes those of the predictions, where these agree."""
    found = [open_folder(reference, organs, folder) for folder in folders]
    if found[0].organs != found[1].organs:
        raise ConfigError(
            f"folder {reference}: does not say which value is which organ, and {found[0].source} and {found[1].source} "
            "say different things; name the values there, or give --organs"
        )
    return found[0]


def _distinct(first: Path, second: Path) -> tuple[str, str]:
    """Return a name for each folder: its own, or as much of its path as tells the two apart."""
    one, two = (path.absolute().parts for path in (first, second))
    for depth in range(1, max(len(one), len(two)) + 1):
        if one[-depth:] != two[-depth:]:
            return "/".join(one[-depth:]), "/".join(two[-depth:])
    raise DataError(f"folder {first}: is given twice; two folders of predictions are compared")


def _shared_cases(ours: LabelFolder, truth: LabelFolder, common: bool) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the cases that both have, and those that one side lacks, with the reason."""
    lacking = {
        NO_PREDICTION: sorted(truth.files.keys() - ours.files.keys()),
        NO_REFERENCE: sorted(ours.files.keys() - truth.files.keys()),
    }
    cases = sorted(truth.files.keys() & ours.files.keys())
    if not cases:
        raise DataError(
            f"folders {ours.root} and {truth.root} share no case: {_listed(sorted(ours.files))} against "
            f"{_listed(sorted(truth.files))}; a prediction has the name of its reference"
        )
    text = "; ".join(f"{why}: {_listed(names)}" for why, names in lacking.items() if names)
    if text and not common:
        raise DataError(
            f"folders {ours.root} and {truth.root}: cases {text}; add them, or take the {len(cases)} that both have "
            "(--common)"
        )
    return cases, [(case, why) for why, names in lacking.items() for case in names]


def _measure_case(
    case: str, ours: LabelFolder, truth: LabelFolder, absent: bool
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Return the rows of one case, and what has no row: organs and why, an empty name for all of it."""
    found = [read_volume(side.files[case], labels=True, case=case) for side in (truth, ours)]
    difference = same_grid(found[0], found[1], "of the reference")
    if difference:
        raise DataError(
            f"case {case}: prediction {ours.files[case]} lies on another grid ({difference}); bring it "
            "back to that of the reference"
        )
    organs = tuple(truth.organs.values())
    boxes = [box for volume in found if (box := voxel_box(volume.array)) is not None]
    whole = (
        tuple(slice(min(b[k].start for b in boxes), max(b[k].stop for b in boxes)) for k in range(3)) if boxes else ()
    )
    maps = [
        _renamed(volume.array[whole or (slice(1),) * 3], side, organs, case)
        for volume, side in zip(found, (truth, ours), strict=True)
    ]
    present = [set(np.flatnonzero(np.bincount(labels.ravel(), minlength=len(organs) + 1))) for labels in maps]
    labelled = [name for value, name in enumerate(organs, start=1) if value in present[0]]
    missing = [name for name in organs if name not in labelled]
    table = evaluate_case(
        *maps,
        spacing_mm=found[0].spacing_mm,
        organs=organs,
        labelled=labelled,
        absent=missing if absent else (),
        metrics=METRICS + DISTANCES,
    )
    strays = [] if absent else [name for name in missing if organs.index(name) + 1 in present[1]]
    said = [(name, NOT_OUTLINED) for name in strays] + [(name, NOT_NAMED) for name in _unscored(found[1], ours, organs)]
    return table, said if labelled or absent else [*said, ("", NOTHING)]


def _unscored(prediction: Volume, side: LabelFolder, organs: tuple[str, ...]) -> list[str]:
    """Return the organs of a prediction that the organ tuple lacks."""
    return [name for value, name in side.organs.items() if name not in organs and (prediction.array == value).any()]


def _renamed(labels: NDArray[Any], side: LabelFolder, organs: tuple[str, ...], case: str) -> NDArray[np.uint8]:
    """Return the label map with the values of the organ tuple; organs that the tuple lacks become background."""
    values = np.unique(labels)
    strange = [int(value) for value in values if value and int(value) not in side.organs]
    if strange:
        raise DataError(
            f"case {case}, file {side.files[case]}: label {_listed([str(v) for v in strange])} stands for no organ in "
            f"{side.source}; name it there, or remove it"
        )
    place = {value: organs.index(name) + 1 for value, name in side.organs.items() if name in organs}
    lookup = np.array([place.get(int(value), 0) for value in values], np.uint8)
    return lookup[np.searchsorted(values, labels)]


def _not_defined(metrics: pd.DataFrame, cases: int) -> list[str]:
    notes = []
    if cases == 1:
        notes.append("one case: an interval or a test is not defined")
    empty = metrics[metrics["metric"].isin(("hd95_mm", *DISTANCES)) & metrics["value"].isna()]
    if len(empty):
        count = empty.groupby(["case", "organ"]).ngroups
        notes.append(f"distances are not defined for {count} missed organs; they count in `missed` and with DSC 0")
    return notes


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
