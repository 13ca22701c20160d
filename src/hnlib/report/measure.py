"""What a report says of a folder, computed: sizes, shares in patches, a plan, a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from hnlib.cases import Case
from hnlib.datasets import FolderDataset
from hnlib.errors import DataError, HnlibError
from hnlib.experiments.tables import organ_rows
from hnlib.imbalance import Limits, PatchPlan, Scan, landscape, plan, planning_cases, scans_on_grid
from hnlib.report.losses import LossAdvice, advise
from hnlib.sampling import Triple, centre_rule

Progress = Callable[[str, int, int], None]
#: With more organs, a patch is planned for the smallest and the largest of them alone.
MOST_PLANNED = 16
LARGEST_PLANNED = 4
#: Rules of the draw that are compared; none of them reads CT numbers.
RULES = ("uniform", "voxel_uniform", "class_uniform", "nnunet")
WHOLE, CHOSEN, HALF = "whole scan", "recommended", "half in plane"


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes
    ----------
    name, origin
        Of the folder, and where the names of its organs come from.
    data
        Rows of `hnlib.experiments.tables.organ_rows` with the split.
    with_scans
        Whether every case that was read has its scan.
    case
        The case with the median labelled volume, for a picture; None without scans.
    plan
        None where none can be made; a note says why.
    imbalance
        Rows ``patch, centres, case, class, ratio, presence``; empty without a plan.
    loss
        The advice.
    notes
        What is smaller, missing or assumed.
    """

    name: str
    origin: str
    data: pd.DataFrame = field(repr=False)
    with_scans: bool
    case: Case | None = field(repr=False)
    plan: PatchPlan | None
    imbalance: pd.DataFrame = field(repr=False)
    loss: LossAdvice
    notes: tuple[str, ...]

    @cached_property
    def volumes(self) -> pd.Series:
        """Median volume of every organ in ml, the smallest first."""
        medians: pd.Series = self.data.groupby("organ")["volume_ml"].median().sort_values()
        return medians

    @cached_property
    def centres(self) -> str | dict[str, float]:
        """The draw of patch centres that is recommended."""
        if self.plan is None or len(self.plan.organs) < len(self.volumes):
            return "class_uniform_two_thirds"
        return {name: weight for name, weight in self.plan.draw.weights.items() if weight > 0}


def measure(
    folder: FolderDataset, limits: Limits, *, most_cases: int | None = None, progress: Progress | None = None
) -> Report:
    """Read a folder and compute what its report says; nothing is trained.

    Parameters
    ----------
    folder
        From `hnlib.report.labelled.open_labelled`.
    limits
        Memory and network of the plan.
    most_cases
        Most training cases that the plan reads; None takes all.
    progress
        Called with (what, done, total).

    Raises
    ------
    DataError
        When no case can be read; the first reason is told.
    """
    data, read, scans, notes = _describe(folder, progress)
    if scans < read:
        few = "No case has" if not scans else f"Only {scans} of {read} cases have"
        lacking = [name for name in dict.fromkeys(data["case"]) if not folder.has_scan(name)] if scans else []
        named = f" (not {', '.join(lacking[:5])}{' and others' if lacking[5:] else ''})" if lacking else ""
        notes.append(
            f"{few} a scan{named}, so this report is smaller: no CT numbers, no picture, and patches lie in the whole "
            "label map with its air, not in the body alone."
        )
    with_scans = scans == read
    planned, shares, advice = (
        None,
        pd.DataFrame(),
        advise(_size_ratio(data), 0.0, partial=_partial(data)),
    )
    try:
        spacing, found = _on_grid(folder, data, with_scans, most_cases, notes, progress)
        planned = plan(found, spacing, limits, progress=progress)
        shares = _shares(found, planned)
        draw = shares[
            (shares["patch"] == CHOSEN) & (shares["centres"] == "planned") & (shares["class"] != "background")
        ]
        absent = 1 - float(draw.groupby("class")["presence"].mean().mean())
        advice = advise(_size_ratio(data), absent, partial=_partial(data))
    except HnlibError as fault:
        notes.append(f"No patch is recommended: {fault}")
    case = _median_case(folder, data) if with_scans else None
    return Report(
        folder.root.resolve().name, folder.origin, data, with_scans, case, planned, shares, advice, tuple(notes)
    )


def _describe(folder: FolderDataset, progress: Progress | None) -> tuple[pd.DataFrame, int, int, list[str]]:
    """Return a row for every organ of every case, how many were read and have a scan, and who was left out, why."""
    cases = [(split, name) for split, names in folder.split().items() for name in names]
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    read = scans = 0
    for done, (split, name) in enumerate(cases, start=1):
        try:
            if folder.has_scan(name):
                rows += organ_rows(folder.load(name), split)
                scans += 1
            else:
                rows += _outline_rows(folder, split, name)
            read += 1
        except DataError as fault:
            notes.append(f"Left out: {fault}")
        if progress:
            progress("read", done, len(cases))
    if not rows:
        why = notes[0].removeprefix("Left out: ") if notes else "no organ has a voxel in any case"
        raise DataError(f"folder {folder.root}: nothing to report: {why}")
    return pd.DataFrame(rows), read, scans, notes


