"""Losses: hand-worked values, gradients, absent classes, agreement with MONAI, faults."""

from __future__ import annotations

import ast
import math
import re
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hnlib import losses
from hnlib.losses import (
    LOSSES,
    CrossEntropy,
    DeepSupervision,
    DiceLoss,
    SumLoss,
    VoxelLoss,
    Voxels,
    build_loss,
    softmax,
)

SPATIAL = (4, 3, 5)


def build(name: str, classes: int = 4) -> nn.Module:
    """Return a loss by its name, with organs of equal size in training where it asks for sizes."""
    return build_loss(name, class_voxels=[900, *[100] * (classes - 1)])


DICE = sorted(name for name in LOSSES if isinstance(build(name), DiceLoss) and name != "gao_dice")


def logits_of(probs: list[list[float]]) -> Tensor:
    """Return logits (1, C, V) whose softmax is `probs`, given as one row a class."""
    return torch.tensor(probs, dtype=torch.float64).log().unsqueeze(0)


def example(
    classes: int = 4, batch: int = 2, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Return random logits with gradient and labels in which every class occurs in every sample."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn((batch, classes, *SPATIAL), generator=generator, dtype=torch.float64)
    target = torch.randint(0, classes, (batch, *SPATIAL), generator=generator)
    target.flatten(1)[:, :classes] = torch.arange(classes)
    return logits.to(dtype).requires_grad_(), target


def gradient(loss: nn.Module, logits: Tensor, target: Tensor) -> Tensor:
    """Return the gradient of the loss on the logits."""
    (grad,) = torch.autograd.grad(loss(logits, target), logits)
    return grad


def plain_dice(logits: Tensor, target: Tensor, loss: DiceLoss) -> Tensor:
    """Return the Dice loss by its definition: one-hot labels, loops over samples and classes."""
    probs = logits.softmax(1).flatten(2)
    onehot = nn.functional.one_hot(target.flatten(1), logits.shape[1]).movedim(2, 1).to(probs.dtype)
    if loss.pooling == "batch":
        probs, onehot = (t.movedim(0, 1).flatten(1).unsqueeze(0) for t in (probs, onehot))
    means, everything = [], []
    for p_sample, g_sample in zip(probs, onehot, strict=True):
        terms = []
        for p, g in list(zip(p_sample, g_sample, strict=True))[0 if loss.background else 1 :]:
            if loss.absent != "count" and g.sum() == 0:
                continue
            size = (p.square() + g.square()).sum() if loss.squared else (p + g).sum()
            terms.append(1 - (2 * (p * g).sum() + loss.smooth_numerator) / (size + loss.smooth_denominator))
        means.append(torch.stack(terms).mean() if terms else logits.new_zeros(()))
        everything += terms
    if loss.absent == "skip_jointly":
        return torch.stack(everything).mean() if everything else logits.new_zeros(())
    return torch.stack(means).mean()


# Values worked by hand


@pytest.mark.parametrize("classes", [2, 6, 8])
def test_cross_entropy_of_uniform_logits_is_log_of_the_class_count(classes: int) -> None:
    value = build_loss("ce")(torch.zeros(2, classes, 3, 3, 3), torch.ones(2, 3, 3, 3, dtype=torch.int64))
    assert value.item() == pytest.approx(math.log(classes), rel=1e-6)


def test_cross_entropy_is_the_mean_over_voxels() -> None:
    """True-class probabilities 1/2 and 1/4: (log 2 + log 4) / 2."""
    value = CrossEntropy()(logits_of([[0.5, 0.75], [0.5, 0.25]]), torch.tensor([[0, 1]]))
    assert value.item() == pytest.approx(1.5 * math.log(2))


@pytest.mark.parametrize(
    ("switches", "wanted"),
    [
        # p of the organ is 0.2 and 0.6, the second voxel is the organ: D = 2 * 0.6 / (0.8 + 1)
        ({}, 1 - 1.2 / 1.8),
        # background: p is 0.8 and 0.4, D = 2 * 0.8 / (1.2 + 1)
        ({"background": True}, 1 - (1.2 / 1.8 + 1.6 / 2.2) / 2),
        ({"squared": True}, 1 - 1.2 / (0.04 + 0.36 + 1)),
        ({"smooth_numerator": 0.5}, 1 - 1.7 / 1.8),
        ({"smooth_denominator": 0.2}, 1 - 1.2 / 2.0),
    ],
)
def test_dice_of_two_voxels_by_hand(switches: dict[str, float], wanted: float) -> None:
    arguments = {"absent": "skip", "smooth_numerator": 0.0, "smooth_denominator": 0.0, **switches}
    value = DiceLoss(**arguments)(logits_of([[0.8, 0.4], [0.2, 0.6]]), torch.tensor([[0, 1]]))
    assert value.item() == pytest.approx(wanted)


def test_batch_pooling_adds_the_sums_of_the_samples_before_dividing() -> None:
    """Sample 1: I = 0.6, S = 1.8; sample 2: I = 0.5, S = 1 + 2 (two organ voxels at 1/2)."""
    logits = torch.cat([logits_of([[0.8, 0.4], [0.2, 0.6]]), logits_of([[0.5, 0.5], [0.5, 0.5]])])
    target = torch.tensor([[0, 1], [1, 1]])
    switches = {"absent": "skip", "smooth_numerator": 0.0, "smooth_denominator": 0.0}
    sample = DiceLoss(pooling="sample", **switches)(logits, target)
    batch = DiceLoss(pooling="batch", **switches)(logits, target)
    assert sample.item() == pytest.approx(1 - (1.2 / 1.8 + 2.0 / 3.0) / 2)
    assert batch.item() == pytest.approx(1 - 3.2 / 4.8)


def test_two_patches_where_the_code_and_the_print_of_ca_dice_differ() -> None:
    """Patch 1 holds background only, with Dice 1/3; patch 2 both classes, each with Dice 1.

    Mean over present classes, then samples: (2/3 + 0) / 2. Mean over the three pairs present: (2/3) / 3.
    """
    perfect = [[1 - 1e-12, 1e-12], [1e-12, 1 - 1e-12]]
    # background-only patch of two voxels with p = 0.2: D = 2 * 0.4 / (0.4 + 2) = 1/3
    logits = torch.cat([logits_of([[0.2, 0.2], [0.8, 0.8]]), logits_of(perfect)])
    target = torch.tensor([[0, 0], [0, 1]])
    assert build_loss("ca_dice")(logits, target).item() == pytest.approx(1 / 3, abs=1e-5)
    assert build_loss("ca_dice_print")(logits, target).item() == pytest.approx(2 / 9, abs=1e-5)


# Definition, gradient, invariances


@pytest.mark.parametrize("absent", ["count", "skip", "skip_jointly"])
@pytest.mark.parametrize(
    ("pooling", "background", "squared"), list(product(["sample", "batch"], [True, False], [True, False]))
)
def test_every_combination_of_switches_is_the_definition(
    pooling: str, background: bool, squared: bool, absent: str
) -> None:
    loss = DiceLoss(
        pooling=pooling,
        background=background,
        absent=absent,
        squared=squared,
        smooth_numerator=0.3,
        smooth_denominator=0.7,
    )
    logits, target = example()
    target[0][target[0] == 2] = 0
    target[target == 3] = 0
    torch.testing.assert_close(loss(logits, target), plain_dice(logits, target, loss))
    wanted = torch.autograd.grad(plain_dice(logits, target, loss), logits)[0]
    torch.testing.assert_close(gradient(loss, logits, target), wanted)


@pytest.mark.parametrize("name", [*sorted(LOSSES), "ca_dice+0.5*ce", "squared_dice+ce"])
def test_gradcheck_in_double_precision(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn((2, 4, 2, 3, 1), generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0, 1, 2, 1, 0, 2], [0, 0, 1, 0, 3, 0]]).view(2, 2, 3, 1)
    assert torch.autograd.gradcheck(lambda z: build(name)(z, target), (logits,))


