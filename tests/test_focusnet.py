"""FocusNet as a system: small organs, heat maps, gate, fusion, losses, and training from stage to stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hnlib.errors import ConfigError
from hnlib.experiments import load_experiment, load_profile
from hnlib.losses import build_loss
from hnlib.networks import plan_topology
from hnlib.networks.focusnet import Focused
from hnlib.preprocess import Plan, Prepared
from hnlib.sampling import centre_rule
from hnlib.systems import Blueprint, Material, build_system, train_system
from hnlib.systems.focusnet import FocusNetSystem
from hnlib.systems.focusnet_fusion import FocusPredictor, Found, Look, fuse, localisation
from hnlib.systems.focusnet_losses import HeatLoss, RoiLoss, heat_targets
from hnlib.systems.focusnet_statistics import OrganSize, SmallRule, organ_sizes, roi_voxels, small_organs
from hnlib.systems.system import Stage, Weights
from hnlib.training import Settings, open_fabric

SPACING = (2.0, 2.0, 2.5)
ORGANS = ("brainstem", "lens_left", "lens_right")
PATCH = (16, 16, 16)
PROFILES = ("laptop-focus", "phantom-focus")


def prepared(name: str = "a", **boxes: tuple[int, int, int, int]) -> Prepared:
    """Return a case of 20 x 18 x 16 voxels with cubes (x, y, z, side), brighter than the rest."""
    labels = np.zeros((20, 18, 16), np.uint8)
    for organ, (x, y, z, side) in boxes.items():
        labels[x : x + side, y : y + side, z : z + side] = ORGANS.index(organ) + 1
    rng = np.random.default_rng(len(name))
    image = (rng.normal(0, 0.1, labels.shape) + np.array([0, 1, 2, -2])[labels]).astype(np.float32)
    box = tuple((0, n) for n in labels.shape)
    return Prepared(name, image, labels, float(image.min()), box, (20, 18, 16), SPACING, frozenset(ORGANS))


CASES = [
    prepared("a", brainstem=(8, 6, 4, 6), lens_left=(4, 12, 10, 3), lens_right=(13, 12, 10, 3)),
    prepared("bb", brainstem=(7, 6, 5, 6), lens_left=(5, 12, 9, 3), lens_right=(14, 12, 9, 3)),
]


def blueprint(**options: Any) -> Blueprint:
    plan = Plan(SPACING, (20, 18, 16), (-100, 200), 0.0, 1.0, ORGANS)
    given = {"below_voxels": 100, "dilations": (1, 2), **options}
    return Blueprint("snet", 4, 8, plan_topology(PATCH, SPACING), PATCH, plan, system="focusnet", options=given)


@pytest.fixture
def system() -> FocusNetSystem:
    found = build_system(blueprint())
    assert isinstance(found, FocusNetSystem)
    return found


# Small organs and ROIs.


def test_sizes_are_means_over_the_cases_that_have_the_organ() -> None:
    cases = [prepared("a", lens_left=(1, 1, 1, 2)), prepared("b", lens_left=(1, 1, 1, 4)), prepared("c")]
    stem, left, right = organ_sizes(cases, ORGANS, SPACING)
    assert (left.cases, left.voxels, left.extent_mm) == (2, 36, (6, 6, 7.5))
    assert left.volume_ml == pytest.approx(0.36)
    assert left.diameter_mm == pytest.approx(6.5)
    assert (stem.cases, right.voxels) == (0, 0)


def size(organ: str, voxels: float, ml: float, longest: float) -> OrganSize:
    return OrganSize(organ, 1, 5, voxels, ml, (10, 10, longest))


def test_rule_takes_the_organs_below_the_count_that_are_not_long() -> None:
    sizes = [size("mandible", 9000, 60, 90), size("optic_nerve_left", 300, 0.7, 34), size("spinal_cord", 500, 20, 170)]
    assert [s.organ for s in small_organs(sizes, SmallRule())] == ["optic_nerve_left", "spinal_cord"]
    assert [s.organ for s in small_organs(sizes, SmallRule(longest_mm=80))] == ["optic_nerve_left"]
    assert [s.organ for s in small_organs(sizes, SmallRule(1e9, below_ml=30))] == ["optic_nerve_left", "spinal_cord"]
    assert [s.organ for s in small_organs(sizes, SmallRule(), ["mandible"])] == ["mandible"]


def test_no_small_organ_and_an_organ_that_never_occurs_are_told() -> None:
    never = OrganSize("lens_left", 2, 0, 0, 0, (0, 0, 0))
    big = size("mandible", 9000, 60, 90)
    with pytest.raises(ConfigError, match=r"no organ is small .* \(the smallest, mandible, has 9000 voxels\)"):
        small_organs([big, never], SmallRule())
    with pytest.raises(ConfigError, match="'lens_left' is in no training case"):
        small_organs([big, never], SmallRule(), ["lens_left"])
    with pytest.raises(ConfigError, match="'eye' is none of mandible, lens_left"):
        small_organs([big, never], SmallRule(), ["eye"])


def test_roi_is_so_many_diameters_wide_and_no_wider_than_the_patch() -> None:
    ball = size("pituitary", 200, 1, 10)
    assert roi_voxels(ball, 2, SPACING, (40, 40, 32)) == (10, 10, 8)
    assert roi_voxels(ball, 3, SPACING, (40, 40, 32)) == (15, 15, 12)
    assert roi_voxels(ball, 5, SPACING, (40, 24, 16)) == (25, 24, 16)


# Heat maps.


def test_heat_map_is_highest_at_the_centroid_on_an_anisotropic_grid() -> None:
    """An even cube has its centroid between voxels: the eight around it share the maximum. One SD away: exp(-1/2)."""
    target = torch.zeros(1, 12, 12, 12, dtype=torch.long)
    target[0, 4:7, 5:8, 3:8] = 1  # centroid 5, 6, 5
    target[0, 9:11, 9:11, 9:11] = 2  # centroid 9.5, 9.5, 9.5
    heat, known = heat_targets(target, [1, 2], (1.0, 2.0, 5.0), 5.0)
    assert known.tolist() == [[True, True]]
    assert heat[0, 0, 5, 6, 5] == heat[0, 0].max() == 1
    for place in ((10, 6, 5), (5, 6, 6)):  # 5 mm along X, 5 mm along Z
        assert heat[0, 0][place] == pytest.approx(np.exp(-0.5))
    assert heat[0, 0, 5, 8, 5] == pytest.approx(np.exp(-16 / 50))  # 4 mm along Y
    assert torch.nonzero(heat[0, 1] == heat[0, 1].max()).tolist() == [
        [x, y, z] for x in (9, 10) for y in (9, 10) for z in (9, 10)
    ]
    assert float(heat[heat > 0].min()) > 0.01


def test_absent_organ_has_a_map_of_zeros_and_one_cut_by_the_border_no_loss() -> None:
    target = torch.zeros(2, 8, 8, 8, dtype=torch.long)
    target[1, 0:2, 3:5, 3:5] = 1
    heat, known = heat_targets(target, [1], SPACING, 5.0)
    assert known.tolist() == [[True], [False]]
    assert not heat[0].any()
    loss = HeatLoss([1], SPACING)
    flat = torch.full((2, 1, 8, 8, 8), 0.5)
    assert loss(flat, target) == pytest.approx(0.25)  # of the first sample alone, against zeros
    assert loss(flat, target, torch.tensor([[True, False], [True, True]])) == 0


@pytest.mark.parametrize("power", [0.5, 1])
def test_heat_loss_by_hand(power: float) -> None:
    """A map of zeros: sum of w t^2 over sum of w, w a power of negatives over positives at the positives."""
    target = torch.zeros(1, 9, 9, 9, dtype=torch.long)
    target[0, 4, 4, 4] = 1
    wanted, _ = heat_targets(target, [1], SPACING, 2.0)
    positives = int((wanted > 0).sum())
    weight = ((729 - positives) / positives) ** power
    by_hand = weight * float((wanted**2).sum()) / (weight * positives + 729 - positives)
    loss = HeatLoss([1], SPACING, 2.0, power=power)
    assert float(loss(torch.zeros_like(wanted), target)) == pytest.approx(by_hand, rel=1e-5)
    plain = HeatLoss([1], SPACING, 2.0, power=0)
    assert float(plain(torch.zeros_like(wanted), target)) == pytest.approx(float((wanted**2).mean()), rel=1e-5)
    assert float(plain(wanted, target)) == 0


# Losses in the ROIs.


def focused(rois: tuple[Tensor, ...], starts: list[list[list[int]]]) -> Focused:
    return Focused(torch.zeros(1, 2, 8, 8, 8), torch.zeros(1, len(rois), 8, 8, 8), torch.tensor(starts), rois)


def test_absent_organ_gives_no_loss_in_its_roi() -> None:
    """Neither where the patch has none of it, nor where SOL-Net put the ROI elsewhere, nor where nobody outlined it."""
    loss = RoiLoss([build_loss("ce")] * 2, [1, 2])
    target = torch.zeros(1, 8, 8, 8, dtype=torch.long)
    target[0, 5:7, 5:7, 5:7] = 2
    logits = torch.zeros(1, 1, 3, 3, 3, requires_grad=True), torch.zeros(1, 1, 3, 3, 3, requires_grad=True)
    missed = loss(focused(logits, [[[0, 0, 0], [0, 0, 0]]]), target)
    assert missed.item() == 0
    missed.backward()
    assert logits[0].grad is not None
    assert not logits[0].grad.any()
    there = focused(logits, [[[5, 5, 5], [5, 5, 5]]])
    assert loss(there, target).item() == pytest.approx(np.log(2))  # of organ 2 alone
    assert loss(there, target, torch.tensor([[True, True, False]])).item() == 0


def test_roi_target_is_cut_where_the_roi_lies() -> None:
    """Logits that are right at the ROI's own place cost nothing."""
    target = torch.zeros(1, 8, 8, 8, dtype=torch.long)
    target[0, 6, 5, 4] = 1
    logits = torch.full((1, 1, 3, 3, 3), -50.0)
    logits[0, 0, 6 - 5, 5 - 4, 4 - 3] = 50
    loss = RoiLoss([build_loss("ce")], [1])
    assert float(loss(focused((logits,), [[[5, 4, 3]]]), target)) == pytest.approx(0, abs=1e-6)


