"""Tables that are wide in their file come back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hnlib.errors import DataError
from hnlib.files import read_table, write_table


def long_table() -> pd.DataFrame:
    """A missed organ has no distance (NaN), another no row of it at all; a case whose name is a number stays text."""
    rows = [
        ("a", 0, "c1", "dsc", 0.81234567),
        ("a", 0, "c1", "hd95_mm", 3.0),
        ("a", 0, "c2", "dsc", 0.0),
        ("a", 0, "c2", "hd95_mm", np.nan),
        ("b", 1, "c1", "dsc", 1.0),
    ]
    return pd.DataFrame(rows, columns=["experiment", "seed", "case", "metric", "value"])


def test_a_wide_file_comes_back_long(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", long_table(), wide="metric")
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "experiment,seed,case,metric:dsc,metric:hd95_mm",
        "a,0,c1,0.812346,3",
        "a,0,c2,0,nan",
        "b,1,c1,1,",
    ]
    again = read_table(tmp_path / "t.csv", "")
    pd.testing.assert_frame_equal(again, long_table().assign(value=[0.812346, 3, 0, np.nan, 1]))


def test_names_of_columns_that_are_numbers_come_back_as_numbers(tmp_path: Path) -> None:
    """Rows of quantiles that are read again stand beside new ones; as text they would be other quantiles."""
    rows = pd.DataFrame({"organ": ["a", "a"], "quantile": [0.005, 0.5], "value": [0.1, 0.2]})
    write_table(tmp_path / "t.csv", rows, wide="quantile")
    again = read_table(tmp_path / "t.csv", "")
    pd.testing.assert_frame_equal(again, rows)
    write_table(tmp_path / "t.csv", pd.concat([again, rows.assign(organ="b")]), wide="quantile")
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == "organ,quantile:0.005,quantile:0.5"


def test_a_table_that_is_not_wide_is_read_as_it_is(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", long_table())
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 6
    assert read_table(tmp_path / "t.csv", "")["value"].isna().sum() == 1


def test_a_damaged_table_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("case,metric:dsc\na,much\n")
    with pytest.raises(DataError, match=r"t\.csv: cannot be read as a table .*; make it again"):
        read_table(tmp_path / "t.csv", "make it again")
    with pytest.raises(DataError, match="make it again"):
        read_table(tmp_path / "none.csv", "make it again")
