"""Class imbalance as a network sees it: exact in-patch class ratios and measures of them.

Everything is integrated over the very `hnlib.sampling.CentreDistribution` from which training draws;
nothing is sampled. `landscape` does so for whole grids of patch sizes and many cases, `expected_ratios`,
`presence` and `ratio_variance` for one size of one case. `MEASURES` makes one number of that, each with
what it is blind to; `sigma_of_mean` and `sigma_pooled` are the measure of Tappeiner et al. 2022 in its
two readings.
"""

from hnlib.imbalance.expectation import expected_ratios, presence, ratio_variance
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

__all__ = [
    "MEASURES",
    "PAPER_CLASSES",
    "PAPER_RATIOS",
    "PAPER_SIGMA",
    "QUANTITIES",
    "Measure",
    "Quantity",
    "Scan",
    "ScanSource",
    "aitchison_spread",
    "effective_classes",
    "effective_classes_simpson",
    "expected_ratios",
    "foreground_shares",
    "landscape",
    "least_presence",
    "mix",
    "normalised_entropy",
    "organ_centres",
    "presence",
    "rarest_voxels",
    "ratio_variance",
    "scan_sources",
    "sigma_foreground",
    "sigma_of_mean",
    "sigma_pooled",
    "size_grid",
    "summarise",
]
