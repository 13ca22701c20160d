"""Class imbalance as a network sees it: exact in-patch class ratios and measures of them.

`expected_ratios` and `presence` integrate over the very `hnlib.sampling.CentreDistribution` from
which training draws; nothing is sampled. `sigma_of_mean` and `sigma_pooled` are the measure of
Tappeiner et al. 2022 in its two readings.
"""

from hnlib.imbalance.expectation import expected_ratios, presence, ratio_variance
from hnlib.imbalance.landscape import QUANTITIES, Quantity, landscape, mix, organ_centres, size_grid
from hnlib.imbalance.measures import (
    PAPER_CLASSES,
    PAPER_RATIOS,
    PAPER_SIGMA,
    sigma_of_mean,
    sigma_pooled,
)
from hnlib.imbalance.scans import Scan, ScanSource, scan_sources

__all__ = [
    "PAPER_CLASSES",
    "PAPER_RATIOS",
    "PAPER_SIGMA",
    "QUANTITIES",
    "Quantity",
    "Scan",
    "ScanSource",
    "expected_ratios",
    "landscape",
    "mix",
    "organ_centres",
    "presence",
    "ratio_variance",
    "scan_sources",
    "sigma_of_mean",
    "sigma_pooled",
    "size_grid",
]
