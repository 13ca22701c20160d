"""Systems: what is trained in stages and predicts a case; one network is the simplest of them.

A system declares its stages. `train_system` runs them one after the other through the one training loop,
each from its own checkpoint, and a predictor is built from what the stages left behind.
"""

from __future__ import annotations

from collections.abc import Mapping

from hnlib.errors import unknown
from hnlib.systems.coarse_to_fine import CoarseToFine, SliceSystem, TwoStage
from hnlib.systems.focusnet import FOCUSNET, FocusNetOptions, FocusNetSystem
from hnlib.systems.focusnet_fusion import FocusPredictor, Found, Look, fuse, localisation
from hnlib.systems.focusnet_losses import FocusLoss, HeatLoss, RoiLoss, heat_targets
from hnlib.systems.focusnet_statistics import OrganSize, SmallRule, organ_sizes, roi_voxels, small_organs
from hnlib.systems.one_network import ONE_NETWORK, OneNetwork
from hnlib.systems.schedule import checkpoint_path, read_weights, take_trainings, train_system
from hnlib.systems.system import (
    Blueprint,
    Material,
    Part,
    Predictor,
    Stage,
    System,
    Weights,
    class_fractions,
)

#: Name to system; each takes the blueprint.
SYSTEMS: Mapping[str, type[System]] = {
    ONE_NETWORK: OneNetwork,
    FOCUSNET: FocusNetSystem,
    "slices": SliceSystem,
    "coarse_to_fine": CoarseToFine,
    "two_stage": TwoStage,
}


def build_system(blueprint: Blueprint) -> System:
    """Return the system that a blueprint describes.

    Raises
    ------
    ConfigError
        When its name or one of its options is unknown.
    """
    if blueprint.system not in SYSTEMS:
        raise unknown("system", blueprint.system, SYSTEMS)
    return SYSTEMS[blueprint.system](blueprint)


__all__ = [
    "FOCUSNET",
    "ONE_NETWORK",
    "SYSTEMS",
    "Blueprint",
    "FocusLoss",
    "FocusNetOptions",
    "FocusNetSystem",
    "FocusPredictor",
    "Found",
    "HeatLoss",
    "Look",
    "Material",
    "OneNetwork",
    "OrganSize",
    "Part",
    "Predictor",
    "RoiLoss",
    "SmallRule",
    "Stage",
    "System",
    "Weights",
    "build_system",
    "checkpoint_path",
    "class_fractions",
    "fuse",
    "heat_targets",
    "localisation",
    "organ_sizes",
    "read_weights",
    "roi_voxels",
    "small_organs",
    "take_trainings",
    "train_system",
]
