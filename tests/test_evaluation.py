"""`hnlib evaluate` and `hnlib compare`: folders of label maps from any tool, and what is wrong with them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest

from hnlib.cli import main
from hnlib.datasets.label_folders import open_folder, organ_name
from hnlib.errors import ConfigError, DataError
from hnlib.evaluation.measure import Rules, compare_folders, evaluate_folders
from hnlib.evaluation.page import comparison_page, evaluation_page
from hnlib.stats import COLUMNS

SPACING = (1.0, 1.0, 2.5)
NAMES = {"background": 0, "BrainStem": 1, "Parotid_L": 2, "Parotid_R": 3}


def write(path: Path, labels: np.ndarray, spacing=SPACING) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(labels.astype(np.uint8), np.diag([*spacing, 1.0]))
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    nibabel.save(image, path)


def head(shift: int = 0, values=(1, 2, 3)) -> np.ndarray:
    """Three cubes of 6 voxels a side, moved along X."""
    labels = np.zeros((24, 30, 12), np.uint8)
    for k, value in enumerate(values):
        labels[6 + shift : 12 + shift, 2 + 9 * k : 8 + 9 * k, 3:9] = value
    return labels


def nnunet(root: Path, names=NAMES) -> Path:
    """What nnU-Net leaves beside its predictions."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps({"labels": names, "file_ending": ".nii.gz"}))
    for name in ("plans.json", "predict_from_raw_data_args.json", "summary.json"):
        (root / name).write_text("{}")
    (root / "postprocessing.pkl").write_bytes(b"")
    return root


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two predictions and the reference of eight cases; the second prediction is farther off."""
    a, b, truth = nnunet(tmp_path / "a"), nnunet(tmp_path / "b"), tmp_path / "labelsTs"
    for k in range(8):
        write(truth / f"HaN_{k:03d}.nii.gz", head())
        write(a / f"HaN_{k:03d}.nii.gz", head(k % 2))
        write(b / f"HaN_{k:03d}.nii.gz", head(1 + k % 2))
    return a, b, truth


def test_nnunets_output_serves_as_it_is(folders) -> None:
    """Names from its dataset.json in the library's spelling; shift 0 gives DSC 1, shift 1 gives 5/6."""
    a, _, truth = folders
    found = evaluate_folders(a, truth)
    assert tuple(found.metrics.columns) == COLUMNS
    dsc = found.metrics[found.metrics.metric == "dsc"].pivot(index="case", columns="organ", values="value")
    assert list(dsc.columns) == ["brainstem", "parotid_left", "parotid_right"]
    np.testing.assert_allclose(dsc.loc["HaN_000"], 1)
    np.testing.assert_allclose(dsc.loc["HaN_001"], 5 / 6)
    assert found.notes == ()


def test_more_workers_and_progress_change_nothing(folders) -> None:
    a, _, truth = folders
    lines = []
    many = evaluate_folders(a, truth, Rules(workers=3), progress=lambda *line: lines.append(line))
    pd.testing.assert_frame_equal(many.metrics, evaluate_folders(a, truth, Rules(workers=1)).metrics)
    assert lines[-1] == ("a", 8, 8)
    assert len(lines) == 8


def test_each_side_has_its_own_numbering(folders) -> None:
    """Another tool numbers the organs otherwise and knows one more; names decide."""
    _, _, truth = folders
    nnunet(truth)
    other = truth.parent / "tool"
    (other).mkdir()
    (other / "hnlib.yaml").write_text("organs: {parotid_right: 1, thyroid: 4, brainstem: 7, parotid_left: 9}\n")
    for path in truth.glob("*.nii.gz"):
        labels = head(values=(7, 9, 1))
        labels[:3, :3, :3] = 4
        write(other / path.name, labels)
    metrics = evaluate_folders(other, truth).metrics
    assert (metrics[metrics.metric == "dsc"].value == 1).all()
    assert set(metrics.organ) == {"brainstem", "parotid_left", "parotid_right"}


