"""Which outlines went wrong and how, by hand-made masks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hnlib import chapters
from hnlib.errors import DataError
from hnlib.experiments.failures import describe_failure, worst_cases

TRUTH = np.zeros((20, 4, 4), bool)
TRUTH[8:12] = True  # 4 x 4 x 4 voxels: the ball of that volume has a radius of 2.48 voxels


def shifted(voxels: int) -> np.ndarray:
    return np.roll(TRUTH, voxels, axis=0)


def grown(first: int, last: int) -> np.ndarray:
    mask = np.zeros_like(TRUTH)
    mask[first:last] = True
    return mask


@pytest.mark.parametrize(
    ("prediction", "kind"),
    [
        (np.zeros_like(TRUTH), "missed"),
        (shifted(4), "elsewhere"),
        (grown(8, 15), "too large"),
        (grown(8, 10), "too small"),
        (shifted(2), "displaced"),
        (shifted(1), "boundary"),
        (TRUTH, "boundary"),
    ],
)
def test_the_kind_of_a_failure(prediction: np.ndarray, kind: str) -> None:
    assert describe_failure(TRUTH, prediction, (1, 1, 1))["kind"] == kind


def test_the_numbers_of_a_failure() -> None:
    """Two voxels along X of 3 mm off: half of the voxels in common."""
    told = describe_failure(TRUTH, shifted(2), (3, 1, 1))
    assert told["dsc"] == pytest.approx(0.5)
    assert told["volume_ratio"] == 1
    assert told["shift_mm"] == pytest.approx(6)
    assert describe_failure(TRUTH, np.zeros_like(TRUTH), (3, 1, 1))["shift_mm"] is None


FAILURES = pd.DataFrame(
    {
        "case": ["a", "b", "a", "b"],
        "organ": ["mandible", "mandible", "brainstem", "brainstem"],
        "dsc": [0.9, 0.5, 0.0, 0.0],
        "volume_ratio": [1.0, 2.0, 0.0, 1.0],
        "shift_mm": [1.0, 2.0, math.nan, 40.0],
        "kind": ["boundary", "too large", "missed", "elsewhere"],
        "experiment": "large_nnu_dice_ce",
        "seed": 0,
    }
)


def test_the_worst_case_of_each_organ() -> None:
    """The worst organ first; of equal cases the first by name."""
    worst = worst_cases(FAILURES)
    assert worst[["organ", "case"]].to_numpy().tolist() == [["brainstem", "a"], ["mandible", "b"]]


def test_kinds_are_counted_below_the_bound_only() -> None:
    table = chapters.failures.kinds_table(FAILURES, 0.7)
    assert table["outlines"].to_dict() == {"Mandible": 2, "Brainstem": 2}
    assert table.loc["Mandible"].to_dict() | {"too large": 1, "boundary": 0} == table.loc["Mandible"].to_dict()
    assert table.loc["Brainstem", ["missed", "elsewhere"]].tolist() == [1, 1]


def test_phrases_come_from_the_table() -> None:
    facts = chapters.failures.failure_facts(FAILURES, 0.7)
    assert facts["share"] == "3 of 4 outlines (75 %)"
    assert facts["organs"] == "Brainstem (2) and Mandible (1)"
    assert chapters.failures.failure_facts(FAILURES, 0.0)["commonest"] == "none"


def test_a_missing_table_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"failures\.csv: cannot be read .*; run hnlib tables"):
        chapters.failures.load_failures(tmp_path)
