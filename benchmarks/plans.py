"""A plan for nnU-Net v2, loaded by its own code: the stated patch, batch and network come out of it.

A made-up plan, for a scanner's anisotropic grid, is written over nnU-Net's own defaults of another network; nothing
here is random but the weights.
"""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks import nnunet
from benchmarks.memory import kept_bytes
from benchmarks.process import Found
from benchmarks.sizes import CLASSES, SIZES
from hnlib.imbalance import Limits, Wish, to_nnunet
from hnlib.imbalance.candidates import Candidate
from hnlib.imbalance.draw import Draw
from hnlib.imbalance.planner import PatchPlan
from hnlib.networks import plan_topology, receptive_field, training_memory

#: Anisotropic, every side of another length, so that a wrong order of axes cannot pass.
PATCH, SPACING_MM, BATCH, WIDTH = (48, 40, 24), (1.0, 1.2, 3.0), 2, 8
ORGANS = tuple(f"organ_{value}" for value in range(1, CLASSES))


def made_plan() -> PatchPlan:
    """Return a plan with this patch; its draw is even."""
    limits = Limits(1e9, width=WIDTH)
    topology = plan_topology(PATCH, SPACING_MM)
    memory = training_memory("dynunet", topology, PATCH, BATCH, CLASSES, width=WIDTH)
    candidate = Candidate(PATCH, BATCH, topology, memory, receptive_field(topology))
    weights = {"uniform": 0.5, **dict.fromkeys(ORGANS, 0.5 / len(ORGANS))}
    return PatchPlan(
        candidate, Draw("presence", 0.1, weights), ORGANS, SPACING_MM, limits, Wish(), pd.DataFrame(), ("made up",)
    )


def default_plans(transpose_forward: tuple[int, int, int] = (0, 1, 2)) -> dict[str, Any]:
    """Return nnU-Net's plans for this grid with some other network in them."""
    stored = SPACING_MM[::-1]
    configuration = copy.deepcopy(nnunet.configuration(SIZES["tiny"]))
    configuration |= {"spacing": [stored[axis] for axis in transpose_forward]}
    return {
        "dataset_name": nnunet.DATASET,
        "plans_name": "nnUNetPlans",
        "transpose_forward": list(transpose_forward),
        "transpose_backward": [transpose_forward.index(axis) for axis in range(3)],
        "configurations": {nnunet.CONFIGURATION: configuration},
    }


def load_in_nnunet(transpose_forward: tuple[int, int, int] = (0, 1, 2)) -> Found:
    """Write the plan into a plans file, load it with nnU-Net, build its network and pass a batch through it.

    Returns
    -------
    dict
        Patch, batch and strides as nnU-Net reads them, its parameters, and the bytes that its network keeps for the
        backward pass beside those that are counted.
    """
    plan = made_plan()
    with tempfile.TemporaryDirectory() as folder:
        nnunet.load(Path(folder))
        from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        file = Path(folder) / "nnUNetPlans_hnlib.json"
        file.write_text(json.dumps(to_nnunet(plan, default_plans(transpose_forward))))
        manager = PlansManager(str(file))
        found = manager.get_configuration(nnunet.CONFIGURATION)
        torch.manual_seed(0)
        network = get_network_from_plans(
            found.network_arch_class_name,
            found.network_arch_init_kwargs,
            found.network_arch_init_kwargs_req_import,
            1,
            CLASSES,
            deep_supervision=True,
        )
    image = torch.randn(found.batch_size, 1, *found.patch_size)
    heads = network(image)
    return {
        "plans_name": manager.plans_name,
        "patch_size": found.patch_size,
        "batch_size": found.batch_size,
        "strides": found.pool_op_kernel_sizes,
        "kernel_sizes": found.network_arch_init_kwargs["kernel_sizes"],
        "head_shapes": [tuple(head.shape) for head in heads],
        "kept": kept_bytes(lambda: network(image), network.parameters()) / 2**20,
        "kept_by_count": plan.candidate.memory.activations / 2**20,
        "note": f"{len(heads)} heads, patch {found.patch_size}, batch {found.batch_size}",
    }
