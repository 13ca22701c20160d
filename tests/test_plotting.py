"""Figures: what is drawn is the data, on the scale and side that the docstring says."""

from __future__ import annotations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import PolyCollection
from matplotlib.contour import QuadContourSet

from hnlib.cases import Case
from hnlib.confidence import POOLED_QUANTILES
from hnlib.errors import ConfigError
from hnlib.organs import ORGANS, organ
from hnlib.plotting import (
    best_slices,
    class_ratios,
    confidence_violins,
    contour_panel,
    equivalence_intervals,
    organ_volumes,
    paired_differences,
    ranking,
    results_by_organ,
    scan_rows,
    sigma_dots,
    training_curves,
    use_style,
    verdict_counts,
)
from hnlib.plotting.study import _apart
from hnlib.plotting.style import set_organ_ticks, spread
from hnlib.stats import rank_experiments


@pytest.fixture(autouse=True)
def clean_figures():
    """Every test draws in the house style and leaves no figure open."""
    with plt.rc_context():
        use_style()
        yield
        plt.close("all")


def texts(artist):
    return [text.get_text() for text in artist.findobj(matplotlib.text.Text) if text.get_text()]


def points(ax, colour, markers=None):
    """Drawn markers of a colour as an array (n, 2)."""
    lines = [
        line.get_xydata()
        for line in ax.lines
        if line.get_color() == colour
        and line.get_linestyle() == "None"
        and (markers is None or line.get_marker() in markers)
    ]
    return np.concatenate(lines) if lines else np.empty((0, 2))


def metrics(values):
    """Rows from {experiment: array (cases, organs)}, two organs, one seed."""
    rows = [
        ("laptop", experiment, 0, "test", f"pt_{case}", organ, "dsc", value)
        for experiment, array in values.items()
        for case, row in enumerate(np.asarray(array))
        for organ, value in zip(("mandible", "brainstem"), row, strict=True)
    ]
    columns = ["profile", "experiment", "seed", "split", "case", "organ", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)


def test_style_is_nine_points_at_full_width():
    """House style: 6.3 in, 9 pt, sans."""
    assert plt.rcParams["font.size"] == 9
    assert plt.rcParams["figure.figsize"][0] == 6.3
    assert plt.rcParams["font.family"] == ["sans-serif"]


def test_organ_volumes_draw_every_case_and_label_the_median():
    """Largest organ on top, log axis, each volume a point, 0 left out."""
    table = pd.DataFrame(
        {
            "case": ["a", "b", "c", "a", "b"],
            "organ": ["mandible"] * 3 + ["optic_chiasm"] * 2,
            "volume_ml": [50.0, 60.0, 90.0, 0.5, 0.0],
        }
    )
    ax = organ_volumes(table)
    assert ax.get_xscale() == "log"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Optic chiasm (n = 1)", "Mandible (n = 3)"]
    assert sorted(points(ax, ORGANS["mandible"].colour)[:, 0]) == [50, 60, 90]
    assert points(ax, ORGANS["optic_chiasm"].colour)[:, 0].tolist() == [0.5]
    assert {"60", "0.5"} <= set(texts(ax))


def test_class_ratios_are_means_over_cases_from_the_largest_patch_down():
    """Two cases of 0.001 and 0.003 stand at 0.002; patches are ordered by volume."""
    rows = [
        (patch, edge, edge, edge, "nnunet", case, name, ratio * factor)
        for patch, edge, factor in (("small", 8, 2.0), ("large", 16, 1.0))
        for case, name, ratio in (("a", "mandible", 0.001), ("b", "mandible", 0.003), ("a", "background", 0.4))
    ]
    columns = ["patch", "patch_x", "patch_y", "patch_z", "centres", "case", "class", "ratio"]
    table = pd.DataFrame(rows, columns=columns)
    ax = class_ratios(table)
    (line,) = [line for line in ax.lines if line.get_color() == ORGANS["mandible"].colour]
    assert line.get_ydata() == pytest.approx([0.002, 0.004])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["large\n16 × 16 × 16", "small\n8 × 8 × 8"]
    assert ax.get_yscale() == "log"
    assert "n = 2" in ax.get_ylabel()
    assert {"Mandible", "Background"} <= set(texts(ax))
    with pytest.raises(ValueError, match="several values of centres"):
        class_ratios(pd.concat([table, table.assign(centres="paper")]))