@pytest.mark.parametrize("name", ["ce", "dice_sample_all_count", "dice_batch_all_skip", "ca_dice", "ca_dice_print"])
def test_permuting_all_classes_keeps_the_value_and_permutes_the_gradient(name: str) -> None:
    logits, target = example()
    order = torch.tensor([2, 0, 3, 1])  # new class i was order[i]
    loss, permuted = build_loss(name), torch.argsort(order)[target]
    torch.testing.assert_close(loss(logits[:, order], permuted), loss(logits, target))
    torch.testing.assert_close(
        gradient(loss, logits, target)[:, order],
        torch.autograd.grad(loss(moved := logits[:, order].detach().requires_grad_(), permuted), moved)[0],
    )


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_permuting_the_organs_keeps_the_value(name: str) -> None:
    logits, target = example()
    order = torch.tensor([0, 3, 1, 2])
    loss = build(name)
    torch.testing.assert_close(loss(logits[:, order], torch.argsort(order)[target]), loss(logits, target))


@pytest.mark.parametrize("name", ["ce", "dice", "ca_dice", "dice_sample_organs_skip"])
def test_loss_of_a_batch_is_the_mean_of_its_samples_under_sample_pooling(name: str) -> None:
    logits, target = example(batch=3)
    target[1] = 0
    target[2][target[2] == 1] = 2
    loss = build_loss(name)
    parts = [loss(logits[i : i + 1], target[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(loss(logits, target), torch.stack(parts).mean())


def test_batch_pooling_depends_on_how_the_batch_is_split() -> None:
    logits, target = example()
    loss = build_loss("nnu_dice")
    parts = [loss(logits[i : i + 1], target[i : i + 1]) for i in range(2)]
    assert abs(loss(logits, target) - torch.stack(parts).mean()) > 1e-4


@pytest.mark.parametrize("name", [*sorted(LOSSES), "nnu_dice+ce", "ca_dice+ce"])
def test_perfect_prediction_is_about_zero_and_a_wrong_one_is_far_from_it(name: str) -> None:
    _, target = example()
    onehot = nn.functional.one_hot(target, 4).movedim(-1, 1).float()
    loss = build(name)
    assert loss(40 * onehot, target).item() == pytest.approx(0, abs=1e-5)
    assert loss(-40 * onehot, target).item() > 0.3


@pytest.mark.parametrize("name", DICE)
def test_dice_losses_lie_between_zero_and_one(name: str) -> None:
    for seed in range(5):
        logits, target = example(seed=seed)
        assert 0 <= build_loss(name)(logits, target).item() <= 1


# Absent classes


def absent_example(mass: float = 0.25) -> tuple[Tensor, Tensor]:
    """Return logits and labels of eight voxels and three classes, class 2 absent with the given p everywhere."""
    rest = 1 - mass
    organ = [0.2 * rest if v < 4 else 0.7 * rest for v in range(8)]
    logits = logits_of([[rest - p for p in organ], organ, [mass] * 8]).requires_grad_()
    return logits, torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1]])


