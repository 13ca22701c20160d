"""One interface to all losses: names, options, registered losses, the listing, the package by itself."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_losses import build, example
from torch import Tensor, nn

from hnlib.cli import main
from hnlib.errors import ConfigError
from hnlib.experiments import config
from hnlib.losses import LOSSES, CrossEntropy, DeepSupervision, SumLoss, VoxelLoss, Voxels, build_loss, register_loss

SOURCE = Path(__file__).resolve().parents[1] / "src"


# Names and options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CE", "unknown loss 'CE': did you mean 'ce'"),
        ("ca-dice+ce", "unknown loss 'ca-dice': did you mean 'ca_dice'"),
        ("topk_dise", "did you mean 'topk_dice'"),
        ("generalized_dice", "did you mean 'generalised_dice'"),
        ("topk_dice(percnt=30)", "unknown option of loss 'topk_dice' 'percnt': did you mean 'percent'"),
        ("topk_dice(poling=batch)", "did you mean 'pooling'"),
        ("topk_dice(percent=0)", "percent is 0.0"),
        ("topk_dice(percent=101)", "percent is 101.0"),
        ("weighted_ce", "weights or class_voxels are needed"),
        ("weighted_focal+ce", "weights or class_voxels are needed"),
        ("weighted_ce(weights=1/x)", "weights are '1/x'; one number a class is needed"),
        ("focal(weights=[1/2])", "weights are '[1/2]'"),
        (
            "focal(weights=1,2,3)",
            "cannot read '2' in the brackets; write OPTION=VALUE, and numbers for each class as 1/2",
        ),
        ("topk_dice(30)", "cannot read '30' in the brackets"),
        ("topk_dice(percent)", "option 'percent' has no value"),
        ("topk_dice(percent=30,percent=50)", "option 'percent' is given twice"),
        ("topk_dice(floor=1.5)", "floor is 1.5; a whole number"),
        ("ce(weights=1/2)", "unknown option of loss 'ce' 'weights': there is none"),
        ("focal(weights=1/-2)", "weights are"),
        ("tversky(squared=true)", "squared"),
        ("ca_dise+ce", "unknown loss 'ca_dise': did you mean 'ca_dice'"),
        ("dice(poolin=batch)", "unknown option of loss 'dice' 'poolin': did you mean 'pooling'"),
        ("ce(weight=2)", "option of loss 'ce' 'weight'"),
        ("dice(pooling)", "option 'pooling' has no value"),
        ("dice(pooling=all)", "pooling is 'all'; one of sample, batch is needed"),
        ("dice(smooth_denominator=-1)", "smooth_denominator is -1.0"),
        ("dice(smooth_numerator=much)", "smooth_numerator is 'much'"),
        ("dice(smooth_denominator=0)", "make it positive or skip"),
        ("", "cannot read ''"),
        ("ce+", "cannot read ''"),
        ("ce ca_dice", "cannot read 'ce ca_dice'"),
        ("-1*ce", "cannot read"),
        ("dice(pooling=batch", "cannot read"),
    ],
)
def test_unreadable_texts_are_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_loss(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="loss is None; a text such as"):
        build_loss(None)  # type: ignore[arg-type]


def test_numbers_of_classes_are_parted_by_slashes() -> None:
    assert repr(build_loss("weighted_ce(weights=1/4/4.5)")).count("1/4/4.5") == 1
    assert "rare=2/3" in repr(build_loss("asymmetric_ce(margin=0.5, rare=2/3)"))
    assert "rare=2," not in repr(build_loss("asymmetric_ce(rare=2)")).replace("rare=2)", "")


def test_training_frequencies_reach_the_terms_that_ask_for_them_and_no_others() -> None:
    loss = build_loss("weighted_ce(clip=100)+weighted_focal(power=1)+focal+ca_dice", class_voxels=[90, 9, 1])
    assert repr(loss).count("ClassWeights") == 2
    assert repr(build_loss("weighted_ce", class_voxels=[90, 9, 1])) == repr(
        build_loss("weighted_ce(class_voxels=90/9/1)")
    )
    named = build_loss("weighted_ce(weights=1/2/3)", class_voxels=[90, 9, 1])
    assert "1/2/3" in repr(named)
    build_loss("ce+focal", class_voxels=lambda: pytest.fail("read all training labels for nothing"))


def test_experiments_may_weigh_classes_by_training_frequencies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "profiles").mkdir()
    text = "title: t\npatch: large\nloss: ca_dice+weighted_ce\ncentres: nnunet\nnetwork: dynunet\n"
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.setenv("HNLIB_EXPERIMENTS", str(tmp_path))
    config.load_experiment.cache_clear()
    assert config.load_experiment("mine").loss == "ca_dice+weighted_ce"
    config.load_experiment.cache_clear()


# Every loss


@pytest.mark.parametrize("name", [*sorted(LOSSES), "topk_dice(percent=20, floor=1)+topk_ce(percent=20)"])
def test_deep_supervision_composes_with_it(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    heads = [torch.randn((2, 4, n, n, n), generator=generator, requires_grad=True) for n in (6, 3)]
    target = torch.randint(0, 4, (2, 6, 6, 6), generator=generator)
    loss = build(name)
    value = DeepSupervision(loss)(heads, target)
    torch.testing.assert_close(
        value, 2 / 3 * loss(heads[0], target) + 1 / 3 * loss(heads[1], target[:, 1::2, 1::2, 1::2])
    )
    value.backward()
    assert all(head.grad is not None and head.grad.abs().sum() > 0 for head in heads)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradcheck_where_only_some_voxels_are_kept_and_classes_are_unknown(name: str) -> None:
    options = {"topk_dice": "(floor=1)", "ca_topk_dice": "(floor=1)"}.get(name, "")
    logits, target = example(seed=2)
    labelled = torch.tensor([[True] * 4, [True, True, False, True]])
    target[1][target[1] == 2] = 0
    small = logits.detach()[:, :, :2, :2, :2].clone().requires_grad_()
    loss = build(name + options)
    assert torch.autograd.gradcheck(lambda z: loss(z, target[:, :2, :2, :2], labelled), (small,))


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("kind", ["background", "one class", "one voxel", "one sample"])
def test_legal_corner_cases_are_finite(name: str, kind: str) -> None:
    logits, target = example(dtype=torch.float32)
    if kind == "background":
        target = torch.zeros_like(target)
    elif kind == "one class":
        target = torch.full_like(target, 2)
    elif kind == "one voxel":
        logits, target = logits[..., :1, :1, :1], target[:, :1, :1, :1]
    else:
        logits, target = logits[:1], target[:1]
    loss = build(name)
    value = loss(logits, target)
    assert torch.isfinite(value)
    assert value >= 0
    assert torch.isfinite(torch.autograd.grad(value, logits)[0]).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", sorted(set(LOSSES) - {n for n in LOSSES if n.startswith("dice_")}))
def test_half_precision_sums_do_not_overflow(name: str, dtype: torch.dtype) -> None:
    """70,000 voxels: their sums overflow float16 and stand still in bfloat16."""
    target = torch.zeros(1, 70, 100, 10, dtype=torch.int64)
    target[:, :9, :9, :9], target[:, 20:30, 20:30, :3] = 1, 2
    logits = torch.randn((1, 3, 70, 100, 10), generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    loss = build(name, classes=3)
    value = loss(logits, target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(logits.detach().float(), target))
    (grad,) = torch.autograd.grad(value, logits)
    assert grad.dtype == dtype
    assert torch.isfinite(grad).all()


# Logits that are no numbers


@pytest.mark.parametrize("name", [*sorted(LOSSES), "ca_dice+ce"])
@pytest.mark.parametrize("fault", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_a_value_error(name: str, fault: float) -> None:
    logits, target = example(dtype=torch.float32)
    broken = logits.detach().clone()
    broken[1, 2, 0, 0, :2] = fault
    with pytest.raises(ValueError, match=r"logits hold NaN or infinity at 2 voxels of samples \[1\]"):
        build(name)(broken, target)


@pytest.mark.parametrize("name", [*sorted(LOSSES), "ca_dice+ce"])
def test_minus_infinity_for_every_class_is_a_value_error(name: str) -> None:
    """What becomes of -70000 in half precision."""
    logits, target = example(dtype=torch.float32)
    broken = logits.detach().clone()
    broken[1, :, 0, 0, :2] = -math.inf
    with pytest.raises(ValueError, match=r"logits hold NaN or infinity at 2 voxels of samples \[1\]"):
        build(name)(broken, target)


def test_minus_infinity_is_a_probability_of_zero_where_another_class_is_true() -> None:
    logits, target = torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64)
    logits[0, 2] = -math.inf
    assert float(CrossEntropy()(logits, target)) == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="at 4 voxels"):
        CrossEntropy()(logits, target + 2)


def test_a_finite_loss_looks_at_no_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a scalar is asked whether it is a number."""
    sizes = []
    isfinite = torch.Tensor.isfinite
    monkeypatch.setattr(torch.Tensor, "isfinite", lambda t: sizes.append(t.numel()) or isfinite(t))
    build_loss("ca_dice+ce")(*example())
    assert sizes == [1]


