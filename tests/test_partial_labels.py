"""Organs that a case has not outlined: unknown in losses, metrics and confidence, never background."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hnlib.confidence import summarise
from hnlib.losses import LOSSES, DeepSupervision, DiceLoss, SumLoss, build_loss, merge_unlabelled, softmax
from hnlib.metrics import evaluate_case

NAMES = [*sorted(LOSSES), "nnu_dice+ce", "topk_dice(percent=30)+topk_ce(pooling=batch)", "0.5*squared_dice+ca_dice+ce"]
#: Two voxels: background, organ A, organ B; the second voxel is A, and nobody outlined B.
PROBS = [[0.5, 0.1], [0.3, 0.6], [0.2, 0.3]]
TARGET = torch.tensor([[0, 1]])
NO_B = torch.tensor([[True, True, False]])
PLAIN = {"absent": "count", "smooth_numerator": 0.0, "smooth_denominator": 1e-9}


def logits_of(probs: list[list[float]]) -> Tensor:
    """Return logits (1, C, V) whose softmax is `probs`, given as one row a class."""
    return torch.tensor(probs, dtype=torch.float64).log().unsqueeze(0)


def build(name: str, classes: int = 4) -> nn.Module:
    """Return a loss by its name, with sizes in training where it asks for them."""
    return build_loss(name, class_voxels=range(classes, 0, -1))


def example() -> tuple[Tensor, Tensor, Tensor]:
    """Return logits (3, 4, ...), labels, and which classes are outlined: all, one lacking, two lacking."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((3, 4, 3, 2, 4), generator=generator, dtype=torch.float64).requires_grad_()
    target = torch.randint(0, 4, (3, 3, 2, 4), generator=generator)
    labelled = torch.tensor([[True] * 4, [True, True, False, True], [True, False, True, False]])
    for sample, known in zip(target, labelled, strict=True):
        sample[~known[sample]] = 0
    return logits, target, labelled


# Losses


def test_cross_entropy_by_hand() -> None:
    """Background has 0.5 + 0.2 at the first voxel, A has 0.6 at the second."""
    value = build_loss("ce")(logits_of(PROBS), TARGET, NO_B)
    assert value.item() == pytest.approx(-(math.log(0.7) + math.log(0.6)) / 2)


@pytest.mark.parametrize(
    ("switches", "wanted"),
    [
        # A alone: intersection 0.6, masses 0.9 + 1; B has no term
        ({}, 1 - 1.2 / 1.9),
        # background: p is 0.7 and 0.4, intersection 0.7, masses 1.1 + 1
        ({"background": True}, 1 - (1.2 / 1.9 + 1.4 / 2.1) / 2),
        ({"background": True, "absent": "skip"}, 1 - (1.2 / 1.9 + 1.4 / 2.1) / 2),
        ({"background": True, "squared": True}, 1 - (1.2 / (0.45 + 1) + 1.4 / (0.65 + 1)) / 2),
        ({"background": True, "pooling": "batch"}, 1 - (1.2 / 1.9 + 1.4 / 2.1) / 2),
    ],
)
def test_dice_by_hand(switches: dict[str, object], wanted: float) -> None:
    value = DiceLoss(**{**PLAIN, **switches})(logits_of(PROBS), TARGET, NO_B)  # type: ignore[arg-type]
    assert value.item() == pytest.approx(wanted)


def test_the_same_voxels_taught_as_background_would_be_punished() -> None:
    """With B outlined and absent, counted Dice adds a total miss; unknown, it adds nothing."""
    logits = logits_of(PROBS)
    known = DiceLoss(**PLAIN)(logits, TARGET, torch.ones(1, 3, dtype=torch.bool))
    assert known.item() == pytest.approx((1 - 1.2 / 1.9 + 1) / 2)
    assert DiceLoss(**PLAIN)(logits, TARGET, NO_B).item() == pytest.approx(1 - 1.2 / 1.9)