def test_nnu_dice_counts_an_absent_class_with_its_smoothing_term() -> None:
    """Eight voxels at 1/4 make P = 2: its term is 1 - 1e-5 / (2 + 1e-5), all but a total miss."""
    logits, target = absent_example()
    present = 1 - (2 * 3 * 0.525 + 1e-5) / (4 * 0.15 + 4 * 0.525 + 3 + 1e-5)
    absent = 1 - 1e-5 / (2 + 1e-5)
    assert build_loss("nnu_dice")(logits, target).item() == pytest.approx((present + absent) / 2, rel=1e-12)


@pytest.mark.parametrize(("mass", "score"), [(1e-9, 1.0), (1e-5, 0.5), (1e-4, 1 / 11), (1e-2, 1 / 1001)])
def test_absent_class_scores_as_perfect_only_below_the_smoothing_constant(mass: float, score: float) -> None:
    """Facts file 4.D8: P = 1e-5 gives one half, 1e-4 gives 0.09, 0.01 gives 0.001."""
    p = mass / 2
    logits = logits_of([[1 - p, 1 - p], [p, p]])
    value = build_loss("nnu_dice")(logits, torch.zeros(1, 2, dtype=torch.int64)).item()
    assert 1 - value == pytest.approx(score, rel=1e-3)


