"""The phantom: reproducible, anatomically ordered, as large and as bright as real organs, shaped as a data set."""

from __future__ import annotations

import pickle
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from hnlib.cases import SPLITS, Case, Dataset
from hnlib.datasets import open_dataset, phantom
from hnlib.datasets.phantom import VERSION, PhantomDataset
from hnlib.datasets.phantom_anatomy import (
    ALL_ORGANS,
    CHIASM_TO_NERVE,
    draw_anatomy,
    observer_field,
    statistics,
    tube_distance,
)
from hnlib.datasets.phantom_canvas import Displacement, ellipsoid_distance, largest, stream, unbiased
from hnlib.errors import ConfigError
from hnlib.organs import ORGANS

COARSE = (4.0, 4.0, 3.0)
CASES = tuple(f"phantom_{i:03d}" for i in range(5))
THICK = ("brainstem", "mandible", "parotid_left", "parotid_right", "submandibular_left", "submandibular_right")
NEIGHBOURS_26 = np.ones((3, 3, 3), bool)


@cache
def load(
    name: str,
    spacing_mm: tuple[float, float, float] = COARSE,
    seed: int = 0,
    organs: tuple[str, ...] = ALL_ORGANS,
    observer: int = 0,
) -> Case:
    return PhantomDataset(seed=seed, spacing_mm=spacing_mm, organs=organs, observer=observer).load(name)


def centre_mm(case: Case, organ: str) -> np.ndarray:
    return (np.argwhere(case.mask(organ)).mean(axis=0) + 0.5) * case.spacing_mm


def volume_ml(case: Case, organ: str) -> float:
    return float(case.mask(organ).sum() * np.prod(case.spacing_mm) / 1000)


def drawn_ml(name: str, organ: str) -> float:
    """The volume that was drawn for an organ of a case of seed 0."""
    return draw_anatomy(stream("anatomy", VERSION, 0, int(name[-3:]))).volume_mm3[organ] / 1000