# Gate and fusion.


def probabilities(**organs: float) -> np.ndarray:
    """Return (3, 4, 4, 4) with the given probabilities of classes 1 and 2, the rest background."""
    one, two = organs.get("one", 0.0), organs.get("two", 0.0)
    volume = np.empty((3, 4, 4, 4), np.float32)
    volume[:] = np.array([1 - one - two, one, two])[:, None, None, None]
    return volume


def found(value: int, start: tuple[int, int, int], roi: np.ndarray | None, accepted: bool = True) -> Found:
    x, y, z = (1, 1, 1) if roi is None else roi.shape
    return Found(value, start, 0.9 if accepted else 0.1, accepted, start, (x, y, z), roi)


def test_small_network_has_the_word_inside_its_roi_and_only_there() -> None:
    """S-Net says organ 1 everywhere; the ROI says one voxel of it: inside that one is left, outside all."""
    main = probabilities(one=0.8, two=0.1)
    roi = np.full((2, 2, 2), 0.1, np.float32)
    roi[0, 0, 0] = 0.9
    result = fuse(main, [found(1, (1, 1, 1), roi)])
    np.testing.assert_allclose(result.sum(axis=0), 1, rtol=1e-5)
    inside = np.zeros((4, 4, 4), bool)
    inside[1:3, 1:3, 1:3] = True
    np.testing.assert_array_equal(result[:, ~inside], main[:, ~inside])
    assert result[:, 1, 1, 1] == pytest.approx([0.05, 0.9, 0.05])  # background and organ 2 were equal
    assert result[:, 2, 2, 2] == pytest.approx([0.5, 0, 0.5])  # the small network says no: 0.1 counts as 0
    assert (result.argmax(axis=0)[inside] == 1).sum() == 1


