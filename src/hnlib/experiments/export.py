"""From a finished run to a model file that stands alone."""

from __future__ import annotations

from pathlib import Path

from hnlib.errors import DataError
from hnlib.experiments.scores import scores_for_model
from hnlib.experiments.study import Study, check_run, read_record
from hnlib.model_file import MODEL_NAME, ModelFile, save_model, see
from hnlib.systems import build_system, read_weights


def export_model(study: Study, experiment: str, seed: int, *, out: Path | None = None, half: bool = False) -> Path:
    """Write the model file of a finished run, into its folder or to `out`, and return its path.

    Every training case is read once from the cache, for the ranges outside of which the model refuses an image.

    Raises
    ------
    DataError
        When the run is not finished or its checkpoint is damaged.
    """
    found, folder = check_run(study, experiment, seed), study.run_folder(experiment, seed)
    if not (folder / "run.json").exists():
        raise DataError(f"run {folder}: not finished; run hnlib train first")
    blueprint = study.blueprint(found)
    model = ModelFile(
        blueprint=blueprint,
        seen=see((study.case(name) for name in study.training_cases(found)), study.plan),
        attribution=study.attribution,
        weights=read_weights(build_system(blueprint), folder),
        provenance={**read_record(folder), **scores_for_model(folder)},
    )
    path = out or folder / MODEL_NAME
    save_model(path, model, half=half)
    return path
