"""Losses that weigh classes or errors: weighted cross-entropy, focal, generalised Dice, Tversky, margin."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
from test_losses import build, example, gradient, logits_of
from torch import Tensor, nn
from torch.nn import functional

from hnlib.losses import (
    AsymmetricCrossEntropy,
    CrossEntropy,
    DiceLoss,
    FocalLoss,
    GeneralisedDiceLoss,
    MarginDiceLoss,
    TverskyLoss,
    VoxelLoss,
    Voxels,
    WeightedCrossEntropy,
    WeightedFocalLoss,
    build_loss,
    inverse_size_weights,
    rarity_weights,
)

#: Two voxels; p of the organ is 0.2 and 0.6, and the second voxel is the organ.
PAIR = ([[0.8, 0.4], [0.2, 0.6]], torch.tensor([[0, 1]]))
BARE: dict[str, Any] = {"absent": "skip", "smooth_numerator": 0.0, "smooth_denominator": 0.0}


def value_of_pair(loss: nn.Module) -> float:
    return float(loss(logits_of(PAIR[0]), PAIR[1]))


# Values by hand


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [
        (WeightedCrossEntropy(weights=[1, 3]), -(math.log(0.8) + 3 * math.log(0.6)) / 2),
        (FocalLoss(2), -(0.2**2 * math.log(0.8) + 0.4**2 * math.log(0.6)) / 2),
        (FocalLoss(0.5), -(0.2**0.5 * math.log(0.8) + 0.4**0.5 * math.log(0.6)) / 2),
        (FocalLoss(2, weights=[1, 3]), -(0.2**2 * math.log(0.8) + 3 * 0.4**2 * math.log(0.6)) / 2),
        # I = 0.6, false positives 0.2, false negatives 0.4
        (TverskyLoss(**BARE), 1 - 0.6 / (0.6 + 0.3 * 0.2 + 0.7 * 0.4)),
        (TverskyLoss(alpha=1, beta=1, **BARE), 1 - 0.6 / 1.2),
        # both classes have one voxel, hence equal weights: 2 (0.8 + 0.6) / (1.2 + 1 + 0.8 + 1)
        (GeneralisedDiceLoss(), 1 - 2.8 / 4),
        (GeneralisedDiceLoss(background=False), 1 - 1.2 / 1.8),
        # e^-1 of the organ's odds 0.6 : 0.4 is left; the background is focal
        (AsymmetricCrossEntropy(1, 2), (math.log(1 + 0.4 / 0.6 * math.e) - 0.2**2 * math.log(0.8)) / 2),
        (AsymmetricCrossEntropy(0, 2), -(math.log(0.6) + 0.2**2 * math.log(0.8)) / 2),
        (AsymmetricCrossEntropy(1, 0, rare=0), (math.log(1 + 0.2 / 0.8 * math.e) - math.log(0.6)) / 2),
        (DiceLoss(background=True, over_classes="sum", **BARE), (1 - 1.6 / 2.2) + (1 - 1.2 / 1.8)),
    ],
)
def test_two_voxels_by_hand(loss: nn.Module, wanted: float) -> None:
    assert value_of_pair(loss) == pytest.approx(wanted, rel=1e-5)


def test_generalised_dice_weighs_by_inverse_squares_of_sizes() -> None:
    """Three background voxels and one organ voxel: weights 1/9 and 1; I = 3 * 0.8 and 0.6, S = 6 - 0.2 and 2.2."""
    logits = logits_of([[0.8, 0.8, 0.8, 0.4], [0.2, 0.2, 0.2, 0.6]])
    target = torch.tensor([[0, 0, 0, 1]])
    mass = (3 * 0.8 + 0.4, 3 * 0.2 + 0.6)
    wanted = 1 - 2 * (2.4 / 9 + 0.6) / ((mass[0] + 3) / 9 + mass[1] + 1)
    assert GeneralisedDiceLoss()(logits, target).item() == pytest.approx(wanted)
    equal = 1 - 2 * 3.0 / (sum(mass) + 4)
    assert GeneralisedDiceLoss(power=0)(logits, target).item() == pytest.approx(equal)


def test_generalised_dice_by_batch_sizes_the_whole_batch() -> None:
    """Twice the same sample is one sample; with unlike samples sizes add up before they are squared."""
    logits, target = example(batch=1)
    loss = GeneralisedDiceLoss(pooling="batch")
    torch.testing.assert_close(loss(logits.repeat(2, 1, 1, 1, 1), target.repeat(2, 1, 1, 1)), loss(logits, target))
    logits, target = example()
    joined = logits.movedim(0, 1).flatten(1).unsqueeze(0)
    torch.testing.assert_close(loss(logits, target), GeneralisedDiceLoss()(joined, target.view(1, -1)))


def test_margin_dice_is_dice_of_the_moved_logits() -> None:
    logits, target = example()
    moved = logits - 1.5 * nn.functional.one_hot(target, 4).movedim(-1, 1) * (target > 0).unsqueeze(1)
    switches: dict[str, Any] = {"background": True, "absent": "skip", "smooth_numerator": 0.0}
    loss = MarginDiceLoss(1.5, **switches)
    torch.testing.assert_close(loss(logits, target), DiceLoss(**switches)(moved, target))
    assert repr(build_loss("ca_dice_margin(margin=1.5)")) == repr(loss)


@pytest.mark.parametrize("rare", [None, (1, 3)])
def test_asymmetric_cross_entropy_is_that_of_the_moved_logits(rare: tuple[int, ...] | None) -> None:
    """Margin on the true logit of rare classes, then softmax; focal elsewhere: written out, with its gradient."""
    logits, target = example()
    is_rare = sum((target == k for k in rare), torch.zeros_like(target, dtype=torch.bool)) if rare else target > 0
    moved = logits - 2 * nn.functional.one_hot(target, 4).movedim(-1, 1) * is_rare.unsqueeze(1)
    log_probs = moved.log_softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
    factor = torch.where(is_rare, 1.0, (1 - log_probs.exp()) ** 3)
    wanted = -(factor * log_probs).mean()
    loss = AsymmetricCrossEntropy(2, 3, rare=rare)
    torch.testing.assert_close(loss(logits, target), wanted)
    torch.testing.assert_close(gradient(loss, logits, target), torch.autograd.grad(wanted, logits)[0])


@pytest.mark.parametrize("margin", [0.0, 1.0, 5.0])
def test_large_margins_keep_their_digits_in_single_precision(margin: float) -> None:
    logits, target = example(dtype=torch.float32)
    loss = AsymmetricCrossEntropy(margin, 0)
    sharp = (4 * logits.detach()).requires_grad_()
    torch.testing.assert_close(loss(sharp, target).double(), loss(sharp.double(), target), rtol=1e-5, atol=1e-7)


# Where one loss is another


def test_special_cases() -> None:
    logits, target = example()
    target[0][target[0] == 2] = 0
    pairs = [
        (WeightedCrossEntropy(weights=[1, 1, 1, 1]), CrossEntropy()),
        (FocalLoss(0), CrossEntropy()),
        (FocalLoss(0, weights=[1, 2, 3, 4]), WeightedCrossEntropy(weights=[1, 2, 3, 4])),
        (AsymmetricCrossEntropy(0, 0), CrossEntropy()),
        (AsymmetricCrossEntropy(0, 2, rare=3), AsymmetricCrossEntropy(0, 2, rare=[3])),
        (MarginDiceLoss(0), DiceLoss()),
        (TverskyLoss(alpha=0.5, beta=0.5, **BARE), DiceLoss(**BARE)),
    ]
    for one, other in pairs:
        torch.testing.assert_close(one(logits, target), other(logits, target))
    binary = logits[:, :2], target.clamp(max=1)
    torch.testing.assert_close(GeneralisedDiceLoss(background=False)(*binary), DiceLoss(**BARE)(*binary))


# Weights from sizes


def test_weights_of_pu_are_odds_of_absence() -> None:
    assert rarity_weights([60, 30, 10], clip=math.inf) == pytest.approx((40 / 60, 70 / 30, 9))
    assert rarity_weights([60, 30, 10], power=0.5) == pytest.approx((math.sqrt(40 / 60), math.sqrt(70 / 30), 3))
    assert rarity_weights([10**6, 10, 0]) == pytest.approx((1e-5, 50, 50), rel=1e-4)


def test_weights_depend_on_shares_alone() -> None:
    counts = [900.0, 90.0, 10.0]
    for weigh in (rarity_weights, inverse_size_weights):
        assert weigh(counts) == pytest.approx(weigh([n / 1000 for n in counts]))


def test_inverse_sizes_have_mean_one_and_the_printed_ratio() -> None:
    weights = inverse_size_weights([1000, 100, 10], power=1)
    assert sum(weights) == pytest.approx(3)
    assert weights[1] / weights[0] == pytest.approx(10)
    assert weights[2] / weights[1] == pytest.approx(10)
    assert inverse_size_weights([1000, 0, 10])[1] == inverse_size_weights([1000, 0, 10])[2]


def test_literal_weights_of_pu_call_everything_organ() -> None:
    """The failing case: an organ in 1 of 100,000 voxels; p minimising the loss where organ has q = 1e-6."""
    literal = rarity_weights([99_999, 1], clip=math.inf)
    clipped = rarity_weights([99_999, 1])
    q = 1e-6
    shares = [w[1] * q / (w[1] * q + w[0] * (1 - q)) for w in (literal, clipped)]
    assert shares[0] > 0.99
    # even clipped the background's tiny weight remains; the loss agrees that p there is stationary
    p = torch.tensor([shares[1]], dtype=torch.float64, requires_grad=True)
    loss = -(clipped[1] * q * p.log() + clipped[0] * (1 - q) * (1 - p).log()).sum()
    (slope,) = torch.autograd.grad(loss, p)
    assert slope.item() == pytest.approx(0, abs=1e-9)


# Metamorphic


def test_changing_a_weight_changes_the_loss_and_its_gradient() -> None:
    logits, target = example()
    pairs: list[tuple[nn.Module, nn.Module]] = [
        (build_loss(f"{name}(weights=1/1/1/1)"), build_loss(f"{name}(weights=1/1/1/2)"))
        for name in ("weighted_ce", "focal", "weighted_focal")
    ]
    pairs += [
        (GeneralisedDiceLoss(power=2), GeneralisedDiceLoss(power=1)),
        (GeneralisedDiceLoss(power=1), GeneralisedDiceLoss(power=0)),
        (TverskyLoss(), TverskyLoss(alpha=0.7, beta=0.3)),
        (AsymmetricCrossEntropy(margin=1), AsymmetricCrossEntropy(margin=2)),
        (AsymmetricCrossEntropy(gamma=2), AsymmetricCrossEntropy(gamma=3)),
        (AsymmetricCrossEntropy(), AsymmetricCrossEntropy(rare=1)),
        (MarginDiceLoss(1), MarginDiceLoss(2)),
    ]
    for one, other in pairs:
        assert abs(one(logits, target) - other(logits, target)) > 1e-4
        assert (gradient(one, logits, target) - gradient(other, logits, target)).abs().max() > 1e-6


def test_only_a_class_that_is_there_feels_its_weight() -> None:
    logits, target = example()
    target[target == 3] = 0
    for name in ("weighted_ce", "weighted_focal"):
        values = [build_loss(f"{name}(weights=1/2/3/{last})")(logits, target) for last in (1, 9)]
        assert torch.equal(*values)


@pytest.mark.parametrize("name", ["weighted_ce", "weighted_focal"])
def test_relabelling_classes_with_their_weights_changes_nothing(name: str) -> None:
    logits, target = example()
    order = torch.tensor([2, 0, 3, 1])
    weights = [0.5, 1, 2, 4]
    one = build_loss(f"{name}(weights={'/'.join(map(str, weights))})")
    other = build_loss(f"{name}(weights={'/'.join(str(weights[k]) for k in order)})")
    torch.testing.assert_close(other(logits[:, order], torch.argsort(order)[target]), one(logits, target))


@pytest.mark.parametrize(
    ("name", "changes"),
    [("generalised_dice", False), ("generalised_dice(absent=count)", True), ("tversky", True), ("gao_dice", False),
     ("topk_dice", False), ("ca_topk_dice", False), ("focal", False), ("topk_ce", False), ("ca_dice_margin", False)],
)  # fmt: skip
def test_an_added_absent_class_matters_only_where_absent_classes_count(name: str, changes: bool) -> None:
    """The new class has the probability of an old one; where it is skipped, only the softmax feels it."""
    logits, target = example()
    nothing = torch.cat([logits, torch.full_like(logits[:, :1], -1e9)], dim=1)
    loss = build_loss(name)
    same = torch.isclose(loss(nothing, target), loss(logits, target))
    assert bool(same) == (name != "tversky")  # counted there as a perfect organ; at no mass it costs nothing elsewhere
    voxels = Voxels(torch.cat([logits, logits[:, :1]], dim=1), target, squares=True)
    assert isinstance(loss, VoxelLoss)
    masses = voxels.squared_masses if loss.squares else voxels.masses
    if name == "ca_dice_margin":
        return  # has masses of its own
    (slope,) = torch.autograd.grad(loss.value(voxels), masses, allow_unused=True)
    assert (slope is not None and bool((slope[:, 4] > 0).all())) == changes


def test_generalised_dice_counts_an_absent_class_by_the_smallest_organ() -> None:
    """Eight voxels, three of class 1; class 2 absent with p = 1/4 everywhere: weights 1/25, 1/9 and 1/9 or 0."""
    probs = [[0.6] * 5 + [0.225] * 3, [0.15] * 5 + [0.525] * 3, [0.25] * 8]
    target = torch.tensor([[0] * 5 + [1] * 3])
    numerator = 2 * (3.0 / 25 + 1.575 / 9)
    denominator = (3.675 + 5) / 25 + (0.75 + 1.575 + 3) / 9
    for absent, extra in (("skip", 0), ("count", 2 / 9)):
        value = GeneralisedDiceLoss(absent=absent)(logits_of(probs), target)
        assert value.item() == pytest.approx(1 - numerator / (denominator + extra))


@pytest.mark.parametrize("absent", ["skip", "count"])
@pytest.mark.parametrize("pooling", ["sample", "batch"])
def test_generalised_dice_of_nothing_is_zero_with_a_live_graph(pooling: str, absent: str) -> None:
    logits, target = example()
    loss = GeneralisedDiceLoss(pooling=pooling, absent=absent, background=False)
    value = loss(logits, torch.zeros_like(target))
    assert value.item() == 0
    assert (torch.autograd.grad(value, logits)[0] == 0).all()
    target[1] = 0
    if pooling == "sample":
        torch.testing.assert_close(loss(logits, target), loss(logits[:1], target[:1]) / 2)


def test_tversky_pushes_where_it_is_told() -> None:
    """More weight on false negatives asks for more organ."""
    logits, target = example(classes=2)
    few, many = (gradient(TverskyLoss(alpha=a, beta=1 - a), logits, target)[:, 1].sum() for a in (0.7, 0.3))
    assert many < few


# Agreement with others where the definitions coincide


@pytest.mark.parametrize(("background", "batch"), list(product([True, False], [True, False])))
def test_tversky_agrees_with_monai(background: bool, batch: bool) -> None:
    monai = pytest.importorskip("monai.losses")
    theirs = monai.TverskyLoss(
        to_onehot_y=True, softmax=True, include_background=background, batch=batch, alpha=0.3, beta=0.7,
        smooth_nr=0.1, smooth_dr=0.2,
    )  # fmt: skip
    ours = TverskyLoss(
        pooling="batch" if batch else "sample", background=background, smooth_numerator=0.1, smooth_denominator=0.2
    )
    agree(ours, theirs, absent=True)


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 4.0]])
def test_focal_agrees_with_monai_but_for_the_number_of_classes(weights: list[float] | None) -> None:
    monai = pytest.importorskip("monai.losses")
    theirs = monai.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0, alpha=weights)
    agree(FocalLoss(2, weights=weights), lambda z, t: 4 * theirs(z, t), absent=True, tolerance=1e-6)


@pytest.mark.parametrize(("background", "batch"), list(product([True, False], [True, False])))
@pytest.mark.parametrize(("power", "kind"), [(2, "square"), (1, "simple"), (0, "uniform")])
def test_generalised_dice_agrees_with_monai_without_smoothing(
    power: float, kind: str, background: bool, batch: bool
) -> None:
    monai = pytest.importorskip("monai.losses")
    theirs = monai.GeneralizedDiceLoss(
        to_onehot_y=True,
        softmax=True,
        include_background=background,
        batch=batch,
        w_type=kind,
        smooth_nr=0,
        smooth_dr=0,
    )
    ours = GeneralisedDiceLoss(
        pooling="batch" if batch else "sample", background=background, absent="count", power=power
    )
    agree(ours, theirs, absent=power > 0, tolerance=1e-6)


def test_monais_smoothing_of_generalised_dice_rewards_a_missed_organ() -> None:
    """A volume of a million, an organ of 10,000 missed altogether: its 1e-5 stands beside sums of 2e-4."""
    monai = pytest.importorskip("monai.losses")
    target = torch.zeros(1, 100, 100, 100, dtype=torch.int64)
    target[0, :10, :10] = 1
    logits = torch.stack([torch.full_like(target, 20.0, dtype=torch.float32), torch.zeros_like(target).float()], dim=1)
    theirs = monai.GeneralizedDiceLoss(to_onehot_y=True, softmax=True)(logits, target[:, None]).item()
    ours = build_loss("generalised_dice")(logits, target).item()
    assert ours - theirs == pytest.approx(0.09, abs=0.02)


def test_weighted_cross_entropy_is_pytorchs_but_for_the_divisor() -> None:
    logits, target = example()
    weights = torch.tensor([0.5, 1, 2, 4], dtype=torch.float64)
    theirs = functional.cross_entropy(logits, target, weight=weights, reduction="sum") / target.numel()
    torch.testing.assert_close(WeightedCrossEntropy(weights=weights.tolist())(logits, target), theirs)


def agree(ours: nn.Module, theirs: Any, *, absent: bool, tolerance: float = 1e-6) -> None:
    """Assert that two losses have the same value and gradient, MONAI's called with a channel axis."""
    logits, target = example()
    if absent:
        target[0][target[0] == 2] = 1
    # MONAI's FocalLoss computes in float32
    torch.testing.assert_close(
        ours(logits, target), theirs(logits, target[:, None]), rtol=tolerance, atol=1e-9, check_dtype=False
    )
    wanted = torch.autograd.grad(theirs(logits, target[:, None]), logits)[0]
    torch.testing.assert_close(gradient(ours, logits, target), wanted, rtol=1e-5, atol=1e-8)


