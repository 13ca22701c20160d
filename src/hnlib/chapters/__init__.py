"""What the notebooks call: tables of a study in, small tables and phrases for the prose out; one module a chapter.

Notebooks hold the story; these modules hold the few lines of table work behind it. Every phrase is
computed from the tables, so that the prose cannot disagree with them.
"""

from hnlib.chapters import (
    claims,
    coarse_to_fine,
    compared,
    confidence,
    controlled,
    data,
    failures,
    focusnet,
    focusnet_printed,
    focusnet_runs,
    found,
    ignition,
    landscape,
    losses,
    observers,
    phantom,
    planning,
    prediction,
    released,
    runs,
)
from hnlib.chapters.page import begin, is_phantom, listed, load, mean_sd, percent, provenance, title

__all__ = [
    "begin",
    "claims",
    "coarse_to_fine",
    "compared",
    "confidence",
    "controlled",
    "data",
    "failures",
    "focusnet",
    "focusnet_printed",
    "focusnet_runs",
    "found",
    "ignition",
    "is_phantom",
    "landscape",
    "listed",
    "load",
    "losses",
    "mean_sd",
    "observers",
    "percent",
    "phantom",
    "planning",
    "prediction",
    "provenance",
    "released",
    "runs",
    "title",
]
