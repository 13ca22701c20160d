"""Agreement of a predicted label map with a reference, one case at a time, on the grid of the scan.

Distances come from `hnlib.surfaces`, once for each organ. What is decided here, before anything is measured, is what
an empty mask means:

======================  =========================  =====================================================
organ in the reference  prediction                 rows
======================  =========================  =====================================================
not labelled            any                        none: unknown is neither absent nor wrong
labelled, with voxels   with voxels                all metrics, ``missed`` 0; without overlap ``dsc`` is 0
labelled, with voxels   empty                      ``missed`` 1; ``dsc``, ``iou``, ``recall``,
                                                   ``surface_dsc``, ``surface_dsc_1vox`` 0;
                                                   ``precision`` and all distances NaN
labelled, no voxels     any, empty or not          ValueError
absent, no voxels       empty                      ``hallucinated`` 0, nothing else
absent, no voxels       with voxels                ``hallucinated`` 1, nothing else
absent, with voxels     any                        ValueError
======================  =========================  =====================================================

"Labelled" means that somebody outlined the organ, so a reference without a voxel of it is a fault of the data and has
to surface whatever the network said. "Absent" means that the patient is known not to have the organ (a gland that
surgery took): a prediction of it is counted, and no DSC of 0 or 1 enters a mean. NaN is an empty field in a table,
never a number such as 1000 mm.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from hnlib.organs import organ
from hnlib.surfaces import Box, surface_distances, voxel_box

METRICS = ("dsc", "iou", "precision", "recall", "hd95_mm", "surface_dsc", "surface_dsc_1vox", "missed")
"""Names of the metrics, in the order of the rows."""

DISTANCES = ("hd_mm", "hd95_mean_mm", "assd_mm")
"""Further metrics on request: largest distance, mean of the two directed 95th percentiles, mean distance."""

TOLERANCE_SLACK_MM = 1e-6
"""One nanometre. A spacing read as float32 is 0.98000002 mm, and must still lie within 0.98 mm."""

_MISSED = {
    **dict.fromkeys(("dsc", "iou", "recall", "surface_dsc", "surface_dsc_1vox"), 0.0),
    **dict.fromkeys(("precision", "hd95_mm", *DISTANCES), math.nan),
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
    absent: Collection[str] = (),
    metrics: Sequence[str] = METRICS,
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
        Organs that were outlined in this case. Others get no row. None: all that are not absent.
    tolerances_mm
        Tolerance of ``surface_dsc`` in mm by organ, for at least the labelled ones. None takes those of
        `hnlib.organs.organ`.
    absent
        Organs that this patient is known not to have.
    metrics
        What is wanted, of ``METRICS`` and ``DISTANCES``.

    Returns
    -------
    pandas.DataFrame
        Columns ``organ``, ``metric``, ``value``: one row for each labelled organ, in label order, and each
        metric; for an absent organ the one row ``hallucinated``. Names that end in ``_mm`` are in mm, the
        others lie in 0..1. The module's table says what an empty mask gets.

    Raises
    ------
    ValueError
        When shapes, spacing, label values or names do not fit together, a tolerance is lacking, or a
        labelled organ has no voxel in the reference.
    ConfigError
        When an organ has no tolerance of its own because its name is none that an organ can have.

    Notes
    -----
    With r voxels of the reference, p of the prediction and b of both: dsc = 2 b / (r + p), iou = b / (r + p - b),
    precision = b / p, recall = b / r. ``hd95_mm`` is the larger of the two directed 95th
    percentiles of the distance between surfaces, each weighted by surface area; tools that take the mean
    of the two (``hd95_mean_mm``), or count voxels instead of areas, give smaller or other numbers.
    ``surface_dsc`` is the share of both surfaces' area that lies within the tolerance of the other surface
    (Nikolov et al. 2018); ``surface_dsc_1vox`` is the same at the diagonal of one voxel. ``hd_mm`` is the
    largest distance, ``assd_mm`` the mean over both surfaces, by area. Deviation: tolerances are widened by
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
    for name, names in (("organs", organs), ("labelled", labelled), ("absent", absent), ("metrics", metrics)):
        if isinstance(names, str):
            raise ValueError(f"{name} is the text '{names}'; give a list of names: ['{names}']")
    labelled = [name for name in organs if name not in absent] if labelled is None else labelled
    tolerances_mm = {name: organ(name).tolerance_mm for name in labelled} if tolerances_mm is None else tolerances_mm
    whole = _integers(reference), _integers(prediction)
    _check_maps(*whole, len(organs))
    _check_names(organs, labelled, tolerances_mm, absent, metrics)
    rows: list[tuple[str, str, float]] = []
    boxes = [_organ_boxes(labels, len(organs)) for labels in whole]
    for value, (name, found, predicted) in enumerate(zip(organs, *boxes, strict=True), start=1):
        _check_presence(name, found is not None, labelled, absent)
        if name in absent:
            rows.append((name, "hallucinated", float(predicted is not None)))
        if name not in labelled or found is None:
            continue
        values = _MISSED
        if predicted is not None:
            box = tuple(
                slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(found, predicted, strict=True)
            )
            values = _compare(whole[0][box] == value, whole[1][box] == value, spacing, tolerances_mm[name])
        rows.extend((name, metric, values[metric]) for metric in metrics)
    table = pd.DataFrame(rows, columns=["organ", "metric", "value"])
    return table.astype({"value": np.float64})


def centre_error_mm(mask: NDArray[np.bool_], centre: Sequence[float], spacing_mm: Sequence[float]) -> float:
    """Return how far a voxel lies from the centroid of an organ's voxels, in mm: the error of a localisation.

    Parameters
    ----------
    mask
        The organ, shape (X, Y, Z); without a voxel the error is NaN.
    centre
        Index of the voxel that was named.
    spacing_mm
        Voxel edges along X, Y, Z.

    Examples
    --------
    >>> mask = np.zeros((4, 4, 4), bool)
    >>> mask[1, 1, 1:3] = True  # centroid 1, 1, 1.5
    >>> centre_error_mm(mask, (1, 3, 1), (1.0, 2.0, 6.0))  # 4 mm along Y, 3 mm along Z
    5.0
    """
    spacing = np.asarray(_checked_spacing(spacing_mm))
    index = np.argwhere(mask)
    if not len(index):
        return math.nan
    return float(np.linalg.norm((index.mean(axis=0) - np.asarray(centre, float)) * spacing))


def _integers(labels: NDArray[np.integer] | NDArray[np.bool_]) -> NDArray[np.integer]:
    """Return a label map as it is, a mask as the label map of one organ."""
    return np.asarray(labels.view(np.uint8) if labels.dtype == bool else labels)


def _organ_boxes(labels: NDArray[np.integer], num_organs: int) -> list[Box | None]:
    """Return the box of each organ, or None; organs fill a small part of a scan, which is found first."""
    whole = voxel_box(labels)
    if whole is None:
        return [None] * num_organs
    return [
        box and tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(whole, box, strict=True))
        for box in ndimage.find_objects(labels[whole], max_label=num_organs)
    ]


def _compare(
    reference: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    tolerance_mm: float,
) -> dict[str, float]:
    """Return every metric of two masks that both hold voxels, cropped to the box around the two."""
    overlap = int(np.count_nonzero(reference & prediction))
    in_reference = int(np.count_nonzero(reference))
    in_prediction = int(np.count_nonzero(prediction))
    distances = surface_distances(reference, prediction, spacing_mm)
    return {
        "dsc": 2.0 * overlap / (in_reference + in_prediction),
        "iou": overlap / (in_reference + in_prediction - overlap),
        "precision": overlap / in_prediction,
        "recall": overlap / in_reference,
        "missed": 0.0,
        "hd95_mm": distances.hd_mm(95.0),
        "surface_dsc": distances.surface_dsc(tolerance_mm + TOLERANCE_SLACK_MM),
        "surface_dsc_1vox": distances.surface_dsc(math.hypot(*spacing_mm) + TOLERANCE_SLACK_MM),
        "hd_mm": distances.hd_mm(),
        "hd95_mean_mm": distances.hd_mm(95.0, of="mean"),
        "assd_mm": distances.assd_mm(),
    }


def _checked_spacing(spacing_mm: Sequence[float]) -> tuple[float, float, float]:
    spacing = tuple(float(edge) for edge in spacing_mm)
    if len(spacing) != 3 or not all(math.isfinite(edge) and edge > 0 for edge in spacing):
        raise ValueError(f"spacing_mm is {spacing}; three positive numbers are needed")
    return spacing[0], spacing[1], spacing[2]


def _check_maps(reference: NDArray[np.integer], prediction: NDArray[np.integer], num_organs: int) -> None:
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


def _check_names(
    organs: Sequence[str],
    labelled: Collection[str],
    tolerances_mm: Mapping[str, float],
    absent: Collection[str],
    metrics: Sequence[str],
) -> None:
    for what, names in (("labelled", labelled), ("absent", absent)):
        if foreign := sorted(set(names) - set(organs)):
            raise ValueError(f"{what} holds {foreign}, which are not among organs {tuple(organs)}")
    if both := sorted(set(labelled) & set(absent)):
        raise ValueError(f"{both} are labelled and absent; an organ is outlined, or known not to be there")
    if lacking := sorted(set(labelled) - set(tolerances_mm)):
        raise ValueError(f"tolerances_mm lacks {lacking}; give a tolerance in mm for every labelled organ")
    for name in labelled:
        if not tolerances_mm[name] >= 0:
            raise ValueError(f"tolerances_mm['{name}'] is {tolerances_mm[name]}; it must not be negative")
    if strange := sorted(set(metrics) - {*METRICS, *DISTANCES}):
        raise ValueError(f"metrics holds {strange}; there are {METRICS + DISTANCES}")


def _check_presence(name: str, found: bool, labelled: Collection[str], absent: Collection[str]) -> None:
    if name in labelled and not found:
        raise ValueError(
            f"organ '{name}' is labelled but has no voxel in the reference; "
            "leave it out of `labelled` where nobody outlined it, or name it in `absent` where the patient has none"
        )
    if name in absent and found:
        raise ValueError(f"organ '{name}' is absent but has voxels in the reference; leave it out of `absent`")