def test_labels_are_moved_apart_and_keep_their_order():
    """Three labels at one height end a gap apart around it; a far one stays."""
    found = _apart({"a": 1.0, "b": 1.0, "c": 1.01, "far": 5.0}, gap=0.5)
    assert found["far"] == 5.0
    assert sorted(found, key=found.get) == ["a", "b", "c", "far"]
    assert np.diff([found[name] for name in "abc"]) == pytest.approx([0.5, 0.5])
    assert np.mean([found[name] for name in "abc"]) == pytest.approx(np.mean([1.0, 1.0, 1.01]))


def test_sigma_dots_stand_at_sigma():
    """One marker for each source, its value printed beside it."""
    table = pd.DataFrame(
        [("large", "paper", 0.32605), ("large", "ours", 0.326048), ("small", "paper", 0.32337)],
        columns=["patch", "source", "sigma"],
    )
    ax = sigma_dots(table)
    drawn = {line.get_label(): line.get_xdata().tolist() for line in ax.lines if not line.get_label().startswith("_")}
    assert drawn == {"paper": [0.32605, 0.32337], "ours": [0.326048]}
    assert "0.32337" in texts(ax)


def test_training_curves_draw_the_mean_over_seeds():
    """Seeds at 0.4 and 0.6 have their mean line at 0.5; the loss stands below."""
    rows = [
        ("laptop", "recipe", seed, step, np.nan, "mandible", dsc)
        for seed, dsc in ((0, 0.4), (1, 0.6))
        for step in (100, 200)
    ]
    rows += [("laptop", "recipe", 0, step, 2.0 - step / 200, None, np.nan) for step in (100, 200)]
    columns = ["profile", "experiment", "seed", "step", "loss", "organ", "validation_dsc"]
    history = pd.DataFrame(rows, columns=columns)
    top, bottom = training_curves(history).axes
    (mean,) = [line for line in top.lines if line.get_label() == "mandible"]
    assert mean.get_xydata().tolist() == [[100, 0.5], [200, 0.5]]
    assert bottom.lines[0].get_ydata() == pytest.approx([1.5, 1.0])
    assert bottom.get_xlabel() == "step (2 seeds)"
    with pytest.raises(ValueError, match="several values of profile"):
        training_curves(pd.concat([history, history.assign(profile="gpu")]))


def test_training_curves_wrap_after_four_experiments():
    """Five experiments: two blocks, and only five panels of each kind are seen."""
    one = pd.DataFrame(
        {"profile": "p", "seed": 0, "step": [1, 2], "loss": 1.0, "organ": "mandible", "validation_dsc": 0.5}
    )
    fig = training_curves(pd.concat([one.assign(experiment=f"e{index}") for index in range(5)]))
    assert sum(ax.get_visible() for ax in fig.axes) == 10
    assert [ax.get_title(loc="left") for ax in fig.axes if ax.get_visible() and ax.get_title(loc="left")] == [
        "e0",
        "e1",
        "e2",
        "e3",
        "e4",
    ]


def test_results_show_every_case_and_the_mean():
    """Points are the seed-averaged cases; the marker stands at their mean."""
    table = metrics({"large_nnu_dice_ce": [[0.6, 0.7], [0.8, 0.9]]})
    table = pd.concat([table, table.assign(seed=1, value=table["value"] + 0.1)])
    ax = results_by_organ(table)
    assert points(ax, ORGANS["mandible"].colour)[:, 1] == pytest.approx([0.65, 0.85])
    assert sorted(points(ax, "#222222")[:, 1]) == pytest.approx([0.75, 0.85])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["Brainstem", "Mandible"]
    assert ax.get_ylabel() == "DSC (n = 2 cases)"
    assert "large, nnU-Dice+CE" in texts(ax)


def test_results_say_where_a_value_is_lacking():
    """A missed organ has no distance: the count below the organ falls."""
    table = metrics({"a": [[2.0, 3.0], [np.nan, 3.0]], "b": [[2.0, 3.0], [2.5, 3.0]]}).assign(metric="hd95_mm")
    ax = results_by_organ(table, metric="hd95_mm")
    assert [label.get_text() for label in ax.get_xticklabels()] == ["Brainstem\nn = 2", "Mandible\nn = 1–2"]
    assert ax.get_ylabel() == "HD95 (mm)"


def test_results_without_a_row_are_refused():
    """No empty axes: the message says what to check."""
    with pytest.raises(ValueError, match="no row of the table is left"):
        results_by_organ(metrics({"a": [[0.5, 0.5]]}), split="validation")