@pytest.mark.parametrize("name", ["ca_dice", "ca_dice_print"])
def test_ca_dice_gives_an_absent_class_no_term(name: str) -> None:
    logits, target = absent_example()
    organ = 2 * 3 * 0.525 / (4 * 0.15 + 4 * 0.525 + 3 + 1e-5)
    background = 2 * (4 * 0.6 + 0.225) / (4 * 0.6 + 4 * 0.225 + 5 + 1e-5)
    assert build_loss(name)(logits, target).item() == pytest.approx(1 - (organ + background) / 2, rel=1e-12)


@pytest.mark.parametrize("name", ["ca_dice", "ca_dice_print"])
def test_ca_dice_sends_no_gradient_through_the_mass_of_an_absent_class(name: str) -> None:
    """dL/dP of the absent class is exactly 0; on its logits only the other classes' share remains."""
    voxels = Voxels(*absent_example())
    grad = torch.autograd.grad(build_loss(name).value(voxels), voxels.masses, retain_graph=True)[0]
    assert grad[0, 2].item() == 0
    assert (grad[0, :2] > 0).all()


def test_nnu_dice_pushes_down_an_absent_class_by_the_closed_form() -> None:
    """dL/dP = e / (C (P + e)^2) with C = 2 organs and P = 2."""
    voxels = Voxels(*absent_example())
    loss = build_loss("nnu_dice")
    assert isinstance(loss, VoxelLoss)
    grad = torch.autograd.grad(loss.value(voxels), voxels.masses)[0]
    assert grad[0, 2].item() == pytest.approx(1e-5 / (2 * (2 + 1e-5) ** 2), rel=1e-9)


def test_absent_class_alone_has_exactly_zero_gradient_when_skipped_and_not_when_counted() -> None:
    """Only background in the patch, background left out: nothing but the absent organ could pull."""
    logits, _ = absent_example()
    target = torch.zeros(1, 8, dtype=torch.int64)
    assert (gradient(build_loss("dice_sample_organs_skip"), logits, target) == 0).all()
    assert (gradient(build_loss("dice_sample_organs_count"), logits, target) != 0).any()


@pytest.mark.parametrize("pooling", ["sample", "batch"])
@pytest.mark.parametrize("absent", ["skip", "skip_jointly"])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_nothing_to_count_is_zero_with_a_live_graph(pooling: str, absent: str, scale: float) -> None:
    """Background-only patches without background: 0/0 in the papers; scale 1e4 makes masses exactly 0."""
    logits = scale * torch.randn((2, 3, *SPATIAL), generator=torch.Generator().manual_seed(0))
    logits[:, 0] += scale * 10
    logits.requires_grad_()
    for squared in (False, True):
        loss = DiceLoss(pooling=pooling, absent=absent, squared=squared, smooth_numerator=0, smooth_denominator=0)
        value = loss(logits, torch.zeros(2, *SPATIAL, dtype=torch.int64))
        assert value.item() == 0
        assert value.requires_grad
        assert (torch.autograd.grad(value, logits)[0] == 0).all()


def test_one_sample_without_organs_does_not_spoil_the_other() -> None:
    logits, target = example()
    target[1] = 0
    loss = build_loss("dice_sample_organs_skip")
    torch.testing.assert_close(loss(logits, target), loss(logits[:1], target[:1]) / 2)


def test_an_added_absent_class_changes_counting_losses_and_leaves_skipping_ones() -> None:
    logits, target = example()
    wider = torch.cat([logits, torch.full_like(logits[:, :1], -1e9)], dim=1)
    bigger = torch.cat([logits, logits[:, :1]], dim=1)
    for name in ("ca_dice", "ca_dice_print", "ce"):
        torch.testing.assert_close(build_loss(name)(wider, target), build_loss(name)(logits, target))
    nnu = build_loss("nnu_dice")
    # at exactly no mass the absent organ is a fourth, perfect one; with mass it is a fourth, missed one
    torch.testing.assert_close(nnu(wider, target), nnu(logits, target) * 3 / 4)
    assert nnu(bigger, target) > nnu(logits, target)


# Presets and names