def test_a_shut_gate_or_an_empty_roi_leaves_the_main_network() -> None:
    main = probabilities(one=0.8)
    empty = np.full((2, 2, 2), 0.4, np.float32)
    np.testing.assert_array_equal(fuse(main, [found(1, (0, 0, 0), None, accepted=False)]), main)
    np.testing.assert_array_equal(fuse(main, [found(1, (0, 0, 0), empty)]), main)
    np.testing.assert_array_equal(fuse(main, []), main)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_organs_at_one_place_are_parted_by_the_higher_probability(order: tuple[int, int]) -> None:
    first, second = np.full((2, 2, 2), 0.9, np.float32), np.full((2, 2, 2), 0.6, np.float32)
    second[0, 0, 0] = 0.95
    both = [found(1, (1, 1, 1), first), found(2, (1, 1, 1), second)]
    result = fuse(probabilities(), [both[k] for k in order])
    np.testing.assert_allclose(result.sum(axis=0), 1, rtol=1e-5)
    labels = result.argmax(axis=0)
    assert labels[1, 1, 1] == 2
    assert (labels == 1).sum() == 7
    assert result[1, 2, 2, 2] == pytest.approx(0.9 / 1.5)


def test_what_the_small_network_denies_is_background_where_the_main_network_gave_it_all() -> None:
    roi = np.full((1, 1, 2), 0.2, np.float32)
    roi[0, 0, 1] = 0.7
    result = fuse(probabilities(one=1.0), [found(1, (0, 0, 0), roi)])
    assert result[:, 0, 0, 0] == pytest.approx([1, 0, 0])
    assert result[:, 0, 0, 1] == pytest.approx([0.3, 0.7, 0])