def test_misses_and_inventions_are_counted(folders) -> None:
    """A missed organ has DSC 0; one that the reference lacks is noted, or with `absent` counted."""
    a, _, truth = folders
    write(truth / "HaN_000.nii.gz", head(values=(1, 2, 0)))
    write(a / "HaN_001.nii.gz", head(values=(1, 0, 3)))
    found = evaluate_folders(a, truth)
    rows = found.metrics.set_index(["case", "organ", "metric"]).value
    assert rows["HaN_001", "parotid_left", "missed"] == 1
    assert rows["HaN_001", "parotid_left", "dsc"] == 0
    assert np.isnan(rows["HaN_001", "parotid_left", "hd95_mm"])
    assert ("HaN_000", "parotid_right", "dsc") not in rows.index
    text = " ".join(found.notes)
    assert "HaN_000 (parotid_right)" in text
    assert "distances are not defined for 1 missed" in text
    counted = evaluate_folders(a, truth, Rules(absent=True)).metrics
    assert counted[counted.metric == "hallucinated"].value.tolist() == [1.0]
    page = evaluation_page(evaluate_folders(a, truth, Rules(absent=True)))
    assert "HaN_001: Parotid L missed" in page
    assert "HaN_000: Parotid R predicted though absent" in page


def test_pages_need_no_other_file(folders) -> None:
    a, b, truth = folders
    for page in (evaluation_page(evaluate_folders(a, truth)), comparison_page(compare_folders(a, b, truth))):
        assert page.startswith("<!doctype html>")
        assert not re.search(r"(src|href)=\"(?!data:)", page)
        assert page.count("<img") == 3
        assert "nan" not in re.sub(r"base64,[^\"]*", "", page).lower()


def test_comparison_is_paired_and_first_minus_second(folders) -> None:
    """a is a voxel nearer in every case: surface and volume agree better, by the same in every organ."""
    a, b, truth = folders
    found = compare_folders(a, b, truth)
    row = found.table[found.table.primary].iloc[0]
    # shifts 0, 1 against 1, 2 of six: DSC 1, 5/6 against 5/6, 4/6
    assert row.difference == pytest.approx(1 / 6)
    assert row.cases == 8
    assert row.rank_biserial == 1
    assert row.shown
    assert "which the test supports" in comparison_page(found)
    assert set(found.table.metric) == {"dsc", "surface_dsc", "hd95_mm"}


def test_equal_predictions_have_no_test_and_the_page_says_so(folders) -> None:
    """All differences are zero: Wilcoxon is not defined, which is said, not hidden."""
    a, _, truth = folders
    twin = a.parent / "twin"
    for path in a.iterdir():
        (twin / path.name).parent.mkdir(exist_ok=True)
        (twin / path.name).write_bytes(path.read_bytes())
    found = compare_folders(a, twin, truth)
    assert found.table.difference.eq(0).all()
    assert not found.table.shown.any()
    page = comparison_page(found)
    assert "not defined: all differences are zero" in page


def test_one_case_has_no_interval_and_the_page_says_so(tmp_path: Path) -> None:
    a, b = nnunet(tmp_path / "a"), nnunet(tmp_path / "b")
    for root, shift in ((a, 0), (b, 1), (tmp_path / "truth", 1)):
        write(root / "x.nii.gz", head(shift))
    page = evaluation_page(evaluate_folders(a, tmp_path / "truth"))
    assert "one case: an interval or a test is not defined" in page
    page = comparison_page(compare_folders(a, b, tmp_path / "truth"))
    assert "one case: an interval or a test is not defined" in page
    assert "not defined: 1 case" in page


