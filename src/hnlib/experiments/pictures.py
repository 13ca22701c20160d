"""Still pictures of scans for the chapters: drawn once, beside the tables; the scans stay where they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import nibabel
import numpy as np
import pandas as pd
from matplotlib import pyplot

from hnlib.cases import Case
from hnlib.experiments.config import FOUR_CONFIGURATIONS
from hnlib.experiments.study import Study
from hnlib.experiments.tables import finished_runs
from hnlib.files import write_atomically, write_json, write_text
from hnlib.meshes import surface_error
from hnlib.plotting import contour_panel, surface_views, use_style
from hnlib.stats import choose_by_validation


def draw_case(study: Study, folder: Path) -> Path:
    """Draw the training case whose labelled volume is the median one, with its organs; write ``case.png``."""
    data = study.open()
    sizes = {name: int((study.case(name).labels > 0).sum()) for name in study.split["train"]}
    name = sorted(sizes, key=lambda n: (sizes[n], n))[len(sizes) // 2]
    case = data.load(name)
    return _draw(
        study, case, None, folder / "case.png", {"case": name, "experiment": "", "rule": "median labelled volume"}
    )


def draw_predictions(study: Study, tables: Path, folder: Path) -> Path:
    """Draw reference and prediction of the median test case of the configuration that validation chooses.

    Also write ``surfaces.json`` and ``surfaces.png``: the errors of that prediction on the surfaces of the organs.
    """
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
    matplotlib.use("agg")
    use_style()
    figure = surface_views(meshes)
    write_atomically(path, lambda part: figure.savefig(part, dpi=160, bbox_inches="tight"))
    pyplot.close(figure)
    whole = {**facts, "attribution": study.attribution, "organs": list(meshes), "meshes": meshes}
    write_text(path.with_suffix(".json"), json.dumps(whole, separators=(",", ":")) + "\n")
    return path


def _draw(study: Study, case: Case, prediction: Any, path: Path, facts: dict[str, Any]) -> Path:
    matplotlib.use("agg")
    use_style()
    figure = contour_panel(case.image_hu, case.labels, prediction, spacing_mm=case.spacing_mm, organs=case.organs)
    facts = {**facts, "attribution": study.attribution, "organs": list(case.organs)}
    write_atomically(path, lambda part: figure.savefig(part, dpi=160, bbox_inches="tight"))
    write_json(path.with_suffix(".json"), facts)
    pyplot.close(figure)
    return path
