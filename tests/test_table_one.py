"""Table 1 in the paper's layout: what is printed, and what may be marked as best."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hnlib import plotting
from hnlib.errors import DataError
from hnlib.experiments.table_one import write_table_one
from hnlib.stats import ALL_ORGANS, COLUMNS, latex, paper_layout, signed_rank, table_one

#: Seeds that differ by little.
THREE = (-0.0005, 0.0, 0.0005)
PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "published"


def rows(
    values: dict[str, np.ndarray], organ: str = "mandible", metric: str = "dsc", shifts: tuple[float, ...] = (0.0,)
) -> pd.DataFrame:
    """Rows of every experiment's cases, once a seed, each seed shifted by so much."""
    found = [
        ("p", experiment, seed, "test", f"c{i}", organ, metric, value + shift)
        for experiment, series in values.items()
        for seed, shift in enumerate(shifts)
        for i, value in enumerate(series)
    ]
    return pd.DataFrame(found, columns=list(COLUMNS))


def test_mean_and_sd_over_cases_by_hand() -> None:
    """Two cases 0.8 and 0.9: mean 0.85, SD 0.0707; the last row is the mean over a patient's organs."""
    both = pd.concat([rows({"a": [0.8, 0.9]}), rows({"a": [0.6, np.nan]}, "brainstem")])
    table = table_one(both, measures=["dsc"]).set_index("organ")
    assert table.loc["mandible", "mean"] == pytest.approx(0.85)
    assert table.loc["mandible", "sd"] == pytest.approx(0.0707, abs=1e-4)
    assert (table.loc["brainstem", "cases"], table.loc["brainstem", "undefined"]) == (1, 1)
    assert table.loc[ALL_ORGANS, "mean"] == pytest.approx((0.7 + 0.9) / 2)
    assert not table["best"].any()  # one experiment is not the best of any


def test_best_is_marked_only_where_it_is_told_from_all_others() -> None:
    """Twelve patients: c gains on both, then only on one of them; then by less than seeds differ, or with one seed."""
    base = np.linspace(0.6, 0.8, 12)
    wiggle = np.where(np.arange(12) % 2, 0.01, -0.01) * np.linspace(1, 2, 12)
    gains = {"a": base, "b": base + wiggle, "c": base + 0.05 + 0.1 * wiggle}
    clear = table_one(rows(gains, shifts=THREE), measures=["dsc"])
    assert set(clear.loc[clear["best"], "experiment"]) == {"c"}
    close = {"a": base, "b": base + 0.05 + wiggle, "c": base + 0.051 - wiggle}
    assert not table_one(rows(close, shifts=THREE), measures=["dsc"])["best"].any()
    assert not table_one(rows(gains, shifts=(-0.1, 0.0, 0.1)), measures=["dsc"])["best"].any()
    assert not table_one(rows(gains), measures=["dsc"])["best"].any()


def test_the_best_is_that_of_the_common_cases() -> None:
    """a lacks 3 hard cases of 16 and is worse on all 13 others: its mean is the higher, and b is the best."""
    base = np.concatenate([np.full(3, 0.2), np.linspace(0.7, 0.9, 13)])
    lacking = base - np.linspace(0.05, 0.06, 16)
    lacking[:3] = np.nan
    table = table_one(rows({"a": lacking, "b": base}, shifts=THREE), measures=["dsc"])
    found = table[table["organ"] == "mandible"].set_index("experiment")
    assert found.loc["a", "mean"] > found.loc["b", "mean"]
    assert found["best"].to_dict() == {"a": False, "b": True}
    assert found["undefined"].to_dict() == {"a": 3, "b": 0}
    whole = table[table["organ"] == ALL_ORGANS].set_index("experiment")
    assert whole["undefined"].to_dict() == {"a": 3, "b": 0}
    assert whole["cases"].to_dict() == {"a": 13, "b": 13}
    assert whole["best"].to_dict() == {"a": False, "b": True}


def test_of_distances_the_least_is_the_best() -> None:
    base = np.linspace(2, 6, 12)
    values = {"a": base, "b": base + np.linspace(0.5, 1, 12)}
    table = table_one(rows(values, metric="hd95_mm", shifts=THREE), measures=["hd95_mm"])
    assert set(table.loc[table["best"], "experiment"]) == {"a"}


def test_marks_are_rare_where_nothing_differs() -> None:
    """By simulation: two alike, 14 patients, three seeds that differ by more than the patients do.

    A mark in at most 5 % of 80 tables, within chance. On patients alone most tables would have one.
    """
    rng, marked, alone = np.random.default_rng(0), 0, 0
    for _ in range(80):
        parts = []
        for name, seed in product("ab", range(3)):
            shift = rng.normal(0, 0.03)
            one = {organ: rng.normal(0.8 + shift, 0.02, 14) for organ in ("mandible",)}
            parts += [rows({name: values}, organ).assign(seed=seed) for organ, values in one.items()]
        table = pd.concat(parts)
        marked += table_one(table, measures=["dsc"])["best"].any()
        wide = table.groupby(["case", "experiment"])["value"].mean().unstack()
        alone += signed_rank(wide["a"] - wide["b"]).p < 0.05
    assert marked / 80 < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 80)
    assert alone > 40


def test_layout_has_a_row_for_each_organ_of_each_experiment() -> None:
    base = np.linspace(0.6, 0.8, 12)
    values = {"a_b": base, "c": base + np.linspace(0.05, 0.06, 12)}
    table = table_one(rows(values, shifts=THREE), measures=["dsc"])
    layout = paper_layout(table, mark=r"\textbf{{{}}}".format)
    assert list(layout.index) == [("a_b", "mandible"), ("a_b", ALL_ORGANS), ("c", "mandible"), ("c", ALL_ORGANS)]
    text = latex(layout, "Caption")
    for part in (r"\textbf{", r"$\pm$", r"\toprule"):
        assert part in text
    assert "±" not in text
    assert text.count("{") == text.count("}")


def test_the_study_is_written_as_csv_and_latex(tmp_path: Path) -> None:
    paths = write_table_one(PUBLISHED / "phantom", tmp_path)
    assert [path.name for path in paths] == ["table1.csv", "table1.tex"]
    table = pd.read_csv(paths[0])
    assert set(table["metric"]) == {"dsc", "hd95_mm", "surface_dsc"}
    text = paths[1].read_text()
    assert "Digital phantom, not a patient" in text
    assert "small, ca-Dice+CE" in text
    assert "_" not in text.split(r"\midrule")[1]
    with pytest.raises(DataError, match="no run of profile 'laptop'"):
        write_table_one(PUBLISHED / "phantom", tmp_path, "laptop")


def test_boxes_hold_the_quartiles() -> None:
    """Five cases 0.1 to 0.5: median 0.3, box from 0.2 to 0.4."""
    ax = plotting.results_by_organ(rows({"a": np.array([0.1, 0.2, 0.3, 0.4, 0.5])}), boxes=True)
    heights = [line.get_ydata() for line in ax.lines]
    assert any(len(y) == 5 and {round(float(v), 6) for v in y} == {0.2, 0.4} for y in heights)
    assert any(len(y) == 2 and np.allclose(y, 0.3) for y in heights)
