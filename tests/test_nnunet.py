"""nnU-Net with this library: the draw of the plans, versions, and two steps through its own command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.nnunet import peers
from hnlib.cli import main
from hnlib.errors import ConfigError
from hnlib.nnunet.draw import CENTRES, TESTED, DrawnCases, version_remark, weights_by_label

ROOT = Path(__file__).resolve().parents[1]
TRAINERS = ROOT / "src" / "hnlib" / "nnunet"
STEP = '''from hnlib.nnunet.trainers import TopKDiceTrainer


class TwoStepsTrainer(TopKDiceTrainer):
    """One epoch of two steps."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 2, 1

    def perform_actual_validation(self, save_probabilities=False):
        pass  # whole scans, eight times mirrored: minutes
'''


class Two:
    """A data set of one case that holds organs 1 and 2 and lacks 3."""

    identifiers: Sequence[str] = ("a",)

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        places = {1: np.zeros((5, 4)), 2: np.ones((2, 4)), 3: []}
        return identifier, None, None, {"class_locations": places, "spacing": 1}


def test_the_loader_is_shown_one_organ_by_its_weight() -> None:
    """Weights 0.4, 0.2 and 0.2 beside 0.2 anywhere: half, a quarter and a quarter of 4000, within four deviations."""
    np.random.seed(0)
    cases = DrawnCases(Two(), {0: 0.2, 1: 0.4, 2: 0.2, 3: 0.2})
    shown = Counter(next(iter(cases.load_case("a")[3]["class_locations"])) for _ in range(4000))
    for label, share in ((1, 0.5), (2, 0.25), (3, 0.25)):
        assert abs(shown[label] - 4000 * share) < 4 * np.sqrt(4000 * share * (1 - share))


def test_an_organ_that_a_case_lacks_leaves_the_patch_anywhere() -> None:
    """nnU-Net puts a patch anywhere where no class has voxels."""
    found = DrawnCases(Two(), {0: 0.5, 3: 0.5}).load_case("a")[3]
    assert found["spacing"] == 1
    assert all(len(places) == 0 for places in found["class_locations"].values())
    assert DrawnCases(Two(), {0: 1.0}).load_case("a")[3]["class_locations"] == {}


def test_what_nnunet_knows_of_a_case_is_not_changed() -> None:
    cases = Two()
    DrawnCases(cases, {1: 1.0}).load_case("a")
    assert set(cases.load_case("a")[3]["class_locations"]) == {1, 2, 3}


def test_a_draw_for_another_data_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="organ lens_left is none of background, mandible"):
        weights_by_label({"uniform": 0.5, "lens_left": 0.5}, {"background": 0, "mandible": 1})


@pytest.mark.parametrize("found", ["1.7.1", "3.0", "unknown"])
def test_another_major_version_is_refused(found: str) -> None:
    with pytest.raises(ConfigError, match=f"nnU-Net {found}: the trainers of hnlib need version 2"):
        version_remark(found)


def test_the_extra_asks_for_the_tested_version() -> None:
    tested = ".".join(map(str, TESTED))
    assert f'nnunet = ["nnunetv2>={tested},<' in (ROOT / "pyproject.toml").read_text()


def test_the_command_prints_the_folder_that_nnunet_searches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["nnunet"])
    assert stop.value.code == 0
    assert (Path(capsys.readouterr().out.strip()) / "trainers.py").is_file()


def script(name: str) -> Path:
    """Return a command of nnU-Net, installed or among the peers, or skip."""
    found = shutil.which(name) or str(peers() / "bin" / name)
    if not Path(found).is_file():
        pytest.skip("nnunetv2 is neither installed nor in HNLIB_PEERS")
    return Path(found)


def stand_in_for_timm(root: Path) -> Path:
    """Write modules that have every name; the peers lack timm, whose transformers nnU-Net imports and does not use."""
    text = "from torch import nn\n\n\ndef __getattr__(name):\n"
    text += "    if name[:2] == '__':\n        raise AttributeError(name)\n"
    for module in ("__init__", "layers", "models/__init__", "models/eva"):
        path = root / "timm" / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "    return nn.Module\n")
    return root


def raw_data(root: Path, scans: Path) -> Path:
    """Write the demo's scans as nnU-Net wants them."""
    from hnlib.datasets.folder import read_settings
    from hnlib.report.demo import write_demo

    folders = write_demo(scans)
    place = root / "Dataset001_Phantom"
    for kind in ("imagesTr", "labelsTr"):
        (place / kind).mkdir(parents=True)
    for folder in folders:
        shutil.copy(folder / "image.nii.gz", place / "imagesTr" / f"{folder.name}_0000.nii.gz")
        shutil.copy(folder / "labels.nii.gz", place / "labelsTr" / f"{folder.name}.nii.gz")
    labels = {"background": 0, **read_settings(scans / "hnlib.yaml").organs}
    about = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": len(folders), "file_ending": ".nii.gz"}
    (place / "dataset.json").write_text(json.dumps(about))
    return place


@pytest.mark.full
@pytest.mark.skipif(os.environ.get("HNLIB_FULL") != "1", reason="preprocesses and trains with nnU-Net: HNLIB_FULL=1")
def test_two_steps_through_the_command_line_of_nnunet(tmp_path: Path) -> None:
    """Preprocess, plan, train: the phantom, the planned patch and draw, topK Dice."""
    prepare, train = script("nnUNetv2_plan_and_preprocess"), script("nnUNetv2_train")
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "two_steps.py").write_text(STEP)
    folders = {name: str(tmp_path / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")]), str(peers())]
    paths += [] if find_spec("timm") else [str(stand_in_for_timm(tmp_path / "stand_in"))]
    environment = {
        **os.environ, **folders, "PYTHONPATH": os.pathsep.join(paths), "nnUNet_n_proc_DA": "1", "nnUNet_compile": "f",
        "nnUNet_def_n_proc": "1", "nnUNet_extTrainer": os.pathsep.join([str(tmp_path / "steps"), str(TRAINERS)]),
    }  # fmt: skip
    raw = raw_data(Path(folders["nnUNet_raw"]), tmp_path / "scans")

    def call(*command: object) -> str:
        line = [sys.executable, *map(str, command)]
        done = subprocess.run(line, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    call(prepare, "-d", "1", "-c", "3d_fullres", "-np", "1", "-npfp", "1")
    plans = Path(folders["nnUNet_preprocessed"]) / raw.name / "nnUNetPlans.json"
    call("-m", "hnlib.cli", "plan", raw, "--memory", "500MB", "--width", "8", "--nnunet", plans)
    environment["nnUNet_n_proc_DA"] = "0"  # batches made in the training process itself; nnU-Net's planner wants one
    planned = json.loads(plans.with_name("nnUNetPlans_hnlib.json").read_text())["configurations"]["3d_fullres"]
    assert sum(planned[CENTRES].values()) == pytest.approx(1)
    said = call(train, "1", "3d_fullres", "0", "-tr", "TwoStepsTrainer", "-p", "nnUNetPlans_hnlib", "-device", "cpu")
    assert "patch centres by label (0: anywhere)" in said
    losses = [float(line.split("train_loss ")[1]) for line in said.splitlines() if "train_loss " in line]
    assert losses
    assert np.isfinite(losses).all()
    results = Path(folders["nnUNet_results"]) / raw.name / "TwoStepsTrainer__nnUNetPlans_hnlib__3d_fullres" / "fold_0"
    assert (results / "checkpoint_final.pth").is_file()


@pytest.mark.slow
def test_the_example_for_monai_runs_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    """Thirty steps outline the block: a DSC above one half."""
    import torch

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "book" / "nnunet.md").read_text(), re.DOTALL)
    torch.manual_seed(0)
    example = next(block for block in blocks if "monai" in block)
    assert len(example.rpartition("\n\n")[2].splitlines()) == 10
    exec(example, {})
    found = re.search(r"mandible\s+dsc\s+([\d.]+)", capsys.readouterr().out)
    assert found
    assert float(found[1]) > 0.5
