"""TopK Dice and topK cross-entropy: which voxels stay, what they cost, what their gradient is."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from test_losses import example, gradient, logits_of
from torch import Tensor, nn

from hnlib.losses import CrossEntropy, DiceLoss, TopKCrossEntropy, TopKDiceLoss, Voxels, build_loss, selection

PLAIN: dict[str, Any] = {"absent": "skip", "smooth_numerator": 0.0, "smooth_denominator": 0.0}
PRINT: dict[str, Any] = {**PLAIN, "squared": True}


def plain_topk_dice(logits: Tensor, target: Tensor, loss: TopKDiceLoss) -> Tensor:
    """Return Hosseini's Eqs 1 to 7 written out: one-hot maps, a sort, loops; exact count, ties by index."""
    probs = logits.softmax(1).flatten(2)
    onehot = nn.functional.one_hot(target.flatten(1), logits.shape[1]).movedim(2, 1).to(probs.dtype)
    if loss.pooling == "batch":
        probs, onehot = (t.movedim(0, 1).flatten(1).unsqueeze(0) for t in (probs, onehot))
    means = []
    for p_sample, g_sample in zip(probs, onehot, strict=True):
        terms = []
        for p, g in list(zip(p_sample, g_sample, strict=True))[0 if loss.background else 1 :]:
            own = g.nonzero().flatten()
            if len(own) == 0:
                continue
            k = max(math.ceil(loss.percent * len(own) / 100), min(len(own), loss.floor))
            stay = torch.ones_like(g)
            stay[own[p[own].detach().argsort(stable=True)][k:]] = 0
            p, g = p * stay, g * stay
            size = (p.square() + g.square()).sum() if loss.squared else (p + g).sum()
            terms.append(1 - 2 * (p * g).sum() / size)
        means.append(torch.stack(terms).mean())
    return torch.stack(means).mean()


def kept_voxels(logits: Tensor, target: Tensor, loss: TopKDiceLoss) -> Tensor:
    """Return the mask (N, V) of voxels that count for their class."""
    return loss.kept(Voxels(logits, target))


# The definition


@pytest.mark.parametrize(
    ("pooling", "background", "squared"), list(product(["sample", "batch"], [False, True], [False, True]))
)
@pytest.mark.parametrize("percent", [100, 70, 33.3, 5])
def test_value_and_gradient_are_those_of_the_equations(
    percent: float, pooling: str, background: bool, squared: bool
) -> None:
    logits, target = example()
    target[0][target[0] == 2] = 0
    switches = {**PLAIN, "pooling": pooling, "background": background, "squared": squared}
    loss = TopKDiceLoss(percent, floor=3, **switches)
    torch.testing.assert_close(loss(logits, target), plain_topk_dice(logits, target, loss))
    wanted = torch.autograd.grad(plain_topk_dice(logits, target, loss), logits)[0]
    torch.testing.assert_close(gradient(loss, logits, target), wanted)


@pytest.mark.parametrize("squared", [False, True])
def test_gradient_is_the_closed_form_of_the_field_notes(squared: bool) -> None:
    """dL/dP = -(2 Y - D P') / (C S), P' = 2 P if squared else 1, on kept and background voxels; 0 on ignored ones."""
    logits, target = example(classes=3, batch=1)
    loss = TopKDiceLoss(40, floor=1, **{**PLAIN, "squared": squared})
    probs, labels = logits.detach().softmax(1)[0].flatten(1), target.flatten()
    keep = kept_voxels(logits, target, loss)[0]
    slope = torch.zeros_like(probs)
    for c in (1, 2):
        stay = keep | (labels != c)
        p, y = probs[c] * stay, ((labels == c) & stay).double()
        size = (p.square() + y).sum() if squared else (p + y).sum()
        dice = 2 * (p * y).sum() / size
        slope[c] = -(2 * y - dice * (2 * p if squared else 1)) / (2 * size) * stay
    wanted = probs * (slope - (probs * slope).sum(0))
    torch.testing.assert_close(gradient(loss, logits, target)[0].flatten(1), wanted)


def test_by_hand() -> None:
    """p = 0.8, 0.6, 0.5 on three organ voxels and 0.1 on the other; K = 60 keeps two: 2 (0.6 + 0.5) / (2 + squares)."""
    logits = logits_of([[0.9, 0.2, 0.4, 0.5], [0.1, 0.8, 0.6, 0.5]])
    value = TopKDiceLoss(60, floor=1, **PRINT)(logits, torch.tensor([[0, 1, 1, 1]]))
    assert value.item() == pytest.approx(1 - 2 * 1.1 / (2 + 0.01 + 0.36 + 0.25))


