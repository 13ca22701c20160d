"""`make bench`: every part runs at its smallest size, and what cannot be measured says so."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import losses, process
from benchmarks.__main__ import GROUPS, alternate, compare, landscape, line, main, planner
from benchmarks.sizes import BATCH, CLASSES, LOGITS, SIZES
from benchmarks.training_step import dynunet
from hnlib.networks import forward_operations

ROOT = Path(__file__).resolve().parents[1]
HERE = {"note": "32-true", "hardware": "a machine"}


def in_this_process(function: str, given: Mapping[str, Any], device: str = "cpu") -> process.Found:
    """Measure without a process of its own; a GPU, where there is one, stays alone."""
    return {"not_measured": process.NO_GPU} if device == "cuda" else process.call(function, given)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return the rows of the whole bench at its smallest size, no peer installed."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HNLIB_PEERS", str(folder / "none"))
        patch.setattr(sys, "path", [*sys.path])
        main(["--size", "tiny", "--out", str(folder / "bench.json")], in_this_process)
    return {row["name"]: row for row in json.loads((folder / "bench.json").read_text())}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("nnunetv2") is not None, reason="nnunetv2 is installed beside the library")
def test_bench_runs_and_says_what_it_could_not_measure(rows: dict[str, dict[str, Any]]) -> None:
    """Ours is measured, MONAI is, nnU-Net and the GPU have rows that say why they are not."""
    names = {"training_step", "training_step_fp32", "training_step_vs_nnunet", "preprocess_case", "predict_case"}
    names |= {"preprocess_case_memory", "predict_case_memory", "augmentation", "patch_read", "batch_wait"}
    names |= {"imbalance_one", "imbalance_grid", "imbalance_grid_vs_prefix_sum"}
    names |= {f"loss_{loss}_dice_ce{end}" for loss in ("nnu", "ca", "topk") for end in ("", "_memory", "_large")}
    names |= {"evaluation_case", "evaluation_case_vs_monai", "evaluation_case_limit"}
    names |= {f"{name}{end}" for name in ("s_net_step", "focusnet_step", "focusnet_case") for end in ("", "_memory")}
    names |= {f"coarse_to_fine_{stage}" for stage in ("case", "views", "boxes", "fine", "views_memory", "fine_memory")}
    for name in names:
        # of the rows, augmentation alone is a difference of two times, which noise can turn at this size
        assert rows[name]["ours"] >= (-1 if name == "augmentation" else 0), name
    assert all("extrapolated" in row["note"] for name, row in rows.items() if name.startswith("imbalance"))
    assert rows["training_step"]["ratio"] == pytest.approx(
        rows["training_step"]["ours"] / rows["training_step"]["peer"], 0.1
    )
    for name in ("training_step_vs_nnunet", "preprocess_case", "predict_case"):
        assert rows[name]["ratio"] is None
        assert "peer not measured: nnunetv2 is not installed" in rows[name]["note"]
    on_gpu = [row for name, row in rows.items() if name.endswith("_gpu")]
    assert {row["name"] for row in on_gpu} >= {"training_step_gpu", "training_step_compiled_gpu", "predict_case_gpu"}
    assert all(row["ours"] is None and process.NO_GPU in row["note"] for row in on_gpu)


@pytest.mark.slow
def test_share_of_the_peak_is_operations_over_time_over_rate(rows: dict[str, dict[str, Any]]) -> None:
    """A row's share follows from the formula of its network, three times forward for both patches."""
    row, size = rows["training_step_vs_nnunet"], SIZES["tiny"]
    assert row["operations"] == 6 * forward_operations(size.topology, size.filters, size.patch, CLASSES)
    share = row["operations"] / row["ours"] / row["peak_operations_per_second"]
    assert row["share_of_peak"] == pytest.approx(share, rel=0.1, abs=1e-3)


def test_bench_network_has_the_operations_of_its_formula() -> None:
    """Beside MONAI the network has one head, and torch counts what the formula says."""
    size = SIZES["tiny"]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        dynunet(size)(torch.zeros(BATCH, 1, *size.patch))
    expected = BATCH * forward_operations(size.topology, size.filters, size.patch, CLASSES, num_heads=1)
    assert counter.get_total_flops() == expected


def test_ratio_is_the_median_of_rounds() -> None:
    """Each round has its own ratio, so that a machine that slows down moves none of them."""
    ours = [{**HERE, "seconds": s} for s in (1.0, 4.0, 3.0)]
    peer = [{**HERE, "seconds": s} for s in (2.0, 8.0, 3.0)]
    row = compare("step", ours, peer, "peer", goal=0.5, unit="s")
    assert (row["ours"], row["peer"], row["ratio"], row["ratio_range"]) == (3.0, 3.0, 0.5, [0.5, 1.0])