# A loss of one's own


@pytest.mark.usefixtures("clean_names")
def test_a_loss_of_ones_own_is_known_in_three_lines() -> None:
    class Smooth(nn.Module):
        """Cross-entropy with smoothed labels.

        More words.
        """

        def __init__(self, smoothing: float = 0.1) -> None:
            super().__init__()
            self.smoothing = smoothing

        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            return nn.functional.cross_entropy(logits, target, label_smoothing=self.smoothing)

    register_loss("mine", Smooth)
    assert LOSSES["mine"] == "Cross-entropy with smoothed labels."
    logits, target = example()
    torch.testing.assert_close(
        build_loss("2*mine(smoothing=0)+ca_dice")(logits, target),
        2 * CrossEntropy()(logits, target) + build_loss("ca_dice")(logits, target),
    )
    with pytest.raises(ConfigError, match="did you mean 'mine'"):
        build_loss("min")


@pytest.mark.usefixtures("clean_names")
def test_one_that_reads_voxels_shares_the_softmax_and_receives_frequencies(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missed(VoxelLoss):
        def __init__(self, class_voxels: list[float]) -> None:
            super().__init__()
            self.total = sum(class_voxels)

        def value(self, voxels: Voxels) -> Tensor:
            return (1 - voxels.true_probs).mean() * self.total

    register_loss("missed", Missed, "mean missing probability")
    calls = []
    made = Voxels.__init__
    monkeypatch.setattr(Voxels, "__init__", lambda *args, **kwargs: calls.append(1) or made(*args, **kwargs))
    logits, target = example()
    build_loss("missed+ce", class_voxels=[1, 2])(logits, target)
    assert len(calls) == 1
    with pytest.raises(ConfigError, match="missed"):
        build_loss("missed")


def documented() -> nn.Module:
    """Cross-entropy of one's own."""
    return CrossEntropy()


@pytest.mark.usefixtures("clean_names")
def test_names_are_not_taken_silently_and_words_are_those_of_what_makes_it() -> None:
    register_loss("mine", CrossEntropy)
    with pytest.raises(ConfigError, match="already registered"):
        register_loss("mine", CrossEntropy)
    register_loss("mine", nn.Identity, replace=True)
    for make, said in ((documented, "Cross-entropy of one's own."), (len, "Return the number of items")):
        register_loss("ours", make, replace=True)
        assert LOSSES["ours"].startswith(said)
    assert isinstance(build_loss("mine"), nn.Identity)
    with pytest.raises(ConfigError, match="the library has one"):
        register_loss("ce", CrossEntropy, replace=True)
    for name in ("my-loss", "1st", "", "a b"):
        with pytest.raises(ConfigError, match="a letter first"):
            register_loss(name, CrossEntropy)


@pytest.mark.usefixtures("clean_names")
def test_what_makes_no_module_is_told() -> None:
    for made in ("text", CrossEntropy()):
        with pytest.raises(ConfigError, match=f"make is of type {type(made).__name__}; what is registered is a class"):
            register_loss("mine", made)  # type: ignore[arg-type]
    register_loss("itself", lambda logits, target: logits.mean())  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match=r"missing 2 required positional arguments.*what is registered is a class"):
        build_loss("itself")
    register_loss("plain", lambda: nn.functional.cross_entropy)  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match="made a function; what is registered is a class"):
        build_loss("plain+ce")


