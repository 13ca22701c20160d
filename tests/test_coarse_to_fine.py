"""Coarse to fine: views, boxes, fusion and fine masks, each against a brute force or a number worked by hand."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hnlib.errors import ConfigError, DataError
from hnlib.losses import build_loss
from hnlib.preprocess import Prepared
from hnlib.systems.coarse_to_fine import (
    VIEWS,
    Fusion,
    OrganBoxes,
    TargetBox,
    combine,
    fuse,
    label_box,
    outline,
    smallest_box,
    to_slices,
    to_volume,
    view_logits,
)
from hnlib.systems.coarse_to_fine.fusion import FusionStream, folds, informative
from hnlib.systems.coarse_to_fine.refinement import BoxStream
from hnlib.systems.coarse_to_fine.target_boxes import organ_mass
from hnlib.systems.coarse_to_fine.views import SliceStream, in_memory, turned_grid

ORGANS = ("parotid_left", "parotid_right")


def case(labels: np.ndarray, image: np.ndarray | None = None, labelled: tuple[str, ...] = ORGANS) -> Prepared:
    """Return a case of these labels."""
    x, y, z = labels.shape
    values = np.zeros(labels.shape, np.float32) if image is None else image
    return Prepared("made", values, labels, -1.0, ((0, x), (0, y), (0, z)), (x, y, z), (1, 1, 1), frozenset(labelled))


def two_cubes(shape: tuple[int, int, int] = (24, 16, 16)) -> np.ndarray:
    """Return labels with the left organ (1) at low x and the right one (2) at its mirror image."""
    labels = np.zeros(shape, np.uint8)
    labels[3:7, 5:9, 6:9] = 1
    return labels + 2 * labels[::-1]


# views


@pytest.mark.parametrize("view", VIEWS)
def test_slicing_and_stacking_is_the_identity(view: str) -> None:
    """A volume, and one of several classes, comes back from its slices voxel by voxel."""
    volume = np.random.default_rng(0).normal(size=(3, 4, 5))
    assert np.array_equal(to_volume(to_slices(volume, view), view), volume)
    classes = np.random.default_rng(1).normal(size=(2, 3, 4, 5))
    slices = np.stack([to_slices(one, view) for one in classes], axis=1)
    assert np.array_equal(to_volume(slices, view), classes)


def test_an_axial_slice_is_one_z() -> None:
    volume = np.arange(60).reshape(3, 4, 5)
    assert np.array_equal(to_slices(volume, "axial")[2], volume[:, :, 2])
    assert np.array_equal(to_slices(volume, "coronal")[1], volume[:, 1, :])
    assert np.array_equal(to_slices(volume, "sagittal")[0], volume[0])


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_predicts_each_slice_by_itself(view: str) -> None:
    """A network that marks bright pixels marks the bright voxels, in whatever view; sides need not divide."""

    class Bright(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert all(n % 8 == 0 for n in x.shape[2:])
            return torch.cat([-x, x], dim=1)

    image = np.random.default_rng(2).normal(size=(5, 9, 17)).astype(np.float32)
    found = view_logits(Bright(), image, view, slices_at_once=3)
    assert found.shape == (2, 5, 9, 17)
    assert np.allclose(np.exp(found).sum(axis=0), 1, atol=1e-5)
    assert np.array_equal(found.argmax(axis=0), image > 0)


def test_cases_of_several_sizes_get_one_canvas() -> None:
    """Padded behind, with the lowest value and background, to sides that divide by 8."""
    small, large = case(np.ones((3, 8, 9), np.uint8)), case(np.ones((5, 6, 9), np.uint8))
    first, second = in_memory([small, large])
    assert first.image.shape == second.image.shape == (8, 8, 16)
    assert first.labels.sum() == 3 * 8 * 9
    assert first.image[3, 0, 0] == -1
    with pytest.raises(DataError, match="no training case"):
        in_memory([])


def test_a_batch_of_slices_is_a_function_of_the_step() -> None:
    """Two halves of two processes are the one batch; labels move with the image."""
    rng = np.random.default_rng(3)
    image = rng.normal(size=(8, 8, 8)).astype(np.float32)
    stream = SliceStream(
        in_memory([case((image > 0).astype(np.uint8), image)]), "axial", 0, batch_size=4, shift=2.0, degrees=10.0
    )  # fmt: skip
    images, targets = stream.batch(7)
    again = [stream.batch(7, rank, 2) for rank in range(2)]
    assert torch.equal(images[0::2], again[0][0])
    assert torch.equal(targets[1::2], again[1][1])
    assert not torch.equal(images, stream.batch(8)[0])


def test_unknown_organs_travel_with_the_slices() -> None:
    known = np.array([[True, True, False], [True, True, True]])
    cases = in_memory([case(two_cubes()), case(two_cubes())])
    stream = SliceStream(cases, "coronal", 0, batch_size=6, known=known)
    assert stream.batch(0)[2].shape == (6, 3)
    assert stream.batch(0)[2][:, :2].all()


def test_a_turn_keeps_shapes_and_a_shift_is_in_voxels() -> None:
    """A quarter turn of a slice that is no square takes the pixel beside its middle above it; a shift moves one."""
    image = torch.zeros(1, 1, 5, 9)
    image[0, 0, 2, 5] = 1
    quarter = torch.nn.functional.grid_sample(image, turned_grid(np.array([[90.0, 0, 0]]), (5, 9)), align_corners=False)
    assert quarter[0, 0].round().nonzero().tolist() in ([[1, 4]], [[3, 4]])
    moved = torch.nn.functional.grid_sample(image, turned_grid(np.array([[0, 1.0, -2.0]]), (5, 9)), align_corners=False)
    assert moved[0, 0].round().nonzero().tolist() == [[1, 7]]


# boxes


def by_force(mass: np.ndarray, share: float) -> tuple[int, float]:
    """Return volume and mass of the smallest box over all boxes."""
    best = (mass.size + 1, 0.0)
    for spans in product(*(list(combinations(range(n + 1), 2)) for n in mass.shape)):
        held = mass[tuple(slice(a, b) for a, b in spans)].sum()
        volume = int(np.prod([b - a for a, b in spans]))
        if held >= share * mass.sum() * (1 - 1e-12) and (volume, -held) < (best[0], -best[1]):
            best = (volume, held)
    return best


@pytest.mark.parametrize("seed", range(12))
def test_the_smallest_box_is_that_of_all_boxes(seed: int) -> None:
    """Blobs, noise and single far voxels; 99 percent, a half and all of the mass."""
    rng = np.random.default_rng(seed)
    mass = rng.random((5, 6, 4)) ** (1 + 4 * (seed % 3))
    mass *= rng.random(mass.shape) < 0.6
    for share in (0.5, 0.9, 0.99, 1.0):
        box = smallest_box(mass, share)
        inside = mass[tuple(slice(a, b) for a, b in box)]
        volume, held = by_force(mass, share)
        assert inside.size == volume
        assert inside.sum() == pytest.approx(held)


def test_an_unknown_view_is_told_with_the_known_ones() -> None:
    for turn in (to_slices, to_volume):
        with pytest.raises(ConfigError, match=r"unknown view 'axal': did you mean 'axial'\? Known: axial, coronal"):
            turn(np.zeros((3, 3, 3)), "axal")


def test_no_mass_has_no_box() -> None:
    for nowhere in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="mass is nowhere, negative or not finite"):
            smallest_box(np.full((3, 3, 3), nowhere))
    with pytest.raises(ValueError, match="share is 0"):
        smallest_box(np.ones((3, 3, 3)), 0)


def certain(labels: np.ndarray, classes: int = 3) -> np.ndarray:
    """Return probabilities that are sure of these labels."""
    return np.stack([np.where(labels == c, 0.98, 0.01) for c in range(classes)]).astype(np.float32)


def test_mass_is_the_heaviest_component() -> None:
    """Two islands of an organ: the one with more probability stays; what loses to another class has none."""
    labels = two_cubes()
    labels[20:22, 0:2, 0:2] = 1
    mass = organ_mass(certain(labels), 1)
    assert np.array_equal(mass > 0, (two_cubes() == 1))
    assert not organ_mass(certain(np.zeros((4, 4, 4))), 1).any()


def test_boxes_are_those_of_the_labels_and_an_empty_map_falls_back() -> None:
    """Size 4 + 2 and so on up to a multiple of 8; the partners of a pair get one size; the fall back is told."""
    boxes = OrganBoxes(2).learn([case(two_cubes())], ORGANS, margin=(1, 1, 1), pairs=(0, 2, 1), least=8)
    assert boxes.size(0) == boxes.size(1) == (8, 8, 8)
    found = boxes.locate(certain(two_cubes()))
    assert [box.fallback for box in found] == [False, False]
    assert found[0].start == (1, 3, 4)  # middle (5, 7, 7.5), half of 8 less; 7.5 counts as 8
    assert all(box.recall(two_cubes() == value) == 1 for value, box in enumerate(found, start=1))
    assert OrganBoxes(2).learn([case(two_cubes())], ORGANS, margin=(1, 1, 1)).size(0) == (16, 16, 16)
    empty = boxes.locate(certain(np.zeros((24, 16, 16))))
    assert [box.fallback for box in empty] == [True, True]
    assert empty[0].start == found[0].start  # the middle of the one training case


def test_where_a_box_falls_back_to_does_not_depend_on_padding() -> None:
    """Cases are held in memory at one shape; the middle is a share of the case's own."""
    padded = case(np.pad(two_cubes(), ((0, 8), (0, 0), (0, 8))))
    boxes, plain = (
        OrganBoxes(2).learn([one], ORGANS, margin=(1, 1, 1), least=8, shapes=[(24, 16, 16)])
        for one in (padded, case(two_cubes()))
    )
    empty = certain(np.zeros((24, 16, 16)))
    assert [box.start for box in boxes.locate(empty)] == [box.start for box in plain.locate(empty)]