def test_presets_are_those_of_the_papers() -> None:
    def switches(name: str) -> tuple[object, ...]:
        loss = build_loss(name)
        assert isinstance(loss, DiceLoss)
        return (
            loss.pooling, loss.background, loss.absent, loss.smooth_numerator, loss.smooth_denominator, loss.squared
        )  # fmt: skip

    assert switches("dice") == ("sample", False, "count", 1e-5, 1e-5, False)
    assert switches("nnu_dice") == ("batch", False, "count", 1e-5, 1e-5, False)
    assert switches("ca_dice") == ("sample", True, "skip", 0, 1e-5, False)
    assert switches("ca_dice_print") == ("sample", True, "skip_jointly", 0, 1e-5, False)
    assert switches("squared_dice") == ("batch", False, "count", 1, 1, True)


def test_single_factor_steps_lead_from_nnu_dice_to_ca_dice() -> None:
    steps = [name for name in LOSSES if name.startswith("dice_")]
    assert len(steps) == 8
    assert repr(build_loss("dice_batch_organs_count")) == repr(build_loss("nnu_dice"))
    assert repr(build_loss("dice_sample_all_skip")) == repr(build_loss("ca_dice"))
    assert len({repr(build_loss(name)) for name in steps}) == 8


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_listed_loss_is_built_and_described_in_one_line(name: str) -> None:
    logits, target = example(dtype=torch.float32)
    value = build(name)(logits, target)
    assert value.shape == ()
    assert torch.isfinite(value)
    assert LOSSES[name]
    assert "\n" not in LOSSES[name]


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("nnu_dice+ce", {"nnu_dice": 1, "ce": 1}),
        ("0.5*ce+nnu_dice", {"ce": 0.5, "nnu_dice": 1}),
        (" .25 * ce + 2*ca_dice + 1e-1*squared_dice ", {"ce": 0.25, "ca_dice": 2, "squared_dice": 0.1}),
        ("3*dice", {"dice": 3}),
    ],
)
def test_sums_are_weighted(text: str, weights: dict[str, float]) -> None:
    logits, target = example()
    loss = build_loss(text)
    wanted = sum(weight * build_loss(name)(logits, target) for name, weight in weights.items())
    torch.testing.assert_close(loss(logits, target), wanted)
    grads = sum(weight * gradient(build_loss(name), logits, target) for name, weight in weights.items())
    torch.testing.assert_close(gradient(loss, logits, target), grads)


def test_options_in_brackets_override_the_preset() -> None:
    wanted = DiceLoss(pooling="batch", background=True, absent="skip", smooth_numerator=0.5, smooth_denominator=1e-3)
    text = "dice(pooling=batch, background=in, absent=skip, smooth_numerator=.5, smooth_denominator=1e-3)"
    assert repr(build_loss(text)) == repr(wanted)
    loss = build_loss("ce+ca_dice(background=out)")
    assert isinstance(loss, SumLoss)
    assert repr(loss.losses[1]) == repr(build_loss("dice_sample_organs_skip"))


def test_a_loss_of_any_kind_can_stand_in_a_sum() -> None:
    class Foreign(nn.Module):
        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return nn.functional.cross_entropy(logits, target)

    logits, target = example()
    mixed = SumLoss([(1, Foreign()), (2, CrossEntropy())])
    torch.testing.assert_close(mixed(logits, target), 3 * CrossEntropy()(logits, target))


def test_a_sum_computes_the_softmax_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    once = softmax._softmax
    monkeypatch.setattr(softmax, "_softmax", lambda *args, **kwargs: calls.append(1) or once(*args, **kwargs))
    build_loss("ce+nnu_dice+ca_dice+squared_dice")(*example(batch=1))
    assert len(calls) == 1


