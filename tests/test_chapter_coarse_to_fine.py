"""Chapter 17: its tables with runs, with some of them, and with none; what the paper prints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hnlib import chapters, plotting
from hnlib.errors import DataError
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
    assert facts["hybrid"].endswith("is not yet run.")
    assert facts["verdict"].endswith("have not both been run yet.")
    assert facts["winner"] == "Where two stages beat one waits for runs."
    assert facts["parts"].endswith("wait for runs.")
    assert chapters.coarse_to_fine.tiny_phrase(NONE).endswith("waits for runs on the phantom.")


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
    assert chapters.coarse_to_fine.coarse_facts(metrics)["verdict"].endswith("have not both been run yet.")


def test_the_hybrid_is_told_with_both_intervals_and_its_sample() -> None:
    """0.1 above the 3D network in every case."""
    metrics = rows({"small_ca_dice_ce": 0.6, "hybrid_ca_dice_ce": 0.7})
    said = chapters.coarse_to_fine.coarse_facts(metrics)["hybrid"]
    assert (
        "+0.100 in mean test DSC (over patients +0.100 to +0.100, over seeds +0.097 to +0.103; 2 seeds, 8 cases)"
        in said
    )


@pytest.mark.parametrize(("system", "word"), [(0.9, "Yes: "), (0.7, "No: ")])
def test_the_verdict_is_that_of_both_intervals(system: float, word: str) -> None:
    """Against one network at 0.8; the views stand at 0.5 and 0.6, their learned fusion at 0.65."""
    values = {"coarse_axial": 0.5, "coarse_fused": 0.6, "coarse_fused_weights": 0.65, "rival_dynunet": 0.8}
    facts = chapters.coarse_to_fine.coarse_facts(rows({**values, "coarse_to_fine": system}))
    assert facts["verdict"].startswith(word)
    said = facts["parts"]
    assert "the plain mean of the views changes the axial view by +0.100 (over patients +0.100 to +0.100, over" in said
    assert f"the networks of the organs the fused views by {system - 0.65:+.3f} (over patients " in said


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


def test_facts_of_the_picture_by_hand(tmp_path: Path) -> None:
    """Boxes of 10 x 10 x 10 and 5 x 4 x 5 voxels in 20 x 20 x 25: a tenth and a hundredth of the volume."""
    (tmp_path / "pictures").mkdir()
    facts = {"grid": [20, 20, 25], "spacing_mm": [3.42, 3.42, 3.42]}
    facts |= {"box_voxels": {"mandible": [10, 10, 10], "lens_left": [5, 4, 5]}}
    (tmp_path / "pictures" / "stages.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="hnlib stages"):
        chapters.coarse_to_fine.stage_facts(tmp_path)
    (tmp_path / "pictures" / "stages.png").touch()
    found = chapters.coarse_to_fine.stage_facts(tmp_path)
    assert found == {"organs": "2", "smallest": "1 %", "largest": "10 %", "grid": "20 × 20 × 25", "edge": "3.4 mm"}


def test_a_figure_without_stages_is_refused() -> None:
    nothing = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(ValueError, match="probabilities are empty"):
        plotting.stage_panels(nothing, nothing, {}, {}, spacing_mm=(1, 1, 1), organs=(), index=0)


def test_tiny_organs_stand_apart_from_the_others() -> None:
    """Two stages mend the chiasm by 0.3 and the brainstem by 0.1; the plain network waits."""
    values = {"coarse_axial": 0.6, "coarse_to_fine": 0.7}
    large = rows(values)
    tiny = rows({"coarse_axial": 0.1, "coarse_to_fine": 0.4}).assign(organ="optic_chiasm")
    table = chapters.coarse_to_fine.tiny_table(pd.concat([large, tiny]))
    assert list(table.index) == [
        ("tiny organs", "Optic chiasm"),
        ("tiny organs", "mean over organs"),
        ("the others", "Brainstem"),
        ("the others", "mean over organs"),
        ("", "seeds"),
    ]
    assert table["coarse to fine"].iloc[0].startswith("0.40")
    assert table["coarse, axial view"].tolist()[-1] == "2"
    fused = rows({"coarse_fused_weights": 0.2}).assign(organ="optic_chiasm")
    said = chapters.coarse_to_fine.tiny_phrase(pd.concat([large, tiny, fused]))
    assert "it has +0.200 against the fused views (over patients +0.200 to +0.200" in said
    assert said.endswith("2 seeds).")
    assert "3D network" not in said
    asked = chapters.coarse_to_fine.tiny_questions(pd.concat([large, tiny]))["difference"]
    assert asked.tolist() == ["+0.300", "not yet run", "not yet run"]
    assert chapters.coarse_to_fine.tiny_table(NONE).to_numpy().tolist() == [["not yet run"]]
