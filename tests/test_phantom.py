"""The phantom: reproducible, anatomically ordered, of stated volumes, and shaped as a data set should be."""

from __future__ import annotations

import pickle
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from hnlib.cases import SPLITS, Case, Dataset
from hnlib.datasets import phantom
from hnlib.datasets.phantom import VOLUME_LOG_SD, VOLUMES_ML, PhantomDataset
from hnlib.errors import ConfigError

CASES = tuple(f"phantom_{i:03d}" for i in range(5))
NEIGHBOURS_26 = np.ones((3, 3, 3), bool)


@cache
def load(name: str, spacing_mm: tuple[float, float, float] = (4.0, 4.0, 3.0), seed: int = 0) -> Case:
    return PhantomDataset(seed=seed, spacing_mm=spacing_mm).load(name)


def centre_mm(case: Case, organ: str) -> np.ndarray:
    return np.argwhere(case.mask(organ)).mean(axis=0) * case.spacing_mm


def volume_ml(case: Case, organ: str) -> float:
    return float(case.mask(organ).sum() * np.prod(case.spacing_mm) / 1000)


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
    case = load("phantom_000")
    assert case.name == "phantom_000"
    assert case.spacing_mm == (4.0, 4.0, 3.0)
    assert case.image_hu.shape == case.labels.shape == (52, 60, 88)
    assert (case.image_hu.dtype, case.labels.dtype) == (np.float32, np.uint8)
    assert case.labelled == frozenset(case.organs)


def test_the_same_name_gives_the_same_case_bit_for_bit() -> None:
    again = PhantomDataset().load("phantom_001")
    np.testing.assert_array_equal(again.image_hu, load("phantom_001").image_hu)
    np.testing.assert_array_equal(again.labels, load("phantom_001").labels)


def test_a_case_does_not_depend_on_the_number_of_cases() -> None:
    alone = PhantomDataset({"test": 2}).load("phantom_001")
    np.testing.assert_array_equal(alone.image_hu, load("phantom_001").image_hu)


@pytest.mark.parametrize("other", [("phantom_001", 0), ("phantom_000", 1)])
def test_another_name_or_seed_gives_another_anatomy(other: tuple[str, int]) -> None:
    a, b = load("phantom_000"), load(other[0], seed=other[1])
    assert (a.labels != b.labels).sum() > 200
    assert all(abs(centre_mm(a, organ) - centre_mm(b, organ)).max() > 0.1 for organ in a.organs)


def test_the_global_generator_is_left_alone() -> None:
    state = np.random.get_state()[1].copy()
    PhantomDataset(spacing_mm=(6, 6, 6)).load("phantom_000")
    np.testing.assert_array_equal(state, np.random.get_state()[1])


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("organ", VOLUMES_ML)
def test_every_organ_is_one_component_of_its_stated_volume(name: str, organ: str) -> None:
    """The bound is two SD of the drawn volume, plus 2 % or, where it is more, two voxels."""
    case = load(name)
    assert ndimage.label(case.mask(organ), NEIGHBOURS_26)[1] == 1
    voxel_ml = float(np.prod(case.spacing_mm) / 1000)
    ratio = volume_ml(case, organ) / VOLUMES_ML[organ]
    slack = max(0.02, 2 * voxel_ml / VOLUMES_ML[organ])
    assert np.exp(-2 * VOLUME_LOG_SD) - slack <= ratio <= np.exp(2 * VOLUME_LOG_SD) + slack


def test_small_organs_are_as_small_as_in_the_paper() -> None:
    """Mandible to chiasm 99 : 1, to the optic nerves 75 and 83 : 1 (ratio vector of the paper's code)."""
    ratio = {organ: VOLUMES_ML["mandible"] / ml for organ, ml in VOLUMES_ML.items()}
    expected = {"optic_chiasm": 6.28756285e-04 / 6.34431839e-06, "optic_nerve_left": 6.28756285e-04 / 8.39114189e-06}
    expected["optic_nerve_right"] = 6.28756285e-04 / 7.53879547e-06
    for organ, value in expected.items():
        assert ratio[organ] == pytest.approx(value, rel=0.01)


@pytest.mark.parametrize("name", CASES)
def test_sides_and_order_along_each_axis(name: str) -> None:
    """X points to the patient's right, Y anterior, Z superior."""
    case = load(name)
    at = {organ: centre_mm(case, organ) for organ in case.organs}
    for organ in ("optic_nerve", "parotid"):
        assert at[f"{organ}_right"][0] - at[f"{organ}_left"][0] > 20
    assert at["optic_nerve_left"][0] < at["optic_chiasm"][0] < at["optic_nerve_right"][0]
    for side in ("left", "right"):
        assert at[f"optic_nerve_{side}"][1] > at["optic_chiasm"][1] + 10
        assert at[f"parotid_{side}"][1] < at["mandible"][1]
    assert at["optic_chiasm"][1] > at["brainstem"][1] + 5
    assert at["mandible"][1] > at["brainstem"][1] + 20
    assert at["optic_chiasm"][2] > at["brainstem"][2] > at["parotid_left"][2] > at["mandible"][2]