# Faults


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightedCrossEntropy(), "weights or class_voxels are needed"),
        (lambda: WeightedFocalLoss(), "weights or class_voxels are needed"),
        (lambda: WeightedCrossEntropy(weights=[1, -1]), "weights are"),
        (lambda: WeightedCrossEntropy(weights=[0, 0]), "not all 0"),
        (lambda: WeightedCrossEntropy(weights=[1, math.nan]), "weights are"),
        (lambda: WeightedCrossEntropy(class_voxels=[1, 0]), "at least two classes with voxels"),
        (lambda: WeightedCrossEntropy(class_voxels=[1, 1], clip=0), "clip is 0"),
        (lambda: inverse_size_weights([1, 1], power=-1), "power is -1"),
        (lambda: FocalLoss(-1), "gamma is -1"),
        (lambda: TverskyLoss(alpha=0, beta=0), "alpha and beta are both 0"),
        (lambda: TverskyLoss(alpha=-1), "alpha is -1"),
        (lambda: TverskyLoss(squared=True), "squared"),
        (lambda: GeneralisedDiceLoss(absent="skip_jointly"), "absent is 'skip_jointly'"),  # type: ignore[arg-type]
        (lambda: GeneralisedDiceLoss(power=math.inf), "power is inf"),
        (lambda: AsymmetricCrossEntropy(margin=-1), "margin is -1"),
        (lambda: AsymmetricCrossEntropy(rare=[1.5]), "rare is"),
        (lambda: AsymmetricCrossEntropy(rare=[]), "rare is"),
        (lambda: DiceLoss(over_classes="sum", absent="skip_jointly"), "over_classes"),
        (lambda: DiceLoss(over_classes="product"), "over_classes"),  # type: ignore[arg-type]
    ],
)
def test_impossible_arguments_are_a_value_error(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "text", ["weighted_ce(weights=1/2/3)", "weighted_focal(class_voxels=5/6)", "focal(weights=1/2)"]
)
def test_weights_must_be_as_many_as_the_classes(text: str) -> None:
    with pytest.raises(ValueError, match="class weights but logits have 4 classes"):
        build_loss(text)(*example())


def test_a_rare_class_must_be_one_of_the_classes() -> None:
    for name in ("asymmetric_ce", "ca_dice_margin"):
        with pytest.raises(ValueError, match=r"rare is \(4,\) but logits have 4 classes"):
            build_loss(f"{name}(rare=4)")(*example())


@pytest.mark.parametrize("name", ["weighted_ce", "weighted_focal", "focal", "asymmetric_ce", "generalised_dice"])
def test_sharp_and_hopeless_predictions_stay_finite(name: str) -> None:
    logits, target = example(dtype=torch.float32)
    for scale in (1e4, -1e4):
        onehot = nn.functional.one_hot(target, 4).movedim(-1, 1).to(logits.dtype)
        extreme = (scale * onehot).requires_grad_()
        value = build(name)(extreme, target)
        grad: Tensor = torch.autograd.grad(value, extreme)[0]
        assert torch.isfinite(value)
        assert torch.isfinite(grad).all()
