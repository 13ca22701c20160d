"""The chapter on what was found: which runs answer which idea, on made runs and on the published ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hnlib import chapters
from hnlib.chapters import found
from hnlib.chapters.found import IDEAS, Idea
from hnlib.experiments import load_experiment
from hnlib.stats import COLUMNS

PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "published"
TRIED = (
    Idea("patch", "One", "small for large", "small", "large"),
    Idea("lens", "One", "small for large", "small", "large", "phantom"),
    Idea("draw", "Two", "planned", "planned", "large"),
)


def runs(profile: str, values: dict[str, float], seeds: int) -> pd.DataFrame:
    """Test DSC of six patients, the same for each seed but for 0.001 a seed."""
    rows = [
        (
            profile,
            name,
            seed,
            "test",
            f"c{case}",
            "mandible",
            "dsc",
            value + 0.02 * case + 0.001 * seed * (name == "small"),
        )
        for name, value in values.items()
        for seed in range(seeds)
        for case in range(6)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """OpenKBP has the pair in two profiles, of one seed and of three; the phantom in none."""
    tables = {
        "real": pd.concat(
            [
                runs("laptop", {"small": 0.9, "large": 0.7, "planned": 0.8}, 1),
                runs("laptop-long", {"small": 0.6, "large": 0.7}, 3),
                runs("other", {"planned": 0.8}, 3),
            ]
        ),
        "drawn": runs("laptop", {"small": 0.9}, 1),
    }
    monkeypatch.setattr(found, "read_tables", lambda folder: {"metrics": tables[str(folder)]})
    return chapters.found.load_found({"openkbp": "real", "phantom": "drawn"}, TRIED).set_index("name")


def test_the_profile_with_most_seeds_answers(table: pd.DataFrame) -> None:
    """Three seeds say -0.099 on the mean, one seed of another profile +0.2."""
    assert table.loc["patch", "profile"] == "laptop-long"
    assert table.loc["patch", "value"] == pytest.approx(-0.099)
    assert table.loc["draw", "profile"] == "laptop"
    assert table.loc["draw", "value"] == pytest.approx(0.1)


def test_of_profiles_with_equal_seeds_the_one_of_most_steps_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = ({"small": value, "large": 0.7} for value in (0.5, 0.6))
    rows = pd.concat([runs("phantom", short, 2), runs("phantom-controlled", long, 2)])
    monkeypatch.setattr(found, "read_tables", lambda folder: {"metrics": rows})
    (row,) = chapters.found.load_found({"phantom": "drawn"}, TRIED[1:2]).to_dict("records")
    assert row["profile"] == "phantom-controlled"
    assert row["value"] == pytest.approx(-0.0995)


def test_an_idea_without_a_pair_of_runs_stays_and_says_so(table: pd.DataFrame) -> None:
    assert np.isnan(table.loc["lens", "value"])
    assert table.loc["lens", "question"] == "small for large (phantom)"


def test_a_data_set_without_tables_has_no_run(table: pd.DataFrame) -> None:
    alone = chapters.found.load_found({"openkbp": "real"}, TRIED).set_index("name")
    assert np.isnan(alone.loc["lens", "value"])
    assert alone.loc["patch", "value"] == table.loc["patch", "value"]


def test_help_and_harm_need_both_intervals(table: pd.DataFrame) -> None:
    """The one seed of the planned draw has no interval over seeds, so that it decides nothing."""
    facts = chapters.found.found_facts(table.reset_index())
    assert (facts["ideas"], facts["tried"], facts["open"]) == ("3", "2", "1")
    assert facts["harms"] == "small for large, -0.099"
    assert facts["helps"] == "none"
    assert facts["lens"] == "waits for runs"
    assert facts["patch"].startswith("-0.099 (over patients -0.099 to -0.099, over seeds -0.1")
    assert "not shown" not in facts["patch"]
    assert facts["draw"].endswith("one seed: not shown)")


def test_ideas_of_which_a_run_lost_an_organ_have_their_answer_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = runs("laptop", {"small": 0.6, "large": 0.6}, 3)
    rows.loc[(rows["experiment"] == "small") & (rows["seed"] == 0), "value"] = 0.0
    monkeypatch.setattr(found, "read_tables", lambda _: {"metrics": rows})
    row = chapters.found.lost_table({"openkbp": "real"}, TRIED).loc["small for large"]
    assert row["lost"] == "small, seed 0, Mandible in 6 cases"
    assert (row["all runs"], row["without"]) == ("-0.216", "+0.002")


def test_a_baseline_that_has_learnt_nothing_is_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = runs("laptop-long", {"small": 0.7, "large": 0.05}, 3)
    monkeypatch.setattr(found, "read_tables", lambda _: {"metrics": metrics})
    row = chapters.found.load_found({"openkbp": "real"}, TRIED[:1]).iloc[0]
    assert np.isnan(row["value"])
    assert row["lacking"] == "large that has learnt something"


def test_the_figure_of_the_readme_shows_the_published_runs() -> None:
    """Its file says which numbers it was drawn from; hnlib publish draws it anew."""
    table = chapters.found.load_found({name: PUBLISHED / name for name in ("openkbp", "phantom")})
    with Image.open(PUBLISHED / "found.png") as picture:
        assert json.loads(picture.text["Description"]) == chapters.found.found_facts(table)
    assert "results/published/found.png" in (PUBLISHED.parents[1] / "README.md").read_text()


def test_every_idea_names_experiments_and_is_read_from_what_is_published() -> None:
    for idea in IDEAS:
        load_experiment(idea.experiment)
        load_experiment(idea.baseline)
    table = chapters.found.load_found({name: PUBLISHED / name for name in ("openkbp", "phantom")})
    assert table["name"].is_unique
    assert (table["lacking"] == "").any()