def test_batch_pooling_takes_a_class_from_the_samples_that_outline_it() -> None:
    """Sample 1 outlines both organs, sample 2 only A. A: I = 1.2, S = 1.8 + 2. B: I = 0, S = 0.5, of sample 1."""
    logits = logits_of(PROBS).repeat(2, 1, 1)
    labelled = torch.tensor([[True, True, True], [True, True, False]])
    value = DiceLoss(**{**PLAIN, "pooling": "batch"})(logits, TARGET.repeat(2, 1), labelled)
    assert value.item() == pytest.approx(((1 - 2.4 / 3.8) + 1) / 2)
    nobody = NO_B.repeat(2, 1)
    value = DiceLoss(**{**PLAIN, "pooling": "batch"})(logits, TARGET.repeat(2, 1), nobody)
    assert value.item() == pytest.approx(1 - 2.4 / 3.8)


def test_sample_pooling_averages_over_each_samples_own_classes() -> None:
    """Sample 1: A and a missed B; sample 2: A alone. Jointly, the three pairs weigh the same."""
    logits, target = logits_of(PROBS).repeat(2, 1, 1), torch.tensor([[0, 1], [0, 1]])
    labelled = torch.tensor([[True, True, True], [True, True, False]])
    a = 1 - 1.2 / 1.9
    value = DiceLoss(**PLAIN)(logits, target, labelled)
    assert value.item() == pytest.approx(((a + 1) / 2 + a) / 2)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_tells_an_unknown_organ_from_background(name: str) -> None:
    """Probability moved between background and an organ nobody outlined leaves the loss, and has no slope."""
    logits, target, labelled = example()
    loss = build(name)
    value = loss(logits, target, labelled)
    (grad,) = torch.autograd.grad(value, logits)
    slope = grad / logits.softmax(1)  # dL/dp along directions that keep the sum over classes
    for sample, known in enumerate(labelled):
        for organ in (~known).nonzero().flatten().tolist():
            torch.testing.assert_close(slope[sample, organ], slope[sample, 0])
            swapped = logits.detach().clone()
            swapped[sample, [0, organ]] = swapped[sample, [organ, 0]]
            torch.testing.assert_close(loss(swapped, target, labelled), value.detach())


@pytest.mark.parametrize("name", NAMES)
def test_all_outlined_is_the_ordinary_loss_exactly(name: str) -> None:
    logits, target, _ = example()
    loss, everything = build(name), torch.ones(3, 4, dtype=torch.bool)
    assert torch.equal(loss(logits, target, everything), loss(logits, target))
    ours, theirs = (torch.autograd.grad(v, logits)[0] for v in (loss(logits, target, everything), loss(logits, target)))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["ce", "ca_dice", "nnu_dice", "squared_dice"])
def test_gradcheck_in_double_precision(name: str) -> None:
    logits, target, labelled = example()
    assert torch.autograd.gradcheck(lambda z: build_loss(name)(z, target, labelled), (logits,))


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_answer_may_hold_any_unknown_organ(name: str) -> None:
    """Half of the background called B, by a network that is right elsewhere, is still about zero."""
    target = torch.zeros(1, 40, dtype=torch.int64)
    target[0, :10] = 1
    answer = target.clone()
    answer[0, 20:30] = 2
    logits = 40 * nn.functional.one_hot(answer, 3).movedim(-1, 1).float()
    assert build(name, classes=3)(logits, target, NO_B).item() == pytest.approx(0, abs=1e-5)
    assert build_loss("nnu_dice+ce")(logits, target).item() > 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_stay_finite(dtype: torch.dtype) -> None:
    logits, target, labelled = example()
    extreme = (1e4 * logits.detach()).to(dtype).requires_grad_()
    value = build_loss("squared_dice+ca_dice+ce")(extreme, target, labelled)
    value.backward()
    assert torch.isfinite(value)
    assert extreme.grad is not None
    assert torch.isfinite(extreme.grad).all()


def test_a_sample_in_which_nothing_is_outlined_teaches_nothing() -> None:
    logits, _, _ = example()
    target, labelled = torch.zeros(3, 3, 2, 4, dtype=torch.int64), torch.tensor([[True, False, False, False]] * 3)
    for name in ("ce", "nnu_dice", "ca_dice"):
        value = build_loss(name)(logits, target, labelled)
        assert value.item() == pytest.approx(0, abs=1e-6)
        assert torch.autograd.grad(value, logits)[0].abs().max().item() == pytest.approx(0, abs=1e-9)


