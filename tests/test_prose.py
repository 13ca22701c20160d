"""Results that the prose states by hand, in words or numbers, are those of the published tables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hnlib import chapters
from hnlib.chapters.page import beyond_both
from hnlib.chapters.questions import apart
from hnlib.datasets.phantom_anatomy import statistics
from hnlib.experiments import load_experiment, load_profile
from hnlib.files import read_table
from hnlib.imbalance import PAPER_CLASSES, PAPER_RATIOS
from hnlib.model_file import load_model, released_model
from hnlib.stats import ALL_ORGANS

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "results" / "published"


@pytest.mark.parametrize("page", ["README.md", "book/limits.md", "notebooks/00_found.ipynb"])
def test_how_much_the_five_organs_differ_in_size(page: str) -> None:
    table = read_table(PUBLISHED / "openkbp" / "dataset.csv", "publish the study")
    volumes = table.groupby("organ")["volume_ml"].median()
    (stated,) = re.findall(
        r"five\s+organs[^.]*? differ ([\d.]+)-fold\s+in\s+median\s+volume", (ROOT / page).read_text()
    )
    assert stated == f"{volumes.max() / volumes.min():.1f}"


@pytest.mark.parametrize("page", ["README.md", "book/limits.md"])
def test_how_much_the_seven_organs_differ_in_size(page: str) -> None:
    """By the median count of voxels, over every patient measured in the study of patches and draws."""
    table = read_table(PUBLISHED / "openkbp" / "confidence.csv", "publish the study")
    drawn = table[table["profile"] == "laptop-draws"].drop_duplicates(["case", "organ"])
    voxels = drawn.groupby("organ")["voxels"].median()
    assert len(voxels) == 7
    (stated,) = re.findall(r"about\s+(\d+)-fold", (ROOT / page).read_text())
    assert stated == f"{voxels.max() / voxels.min():.0f}"


def test_how_much_the_organs_of_the_paper_differ_in_size() -> None:
    shares = dict(zip(PAPER_CLASSES, PAPER_RATIOS["full"], strict=True))
    del shares["background"]
    (stated,) = re.findall(r"the\s+paper's\s+(\d+)-fold", (ROOT / "README.md").read_text())
    assert stated == f"{max(shares.values()) / min(shares.values()):.0f}"


def test_the_optic_nerves_of_the_phantom_do_not_lose_by_the_planned_draw() -> None:
    """Chapter 7 says so, against its own reading."""
    study = chapters.prediction.load_draws(PUBLISHED / "phantom", "phantom-draws")
    differences = chapters.prediction.choices_by_organ(study)["difference"].astype(float)
    assert differences["Optic nerve L"] > 0
    assert differences["Optic nerve R"] > 0


def test_fitted_weights_of_views_gained_nothing() -> None:
    """Chapter 17 takes it away: no gain beyond patients over the plain mean."""
    metrics = chapters.coarse_to_fine.coarse_runs(PUBLISHED / "openkbp", "laptop-coarse")["metrics"]
    found = apart(metrics[metrics["split"] == "test"], "coarse_fused_weights", "coarse_fused")
    assert found["low"] <= 0


def test_what_is_left_of_the_patch_at_equal_voxels() -> None:
    """README: the gap of the short runs, and what is left of it with four times as many small patches a step."""
    front = " ".join((ROOT / "README.md").read_text().split())
    metrics = read_table(PUBLISHED / "openkbp" / "metrics.csv", "publish the study").query("profile == 'laptop'")
    metrics = metrics[metrics["split"] == "test"]
    whole, left = (apart(metrics, name, "large_nnu_dice_ce") for name in ("small_nnu_dice_ce", "small_batch8"))
    stated = re.search(r"narrower networks the gap is ([\d.]+), and ([\d.]+) where", front)
    assert stated is not None
    assert stated.groups() == (f"{-whole['value']:.3f}", f"{-left['value']:.3f}")
    assert beyond_both(whole)
    assert not beyond_both(left)
    assert (
        load_experiment("small_batch8").changes["training"]["batch_size"]
        == 4 * load_profile("laptop").training.batch_size
    )


def test_which_organs_some_of_the_phantoms_patients_lack() -> None:
    """Chapter 2: the submandibular glands alone."""
    table = statistics()
    known = dict(zip(table["variables"], table["known"], strict=True))
    lacking = {name.partition(".")[0] for name, count in known.items() if count < table["cases"]}
    assert lacking == {"submandibular_left", "submandibular_right"}


@pytest.mark.parametrize("data", ["openkbp", "phantom"])
def test_which_measures_order_patches_and_draws(data: str) -> None:
    """README: on OpenKBP an organ's share of the foreground alone, on the phantom none."""
    profile = {"openkbp": "laptop-draws", "phantom": "phantom-draws"}[data]
    found = chapters.prediction.correlations(chapters.prediction.load_draws(PUBLISHED / data, profile))
    means = found[found["organ"] == ALL_ORGANS].set_index("measure")
    shown = means[(means["p_holm"] < 0.05) & (means["low"] > 0)]
    assert list(shown.index) == (["own_share"] if data == "openkbp" else [])


def test_how_many_test_patients_have_the_organs_of_the_released_model() -> None:
    """The model card, of the same split as the study of patches and draws."""
    table = read_table(PUBLISHED / "openkbp" / "metrics.csv", "publish the study")
    rows = table.query("profile == 'laptop-draws' and split == 'test' and metric == 'dsc'")
    patients = rows.groupby("organ")["case"].nunique()
    card = " ".join((ROOT / "book" / "model.md").read_text().split())
    (found,) = re.findall(
        r"of the (\d+), the oesophagus is outlined in (\d+) and the larynx in (\d+), the others", card
    )
    others = patients.drop(["oesophagus", "larynx"])
    assert found == tuple(str(n) for n in (rows["case"].nunique(), patients["oesophagus"], patients["larynx"]))
    assert (others == rows["case"].nunique()).all()
    assert load_model(released_model()).provenance["test"]["cases"] == rows["case"].nunique()
