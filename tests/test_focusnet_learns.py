"""FocusNet learns one case of the phantom by heart, small organs included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hnlib.cases import Case
from hnlib.datasets import PhantomDataset
from hnlib.networks import plan_topology
from hnlib.preprocess import Plan, Prepared
from hnlib.sampling import centre_rule
from hnlib.systems import Blueprint, Material, build_system, train_system
from hnlib.systems.system import Stage
from hnlib.training import Settings, open_fabric

SMALL = ("optic_chiasm", "optic_nerve_left", "optic_nerve_right", "lens_left", "lens_right")
ORGANS = ("brainstem", *SMALL)
PATCH, SPACING = (48, 40, 16), (2.0, 2.0, 2.5)
LOSS = "weighted_focal+gao_dice(squared=true)"
STEPS = {"s_net": 120, "sol_net": 160, "sos_net": 80, "joint": 80}


def around_the_optic_organs(case: Case) -> Prepared:
    """Return a case cut to one patch around all organs but the brainstem, in a soft-tissue window."""
    where = np.argwhere(case.labels > 1)
    middle = (where.min(axis=0) + where.max(axis=0) + 1) // 2
    cut = tuple(slice(m - n // 2, m - n // 2 + n) for m, n in zip(middle, PATCH, strict=True))
    image = ((np.clip(case.image_hu[cut], -150, 200) - 20) / 60).astype(np.float32)
    box = tuple((0, n) for n in PATCH)
    labels = np.ascontiguousarray(case.labels[cut])
    return Prepared("a", image, labels, float(image.min()), box, PATCH, SPACING, frozenset(ORGANS))


@pytest.mark.slow
def test_each_small_organ_of_one_case_is_learnt_by_heart(tmp_path: Path) -> None:
    case = around_the_optic_organs(PhantomDataset({"test": 1}, organs=ORGANS).load("phantom_000"))
    plan = Plan(SPACING, PATCH, (-150, 200), 20, 60, ORGANS)
    options = {"small_organs": list(SMALL), "dilations": [2, 3, 6, 9]}
    topology = plan_topology(PATCH, SPACING)
    system = build_system(Blueprint("snet", 8, 64, topology, PATCH, plan, system="focusnet", options=options))
    budget = Settings(steps=1, batch_size=1, learning_rate=4e-3, validate_every=999, checkpoint_every=999)
    material = Material([case], [], ORGANS, centre_rule("nnunet"), LOSS, budget, 0, torch.device("cpu"))
    schedule = [Stage(name, Settings(**{**vars(budget), "steps": n}), LOSS) for name, n in STEPS.items()]
    fabric = open_fabric(1, "32-true")
    weights, _ = train_system(system, schedule, material, tmp_path, fabric=fabric, identity={})
    predictor = system.predictor(weights)
    found = predictor(case.image).argmax(axis=0)
    assert predictor.also is not None
    located = predictor.also(case)
    small = sorted({name for name, _ in located})
    assert small == sorted(SMALL)
    for name in small:
        value = ORGANS.index(name) + 1
        truth, own = case.labels == value, found == value
        assert located[name, "located"] == 1
        assert located[name, "centre_error_mm"] < 6
        assert 2 * (truth & own).sum() / (truth.sum() + own.sum()) > 0.9, name