def test_blocks_and_the_whole_are_one_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU voxels pass in blocks, here of 7 voxels of each sample; where torch.compile traces they pass at once."""
    logits, target = example()
    loss = build_loss("squared_dice+ca_dice+ce")
    monkeypatch.setattr(softmax, "BLOCK_NUMBERS", 28)
    value, grad = loss(logits, target), gradient(loss, logits, target)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(value, loss(logits, target))
    torch.testing.assert_close(grad, gradient(loss, logits, target))


@pytest.mark.parametrize("offset", [-200.0, 200.0])
def test_a_number_added_to_all_logits_changes_nothing_where_exponentials_leave_the_range(offset: float) -> None:
    """exp(200) is infinite and exp(-200) zero in float32."""
    logits, target = example(dtype=torch.float32)
    loss = build_loss("nnu_dice+ce")
    torch.testing.assert_close(loss(logits + offset, target), loss(logits, target))
    torch.testing.assert_close(
        torch.autograd.grad(loss(logits + offset, target), logits)[0],
        gradient(loss, logits, target), rtol=1e-3, atol=1e-7,
    )  # fmt: skip


def test_losses_need_nothing_of_hnlib_but_its_errors() -> None:
    """So that somebody else's project can take the package as it is."""
    imported = set()
    for file in Path(losses.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
            elif isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names)
    others = {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names}
    assert {name for name in others if not name.startswith(("torch", "hnlib.losses"))} == {"hnlib.errors"}


# Agreement with MONAI where the definitions coincide


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("squared", [True, False])
def test_dice_agrees_with_monai(background: bool, batch: bool, squared: bool) -> None:
    monai = pytest.importorskip("monai.losses")
    theirs = monai.DiceLoss(
        to_onehot_y=True, softmax=True, include_background=background, batch=batch, squared_pred=squared,
        smooth_nr=0.1, smooth_dr=0.2,
    )  # fmt: skip
    ours = DiceLoss(
        pooling="batch" if batch else "sample", background=background, absent="count", squared=squared,
        smooth_numerator=0.1, smooth_denominator=0.2,
    )  # fmt: skip
    logits, target = example()
    target[0][target[0] == 2] = 1
    torch.testing.assert_close(ours(logits, target), theirs(logits, target[:, None]), rtol=1e-6, atol=1e-9)
    wanted = torch.autograd.grad(theirs(logits, target[:, None]), logits)[0]
    torch.testing.assert_close(gradient(ours, logits, target), wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("text", "batch"), [("dice+ce", False), ("nnu_dice+ce", True)])
def test_sum_with_cross_entropy_agrees_with_monai(text: str, batch: bool) -> None:
    monai = pytest.importorskip("monai.losses")
    theirs = monai.DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=batch)
    logits, target = example(dtype=torch.float32)
    torch.testing.assert_close(build_loss(text)(logits, target), theirs(logits, target[:, None]), rtol=1e-6, atol=1e-6)


# Precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["nnu_dice+ce", "ca_dice+ce", "squared_dice+ce"])
def test_half_precision_logits_give_a_finite_float32_loss(name: str, dtype: torch.dtype) -> None:
    """A patch of 70,000 voxels: its sums overflow float16 and stand still in bfloat16."""
    target = torch.zeros(1, 70, 100, 10, dtype=torch.int64)
    target[:, :3, :3, :3] = 1
    logits = torch.randn((1, 3, 70, 100, 10), generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    loss = build_loss(name)
    value = loss(logits, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(logits.detach().float(), target))
    value.backward()
    assert logits.grad is not None
    assert logits.grad.dtype == dtype
    assert torch.isfinite(logits.grad).all()


def test_autocast_leaves_the_reductions_in_float32() -> None:
    logits, target = example(dtype=torch.float32)
    loss = build_loss("squared_dice+ce")
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(logits, target)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, loss(logits, target))


@pytest.mark.parametrize("name", ["nnu_dice+ce", "ca_dice+ce", "squared_dice+ce"])
def test_extreme_logits_give_finite_values_and_gradients(name: str) -> None:
    logits, target = example(dtype=torch.float32)
    extreme = (logits.detach() * 1e4).requires_grad_()
    value = build_loss(name)(extreme, target)
    value.backward()
    assert torch.isfinite(value)
    assert extreme.grad is not None
    assert torch.isfinite(extreme.grad).all()


