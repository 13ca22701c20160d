"""What a run says of itself after it was measured: on the terminal, and in its model file."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from hnlib.cli import main
from hnlib.errors import DataError
from hnlib.experiments import Study
from hnlib.experiments.scores import organ_scores, score_lines, scores_for_model

EXPERIMENT = "large_nnu_dice_ce"
#: DSC and HD95 of two test cases an organ; in one the chiasm was missed. Validation has other numbers.
VALUES = {"brainstem": ((0.8, 4.0), (0.7, 6.0)), "optic_chiasm": ((0.5, 3.0), (0.0, None))}


def write_run(folder: Path) -> Path:
    """Write what `hnlib train` and `hnlib measure` leave."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for organ, values in VALUES.items():
        for case, (dsc, hd95) in enumerate(values):
            for metric, value in (("dsc", dsc), ("hd95_mm", hd95), ("missed", float(hd95 is None))):
                rows.append({"split": "test", "case": f"c{case}", "organ": organ, "metric": metric, "value": value})
                rows.append({"split": "validation", "case": "v", "organ": organ, "metric": metric, "value": 0.9})
    pd.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)
    keys = ("seconds", "parameters", "voxels_per_step", "patch", "precision", "hardware", "versions", "digests")
    (folder / "run.json").write_text(json.dumps({**dict.fromkeys(keys), "steps": 40}))
    (folder / "history.csv").write_text("step\n40\n")
    (folder / "measured.json").write_text("{}")
    return folder


def test_means_are_over_test_cases_and_a_miss_counts_zero(tmp_path: Path) -> None:
    table = organ_scores(write_run(tmp_path))
    assert table["dsc"].to_dict() == pytest.approx({"brainstem": 0.75, "optic_chiasm": 0.25})
    assert table["hd95_mm"].to_dict() == {"brainstem": 5.0, "optic_chiasm": 3.0}
    assert table["missed"].to_dict() == {"brainstem": 0, "optic_chiasm": 1}
    assert set(table["cases"]) == {2}
    assert scores_for_model(tmp_path) == {
        "test": {"mean_dsc": 0.5, "cases": 2, "dsc": {"brainstem": 0.75, "optic_chiasm": 0.25}}
    }


def test_lines_say_where_an_organ_was_located(tmp_path: Path) -> None:
    """Centres 2 and 5 mm off, the gate open once in two cases; of an organ that is not located nothing is said."""
    write_run(tmp_path)
    place = {"centre_error_mm": (2.0, 5.0), "located": (1, 0), "box_recall": (1.0, 0.975)}
    found = [
        {"split": "test", "case": f"c{case}", "organ": "optic_chiasm", "metric": metric, "value": value}
        for metric, values in place.items()
        for case, value in enumerate(values)
    ]
    pd.concat([pd.read_csv(tmp_path / "metrics.csv"), pd.DataFrame(found)]).to_csv(
        tmp_path / "metrics.csv", index=False
    )
    brainstem, chiasm, _ = score_lines(tmp_path)
    assert brainstem == "brainstem: test DSC 0.750, HD95 5.0 mm, missed 0 of 2"
    assert chiasm.endswith("missed 1 of 2, centre off by 3.5 mm, gate open in 50%, 98.8% of it in its box")


def test_lines_where_nothing_was_found_or_nothing_tested(tmp_path: Path) -> None:
    write_run(tmp_path)
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    metrics.loc[metrics["metric"] == "hd95_mm", "value"] = None
    metrics.to_csv(tmp_path / "metrics.csv", index=False)
    assert list(score_lines(tmp_path))[1] == "optic_chiasm: test DSC 0.250, HD95 undefined, missed 1 of 2"
    metrics.query("split == 'validation'").to_csv(tmp_path / "metrics.csv", index=False)
    assert list(score_lines(tmp_path)) == ["no test case"]
    assert scores_for_model(tmp_path) == {}
    (tmp_path / "measured.json").unlink()
    assert scores_for_model(tmp_path) == {}
    (tmp_path / "metrics.csv").write_text("")
    with pytest.raises(DataError, match=r"metrics\.csv: cannot be read as a table .*run hnlib measure again"):
        organ_scores(tmp_path)


def test_the_commands_say_what_there_is(tiny_study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A finished run is not trained again, and its scores are printed with the place of the tables."""
    tiny_study.save(tmp_path / "study.json")
    folder = write_run(tiny_study.run_folder(EXPERIMENT, 97))
    for command in ("train", "measure"):
        with pytest.raises(SystemExit) as stop:
            main([command, str(tmp_path / "study.json"), EXPERIMENT, "97"])
        assert stop.value.code == 0
    assert capsys.readouterr().out.splitlines() == [
        f"already trained, 40 steps; run folder {folder}",
        "brainstem: test DSC 0.750, HD95 5.0 mm, missed 0 of 2",
        "optic_chiasm: test DSC 0.250, HD95 3.0 mm, missed 1 of 2",
        "mean over 2 organs: test DSC 0.500",
        f"tables metrics.csv and confidence.csv in {folder}",
    ]