def test_deep_supervision_passes_it_to_every_head() -> None:
    generator = torch.Generator().manual_seed(0)
    heads = [torch.randn((2, 3, n, n, n), generator=generator) for n in (4, 2)]
    target, labelled = torch.zeros(2, 4, 4, 4, dtype=torch.int64), torch.tensor([[True] * 3, [True, False, True]])
    loss = build_loss("nnu_dice+ce")
    wanted = 2 / 3 * loss(heads[0], target, labelled) + 1 / 3 * loss(heads[1], target[:, 1::2, 1::2, 1::2], labelled)
    torch.testing.assert_close(DeepSupervision(loss)(heads, target, labelled), wanted)


def test_another_loss_in_a_sum_receives_it_too() -> None:
    class Foreign(nn.Module):
        def forward(self, logits: Tensor, target: Tensor, labelled: Tensor) -> Tensor:
            return nn.functional.cross_entropy(merge_unlabelled(logits, labelled), target)

    logits, target, labelled = example()
    mixed = SumLoss([(1, Foreign()), (2, build_loss("ce"))])
    torch.testing.assert_close(mixed(logits, target, labelled), 3 * build_loss("ce")(logits, target, labelled))


def test_without_it_nothing_is_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ordinary loss pays nothing for the mode."""
    monkeypatch.setattr(softmax, "merge_unlabelled", lambda *_: pytest.fail("merged"))
    logits, target, _ = example()
    build_loss("nnu_dice+ce")(logits, target)


@pytest.mark.parametrize(
    ("labelled", "message"),
    [
        (torch.ones(3, 4), "labelled is torch.float32"),
        (torch.ones(4, dtype=torch.bool), "of shape (4,)"),
        (torch.zeros(3, 4, dtype=torch.bool), "the background is always labelled"),
        (torch.tensor([[True, True, True, False]] * 3), "sample 0 holds voxels of classes [3]"),
    ],
)
def test_what_does_not_fit_is_a_value_error(labelled: Tensor, message: str) -> None:
    logits, target, _ = example()
    with pytest.raises(ValueError, match=re.escape(message)):
        build_loss("ca_dice+ce")(logits, target, labelled)


def test_on_an_accelerator_no_value_is_looked_at() -> None:
    """The batch is there and ``labelled`` on the CPU, as in training; ``meta`` holds no value to look at."""
    logits, target, labelled = example()
    far = build_loss("ca_dice+ce")(logits.to("meta"), target.to("meta"), labelled)
    assert far.device.type == "meta"


# Metrics and confidence

ORGANS = ("brainstem", "mandible", "larynx")


def case() -> tuple[np.ndarray, np.ndarray]:
    """Return a reference without larynx, and a prediction that holds one where the reference is background."""
    reference = np.zeros((8, 8, 8), np.uint8)
    reference[1:4, 1:4, 1:4], reference[5:7, 5:7, 5:7] = 1, 2
    prediction = reference.copy()
    prediction[1:4, 5:8, 1:4] = 3
    return reference, prediction


def test_metrics_have_no_row_of_an_unknown_organ_and_the_others_are_as_without_it() -> None:
    reference, prediction = case()
    tables = [
        evaluate_case(
            reference,
            found,
            spacing_mm=(1, 1, 1),
            organs=ORGANS,
            labelled={"brainstem", "mandible"},
            tolerances_mm=dict.fromkeys(ORGANS, 1.0),
        )
        for found in (prediction, reference)
    ]
    assert set(tables[0].organ) == {"brainstem", "mandible"}
    assert tables[0].equals(tables[1])
    assert tables[0].query("metric == 'dsc'").value.mean() == 1.0


def test_confidence_has_no_row_of_an_unknown_organ() -> None:
    reference, prediction = case()
    probabilities = np.stack([prediction == k for k in range(4)]).astype(np.float32)
    table = summarise(probabilities, reference, ORGANS, {"brainstem", "mandible"})
    assert table.organ.tolist() == ["brainstem", "mandible"]
    assert table.soft_recall.tolist() == [1.0, 1.0]
    assert table.soft_precision.tolist() == [1.0, 1.0]