def test_two_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for run in ("one", "two"):
        write(nnunet(tmp_path / run / "predictions") / "x.nii.gz", head(run == "two"))
    write(tmp_path / "truth" / "x.nii.gz", head())
    found = compare_folders(tmp_path / "one" / "predictions", tmp_path / "two" / "predictions", tmp_path / "truth")
    assert (found.first.name, found.second.name) == ("one/predictions", "two/predictions")
    with pytest.raises(DataError, match="is given twice"):
        compare_folders(tmp_path / "one" / "predictions", tmp_path / "one" / "predictions", tmp_path / "truth")


def test_cases_on_one_side_only_are_refused_or_named(folders) -> None:
    a, b, truth = folders
    (a / "HaN_003.nii.gz").unlink()
    write(a / "HaN_900.nii.gz", head())
    with pytest.raises(DataError, match=r"without a prediction: HaN_003; without a reference: HaN_900.*--common"):
        evaluate_folders(a, truth)
    found = compare_folders(a, b, truth, Rules(common=True))
    text = " ".join(found.notes)
    assert "without a prediction, left out: HaN_003" in text
    assert "not compared, left out: HaN_003" in text
    rows = found.left_out[["predictions", "case", "why"]].to_numpy().tolist()
    assert ["a", "HaN_003", "without a prediction"] in rows
    assert ["b", "HaN_003", "in one folder only, and not compared"] in rows
    assert found.table[found.table.primary].iloc[0].cases == 7


def test_what_only_a_prediction_names_is_said(folders) -> None:
    """Its thyroid is not scored; a parotid for which it has no name counts as missed; the table has all eight."""
    _, _, truth = folders
    nnunet(truth)
    other = nnunet(truth.parent / "tool", {"background": 0, "BrainStem": 1, "Parotid_L": 2, "thyroid": 4})
    for path in truth.glob("*.nii.gz"):
        write(other / path.name, head(values=(1, 2, 4)))
    found = evaluate_folders(other, truth)
    text = " ".join(found.notes)
    assert "the reference has no such name, left out: HaN_000 (thyroid)" in text
    assert "HaN_004 (thyroid) and 3 more" in text
    assert "does not name parotid_right: outlined in the reference, they count as missed" in text
    assert found.left_out["organ"].tolist() == ["thyroid"] * 8
    missed = found.metrics[(found.metrics.metric == "missed") & (found.metrics.organ == "parotid_right")]
    assert missed.value.tolist() == [1] * 8


def test_a_case_without_an_outline_is_said(folders) -> None:
    """It has no row, and with it goes the only case that the prediction would have invented."""
    a, _, truth = folders
    write(truth / "HaN_002.nii.gz", np.zeros((24, 30, 12)))
    found = evaluate_folders(a, truth)
    assert "HaN_002" not in set(found.metrics["case"])
    assert "cases with no voxel of a named organ in the reference, left out: HaN_002" in found.notes
    assert set(found.left_out.loc[found.left_out["case"] == "HaN_002", "organ"]) == {
        "",
        "brainstem",
        "parotid_left",
        "parotid_right",
    }


def test_a_reference_without_any_outline_cannot_be_compared_with(folders) -> None:
    """With `absent` there are counts of inventions alone, and no DSC to compare."""
    a, b, truth = folders
    for file in truth.glob("*.nii.gz"):
        write(file, np.zeros((24, 30, 12)))
    with pytest.raises(DataError, match="share no case with an outlined organ"):
        compare_folders(a, b, truth, Rules(absent=True))


def test_a_value_below_zero_is_refused_wherever_it_stands(folders) -> None:
    a, _, truth = folders
    labels = head().astype(np.int16)
    labels[0, 0, 0] = -1
    file = a / "HaN_000.nii.gz"
    nibabel.save(nibabel.Nifti1Image(labels, nibabel.load(file).affine), file)
    with pytest.raises(DataError, match="label -1 stands for no organ"):
        evaluate_folders(a, truth)