def test_a_speck_is_no_organ() -> None:
    """Less than a quarter of the smallest organ of training falls back."""
    boxes = OrganBoxes(2).learn([case(two_cubes())], ORGANS, margin=(1, 1, 1), least=8)
    speck = np.zeros((24, 16, 16), np.uint8)
    speck[0, 0, :11] = 1  # 48 voxels in training: 12 are needed
    assert boxes.locate(certain(speck))[0].fallback
    speck[0, 1, :5] = 1
    assert not boxes.locate(certain(speck))[0].fallback


def test_an_organ_that_no_case_has_is_told() -> None:
    labels = np.where(two_cubes() == 1, 1, 0).astype(np.uint8)
    with pytest.raises(DataError, match="organ parotid_right: is in no training case"):
        OrganBoxes(2).learn([case(labels)], ORGANS, margin=(1, 1, 1), least=8)
    assert label_box(case(two_cubes(), labelled=("parotid_left",)), ORGANS, "parotid_right") is None


def test_recall_counts_what_a_box_cuts() -> None:
    """A box that leaves the volume holds what is inside; an empty mask has no recall."""
    mask = np.zeros((4, 4, 4), bool)
    mask[:, 0, 0] = True
    assert TargetBox((-2, 0, 0), (4, 4, 4)).recall(mask) == 0.5
    assert np.isnan(TargetBox((0, 0, 0), (4, 4, 4)).recall(np.zeros((4, 4, 4), bool)))