@pytest.mark.parametrize("name", ["topk_dice", "ca_topk_dice"])
def test_k_of_100_is_plain_dice_bit_for_bit(name: str) -> None:
    logits, target = example(dtype=torch.float32)
    topk = build_loss(f"{name}(percent=100)")
    squared = name == "topk_dice"
    dice = DiceLoss(
        absent="skip",
        background=not squared,
        squared=squared,
        smooth_numerator=0,
        smooth_denominator=0 if squared else 1e-5,
    )
    assert torch.equal(topk(logits, target), dice(logits, target))
    assert torch.equal(gradient(topk, logits, target), gradient(dice, logits, target))


@pytest.mark.parametrize("squared", [False, True])
def test_so_is_a_mask_that_keeps_every_voxel(squared: bool) -> None:
    logits, target = example(dtype=torch.float32)
    switches = {**PLAIN, "squared": squared}
    everything = TopKDiceLoss(30, floor=10_000, **switches)
    assert torch.equal(everything(logits, target), DiceLoss(**switches)(logits, target))
    torch.testing.assert_close(
        gradient(everything, logits, target), gradient(DiceLoss(**switches), logits, target), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("squared", [False, True])
def test_value_does_not_fall_as_k_falls(squared: bool) -> None:
    """Label voxels leave in order of p, those with the highest ratio 2 p / (1 + p^2) first."""
    for seed in range(5):
        logits, target = example(seed=seed)
        values = [
            TopKDiceLoss(k, floor=1, **{**PLAIN, "squared": squared})(logits, target).item()
            for k in (100, 90, 70, 50, 30, 10)
        ]
        assert values == sorted(values)
        assert values[-1] > values[0]


def test_two_and_three_dimensions_are_the_same() -> None:
    logits, target = example()
    flat = TopKDiceLoss(50, floor=1, **PRINT)(logits.reshape(2, 4, 12, 5), target.reshape(2, 12, 5))
    assert torch.equal(flat, TopKDiceLoss(50, floor=1, **PRINT)(logits, target))


def test_absent_class_gives_no_loss_and_no_gradient() -> None:
    logits, target = example(classes=3)
    target[target == 2] = 0
    loss = TopKDiceLoss(50, floor=1, **PRINT)
    voxels = Voxels(logits, target, squares=True)
    slope = torch.autograd.grad(loss.value(voxels), voxels.squared_masses)[0]
    assert (slope[:, 2] == 0).all()
    empty = loss(logits, torch.zeros_like(target))
    assert empty.item() == 0
    assert (torch.autograd.grad(empty, logits)[0] == 0).all()


def test_an_ignored_voxel_still_teaches_the_other_classes_and_cross_entropy() -> None:
    logits, target = example(classes=3, batch=1)
    ignored = ~kept_voxels(logits, target, TopKDiceLoss(50, floor=1, **PRINT)).view_as(target)
    grad = gradient(build_loss("topk_dice(floor=1)"), logits, target)
    assert (grad.movedim(1, -1)[ignored].abs().sum(-1) > 0).all()  # as a negative of the other organ
    alone = gradient(build_loss("topk_dice(floor=1)"), logits.detach()[:, :2].requires_grad_(), target.clamp(max=1))
    own = ~kept_voxels(logits[:, :2], target.clamp(max=1), TopKDiceLoss(50, floor=1, **PRINT)).view_as(target)
    assert alone.movedim(1, -1)[own].abs().max() < 1e-15  # with one organ there is no other


# Which voxels stay


@pytest.mark.parametrize(
    ("percent", "floor", "kept"), [(30, 1, 12), (30, 32, 32), (29, 1, 12), (1, 1, 1), (100, 1, 40), (99.9, 0, 40)]
)
def test_exact_number_is_kept_also_under_ties(percent: float, floor: int, kept: int) -> None:
    """Forty organ voxels of one and the same p: those with the smallest index stay."""
    target = torch.zeros(1, 100, dtype=torch.int64)
    target[0, 50:90] = 1
    keep = kept_voxels(torch.zeros(1, 2, 100), target, TopKDiceLoss(percent, floor=floor))
    assert keep[0, 50:90].tolist() == [True] * kept + [False] * (40 - kept)
    assert keep[0, :50].all()
    assert keep[0, 90:].all()


def test_the_hardest_stay() -> None:
    logits, target = example(classes=3)
    loss = TopKDiceLoss(25, floor=1)
    probs, keep = Voxels(logits, target).true_probs, kept_voxels(logits, target, loss)
    for sample, label in product(range(2), (1, 2)):
        own = target[sample].flatten() == label
        inside, outside = probs[sample][own & keep[sample]], probs[sample][own & ~keep[sample]]
        assert len(inside) == math.ceil((len(inside) + len(outside)) / 4)
        assert inside.max() <= outside.min()


def test_ranking_in_the_batch_lets_a_hard_sample_take_all() -> None:
    """Sample 1 is predicted with 0.9, sample 2 with 0.2."""
    probs = torch.tensor([0.9, 0.2], dtype=torch.float64).view(2, 1, 1).expand(2, 1, 10)
    logits, target = torch.cat([1 - probs, probs], dim=1).log(), torch.ones(2, 10, dtype=torch.int64)
    sample = kept_voxels(logits, target, TopKDiceLoss(50, floor=1))
    batch = kept_voxels(logits, target, TopKDiceLoss(50, floor=1, pooling="batch"))
    assert sample.sum(dim=1).tolist() == [5, 5]
    assert batch.sum(dim=1).tolist() == [0, 10]


def test_background_is_ranked_only_where_it_is_averaged() -> None:
    logits, target = example(classes=3)
    background = target.flatten(1) == 0
    assert kept_voxels(logits, target, TopKDiceLoss(50, floor=1))[background].all()
    keep = kept_voxels(logits, target, TopKDiceLoss(50, floor=1, background=True))
    for row, own in zip(keep, background, strict=True):
        assert int(row[own].sum()) == math.ceil(int(own.sum()) / 2)


def test_the_mask_has_no_gradient_and_no_volume_is_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    smallest = selection.smallest
    monkeypatch.setattr(selection, "smallest", lambda v, k: sizes.append(v.numel()) or smallest(v, k))
    logits, target = example(classes=3)
    keep = kept_voxels(logits, target, TopKDiceLoss(50, floor=1))
    assert not keep.requires_grad
    assert sorted(sizes) == sorted(int((row == label).sum()) for row in target for label in (1, 2))


@pytest.mark.parametrize("seed", range(3))
def test_selection_by_digits_is_selection_by_picking(seed: int) -> None:
    """What runs on accelerators and under torch.compile, with ties, p of 0 and 1, and classes absent or kept whole."""
    generator = torch.Generator().manual_seed(seed)
    values = (20 * torch.rand((3, 500), generator=generator)).round() / 20
    values[0, :250] = torch.rand(250, generator=generator) ** 20
    target = torch.randint(0, 4, (3, 500), generator=generator)
    target[1][target[1] == 2] = 0
    counts = torch.stack([(target == k).sum(dim=1) for k in range(5)], dim=1)
    wanted = (counts * torch.rand((3, 5), generator=generator)).ceil().double()
    wanted[:, 3] = 0
    assert torch.equal(selection._by_digits(values, target, wanted), selection._by_picking(values, target, wanted))


@pytest.mark.parametrize("noise", [1e-12, 1e-8, 1e-3])
def test_selection_by_digits_sees_a_small_perturbation(noise: float) -> None:
    """Voxels of equal p, also of 1, are told apart by what is added in double precision; equal sums by index."""
    generator = torch.Generator().manual_seed(0)
    values = torch.tensor([0.5, 1.0, 0.0]).repeat(2, 100).double()
    values[:, :240] += noise * torch.rand(240, generator=generator, dtype=torch.float64)
    target = (torch.arange(300) // 3 % 2).repeat(2, 1)
    counts = torch.tensor([[75.0, 60.0], [110.0, 0.0]])
    found = selection._by_digits(values, target, counts)
    assert torch.equal(found, selection._by_picking(values, target, counts))
    assert found[0, target[0] == 0].sum() == 75


# The literal print


def test_the_print_keeps_one_more_and_all_ties() -> None:
    """Ten voxels, K = 50: D = 5, t the fifth highest, four lie above it. With ties at t they all stay."""
    target = torch.ones(1, 10, dtype=torch.int64)
    rising = torch.linspace(0.1, 0.9, 10, dtype=torch.float64)
    tied = torch.tensor([0.1, 0.1, 0.1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9], dtype=torch.float64)
    loss = TopKDiceLoss(50, literal=True)
    for probs, kept in ((rising, 6), (tied, 9)):
        keep = kept_voxels(torch.stack([1 - probs, probs]).log().unsqueeze(0), target, loss)
        assert keep[0].tolist() == [True] * kept + [False] * (10 - kept)


@pytest.mark.parametrize(
    ("count", "percent", "kept"), [(10, 100, 10), (10, 95, 10), (10, 90, 10), (10, 80, 9), (7, 50, 5)]
)
def test_the_print_ignores_d_minus_one(count: int, percent: float, kept: int) -> None:
    """D rounded down: 0, 0, 1, 2 and 3; nothing is ignored where it is 0."""
    probs = torch.linspace(0.1, 0.9, count, dtype=torch.float64)
    logits = torch.stack([1 - probs, probs]).log().unsqueeze(0)
    keep = kept_voxels(logits, torch.ones(1, count, dtype=torch.int64), TopKDiceLoss(percent, literal=True))
    assert int(keep.sum()) == kept


@pytest.mark.parametrize("literal", [False, True])
def test_perturbation_changes_nothing_where_ranks_are_distinct(literal: bool) -> None:
    logits, target = example()
    plain = TopKDiceLoss(50, floor=1, literal=literal, **PRINT)
    moved = TopKDiceLoss(50, floor=1, literal=literal, perturbation=1e-9, seed=3, **PRINT)
    assert torch.equal(plain(logits, target), moved(logits, target))


def test_perturbation_breaks_ties_by_its_seed() -> None:
    """With equal p the print ignores nothing; with the perturbation it ignores D - 1 = 49 of 100."""
    logits, target = torch.zeros(1, 2, 100), torch.ones(1, 100, dtype=torch.int64)

    def keep(**options: Any) -> Tensor:
        return kept_voxels(logits, target, TopKDiceLoss(50, literal=True, **options))

    assert keep().all()
    first = keep(perturbation=1e-6, seed=1)
    assert int(first.sum()) == 51
    assert torch.equal(first, keep(perturbation=1e-6, seed=1))
    assert not torch.equal(first, keep(perturbation=1e-6, seed=2))


# TopK cross-entropy


@pytest.mark.parametrize("pooling", ["sample", "batch"])
@pytest.mark.parametrize("percent", [100, 50, 33, 0.1])
def test_topk_cross_entropy_is_the_mean_of_the_largest(percent: float, pooling: str) -> None:
    logits, target = example()
    loss = TopKCrossEntropy(percent, pooling=pooling)
    rows = nn.functional.cross_entropy(logits, target, reduction="none").flatten(1)
    rows = rows.reshape(1, -1) if pooling == "batch" else rows
    wanted = rows.sort(dim=1, descending=True).values[:, : math.ceil(percent * rows.shape[1] / 100)].mean()
    torch.testing.assert_close(loss(logits, target), wanted)
    torch.testing.assert_close(gradient(loss, logits, target), torch.autograd.grad(wanted, logits)[0])


def test_topk_cross_entropy_of_all_is_cross_entropy() -> None:
    logits, target = example()
    torch.testing.assert_close(TopKCrossEntropy(100)(logits, target), CrossEntropy()(logits, target))


def test_topk_cross_entropy_under_ties_teaches_the_exact_number() -> None:
    logits = torch.zeros(1, 2, 10, requires_grad=True)
    grad = gradient(TopKCrossEntropy(25), logits, torch.ones(1, 10, dtype=torch.int64))
    assert (grad[0, 0] != 0).tolist() == [True] * 3 + [False] * 7


# Faults


@pytest.mark.parametrize("make", [TopKDiceLoss, TopKCrossEntropy])
@pytest.mark.parametrize("percent", [0, -1, 100.1, math.nan, math.inf, "half"])
def test_k_outside_its_range_is_refused(make: type[nn.Module], percent: Any) -> None:
    with pytest.raises(ValueError, match=r"percent is .*above 0 and at most 100"):
        make(percent)


@pytest.mark.parametrize("options", [{"floor": -1}, {"perturbation": math.nan}, {"literal": "yes"}, {"seed": -1}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TopKDiceLoss(50, **options)


@pytest.mark.parametrize("name", ["topk_dice+ce", "ca_topk_dice", "topk_ce"])
def test_a_voxel_that_is_no_number_cannot_hide_outside_the_selection(name: str) -> None:
    logits, target = example()
    broken = logits.detach().clone()
    broken[0, 0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN or infinity at 1 voxels of samples \\[0\\]"):
        build_loss(name)(broken, target)