def test_the_landscape_of_real_scans_is_held_against_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the seconds miss the limit, half the memory meets it; without the scans each row says so."""
    found = {
        "one_scan": {**HERE, "seconds": 40.0, "peak_mib": 1024.0},
        "moments": {**HERE, "seconds": 4.0},
        "all_scans": {**HERE, "seconds": 240.0},
        "cases": {**HERE, "few": 2.0, "many": 2.2},
    }
    rows = landscape("tiny", lambda function, _given: found[function.split(":")[1]])
    assert [row["ratio"] for row in rows] == [2.0, 0.5, 0.1, 0.5, 1.1]
    assert ["missed" in line(row) for row in rows] == [True, False, False, False, False]
    monkeypatch.setenv("HNLIB_DATA", "/nowhere")
    monkeypatch.setattr("benchmarks.landscape.ROOT", Path("/nowhere/at/all"))
    rows = landscape("tiny", in_this_process)
    assert all(row["ours"] is None and "tcia-ct-scan-dataset is not in HNLIB_DATA" in row["note"] for row in rows)


def test_a_side_that_cannot_be_measured_is_asked_once() -> None:
    """The other side is measured in every round."""
    asked = []

    def measure(function: str, _given: Mapping[str, Any]) -> process.Found:
        asked.append(function)
        return {"not_measured": "no"} if function == "peer" else {**HERE, "seconds": 1.0}

    alternate({"ours": ("ours", {}), "peer": ("peer", {})}, 3, measure)
    assert asked == ["ours", "peer", "ours", "ours"]


def test_the_memory_model_is_judged_by_its_worst_network_on_either_side() -> None:
    """A count of 0.8 of what is measured misses a goal that a median of 1.0 would meet."""
    each = [{**HERE, "peak": 10.0, "peak_by_count": count} for count in (8.0, 10.0, 11.0)]

    def measure(function: str, _given: Mapping[str, Any]) -> process.Found:
        if function.endswith("load_in_nnunet"):
            return {"not_measured": "nnunetv2 is not installed"}
        return {**HERE, "networks": [{**one, "kept": 10.0, "kept_by_count": 10.5} for one in each]}

    found = {row["name"]: row for row in planner("tiny", measure)}
    assert found["planner_memory_peak"]["ours"] == pytest.approx(0.2)
    assert found["planner_memory_peak"]["ratio"] == pytest.approx(0.2 / 0.15, rel=0.01)
    assert "count over measurement 0.800 to 1.100" in found["planner_memory_peak"]["note"]
    assert "missed" in line(found["planner_memory_peak"])
    assert "met" in line(found["planner_memory_kept"])
    assert found["planner_nnunet"]["ours"] is None


def test_small_ratios_keep_their_digits() -> None:
    """A ratio of a hundred-thousandth is no zero."""
    row = compare("grid", [{**HERE, "seconds": 3.0}], [{**HERE, "seconds": 3e5}], "peer", goal=1e-4, unit="s")
    assert row["ratio"] == 1e-5
    assert "ratio 1e-05 (1e-05 to 1e-05), goal 0.0001: met" in line(row)


def test_rows_of_other_groups_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One group renews its rows and no others."""
    out = tmp_path / "bench.json"
    out.write_text(json.dumps([{"name": "kept", "ours": 1}, {"name": "new", "ours": 1}]))
    new = compare("new", [{**HERE, "seconds": 2.0}], [{"not_measured": "no"}], "peer", goal=None, unit="s")
    monkeypatch.setitem(GROUPS, "loading", lambda _size, _measure: [new])
    main(["loading", "--out", str(out)])
    assert [(row["name"], row["ours"]) for row in json.loads(out.read_text())] == [("kept", 1), ("new", 2.0)]


@pytest.mark.slow
def test_a_process_of_its_own_has_its_own_peak() -> None:
    """What this process holds is not counted in the one that measures."""
    ballast = torch.ones(2**28)  # 1 GiB
    found = process.measure("benchmarks.machine:matrix_rate", {"size": "tiny"})
    assert found["rate"] > 0
    assert 50 < found["peak_mib"] < 1000 < process.peak_mib()
    assert ballast.numel() == 2**28


def test_peers_are_pinned_and_not_in_the_environment() -> None:
    """Each peer has an exact version, and none has a pin in the library's own lock."""
    lines = [line for line in (ROOT / "benchmarks" / "peers.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    locked = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert not {line.split("==")[0] for line in lines} & locked


def test_a_process_of_its_own_says_what_it_cannot_measure() -> None:
    """The reason comes back as a row, not as the traceback of another process."""
    given = {"device": "cuda"}
    assert process.measure("benchmarks.process:need", given) == {"not_measured": process.NO_GPU}


@pytest.mark.parametrize("loss", ["nnu_dice+ce", "ca_dice+ce"])
def test_losses_and_their_peers_are_given_the_same_task(loss: str) -> None:
    """Ours and MONAI's agree where they are one loss; ca-Dice has no peer that skips classes, but none is absent."""
    logits, target = losses.make_inputs(LOGITS["tiny"][""], "cpu")
    gradients = []
    for side in ("ours", "monai"):
        losses.make_step(side, loss, logits, target)()
        assert logits.grad is not None
        gradients.append(logits.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_memory_of_a_step_is_at_least_its_gradient() -> None:
    """A process of its own, inputs not counted: the gradient of 2 x 8 x 96 x 80 x 48 float32 numbers is 22.5 MiB."""
    pytest.importorskip("resource")
    found = process.measure(
        "benchmarks.losses:memory", {"side": "ours", "loss": "nnu_dice+ce", "volume": "", "size": "full"}
    )
    if "not_measured" in found:
        pytest.skip(found["not_measured"])
    assert 22 < found["mib"] < 70
