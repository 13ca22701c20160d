"""The audit of losses: closed forms, known pulls, absent classes, cuts through ambiguous voxels, faults."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from hnlib.losses import Audit, DiceLoss, audit, build_loss
from hnlib.losses.audit_pressure import ball, cut
from hnlib.losses.audit_probes import batch_split, false_positives, gradients
from hnlib.losses.auditing import _warnings
from hnlib.losses.closed_forms import analytic_gradient

SQUARED_TOPK = "topk_dice(percent={})"
LINEAR_TOPK = "topk_dice(percent={},squared=false)"


def values(rows: object) -> dict[tuple[str, str, str], float]:
    """Return prediction, class and measure to value."""
    return {(row["prediction"], row["class"], row["measure"]): row["value"] for row in rows}


@pytest.fixture(scope="module")
def of_ce() -> Audit:
    return audit(build_loss("ce"))


# Gradients


@pytest.mark.parametrize(
    ("pooling", "background", "absent", "squared"),
    list(product(["sample", "batch"], [True, False], ["count", "skip", "skip_jointly"], [True, False])),
)
def test_closed_form_is_the_gradient_of_every_dice(pooling: str, background: bool, absent: str, squared: bool) -> None:
    loss = DiceLoss(
        pooling=pooling, background=background, absent=absent, squared=squared, smooth_numerator=0.3,
        smooth_denominator=0.7,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((2, 4, 3, 4, 5), generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3, (2, 3, 4, 5), generator=generator)
    target[1] *= target[1] == 1
    (grad,) = torch.autograd.grad(loss(logits, target), logits)
    torch.testing.assert_close(analytic_gradient(loss, logits, target), grad)


@pytest.mark.parametrize("name", ["ce", "nnu_dice", "dice", "squared_dice", "0.5*ce+ca_dice"])
def test_measured_pulls_are_the_analytic_ones(name: str) -> None:
    """At random, half-trained and trained predictions, of large, small and absent classes; float32 against float64."""
    rows = [row for row in gradients(build_loss(name), 4, seed=0) if row["prediction"] != "perfect"]
    assert {row["class"] for row in rows} >= {"large", "small", "absent"}
    for row in rows:
        assert row["analytic"] is not None
        assert row["value"] == pytest.approx(row["analytic"], rel=5e-3, abs=1e-9), row


def test_no_closed_form_is_claimed_for_a_strangers_loss() -> None:
    loss = nn.CrossEntropyLoss()
    assert analytic_gradient(loss, torch.zeros(1, 2, 1), torch.tensor([[1]])) is None


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("ce", (205, 179, 219)),
        ("dice", (182, 63, 10)),
        ("dice(squared=true)", (150, 3.7, 8)),
    ],
)
def test_pull_ratios_of_organs_of_8000_and_40_voxels(name: str, wanted: tuple[float, ...]) -> None:
    """Field notes 3.6, margins 0, 3 and 6; a small organ's 40 voxels leave some percent to the noise drawn."""
    found = values(gradients(build_loss(name), 3, seed=1))
    ratios = [found[stage, "large : small", "pull_ratio"] for stage in ("random", "half-trained", "trained")]
    assert ratios == pytest.approx(wanted, rel=0.15)


# Batch split


@pytest.mark.parametrize(("name", "invariant"), [("dice", True), ("ca_dice", True), ("ce", True), ("nnu_dice", False)])
def test_only_batch_pooling_depends_on_the_split(name: str, invariant: bool) -> None:
    found = values(batch_split(build_loss(name), 4, seed=0))
    together, apart = (found["half-trained", "all", key] for key in ("loss_of_batch", "mean_of_samples"))
    assert (together == pytest.approx(apart, rel=1e-5)) is invariant


# An absent class


