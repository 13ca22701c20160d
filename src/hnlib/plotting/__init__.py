"""One function for each figure that comes back: a tidy table or a case in, drawn axes out.

Functions with one panel take an ``Axes`` (or make one) and return it; those with several make and return a
``Figure``. An organ has the same colour and marker everywhere (``hnlib.organs``). Nothing is written inside
the axes that a caption should say. Points are spread sideways by a fixed sequence, not at random, so that a
figure is the same every time.
"""

from hnlib.plotting.confidence import (
    MEASURES,
    NOT_MEASURED,
    case_drift_points,
    drift_growth,
    margin_profiles,
    pooled_bins,
    reliability,
)
from hnlib.plotting.focusnet import beside_print, fusion_panels, heat_and_rois
from hnlib.plotting.ignored import ignore_maps
from hnlib.plotting.interactive import interactive
from hnlib.plotting.intervals import contrasts, intervals_by_organ, three_readings
from hnlib.plotting.landscape import (
    class_ratio_panels,
    landscape_explorer,
    landscape_maps,
    sigma_bounds,
    sigma_by_background,
)
from hnlib.plotting.linked import linked_points, organ_points
from hnlib.plotting.losses import (
    false_positive_slopes,
    metric_differences,
    pressure_by_percent,
    pull_curves,
    pull_ratios,
)
from hnlib.plotting.planning import draw_comparison, plan_front
from hnlib.plotting.prediction import correlation_intervals, results_by_measure, results_matrix
from hnlib.plotting.results import (
    confidence_violins,
    equivalence_intervals,
    failure_kinds,
    paired_differences,
    ranking,
    results_by_organ,
    verdict_counts,
)
from hnlib.plotting.scans import best_slices, contour_panel, scan_rows, shown_box
from hnlib.plotting.stages import stage_panels
from hnlib.plotting.study import class_ratios, organ_volumes, sigma_dots, training_curves
from hnlib.plotting.style import FULL_WIDTH_IN, HALF_WIDTH_IN, STYLE, use_style
from hnlib.plotting.surfaces import surface_explorer, surface_views
from hnlib.plotting.viewer import pack_volume, viewer
from hnlib.plotting.words import describe_figures, figure_words

__all__ = [
    "FULL_WIDTH_IN",
    "HALF_WIDTH_IN",
    "MEASURES",
    "NOT_MEASURED",
    "STYLE",
    "beside_print",
    "best_slices",
    "case_drift_points",
    "class_ratio_panels",
    "class_ratios",
    "confidence_violins",
    "contour_panel",
    "contrasts",
    "correlation_intervals",
    "describe_figures",
    "draw_comparison",
    "drift_growth",
    "equivalence_intervals",
    "failure_kinds",
    "false_positive_slopes",
    "figure_words",
    "fusion_panels",
    "heat_and_rois",
    "ignore_maps",
    "interactive",
    "intervals_by_organ",
    "landscape_explorer",
    "landscape_maps",
    "linked_points",
    "margin_profiles",
    "metric_differences",
    "organ_points",
    "organ_volumes",
    "pack_volume",
    "paired_differences",
    "plan_front",
    "pooled_bins",
    "pressure_by_percent",
    "pull_curves",
    "pull_ratios",
    "ranking",
    "reliability",
    "results_by_measure",
    "results_by_organ",
    "results_matrix",
    "scan_rows",
    "shown_box",
    "sigma_bounds",
    "sigma_by_background",
    "sigma_dots",
    "stage_panels",
    "surface_explorer",
    "surface_views",
    "three_readings",
    "training_curves",
    "use_style",
    "verdict_counts",
    "viewer",
]
