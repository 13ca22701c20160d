"""Tables as the papers print them: whole, and their averages are the means of their rows."""

from __future__ import annotations

import numpy as np
import pytest

from hnlib.organs import ORGANS
from hnlib.stats import (
    PAPER_NEAREST,
    PRINTED,
    paper_table1,
    printed_table,
)


def test_table1_of_tappeiner_2022_is_complete():
    """Four configurations, seven organs and the average, three metrics; names of the vocabulary."""
    table = paper_table1()
    assert len(table) == 4 * 8 * 3
    assert set(table["organ"]) - {"average"} < set(ORGANS)
    assert set(table["metric"]) == set(PAPER_NEAREST)
    assert not table.duplicated(["configuration", "organ", "metric"]).any()
    assert not table.isna().any(axis=None)


def test_printed_averages_of_table1_are_the_means_of_the_seven_organs():
    """Tappeiner 2022, Table 1: all 12 printed averages within half a unit of their second digit."""
    table = paper_table1()
    printed = table[table["organ"] == "average"].set_index(["configuration", "metric"])["mean"]
    computed = table[table["organ"] != "average"].groupby(["configuration", "metric"])["mean"].mean()
    assert len(printed) == 12
    assert (computed - printed).abs().max() <= 0.005 + 1e-9
    assert computed["large_nnu_dice_ce", "dsc"] == pytest.approx(0.7714, abs=5e-5)
    assert computed["large_ca_dice_ce", "hd95_plastimatch_mm"] == pytest.approx(12.819, abs=5e-4)
    assert computed["small_ca_dice_ce", "surface_dsc_axes_swapped"] == pytest.approx(0.9414, abs=5e-5)


def test_printed_sds_of_table1_pool_cases_and_organs():
    """Tappeiner 2022, Table 1: the "+-" of an average row is the SD of 15 x 7 values, not an uncertainty."""
    table = paper_table1()
    for (configuration, metric), group in table.groupby(["configuration", "metric"]):
        organs = group[group["organ"] != "average"]
        total = (14 * organs["sd"] ** 2).sum() + 15 * ((organs["mean"] - organs["mean"].mean()) ** 2).sum()
        printed = group.loc[group["organ"] == "average", "sd"].item()
        assert np.sqrt(total / 104) == pytest.approx(printed, abs=0.012), (configuration, metric)


@pytest.mark.parametrize("paper", PRINTED)
def test_printed_tables_are_whole(paper):
    """No value twice, none lacking, none out of range."""
    table = printed_table(paper)
    assert not table.duplicated(["table", "method", "organ", "metric"]).any()
    assert table["mean"].gt(0).all()
    shares = table[table["metric"].str.endswith("_percent")]
    assert shares["mean"].lt(100).all()


@pytest.mark.parametrize(
    ("paper", "table", "unit"), [("gao2019", "1", 0.1), ("gao2019", "3", 0.1), ("hosseini2024", "1", 0.01)]
)
def test_printed_averages_are_the_means_of_their_rows(paper, table, unit):
    """All but one: the atlas row of Gao 2019, Table 1, prints 62.3 where its organs average 60.1."""
    rows = printed_table(paper).query("table == @table and metric == 'dsc_percent'")
    printed = rows[rows["organ"] == "average"].set_index("method")["mean"]
    computed = rows[rows["organ"] != "average"].groupby("method")["mean"].mean()
    gap = (computed - printed).dropna().abs()
    if "atlas" in gap:
        assert gap.pop("atlas") == pytest.approx(2.167, abs=5e-4)
    assert gap.max() <= unit
