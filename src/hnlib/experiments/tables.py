"""Tables are the interface: tidy files that chapters read, gathered from runs and published run by run.

``results/<dataset>/`` is the reader's own study, ``results/published/<dataset>/`` the committed one;
both hold the same files, so a chapter cannot tell them apart.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hnlib.cases import SPLITS, Case
from hnlib.confidence import CONFIDENCE_TABLES, NEAR_TABLES
from hnlib.errors import DataError
from hnlib.experiments.config import load_experiment, load_profile
from hnlib.experiments.landscapes import TABLES, landscape_sizes, landscape_tables, training_scans
from hnlib.experiments.study import Study, read_record
from hnlib.files import copy_file, read_json, read_table, write_json, write_table
from hnlib.imbalance import expected_ratios, presence
from hnlib.preprocess import body_box
from hnlib.processes import WORKERS, process_pool
from hnlib.sampling import centre_rule

#: What a run leaves for the tables, and the columns that name a row there.
RUN_KEY = ["profile", "experiment", "seed"]
RUN_TABLES = ("metrics", *CONFIDENCE_TABLES, "history", "runs")
#: Tables of many rows, and the column whose every value has a column of its own in the file.
WIDE_BY = {"metrics": "metric", "confidence_quantiles": "quantile"}
DATA_TABLES = ("dataset", "imbalance", *TABLES)
#: Rules for patch centres that the imbalance table compares; "nnunet" is the rule of the four configurations.
CENTRES = ("uniform", "voxel_uniform", "class_uniform", "nnunet", "paper")


# What the data alone say.


def describe_study(study: Study, folder: Path, *, report: Callable[[str], None] = print) -> None:
    """Write the tables of `DATA_TABLES` and ``study.json`` in short."""
    data = study.open()
    names = [(split, name) for split in SPLITS for name in study.split[split]]
    with process_pool(WORKERS) as pool:
        described = list(pool.map(_describe_case, ((data, split, name) for split, name in names)))
        report(f"{study.dataset}: described {len(names)} cases")
        measured = list(pool.map(_measure_imbalance, ((study, name) for name in study.split["train"])))
    report(f"{study.dataset}: in-patch class ratios of {len(measured)} training cases")
    write_table(folder / "dataset.csv", pd.DataFrame([row for rows in described for row in rows]))
    write_table(folder / "imbalance.csv", pd.DataFrame([row for rows in measured for row in rows]))
    sizes = landscape_sizes(study.patches["large"], [*study.patches.values()])
    for table, rows in landscape_tables(training_scans(study), sizes, CENTRES).items():
        write_table(folder / f"{table}.csv", rows)
    report(f"{study.dataset}: landscape of patch sizes")
    short = {
        "dataset": study.dataset,
        "profile": study.profile,
        "attribution": study.attribution,
        "data_digest": study.data_digest,
        "cases": {split: len(names) for split, names in study.split.items()},
        "patches": {name: list(size) for name, size in study.patches.items()},
        "organs": list(study.plan.organs),
        "spacing_mm": list(study.plan.spacing_mm),
        "median_shape": list(study.plan.median_shape),
        "clip_hu": list(study.plan.clip_hu),
        "mean_hu": study.plan.mean_hu,
        "sd_hu": study.plan.sd_hu,
    }
    write_json(folder / "study.json", short)


def _describe_case(task: tuple[Any, str, str]) -> list[dict[str, Any]]:
    data, split, name = task
    return organ_rows(data.load(name), split)


def organ_rows(case: Case, split: str) -> list[dict[str, Any]]:
    """Return the rows of ``dataset.csv`` of one case: one for each organ that was outlined."""
    x, y, z = (stop - start for start, stop in body_box(case.image_hu))
    voxel_ml = float(np.prod(case.spacing_mm)) / 1000
    rows = []
    for organ in case.organs:
        if organ not in case.labelled:
            continue
        inside = case.image_hu[case.mask(organ)]
        rows.append(
            {
                "split": split,
                "case": case.name,
                "organ": organ,
                "voxels": inside.size,
                "volume_ml": inside.size * voxel_ml,
                "mean_hu": float(inside.mean()) if inside.size else np.nan,
                "sd_hu": float(inside.std()) if inside.size else np.nan,
                **dict(zip(("spacing_x_mm", "spacing_y_mm", "spacing_z_mm"), case.spacing_mm, strict=True)),
                **{"body_x": x, "body_y": y, "body_z": z},
            }
        )
    return rows


def _measure_imbalance(task: tuple[Study, str]) -> list[dict[str, Any]]:
    """Return the rows of ``imbalance.csv`` of one case; no row of an organ that was not outlined in it."""
    study, name = task
    case = study.case(name)
    hu = case.image * study.plan.sd_hu + study.plan.mean_hu
    sizes = {"whole scan": case.labels.shape, **study.patches}
    rows = []
    for patch, size in sizes.items():
        for centres in CENTRES:
            rule = centre_rule(centres)
            ratios = expected_ratios(case.labels, study.num_classes, size, rule, hu)
            present = presence(case.labels, study.num_classes, size, rule, hu)
            for value, label in enumerate(("background", *study.plan.organs)):
                if value and label not in case.labelled:
                    continue
                rows.append(
                    {
                        "patch": patch,
                        **dict(zip(("patch_x", "patch_y", "patch_z"), size, strict=True)),
                        "centres": centres,
                        "case": name,
                        "class": label,
                        "ratio": float(ratios[value]),
                        "presence": float(present[value]),
                    }
                )
    return rows


# What the runs say.


def finished_runs(study: Study, experiments: Sequence[str] | None = None) -> list[tuple[str, int, Path]]:
    """Return (experiment, seed, folder) of the measured runs of a study and its arms, in the profile's order."""
    found = []
    for experiment in experiments or study.settings.all_experiments:
        for seed in study.settings.seeds_for(experiment):
            folder = study.run_folder(experiment, seed)
            if (folder / "measured.json").exists():
                found.append((experiment, seed, folder))
    return found