# fusion


def test_equal_weights_are_the_mean_of_the_logits() -> None:
    """As an array and as a module, before any training."""
    rng = np.random.default_rng(5)
    views = [np.log(rng.dirichlet(np.ones(3), (2, 2, 2)).transpose(3, 0, 1, 2)).astype(np.float32) for _ in range(3)]
    mean = torch.softmax(torch.from_numpy(np.mean(views, axis=0)), dim=0).numpy()
    assert np.allclose(fuse(views), mean, atol=1e-6)
    module = Fusion(3, 3)(torch.from_numpy(np.concatenate(views))[None])
    assert np.allclose(torch.softmax(module, dim=1)[0].detach().numpy(), mean, atol=1e-6)


def test_views_with_different_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="the same classes and grid"):
        fuse([np.zeros((3, 2, 2, 2), np.float32), np.zeros((4, 2, 2, 2), np.float32)])
    with pytest.raises(ValueError, match="views by classes"):
        fuse([np.zeros((3, 2, 2, 2), np.float32)] * 2, np.ones((2, 4), np.float32))


def test_fusion_recovers_known_weights() -> None:
    """Labels drawn from a known weighted sum of synthetic views: the learned weights are near it."""
    rng = np.random.default_rng(6)
    truth = np.array([[1.5, 0.5, 0.1], [0.2, 1.0, 0.4], [0.1, 0.3, 1.2]], np.float32)
    logits = rng.normal(scale=2, size=(60_000, 3, 3)).astype(np.float32)
    probabilities = torch.softmax(torch.from_numpy((logits * truth).sum(axis=1)), dim=1).numpy()
    labels = (probabilities.cumsum(axis=1) < rng.random((len(logits), 1))).sum(axis=1).astype(np.uint8)
    stream = FusionStream([logits.reshape(-1, 9)], [labels], 0, batch_size=4)
    fusion, loss = Fusion(3, 3), build_loss("ce")
    optimiser = torch.optim.AdamW(fusion.parameters(), lr=0.05, weight_decay=0)
    for step in range(150):
        value = loss(fusion(stream.batch(step)[0]), stream.batch(step)[1])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    assert np.abs(fusion.weights.detach().numpy() - truth).max() < 0.15


