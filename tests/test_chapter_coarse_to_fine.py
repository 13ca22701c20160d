"""Chapter 21: its tables with runs, with some of them, and with none; what the paper prints."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
import pytest

mpl.use("agg")

from hnlib import chapters, plotting
from hnlib.stats import COLUMNS


def rows(values: dict[str, float], metric: str = "dsc", cases: int = 8) -> pd.DataFrame:
    """Return test rows of two seeds: experiment to the value of its brainstem, a little more in every next case."""
    found = [
        ("p", name, seed, "test", f"c{k}", "brainstem", metric, value + 0.001 * k + 0.002 * seed * k % 0.003)
        for name, value in values.items()
        for seed in (0, 1)
        for k in range(cases)
    ]
    return pd.DataFrame(found, columns=list(COLUMNS))


NONE = rows({}).reset_index(drop=True)


def test_before_any_run_every_table_says_so() -> None:
    assert chapters.coarse_to_fine.parts_table(NONE).to_numpy().tolist() == [["not yet run"]]
    assert set(chapters.coarse_to_fine.questions_table(NONE)["difference"]) == {"not yet run"}
    assert chapters.coarse_to_fine.box_table(NONE).to_numpy().tolist() == [["not yet run"]]
    facts = chapters.coarse_to_fine.coarse_facts(NONE)
    assert facts["fusion"].endswith("is not yet run.")
    assert facts["winner"] == "Where two stages beat one waits for runs."


def test_some_runs_leave_dashes_for_the_others() -> None:
    """Fusion 0.1 above the axial view in every case; the fine stage waits."""
    metrics = rows({"coarse_axial": 0.6, "coarse_fused": 0.7})
    table = chapters.coarse_to_fine.parts_table(metrics)
    assert table.loc["Brainstem", "coarse, mean of three views"].startswith("0.70")
    assert table.loc["seeds", "coarse, axial view"] == "2"
    assert table.loc["Brainstem", "coarse to fine"] == "\N{EN DASH}"
    asked = chapters.coarse_to_fine.questions_table(metrics)
    assert asked.loc[("coarse, mean of three views", "coarse, axial view"), ["difference", "cases"]].tolist() == [
        "+0.100",
        8,
    ]
    assert asked.loc[("coarse to fine", "two 3D stages"), "difference"] == "not yet run"
    assert "+0.100 in mean test DSC (2 seeds, 8 cases)" in chapters.coarse_to_fine.coarse_facts(metrics)["fusion"]


def test_boxes_are_counted_by_organ() -> None:
    """16 boxes, of which those of all but the last case cut something; none fell back."""
    recall = rows({"coarse_to_fine": 0.993}, "box_recall")
    table = chapters.coarse_to_fine.box_table(pd.concat([recall.assign(value=recall["value"].clip(upper=0.999)), rows({"coarse_to_fine": 0.0}, "box_fallback").assign(value=0.0)]))  # fmt: skip  # noqa: E501
    assert table.loc[("Brainstem", "coarse to fine"), ["cut", "fall backs"]].tolist() == ["16 of 16", 0]


def test_the_papers_means_are_those_of_its_rows() -> None:
    """Nine organs: 72.6 of the axial view, 72.9 fused, 80.6 at the end; HD95 2.39 mm."""
    views, rivals = chapters.coarse_to_fine.paper_view_table(), chapters.coarse_to_fine.paper_rival_table()
    assert views.loc["mean of the nine", ["top", "fusion"]].tolist() == [72.6, 72.9]
    assert rivals.loc["mean of the nine", ("II, DSC (%)", "Pu et al.")] == 80.6
    assert rivals.loc["mean of the nine", ("III, HD95 (mm)", "Pu et al.")] == 2.39


def test_the_phantom_passes_all_stages() -> None:
    """Six panels; the boxes hold the organs and the fine masks are nearer to the truth than the views."""
    stages = chapters.coarse_to_fine.phantom_stages((6.0, 6.0, 6.0))
    assert list(stages.probabilities)[-3:] == ["mean of the views", "boxes", "fine masks"]
    assert float(chapters.coarse_to_fine.box_facts(stages)["least-recall"]) > 0.9
    wrong = {name: (one.argmax(axis=0) != stages.labels).sum() for name, one in stages.probabilities.items()}
    assert wrong["fine masks"] < min(wrong["axial view"], wrong["mean of the views"])
    figure = plotting.stage_panels(**chapters.coarse_to_fine.only(stages))
    assert [ax.get_xlabel() for ax in figure.axes] == list(stages.probabilities)
    with pytest.raises(ValueError, match="bring them to one grid"):
        plotting.stage_panels(**{**chapters.coarse_to_fine.only(stages), "probabilities": {}})