def _run_rows(folder: Path, experiment: str, seed: int, profile: str) -> dict[str, pd.DataFrame]:
    record = read_record(folder)
    key: dict[str, Any] = {"profile": profile, "experiment": experiment, "seed": seed}
    remedy = f"delete {folder / 'measured.json'} and run hnlib measure again"
    newer = [name for name in NEAR_TABLES if (folder / f"{name}.csv").exists()]
    names = ("metrics", *CONFIDENCE_TABLES, *newer)
    tables = {name: read_table(folder / f"{name}.csv", remedy) for name in names}
    history = read_table(folder / "history.csv", f"delete {folder / 'run.json'} too and run hnlib train again")
    flat = {
        **key,
        "title": load_experiment(experiment).title,
        **{k: record[k] for k in ("steps", "seconds", "parameters", "voxels_per_step", "precision", "hardware")},
        "patch": " x ".join(map(str, record["patch"])),
        "versions": " ".join(f"{k}={v}" for k, v in record["versions"].items()),
        "digests": " ".join(f"{k}={v}" for k, v in record["digests"].items()),
    }
    for position, (name, value) in enumerate(key.items()):
        history.insert(position, name, value)
    settings = load_profile(profile)
    if experiment not in settings.study:  # an arm: small enough for many of them
        kept = ("confidence", *newer) if settings.measures_drift(experiment) else ()
        test = tables["metrics"][tables["metrics"]["split"] == "test"]
        tables = {"metrics": test, **{name: tables[name] for name in kept}}
    return {**tables, "history": history, "runs": pd.DataFrame([flat])}