def test_a_reference_has_one_set_of_names_in_a_comparison(folders) -> None:
    """Without names of its own it takes those of the predictions, which must not contradict each other."""
    a, b, truth = folders
    nnunet(b, {"background": 0, "BrainStem": 1, "Parotid_L": 3, "Parotid_R": 2})
    with pytest.raises(ConfigError, match=r"labelsTs: does not say.*a/dataset.json and .*b/dataset.json.*--organs"):
        compare_folders(a, b, truth)
    nnunet(truth)
    rows = compare_folders(a, b, truth).metrics.set_index(["experiment", "case", "organ", "metric"]).value
    assert rows["b", "HaN_000", "parotid_left", "dsc"] == 0  # b's own numbering holds for b


def test_nothing_in_common_is_refused(folders) -> None:
    a, _, truth = folders
    for path in a.glob("*.nii.gz"):
        path.rename(a / path.name.replace("HaN_", "case"))
    with pytest.raises(DataError, match="share no case: case000"):
        evaluate_folders(a, truth, Rules(common=True))


@pytest.mark.parametrize(
    ("labels", "spacing", "text"),
    [
        (
            head()[:-1],
            SPACING,
            r"case HaN_002: prediction .* another grid \(shape 24 x 30 x 12 of the reference against 23",
        ),
        (head(), (1.0, 1.0, 3.0), r"case HaN_002: .*spacing 1 x 1 x 2.5 mm of the reference against 1 x 1 x 3 mm"),
        (head(values=(1, 2, 8)), SPACING, r"case HaN_002, file .*: label 8 stands for no organ in .*dataset.json"),
    ],
)
def test_a_prediction_that_does_not_fit_is_named(folders, labels, spacing, text) -> None:
    a, _, truth = folders
    write(a / "HaN_002.nii.gz", labels, spacing)
    with pytest.raises(DataError, match=text):
        evaluate_folders(a, truth)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"background": 0, "organ": [1, 2]}, "regions of several values"),
        ({"background": 0, "BrainStem": 1, "ignore": 2}, "has an ignore label"),
        ({"background": 0, "BrainStem": 1, "Brainstem": 2}, "each organ needs one value"),
        ({"background": 0, "眼": 1}, "value 1: unknown organ '眼'"),
        ({"background": 0}, "names no organ"),
        (["BrainStem"], "no readable `labels`"),
    ],
)
def test_names_that_cannot_be_used_are_refused(tmp_path: Path, content, text) -> None:
    write(nnunet(tmp_path / "a", content) / "x.nii.gz", head())
    with pytest.raises(ConfigError, match=text):
        open_folder(tmp_path / "a")


def test_where_names_come_from(tmp_path: Path) -> None:
    """A list, a file in the folder, above it, or in the other one; else it is said what is needed."""
    one, other = tmp_path / "x" / "one", tmp_path / "y" / "other"
    for root in (one, other):
        write(root / "case.nii.gz", head())
    with pytest.raises(ConfigError, match="nothing says which value is which organ; give --organs"):
        open_folder(one, other=other)
    nnunet(other, {"0": "background", "1": "Mandible"})  # nnU-Net's first version
    assert open_folder(one, other=other).organs == {1: "mandible"}
    (one.parent / "hnlib.yaml").write_text("organs: {brainstem: 1, larynx: Larynx}\n")
    assert open_folder(one, other=other).organs == {1: "brainstem"}
    assert open_folder(one, "mandible, eye_left").organs == {1: "mandible", 2: "eye_left"}
    with pytest.raises(DataError, match="is missing or no folder"):
        open_folder(tmp_path / "none")
    with pytest.raises(DataError, match="holds no label map"):
        open_folder(tmp_path, "mandible")
    write(one / "case.nii", head())
    with pytest.raises(DataError, match=r"case case: case.nii and case.nii.gz are both there|case.nii.gz and case.nii"):
        open_folder(one)


