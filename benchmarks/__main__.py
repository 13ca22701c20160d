"""Run the benchmarks, print a table, write results/published/bench.json.

``python -m benchmarks`` runs all groups, ``python -m benchmarks scan loading`` two of them; rows of the others
stay in the file. What a machine cannot measure has a row that says so.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.imbalance import PRECISION, grid_sizes
from benchmarks.process import ROOT, Found, measure
from benchmarks.sizes import BATCH, CLASSES, LOGITS, SIZES
from hnlib.files import write_json
from hnlib.networks import forward_operations

Row = dict[str, Any]
Measure = Callable[..., Found]
Sides = Mapping[str, tuple[str, Mapping[str, Any]]]
TARGET = ROOT / "results" / "published" / "bench.json"
MONAI, NNUNET = "MONAI DynUNet + DiceCELoss, float32", "nnU-Net v2"
STEP = "benchmarks.training_step"
#: What is timed of FocusNet, on which sides, and what the peer shares.
FOCUSNET = (("step", ("s_net", "focusnet"), ", patch and batch"), ("case", ("focusnet",), " and patch"))
KEPT, PEAK = "saved tensors of torch", "most memory that torch holds"
PEAK_MIB = {"unit": "MiB at the peak", "key": "peak_mib"}
#: In the place of a peer; a ratio of at most 1 meets it.
LIMIT = "limit of its specification"
#: How far the count of memory may be from what is measured.
ALLOWED = 0.15
#: Time of ours over time of MONAI's that each loss may take.
LOSS_GOALS = {"nnu_dice+ce": 0.5, "ca_dice+ce": 0.5, "topk_dice+ce": 1.0}


def alternate(sides: Sides, rounds: int, measure: Measure) -> dict[str, list[Found]]:
    """Measure the sides in turn, so that a change of the machine's speed meets all of them."""
    found: dict[str, list[Found]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (function, given) in sides.items():
            if not any("not_measured" in one for one in found[name]):
                found[name].append(measure(function, given))
    return found


def compare(
    name: str,
    ours: Sequence[Found],
    peer: Sequence[Found],
    peer_name: str,
    *,
    goal: float | None,
    unit: str,
    **keys: str,
) -> Row:
    """Return a row: medians of the rounds, and the median of the ratios within a round.

    ``key`` and ``peer_key`` say which number of each side is meant, by default its seconds.
    """
    key = keys.get("key", "seconds")
    sides = {"ours": (ours, key), "peer": (peer, keys.get("peer_key", key))}
    row: Row = {"name": name, "ours": None, "peer": None, "ratio": None, "unit": unit, "goal": goal}
    row |= {"peer_name": peer_name, "hardware": ours[0].get("hardware", ""), "date": date.today().isoformat()}
    notes = []
    for side, (found, which) in sides.items():
        if "not_measured" in found[0]:
            notes.append(f"{side} not measured: {found[0]['not_measured']}")
        else:
            row[side] = round(median(one[which] for one in found), 4)
            notes += [f"{side} {found[0]['note']}"] if "note" in found[0] else []
    if row["ours"] is not None and row["peer"]:  # a peer of 0 was too small to measure
        ratios = [a[key] / b[sides["peer"][1]] for a, b in zip(ours, peer, strict=True)]
        low, middle, high = (float(f"{ratio:.3g}") for ratio in (min(ratios), median(ratios), max(ratios)))
        row |= {"ratio": middle, "ratio_range": [low, high]}
    return {**row, "note": "; ".join(notes)}


def deviation(found: Sequence[Found], part: str) -> list[Found]:
    """Return the worst deviation of a count from its measurement, above or below, as a share of the measurement."""
    if "not_measured" in found[0]:
        return [found[0]]
    ratios = [one[f"{part}_by_count"] / one[part] for one in found]
    note = f"count over measurement {min(ratios):.3f} to {max(ratios):.3f}"
    notes = "; ".join(filter(None, (found[0].get("note"), note)))
    return [{**found[0], "deviation": max(abs(ratio - 1) for ratio in ratios), "note": notes}]


def add_share(row: Row, size: str, heads: int | None, rate: Found) -> Row:
    """Add the share of the machine's own matrix product that a training step reaches (backward = twice forward)."""
    big = SIZES[size]
    forward = forward_operations(big.topology, big.filters, big.patch, CLASSES, num_heads=heads)
    row["operations"] = 3 * BATCH * forward
    if row["ours"] is not None and "rate" in rate:
        row["peak_operations_per_second"] = round(rate["rate"])
        row["share_of_peak"] = round(row["operations"] / row["ours"] / rate["rate"], 3)
    return row


def training(size: str, measure: Measure, device: str = "cpu") -> list[Row]:
    """Compare the training step with MONAI's and nnU-Net's; on a GPU also compiled."""
    tail, given = ("_gpu" if device == "cuda" else ""), {"size": size, "device": device}
    bf16: Mapping[str, Any] = {**given, "precision": "bf16-mixed"}
    sides: dict[str, tuple[str, Mapping[str, Any]]] = {
        side: (f"{STEP}:beside_monai", {**given, "side": side}) for side in ("monai", "ours_fp32", "ours")
    }
    sides |= {"nnunet": ("benchmarks.nnunet:time_steps", given), "loop_fp32": (f"{STEP}:ours", given)}
    sides["loop_bf16"] = (f"{STEP}:ours", bf16)
    if device == "cuda":
        sides["compiled"] = (f"{STEP}:beside_monai", {**given, "side": "ours", "compiled": True})
        sides["loop_compiled"] = (f"{STEP}:ours", {**bf16, "compiled": True})
    found = alternate(sides, SIZES[size].rounds, measure)
    rates = {p: measure("benchmarks.machine:matrix_rate", {**given, "precision": p}) for p in ("32-true", "bf16-mixed")}
    rows = []
    for name, side, peer, goal in (
        ("training_step", "ours", "monai", 0.4),
        ("training_step_fp32", "ours_fp32", "monai", 0.85),
        ("training_step_compiled", "compiled", "monai", 0.4),
        ("training_step_vs_nnunet", "loop_fp32", "nnunet", 1.0),
        ("training_step_vs_nnunet_bf16", "loop_bf16", "nnunet", 1.0),
        ("training_step_vs_nnunet_compiled", "loop_compiled", "nnunet", 1.0),
    ):
        if side in found:
            peer_name = MONAI if peer == "monai" else f"{NNUNET} nnUNetTrainer.train_step"
            row = compare(name + tail, found[side], found[peer], peer_name, goal=goal, unit="s a step")
            precision = str(found[side][0].get("note", "32-true"))
            rows.append(add_share(row, size, 1 if peer == "monai" else None, rates[precision]))
    return rows


def scan(size: str, measure: Measure, device: str = "cpu") -> list[Row]:
    """Compare preprocessing and prediction of a full-size scan with nnU-Net's: seconds and peak memory."""
    tail, rows = ("_gpu" if device == "cuda" else ""), []
    with tempfile.TemporaryDirectory() as folder:
        given = {"folder": folder, "size": size}
        where = {**given, "device": device}
        made = measure("benchmarks.scan:make_scan", where)
        shape = "" if "not_measured" in made else f"{made['shape']} voxels to {made['plan_shape']}"
        tasks = {"preprocess": (given, "DefaultPreprocessor", 0.5), "predict": (where, "nnUNetPredictor", 1.0)}
        for task, (arguments, peer, goal) in tasks.items():
            if task == "preprocess" and device == "cuda":
                continue  # it uses no GPU
            sides = {side: (f"benchmarks.{side}:{task}", arguments) for side in ("scan", "nnunet")}
            found = alternate(sides, SIZES[size].rounds, measure)
            pair = (found["scan"], found["nnunet"], f"{NNUNET} {peer}")
            rows.append(compare(f"{task}_case{tail}", *pair, goal=goal, unit="s a case"))
            memory = compare(f"{task}_case_memory{tail}", *pair, goal=1.0, **PEAK_MIB)
            rows.append(memory)
    return [{**row, "note": "; ".join(part for part in (row["note"], shape) if part)} for row in rows]


def loading(size: str, measure: Measure) -> list[Row]:
    """Return what reading, changing and waiting for patches costs, each as a share of a training step."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"folder": folder, "size": size}
        measure("benchmarks.scan:make_scan", given)
        sides = {name: (f"benchmarks.loading:{name}", given) for name in ("patches", "waiting")}
        found = alternate(sides, SIZES[size].rounds, measure)
    step = found["waiting"]
    costs = (
        ("augmentation", found["patches"], "seconds", 0.15, "s a batch"),
        ("patch_read", found["patches"], "read_seconds", 0.15, "s a batch"),
        ("batch_wait", step, "wait_seconds", 0.01, "s a step"),
        ("training_step_augmented", step, "seconds", 1.15, "s a step"),
    )
    return [
        compare(
            name,
            ours,
            step,
            "our training step on a ready batch",
            goal=goal,
            unit=unit,
            key=key,
            peer_key="ready_seconds",
        )
        for name, ours, key, goal, unit in costs
    ]


def planner(size: str, measure: Measure, device: str = "cpu") -> list[Row]:
    """Compare the planner's count of memory with what torch keeps and holds; nnU-Net loads a plan."""
    del size  # the five networks are small on a CPU and as large as real ones on a GPU
    tail, rows = ("_gpu" if device == "cuda" else ""), []
    counted = measure("benchmarks.memory:networks", {"device": device})
    each = [{**counted, **network} for network in counted.get("networks", [{}])]
    sides = [(f"memory_{part}", each, part, peer) for part, peer in (("kept", KEPT), ("peak", PEAK))]
    if device == "cpu":
        sides.append(("nnunet", [measure("benchmarks.plans:load_in_nnunet", {})], "kept", f"{NNUNET}, its network"))
    for name, found, part, peer in sides:
        unit, keys = "of the measurement, worst of all", {"key": "deviation", "peer_key": "allowed"}
        pair = (deviation(found, part), [{"allowed": ALLOWED}])
        rows.append(compare(f"planner_{name}{tail}", *pair, f"allowed; {peer}", goal=1.0, unit=unit, **keys))
    return rows


def imbalance(size: str, measure: Measure) -> list[Row]:
    """Compare exact class ratios in patches with sampled ones: one patch size, and a grid of them."""
    with tempfile.TemporaryDirectory() as folder:
        given = {"folder": folder, "size": size}
        measure("benchmarks.imbalance:make_scan", given)
        sides: dict[str, tuple[str, Mapping[str, Any]]] = {
            f"{side}{tail}": (f"benchmarks.imbalance:{side}", {**given, "grid": bool(tail)})
            for tail in ("", "_grid")
            for side in ("exact", "monai")
        }
        sides["prefix_sums"] = ("benchmarks.imbalance:prefix_sums", given)
        found = alternate(sides, SIZES[size].rounds, measure)
    reached = f"sigma to {PRECISION[size]:.0e}"
    crops, best = f"MONAI RandCropByPosNegLabel, counted, {reached}", f"Monte Carlo on cumulative sums, {reached}"
    unit = f"s for {len(grid_sizes(size))} patch sizes of one scan"
    return [
        compare("imbalance_one", found["exact"], found["monai"], crops, goal=None, unit="s for one patch size"),
        compare("imbalance_grid", found["exact_grid"], found["monai_grid"], crops, goal=1e-4, unit=unit),
        compare("imbalance_grid_vs_prefix_sum", found["exact_grid"], found["prefix_sums"], best, goal=0.5, unit=unit),
    ]


def landscape(size: str, measure: Measure) -> list[Row]:
    """Hold the landscape of real scans at full size against its limits of time and memory, and many cases to few."""
    sizes, where = len(grid_sizes(size)), "benchmarks.landscape"
    one, shown, every, cases = (
        [measure(f"{where}:{name}", {"size": size})] for name in ("one_scan", "moments", "all_scans", "cases")
    )
    limits = [{"seconds": 20.0, "peak_mib": 2048.0}], [{"seconds": 480.0}]
    unit, name = f"s for {sizes} patch sizes of one real scan", LIMIT
    keys = {"key": "many", "peer_key": "few"}
    return [
        compare("landscape_scan", one, limits[0], name, goal=1.0, unit=unit),
        compare("landscape_scan_memory", one, limits[0], name, goal=1.0, **PEAK_MIB),
        compare("landscape_moments", shown, one, "expectations of the whole grid", goal=None, unit="s for a sub-grid"),
        compare("landscape_scans", every, limits[1], name, goal=1.0, unit=f"s for {sizes} patch sizes of all scans"),
        compare("landscape_cases", cases, cases, "a quarter of the cases", goal=1.2, unit="s a case", **keys),
    ]


def losses(size: str, measure: Measure, device: str = "cpu") -> list[Row]:
    """Compare our losses with MONAI's DiceCELoss, forward and backward: seconds, and peak memory beside the inputs."""
    rows, tail = [], "_gpu" if device == "cuda" else ""
    for volume, (loss, goal) in product(LOGITS[size], LOSS_GOALS.items()):
        given = {"loss": loss, "volume": volume, "size": size, "device": device}
        name = f"loss_{loss.replace('+', '_')}{{}}{volume}{tail}"
        times = alternate({"both": ("benchmarks.losses:seconds", given)}, SIZES[size].rounds, measure)["both"]
        pair = (times, times, "MONAI DiceCELoss")
        rows.append(compare(name.format(""), *pair, goal=goal, unit="s a step", peer_key="peer_seconds"))
        sides = {side: ("benchmarks.losses:memory", {**given, "side": side}) for side in ("ours", "monai")}
        peaks = alternate(sides, SIZES[size].rounds, measure)
        pair = (peaks["ours"], peaks["monai"], "MONAI DiceCELoss")
        rows.append(compare(name.format("_memory"), *pair, goal=0.6, unit="MiB at the peak", key="mib"))
        shape = " x ".join(map(str, LOGITS[size][volume]))
        rows[-2:] = [{**row, "note": "; ".join(filter(None, (row["note"], f"logits {shape}")))} for row in rows[-2:]]
    return rows


def evaluation(size: str, measure: Measure) -> list[Row]:
    """Compare all metrics of a case with two of the package's and of MONAI's: seconds and peak memory."""
    size = "tiny" if size == "tiny" else "full"
    with tempfile.TemporaryDirectory() as folder:
        given = {"folder": folder, "size": size}
        shape = measure("benchmarks.evaluation:make_case", given)["shape"]
        sides = {side: (f"benchmarks.evaluation:{side}", given) for side in ("ours", "package")}
        found = alternate(sides, SIZES[size].rounds, measure)
        # MONAI takes a minute and some GiB: one round beside one of ours
        found["monai"] = [measure("benchmarks.evaluation:monai", given)]
    rows = []
    for name, ours, peer, peer_name, goal in (
        ("evaluation_case", found["ours"], found["package"], "surface-distance-based-measures", 1.0),
        ("evaluation_case_vs_monai", found["ours"][-1:], found["monai"], "MONAI", 0.05),
    ):
        rows.append(compare(name, ours, peer, peer_name, goal=goal, unit="s a case"))
        rows.append(compare(f"{name}_memory", ours, peer, peer_name, goal=None, **PEAK_MIB))
    limit = [{"peak_mib": 1e9 / 2**20}]
    rows.append(compare("evaluation_case_limit", found["ours"][:1], limit, LIMIT, goal=1.0, **PEAK_MIB))
    return [{**row, "note": f"{row['note']}; {shape} voxels"} for row in rows]


def focusnet(size: str, measure: Measure) -> list[Row]:
    """Compare FocusNet with a SERes U-Net: a step of its last stage and of S-Net, a case; seconds, peak memory."""
    rows = []
    for task, ours, shared in FOCUSNET:
        given = {name: {"network": name, "size": size} for name in ("seres_unet", *ours)}
        sides = {name: (f"benchmarks.focusnet:{task}", one) for name, one in given.items()}
        found = alternate(sides, SIZES[size].rounds, measure)
        for name in ours:
            pair = (found[name], found["seres_unet"], f"SERes U-Net of the same width{shared}")
            rows.append(compare(f"{name}_{task}", *pair, goal=None, unit=f"s a {task}"))
            rows.append(compare(f"{name}_{task}_memory", *pair, goal=None, **PEAK_MIB))
    return rows


def coarse_to_fine(size: str, measure: Measure) -> list[Row]:
    """Compare each stage of coarse to fine with a DynUNet of its width: time a case, parameters, memory of a step."""
    found = [measure("benchmarks.coarse_to_fine:stages", {"size": size})]
    rows = []
    for stage, of in (("case", "seconds"), ("views", "seconds"), ("boxes", "seconds"), ("fine", "seconds")):
        keys = {"key": f"{stage}_{of}", "peer_key": "whole_seconds"}
        rows.append(
            compare(
                f"coarse_to_fine_{stage}", found, found, "DynUNet, sliding window", goal=None, unit="s a case", **keys
            )
        )
    for stage, of in (("views", "parameters"), ("fine", "parameters"), ("views", "mib"), ("fine", "mib")):
        keys, unit = {"key": f"{stage}_{of}", "peer_key": f"whole_{of}"}, "MiB kept in a step" if of == "mib" else of
        name = f"coarse_to_fine_{stage}_{'memory' if of == 'mib' else of}"
        rows.append(compare(name, found, found, "DynUNet", goal=None, unit=unit, **keys))
    return rows


def gpu(size: str, measure: Measure) -> list[Row]:
    """Run the rows of training, scan, planner and losses on an accelerator, with a network that keeps it busy."""
    big = "gpu" if size == "full" else size
    on_device = partial(measure, device="cuda")
    rows = [*training(big, on_device, "cuda"), *scan(big, on_device, "cuda"), *planner(big, on_device, "cuda")]
    return [*rows, *losses(size, on_device, "cuda")]


GROUPS = {
    "training": training,
    "scan": scan,
    "loading": loading,
    "imbalance": imbalance,
    "landscape": landscape,
    "planner": planner,
    "losses": losses,
    "evaluation": evaluation,
    "focusnet": focusnet,
    "coarse_to_fine": coarse_to_fine,
    "gpu": gpu,
}


def line(row: Row) -> str:
    """Return a row in words."""
    if row["ours"] is None:
        return f"{row['name']:32s} {row['note'].removeprefix('ours ')}"
    text = f"{row['name']:32s} {row['ours']:.4g} {row['unit']}"
    if row["ratio"] is not None:
        low, high = row["ratio_range"]
        met = "" if row["goal"] is None else f"goal {row['goal']}: {'met' if row['ratio'] <= row['goal'] else 'missed'}"
        text += f", {row['peer_name']} {row['peer']:.4g}, ratio {row['ratio']:.2g} ({low:.2g} to {high:.2g}), {met}"
    if "share_of_peak" in row:
        text += f"; {row['share_of_peak']:.0%} of {row['peak_operations_per_second'] / 1e9:.0f} GFLOP/s"
    return f"{text}; {row['note']}" if row["note"] else text


def main(arguments: Sequence[str] | None = None, measure: Measure = measure) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Time the costly steps beside their peers"
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)}; all by default")
    parser.add_argument("--size", choices=[name for name in SIZES if name != "gpu"], default="full")
    parser.add_argument("--out", type=Path, default=TARGET)
    given = parser.parse_args(arguments)
    if unknown := set(given.groups) - set(GROUPS):
        parser.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    print(f"torch {torch.__version__}; each side in a process of its own, {SIZES[given.size].rounds} rounds")
    for group in given.groups or GROUPS:
        rows = GROUPS[group](given.size, measure)
        for row in rows:
            print(line(row), flush=True)
        old = json.loads(given.out.read_text()) if given.out.exists() else []
        new = {row["name"] for row in rows}
        write_json(given.out, [*(row for row in old if row["name"] not in new), *rows])


if __name__ == "__main__":
    main()