def test_no_organ_stands_where_its_own_network_says_no() -> None:
    """0.45 and 0.40 sum to more than what is left, 0.15; 0.45 alone is more than 0.275 each of two others."""
    first, second = np.full((1, 1, 2), 0.45, np.float32), np.full((1, 1, 2), 0.40, np.float32)
    first[0, 0, 1] = second[0, 0, 1] = 0.9  # both are seen somewhere
    both = [found(1, (0, 0, 0), first), found(2, (0, 0, 0), second)]
    assert fuse(probabilities(one=0.4, two=0.3), both)[:, 0, 0, 0] == pytest.approx([1, 0, 0])
    alone = fuse(probabilities(one=0.2, two=0.4), both[:1])
    assert alone[:, 0, 0, 0] == pytest.approx([0.5, 0, 0.5])


class Sure(nn.Module):
    """In the place of a small network: one logit everywhere."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit

    def forward(self, x: Tensor) -> Tensor:
        return torch.full_like(x[:, :1], self.logit)


@pytest.mark.parametrize(("bias", "accepted"), [(0.0, True), (-4.0, False)])
def test_gate_opens_at_the_height_of_the_peak(system: FocusNetSystem, bias: float, accepted: bool) -> None:
    """A heat map without a peak is 1/2 or 0.02 everywhere; the gate stands at 0.3."""
    network = system.untrained(CASES)
    nn.init.zeros_(network.sol[-1].weight)
    nn.init.constant_(network.sol[-1].bias, bias)
    network.sos[0], network.sos[1] = Sure(20), Sure(-20)
    predictor = FocusPredictor(network, PATCH, gate=0.3)
    result = predictor(CASES[0].image)
    assert [f.accepted for f in predictor.last.found] == [accepted] * 2
    assert (result[2] > 0.99).any() == accepted


def test_window_and_one_pass_agree_where_one_window_holds_the_scan(system: FocusNetSystem) -> None:
    network = system.untrained(CASES)
    image = CASES[0].image[:16, :16, :16]
    whole = FocusPredictor(network, PATCH, gate=0)(image)
    parts = FocusPredictor(network, PATCH, gate=0, largest_voxels=0)(image)
    np.testing.assert_allclose(whole, parts, atol=1e-5)


# The system.


def settings(steps: int, rate: float = 4e-3) -> Settings:
    return Settings(steps=steps, learning_rate=rate, validate_every=steps, checkpoint_every=steps, weight_decay=0)


LOSS = "weighted_focal+gao_dice(squared=true)"


def material(cases: list[Prepared]) -> Material:
    return Material(cases, [], ORGANS, centre_rule("nnunet"), LOSS, settings(2), 0, torch.device("cpu"))


def train(system: FocusNetSystem, folder: Path, cases: list[Prepared], steps: tuple[int, ...]) -> Weights:
    schedule = [Stage(name, settings(n), LOSS) for name, n in zip(system.stages, steps, strict=True)]
    fabric = open_fabric(1, "32-true")
    return train_system(system, schedule, material(cases), folder, fabric=fabric, identity={"run": "x"})[0]


def test_small_organs_come_from_training_labels_and_travel_with_the_weights(
    system: FocusNetSystem, tmp_path: Path
) -> None:
    """Stages leave what they do not train as it was; the predictor is rebuilt from the last state alone."""
    weights = train(system, tmp_path, CASES, (2, 2, 2, 2))
    assert weights["joint"]["values"].tolist() == [2, 3]
    assert weights["joint"]["roi_voxels"].tolist() == [[10, 10, 8]] * 2  # 3 x 6.5 mm

    def same(first: str, second: str, part: str) -> bool:
        a, b = weights[first], weights[second]
        return all(torch.equal(a[key], b[key]) for key in a if key.startswith(part))

    assert same("s_net", "sol_net", "snet.")
    assert same("s_net", "sol_net", "sos.")
    assert not same("s_net", "sol_net", "sol.")
    assert same("sol_net", "sos_net", "snet.")
    assert same("sol_net", "sos_net", "sol.")
    assert not same("sos_net", "joint", "snet.")
    assert not same("sos_net", "joint", "sol.")
    result = system.predictor({"joint": weights["joint"]})(CASES[0].image)
    assert result.shape == (4, 20, 18, 16)
    np.testing.assert_allclose(result.sum(axis=0), 1, rtol=1e-4)


@pytest.mark.slow
def test_scans_thinner_than_the_patch_are_trained_on_and_predicted(system: FocusNetSystem, tmp_path: Path) -> None:
    """The patch has 16 slices, scans of training 13, the one to predict 5."""

    def thin(case: Prepared, depth: int) -> Prepared:
        image, labels = (np.ascontiguousarray(whole[:, :, :depth]) for whole in (case.image, case.labels))
        box = tuple((0, n) for n in image.shape)
        return replace(case, image=image, labels=labels, box=box, native_shape=image.shape)

    weights = train(system, tmp_path, [thin(case, 13) for case in CASES], (2, 2, 2, 2))
    found = system.predictor(weights)(thin(CASES[0], 5).image)
    assert found.shape == (4, 20, 18, 5)
    assert np.allclose(found.sum(axis=0), 1, atol=1e-4)


def test_class_maps_before_and_after_the_fusion_are_kept(system: FocusNetSystem) -> None:
    """The small network of the left lens claims its whole ROI: that is what the fusion adds, and nothing else."""
    network = system.untrained(CASES)
    nn.init.constant_(network.sol[-1].bias, 0.0)
    network.sos[0], network.sos[1] = Sure(20), Sure(-20)
    predictor = FocusPredictor(network, PATCH, gate=0.3)
    result = predictor(CASES[0].image)
    look = predictor.last
    np.testing.assert_array_equal(look.after, result.argmax(axis=0))
    box = look.found[0].box
    assert look.found[0].size == network.sizes[0]
    assert (look.after[box] == 2).all()
    outside = np.ones(look.after.shape, bool)
    outside[box] = False
    np.testing.assert_array_equal(look.after[outside], look.before[outside])
    assert not (look.before[box] == 2).all()


def test_localisation_by_hand() -> None:
    """A lens of 27 voxels at 4..6: the centre 2 voxels of 2 mm off, the ROI from 5 holds 18 of them.

    S-Net marks 9 of it and, elsewhere, 4 that the largest component leaves out: DSC 2 x 9 / (27 + 9); fused all
    is right. Of an outlined organ without a voxel the gate is told, and nothing else.
    """
    case = prepared("a", lens_left=(4, 12, 10, 3))
    before = np.zeros(case.labels.shape, np.uint8)
    before[4, 12:15, 10:13], before[15, 1:5, 1] = 2, 2
    found = [
        Found(2, (7, 13, 11), 0.7, True, (5, 11, 9), (6, 6, 6)),
        Found(3, (1, 1, 1), 0.4, True, (0, 0, 0), (6, 6, 6)),
    ]
    told = localisation(Look(found, before, case.labels), case, blueprint().plan)
    assert told == {
        ("lens_left", "located"): 1.0,
        ("lens_left", "centre_peak"): 0.7,
        ("lens_left", "centre_error_mm"): 4.0,
        ("lens_left", "roi_recall"): pytest.approx(18 / 27),
        ("lens_left", "s_net_dsc"): pytest.approx(0.5),
        ("lens_left", "fused_dsc"): 1.0,
        ("lens_right", "located"): 1.0,
        ("lens_right", "centre_peak"): 0.4,
    }
    unknown = replace(case, labelled=frozenset({"lens_left"}))
    assert {name for name, _ in localisation(Look(found, before, before), unknown, blueprint().plan)} == {"lens_left"}


def test_unknown_options_are_told() -> None:
    with pytest.raises(ConfigError, match="unknown focusnet option 'rio': did you mean 'roi'"):
        build_system(blueprint(rio=3))
    with pytest.raises(ConfigError, match="focusnet: options: roi: is 0; a number of at least 1 is needed"):
        build_system(blueprint(roi=0))
    with pytest.raises(ConfigError, match="focusnet: options: gate: is 2; a number of at most 1 is needed"):
        build_system(blueprint(gate=2))
    with pytest.raises(ConfigError, match="small_organs: 'lens_left' is named 2 times; once is needed"):
        build_system(blueprint(small_organs=("lens_left", "lens_right", "lens_left")))


def test_a_main_network_that_is_not_s_net_is_refused() -> None:
    with pytest.raises(ConfigError, match="system focusnet: network is 'dynunet'; its own is snet, name that"):
        build_system(replace(blueprint(), network="dynunet"))


def test_an_organ_list_without_small_organs_is_refused_before_training() -> None:
    system = build_system(blueprint(below_voxels=1))
    with pytest.raises(ConfigError, match="no organ is small by the rule"):
        system.part("s_net", material(CASES), {})


def test_the_small_organs_and_their_rois_are_told_before_training() -> None:
    system = build_system(blueprint())
    told = system.notes(material(CASES))
    sizes = [" x ".join(map(str, size)) for size in system.untrained(CASES).sizes]  # type: ignore[attr-defined]
    assert [line.split(",")[0] for line in told] == [f"small: {ORGANS[value - 1]}" for value in (2, 3)]
    assert [line.split("ROI ")[1] for line in told] == [f"{size} voxels" for size in sizes]


def test_the_small_networks_are_trained_where_their_organs_are() -> None:
    """At 1, every patch of the stages after S-Net's holds a small organ, and of S-Net's some."""
    system = build_system(replace(blueprint(small_draw=1), patch=(8, 8, 8)))
    weights = {name: system.untrained(CASES).state_dict() for name in system.stages}  # type: ignore[attr-defined]

    def seen(stage: str) -> list[bool]:
        stream = system.part(stage, material(CASES), weights).stream
        batches = [stream.batch(step)[1] for step in range(10)]
        return [bool(torch.isin(labels, torch.tensor([2, 3])).any()) for batch in batches for labels in batch]

    assert not all(seen("s_net"))
    for stage in system.stages[1:]:
        assert all(seen(stage)), stage


@pytest.mark.parametrize("share", [0, 0.5])
def test_no_patch_of_the_small_networks_stage_is_wasted(share: float) -> None:
    """Whatever the draw of the other stages: without a small organ a ROI has nothing to teach."""
    system = build_system(replace(blueprint(small_draw=share), patch=(8, 8, 8)))
    weights = {name: system.untrained(CASES).state_dict() for name in system.stages}  # type: ignore[attr-defined]
    stream = system.part("sos_net", material(CASES), weights).stream
    batches = [stream.batch(step)[1] for step in range(10)]
    assert all(bool(torch.isin(labels, torch.tensor([2, 3])).any()) for batch in batches for labels in batch)


@pytest.mark.parametrize("name", ["focusnet", "focusnet_roi2", "focusnet_roi5"])
def test_experiments_have_the_stages_and_options_of_the_system(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.system == "focusnet"
    assert sum(stage.share for stage in experiment.stages) == pytest.approx(1)
    assert build_system(blueprint(**experiment.options)).options.longest_mm == 70


#: The rows of the ablation that change the loss, or have the one of before.
LOSSES = {"seres_unet_ce", "seres_3ds_ce", "seres_2ds_ce", "seres_1ds_ce", "seres_1ds_focal"}
#: The controls, and what each alone changes.
CONTROLS = {"snet_budget": {"more_steps"}, "snet_draw": {"centres"}, "snet_draw_four": {"centres"}}


def test_rivals_differ_from_s_net_in_network_alone_and_controls_in_one_thing() -> None:
    rivals = {name: load_experiment(name) for profile in PROFILES for name in load_profile(profile).all_experiments}
    first = rivals["snet"]
    shared = ("patch", "centres", "changes", "more_steps", "loss")
    for name, rival in rivals.items():
        changed = {field for field in shared if getattr(rival, field) != getattr(first, field)}
        assert changed == CONTROLS.get(name, {"loss"} if name in LOSSES else set()), name
        if name in CONTROLS:
            assert (rival.network, rival.options) == (first.network, first.options)


@pytest.mark.parametrize("profile", PROFILES)
def test_controls_have_the_steps_and_the_draw_of_focusnet(profile: str) -> None:
    """As many steps as its first stage; as many patches at small organs as its joint stage, each organ as often."""
    found, focusnet = load_profile(profile), load_experiment("focusnet")
    assert load_experiment("snet_budget").under(found).training == focusnet.schedule(found)[0].budget
    (name,) = [name for name in found.experiments("focusnet") if name.startswith("snet_draw")]
    centres = load_experiment(name).centres
    assert isinstance(centres, dict)
    assert set(centres) - {"uniform"} <= set(found.organs or ())
    share = focusnet.options["small_draw"]
    assert centres["uniform"] == pytest.approx(1 - share)
    others = [value for organ, value in centres.items() if organ != "uniform"]
    assert others == pytest.approx([share / len(others)] * len(others))
