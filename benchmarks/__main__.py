"""Run the benchmarks, print a table, write results/published/bench.json."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.training_step import machine_rate, operations
from hnlib.experiments.run import hardware
from hnlib.files import write_json

ROUNDS, STEPS = 3, 5
TARGET = Path(__file__).resolve().parents[1] / "results" / "published" / "bench.json"


def seconds(side: str) -> tuple[float, str]:
    command = [sys.executable, "-m", "benchmarks.training_step", side, str(STEPS)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return found["seconds"], found["precision"]


def training_rows() -> list[dict[str, Any]]:
    """Time both sides in turn, so that a change of the machine's speed meets both; a ratio is the median of rounds."""
    rounds = [{side: seconds(side) for side in ("monai", "ours_fp32", "ours")} for _ in range(ROUNDS)]
    rows = []
    for name, side, goal in (("training_step", "ours", 0.5), ("training_step_fp32", "ours_fp32", 0.85)):
        ratios = [r[side][0] / r["monai"][0] for r in rounds]
        rows.append(
            {
                "name": name,
                "ours": round(median(r[side][0] for r in rounds), 4),
                "peer": round(median(r["monai"][0] for r in rounds), 4),
                "ratio": round(median(ratios), 3),
                "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
                "unit": "s a step",
                "goal": goal,
                "peer_name": "MONAI DynUNet + DiceCELoss, float32",
                "note": rounds[0][side][1],
                "hardware": hardware(),
                "date": date.today().isoformat(),
            }
        )
    return rows


def main() -> None:
    rows = training_rows()
    rate, work = machine_rate(), operations()
    for row in rows:
        met = "met" if row["ratio"] <= row["goal"] else "missed"
        share = work / row["ours"] / rate
        row["share_of_float32_peak"] = round(share, 3)
        print(
            f"{row['name']:20s} ours {row['ours']:.3f} s, peer {row['peer']:.3f} s ({row['peer_name']}), "
            f"ratio {row['ratio']:.2f} (rounds {row['ratio_range'][0]:.2f} to {row['ratio_range'][1]:.2f}), "
            f"goal {row['goal']}: {met}; {row['note']}, {share:.0%} of {rate / 1e9:.0f} GFLOP/s"
        )
    print(f"{hardware()}; torch {torch.__version__}; {work / 1e9:.0f} GFLOP a step")
    write_json(TARGET, rows)


if __name__ == "__main__":
    main()
