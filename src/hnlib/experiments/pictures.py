"""Still pictures of scans for the chapters: drawn once, beside the tables; the scans stay where they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import nibabel
import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure

from hnlib.errors import DataError
from hnlib.experiments.config import FOUR_CONFIGURATIONS
from hnlib.experiments.run import untrained_network
from hnlib.experiments.study import Study, check_run
from hnlib.experiments.tables import finished_runs
from hnlib.files import write_atomically, write_json
from hnlib.inference import predict_probabilities
from hnlib.losses import ignore_map
from hnlib.plotting import best_slices, contour_panel, ignore_maps, use_style
from hnlib.stats import choose_by_validation
from hnlib.training import load_weights

#: K of Hosseini 2024, Figures 1 and 2.
PERCENTS = (100, 90, 50, 30, 10)


def draw_case(study: Study, folder: Path) -> Path:
    """Draw the training case whose labelled volume is the median one, with its organs; write ``case.png``."""
    name = _median_case(study)
    case = study.open().load(name)
    _set_style()
    figure = contour_panel(case.image_hu, case.labels, None, spacing_mm=case.spacing_mm, organs=case.organs)
    facts = {"case": name, "experiment": "", "rule": "median labelled volume"}
    return _save(study, figure, folder / "case.png", facts, case.organs)


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
    network = load_weights(run / "checkpoint.pt", untrained_network(study, found)).eval()
    probabilities = torch.from_numpy(
        predict_probabilities(network, case.image, study.patch(found), mirror=study.mirror(found))
    )
    labels = torch.from_numpy(np.asarray(case.labels, np.int64))
    maps = {percent: ignore_map(probabilities, labels, percent).numpy() for percent in percents}
    _set_style()
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


def draw_predictions(study: Study, tables: Path, folder: Path) -> Path:
    """Draw reference and prediction of the median test case of the configuration that validation chooses."""
    metrics = pd.read_csv(tables / "metrics.csv")
    metrics = metrics[metrics["profile"] == study.profile]
    experiment = choose_by_validation(metrics, FOUR_CONFIGURATIONS)
    seed, runs = next((s, path) for e, s, path in finished_runs(study, [experiment]) if e == experiment)
    chosen = metrics.query("experiment == @experiment and seed == @seed and split == 'test' and metric == 'dsc'")
    scores = chosen.groupby("case")["value"].mean().sort_values(kind="stable")
    name = str(scores.index[len(scores) // 2])
    data = study.open()
    prediction = np.asarray(
        nibabel.Nifti1Image.from_filename(runs / "predictions" / f"{name}.nii.gz").dataobj, np.uint8
    )
    facts = {"case": name, "experiment": experiment, "seed": int(seed), "rule": "median mean DSC of the test cases"}
    case = data.load(name)
    _set_style()
    figure = contour_panel(case.image_hu, case.labels, prediction, spacing_mm=case.spacing_mm, organs=case.organs)
    return _save(study, figure, folder / "prediction.png", facts, case.organs)


def _set_style() -> None:
    matplotlib.use("agg")
    use_style()


def _save(study: Study, figure: Figure, path: Path, facts: dict[str, Any], organs: Sequence[str]) -> Path:
    """Write a picture, and beside it what it shows and where it comes from."""
    facts = {**facts, "attribution": study.attribution, "organs": list(organs)}
    write_atomically(path, lambda part: figure.savefig(part, dpi=160, bbox_inches="tight"))
    write_json(path.with_suffix(".json"), facts)
    pyplot.close(figure)
    return path
