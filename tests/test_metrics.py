"""Metrics of one case: worked by hand, against the package, and the policy for empty masks."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest
import surface_distance

from hnlib.metrics import METRICS, evaluate_case

SPACING = (1.0, 2.0, 3.0)


def one(reference, prediction, spacing_mm=SPACING, tolerance_mm=2.0):
    """Metrics of a single labelled organ as a dict."""
    table = evaluate_case(
        reference,
        prediction,
        spacing_mm=spacing_mm,
        organs=("mandible",),
        labelled={"mandible"},
        tolerances_mm={"mandible": tolerance_mm},
    )
    assert tuple(table.metric) == METRICS
    return dict(zip(table.metric, table.value, strict=True))


def voxel(*index, shape=(12, 12, 12)):
    labels = np.zeros(shape, np.uint8)
    labels[index] = 1
    return labels


def blobs(seed, shape=(40, 36, 20)):
    """Two overlapping irregular label maps of two organs."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    maps = []
    for _ in range(2):
        labels = np.zeros(shape, np.uint8)
        for value, centre, radius in ((1, (14, 14, 9), 6.0), (2, (27, 22, 11), 4.0)):
            offset = (grid - np.add(centre, rng.integers(-2, 3, 3))) / rng.uniform(0.7, 1.2, 3)
            labels[np.linalg.norm(offset, axis=-1) + rng.normal(0, 0.4, shape) < radius] = value
        maps.append(labels)
    return maps


@pytest.mark.parametrize(("axis", "distance_mm"), [(0, 2.0), (1, 4.0), (2, 6.0)])
def test_hd95_of_two_voxels_apart_is_the_distance_along_that_axis(axis, distance_mm):
    """Single voxels two steps apart: every surface point lies at most two voxel edges from the other."""
    shifted = [5, 5, 5]
    shifted[axis] += 2
    found = one(voxel(5, 5, 5), voxel(*shifted))
    assert found["hd95_mm"] == pytest.approx(distance_mm)
    assert found["dsc"] == found["iou"] == found["precision"] == found["recall"] == found["missed"] == 0


def test_surface_dsc_of_adjacent_voxels_by_hand():
    """Neighbours along X share four of eight corners; the outer four lie one edge (1 mm) away."""
    found = one(voxel(5, 5, 5), voxel(6, 5, 5), tolerance_mm=0.5)
    assert found["surface_dsc"] == pytest.approx(0.5)
    found = one(voxel(5, 5, 5), voxel(6, 5, 5), tolerance_mm=1.0)
    assert found["surface_dsc"] == 1.0


def test_overlap_metrics_by_hand():
    """Reference of 4 voxels, prediction of 6, overlap of 3."""
    reference, prediction = np.zeros((2, 12, 5, 5), np.int16)
    reference[2:6, 2, 2] = 1
    prediction[3:9, 2, 2] = 1
    found = one(reference, prediction)
    assert found["dsc"] == pytest.approx(6 / 10)
    assert found["iou"] == pytest.approx(3 / 7)
    assert found["precision"] == pytest.approx(3 / 6)
    assert found["recall"] == pytest.approx(3 / 4)


def test_hd95_is_the_larger_of_the_two_directions():
    """A prediction that holds the reference and a far voxel: near from one side, far from the other."""
    reference = voxel(2, 5, 5)
    prediction = reference | voxel(9, 5, 5)
    assert one(reference, prediction)["hd95_mm"] == pytest.approx(7.0)
    assert one(prediction, reference)["hd95_mm"] == pytest.approx(7.0)


def test_one_voxel_diagonal_is_inclusive():
    """A mask shifted by one voxel along every axis lies within one voxel diagonal everywhere."""
    for spacing in ((0.98, 0.98, 2.5), (1.1, 1.3, 3.0), (3.7, 4.2, 2.9)):
        found = one(voxel(5, 5, 5), voxel(6, 6, 6), spacing, tolerance_mm=0.0)
        assert found["surface_dsc_1vox"] == 1.0
        assert found["hd95_mm"] == pytest.approx(math.hypot(*spacing))


def test_tolerance_survives_a_spacing_of_float32():
    """0.98 mm read from a float32 header still lies within a tolerance of 0.98 mm."""
    spacing = tuple(float(np.float32(edge)) for edge in (0.98, 0.98, 2.5))
    assert spacing[0] > 0.98
    assert one(voxel(5, 5, 5), voxel(6, 5, 5), spacing, tolerance_mm=0.98)["surface_dsc"] == 1.0