@pytest.mark.parametrize("name", CASES)
def test_optic_nerves_end_at_the_chiasm_and_reach_the_eyes(name: str) -> None:
    case = load(name)
    chiasm = np.argwhere(case.mask("optic_chiasm")) * case.spacing_mm
    for side in ("left", "right"):
        nerve = np.argwhere(case.mask(f"optic_nerve_{side}")) * case.spacing_mm
        gap = np.linalg.norm(nerve[:, None] - chiasm[None], axis=2)
        assert gap.min() <= 12
        assert gap.min(axis=1).max() > 25
        assert np.ptp(nerve[:, 1]) >= 24


@pytest.mark.parametrize("name", CASES)
def test_hu_lie_where_a_radiographer_expects_them(name: str) -> None:
    case = load(name)
    hu = case.image_hu
    assert hu.min() >= -1024
    assert 1500 < hu.max() <= 3071
    corner = hu[:4, :4, -4:]
    assert -1010 < corner.mean() < -980
    assert 10 < corner.std() < 25
    bounds = {"brainstem": (25, 60), "parotid_left": (-40, 25), "parotid_right": (-40, 25), "mandible": (500, 1300)}
    for organ in case.organs:
        low, high = bounds.get(organ, (0, 60))
        assert low < hu[case.mask(organ)].mean() < high


def test_small_organs_are_faint_but_visible() -> None:
    """The chiasm lies a few tens of HU above its surroundings, about the noise of one voxel."""
    steps = []
    for name in CASES:
        case = load(name)
        mask = case.mask("optic_chiasm")
        ring = ndimage.binary_dilation(mask, NEIGHBOURS_26) & (case.labels == 0)
        steps.append(case.image_hu[mask].mean() - np.median(case.image_hu[ring]))
    assert 8 < np.mean(steps) < 40


@pytest.mark.parametrize("name", CASES)
def test_the_head_is_surrounded_by_air_and_the_neck_is_cut(name: str) -> None:
    case = load(name)
    head = ndimage.binary_opening(case.image_hu > -400)
    for edge in (head[0], head[-1], head[:, 0], head[:, -1], head[:, :, -1]):
        assert not edge.any()
    assert head[:, :, 0].any()
    assert 0.25 < head.mean() < 0.55


def test_another_spacing_shows_the_same_anatomy() -> None:
    coarse, fine = load("phantom_000"), load("phantom_000", (2.0, 2.0, 2.5))
    assert fine.image_hu.shape == (104, 120, 106)
    corner = [np.array(case.labels.shape) * case.spacing_mm / 2 for case in (coarse, fine)]
    for organ in coarse.organs:
        assert volume_ml(fine, organ) == pytest.approx(volume_ml(coarse, organ), rel=0.02, abs=0.1)
        assert ndimage.label(fine.mask(organ), NEIGHBOURS_26)[1] == 1
        a, b = (
            centre_mm(c, organ) + np.array(c.spacing_mm) / 2 - o for c, o in zip((coarse, fine), corner, strict=True)
        )
        assert np.linalg.norm(a - b) < 2.5


@pytest.mark.parametrize("spacing", [(6.0, 6.0, 6.0), (0.8, 6.0, 6.0)])
def test_every_organ_survives_the_limits_of_spacing(spacing: tuple[float, float, float]) -> None:
    case = load("phantom_002", spacing)
    for organ in case.organs:
        assert case.mask(organ).sum() >= 2
        assert ndimage.label(case.mask(organ), NEIGHBOURS_26)[1] == 1


def test_labels_of_a_thin_organ_gain_voxels_until_they_touch() -> None:
    """Two blobs at 0.9 with a bridge at 0.2: four voxels asked for, five given."""
    fraction = np.zeros((1, 1, 7), np.float32)
    fraction[0, 0, 1:6] = [0.9, 0.9, 0.2, 0.9, 0.9]
    mask = phantom._largest(fraction, -fraction, np.ones(fraction.shape, bool), 4)
    assert mask[0, 0].tolist() == [False, True, True, True, True, True, False]


def test_signed_distances_by_hand() -> None:
    """A ball of 10 mm, a tube of 2 mm, an ellipsoid on its axes: exact values."""
    x, y, z = (np.array(v, np.float32) for v in ([0.0, 13.0, 6.0], [0.0, 0.0, 8.0], [4.0, 0.0, 0.0]))
    np.testing.assert_allclose(phantom._distance((x, y, z), ((0, 0, 0),), (10, 10, 10)), [-6, 3, 0], atol=1e-5)
    tube = phantom._distance((x, y, z), ((0, 0, 0), (10, 0, 0)), (2, 2, 2))
    np.testing.assert_allclose(tube, [2, 1, 6], atol=1e-5)
    on_surface = phantom._distance((x[1:2], y[1:2], z[1:2]), ((0, 0, 0),), (13, 5, 2))
    np.testing.assert_allclose(on_surface, [0], atol=1e-5)


def test_digest_changes_with_every_parameter_and_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [PhantomDataset().digest(), PhantomDataset(seed=1).digest(), PhantomDataset({"train": 3}).digest()]
    digests.append(PhantomDataset(spacing_mm=(4, 4, 4)).digest())
    assert PhantomDataset().digest() == digests[0]
    monkeypatch.setattr(phantom, "VERSION", phantom.VERSION + 1)
    digests.append(PhantomDataset().digest())
    assert len(set(digests)) == 5


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
