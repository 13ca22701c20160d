"""The examples run as they are: a plain MONAI network, and nnU-Net v2 where it is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.nnunet import peers

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
HAS_NNUNET = find_spec("nnunetv2") is not None or (peers() / "nnunetv2").is_dir()
needs_nnunet = pytest.mark.skipif(not HAS_NNUNET, reason="nnunetv2 is neither installed nor in HNLIB_PEERS")


def execute(*arguments: str, **environment: str) -> str:
    """Run Python in a process of its own and return what it prints."""
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT), str(ROOT / "tests")])
    whole = {**os.environ, "PYTHONPATH": paths, **environment}
    done = subprocess.run([sys.executable, *arguments], env=whole, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_plain_monai_network_learns() -> None:
    line = execute(str(EXAMPLES / "train_monai.py"), "topk_dice(percent=50)+weighted_ce").splitlines()[-1]
    first, last = (float(number) for number in re.findall(r"[0-9.]*[0-9]", line))
    assert last < 0.7 * first


#: nnU-Net's search of a folder finds our trainers, which learn.
TRAINER = """
import os
import tempfile
from pathlib import Path
import torch
from benchmarks.nnunet import CONFIGURATION, _dataset, _plans, load
from benchmarks.batch import random_batch
from benchmarks.sizes import CLASSES, SIZES
load(Path(tempfile.mkdtemp()))
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
size = SIZES["tiny"]
for name in ("NnuDiceTrainer", "CaDiceTrainer", "TopKDiceTrainer"):
    make = recursive_find_python_class(os.environ["nnUNet_extTrainer"], name, None)
    trainer = make({**_plans(size).plans, "continue_training": False}, CONFIGURATION, 0, _dataset(CLASSES),
                   torch.device("cpu"))
    trainer.initialize()
    trainer.network.train()
    image, target = random_batch(size)
    targets = [target[:, None].to(torch.int16)]
    with torch.no_grad():
        heads = trainer.network(image)
    for head in heads[1:]:
        step = [full // own for full, own in zip(target.shape[1:], head.shape[2:])]
        targets.append(targets[0][:, :, ::step[0], ::step[1], ::step[2]].contiguous())
    values = [float(trainer.train_step({"data": image, "target": targets})["loss"]) for _ in range(3)]
    assert values[-1] < values[0], values
    print(type(trainer.loss).__name__, trainer.loss_text, trainer.loss.loss.weights)
"""


@needs_nnunet
@pytest.mark.slow
def test_nnunet_finds_the_trainer_and_trains() -> None:
    lines = execute("-c", TRAINER, nnUNet_extTrainer=str(ROOT / "src" / "hnlib" / "nnunet")).splitlines()
    found = [line for line in lines if line.startswith("HeadsLoss")]
    assert [line.split()[1] for line in found] == ["nnu_dice(pooling={pooling})+ce", "ca_dice+ce", "topk_dice+ce"]
    assert found[0].endswith(", 0.0)") or found[0].endswith("(1.0,)")


#: Values and gradients; nnU-Net's losses are minus the score, and compute in float32.
AGREEMENT = """
import tempfile
from itertools import product
from pathlib import Path
import torch
from benchmarks.nnunet import load
load(Path(tempfile.mkdtemp()))
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.loss.robust_ce_loss import TopKLoss
from hnlib.losses import DiceLoss, TopKCrossEntropy, build_loss
from test_losses import example

def softmax(x):
    return torch.softmax(x, 1)

def agree(ours, theirs, plus):
    logits, target = example(dtype=torch.float32)
    target[0][target[0] == 2] = 1
    values = ours(logits, target), theirs(logits, target[:, None]) + plus
    torch.testing.assert_close(*values, rtol=1e-6, atol=1e-6)
    grads = [torch.autograd.grad(v, logits)[0] for v in values]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-8)

for batch, background in product((False, True), (False, True)):
    theirs = MemoryEfficientSoftDiceLoss(softmax, batch_dice=batch, do_bg=background, smooth=1e-5, ddp=False)
    agree(DiceLoss(pooling="batch" if batch else "sample", background=background), theirs, 1)
both = DC_and_CE_loss({"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}, {},
                      dice_class=MemoryEfficientSoftDiceLoss)
agree(build_loss("nnu_dice+ce"), both, 1)
alone = DC_and_CE_loss({"batch_dice": False, "smooth": 1e-5, "do_bg": False, "ddp": False}, {},
                       dice_class=MemoryEfficientSoftDiceLoss)
agree(build_loss("nnu_dice(pooling=sample)+ce"), alone, 1)
agree(TopKCrossEntropy(10, pooling="batch"), TopKLoss(k=10), 0)
"""


@needs_nnunet
@pytest.mark.slow
def test_losses_agree_with_those_of_nnunet() -> None:
    """Its memory-efficient soft Dice, its sum with cross-entropy, and its topK cross-entropy, to 1e-6."""
    execute("-c", AGREEMENT)