def test_paired_differences_draw_cases_and_the_mean_over_organs():
    """Each case's difference is a point; the diamond of the mean over organs stands at their mean."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.5, 0.6, (6, 2))
    gain = rng.uniform(0.0, 0.2, (6, 2))
    fig = paired_differences(metrics({"base": base, "recipe": base + gain}), "base")
    (ax,) = fig.axes
    assert sorted(points(ax, ORGANS["mandible"].colour)[:, 0]) == pytest.approx(sorted(gain[:, 0]))
    assert points(ax, "#222222", {"D"})[:, 0] == pytest.approx([gain.mean()])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["mean over organs", "Brainstem", "Mandible"]
    assert ax.get_title(loc="left") == "recipe\nn = 6"
    with pytest.raises(ValueError, match="no experiment shares"):
        paired_differences(metrics({"base": base}), "base")


def test_ranking_joins_what_is_not_told_apart():
    """Marks stand at the mean ranks; one bar spans the two that are mixed and stops before the one that is worse."""
    noise = 0.01 * np.random.default_rng(0).standard_normal((2, 12, 2))
    values = {"small_ca_dice_ce": 0.8 + noise[0], "recipe": 0.8 + noise[1], "base": np.full((12, 2), 0.5)}
    rows = metrics(values)
    found = rank_experiments(pd.concat(rows.assign(seed=k, value=rows["value"] + 0.001 * k) for k in range(3)))
    ax = ranking(found)
    marks = points(ax, "#222222")
    assert sorted(marks[:, 0]) == pytest.approx(sorted(found.ranks["mean_rank"]))
    (bar,) = (line.get_xdata() for line in ax.lines if line.get_linewidth() == 3)
    first, second, third = found.ranks["mean_rank"]
    assert bar[0] < first
    assert second < bar[1] < third
    named = {f"{name.experiment} ({name.mean_rank:.2f})" for name in found.ranks.itertuples()}
    assert {text.replace("small, ca-Dice+CE", "small_ca_dice_ce") for text in texts(ax)} > named
    assert ax.get_xlabel() == "mean rank by DSC (1 is best, n = 12)"


def test_verdicts_are_counted_by_paper():
    """Two papers: two and one claims of the first verdict, one of the last; bars follow each other."""
    rows = [("one", "holds"), ("one", "holds"), ("one", "open"), ("two", "holds")]
    ax = verdict_counts(pd.DataFrame(rows, columns=["paper", "verdict"]), ["holds", "falls", "open"])
    bars = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    assert bars == [(0, 2), (0, 1), (2, 0), (1, 0), (2, 1), (1, 0)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]
    assert [text.get_text() for text in ax.texts if text.get_text()] == ["2", "1", "1"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["holds", "falls", "open"]


def quantile_rows():
    return pd.DataFrame(
        [
            ("laptop", "recipe", 0, split, organ, quantile, quantile ** (1 if split == "test" else 0.5))
            for split in ("train", "validation", "test")
            for organ in ("mandible", "optic_chiasm")
            for quantile in POOLED_QUANTILES
        ],
        columns=["profile", "experiment", "seed", "split", "organ", "quantile", "value"],
    )


def test_violins_split_train_and_test_and_print_the_drift():
    """Two halves an organ, training on the left, within the data's range; the seed-averaged drift on top."""
    drift = pd.DataFrame(
        [("recipe", 0, "mandible", 0.02), ("recipe", 1, "mandible", 0.04), ("recipe", 0, "optic_chiasm", -0.0001)],
        columns=["experiment", "seed", "organ", "soft_recall_drift"],
    )
    (ax,) = confidence_violins(quantile_rows(), drift).axes
    halves = [body.get_paths()[0].vertices for body in ax.findobj(PolyCollection)]
    assert len(halves) == 4
    assert all(half[:, 1].min() >= 0.004 and half[:, 1].max() <= 1.0 for half in halves)
    sides = [
        (half[:, 0].max() <= place + 1e-6, half[:, 0].min() >= place - 1e-6)
        for half, place in zip(halves, (0, 0, 1, 1), strict=True)
    ]
    assert sides == [(True, False), (False, True)] * 2
    assert {"+0.030", "+0.000"} <= set(texts(ax))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["Mandible", "Optic chiasm"]


def block(*slices, shape=(12, 10, 8)):
    labels = np.zeros(shape, np.uint8)
    labels[slices] = 1
    return labels


