"""Still pictures of scans for the chapters: drawn once, beside the tables; the scans stay where they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import nibabel
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hnlib.cases import Case
from hnlib.errors import DataError
from hnlib.experiment_files import FOUR_CONFIGURATIONS
from hnlib.experiments.failures import describe_failure, worst_cases
from hnlib.experiments.study import Study, check_run
from hnlib.experiments.tables import finished_runs
from hnlib.files import read_table, write_atomically, write_json, write_table, write_text
from hnlib.losses import ignore_map
from hnlib.meshes import surface_error
from hnlib.plotting import (
    best_slices,
    contour_panel,
    ignore_maps,
    pack_volume,
    shown_box,
    stage_panels,
    surface_views,
    use_style,
)
from hnlib.stats import choose_by_validation
from hnlib.systems import build_system, read_weights
from hnlib.systems.coarse_to_fine import OUTPUTS, CoarseToFine

#: K of Hosseini 2024, Figures 1 and 2.
PERCENTS = (100, 90, 50, 30, 10)
WORST_MARGIN_MM = 30.0
#: Panels of `draw_stages`: what coarse to fine puts out there, and the panel's title.
STAGES = dict(
    zip(
        OUTPUTS,
        ("axial view", "coronal view", "sagittal view", "mean of the views", "learned weights", "boxes, fine masks"),
        strict=True,
    )
)


def draw_case(study: Study, folder: Path) -> Path:
    """Draw the training case whose labelled volume is the median one, with its organs; write ``case.png``."""
    name = _median_case(study)
    facts = {"case": name, "experiment": "", "rule": "median labelled volume"}
    return _draw(study, study.open().load(name), None, folder / "case.png", facts)


def _median_case(study: Study) -> str:
    sizes = {name: int((study.case(name).labels > 0).sum()) for name in study.split["train"]}
    return sorted(sizes, key=lambda n: (sizes[n], n))[len(sizes) // 2]


def draw_ignored(study: Study, experiment: str, seed: int, folder: Path, percents: Sequence[float] = PERCENTS) -> Path:
    """Draw what topK Dice ignores of a training case at each K, by a finished run's network; write ``ignored.png``.

    The case is the one of `draw_case`, on the grid of training; the slice is the axial one that meets most organs.

    Raises
    ------
    DataError
        When the run is not finished.
    """
    found, run = check_run(study, experiment, seed), study.run_folder(experiment, seed)
    if not (run / "run.json").exists():
        raise DataError(f"run {run}: not trained to the end; run hnlib train first")
    name, organs = _median_case(study), study.plan.organs
    case = study.case(name)
    system = build_system(study.blueprint(found))
    probabilities = torch.from_numpy(system.predictor(read_weights(system, run))(case.image))
    labels = torch.from_numpy(np.asarray(case.labels, np.int64))
    maps = {percent: ignore_map(probabilities, labels, percent).numpy() for percent in percents}
    _begin()
    figure = ignore_maps(
        case.image * study.plan.sd_hu + study.plan.mean_hu,
        labels.numpy(),
        maps,
        spacing_mm=study.plan.spacing_mm,
        organs=organs,
        index=best_slices(labels.numpy())["axial"],
    )
    facts = {"case": name, "experiment": experiment, "seed": seed, "rule": "median labelled volume of training"}
    return _save(study, figure, folder / "ignored.png", {**facts, "percents": list(percents)}, organs)


def draw_stages(study: Study, experiment: str, seed: int, folder: Path) -> Path:
    """Draw what each stage of a finished run of coarse to fine makes of a test case; write ``stages.png``.

    The case is the one of median mean DSC, on the grid of training; the coronal slice meets the most organs.

    Raises
    ------
    DataError
        When the run is not measured, or no run of coarse to fine as a whole.
    """
    found, run = check_run(study, experiment, seed), study.run_folder(experiment, seed)
    metrics = read_table(run / "metrics.csv", "run hnlib train and hnlib measure first")
    blueprint = study.blueprint(found)
    whole = build_system(blueprint)
    if not isinstance(whole, CoarseToFine) or whole.output != "fine":
        raise DataError(
            f"experiment '{experiment}' has no stages to draw; name one of coarse to fine that goes to its end"
        )
    name = _median_by_dsc(metrics)
    case, weights = study.case(name), read_weights(whole, run)
    made = {
        title: build_system(replace(blueprint, options={**blueprint.options, "output": output})).predictor(weights)(
            case.image
        )
        for output, title in STAGES.items()
    }
    boxes = whole.locate(weights, made[STAGES["weights"]])
    labels = np.asarray(case.labels)
    _begin()
    figure = stage_panels(
        case.image * study.plan.sd_hu + study.plan.mean_hu,
        labels,
        made,
        {STAGES["fine"]: [(box.start, box.size) for box in boxes]},
        spacing_mm=study.plan.spacing_mm,
        organs=study.plan.organs,
        index=best_slices(labels)["coronal"],
    )
    facts = {"case": name, "experiment": experiment, "seed": seed, "rule": "median mean DSC of the test cases"}
    facts |= {"grid": list(labels.shape), "spacing_mm": list(study.plan.spacing_mm)}
    facts |= {"box_voxels": {organ: list(box.size) for organ, box in zip(study.plan.organs, boxes, strict=True)}}
    return _save(study, figure, folder / "stages.png", facts, study.plan.organs)


def _median_by_dsc(metrics: pd.DataFrame) -> str:
    scores = metrics.query("split == 'test' and metric == 'dsc'").groupby("case")["value"].mean()
    return str(scores.sort_values(kind="stable").index[len(scores) // 2])


def draw_predictions(study: Study, tables: Path, folder: Path) -> Path:
    """Draw what the configuration that validation chooses makes of the test cases.

    The median case becomes ``prediction.png`` and, as a volume to scroll through, ``viewer/prediction.json`` beside
    the folder, and its errors on the surfaces of the organs ``surfaces.json`` and ``surfaces.png``; the worst case of
    each organ becomes ``worst_<organ>.png``; ``failures.csv`` among the tables says of every organ of every test case
    what is wrong with it.
    """
    metrics = read_table(tables / "metrics.csv", "run hnlib tables again")
    metrics = metrics[metrics["profile"] == study.profile]
    validated = metrics.loc[metrics["split"] == "validation", "experiment"]  # of arms the test cases alone are measured
    metrics = metrics[metrics["experiment"].isin(validated)]
    try:
        experiment = choose_by_validation(metrics, FOUR_CONFIGURATIONS)
    except ValueError as fault:
        raise DataError(f"tables in {tables}, profile '{study.profile}': {fault}") from None
    seed, runs = next((s, path) for e, s, path in finished_runs(study, [experiment]) if e == experiment)
    name = _median_by_dsc(metrics.query("experiment == @experiment and seed == @seed"))
    facts: dict[str, Any] = {"experiment": experiment, "seed": int(seed)}
    failures = _failures(study, runs).assign(profile=study.profile, **facts)
    write_table(tables / "failures.csv", failures)
    for row in worst_cases(failures).to_dict("records"):
        _draw_worst(study, runs, row, folder)
    case, prediction = study.open().load(name), _predicted(runs, name)
    facts |= {"case": name, "rule": "median mean DSC of the test cases"}
    packed = pack_volume(case.image_hu, case.labels, prediction, spacing_mm=case.spacing_mm, organs=case.organs) | {
        "attribution": study.attribution,
        "case": name,
    }
    write_json(folder.parent / "viewer" / "prediction.json", packed)
    draw_surfaces(study, case, prediction, folder / "surfaces.png", facts)
    return _draw(study, case, prediction, folder / "prediction.png", facts)


def draw_surfaces(study: Study, case: Case, prediction: Any, path: Path, facts: dict[str, Any]) -> Path:
    """Draw the errors of a prediction on the surfaces of a case's organs; the meshes go beside the picture as JSON.

    Coordinates start at the corner of the organs' box, in whole tenths of a millimetre: no place in a scan is kept.
    """
    meshes = {}
    for name in (one for one in case.organs if one in case.labelled and case.mask(one).any()):
        found = surface_error(case.mask(name), prediction == case.organs.index(name) + 1, case.spacing_mm)
        error = [None if np.isnan(value) else round(float(value), 1) for value in found.error_mm]
        points = np.round(found.vertices_mm, 1)
        meshes[name] = {"vertices_mm": points, "faces": found.faces.tolist(), "error_mm": error}
    corner = np.min([mesh["vertices_mm"].min(axis=0) for mesh in meshes.values()], axis=0)
    meshes = {n: {**m, "vertices_mm": np.round(m["vertices_mm"] - corner, 1).tolist()} for n, m in meshes.items()}
    _begin()
    figure = surface_views(meshes)
    write_atomically(path, lambda part: figure.savefig(part, dpi=160, bbox_inches="tight"))
    pyplot.close(figure)
    whole = {**facts, "attribution": study.attribution, "organs": list(meshes), "meshes": meshes}
    write_text(path.with_suffix(".json"), json.dumps(whole, separators=(",", ":")) + "\n")
    return path


def _predicted(runs: Path, name: str) -> NDArray[np.uint8]:
    return np.asarray(nibabel.Nifti1Image.from_filename(runs / "predictions" / f"{name}.nii.gz").dataobj, np.uint8)


def _failures(study: Study, runs: Path) -> pd.DataFrame:
    data, rows = study.open(), []
    for name in study.split["test"]:
        case, prediction = data.load(name), _predicted(runs, name)
        for value, organ in enumerate(case.organs, start=1):
            truth = case.labels == value
            if organ in case.labelled and truth.any():
                told = describe_failure(truth, prediction == value, case.spacing_mm)
                rows.append({"case": name, "organ": organ, **told})
    return pd.DataFrame(rows)


def _draw_worst(study: Study, runs: Path, told: Mapping[Any, Any], folder: Path) -> None:
    """Draw one organ of a case, large, where reference or prediction has it."""
    name = str(told["organ"])
    case, prediction = study.open().load(str(told["case"])), _predicted(runs, str(told["case"]))
    value = case.organs.index(name) + 1
    truth, found = case.labels == value, prediction == value
    box = shown_box((truth | found).astype(np.uint8), case.spacing_mm, WORST_MARGIN_MM)
    alone = replace(case, labels=(truth * value).astype(np.uint8))
    told = {str(key): None if value != value else value for key, value in told.items()}  # JSON has no NaN
    _draw(study, alone, (found * value).astype(np.uint8), folder / f"worst_{name}.png", told, box)


def _draw(
    study: Study, case: Case, prediction: Any, path: Path, facts: dict[str, Any], box: tuple[slice, ...] | None = None
) -> Path:
    _begin()
    figure = contour_panel(
        case.image_hu, case.labels, prediction, spacing_mm=case.spacing_mm, organs=case.organs, box=box
    )
    return _save(study, figure, path, facts, case.organs, dpi=160 if box is None else 110)


def _begin() -> None:
    matplotlib.use("agg")
    use_style()


def _save(
    study: Study, figure: Figure, path: Path, facts: dict[str, Any], organs: Sequence[str], dpi: int = 160
) -> Path:
    """Write a picture, and beside it what it shows and where it comes from."""
    facts = {**facts, "attribution": study.attribution, "organs": list(organs)}
    write_atomically(path, lambda part: figure.savefig(part, dpi=dpi, bbox_inches="tight"))
    write_json(path.with_suffix(".json"), facts)
    pyplot.close(figure)
    return path