def test_voxels_on_which_all_agree_teach_nothing() -> None:
    """Organ by the label or by a view; nothing else."""
    labels = np.zeros((2, 2, 2), np.uint8)
    labels[0, 0, 0] = 1
    one, other = certain(np.zeros((2, 2, 2)), 2), certain(np.zeros((2, 2, 2)), 2)
    other[:, 1, 1, 1] = other[::-1, 1, 1, 1]
    assert informative([one, other], labels).tolist() == [0, 7]


def test_folds_leave_out_each_case_once() -> None:
    cases = [case(np.zeros((2, 2, 2), np.uint8)) for _ in range(5)]
    kept = [folds(cases, 2, fold) for fold in range(2)]
    assert [len(part) for part in kept] == [2, 3]
    assert all(sum(one is other for part in kept for other in part) == 1 for one in cases)


# fine masks


class Threshold(nn.Module):
    """Organ where the image is bright, more so at low x: not symmetric in itself."""

    def forward(self, x: Tensor) -> Tensor:
        slope = torch.linspace(1, 0, x.shape[2]).view(1, 1, -1, 1, 1)
        return torch.cat([torch.zeros_like(x), x + slope], dim=1)


def test_a_mirrored_pair_gives_mirrored_masks() -> None:
    """One network for left and right: the right mask of a mirrored scan is the left one of the scan, mirrored."""
    image = np.random.default_rng(7).normal(size=(24, 16, 16)).astype(np.float32)
    left, right = TargetBox((1, 3, 4), (8, 8, 8)), TargetBox((24 - 1 - 8, 3, 4), (8, 8, 8))
    found = outline(Threshold(), image, left)
    mirrored = outline(Threshold(), image[::-1].copy(), right, mirrored=True)
    assert np.array_equal(mirrored[::-1], found)
    assert not np.allclose(outline(Threshold(), image[::-1].copy(), right)[::-1], found)


