"""Agreement of a predicted label map with a reference, one case at a time, on the grid of the scan.

Surfaces, their areas and their distances come from ``surface-distance-based-measures`` (Nikolov et al. 2018).
What is decided here, before that package is called, is what an empty mask means:

=====================  ====================  ==========================================================
organ in the case      prediction            rows
=====================  ====================  ==========================================================
not labelled           any                   none: unknown is neither absent nor wrong
labelled, with voxels  with voxels           all metrics, ``missed`` 0; without overlap ``dsc`` is 0
labelled, with voxels  empty                 ``missed`` 1; ``dsc``, ``iou``, ``recall``, ``surface_dsc``,
                                             ``surface_dsc_1vox`` 0; ``precision``, ``hd95_mm`` NaN
labelled, no voxels    any, empty or not     ValueError
=====================  ====================  ==========================================================

The last row does not look at the prediction: "labelled" means that somebody outlined the organ, so a
reference without a voxel of it is a fault of the data and has to surface whatever the network said.
NaN is an empty field in a table, never a number such as 1000 mm.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import surface_distance
from numpy.typing import NDArray
from scipy import ndimage

from hnlib.organs import organ

METRICS = ("dsc", "iou", "precision", "recall", "hd95_mm", "surface_dsc", "surface_dsc_1vox", "missed")
"""Names of the metrics, in the order of the rows."""

TOLERANCE_SLACK_MM = 1e-6
"""One nanometre. A spacing read as float32 is 0.98000002 mm, and must still lie within 0.98 mm."""

_MISSED = {
    "dsc": 0.0,
    "iou": 0.0,
    "precision": math.nan,
    "recall": 0.0,
    "hd95_mm": math.nan,
    "surface_dsc": 0.0,
    "surface_dsc_1vox": 0.0,
    "missed": 1.0,
}


def evaluate_case(
    reference: NDArray[np.integer] | NDArray[np.bool_],
    prediction: NDArray[np.integer] | NDArray[np.bool_],
    *,
    spacing_mm: Sequence[float],
    organs: Sequence[str],
    labelled: Collection[str] | None = None,
    tolerances_mm: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Compare two label maps of one case, organ by organ.

    Parameters
    ----------
    reference, prediction
        Integer label maps of one shape (X, Y, Z): 0 is background, ``i + 1`` is ``organs[i]``. A boolean
        mask is the label map of one organ.
    spacing_mm
        Voxel edges in mm, in the order of the arrays' axes.
    organs
        Names of the organs in label order.
    labelled
        Organs that were outlined in this case. Others get no row. None: all of them.
    tolerances_mm
        Tolerance of ``surface_dsc`` in mm by organ, for at least the labelled ones. None takes those of
        `hnlib.organs.organ`.

    Returns
    -------
    pandas.DataFrame
        Columns ``organ``, ``metric``, ``value``: one row for each labelled organ, in label order, and each
        of ``METRICS``. ``hd95_mm`` is in mm, the others lie in 0..1. The module's table says what a missed
        organ gets.

    Raises
    ------
    ValueError
        When shapes, spacing, label values or names do not fit together, a tolerance is lacking, or a
        labelled organ has no voxel in the reference.
    ConfigError
        When an organ has no tolerance of its own because its name is none that an organ can have.

    Notes
    -----
    With reference R and prediction P: dsc = 2 |R P| / (|R| + |P|), iou = |R P| / |R u P|,
    precision = |R P| / |P|, recall = |R P| / |R|. ``hd95_mm`` is the larger of the two directed 95th
    percentiles of the distance between surfaces, each weighted by surface area; tools that take the mean
    of the two, or count voxels instead of areas, give smaller or other numbers. ``surface_dsc`` is the
    share of both surfaces' area that lies within the tolerance of the other surface (Nikolov et al. 2018);
    ``surface_dsc_1vox`` is the same at the diagonal of one voxel. Deviation: tolerances are widened by
    ``TOLERANCE_SLACK_MM``.

    Examples
    --------
    >>> reference = np.zeros((4, 3, 3), np.uint8)
    >>> reference[:2, 1, 1] = 1
    >>> prediction = np.roll(reference, 1, axis=0)
    >>> rows = evaluate_case(
    ...     reference, prediction, spacing_mm=(1.0, 1.0, 2.5), organs=("brainstem",)
    ... )
    >>> rows.set_index("metric").value[["dsc", "hd95_mm", "surface_dsc"]].tolist()
    [0.5, 1.0, 1.0]
    """
    spacing = _checked_spacing(spacing_mm)
    for name, names in (("organs", organs), ("labelled", labelled)):
        if isinstance(names, str):
            raise ValueError(f"{name} is the text '{names}'; give a list of names: ['{names}']")
    labelled = organs if labelled is None else labelled
    tolerances_mm = {name: organ(name).tolerance_mm for name in labelled} if tolerances_mm is None else tolerances_mm
    reference, prediction = (m.astype(np.uint8) if m.dtype == bool else m for m in (reference, prediction))
    _check_maps(reference, prediction, len(organs))
    _check_names(organs, labelled, tolerances_mm)
    diagonal_mm = math.hypot(*spacing)
    reference_boxes = ndimage.find_objects(reference, max_label=len(organs))
    prediction_boxes = ndimage.find_objects(prediction, max_label=len(organs))
    rows: list[tuple[str, str, float]] = []
    for index, name in enumerate(organs):
        if name not in labelled:
            continue
        found, predicted = reference_boxes[index], prediction_boxes[index]
        if found is None:
            raise ValueError(
                f"organ '{name}' is labelled but has no voxel in the reference; "
                "leave it out of `labelled` where nobody outlined it"
            )
        values = _MISSED
        if predicted is not None:
            box = tuple(
                slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(found, predicted, strict=True)
            )
            values = _compare(
                reference[box] == index + 1,
                prediction[box] == index + 1,
                spacing,
                {"surface_dsc": tolerances_mm[name], "surface_dsc_1vox": diagonal_mm},
            )
        rows.extend((name, metric, values[metric]) for metric in METRICS)
    table = pd.DataFrame(rows, columns=["organ", "metric", "value"])
    return table.astype({"value": np.float64})


