"""Chapter 20: its tables from runs by hand, what it says before there are runs, and the pictures' geometry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from hnlib import chapters, plotting
from hnlib.chapters.focusnet import NOT_RUN
from hnlib.stats import COLUMNS


def rows(values: dict[tuple[str, str, str, str], float], profile: str = "phantom-focus") -> pd.DataFrame:
    """Test rows: (experiment, case, organ, metric) to value."""
    found = [(profile, e, 0, "test", case, organ, metric, value) for (e, case, organ, metric), value in values.items()]
    return pd.DataFrame(found, columns=list(COLUMNS))


def study(gain: float) -> pd.DataFrame:
    """Four cases, a nerve and a brainstem; FocusNet gains in the nerve by about so much."""
    values = {}
    for k in range(4):
        case = f"c{k}"
        for experiment, nerve in (("snet", 0.5), ("focusnet", 0.5 + gain + 0.01 * k)):
            values[experiment, case, "optic_nerve_left", "dsc"] = nerve
            values[experiment, case, "brainstem", "dsc"] = 0.9
        values["focusnet", case, "optic_nerve_left", "centre_error_mm"] = 2.0 * k
        values["focusnet", case, "optic_nerve_left", "centre_peak"] = 0.8
        values["focusnet", case, "optic_nerve_left", "located"] = float(k > 0)
    return rows(values)


def test_small_organs_are_those_that_focusnet_locates() -> None:
    table = chapters.focusnet.focus_results(study(0.1))
    assert table.loc["S-Net"].tolist() == ["0.700", "0.500", "0.900", "1", "4"]
    assert table.loc["FocusNet", "small organs"] == "0.615"


@pytest.mark.parametrize(("gain", "verdict"), [(0.1, "FocusNet is ahead."), (-0.2, "S-Net is ahead.")])
def test_verdict_follows_the_interval(gain: float, verdict: str) -> None:
    facts = chapters.focusnet.focus_facts(study(gain))
    assert facts["verdict"] == verdict
    assert facts["difference"].startswith(f"{gain + 0.015:+.3f} DSC (95 % interval")
    assert facts["elsewhere"] == "+0.000 (+0.000 to +0.000)"  # the brainstem, which is the same
    assert chapters.focusnet.focus_facts(study(-0.015))["verdict"].startswith("The interval holds zero")


def test_settings_are_those_of_the_experiment() -> None:
    facts = chapters.focusnet.focus_settings()
    assert (facts["longest"], facts["sigma"], facts["gate"]) == ("70 mm", "5 mm", "0.3")
    assert (facts["s-net"], facts["joint"]) == ("55 %", "20 %")


def test_localisation_by_hand() -> None:
    """Errors 0, 2, 4, 6 mm: median 3, largest 6; the gate was open in three of four."""
    row = chapters.focusnet.localisation_table(study(0.1)).iloc[0]
    assert row.tolist() == [3.0, 6.0, 0.8, "75 %"]


def test_without_runs_the_chapter_says_so(tmp_path: Path) -> None:
    metrics, runs = chapters.focusnet.focus_runs(tmp_path)
    assert metrics.empty
    assert runs.empty
    assert chapters.focusnet.focus_facts(metrics)["difference"] == NOT_RUN
    for table in (
        chapters.focusnet.focus_results(metrics),
        chapters.focusnet.localisation_table(metrics),
        chapters.focusnet.cost_table(runs),
    ):
        assert table.iloc[0, 0] == NOT_RUN
    assert chapters.focusnet.printed_roi(metrics)["ours"].tolist() == [NOT_RUN] * 4
    assert chapters.focusnet.printed_ablation(metrics)["ours"].isna().all()


def test_one_run_alone_is_partial_and_shown(tmp_path: Path) -> None:
    """S-Net alone: its row stands, and there is no difference."""
    alone = study(0.1).query("experiment == 'snet'")
    assert chapters.focusnet.focus_results(alone).loc["S-Net", "all organs"] == "0.700"
    assert chapters.focusnet.focus_facts(alone)["difference"] == NOT_RUN


def test_atlas_stands_beside_the_runs(tmp_path: Path) -> None:
    folder = tmp_path / "phantom"
    folder.mkdir()
    study(0.1).to_csv(folder / "metrics.csv", index=False)
    rows({("atlas", "c0", "brainstem", "dsc"): 0.8}).to_csv(folder / "atlas.csv", index=False)
    metrics, _ = chapters.focusnet.focus_runs(folder)
    assert chapters.focusnet.focus_results(metrics).loc["atlas", "all organs"] == "0.800"


def test_printed_gain_over_deeplab_is_in_the_small_organs() -> None:
    """Gao et al. 2019, Table 1: 81.5 against 81.8 over the large organs, 59.6 against 65.1 over the small ones."""
    table = chapters.focusnet.printed_by_size()
    assert table.loc["8 large organs", ["deeplab", "focusnet"]].tolist() == [81.5, 81.8]
    assert table.loc["10 small organs", ["deeplab", "focusnet"]].tolist() == [59.6, 65.1]


def test_printed_ablation_has_ours_beside_it() -> None:
    table = chapters.focusnet.printed_ablation(study(0.1))
    assert table.loc["FocusNet", "printed"] == pytest.approx(0.725)
    assert table.loc["S-Net", "ours"] == pytest.approx(0.7)


def test_regions_are_drawn_where_they_lie() -> None:
    """Two pixels of 2 x 3 mm from the corner: a rectangle at 4, 6 mm."""
    labels = np.zeros((10, 8), np.uint8)
    labels[4:6, 3:5] = 1
    fig = plotting.heat_and_rois(
        np.zeros((10, 8)), labels, {"lens_left": labels.astype(float)}, {3: (2, 2, 6, 5)}, step_mm=(2.0, 3.0),
        organs=("lens_left",),
    )  # fmt: skip
    box = fig.axes[1].patches[0]
    assert (*box.get_xy(), box.get_width(), box.get_height()) == (4, 6, 12, 15)
    plt.close(fig)


def test_fusion_has_a_panel_a_mask() -> None:
    mask = np.zeros((6, 6), bool)
    mask[2:4, 2:4] = True
    fig = plotting.fusion_panels(
        np.zeros((6, 6)), mask, {"a": mask, "b": ~mask}, (1, 1, 4, 4), step_mm=(1.0, 1.0), name="lens_left"
    )
    assert [ax.get_xlabel() for ax in fig.axes] == ["a", "b"]
    plt.close(fig)


def test_what_is_not_run_has_no_point_of_ours() -> None:
    table = pd.DataFrame({"printed": [0.6, 0.7], "ours": [np.nan, 0.5]}, index=["a", "b"])
    ax = plotting.beside_print(table)
    ours = next(line for line in ax.lines if line.get_label() == "ours")
    assert np.isnan(ours.get_xdata()[0])
    assert ours.get_xdata()[1] == 0.5
    plt.close(ax.figure)
