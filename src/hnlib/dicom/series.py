"""One CT series from a folder of DICOM slices."""

from __future__ import annotations

import io
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from hnlib.errors import DataError
from hnlib.files import reason

#: Objects that lie beside the slices of a scan and are no scan.
NO_SCAN = frozenset({"RTSTRUCT", "RTPLAN", "RTDOSE", "RTIMAGE", "RTRECORD", "SEG", "REG", "SR", "PR", "KO"})
#: A step between slices may differ from the median step by this fraction.
STEP_TOLERANCE = 0.05
#: No CT has more pixels along an edge; a damaged header may claim any number.
MAX_EDGE = 8192
SLICE_SUFFIXES = frozenset({"", ".dcm", ".ima", ".dicom"})


def read_series(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read the one series of a folder.

    Every file named like a slice (``.dcm``, ``.ima`` or no suffix) must be readable: a damaged one is a missing slice.

    Returns
    -------
    array, affine
        HU in the order (column, row, slice), and the affine from those indices to RAS in mm.

    Raises
    ------
    DataError
        For no or several series, slices that are damaged, missing, doubled or unlike the others.
    """
    slices = _slices(folder)
    first = slices[0]
    for name in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
        if len({str(getattr(s, name)) for s in slices}) > 1:
            raise DataError(f"its slices differ in {name}; keep one scan in the folder")
    row_mm, column_mm = (float(v) for v in first.PixelSpacing)
    along_row, along_column = np.asarray(first.ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(along_row, along_column)
    places = np.asarray([s.ImagePositionPatient for s in slices], float)
    order = np.argsort(places @ normal, kind="stable")
    step = _step(places[order], normal)
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([along_row * column_mm, along_column * row_mm, step])
    affine[:3, 3] = places[order[0]]
    array = np.stack([_hu(slices[i]) for i in order], axis=-1)
    return array, np.diag((-1.0, -1.0, 1.0, 1.0)) @ affine


def is_slice(path: Path) -> bool:
    """Return whether a file is a DICOM slice, not another object that may lie beside slices."""
    try:
        return pydicom.dcmread(path, specific_tags=["Modality"]).get("Modality") not in NO_SCAN
    except Exception:  # what a file that is none makes a reader raise is no part of any reader's promise
        return False


def slice_files(folder: Path) -> list[Path]:
    """Return the files of a folder that are named as slices are, by name; hidden ones are none."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and path.suffix.lower() in SLICE_SUFFIXES
        and path.name != "DICOMDIR"
    ]


def _slices(folder: Path) -> list[Any]:
    series: dict[str, list[Any]] = defaultdict(list)
    for path in slice_files(folder):
        try:
            # from memory: of a file, pydicom reads whatever length a damaged element claims
            found = pydicom.dcmread(io.BytesIO(path.read_bytes()))
            modality, uid = found.get("Modality"), str(found.get("SeriesInstanceUID"))
        except Exception as fault:  # what a damaged file makes a reader raise is no part of any reader's promise
            text = "it lacks DICOM's header" if isinstance(fault, InvalidDicomError) else reason(fault)
            raise DataError(f"slice {path.name} is damaged or no DICOM file ({text}); copy it again") from None
        if modality not in NO_SCAN:
            found.filename = path.name
            series[uid].append(found)
    if not series:
        raise DataError("the folder holds no DICOM slice; give the folder with the slices of the scan")
    if len(series) > 1:
        names = ", ".join(f"{s[0].get('SeriesDescription', uid)} ({len(s)})" for uid, s in series.items())
        raise DataError(f"the folder holds {len(series)} series: {names}; keep the slices of one")
    (slices,) = series.values()
    for found in slices:
        _check_slice(found)
    return slices


def _check_slice(found: Any) -> None:
    needed = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "PixelData")
    missing = [name for name in needed if name not in found]
    if missing:
        raise DataError(f"slice {found.filename} lacks {', '.join(missing)}; copy or export it again")
    if int(found.get("NumberOfFrames", 1)) != 1 or int(found.get("SamplesPerPixel", 1)) != 1:
        raise DataError(f"slice {found.filename} holds several frames or colours; convert the scan to NIfTI first")
    if max(int(found.Rows), int(found.Columns)) > MAX_EDGE:
        raise DataError(f"slice {found.filename} claims {found.Columns} x {found.Rows} pixels; copy it again")


def _step(places: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the vector from one slice to the next, the same for all."""
    if len(places) < 2:
        raise DataError("the folder holds one slice; a scan has several, copy the others too")
    steps = np.diff(places @ normal)
    usual = float(np.median(steps))
    if steps.min() < 0.01:
        raise DataError(f"two slices lie at {float(places[int(steps.argmin()), 2]):.2f} mm; keep one of them")
    odd = np.flatnonzero(np.abs(steps - usual) > STEP_TOLERANCE * usual)
    if odd.size:
        start, end = (places[int(odd[0]) + k] @ normal for k in (0, 1))
        raise DataError(
            f"slices are missing: {end - start:.2f} mm from {start:.2f} to {end:.2f} mm where {usual:.2f} mm is usual; "
            "copy all slices again"
        )
    return np.asarray((places[-1] - places[0]) / (len(places) - 1), float)


def _hu(found: Any) -> NDArray[np.float32]:
    try:
        pixels = found.pixel_array
    except Exception as fault:  # decoders raise whatever they like
        text = " ".join(str(fault).split())[:120]
        raise DataError(
            f"slice {found.filename}: its pixels cannot be read ({text}); copy it again, uncompressed"
        ) from None
    if pixels.shape != (found.Rows, found.Columns):
        raise DataError(f"slice {found.filename}: pixels of shape {pixels.shape}; copy it again")
    slope, intercept = float(found.get("RescaleSlope", 1)), float(found.get("RescaleIntercept", 0))
    return np.asarray(pixels.T * np.float32(slope) + np.float32(intercept), np.float32)