def _compare(
    reference: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    tolerances_mm: Mapping[str, float],
) -> dict[str, float]:
    """Return every metric of two masks that both hold voxels, cropped to the box around the two.

    Nothing outside that box enters: the package pads what it is given with background.
    """
    overlap = int(np.count_nonzero(reference & prediction))
    in_reference = int(np.count_nonzero(reference))
    in_prediction = int(np.count_nonzero(prediction))
    values = {
        "dsc": 2.0 * overlap / (in_reference + in_prediction),
        "iou": overlap / (in_reference + in_prediction - overlap),
        "precision": overlap / in_prediction,
        "recall": overlap / in_reference,
        "missed": 0.0,
    }
    with warnings.catch_warnings():
        # The package reaches for scipy.ndimage.filters and .morphology, which SciPy has deprecated.
        warnings.filterwarnings("ignore", message=".*scipy.ndimage", category=DeprecationWarning)
        distances = surface_distance.compute_surface_distances(reference, prediction, spacing_mm)
    values["hd95_mm"] = float(surface_distance.compute_robust_hausdorff(distances, 95.0))
    for name, tolerance in tolerances_mm.items():
        within = surface_distance.compute_surface_dice_at_tolerance(distances, tolerance + TOLERANCE_SLACK_MM)
        values[name] = float(within)
    return values


def _checked_spacing(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    spacing = tuple(float(edge) for edge in spacing_mm)
    if len(spacing) != 3 or not all(math.isfinite(edge) and edge > 0 for edge in spacing):
        raise ValueError(f"spacing_mm is {spacing}; three positive numbers are needed")
    return spacing[0], spacing[1], spacing[2]


def _check_maps(reference: NDArray[Any], prediction: NDArray[Any], num_organs: int) -> None:
    for name, labels in (("reference", reference), ("prediction", prediction)):
        if labels.ndim != 3 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"{name} has shape {labels.shape} and type {labels.dtype}; a 3D integer label map is needed"
            )
        if labels.size and (labels.min() < 0 or labels.max() > num_organs):
            raise ValueError(f"{name} has labels {labels.min()}..{labels.max()} but {num_organs} organs are named")
    if reference.shape != prediction.shape:
        raise ValueError(
            f"reference has shape {reference.shape} but prediction {prediction.shape}; "
            "bring the prediction back to the grid of the scan"
        )


def _check_names(organs: Sequence[str], labelled: Collection[str], tolerances_mm: Mapping[str, float]) -> None:
    if foreign := sorted(set(labelled) - set(organs)):
        raise ValueError(f"labelled holds {foreign}, which are not among organs {tuple(organs)}")
    if lacking := sorted(set(labelled) - set(tolerances_mm)):
        raise ValueError(f"tolerances_mm lacks {lacking}; give a tolerance in mm for every labelled organ")
    for name in labelled:
        if not tolerances_mm[name] >= 0:
            raise ValueError(f"tolerances_mm['{name}'] is {tolerances_mm[name]}; it must not be negative")