def test_identical_maps_are_perfect():
    """A map compared with itself scores 1 and lies 0 mm away."""
    reference, _ = blobs(0)
    table = evaluate_case(
        reference, reference, spacing_mm=SPACING, organs=("a", "b"), labelled=("a", "b"), tolerances_mm={"a": 1, "b": 1}
    )
    by_metric = table.groupby("metric").value
    assert (by_metric.min() == by_metric.max()).all()
    assert by_metric.min()[["dsc", "iou", "precision", "recall", "surface_dsc", "surface_dsc_1vox"]].eq(1).all()
    assert by_metric.min()[["hd95_mm", "missed"]].eq(0).all()


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_package_on_the_whole_volume(seed):
    """Cropping to the two masks changes nothing, masks at the border of the volume included."""
    reference, prediction = blobs(seed)
    reference, prediction = reference[10:, :, 4:], prediction[10:, :, 4:]
    spacing = (0.98, 1.1, 2.5)
    table = evaluate_case(
        reference,
        prediction,
        spacing_mm=spacing,
        organs=("a", "b"),
        labelled={"a", "b"},
        tolerances_mm={"a": 1.01, "b": 2.5},
    ).set_index(["organ", "metric"])
    for value, (organ, tolerance) in enumerate({"a": 1.01, "b": 2.5}.items(), start=1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            distances = surface_distance.compute_surface_distances(reference == value, prediction == value, spacing)
        expected = {
            "dsc": surface_distance.compute_dice_coefficient(reference == value, prediction == value),
            "hd95_mm": surface_distance.compute_robust_hausdorff(distances, 95),
            "surface_dsc": surface_distance.compute_surface_dice_at_tolerance(distances, tolerance),
        }
        for metric, number in expected.items():
            assert table.loc[(organ, metric), "value"] == number


def test_result_moves_with_the_axes():
    """Transposing maps and spacing together changes nothing; transposing the maps alone does."""
    straight = [voxel(5, 5, 5), voxel(7, 5, 5)]
    turned = [m.transpose(2, 0, 1) for m in straight]
    assert one(*turned, spacing_mm=(3.0, 1.0, 2.0)) == pytest.approx(one(*straight, spacing_mm=(1.0, 2.0, 3.0)))
    assert one(*turned, spacing_mm=(1.0, 2.0, 3.0))["hd95_mm"] == pytest.approx(4.0)


def test_missed_organ_counts_as_missed_and_has_no_distance():
    """An empty prediction: 0 where a share is defined, NaN where nothing is, never 1000 mm."""
    found = one(voxel(5, 5, 5), np.zeros((12, 12, 12), np.uint8))
    assert found["missed"] == 1
    assert [found[m] for m in ("dsc", "iou", "recall", "surface_dsc", "surface_dsc_1vox")] == [0] * 5
    assert math.isnan(found["hd95_mm"])
    assert math.isnan(found["precision"])


def test_unlabelled_organ_has_no_row():
    """Voxels predicted for an organ that nobody outlined are neither right nor wrong."""
    reference = voxel(5, 5, 5)
    prediction = reference.copy()
    prediction[1, 1, 1] = 2
    table = evaluate_case(
        reference,
        prediction,
        spacing_mm=SPACING,
        organs=("brainstem", "larynx"),
        labelled={"brainstem"},
        tolerances_mm={"brainstem": 1.0},
    )
    assert table.organ.unique().tolist() == ["brainstem"]
    assert table.value.dtype == np.float64


def test_no_labelled_organ_gives_an_empty_table_with_the_columns():
    """A case in which nothing was outlined contributes nothing."""
    empty = np.zeros((3, 3, 3), np.uint8)
    table = evaluate_case(empty, empty, spacing_mm=SPACING, organs=("larynx",), labelled=(), tolerances_mm={})
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == ["organ", "metric", "value"]
    assert table.empty


def test_a_boolean_mask_is_the_label_map_of_one_organ():
    reference, prediction = voxel(5, 5, 5), voxel(6, 5, 5)
    wanted = one(reference, prediction)
    assert one(reference > 0, prediction > 0) == wanted
    assert one(reference > 0, prediction) == wanted


def test_by_default_every_organ_is_labelled_and_has_the_tolerance_of_the_vocabulary():
    """Planes 2 mm apart: within 2.5 mm (brainstem), beyond 1.01 mm (mandible)."""
    reference, prediction = np.zeros((2, 12, 5, 5), np.uint8)
    reference[2, 1:4, 1:4], prediction[3, 1:4, 1:4] = 1, 1
    reference[8, 1:4, 1:4], prediction[9, 1:4, 1:4] = 2, 2
    table = evaluate_case(reference, prediction, spacing_mm=(2, 2, 2), organs=["brainstem", "mandible"])
    scores = table[table.metric == "surface_dsc"].set_index("organ").value
    assert scores["brainstem"] == 1
    assert scores["mandible"] < 1
    with pytest.raises(ValueError, match="organ 'larynx' is labelled but has no voxel"):
        evaluate_case(reference, prediction, spacing_mm=(2, 2, 2), organs=["brainstem", "mandible", "larynx"])


@pytest.mark.parametrize("predicted", [False, True])
def test_labelled_organ_without_a_voxel_is_refused_whatever_was_predicted(predicted):
    """A labelled organ with an empty reference is a fault of the data."""
    prediction = voxel(5, 5, 5) * predicted
    with pytest.raises(ValueError, match="'mandible' is labelled but has no voxel"):
        one(np.zeros((12, 12, 12), np.uint8), prediction)


def test_does_not_leak_the_deprecation_warnings_of_the_package():
    """SciPy's warnings about the package's imports stay inside."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one(voxel(5, 5, 5), voxel(6, 5, 5))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"prediction": np.zeros((3, 3, 4), np.uint8)}, "reference has shape"),
        ({"prediction": np.zeros((3, 3, 3))}, "integer label map"),
        ({"organs": "mandible"}, r"organs is the text 'mandible'; give a list of names: \['mandible'\]"),
        ({"labelled": "mandible"}, "labelled is the text 'mandible'"),
        ({"prediction": np.full((3, 3, 3), 2, np.uint8)}, "prediction has labels 2..2 but 1 organs"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "three positive numbers"),
        ({"spacing_mm": (1.0, 1.0)}, "three positive numbers"),
        ({"labelled": {"larynx"}}, "not among organs"),
        ({"tolerances_mm": {}}, "tolerances_mm lacks"),
        ({"tolerances_mm": {"mandible": -1.0}}, "must not be negative"),
    ],
)
def test_arguments_that_do_not_fit_are_named(change, text):
    """Each wrong argument is named in one line."""
    arguments = {
        "reference": np.ones((3, 3, 3), np.uint8),
        "prediction": np.ones((3, 3, 3), np.uint8),
        "spacing_mm": SPACING,
        "organs": ("mandible",),
        "labelled": {"mandible"},
        "tolerances_mm": {"mandible": 1.0},
    } | change
    with pytest.raises(ValueError, match=text):
        evaluate_case(**arguments)


def test_an_organ_the_patient_lacks_is_counted_apart():
    """Absent: one row, 1 where the network drew it all the same; nothing that could enter a mean."""
    reference = voxel(5, 5, 5)
    for predicted in (0, 1):
        prediction = reference.copy()
        prediction[1, 1, 1] = 2 * predicted
        given = {"spacing_mm": SPACING, "organs": ("brainstem", "submandibular_left")}
        table = evaluate_case(reference, prediction, **given, absent={"submandibular_left"})
        rows = table[table.organ == "submandibular_left"]
        assert rows[["metric", "value"]].to_numpy().tolist() == [["hallucinated", predicted]]
        assert len(table) == len(METRICS) + 1
        with pytest.raises(ValueError, match="is absent but has voxels"):
            evaluate_case(reference, prediction, **given, labelled=(), absent={"brainstem"})
        with pytest.raises(ValueError, match="are labelled and absent"):
            evaluate_case(reference, prediction, **given, labelled={"brainstem"}, absent={"brainstem"})


def test_further_metrics_come_on_request():
    """A voxel against itself and a second one 7 mm off, in the order asked for; undefined where the organ is missed."""
    reference, prediction = voxel(2, 5, 5), voxel(2, 5, 5) | voxel(9, 5, 5)
    wanted = ("hd_mm", "hd95_mean_mm", "assd_mm", "dsc")
    given = {"spacing_mm": SPACING, "organs": ("mandible",), "metrics": wanted}
    table = evaluate_case(reference, prediction, **given)
    assert tuple(table.metric) == wanted
    assert table.value.tolist() == pytest.approx([7.0, 3.5, 4 * 6 / 24 + 4 * 7 / 24, 2 / 3])
    missed = evaluate_case(reference, reference * 0, **given)
    assert missed.value.isna().tolist() == [True, True, True, False]
    with pytest.raises(ValueError, match="metrics holds"):
        evaluate_case(reference, prediction, **{**given, "metrics": ("nsd",)})


def test_a_case_is_the_same_in_either_order_of_memory():
    """nibabel gives Fortran-ordered arrays, others C-ordered ones."""
    reference, prediction = blobs(1)
    given = {"spacing_mm": SPACING, "organs": ("mandible", "larynx")}
    straight = evaluate_case(reference, prediction, **given)
    turned = evaluate_case(np.asfortranarray(reference), np.asfortranarray(prediction), **given)
    pd.testing.assert_frame_equal(straight, turned)
