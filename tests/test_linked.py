"""Points of patients that are linked over organs: what the page holds, before a browser runs it."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hnlib import chapters
from hnlib.plotting import linked_points, organ_points

PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "published"


def points() -> pd.DataFrame:
    """Two patients, two organs; the second patient lacks the mandible, and has a picture of its brainstem."""
    rows = [
        ("brainstem", "a", 0.9, "a: 0.9", ""),
        ("brainstem", "b", 0.2, "b: 0.2", "worst-brainstem"),
        ("mandible", "a", 0.8, "a: 0.8", ""),
        ("mandible", "b", np.nan, "b: none", ""),
    ]
    return pd.DataFrame(rows, columns=["organ", "case", "value", "text", "picture"])


def facts(page: str) -> dict[str, list[list[Any]]]:
    """The patients as the script of the page has them: value, row and picture of each point."""
    found = re.search(r"facts = (\{.*?\}), last", page)
    assert found
    return dict(json.loads(found[1]))


def test_a_patient_is_known_by_its_points_in_all_organs() -> None:
    known = facts(linked_points(points(), "DSC", "one").data)
    assert [value for value, _, _ in known["a"]] == [0.9, 0.8]
    assert [round(row) for _, row, _ in known["a"]] == [0, 1]
    assert [(value, picture) for value, _, picture in known["b"]] == [(0.2, "worst-brainstem")]


def test_a_point_carries_its_patient_text_and_picture() -> None:
    page = linked_points(points(), "DSC", "one").data
    assert '"customdata":[["a",""],["b","worst-brainstem"]]' in page
    assert '"text":["a: 0.9","b: 0.2"]' in page
    assert 'id="one"' in page
    assert '<div role="group" aria-label="DSC, a point a case, by organ: Brainstem, Mandible.' in page


def test_paper_has_the_same_points() -> None:
    """One row an organ, its values on the axis across; a patient without a value has no point."""
    ax = organ_points(points(), "DSC")
    assert [line.get_xdata().tolist() for line in ax.lines] == [[0.9, 0.2], [0.8]]
    assert [np.round(line.get_ydata()).tolist() for line in ax.lines] == [[0, 0], [1]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Brainstem", "Mandible"]


def test_a_page_may_load_a_part_of_plotly_of_the_same_version() -> None:
    """Points need its plane figures, surfaces its solid ones; npm's parts are of the version that draws them here."""
    assert 'data-plotly="cartesian"' in linked_points(points(), "DSC", "one").data
    script = (files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")[:200]
    wanted = json.loads((PUBLISHED.parents[1] / "book" / "package.json").read_text())["dependencies"]
    for part in ("cartesian", "gl3d"):
        assert f"plotly.js v{wanted[f'plotly.js-{part}-dist-min']}\n" in script


def test_pictures_are_optional_and_points_are_not() -> None:
    table = points().drop(columns="picture")
    assert '"customdata":[["a",""],["b",""]]' in linked_points(table, "DSC", "one").data
    with pytest.raises(ValueError, match="no value is left"):
        linked_points(table.assign(value=np.nan), "DSC", "one")


def test_the_picture_of_a_point_is_on_its_page() -> None:
    """Of the published failures each organ's worst outline names a figure that the chapter shows."""
    tables = PUBLISHED / "phantom"
    table = chapters.failures.failure_points(chapters.failures.load_failures(tables))
    named = set(table["picture"]) - {""}
    assert len(named) == table["organ"].nunique()
    page = chapters.failures.worst_pictures(tables, 0.7).data
    assert all(f'<figure id="{name}">' in page for name in named)


def test_drift_points_are_test_cases_with_seeds_averaged() -> None:
    rows = [
        ("p", "e", seed, split, case, "mandible", measure, drift)
        for seed, drift in ((0, 0.1), (1, 0.3))
        for split, case in (("test", "a"), ("validation", "v"))
        for measure in ("soft_recall", "soft_precision")
    ]
    columns = ["profile", "experiment", "seed", "split", "case", "organ", "measure", "drift"]
    found = chapters.confidence.drift_points(pd.DataFrame(rows, columns=columns))
    assert found[["organ", "case"]].to_numpy().tolist() == [["mandible", "a"]]
    assert found["value"].item() == pytest.approx(0.2)
    assert found["text"].item() == "a, Mandible: drift +0.200"
