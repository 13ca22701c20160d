"""Plan a patch for the training cases of a prepared study, and measure what the profile's patches and draws show.

    python scripts/planning_tables.py results/openkbp/laptop-draws/study.json --memory 4GB

writes plan.csv, plan_choices.csv, plan_draws.csv, plan_landscape.csv, plan.json, draws.csv and draws_classes.csv into
results/published/<dataset>, from which the chapters on planning and prediction read. Nothing is trained. Where nnU-Net
v2 is installed (or lies in the folder --peers), its own planner is asked too, for the same scans.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Any

from hnlib.experiments import load_study
from hnlib.experiments.planning import planning_scans, study_limits, write_planning
from hnlib.experiments.study import Study
from hnlib.imbalance.report import lines, read_size

OUT = Path(__file__).resolve().parents[1] / "results" / "published"
#: nnU-Net's own target, and the patch and batch that it is a target for.
DEFAULT_GB, DEFAULT_VOXELS = 8.0, 2 * 128**3
CONFIGURATION, DATASET = "3d_fullres", "Dataset001_Planned"


def main() -> None:
    """Plan, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, help="study.json, written by hnlib prepare")
    parser.add_argument("--memory", default="4GB", help="memory of a training step")
    parser.add_argument("--peers", type=Path, help="folder with nnunetv2, where it is not installed")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the committed results")
    given = parser.parse_args()
    study, memory = load_study(given.study), read_size(given.memory)
    voxels = study_limits(study, memory).voxels_per_step or 0
    targets = [DEFAULT_GB, round(DEFAULT_GB * voxels / DEFAULT_VOXELS, 2)]
    others, notes = {}, {}
    for target in targets:
        chosen = _nnunet(study, target, given.peers)
        if chosen:
            name = f"nnU-Net v2, {target:g} GB"
            others[name] = (chosen["patch"], chosen["batch"])
            notes[name] = chosen["version"]
    made = write_planning(study, given.out / study.dataset, memory, others, notes)
    print("\n".join(lines(made)))


def _nnunet(study: Study, memory_gb: float, peers: Path | None) -> dict[str, Any]:
    """Return patch, batch and version of nnU-Net's own planner; nothing where it is not installed."""
    if peers:
        sys.path.append(str(peers))
    with tempfile.TemporaryDirectory() as folder:
        places = {name: f"{folder}/{name}" for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        os.environ.update(places, nnUNet_def_n_proc="1")
        _describe(study, Path(places["nnUNet_raw"]) / DATASET, Path(places["nnUNet_preprocessed"]) / DATASET)
        try:
            import nnunetv2.paths
            from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner as planner
        except ImportError as fault:
            print(f"nnU-Net v2 is not asked: {fault}", file=sys.stderr)
            return {}
        for module in (nnunetv2.paths, planner):  # both keep the folders of their first import
            for name, path in places.items():
                setattr(module, name, path)
        with contextlib.redirect_stdout(io.StringIO()):
            plans = planner.ExperimentPlanner(DATASET, memory_gb).plan_experiment()
    found = plans["configurations"][CONFIGURATION]
    stored = [found["patch_size"][plans["transpose_forward"].index(axis)] for axis in range(3)]
    parent = Path(nnunetv2.__file__).parents[1]
    version = next(PathDistribution(path).version for path in parent.glob("nnunetv2-*.dist-info"))
    patch = tuple(int(edge) for edge in stored[::-1])
    return {"patch": patch, "batch": int(found["batch_size"]), "version": f"nnunetv2 {version}"}


def _describe(study: Study, raw: Path, preprocessed: Path) -> None:
    """Write what nnU-Net's planner reads of a data set: names, and the shapes of the study's scans; (Z, Y, X)."""
    scans = planning_scans(study)
    spacing = list(study.plan.spacing_mm[::-1])
    labels = {"background": 0, **{organ: value for value, organ in enumerate(study.plan.organs, start=1)}}
    files = {scan.name: {"images": [f"{scan.name}.nii.gz"], "label": f"{scan.name}.nii.gz"} for scan in scans}
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "numTraining": len(scans),
        "file_ending": ".nii.gz",
        "dataset": files,
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    fingerprint = {
        "spacings": [spacing] * len(scans),
        "shapes_after_crop": [list(scan.labels.shape[::-1]) for scan in scans],
        "foreground_intensity_properties_per_channel": {"0": {}},
        "median_relative_size_after_cropping": 1.0,
    }
    for place, name, content in (
        (raw, "dataset.json", dataset),
        (preprocessed, "dataset_fingerprint.json", fingerprint),
    ):
        place.mkdir(parents=True)
        (place / name).write_text(json.dumps(content))


if __name__ == "__main__":
    main()
