"""The status page: texts that many rows share stand once, and benchmarks say whether their goal was met."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "book" / "_ext"))
status = pytest.importorskip("status", reason="needs docutils, of the extra book")


def test_a_shared_text_stands_once_by_its_number() -> None:
    table = pd.DataFrame({"run": ["a", "b", "c", "d"], "why": ["new", "old", "new", ""]})
    shown, texts = status.numbered(table, "why", lambda row: row["why"])
    assert list(shown["why"]) == ["1", "2", "1", ""]
    assert texts == ["new", "old"]
    assert status.legend(["a < b"]) == '<ol class="hn-long"><li>a &lt; b</li></ol>'


def test_a_benchmark_says_whether_its_goal_was_met() -> None:
    common = {"unit": "s", "peer_name": "MONAI", "hardware": "2 cores", "date": "2026-01-02", "note": ""}
    rows = [
        {"name": "one_step", "ours": 0.5, "peer": 1.0, "ratio": 0.5, "goal": 0.85, **common},
        {"name": "other", "ours": 2.0, "peer": 1.0, "ratio": 2.0, "goal": 1.0, **common},
        {
            "name": "gpu",
            "ours": None,
            "peer": 1.0,
            "ratio": None,
            "goal": 1.0,
            **common,
            "note": "not measured: no GPU",
        },
        {"name": "free", "ours": 1.0, "peer": 2.0, "ratio": 0.5, "goal": None, **common},
    ]
    table, texts = status.benches(rows)
    assert list(table["what"]) == ["one step", "other", "gpu", "free"]
    assert list(table["met"]) == ["yes", "no", "", ""]
    assert table.loc[2, "ours"] == "\N{EN DASH}"
    assert list(table["measured"]) == ["1", "1", "2", "1"]
    assert "not measured: no GPU" in texts[1]


def test_numbers_have_three_digits_and_no_exponent_where_they_are_large() -> None:
    assert [status.quantity(value) for value in (0.03944, 1251.3, 14720484.6)] == ["0.0394", "1,250", "14,700,000"]


def test_a_stale_row_says_so_in_words() -> None:
    page = status.html(pd.DataFrame({"table": ["x", "y"], "stale": ["", "code on its path changed"]}))
    assert "stale: code on its path changed" in page
    assert "<td>no</td>" in page


def test_reason_and_versions_of_a_table_share_a_number() -> None:
    row = {"reason": "published", "versions": "python=3.11 numpy=2.4"}
    assert status.reason_and_versions(row) == "published; python 3.11 numpy 2.4"
    assert status.reason_and_versions(row | {"versions": ""}) == "published"