def test_what_hnlib_predict_writes_beside_names_its_organs(tmp_path: Path) -> None:
    """Its own numbers hold, not those of the reference; two models in one folder are refused."""
    one, other = tmp_path / "predicted", tmp_path / "reference"
    write(one / "case.nii.gz", head())
    nnunet(other, {"background": 0, "larynx": 1})
    (one / "case.ctbl").write_text("0 Background 0 0 0 0\n1 mandible 1 2 3 255\n2 brainstem 1 2 3 255\n")
    assert open_folder(one, other=other).organs == {1: "mandible", 2: "brainstem"}
    (one / "case.ctbl").write_text("# Color table file C:/my documents/x.ctbl\n  \n1 brain stem 1 2 3 255\n")
    assert open_folder(one, other=other).organs == {1: "brainstem"}
    for content in (b"one mandible 1 2 3 255", b"1 \xff 1 2 3 255"):
        (one / "case.ctbl").write_bytes(content)
        with pytest.raises(ConfigError, match=r"case\.ctbl: is no colour table"):
            open_folder(one, other=other)
    (one / "case.ctbl").write_text("1 mandible 1 2 3 255\n2 brainstem 1 2 3 255\n")
    (one / "more.ctbl").write_text("0 Background 0 0 0 0\n1 brainstem 1 2 3 255\n")
    with pytest.raises(ConfigError, match=r"more\.ctbl: names other organs than case\.ctbl"):
        open_folder(one, other=other)


def test_a_colour_table_above_names_nothing_and_what_else_lies_above_is_said(folders) -> None:
    """What `hnlib predict` leaves in the working folder is of another model."""
    a, _, truth = folders
    (a / "dataset.json").rename(truth / "dataset.json")
    (a.parent / "stray.ctbl").write_text("1 rectum 1 2 3 255\n2 bladder 1 2 3 255\n3 prostate 1 2 3 255\n")
    found = evaluate_folders(a, truth)
    assert "rectum" not in set(found.metrics["organ"])
    assert found.notes == ()
    above = a.parent / "dataset.json"
    (truth / "dataset.json").rename(above)
    assert evaluate_folders(a, truth).notes == tuple(f"organs of {side} are named by {above}" for side in (a, truth))


def test_case_folders_with_label_maps_serve_too(tmp_path: Path) -> None:
    write(tmp_path / "data" / "p1" / "labels.nii.gz", head())
    write(tmp_path / "data" / "p1" / "image.nii.gz", head())
    assert list(open_folder(tmp_path / "data", "a,b,c").files) == ["p1"]
    (tmp_path / "data" / "p1" / "labels.nii.gz").rename(tmp_path / "data" / "p1" / "organs.nii.gz")
    (tmp_path / "data" / "hnlib.yaml").write_text("organs: {mandible: 1}\nlabels: organs\n")
    assert list(open_folder(tmp_path / "data").files) == ["p1"]


@pytest.mark.parametrize("name", ["brainstem", "BrainStem", "Brainstem", "brain stem"])
def test_spellings_of_an_organ(name) -> None:
    assert organ_name(name) == "brainstem"


def test_commands_write_tables_and_a_page(folders, tmp_path: Path, capsys) -> None:
    a, b, truth = folders
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(a), str(truth), "--out", str(tmp_path / "e"), "--workers", "1"])
    assert end.value.code == 0
    table = pd.read_csv(tmp_path / "e" / "metrics.csv")
    assert table.case.nunique() == 8
    assert f"hnlib evaluate {a} {truth}" in (tmp_path / "e" / "report.html").read_text()
    with pytest.raises(SystemExit) as end:
        main(["compare", str(a), str(b), str(truth), "--out", str(tmp_path / "c"), "--common"])
    assert end.value.code == 0
    assert {p.name for p in (tmp_path / "c").iterdir()} == {
        "metrics.csv",
        "comparison.csv",
        "left_out.csv",
        "report.html",
    }
    assert "a: 8 of 8 cases" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(tmp_path / "no"), str(truth)])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("hnlib: folder ")
