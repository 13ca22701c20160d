"""Networks, built from a patch size and a spacing by nnU-Net's rule (Isensee et al. 2021)."""

from hnlib.networks.build import NETWORKS, build_network, set_output_prior
from hnlib.networks.memory import TrainingMemory, training_memory
from hnlib.networks.plan import (
    Topology,
    forward_operations,
    halve_in_plane,
    plan_patch,
    plan_topology,
    receptive_field,
)

__all__ = [
    "NETWORKS",
    "Topology",
    "TrainingMemory",
    "build_network",
    "forward_operations",
    "halve_in_plane",
    "plan_patch",
    "plan_topology",
    "receptive_field",
    "set_output_prior",
    "training_memory",
]