def write_tables(study: Study, folder: Path, *, merge: bool = False) -> int:
    """Gather the finished runs of a study into its tables; return how many runs they hold.

    Parameters
    ----------
    merge
        True: rows of other runs that the tables hold already stay (publishing run by run).

    Raises
    ------
    DataError
        When no run is finished.
    """
    runs = _some_runs(study)
    gathered = [_run_rows(path, experiment, seed, study.profile) for experiment, seed, path in runs]
    for name in (*RUN_TABLES, *NEAR_TABLES):
        parts = [tables[name] for tables in gathered if name in tables]
        if not parts:
            continue
        table = pd.concat(parts, ignore_index=True)
        path = folder / f"{name}.csv"
        if merge and path.exists():
            table = _replace_rows(read_table(path, "publish all runs again"), table)
        write_table(path, table, wide=WIDE_BY.get(name, ""))
    return len(runs)


def _some_runs(study: Study) -> list[tuple[str, int, Path]]:
    runs = finished_runs(study)
    if not runs:
        raise DataError(f"{study.dataset}/{study.profile}: no finished run; train and measure one first")
    return runs


def _replace_rows(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    again = old.merge(new[RUN_KEY].drop_duplicates(), on=RUN_KEY, how="left", indicator=True)["_merge"] == "both"
    return pd.concat([old[~again.to_numpy()], new], ignore_index=True)


def publish(study: Study, results: Path, published: Path) -> tuple[int, list[str]]:
    """Copy the study's finished runs and its data tables to the published folder.

    Returns the number of runs, and the names of the tables that were written, such as ``openkbp/metrics``.

    Runs that are published already stay; a run with the same key is replaced. The data tables are those
    of the profile that was published first: a second profile of the data set adds its runs alone.
    """
    _some_runs(study)
    target, source = published / study.dataset, results / study.dataset
    written: list[str] = []
    if _profile_of(target) in (None, study.profile):
        for path in [*(source / f"{name}.csv" for name in DATA_TABLES), source / "study.json"]:
            if not path.exists():
                raise DataError(f"{path}: missing; run the study's describe step first")
            copy_file(path, target / path.name)
        for picture in publishable_pictures(study.dataset, source):
            copy_file(picture, target / picture.parent.name / picture.name)
        written += DATA_TABLES
        if (source / "failures.csv").exists():
            copy_file(source / "failures.csv", target / "failures.csv")
            written.append("failures")
    runs = write_tables(study, target, merge=True)
    written += [name for name in (*RUN_TABLES, *NEAR_TABLES) if (target / f"{name}.csv").exists()]
    return runs, [f"{study.dataset}/{name}" for name in written]


def publishable_pictures(dataset: str, source: Path) -> list[Path]:
    """Return the pictures of a study's results that may be committed: of patients stills alone, no volume."""
    folders = ("pictures", "viewer") if dataset == "phantom" else ("pictures",)
    return sorted(path for folder in folders for path in (source / folder).glob("*"))


def _profile_of(folder: Path) -> str | None:
    """Return the profile of the study whose data tables a folder holds."""
    path = folder / "study.json"
    return str(json.loads(path.read_text())["profile"]) if path.exists() else None


def read_tables(folder: Path | str) -> Mapping[str, Any]:
    """Read the tables of a study: data frames by name, and ``study`` as a dictionary.

    The tables of `NEAR_TABLES` are without a row where the runs were measured before these existed.

    Raises
    ------
    DataError
        When the folder lacks one of them.
    """
    place, remedy = Path(folder), "run the study first, or name another folder"
    names = (*DATA_TABLES, *RUN_TABLES)
    tables: dict[str, Any] = {name: read_table(place / f"{name}.csv", remedy) for name in names}
    for name, columns in NEAR_TABLES.items():
        path = place / f"{name}.csv"
        tables[name] = read_table(path, remedy) if path.exists() else pd.DataFrame(columns=[*RUN_KEY, *columns])
    tables["study"] = read_json(place / "study.json", remedy)
    return tables
