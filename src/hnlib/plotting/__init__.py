"""One function for each figure that comes back: a tidy table or a case in, drawn axes out.

Functions with one panel take an ``Axes`` (or make one) and return it; those with several make and return a
``Figure``. An organ has the same colour and marker everywhere (``hnlib.organs``). Nothing is written inside
the axes that a caption should say. Points are spread sideways by a fixed sequence, not at random, so that a
figure is the same every time.
"""

from hnlib.plotting.ignored import ignore_maps
from hnlib.plotting.landscape import interactive, landscape_explorer, landscape_maps, sigma_bounds, sigma_by_background
from hnlib.plotting.results import (
    confidence_violins,
    equivalence_intervals,
    paired_differences,
    ranking,
    results_by_organ,
    verdict_counts,
)
from hnlib.plotting.scans import best_slices, contour_panel, scan_rows
from hnlib.plotting.stages import stage_panels
from hnlib.plotting.study import class_ratios, organ_volumes, sigma_dots, training_curves
from hnlib.plotting.style import FULL_WIDTH_IN, HALF_WIDTH_IN, STYLE, experiment_title, use_style

__all__ = [
    "FULL_WIDTH_IN",
    "HALF_WIDTH_IN",
    "STYLE",
    "best_slices",
    "class_ratios",
    "confidence_violins",
    "contour_panel",
    "equivalence_intervals",
    "experiment_title",
    "ignore_maps",
    "interactive",
    "landscape_explorer",
    "landscape_maps",
    "organ_volumes",
    "paired_differences",
    "ranking",
    "results_by_organ",
    "scan_rows",
    "sigma_bounds",
    "sigma_by_background",
    "sigma_dots",
    "stage_panels",
    "training_curves",
    "use_style",
    "verdict_counts",
]