@pytest.mark.parametrize("name", ["nnu_dice+ce", "ca_dice+ce", "squared_dice+ce"])
def test_sums_over_a_large_patch_keep_their_digits(name: str) -> None:
    """A million voxels, one of them the organ: float32 logits agree with float64 ones to 1e-6."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((1, 2, 100, 100, 100), generator=generator)
    target = torch.zeros(1, 100, 100, 100, dtype=torch.int64)
    target[0, 50, 50, 50] = 1
    loss = build_loss(name)
    assert loss(logits, target).item() == pytest.approx(loss(logits.double(), target).item(), rel=1e-6)


def test_backward_can_run_twice_and_labels_of_any_integer_type_agree() -> None:
    logits, target = example()
    value = build_loss("ca_dice+ce")(logits, target)
    first = torch.autograd.grad(value, logits, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(value, logits)[0], first)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert torch.equal(build_loss("ca_dice+ce")(logits, target.to(dtype)), value)


@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
def test_memory_layout_changes_nothing(layout: torch.memory_format) -> None:
    logits, target = example()
    moved = logits.detach().to(memory_format=layout).requires_grad_()
    torch.testing.assert_close(
        gradient(build_loss("nnu_dice+ce"), moved, target), gradient(build_loss("nnu_dice+ce"), logits, target)
    )


def test_labels_may_have_the_channel_axis_of_monai() -> None:
    """Alone, in a sum with a foreign loss, and under deep supervision."""
    logits, target = example()
    foreign = SumLoss([(1, nn.CrossEntropyLoss()), (1, build_loss("ca_dice"))])
    for loss in (build_loss("topk_dice+ce"), foreign, DiceLoss()):
        torch.testing.assert_close(loss(logits, target[:, None]), loss(logits, target), rtol=0, atol=0)
        heads, deep = [logits, logits[:, :, ::2]], DeepSupervision(loss)
        torch.testing.assert_close(deep(heads, target[:, None]), deep(heads, target), rtol=0, atol=0)


# Faults


@pytest.mark.parametrize(
    ("logits", "target", "message"),
    [
        (torch.zeros(1, 3, 4, 4, dtype=torch.int64), torch.zeros(1, 4, 4, dtype=torch.int64), "logits are torch.int64"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4), "target is torch.float32"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool), "target is torch.bool"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 5, dtype=torch.int64), "target has shape (1, 4, 5)"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 4, 4, dtype=torch.int64), "with a channel axis of length 1"),
        (torch.zeros(2, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64), "target has shape (1, 4, 4)"),
        (torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64), "at least two classes"),
        (torch.zeros(0, 3, 4, 4), torch.zeros(0, 4, 4, dtype=torch.int64), "at least one voxel"),
        (torch.zeros(1, 3, 4, 4), torch.full((1, 4, 4), 3), "labels 3 to 3 but logits have 3 classes"),
        (torch.zeros(1, 3, 4, 4), torch.full((1, 4, 4), -1), "labels -1 to -1"),
        (torch.zeros(1, 3, 4, 4), torch.full((1, 4, 4), 255), "there is no ignore label"),
        (
            [torch.zeros(1, 3, 4, 4)],
            torch.zeros(1, 4, 4, dtype=torch.int64),
            "logits: a list came",
        ),
        (torch.zeros(1, 3, 4, 4), [torch.zeros(1, 4, 4, dtype=torch.int64)], "target: a list came"),
    ],
)
@pytest.mark.parametrize("name", ["ce", "ca_dice+ce"])
def test_input_that_does_not_fit_is_a_value_error(logits: Tensor, target: Tensor, message: str, name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build_loss(name)(logits, target)


@pytest.mark.parametrize(
    "switches",
    [
        {"pooling": "image"},
        {"absent": "ignore"},
        {"background": "yes"},
        {"squared": None},
        {"smooth_numerator": -1e-5},
        {"smooth_denominator": float("nan")},
        {"smooth_denominator": 0},
    ],
)
def test_impossible_switches_are_a_value_error(switches: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(switches))):
        DiceLoss(**switches)


def test_squared_masses_are_refused_where_nobody_asked_for_them() -> None:
    with pytest.raises(ValueError, match="squares=True"):
        _ = Voxels(*example()).squared_masses