def test_contours_are_drawn_in_millimetres_in_radiological_view():
    """Patient right (high X) and anterior (high Y) on the left; outlines run through the voxel borders."""
    reference = block(slice(2, 5), slice(3, 6), slice(1, 4))
    spacing = (1.0, 2.0, 3.0)
    fig = contour_panel(
        np.zeros(reference.shape),
        reference,
        np.roll(reference, 1, axis=0),
        spacing_mm=spacing,
        organs=("mandible",),
        margin_mm=np.inf,
    )
    assert len(fig.axes) == 3
    axial = fig.axes[0]
    assert axial.get_xlim() == (12.0, 0.0)
    assert axial.get_ylim() == (0.0, 20.0)
    first, second = (contour.get_paths()[0].vertices for contour in axial.findobj(QuadContourSet))
    assert (first.min(axis=0), first.max(axis=0)) == (pytest.approx([2.0, 6.0]), pytest.approx([5.0, 12.0]))
    assert second.min(axis=0) == pytest.approx([3.0, 6.0])
    image = axial.images[0]
    assert image.get_extent() == [0.0, 12.0, 0.0, 20.0]
    places = {text.get_text(): text.get_position() for text in axial.texts}
    assert places["R"][0] < places["L"][0]
    assert places["A"][1] > places["P"][1]
    sagittal = {text.get_text(): text.get_position() for text in fig.axes[2].texts}
    assert sagittal["A"][0] < sagittal["P"][0]
    assert sagittal["S"][1] > sagittal["I"][1]
    assert fig.axes[2].get_xlim() == (20.0, 0.0)


def test_scale_bar_has_the_length_it_states():
    """The bar of 20 mm spans 20 units of the axes."""
    reference = block(slice(2, 5), slice(3, 6), slice(1, 4))
    fig = contour_panel(np.zeros((12, 10, 8)), reference, None, spacing_mm=(4, 4, 4), organs=("mandible",))
    (bar,) = fig.axes[0].lines
    assert np.ptp(bar.get_xdata()) == 20
    assert "20 mm" in texts(fig.axes[0])
    assert any("-160 to 240 HU" in text for text in texts(fig))


def test_picture_shows_the_reference_with_its_margin():
    """6 mm around voxels 4..5 of 2 mm: voxels 1..8."""
    reference = block(slice(4, 6), slice(4, 6), slice(4, 6), shape=(20, 20, 20))
    image = np.arange(20**3, dtype=float).reshape(20, 20, 20)
    fig = contour_panel(
        image, reference, None, spacing_mm=(2, 2, 2), organs=("mandible",), planes={"axial": 5}, margin_mm=6
    )
    np.testing.assert_array_equal(fig.axes[0].images[0].get_array(), image[1:9, 1:9, 5].T)


def test_organ_at_the_edge_has_a_closed_outline():
    """A mask that fills the picture is outlined along its edge."""
    reference = np.ones((6, 6, 6), np.uint8)
    fig = contour_panel(np.zeros((6, 6, 6)), reference, None, spacing_mm=(1, 1, 1), organs=("mandible",))
    vertices = fig.axes[0].findobj(QuadContourSet)[0].get_paths()[0].vertices
    assert (vertices.min(), vertices.max()) == (0.0, 6.0)


def test_best_slice_meets_most_organs_then_most_voxels():
    """A slice with two organs beats one with more voxels of a single organ; the first of equals wins."""
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[:, :, 2] = 1
    labels[0, 0, 5] = 1
    labels[1, 1, 5:7] = 2
    assert best_slices(labels)["axial"] == 5
    assert best_slices(np.zeros((3, 4, 5), np.uint8)) == {"axial": 0, "coronal": 0, "sagittal": 0}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"reference": np.zeros((3, 3, 3), np.uint8)}, "differ in shape"),
        ({"planes": {"oblique": 1}}, "unknown planes"),
    ],
)
def test_contour_panel_refuses_what_does_not_fit(change, text):
    """One line names the fault."""
    arguments = {"reference": np.zeros((4, 4, 4), np.uint8), "planes": {"axial": 1}} | change
    with pytest.raises(ValueError, match=text):
        contour_panel(np.zeros((4, 4, 4)), prediction=None, spacing_mm=(1, 1, 1), organs=("mandible",), **arguments)


def test_points_are_spread_evenly_and_the_same_every_time():
    """Half of 100 points lie on each side, within the width."""
    places = spread(100, 0.4)
    assert np.abs(places).max() <= 0.2
    assert abs((places > 0).sum() - 50) <= 2
    np.testing.assert_array_equal(places, spread(100, 0.4))


def test_long_organ_names_wrap_before_the_side_and_turn_when_many():
    """Seven organs: two lines, the side with its word; sixteen: turned."""
    _, ax = plt.subplots()
    set_organ_ticks(ax, [name for name in ORGANS if "optic" in name or "parotid" in name] * 2)
    assert "Optic\nnerve\u00a0L" in [label.get_text() for label in ax.get_xticklabels()]
    set_organ_ticks(ax, list(ORGANS))
    assert {label.get_rotation() for label in ax.get_xticklabels()} == {90}


