"""The chapter on the human reference: from published tables to series, verdicts and phrases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hnlib import chapters, plotting
from hnlib.errors import DataError
from hnlib.stats import COLUMNS, paired_non_inferiority

ROOT = Path(__file__).resolve().parents[1]
TCIA = ROOT / "results" / "published" / "tcia"


def network_rows(values: list[float], organ: str = "mandible", metric: str = "surface_dsc") -> pd.DataFrame:
    rows = [("p", "net", 0, "test", f"c{i}", organ, metric, value) for i, value in enumerate(values)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def people(values: list[float]) -> dict[str, pd.DataFrame]:
    rows = [("test", "openkbp", f"p{i}", "mandible", "surface_dsc", value) for i, value in enumerate(values)]
    return {"pairs": pd.DataFrame(rows, columns=["split", "grid", "case", "organ", "metric", "value"])}


def test_agreement_of_every_organ_with_its_interval() -> None:
    """Thirteen organs, no chiasm; the mandible's DSC is the published mean."""
    human, about = chapters.observers.load_observers(TCIA)
    table = chapters.observers.agreement_table(human)
    assert len(table) == 13
    assert "Optic chiasm" not in table.index
    mean = human["agreement"].query("grid == 'native' and metric == 'dsc' and organ == 'mandible'")["mean"].item()
    assert table.loc["Mandible", "DSC"].startswith(f"{mean:.3f}")
    assert table.loc["Submandibular R", "scans outlined by one"] == 4
    assert any("no optic chiasm" in note for note in about["notes"])


def test_published_tolerances_stand_beside_the_derived_ones() -> None:
    human, _ = chapters.observers.load_observers(TCIA)
    table = chapters.observers.tolerance_table(human)
    assert table.loc["Spinal cord", "verdict"] == "too large"
    assert table.loc["Spinal cord", "published (mm)"] == "2.93"
    series = chapters.observers.tolerance_series(human)
    published = series[series["series"] == "published"]
    assert published[["low", "high"]].isna().all(axis=None)
    assert len(series) == 3 * len(table)


def test_networks_beside_people_are_named_with_their_data() -> None:
    """Only organs that both sides have are drawn; a phantom is called one."""
    human, _ = chapters.observers.load_observers(TCIA)
    rows = pd.concat([network_rows([0.8, 0.9]), network_rows([0.8, 0.9], "larynx")])
    for dataset, word in (("phantom", "phantom"), ("openkbp", "OpenKBP")):
        series = chapters.observers.context_series(human, rows, {"dataset": dataset})
        assert set(series["organ"]) == {"mandible"}
        assert f"net ({word})" in set(series["series"])
    alone = chapters.observers.context_series(human, network_rows([0.8, 0.9], "larynx"), {"dataset": "phantom"})
    assert "larynx" not in set(alone["organ"])
    assert len(set(alone["organ"])) == 13


@pytest.mark.parametrize(
    ("network", "answer"), [([0.90, 0.91, 0.92], "yes"), ([0.70, 0.71, 0.72], "no"), ([0.5, 0.91, 1.0], "undecided")]
)
def test_within_five_points_needs_the_whole_interval(network: list[float], answer: str) -> None:
    table = chapters.observers.context_table(people([0.90, 0.91, 0.92]), network_rows(network), "net")
    assert table.loc["Mandible", "within 0.05"] == answer
    assert table.loc["Mandible", "observers"] == "0.910\u00a0(n\u00a0=\u00a03)"


def test_phrases_are_counted_from_the_tables() -> None:
    human, _ = chapters.observers.load_observers(TCIA)
    found = chapters.observers.observer_facts(human, pd.DataFrame())
    verdicts = human["tolerances"]["verdict"]
    assert found["supported"] == str((verdicts == "supported").sum())
    assert found["near"] == "–"
    assert "Spinal cord (too large)" in found["not-supported"]
    assert found["paper-range"] == "2.0"  # printed: 0.92 to 0.94


def test_missing_tables_and_splits_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run python scripts/human_reference\.py"):
        chapters.observers.load_observers(tmp_path)
    with pytest.raises(DataError, match="no row of split 'train'"):
        chapters.observers.load_observers(TCIA, "train")


def test_intervals_are_drawn_side_by_side() -> None:
    """Two series of one organ: markers at their values, left and right of the organ's row; without limits no line."""
    rows = [("mandible", "one", "dsc", 0.9, 0.8, 1.0), ("mandible", "two", "dsc", 0.7, float("nan"), float("nan"))]
    table = pd.DataFrame(rows, columns=["organ", "series", "quantity", "value", "low", "high"])
    figure = plotting.intervals_by_organ(table, {"dsc": "DSC"}, zero=True)
    lines = [line for line in figure.axes[0].lines if line.get_marker() not in ("", "None")]
    assert [line.get_xdata()[0] for line in lines] == [0.9, 0.7]
    first, second = (line.get_ydata()[0] for line in lines)
    assert first < 0 < second
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]
    with pytest.raises(ValueError, match="no row"):
        plotting.intervals_by_organ(table, {"iou": "IoU"})


def test_a_third_observer_is_held_against_the_second() -> None:
    """Three simulated observers of the same heads, two metrics each; what is not the same patients is refused."""
    rows = chapters.observers.simulated_observers(cases=2)
    assert rows.groupby("experiment")["case"].nunique().tolist() == [2, 2]
    assert set(rows["metric"]) == {"dsc", "surface_dsc"}
    assert rows["value"].between(0, 1).all()
    assert not np.allclose(*(part["value"].to_numpy() for _, part in rows.groupby("experiment")))
    table = chapters.observers.non_inferiority_table(rows)
    assert table["patients"].tolist() == [2, 2]
    with pytest.raises(ValueError, match="no test rows of dsc of 'nobody'"):
        chapters.observers.non_inferiority_table(rows, "nobody")


def test_non_inferiority_by_hand() -> None:
    """Worse by 0.01 in both organs of every patient, then by 0.04: margin 0.03. Of distances more is worse."""
    base = [("p", "second", 0, "test", f"c{k}", organ, "dsc", 0.8 + 0.01 * k) for k in range(5) for organ in "ab"]
    table = pd.DataFrame(base, columns=list(COLUMNS))
    wiggle = 0.001 * table["case"].str[1:].astype(int)
    for loss, shown in ((0.01, True), (0.04, False)):
        both = pd.concat([table, table.assign(experiment="net", value=table["value"] - loss - wiggle)])
        found = paired_non_inferiority(both, "net", "second", margin=0.03)
        assert found.difference == pytest.approx(-loss - 0.002)
        assert (found.shown, found.patients) == (shown, 5)
    far = pd.concat([table, table.assign(experiment="net", value=table["value"] + 1 + wiggle)]).assign(metric="hd95_mm")
    assert not paired_non_inferiority(far, "net", "second", margin=0.5, metric="hd95_mm").shown
