"""Networks, built from a patch size and a spacing by nnU-Net's rule (Isensee et al. 2021)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hnlib.networks.build import NETWORKS, build_network, set_output_prior
from hnlib.networks.dense_aspp import DenseASPP
from hnlib.networks.focusnet import Focused, FocusNet, highest_voxels, roi_pool, roi_starts
from hnlib.networks.focusnet_build import build_focusnet
from hnlib.networks.memory import TrainingMemory, training_memory
from hnlib.networks.plan import (
    Topology,
    forward_operations,
    halve_in_plane,
    plan_patch,
    plan_topology,
    receptive_field,
)

if TYPE_CHECKING:
    from hnlib.networks.deeplab import DeepLab
    from hnlib.networks.seres_unet import SEResUNet
    from hnlib.networks.squeeze_excitation import SEResBlock

__all__ = [
    "NETWORKS",
    "DeepLab",
    "DenseASPP",
    "FocusNet",
    "Focused",
    "SEResBlock",
    "SEResUNet",
    "Topology",
    "TrainingMemory",
    "build_focusnet",
    "build_network",
    "forward_operations",
    "halve_in_plane",
    "highest_voxels",
    "plan_patch",
    "plan_topology",
    "receptive_field",
    "roi_pool",
    "roi_starts",
    "set_output_prior",
    "training_memory",
]

#: Modules that import MONAI, which takes seconds, and what is found in them when it is asked for.
_LATER = {"deeplab": "DeepLab", "seres_unet": "SEResUNet", "squeeze_excitation": "SEResBlock"}


def __getattr__(name: str) -> Any:
    for module, late in _LATER.items():
        if name == late:
            return getattr(import_module(f"hnlib.networks.{module}"), name)
    raise AttributeError(f"module 'hnlib.networks' has no attribute '{name}'")