def test_terms_of_a_sum_are_modules_with_finite_weights() -> None:
    with pytest.raises(ValueError, match=r"the weight of CrossEntropy.* is nan"):
        SumLoss([(math.nan, CrossEntropy())])
    with pytest.raises(ValueError, match="a term is of type function"):
        SumLoss([(1.0, nn.functional.cross_entropy)])  # type: ignore[list-item]


# The listing and the package by itself


def test_the_command_lists_every_loss(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["losses"])
    *lines, how = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(LOSSES)
    assert all(len(line.split()) > 3 for line in lines)
    assert "join names by +" in how


def test_the_command_lists_the_options_of_one_loss(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["losses", "topk_ce"])
    head, *options = capsys.readouterr().out.splitlines()
    assert head.startswith("topk_ce ")
    assert [line.strip() for line in options] == ["percent=50.0", "pooling=sample"]
    with pytest.raises(SystemExit):
        main(["losses", "ce"])
    assert capsys.readouterr().out.splitlines()[1].strip() == "no options"


ALONE = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        parts = name.split(".")
        heavy = {"monai", "lightning", "nibabel", "pandas", "scipy", "SimpleITK", "yaml", "typer"}
        own = parts[0] == "hnlib" and len(parts) > 1 and parts[1] not in ("losses", "errors")
        if parts[0] in heavy or own:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
import torch
from hnlib.losses import LOSSES, build_loss
for name in LOSSES:
    loss = build_loss(name, class_voxels=[3, 2, 1])
    print(name, float(loss(torch.zeros(1, 3, 4), torch.tensor([[0, 1, 2, 0]]))))
"""


def test_the_package_works_where_all_else_is_blocked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE], env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(LOSSES)