@pytest.mark.parametrize(
    ("smooth", "slopes"),
    [(1e-5, {"P = 1": 2.5e-6, "P = 100": 2.5e-10}), (1, {"P = 1": 1 / 16, "P = 100": 1 / (4 * 101**2)})],
)
def test_slope_of_an_absent_class_is_e_over_c_times_p_plus_e_squared(smooth: float, slopes: dict[str, float]) -> None:
    """Field notes 3.6, C = 4 organs."""
    loss = DiceLoss(smooth_numerator=smooth, smooth_denominator=smooth)
    found = values(false_positives(loss, 5))
    for name, slope in slopes.items():
        assert found["soft", name, "slope"] == pytest.approx(slope, rel=1e-3)
        mass = float(name.split()[-1])
        assert found["soft", name, "cost"] == pytest.approx(mass / (mass + smooth) / 4, rel=1e-3)


def test_an_absent_class_counts_as_perfect_only_while_predictions_are_hard() -> None:
    """The motive of ca-Dice. Hard: one false voxel costs a third. Soft: so does a mass of one, none called.

    So with soft predictions an absent organ is never perfect, and a false voxel more costs nothing.
    """
    found = values(false_positives(build_loss("nnu_dice"), 4))
    assert found["hard", "P = 1", "cost"] == pytest.approx(1 / 3, rel=1e-3)
    assert found["soft", "P = 1", "cost"] == pytest.approx(1 / 3, rel=1e-3)
    assert found["hard", "P = 100", "cost"] - found["hard", "P = 1", "cost"] < 1e-4
    adaptive = values(false_positives(build_loss("ca_dice"), 4))
    # what is left is the background's own Dice: 100 of its 254 104 voxels, one of three classes, half of it
    assert adaptive["hard", "P = 100", "cost"] == pytest.approx(100 / 254104 / 3 / 2, rel=0.02)


def test_a_class_without_penalty_is_warned_of() -> None:
    def warned(name: str) -> list[str]:
        return _warnings(Audit(name, tuple(false_positives(build_loss(name), 4)), ()))

    assert warned("dice_sample_organs_skip") == ["class absent: false positives cost nothing, soft or hard"]
    (line,) = warned("nnu_dice")
    assert "nothing more once the prediction is soft" in line
    for name in ("ce", "ca_dice", "nnu_dice(smooth_numerator=1, smooth_denominator=1)", "dice_sample_organs_skip+ce"):
        assert warned(name) == []


def test_an_organ_that_is_never_learnt_is_warned_of() -> None:
    def warned(loss: nn.Module) -> list[str]:
        rows = (*gradients(loss, 4, 0), *false_positives(loss, 4))
        assert all(math.isfinite(row["value"]) for row in rows)
        return _warnings(Audit("", rows, ()))

    assert warned(build_loss("weighted_ce(weights=1/1/0/1)")) == [
        "class small: never learnt, its voxels have no gradient towards it"
    ]
    assert warned(build_loss("ce")) == []


def test_a_wrong_sign_is_named() -> None:
    ce = build_loss("ce")

    def turned(logits: Tensor, target: Tensor) -> Tensor:
        return -ce(logits, target)

    rows = (*gradients(turned, 4, 0), *false_positives(turned, 4))
    *organs, absent = _warnings(Audit("", rows, ()))
    assert [line.split(":")[0] for line in organs] == ["class background", "class large", "class small"]
    assert all("is the sign right" in line for line in organs)
    assert absent.startswith("class absent: false positives are rewarded")


@pytest.mark.slow
def test_a_loss_that_is_never_a_number_is_told_and_measures_nothing() -> None:
    found = audit(lambda logits, target: nn.functional.cross_entropy(logits, target) * math.nan)
    (line, *_) = found.warnings
    assert line == "not a finite number in: ambiguous voxels, batch split, false positive, gradient, jittered ball"
    assert math.isnan(found.find("ambiguous voxels", "cut")["settled", "large"])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "organs"), [(2, {"background", "large"}), (3, {"background", "large", "small"})])
