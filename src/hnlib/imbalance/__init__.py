"""Class imbalance as a network sees it: exact in-patch class ratios and measures of them.

Everything is integrated over the very `hnlib.sampling.CentreDistribution` from which training draws;
nothing is sampled. `landscape` does so for whole grids of patch sizes and many cases, `expected_ratios`,
`presence` and `ratio_variance` for one size of one case. `MEASURES` makes one number of that, each with
what it is blind to; `sigma_of_mean` and `sigma_pooled` are the measure of Tappeiner et al. 2022 in its
two readings.

`plan` chooses patch, batch, network and draw of centres for a memory (`best_draw` solves the draw alone).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hnlib.imbalance.draw import AIMS, Draw, best_draw
from hnlib.imbalance.expectation import expected_ratios, presence, ratio_variance
from hnlib.imbalance.grids import planning_cases, scans_on_grid
from hnlib.imbalance.landscape import QUANTITIES, Quantity, landscape, mix, organ_centres, size_grid
from hnlib.imbalance.measures import (
    MEASURES,
    PAPER_CLASSES,
    PAPER_RATIOS,
    PAPER_SIGMA,
    Measure,
    aitchison_spread,
    effective_classes,
    effective_classes_simpson,
    foreground_shares,
    least_presence,
    normalised_entropy,
    rarest_voxels,
    sigma_foreground,
    sigma_of_mean,
    sigma_pooled,
)
from hnlib.imbalance.scans import Scan, ScanSource, scan_sources
from hnlib.imbalance.summary import summarise

if TYPE_CHECKING:
    from hnlib.imbalance.candidates import Limits
    from hnlib.imbalance.plan_files import nnunet_spacing, read_nnunet, to_nnunet, to_yaml
    from hnlib.imbalance.planner import PatchPlan, Wish, plan, planned_draw
    from hnlib.imbalance.shown import PLAN_MEASURES

#: The planner is imported when it is asked for: it needs the networks, and they need torch.
_LATER = {
    "candidates": ("Limits",),
    "plan_files": ("nnunet_spacing", "read_nnunet", "to_nnunet", "to_yaml"),
    "planner": ("PLAN_MEASURES", "PatchPlan", "Wish", "plan", "planned_draw"),
}

__all__ = [
    "AIMS",
    "MEASURES",
    "PAPER_CLASSES",
    "PAPER_RATIOS",
    "PAPER_SIGMA",
    "PLAN_MEASURES",
    "QUANTITIES",
    "Draw",
    "Limits",
    "Measure",
    "PatchPlan",
    "Quantity",
    "Scan",
    "ScanSource",
    "Wish",
    "aitchison_spread",
    "best_draw",
    "effective_classes",
    "effective_classes_simpson",
    "expected_ratios",
    "foreground_shares",
    "landscape",
    "least_presence",
    "mix",
    "nnunet_spacing",
    "normalised_entropy",
    "organ_centres",
    "plan",
    "planned_draw",
    "planning_cases",
    "presence",
    "rarest_voxels",
    "ratio_variance",
    "read_nnunet",
    "scan_sources",
    "scans_on_grid",
    "sigma_foreground",
    "sigma_of_mean",
    "sigma_pooled",
    "size_grid",
    "summarise",
    "to_nnunet",
    "to_yaml",
]


def __getattr__(name: str) -> Any:
    for module, names in _LATER.items():
        if name in names:
            return getattr(import_module(f"hnlib.imbalance.{module}"), name)
    raise AttributeError(f"module 'hnlib.imbalance' has no attribute '{name}'")