def test_a_pair_is_one_stream() -> None:
    """Boxes of the right organ come mirrored: of a symmetric patient all boxes are the same."""
    labels = two_cubes()
    image = np.random.default_rng(8).normal(size=labels.shape).astype(np.float32)
    boxes = OrganBoxes(2).learn([case(labels)], ORGANS, margin=(1, 1, 1), least=8)
    boxes.jitter.zero_()
    symmetric = [case(labels, image + image[::-1])]
    images, masks = BoxStream(symmetric, ORGANS, (0, 1), boxes, 0, batch_size=8).batch(0)
    assert all(torch.equal(one, images[0]) for one in images)
    assert all(torch.equal(one, masks[0]) for one in masks)
    assert masks[0].sum() == 48


def test_boxes_move_by_what_the_coarse_stage_is_off() -> None:
    boxes = OrganBoxes(2).learn([case(two_cubes())], ORGANS, margin=(1, 1, 1), least=8)
    masks = BoxStream([case(two_cubes())], ORGANS, (0,), boxes, 0, batch_size=16).batch(0)[1]
    assert len({tuple(mask.nonzero()[0].tolist()) for mask in masks}) > 4
    with pytest.raises(DataError, match="is in no training case"):
        BoxStream([case(np.zeros((8, 8, 8), np.uint8))], ORGANS, (1,), boxes, 0, batch_size=1)


def test_cutting_and_pasting_is_the_identity() -> None:
    """Sure fine masks in their boxes over an empty coarse map: the labels come back, and every voxel sums to 1."""
    labels = two_cubes()
    boxes = [TargetBox((1, 3, 4), (8, 8, 8)), TargetBox((15, 3, 4), (8, 8, 8))]
    fine = [
        (labels == value)[tuple(slice(s, s + n) for s, n in zip(box.start, box.size, strict=True))].astype(np.float32)
        for value, box in enumerate(boxes, start=1)
    ]
    found = combine(certain(np.zeros(labels.shape)), boxes, fine, outside=False)
    assert np.array_equal(found.argmax(axis=0), labels)
    assert np.allclose(found.sum(axis=0), 1, atol=1e-6)


def test_overlaps_go_to_the_higher_probability_in_any_order() -> None:
    """0.9 against 0.8 in one voxel; half a probability is not enough; outside its box an organ keeps the coarse one."""
    box, coarse = TargetBox((0, 0, 0), (2, 1, 1)), np.zeros((3, 3, 1, 1), np.float32)
    coarse[:, 2, 0, 0] = 0.2, 0.7, 0.1
    coarse[0, :2] = 1
    masks = [np.array([0.9, 0.4], np.float32).reshape(2, 1, 1), np.array([0.8, 0.45], np.float32).reshape(2, 1, 1)]
    found = combine(coarse, [box, box], masks)
    assert found.argmax(axis=0).ravel().tolist() == [1, 0, 1]
    swapped = combine(coarse[[0, 2, 1]], [box, box], masks[::-1])
    assert np.allclose(swapped[[0, 2, 1]], found)
    # odds 9 and 4 beside 1
    assert found[:, 0, 0, 0] == pytest.approx([1 / 14, 9 / 14, 4 / 14], abs=1e-4)
    assert combine(coarse, [box, box], masks, outside=False).argmax(axis=0).ravel().tolist() == [1, 0, 0]


def test_boxes_that_leave_the_volume_are_cut() -> None:
    """Read with the lowest value outside, pasted without what lies there."""
    image = np.ones((4, 4, 4), np.float32)
    box = TargetBox((-2, 0, 2), (4, 4, 4))
    mask = outline(Threshold(), image, box)
    assert mask.shape == (4, 4, 4)
    found = combine(certain(np.zeros((4, 4, 4)), 2), [box], [np.ones((4, 4, 4), np.float32)], outside=False)
    assert found[1].argmax() >= 0
    assert (found[1] > 0.5).sum() == 2 * 4 * 2
    with pytest.raises(ValueError, match="one each is needed"):
        combine(certain(np.zeros((4, 4, 4))), [box], [mask])
    with pytest.raises(ValueError, match="a mask of shape"):
        combine(certain(np.zeros((4, 4, 4)), 2), [box], [mask[1:]])
