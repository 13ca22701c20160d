"""The model that comes with the package: small, readable, scored, and at work on a scan."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hnlib.chapters.released import released_origin, released_scores
from hnlib.cli import main
from hnlib.datasets import OpenKBP
from hnlib.experiments import load_experiment, load_profile
from hnlib.model_file import ModelFile, load_model, released_model


@pytest.fixture(scope="module")
def model() -> ModelFile:
    return load_model(released_model())


def test_it_is_small_and_stored_in_half_precision() -> None:
    assert released_model().stat().st_size < 4e6
    stored = load_file(released_model()).values()
    assert {tensor.dtype for tensor in stored if tensor.is_floating_point()} == {torch.float16}


def test_it_is_the_recipe_of_its_profile(model: ModelFile) -> None:
    profile, made = load_profile("released"), model.provenance
    assert (made["profile"], made["experiment"]) == ("released", *profile.study)
    assert model.blueprint.network == load_experiment("recipe").network
    assert model.plan.organs == profile.organs
    assert model.predictor().parameters == made["parameters"]
    assert all(torch.isfinite(tensor).all() for state in model.weights.values() for tensor in state.values())


def test_its_card_gives_the_score_of_every_organ(model: ModelFile) -> None:
    scores = released_scores()
    assert len(scores) == len(model.plan.organs) + 1
    assert scores.iloc[:-1].mean().item() == pytest.approx(scores.loc["Mean over organs"].item(), abs=1e-3)
    assert "OpenKBP" in released_origin().loc["data", "value"]


@pytest.mark.data
def test_it_outlines_a_scan_at_once(openkbp_root: Path, tmp_path: Path) -> None:
    """One command with no more than a scan and a name for the outlines; the mandible lies where its reference does."""
    data = OpenKBP(openkbp_root, organs=("mandible",))
    case = data.load(next(name for part in data.split().values() for name in part))
    scan = nibabel.Nifti1Image(case.image_hu, np.diag([*case.spacing_mm, 1]))
    nibabel.save(scan, tmp_path / "ct.nii.gz")
    with pytest.raises(SystemExit) as caught:
        main(["predict", str(tmp_path / "ct.nii.gz"), "--out", str(tmp_path / "organs.nii.gz")])
    assert caught.value.code == 0
    labels = np.asarray(nibabel.load(tmp_path / "organs.nii.gz").dataobj)
    found = labels == 1 + load_model(released_model()).plan.organs.index("mandible")
    reference = np.asarray(case.labels) == 1
    assert 2 * (found & reference).sum() / (found.sum() + reference.sum()) > 0.6
