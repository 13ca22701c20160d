"""Human reference: hand-worked agreements and tolerances, and the two observers of a small data set."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scanfiles import organ_mask, write_head

from hnlib.datasets import TCIA
from hnlib.datasets.tcia import OBSERVERS
from hnlib.observers import (
    HD95_DEFINITIONS,
    agreement,
    by_patient,
    mean_interval,
    measure_scan,
    other_definitions,
    swapped_axes,
    tolerances,
)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def small_tcia(tmp_path: Path) -> Path:
    """Two scans; the second observer's brainstem lies one slice higher, and he left a parotid out."""
    for case in ("0522c0001", "0522c0002"):
        for k, observer in enumerate(OBSERVERS):
            folder = tmp_path / "nrrds" / "test" / observer / case / "segmentations"
            write_head(folder / "Brainstem.nrrd", np.roll(organ_mask("brainstem"), k, axis=2))
            write_head(folder / "Parotid-Lt.nrrd", organ_mask("parotid_left"))
            if k == 0:
                write_head(folder / "Parotid-Rt.nrrd", organ_mask("parotid_right"))
    return tmp_path


def test_a_scan_is_measured_on_both_grids(small_tcia: Path) -> None:
    """Brainstem of 5 slices moved by one: DSC 0.8; the parotid that one observer left out is counted, not scored."""
    pairs, distances = measure_scan(TCIA(small_tcia), "0522c0001")
    wide = pairs[pairs["grid"] == "native"].pivot(index="organ", columns="metric", values="value")
    assert wide.loc["brainstem", "dsc"] == pytest.approx(0.8)
    assert wide.loc["parotid_left", "dsc"] == 1
    assert wide.loc["parotid_right", "outlined_by_one"] == 1
    assert np.isnan(wide.loc["parotid_right", "dsc"])
    assert set(HD95_DEFINITIONS) <= set(wide.columns)
    assert set(pairs["grid"]) == {"native", "openkbp"}
    assert distances[distances["organ"] == "parotid_left"]["distance_mm"].tolist() == [0.0]


def test_definitions_of_hd95_by_hand() -> None:
    """A voxel against a bar of four that holds it, 1 mm edges: there 0, back up to 3 mm from rim to rim."""
    one = np.zeros((4, 1, 1), bool)
    one[0] = True
    found = other_definitions(one, np.ones_like(one), (1.0, 2.0, 4.0), tolerance_mm=0.5)
    assert found["hd95_rim_max_mm"] == pytest.approx(np.percentile([0, 1, 2, 3], 95))
    assert found["hd95_rim_mean_mm"] == pytest.approx((0 + 2) / 2)  # place 0.95 * 4 - 1, rounded down, is the third
    assert found["hd95_unweighted_mm"] == 3.0
    assert found["hd95_swapped_mm"] == pytest.approx(12.0)  # the edge of Z, 4 mm, stands in for that of X


def test_two_scans_of_a_patient_count_once() -> None:
    rows = pd.DataFrame({"case": ["0522c0727a", "0522c0727b", "0522c0001"], "value": [0.2, 0.4, 0.9]})
    np.testing.assert_allclose(by_patient(rows), [0.9, 0.3])


def test_interval_of_a_mean_is_bca_where_that_exists() -> None:
    rng = np.random.default_rng(0)
    values = rng.beta(8, 2, 25)
    low, high, method = mean_interval(values, rng)
    assert method == "BCa"
    assert low < values.mean() < high
    assert mean_interval(np.array([0.9]), rng)[2] == "none"
    assert mean_interval(np.array([0.9, 0.9]), rng) == (0.9, 0.9, "percentile")


def test_interval_of_a_mean_covers_as_often_as_it_says() -> None:
    """24 patients, skewed values: the true mean is inside in 95 % of 300 samples, within what chance allows."""
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(300):
        low, high, _ = mean_interval(rng.beta(12, 2, 24), rng, resamples=499)
        inside += low <= 12 / 14 <= high
    assert 0.88 < inside / 300 < 0.985


def test_tolerance_is_the_distance_that_covers_95_percent_of_the_area() -> None:
    """Ten patients alike: 94 % of the area at 0, 2 % at 1 mm, 4 % at 3 mm; 1 mm covers 96 %."""
    rows = [(f"p{k}", "mandible", d, a) for k in range(10) for d, a in ((0.0, 94.0), (1.0, 2.0), (3.0, 4.0))]
    table = tolerances(
        pd.DataFrame(rows, columns=["case", "organ", "distance_mm", "area_mm2"]), rng=np.random.default_rng(0)
    )
    row = table.iloc[0]
    assert (row.p95_mm, row.low, row.high) == (1.0, 1.0, 1.0)
    assert row.published_mm == 1.01
    assert row.within == pytest.approx(0.96)
    assert row.verdict == "too large"
    assert row.patients == 10