def test_losses_of_two_and_three_classes_are_audited(number: int, organs: set[str]) -> None:
    """The last class plays the absent one: Dice of one organ without absent classes lets false positives pass."""
    found = audit(build_loss("dice_sample_organs_skip"), num_classes=number)
    assert {name for _, name in found.find("gradient", "pull")} == organs
    assert found.warnings == ("class absent: false positives cost nothing, soft or hard",)
    assert audit(build_loss(f"weighted_ce(weights={'/'.join('1' * number)})"), num_classes=number).warnings == ()


# Where the line is drawn


@pytest.mark.parametrize(
    ("name", "observed", "half_dice"),
    [
        ("ce", 0.5, 0.5),
        ("dice", 0.438, 0.438),
        ("dice(squared=true)", 0.454, 0.455),
        (SQUARED_TOPK.format(50), 0.408, 0.405),
        (SQUARED_TOPK.format(30), 0.346, 0.346),
        (LINEAR_TOPK.format(50), 0.380, 0.381),
    ],
)
def test_a_voxel_is_called_organ_above_half_of_the_dice_reached(name: str, observed: float, half_dice: float) -> None:
    """Field notes 1B (iii): the observed cut, and D_T / 2; topK over-segments."""
    (row, _) = cut(build_loss(name), 4, seed=0)
    assert row["value"] == pytest.approx(observed, abs=0.02)
    assert row["analytic"] == pytest.approx(half_dice, abs=0.015)


@pytest.mark.parametrize(("name", "ratio"), [("dice(squared=true)", 0.894), (SQUARED_TOPK.format(50), 1.053)])
def test_volume_of_a_ball_whose_boundary_jitters(name: str, ratio: float) -> None:
    """Field notes 1B (iv); their radii were drawn, ours are spread evenly. Their 1.068 at K = 30 is 1.24 here."""
    found = values(ball(build_loss(name), 4, seed=0))
    assert found["settled", "large", "volume_ratio"] == pytest.approx(ratio, abs=0.06)


# The result


def test_an_audit_is_a_tidy_table_that_prints(of_ce: Audit) -> None:
    assert {tuple(row) for row in of_ce.rows} == {("check", "prediction", "class", "measure", "value", "analytic")}
    assert {row["check"] for row in of_ce.rows} == {
        "gradient", "batch split", "false positive", "ambiguous voxels", "jittered ball",
    }  # fmt: skip
    assert of_ce.warnings == ()
    text = str(of_ce)
    assert "pull_ratio" in text
    assert text.endswith("Warning: none")
    assert of_ce.find("ambiguous voxels", "cut")["settled", "large"] == pytest.approx(0.5, abs=0.01)
    # of mean cross-entropy the slope is its own unit
    assert of_ce.find("false positive", "slope_in_ce")["soft", "P = 1"] == pytest.approx(1, rel=1e-3)


def test_a_strangers_loss_gives_the_same_rows_again(of_ce: Audit) -> None:
    """torch's own cross-entropy, called by a plain function, is ours; the seed decides all that is drawn."""
    other = audit(lambda logits, target: nn.functional.cross_entropy(logits, target))
    assert [row["value"] for row in other.rows] == pytest.approx(
        [row["value"] for row in of_ce.rows], rel=1e-2, abs=1e-6
    )


# Faults


def detached(logits: Tensor, _target: Tensor) -> Tensor:
    return logits.detach().mean()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("ce", "loss is str; something called as"),
        (lambda logits, _target: logits.mean(dim=0), r"the loss returned shape \(4, 64, 64, 64\)"),
        (lambda _logits, _target: 1.0, "the loss returned float"),
        (detached, "number without gradient"),
        (lambda logits, target: nn.functional.cross_entropy(logits, target[:, None]), r"target\[:, None\]"),
    ],
)
def test_what_is_no_loss_is_refused(loss: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        audit(loss)


@pytest.mark.parametrize("number", [1, 4.0, "4"])
def test_too_few_classes_are_refused(number: object) -> None:
    with pytest.raises(ValueError, match="num_classes is"):
        audit(build_loss("ce"), num_classes=number)