def dsc(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_it_is_a_dataset_with_the_papers_organs_in_the_papers_order() -> None:
    data: Dataset = PhantomDataset()
    assert data.name == "phantom"
    assert data.attribution == "Digital phantom, not a patient"
    assert data.organs == (
        "brainstem",
        "optic_chiasm",
        "optic_nerve_left",
        "optic_nerve_right",
        "parotid_left",
        "parotid_right",
        "mandible",
    )
    assert {split: len(names) for split, names in data.split().items()} == {"train": 12, "validation": 4, "test": 6}
    assert tuple(data.split()) == SPLITS


def test_splits_share_no_case() -> None:
    names = [name for split in PhantomDataset().split().values() for name in split]
    assert names[0] == "phantom_000"
    assert len(set(names)) == len(names) == 22


def test_a_case_carries_what_the_protocol_promises() -> None:
    """204 x 252 mm are always in the field of view; how far it reaches up and down is drawn."""
    case = load("phantom_000")
    assert case.name == "phantom_000"
    assert case.spacing_mm == COARSE
    assert case.image_hu.shape == case.labels.shape
    assert case.image_hu.shape[:2] == (51, 63)
    assert 250 / 3 - 1 <= case.image_hu.shape[2] <= 308 / 3 + 1
    assert (case.image_hu.dtype, case.labels.dtype) == (np.float32, np.uint8)
    assert case.labelled == frozenset(case.organs)


def test_every_organ_is_in_the_vocabulary() -> None:
    assert set(ALL_ORGANS) <= set(ORGANS)


def test_the_same_name_gives_the_same_case_bit_for_bit() -> None:
    again = PhantomDataset(spacing_mm=COARSE, organs=ALL_ORGANS).load("phantom_001")
    np.testing.assert_array_equal(again.image_hu, load("phantom_001").image_hu)
    np.testing.assert_array_equal(again.labels, load("phantom_001").labels)


def test_a_case_does_not_depend_on_the_number_of_cases() -> None:
    alone = PhantomDataset({"test": 2}, spacing_mm=COARSE).load("phantom_001")
    np.testing.assert_array_equal(alone.image_hu, load("phantom_001").image_hu)


@pytest.mark.parametrize("other", [("phantom_001", 0), ("phantom_000", 1)])
def test_another_name_or_seed_gives_another_anatomy(other: tuple[str, int]) -> None:
    a, b = load("phantom_000"), load(other[0], seed=other[1])
    for organ in ALL_ORGANS:
        offsets = [centre_mm(c, organ) - centre_mm(c, "brainstem") for c in (a, b)]
        assert organ == "brainstem" or abs(offsets[0] - offsets[1]).max() > 0.1
        assert a.mask(organ).sum() != b.mask(organ).sum() or a.image_hu.shape != b.image_hu.shape


def test_the_global_generator_is_left_alone() -> None:
    state = np.random.get_state()[1].copy()
    PhantomDataset(spacing_mm=(6, 6, 6)).load("phantom_000")
    np.testing.assert_array_equal(state, np.random.get_state()[1])


@pytest.mark.parametrize("name", CASES)
def test_every_organ_is_there_in_one_piece(name: str) -> None:
    """One component of 26 neighbours: a nerve thinner than a voxel runs on over edges and corners."""
    case = load(name)
    for organ in ALL_ORGANS:
        assert ndimage.label(case.mask(organ), NEIGHBOURS_26)[1] == 1, organ


@pytest.mark.parametrize("name", CASES)
def test_a_thick_organ_holds_together_by_its_faces(name: str) -> None:
    """At most two voxels or 2 % hang by an edge or corner."""
    for organ in THICK:
        parts, _ = ndimage.label(load(name).mask(organ))
        sizes = np.bincount(parts.ravel())[1:]
        assert sizes.sum() - sizes.max() <= max(2, 0.02 * sizes.sum()), organ


def test_the_volume_drawn_is_the_volume_labelled() -> None:
    """Up to the observer's noise, which goes both ways, and what a neighbour has taken; mean over five cases.

    Thin organs are left out: an observer's volume of a nerve varies by a third from case to case.
    """
    for organ in THICK:
        ratios = np.array([volume_ml(load(name), organ) / drawn_ml(name, organ) for name in CASES])
        assert 0.88 < np.exp(np.log(ratios).mean()) < 1.12, organ


def test_the_volumes_drawn_are_those_of_real_organs() -> None:
    """Mean and SD of the log volume over 300 heads: the mean within four standard errors.

    Scores end at two SD, and a gland that surgery took was filled in by the mean: both make the SD smaller.
    """
    drawn = [draw_anatomy(np.random.default_rng(k)).volume_mm3 for k in range(300)]
    for organ, real in statistics()["real"].items():
        if organ == "spinal_cord":
            continue
        logs = np.log([volumes[organ] / 1000 for volumes in drawn])
        mean, sd = real["log_ml"]
        assert abs(logs.mean() - mean) < 4 * sd / np.sqrt(300) + 0.03, organ
        assert 0.72 < logs.std() / sd < 1.15, organ


def test_the_chiasm_is_as_small_beside_the_nerves_as_in_the_papers_data() -> None:
    """0.797 of a nerve: class shares of the paper's code, whole scans."""
    volumes = draw_anatomy(np.random.default_rng(0)).volume_mm3
    nerves = (volumes["optic_nerve_left"] + volumes["optic_nerve_right"]) / 2
    assert pytest.approx(0.797, abs=5e-4) == CHIASM_TO_NERVE
    assert volumes["optic_chiasm"] / nerves == pytest.approx(CHIASM_TO_NERVE)


def test_organs_that_are_not_asked_for_take_no_label_but_keep_their_place() -> None:
    """The image is the same, and so are the voxels of every organ that is asked for."""
    few = ("parotid_right", "lens_left")
    case, whole = load("phantom_000", organs=few), load("phantom_000")
    assert case.organs == few
    assert set(np.unique(case.labels)) == {0, 1, 2}
    np.testing.assert_array_equal(case.image_hu, whole.image_hu)
    for organ in few:
        np.testing.assert_array_equal(case.mask(organ), whole.mask(organ))


def test_labels_alone_are_those_of_the_case() -> None:
    data = PhantomDataset(spacing_mm=COARSE, organs=ALL_ORGANS, observer=1)
    np.testing.assert_array_equal(data.load_labels("phantom_000"), load("phantom_000", observer=1).labels)


def test_a_profile_can_ask_for_organs_and_grid() -> None:
    data = open_dataset("phantom", None, {"test": 1}, ("lens_left",), phantom_spacing_mm=(6, 6, 6))
    assert (data.organs, data.load("phantom_000").spacing_mm) == (("lens_left",), (6.0, 6.0, 6.0))
    with pytest.raises(ConfigError, match="unknown organ of dataset phantom 'cochlea_left'"):
        open_dataset("phantom", None, None, ("cochlea_left",))


@pytest.mark.parametrize("name", CASES)
def test_sides_and_order_along_each_axis(name: str) -> None:
    """X points to the patient's right, Y anterior, Z superior."""
    case = load(name)
    at = {organ: centre_mm(case, organ) for organ in case.organs}
    for organ in ("optic_nerve", "parotid", "submandibular", "lens"):
        assert at[f"{organ}_right"][0] - at[f"{organ}_left"][0] > 20
    assert at["optic_nerve_left"][0] < at["optic_chiasm"][0] < at["optic_nerve_right"][0]
    for side in ("left", "right"):
        assert at[f"lens_{side}"][1] > at[f"optic_nerve_{side}"][1] + 10 > at["optic_chiasm"][1] + 20
        assert at[f"parotid_{side}"][1] < at["mandible"][1]
        assert at["brainstem"][2] > at[f"parotid_{side}"][2] > at[f"submandibular_{side}"][2]
    assert at["mandible"][1] > at["brainstem"][1] + 20
    assert at["optic_chiasm"][2] > at["brainstem"][2] > at["mandible"][2] > at["spinal_cord"][2]


@pytest.mark.parametrize("name", CASES)
def test_optic_nerves_lead_from_the_chiasm_to_the_eyes(name: str) -> None:
    """On a grid of 4 mm a chiasm of few voxels may end short of the nerve; that they meet is tested on the anatomy."""
    case = load(name)
    for side in ("left", "right"):
        nerve = np.argwhere(case.mask(f"optic_nerve_{side}")) * case.spacing_mm
        assert np.linalg.norm(nerve - centre_mm(case, "optic_chiasm"), axis=1).min() < 35
        assert np.ptp(nerve[:, 1]) >= 16
        lens = centre_mm(case, f"lens_{side}")
        assert np.linalg.norm(nerve - lens, axis=1).min() < 35


@pytest.mark.parametrize("name", CASES)
def test_hu_lie_where_measured_ct_has_them(name: str) -> None:
    """Means within three SD over patients of OpenKBP, and 20 HU for the surroundings in rim voxels of 4 mm."""
    case = load(name)
    hu = case.image_hu
    assert hu.min() >= -1024
    assert 1500 < hu.max() <= 3071
    corner = hu[:4, :4, -4:]
    assert -1010 < corner.mean() < -980
    for organ in case.organs:
        measured = statistics()["ct"]["organs"].get(organ)
        mean, sd = measured["mean_hu"] if measured else (30.0, 20.0)
        assert abs(hu[case.mask(organ)].mean() - mean) < 3 * sd + 20, organ


def test_small_organs_are_faint_but_visible() -> None:
    """The chiasm lies a few tens of HU above its surroundings, about the noise of one voxel."""
    steps = []
    for name in CASES:
        case = load(name)
        mask = case.mask("optic_chiasm")
        ring = ndimage.binary_dilation(mask, NEIGHBOURS_26) & (case.labels == 0)
        steps.append(case.image_hu[mask].mean() - np.median(case.image_hu[ring]))
    assert 4 < np.mean(steps) < 40


def test_two_observers_see_one_scan_and_draw_two_outlines() -> None:
    one, other = load("phantom_000"), load("phantom_000", observer=1)
    np.testing.assert_array_equal(one.image_hu, other.image_hu)
    for organ in ALL_ORGANS:
        assert 0.6 < dsc(one.mask(organ), other.mask(organ)) < 1 or one.mask(organ).sum() < 60, organ


def test_two_observers_agree_as_two_real_ones_do() -> None:
    """Mean DSC over five cases within 0.06 of the real mean, for organs that are thick on a grid of 4 mm."""
    for organ in THICK:
        found = np.mean([dsc(load(n).mask(organ), load(n, observer=1).mask(organ)) for n in CASES])
        assert found == pytest.approx(statistics()["observer_dsc"][organ][0], abs=0.06), organ


def test_the_observers_field_is_smooth_and_of_unit_spread() -> None:
    points = tuple(np.meshgrid(*(np.arange(0, 120, 3, dtype=np.float32),) * 3, indexing="ij", sparse=True))
    corners = np.array([[0.0, 0.0, 0.0], [120.0, 120.0, 120.0]])
    found = observer_field(np.random.default_rng(0), points, corners)
    assert found.shape == (40, 40, 40)
    assert 0.75 < found.std() < 1.25
    assert np.corrcoef(found[1:].ravel(), found[:-1].ravel())[0, 1] > 0.8


@pytest.mark.parametrize("name", CASES)
def test_the_head_is_surrounded_by_air_and_the_neck_is_cut(name: str) -> None:
    """Shoulders may reach the border, the head does not."""
    head = ndimage.binary_opening(load(name).image_hu > -400)
    upper = head[:, :, head.shape[2] // 2 :]
    for edge in (upper[0], upper[-1], upper[:, -1]):
        assert not edge.any()
    assert head[:, :, 0].any()
    assert 0.2 < head.mean() < 0.55


def test_another_spacing_shows_the_same_anatomy() -> None:
    coarse, fine = load("phantom_000"), load("phantom_000", (2.0, 2.0, 2.5))
    assert fine.image_hu.shape[:2] == (102, 126)
    for organ in coarse.organs:
        assert volume_ml(fine, organ) == pytest.approx(volume_ml(coarse, organ), rel=0.06, abs=0.1), organ
        assert ndimage.label(fine.mask(organ), NEIGHBOURS_26)[1] == 1, organ
        # The cord is cut by the scan, and how wide it is at either end is decided by few voxels.
        axes = slice(0, 2) if organ == "spinal_cord" else slice(None)
        assert np.linalg.norm((centre_mm(coarse, organ) - centre_mm(fine, organ))[axes]) < 3, organ


@pytest.mark.parametrize("spacing", [(6.0, 6.0, 6.0), (0.8, 6.0, 6.0)])
def test_every_organ_survives_the_limits_of_spacing(spacing: tuple[float, float, float]) -> None:
    case = load("phantom_002", spacing)
    for organ in case.organs:
        assert ndimage.label(case.mask(organ), NEIGHBOURS_26)[1] == 1


def test_labels_of_a_thin_organ_gain_voxels_until_they_touch() -> None:
    """Two blobs at 0.9 with a bridge at 0.2: four voxels asked for, five given."""
    fraction = np.zeros((1, 1, 7), np.float32)
    fraction[0, 0, 1:6] = [0.9, 0.9, 0.2, 0.9, 0.9]
    mask = largest(fraction, -fraction, np.ones(fraction.shape, bool), 4)
    assert mask[0, 0].tolist() == [False, True, True, True, True, True, False]


def test_voxels_that_join_nothing_are_not_taken() -> None:
    """Between two blobs of 0.9 a bridge of 0.2; a voxel of 0.3 apart from both is no part of it."""
    fraction = np.zeros((1, 4, 7), np.float32)
    fraction[0, 0, 1:6] = [0.9, 0.9, 0.2, 0.9, 0.9]
    fraction[0, 1, 5] = 0.3
    mask = largest(fraction, -fraction, np.ones(fraction.shape, bool), 4)
    assert np.argwhere(mask)[:, 1].max() == 0
    assert mask.sum() == 5


def test_labels_take_free_voxels_only() -> None:
    """The best voxel belongs to another organ: the next best is taken."""
    fraction = np.array([[[0.9, 0.8, 0.7, 0.1]]], np.float32)
    mask = largest(fraction, -fraction, np.array([[[False, True, True, True]]]), 2)
    assert mask[0, 0].tolist() == [False, True, True, False]


def test_signed_distances_by_hand() -> None:
    """A ball of 10 mm, a tube of 2 mm, an ellipsoid on its axes: exact values."""
    x, y, z = (np.array(v, np.float32) for v in ([0.0, 13.0, 6.0], [0.0, 0.0, 8.0], [4.0, 0.0, 0.0]))
    np.testing.assert_allclose(ellipsoid_distance((x, y, z), ((0, 0, 0),), (10, 10, 10)), [-6, 3, 0], atol=1e-5)
    tube = ellipsoid_distance((x, y, z), ((0, 0, 0), (10, 0, 0)), (2, 2, 2))
    np.testing.assert_allclose(tube, [2, 1, 6], atol=1e-5)
    on_surface = ellipsoid_distance((x[1:2], y[1:2], z[1:2]), ((0, 0, 0),), (13, 5, 2))
    np.testing.assert_allclose(on_surface, [0], atol=1e-5)


def test_a_tube_grows_along_its_line() -> None:
    """Radius 1 at 0 mm and 3 mm at 10 mm: halfway it is 2."""
    x, y, z = (np.array(v, np.float32) for v in ([5.0, 5.0], [0.0, 6.0], [0.0, 0.0]))
    tube = np.array([[0.0, 0, 0, 1], [10, 0, 0, 3]])
    np.testing.assert_allclose(tube_distance((x, y, z), tube), [-2, 4], atol=1e-5)


def test_the_chiasm_begins_where_the_nerves_end() -> None:
    curves = draw_anatomy(np.random.default_rng(5)).curves
    for arm, side in zip(curves["optic_chiasm"], ("left", "right"), strict=True):
        np.testing.assert_allclose(arm[0, :3], curves[f"optic_nerve_{side}"][0][0, :3])
        assert arm[-1, 0] * arm[0, 0] < 0  # it crosses to the other side


def test_an_outline_that_wanders_keeps_the_volume_of_a_ball() -> None:
    """Radius 6 mm, wander of SD 1 mm: without the correction a ball grows by about a twelfth, 3 (1 / 6) ** 2."""
    x, y, z = np.meshgrid(*(np.arange(-12, 12.1, 0.5, dtype=np.float32),) * 3, indexing="ij")
    distance = np.sqrt(x**2 + y**2 + z**2) - np.float32(6)
    corners = np.array([[-6.0, -6.0, -6.0], [6.0, 6.0, 6.0]])
    fields = [observer_field(np.random.default_rng(k), (x, y, z), corners) for k in range(40)]
    both = [sign * field for field in fields for sign in (np.float32(1), np.float32(-1))]
    raw = np.mean([(distance + wander < 0).mean() for wander in both]) / (distance < 0).mean()
    corrected = np.mean([(unbiased(distance, wander) < 0).mean() for wander in both]) / (distance < 0).mean()
    assert raw > 1.06
    assert corrected == pytest.approx(1, abs=0.015)


def test_the_drawn_head_follows_the_organs() -> None:
    """Undoing the displacement of a case brings its organs back to within 5 mm of their mean places."""
    anatomy = draw_anatomy(np.random.default_rng(3))
    back = Displacement(anatomy).undo(anatomy.marks_mm)
    before = np.linalg.norm(anatomy.marks_mm - anatomy.mean_marks_mm, axis=1)
    after = np.linalg.norm(back - anatomy.mean_marks_mm, axis=1)
    assert after.max() < 5
    assert after.mean() < before.mean() / 3


def test_digest_changes_with_every_parameter_and_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [PhantomDataset().digest(), PhantomDataset(seed=1).digest(), PhantomDataset({"train": 3}).digest()]
    digests.append(PhantomDataset(spacing_mm=(4, 4, 4)).digest())
    digests += [PhantomDataset(organs=("mandible",)).digest(), PhantomDataset(observer=1).digest()]
    assert PhantomDataset().digest() == digests[0]
    monkeypatch.setattr(phantom, "VERSION", phantom.VERSION + 1)
    digests.append(PhantomDataset().digest())
    assert len(set(digests)) == 7


def test_it_can_be_sent_to_another_process() -> None:
    data = PhantomDataset({"train": 1}, seed=3)
    assert pickle.loads(pickle.dumps(data)) == data
    assert hash(data) == hash(PhantomDataset({"train": 1}, seed=3))


def test_later_changes_of_the_argument_do_not_reach_the_data_set() -> None:
    counts = {"train": 1}
    data = PhantomDataset(counts)
    counts["train"] = 5
    assert data.split()["train"] == ("phantom_000",)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"num_cases": {"trian": 3}}, "unknown split 'trian': did you mean 'train'"),
        ({"num_cases": {"train": -1}}, "number of train cases is -1"),
        ({"num_cases": {"train": 2.5}}, "number of train cases is 2.5"),
        ({"num_cases": {"train": True}}, "number of train cases is True"),
        ({"num_cases": {"train": 0}}, "no case is asked for"),
        ({"num_cases": {}}, "no case is asked for"),
        ({"num_cases": 5}, "write a number for each split"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": "0"}, "seed is '0'"),
        ({"observer": -1}, "observer is -1"),
        ({"organs": ("mandibel",)}, "unknown organ of the phantom 'mandibel': did you mean 'mandible'"),
        ({"spacing_mm": (4, 4)}, "three numbers from 0.8 to 6.0"),
        ({"spacing_mm": 4}, "three numbers from 0.8 to 6.0"),
        ({"spacing_mm": (4, 4, 0)}, "three numbers from 0.8 to 6.0"),
        ({"spacing_mm": (4, 4, 20)}, "three numbers from 0.8 to 6.0"),
        ({"spacing_mm": (4, 4, float("nan"))}, "three numbers from 0.8 to 6.0"),
        ({"spacing_mm": (4, 4, "3")}, "three numbers from 0.8 to 6.0"),
    ],
)
def test_bad_parameters_are_refused_in_one_line(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PhantomDataset(**arguments)  # type: ignore[arg-type]
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_case_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="unknown phantom case 'phantom_0001': did you mean 'phantom_001'"):
        PhantomDataset().load("phantom_0001")