@pytest.mark.parametrize(
    ("share", "at_mm", "verdict"),
    [(0.80, 2.5, "too small"), (0.95, 2.5, "supported"), (0.99, 2.5, "supported"), (0.99, 2.4, "too large")],
)
def test_published_tolerance_is_judged_by_the_share_it_covers(share: float, at_mm: float, verdict: str) -> None:
    """Thirty patients, about the stated share of area at a distance and the rest beyond 2.5 mm, the published value."""
    rng = np.random.default_rng(2)
    rows = []
    for k in range(30):
        inside = np.clip(share + 0.02 * rng.normal(), 0, 1)
        rows += [(f"p{k}", "brainstem", at_mm, inside), (f"p{k}", "brainstem", 2.51, 1 - inside)]
    table = tolerances(pd.DataFrame(rows, columns=["case", "organ", "distance_mm", "area_mm2"]), rng=rng)
    assert table.iloc[0].verdict == verdict


def test_swapped_axes_are_measured_on_the_same_pairs() -> None:
    """Two patients: surface DSC rises by 0.1 and 0.3, so by 0.2 on average, 0.3 at most."""
    rows = [
        ("native", case, "mandible", metric, value)
        for case, right, wrong in (("a", 0.5, 0.6), ("b", 0.5, 0.8))
        for metric, value in (
            ("surface_dsc", right),
            ("surface_dsc_swapped", wrong),
            ("hd95_mm", 2),
            ("hd95_swapped_mm", 2),
        )
    ]
    pairs = pd.DataFrame(rows, columns=["grid", "case", "organ", "metric", "value"])
    table = swapped_axes(pairs, rng=np.random.default_rng(0)).set_index("metric")
    assert table.loc["surface_dsc", "difference"] == pytest.approx(0.2)
    assert table.loc["surface_dsc", "largest"] == pytest.approx(0.3)
    assert table.loc["hd95_mm", "difference"] == 0


def test_agreement_counts_scans_and_patients() -> None:
    rows = [
        ("native", case, "mandible", "dsc", v) for case, v in (("p1a", 0.9), ("p1b", 0.7), ("p2", 0.6), ("p3", np.nan))
    ]
    table = agreement(
        pd.DataFrame(rows, columns=["grid", "case", "organ", "metric", "value"]), rng=np.random.default_rng(0)
    )
    assert table.iloc[0][["mean", "patients", "scans"]].tolist() == pytest.approx([0.7, 2, 4])


@pytest.mark.slow
def test_the_script_writes_tables_and_says_what_they_are(small_tcia: Path, tmp_path: Path) -> None:
    """Run on the small data set, twice: the second run finds the first one's scans."""
    spec = importlib.util.spec_from_file_location("human_reference", ROOT / "scripts" / "human_reference.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules["human_reference"] = script  # so that a worker process finds the function by its module
    spec.loader.exec_module(script)
    out, cache = tmp_path / "out", tmp_path / "cache"
    cache.mkdir()
    found = [script.measure((small_tcia, case, cache)) for case in ("0522c0001", "0522c0002")]
    assert len(list(cache.glob("*.parquet"))) == 4
    pairs, distances = (pd.concat(parts).assign(split="test") for parts in zip(*found, strict=True))
    script.write_tables(pairs, distances, out, seed=0)
    names = {"agreement", "hd95_definitions", "pairs", "swapped_axes", "tolerances"}
    assert {path.stem for path in out.glob("*.csv")} == names
    text = json.dumps(script.about(TCIA(small_tcia), pairs, 0))
    assert "CC BY 4.0" in text
    assert "chiasm" in text


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:monai")
def test_the_definition_named_after_monai_is_monais() -> None:
    import torch
    from monai.metrics import compute_hausdorff_distance

    rng = np.random.default_rng(4)
    one = np.linalg.norm(np.indices((24, 20, 14)) - np.reshape((11, 9, 7), (3, 1, 1, 1)), axis=0) < 6
    two = np.roll(one, 2, axis=0) & (rng.random(one.shape) < 0.95)
    spacing = (0.98, 1.1, 2.5)
    maps = [torch.as_tensor(np.stack([~mask, mask]))[None].float() for mask in (one, two)]
    theirs = float(compute_hausdorff_distance(*maps, percentile=95, spacing=spacing))
    assert other_definitions(one, two, spacing, 1.0)["hd95_rim_max_mm"] == pytest.approx(theirs, rel=1e-6)