def _outline_rows(folder: FolderDataset, split: str, name: str) -> list[dict[str, Any]]:
    """Return what outlines alone say: volumes, without CT numbers."""
    volume, labelled = folder.load_labels(name)
    counts = np.bincount(volume.array.ravel(), minlength=len(folder.organs) + 1)
    common = {f"spacing_{axis}_mm": mm for axis, mm in zip("xyz", volume.spacing_mm, strict=True)}
    common |= {f"body_{axis}": size for axis, size in zip("xyz", volume.array.shape, strict=True)}
    voxel_ml = float(np.prod(volume.spacing_mm)) / 1000
    return [
        {"split": split, "case": name, "organ": organ, "voxels": int(counts[value]),
         "volume_ml": float(counts[value]) * voxel_ml, "mean_hu": np.nan, "sd_hu": np.nan, **common}
        for value, organ in enumerate(folder.organs, start=1)
        if organ in labelled
    ]  # fmt: skip


def _size_ratio(data: pd.DataFrame) -> float:
    medians = data[data["volume_ml"] > 0].groupby("organ")["volume_ml"].median()
    return float(medians.max() / medians.min())


def _partial(data: pd.DataFrame) -> bool:
    return bool((data.groupby("organ")["case"].nunique() < data["case"].nunique()).any())


def _median_case(folder: FolderDataset, data: pd.DataFrame) -> Case:
    """Return the case with the median labelled volume; of those for training, where there are any."""
    training = data[data["split"] == "train"]
    sizes = (training if len(training) else data).groupby("case")["volume_ml"].sum().sort_values(kind="stable")
    return folder.load(str(sizes.index[len(sizes) // 2]))


def _on_grid(
    folder: FolderDataset,
    data: pd.DataFrame,
    with_scans: bool,
    most_cases: int | None,
    notes: list[str],
    progress: Progress | None,
) -> tuple[tuple[float, float, float], list[Scan]]:
    """Return the label maps on which is planned, with the organs that they hold."""
    read = set(data["case"])
    names = [name for name in planning_cases(folder) if name in read] or sorted(read)
    if most_cases is not None and len(names) > most_cases:
        notes.append(f"The patch is planned on the first {most_cases} of {len(names)} training cases (--cases).")
    spacing, scans = scans_on_grid(folder, names[:most_cases], outlines_only=not with_scans, progress=progress)
    counts = [np.bincount(scan.labels.ravel(), minlength=len(folder.organs) + 1)[1:] for scan in scans]
    totals = dict(zip(folder.organs, np.sum(counts, axis=0).tolist(), strict=True))
    held = [name for name, total in totals.items() if total]
    if not held:
        raise DataError("no organ has a voxel in the cases for training; check the split")
    lost = sorted(set(data["organ"]) - set(held))
    if lost:
        notes.append(f"In no case of the plan, and left out of it: {', '.join(lost)}.")
    if len(held) > MOST_PLANNED:
        by_size = sorted(held, key=lambda name: (totals[name], name))
        kept = {*by_size[: MOST_PLANNED - LARGEST_PLANNED], *by_size[-LARGEST_PLANNED:]}
        notes.append(
            f"The patch is planned for {MOST_PLANNED} of {len(held)} organs, the {MOST_PLANNED - LARGEST_PLANNED} "
            f"smallest and the {LARGEST_PLANNED} largest; voxels of the others count as background there."
        )
        held = [name for name in held if name in kept]
    return spacing, [_keep(scan, tuple(held)) for scan in scans]


def _keep(scan: Scan, organs: tuple[str, ...]) -> Scan:
    """Return the scan with these organs alone."""
    values = np.zeros(len(scan.organs) + 1, np.uint8)
    for value, name in enumerate(organs, start=1):
        values[scan.organs.index(name) + 1] = value
    return replace(scan, labels=values[scan.labels], organs=organs, labelled=scan.labelled & {*organs})


def _shares(scans: Sequence[Scan], planned: PatchPlan) -> pd.DataFrame:
    """Return share and presence by patch, rule and class for every case; in the whole scan too."""
    x, y, z = planned.candidate.patch_size
    sizes: Mapping[str, Triple] = {CHOSEN: (x, y, z), HALF: (max(1, x // 2), max(1, y // 2), z)}
    laws = {name: centre_rule(name) for name in RULES}
    laws["planned"] = planned.draw.centres(planned.organs)
    rows = landscape(scans, list(sizes.values()), laws, quantities=("ratio", "presence"))
    edges = rows[["patch_x", "patch_y", "patch_z"]].itertuples(index=False, name=None)
    rows = rows.assign(patch=[{size: name for name, size in sizes.items()}[edge] for edge in edges])
    return pd.concat([pd.DataFrame(_whole(scans, list(laws))), rows], ignore_index=True)


def _whole(scans: Sequence[Scan], rules: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for scan in scans:
        shares = np.bincount(scan.labels.ravel(), minlength=scan.num_classes) / scan.labels.size
        sides = dict(zip(("patch_x", "patch_y", "patch_z"), scan.labels.shape, strict=True))
        for value, name in enumerate(("background", *scan.organs)):
            if value and name not in scan.labelled:
                continue
            common = {"patch": WHOLE, **sides, "case": scan.name, "class": name}
            rows += [{**common, "centres": rule, "ratio": shares[value], "presence": 1.0} for rule in rules]
    return rows
