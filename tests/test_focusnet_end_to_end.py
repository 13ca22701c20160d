"""FocusNet from a data set to a prediction, twice: where the labels of the test cases lie changes nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest

from hnlib.cases import Case
from hnlib.datasets import PhantomDataset
from hnlib.experiments import Study, measure_run, prepare_study, train_run
from hnlib.experiments import study as study_module
from hnlib.predict import Outputs, predict_files

EXPERIMENT = """
title: end to end
patch: large
loss: weighted_focal+gao_dice(squared=true)
centres: nnunet
network: snet
system: focusnet
options: {small_organs: [brainstem, parotid_left], dilations: [1, 2], gate: 0, roi: 1}
"""
PROFILE = """
study: []
arms: {whole: [focusnet_end_to_end]}
seeds: [0]
organs: [brainstem, parotid_left, mandible]
patches: {large: [24, 24, 16]}
width: 4
cap: 8
prior_bias: false
phantom_spacing_mm: [5, 5, 5]
num_cases: {train: 2, test: 1}
validation_cases: 0
drift_cases: 0
training: {steps: 24, batch_size: 1, learning_rate: 4.0e-3, validate_every: 24, checkpoint_every: 24}
"""


class MovedLabels(PhantomDataset):
    """The phantoms with the labels of the test cases 4 voxels further along X and upside down; images as they are."""

    def load(self, case: str) -> Case:
        found = super().load(case)
        if case in self.split()["test"]:
            found.labels[:] = np.roll(found.labels, 4, axis=0)[:, :, ::-1]
        return found

    def digest(self) -> str:
        return "moved-" + super().digest()


def run(data: type[PhantomDataset], monkeypatch: pytest.MonkeyPatch) -> tuple[Study, Path]:
    """Prepare, train and measure; return the study and the run's folder."""

    def opened(_name: str, _root: Any, num_cases: Any, organs: Any, phantom_spacing_mm: Any) -> PhantomDataset:
        return data(num_cases, organs=organs, spacing_mm=phantom_spacing_mm)

    monkeypatch.setattr(study_module, "open_dataset", opened)
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # no processes for three small cases
    study = prepare_study("phantom", "focusnet_end_to_end")
    train_run(study, "focusnet_end_to_end", 0, report=lambda _line: None)
    return study, measure_run(study, "focusnet_end_to_end", 0, report=lambda _line: None)


def predictions(folder: Path) -> dict[str, np.ndarray]:
    return {
        path.name.removesuffix(".nii.gz"): np.asarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
        for path in sorted((folder / "predictions").glob("*.nii.gz"))
    }


@pytest.mark.slow
def test_labels_of_test_cases_change_no_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained and measured with test labels as they are and moved: weights, ROIs and outlines agree, scores do not."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "focusnet_end_to_end.yaml").write_text(EXPERIMENT)
    (tmp_path / "profiles" / "focusnet_end_to_end.yaml").write_text(PROFILE)
    monkeypatch.setenv("HNLIB_EXPERIMENTS", str(tmp_path))
    study, own = run(PhantomDataset, monkeypatch)
    _, moved = run(MovedLabels, monkeypatch)
    assert own != moved
    first, second = predictions(own), predictions(moved)
    assert list(first) == list(second) == list(study.split["test"])
    for name, labels in first.items():
        assert len(np.unique(labels)) > 1, "nothing is outlined, so that nothing is compared"
        np.testing.assert_array_equal(labels, second[name])
    here, there = (
        pd.read_csv(folder / "metrics.csv").set_index(["case", "organ", "metric"])["value"] for folder in (own, moved)
    )
    at = here.index.get_level_values("metric")
    assert set(at) >= {"located", "centre_peak", "centre_error_mm", "roi_recall", "s_net_dsc", "fused_dsc"}
    pd.testing.assert_series_equal(here[at == "centre_peak"], there[at == "centre_peak"])
    assert (here[at == "centre_error_mm"] != there[at == "centre_error_mm"]).all()

    # the model file alone gives the outlines of the measured run
    case = study.open().load(study.split["test"][0])
    scan = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(case.image_hu, np.diag([*case.spacing_mm, 1.0])), scan)
    found = predict_files(scan, own / "model.safetensors", Outputs(tmp_path / "organs.nii.gz"))
    np.testing.assert_array_equal(found, first[case.name])