def test_an_organ_of_ones_own_is_drawn_last_and_what_is_none_is_told():
    table = metrics({"a": [[0.5, 0.5], [0.6, 0.6]]})
    ax = results_by_organ(table.replace("brainstem", "eye_left"))
    assert [text.get_text().replace("\u00a0", " ") for text in ax.get_xticklabels()] == ["Mandible", "Eye L"]
    assert len(points(ax, organ("eye_left").colour)) == 2
    with pytest.raises(ConfigError, match="did you mean 'mandible'"):
        results_by_organ(table.replace("mandible", "Mandible"))


def comparison():
    """Two organs: a ratio inside its margin, a ratio outside, and one difference."""
    names = ["organ", "quantity", "comparison", "value", "low", "high", "margin_low", "margin_high", "verdict"]
    rows = [
        ("brainstem", "volume_ml", "ratio", 1.0, 0.9, 1.1, 0.8, 1.25, "equivalent"),
        ("mandible", "volume_ml", "ratio", 1.6, 1.5, 1.7, 0.8, 1.25, "different"),
        ("mandible", "mean_hu", "difference", 10.0, -90.0, 110.0, -70.0, 70.0, "undecided"),
    ]
    return pd.DataFrame(rows, columns=names)


def test_equivalence_shows_interval_margin_and_verdict():
    """A line from low to high, a box from margin to margin, a mark by verdict; ratios on a log axis."""
    fig = equivalence_intervals(comparison(), {"volume_ml": "volume", "mean_hu": "HU"})
    ratio, difference = fig.axes
    assert (ratio.get_xscale(), difference.get_xscale()) == ("log", "linear")
    assert [text.get_text() for text in ratio.get_yticklabels()] == ["Brainstem", "Mandible"]
    ends = [tuple(line.get_xdata()) for line in ratio.lines if len(line.get_xdata()) == 2]
    assert (0.9, 1.1) in ends
    assert (1.5, 1.7) in ends
    boxes = [(patch.get_x(), patch.get_width(), patch.get_y()) for patch in difference.patches]
    assert boxes == [(-70.0, 140.0, pytest.approx(0.58))]
    marks = {line.get_ydata()[0]: line for line in ratio.lines if len(line.get_xdata()) == 1}
    assert (marks[0].get_marker(), marks[1].get_marker()) == ("o", "X")
    (undecided,) = [line for line in difference.lines if len(line.get_xdata()) == 1]
    assert undecided.get_markerfacecolor() == "white"
    with pytest.raises(ValueError, match="left to draw"):
        equivalence_intervals(comparison(), {"weight_g": "weight"})


def test_scan_rows_show_the_same_extent_of_every_scan():
    """Two grids of one head: limits are as wide as the field and centred on the brainstem, in each scan's own mm."""
    planes, centre = (("axial", "brainstem"), ("sagittal", "mandible")), (0.0, 10.0, -5.0)
    scans = {}
    for title, edge in (("fine", 2.0), ("coarse", 4.0)):
        labels = np.zeros([round(n / edge) for n in (80, 120, 100)], np.uint8)
        for value, low, high in ((1, (32, 40, 60), (48, 56, 80)), (2, (32, 80, 20), (48, 96, 40))):
            labels[tuple(slice(round(a / edge), round(b / edge)) for a, b in zip(low, high, strict=True))] = value
        image = np.linspace(-100, 100, labels.size, dtype=np.float32).reshape(labels.shape)
        organs = ("brainstem", "mandible")
        scans[title] = Case(title, image, labels, (edge, edge, edge), organs, frozenset(organs))
    fig = scan_rows(scans, planes=planes, field_mm=(90.0, 110.0, 100.0), centre_mm=centre)
    assert len(fig.axes) == 4
    for axial, sagittal in (fig.axes[:2], fig.axes[2:]):
        assert axial.get_xlim() == pytest.approx((40 + 45, 40 - 45))
        assert axial.get_ylim() == pytest.approx((48 + 10 - 55, 48 + 10 + 55))
        assert sagittal.get_xlim() == pytest.approx((58 + 55, 58 - 55))
        assert sagittal.get_ylim() == pytest.approx((70 - 5 - 50, 70 - 5 + 50))
    assert [fig.axes[k].get_ylabel() for k in (0, 2)] == ["fine", "coarse"]
