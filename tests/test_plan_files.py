"""A plan for nnU-Net v2: its axis order, its keys, its faults, and its own code where it is installed."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import process
from benchmarks.plans import BATCH, PATCH, SPACING_MM, default_plans, made_plan
from hnlib.errors import ConfigError
from hnlib.imbalance import nnunet_spacing, read_nnunet, to_nnunet


def test_axes_are_nnunets_by_hand() -> None:
    """X, Y, Z = 48, 40, 24 is stored as 24, 40, 48; a transposition that puts its axis 2 first makes it 48, 24, 40."""
    plain, turned = (to_nnunet(made_plan(), default_plans(forward)) for forward in ((0, 1, 2), (2, 0, 1)))
    assert plain["configurations"]["3d_fullres"]["patch_size"] == [24, 40, 48]
    assert turned["configurations"]["3d_fullres"]["patch_size"] == [48, 24, 40]
    kernels = [made["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"] for made in (plain, turned)]
    assert made_plan().candidate.topology.kernels[0] == (3, 3, 1)
    assert [k["kernel_sizes"][0] for k in kernels] == [[1, 3, 3], [3, 1, 3]]
    assert nnunet_spacing(default_plans((2, 0, 1))) == SPACING_MM


def test_only_patch_batch_network_draw_and_name_change() -> None:
    """All else of nnU-Net's plans stays, and what was given is not touched."""
    plans = default_plans()
    before = copy.deepcopy(plans)
    made = to_nnunet(made_plan(), plans)
    assert plans == before
    assert json.loads(json.dumps(made)) == made
    assert made["plans_name"] == "nnUNetPlans_hnlib"
    old, new = before["configurations"]["3d_fullres"], made["configurations"]["3d_fullres"]
    assert {key for key in new if new[key] != old.get(key)} == {
        "patch_size",
        "batch_size",
        "architecture",
        "hnlib_centres",
    } - ({"batch_size"} if old["batch_size"] == BATCH else set())
    network = new["architecture"]["arch_kwargs"]
    topology = made_plan().candidate.topology
    assert network["n_stages"] == topology.num_levels == len(network["features_per_stage"]) == len(network["strides"])
    assert network["features_per_stage"][:3] == [8, 16, 32]


def broken(change: str) -> dict[str, Any]:
    plans = default_plans()
    if change == "spacing":
        plans["configurations"]["3d_fullres"]["spacing"] = [2.0, 1.2, 1.0]
    elif change == "two axes":
        plans["configurations"]["3d_fullres"]["spacing"] = [1.2, 1.0]
    elif change == "no configuration":
        plans["configurations"] = {"3d_lowres": {}}
    else:
        del plans["transpose_forward"]
    return plans


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("spacing", "the plan is for 1 x 1.2 x 3 mm but nnU-Net's 3d_fullres for 1 x 1.2 x 2 mm"),
        ("two axes", "no 3D plans of version 2"),
        ("no configuration", "^unknown configuration of nnU-Net's plans '3d_fullres': did you mean '3d_lowres'"),
        ("no version 2", "no 3D plans of version 2"),
    ],
)
def test_plans_that_do_not_fit_are_told(change: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        to_nnunet(made_plan(), broken(change))


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_files_that_are_no_plans_are_told(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "nnUNetPlans.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"nnUNetPlans\.json: cannot be read"):
        read_nnunet(path)


@pytest.mark.slow
@pytest.mark.parametrize("forward", [(0, 1, 2), (2, 0, 1)])
def test_nnunet_loads_the_plan_and_builds_its_network(forward: tuple[int, int, int]) -> None:
    """Its own code reads patch, batch and strides, and its network keeps what was counted, within 15 %."""
    found = process.measure("benchmarks.plans:load_in_nnunet", {"transpose_forward": forward})
    if "not_measured" in found:
        pytest.skip(f"HNLIB_PEERS: {found['not_measured']}")
    order = [2 - axis for axis in forward]
    topology = made_plan().candidate.topology
    assert found["plans_name"] == "nnUNetPlans_hnlib"
    assert found["patch_size"] == [PATCH[axis] for axis in order]
    assert found["batch_size"] == BATCH
    assert found["strides"] == [[stride[axis] for axis in order] for stride in topology.strides]
    assert found["kernel_sizes"] == [[kernel[axis] for axis in order] for kernel in topology.kernels]
    assert found["head_shapes"][0] == [BATCH, 6, *found["patch_size"]]
    assert found["kept_by_count"] == pytest.approx(found["kept"], rel=0.15)
