"""How sure a network is of the right class, by organ, and how that changes from training to test cases.

Everything is taken on the network's grid, from one volume of probabilities at a time, and kept as summaries by
case and organ: soft recall and soft precision, margins of the logits, strata by distance to the organ's surface,
calibration. The volume itself is not kept.
"""

from hnlib.confidence.drifts import DRIFT_MEASURES, case_drifts, drift
from hnlib.confidence.near import (
    BINS,
    DEPTHS_MM,
    REACH_MM,
    Near,
    calibration_bins,
    calibration_error,
    look_near,
    organ_margin,
    summarise_depths,
    summarise_near,
)
from hnlib.confidence.summaries import (
    POOLED_QUANTILES,
    SUMMARY_QUANTILES,
    quantile_table,
    summarise,
    true_class_probabilities,
)
from hnlib.confidence.tables import CONFIDENCE_TABLES, NEAR_TABLES, case_tables, run_tables

__all__ = [
    "BINS",
    "CONFIDENCE_TABLES",
    "DEPTHS_MM",
    "DRIFT_MEASURES",
    "NEAR_TABLES",
    "POOLED_QUANTILES",
    "REACH_MM",
    "SUMMARY_QUANTILES",
    "Near",
    "calibration_bins",
    "calibration_error",
    "case_drifts",
    "case_tables",
    "drift",
    "look_near",
    "organ_margin",
    "quantile_table",
    "run_tables",
    "summarise",
    "summarise_depths",
    "summarise_near",
    "true_class_probabilities",
]
