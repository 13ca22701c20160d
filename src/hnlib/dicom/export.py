"""A label map as a DICOM segmentation or structure set that refers to the slices it was made from.

The segmentation is written by highdicom (extra ``dicom``); the structure set by pydicom, with contours from
contourpy: half-way between the centres of voxels inside and outside, so that a voxel belongs to an organ
exactly where its centre lies inside. Inner contours are holes (even-odd rule).
"""

from __future__ import annotations

import datetime
import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import contourpy
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from hnlib import __version__
from hnlib.dicom.series import is_slice, slice_files
from hnlib.errors import ConfigError, DataError
from hnlib.files import write_atomically
from hnlib.organs import organ

#: Names in pydicom's table of SNOMED CT; an organ without a row is told by its label alone.
CODES = {
    "brainstem": "BrainStem",
    "spinal_cord": "SpinalCord",
    "parotid": "ParotidGland",
    "mandible": "Mandible",
    "larynx": "Larynx",
    "oesophagus": "Esophagus",
    "optic_chiasm": "OpticChiasm",
    "optic_nerve": "OpticNerve",
    "submandibular": "SubmandibularGland",
    "lens": "Lens",
}
_NEEDED = ("StudyInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_PATIENT_AND_STUDY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_LPS = np.diag((-1.0, -1.0, 1.0, 1.0))


def read_headers(folder: Path) -> list[Dataset]:
    """Return the headers of the slices of a scan, from its first end to its last.

    Raises
    ------
    DataError
        When the folder holds no slice, or one lacks what an object that refers to it must repeat.
    """
    found = []
    for path in filter(is_slice, slice_files(folder)):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if lacking := [name for name in _NEEDED if name not in header]:
            raise DataError(f"file {path}: lacks {', '.join(lacking)}; export the scan again")
        found.append(header)
    if not found:
        raise DataError(f"file {folder}: no DICOM slice; a segmentation must refer to slices")
    normal = np.cross(*np.asarray(found[0].ImageOrientationPatient, float).reshape(2, 3))
    return sorted(found, key=lambda header: float(np.asarray(header.ImagePositionPatient, float) @ normal))


def planes(labels: NDArray[np.uint8], affine: NDArray[np.float64], headers: Sequence[Dataset]) -> NDArray[np.uint8]:
    """Return the labels on the slices: shape (slices, rows, columns).

    Parameters
    ----------
    labels, affine
        Label map (X, Y, Z) and its affine to RAS, as `hnlib.volumes.read_volume` gives for the same slices.

    Raises
    ------
    DataError
        When a slice does not lie on the grid of the labels.
    """
    to_index = np.asarray(np.linalg.inv(affine), np.float64)
    return np.stack([_plane(labels, to_index, header) for header in headers])


def _plane(labels: NDArray[np.uint8], to_index: NDArray[np.float64], header: Dataset) -> NDArray[np.uint8]:
    row_mm, column_mm = (float(v) for v in header.PixelSpacing)
    along_row, along_column = np.asarray(header.ImageOrientationPatient, float).reshape(2, 3)
    place = np.zeros((4, 3))
    place[:3] = np.column_stack([along_row * column_mm, along_column * row_mm, header.ImagePositionPatient])
    place[3, 2] = 1
    step_column, step_row, origin = (to_index @ _LPS @ place)[:3].T
    rows, columns = np.ogrid[: header.Rows, : header.Columns]
    exact = [origin[a] + step_row[a] * rows + step_column[a] * columns for a in range(3)]
    index = [np.rint(part).astype(int) for part in exact]
    on_grid = all(
        np.abs(part - near).max() < 0.1 and near.min() >= 0 and near.max() < n
        for part, near, n in zip(exact, index, labels.shape, strict=True)
    )
    if not on_grid:
        raise DataError(f"file {header.filename}: the slice does not lie on the grid of the labels; check the folder")
    return np.asarray(labels[index[0], index[1], index[2]])


def write_segmentation(
    path: Path, labels: NDArray[np.uint8], affine: NDArray[np.float64], organs: Sequence[str], folder: Path
) -> None:
    """Write a DICOM segmentation (binary, one segment an organ).

    Parameters
    ----------
    labels, affine
        Label map (X, Y, Z), ``i + 1`` being ``organs[i]``, and its affine to RAS.
    folder
        Slices of the scan that the labels were made from.

    Raises
    ------
    ConfigError
        Where highdicom is not installed.
    DataError
        When the slices do not fit the labels, or no organ has a voxel.
    """
    try:
        import highdicom as hd
    except ImportError:
        raise ConfigError("a DICOM segmentation needs highdicom; install hnlib[dicom]") from None
    headers = read_headers(folder)
    pixels = planes(labels, affine, headers)
    if not pixels.any():
        raise DataError(f"file {path}: no organ has a voxel, and a DICOM segmentation must not be empty")
    try:
        with warnings.catch_warnings():  # the name is the scan's own, with one component or more
            warnings.filterwarnings("ignore", "The string .* is unlikely to represent the intended person name")
            segmentation = _segmentation(hd, headers, pixels, organs)
    except (AttributeError, ValueError, TypeError) as fault:  # its words for a slice that lacks something
        reason = " ".join(str(fault).split())[:120]
        raise DataError(f"image {folder}: highdicom cannot refer to its slices ({reason}); export them again") from None
    write_atomically(path, lambda part: segmentation.save_as(part))


def _segmentation(hd: Any, headers: Sequence[Dataset], pixels: NDArray[np.uint8], organs: Sequence[str]) -> Any:
    uids = _uids("SEG", headers, pixels)
    return hd.seg.Segmentation(
        source_images=headers,
        pixel_array=pixels,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(hd, number, name) for number, name in enumerate(organs, start=1)],
        series_instance_uid=uids(0),
        series_number=900,
        sop_instance_uid=uids(1),
        instance_number=1,
        manufacturer="hnlib",
        manufacturer_model_name="hnlib",
        software_versions=__version__,
        device_serial_number="0",
        series_description="Organs at risk, hnlib",
    )


def _segment(hd: Any, number: int, name: str) -> Any:
    from pydicom.sr.codedict import codes

    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=organ(name).title,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=getattr(codes.SCT, CODES.get(_stem(name), "AnatomicalStructure")),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="hnlib", version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
        display_color=hd.color.CIELabColor.from_rgb(*rgb(name)),
    )


def rgb(name: str) -> tuple[int, int, int]:
    """Return the colour of an organ as three numbers of 0..255."""
    red, green, blue = bytes.fromhex(organ(name).colour.lstrip("#"))
    return red, green, blue


def _stem(name: str) -> str:
    return name.removesuffix("_left").removesuffix("_right")


def _uids(kind: str, headers: Sequence[Dataset], pixels: NDArray[np.uint8]) -> Callable[[int], UID]:
    """Return UIDs that are the same for the same labels on the same scan."""
    sources = [kind, str(headers[0].SOPInstanceUID), __version__, _digest(pixels)]
    return lambda number: generate_uid(entropy_srcs=[*sources, str(number)])


def _digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest()


def write_structures(
    path: Path, labels: NDArray[np.uint8], affine: NDArray[np.float64], organs: Sequence[str], folder: Path
) -> None:
    """Write a DICOM RT structure set; parameters as for `write_segmentation`. An organ without a voxel has no contour.

    Raises
    ------
    DataError
        When the slices do not fit the labels.
    """
    headers = read_headers(folder)
    pixels = planes(labels, affine, headers)
    uids, now = _uids("RTSTRUCT", headers, pixels), datetime.datetime.now(datetime.UTC)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, uids(1)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    for name in _PATIENT_AND_STUDY:
        setattr(out, name, headers[0].get(name, ""))
    out.SOPClassUID, out.SOPInstanceUID, out.SeriesInstanceUID = RTStructureSetStorage, uids(1), uids(0)
    out.Modality, out.Manufacturer, out.SoftwareVersions = "RTSTRUCT", "hnlib", __version__
    out.SeriesNumber, out.SeriesDescription, out.OperatorsName = 901, "Organs at risk, hnlib", ""
    out.StructureSetLabel, out.ApprovalStatus = "hnlib", "UNAPPROVED"
    out.StructureSetDate, out.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    out.FrameOfReferenceUID, out.PositionReferenceIndicator = headers[0].FrameOfReferenceUID, ""
    out.ReferencedFrameOfReferenceSequence = DicomSequence([_frame_of_reference(headers)])
    rows = [_roi(number, name, pixels, headers) for number, name in enumerate(organs, start=1)]
    out.StructureSetROISequence, out.ROIContourSequence, out.RTROIObservationsSequence = (
        DicomSequence(column) for column in zip(*rows, strict=True)
    )
    write_atomically(path, lambda part: out.save_as(part, enforce_file_format=True))


def _frame_of_reference(headers: Sequence[Dataset]) -> Dataset:
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = headers[0].SeriesInstanceUID
    series.ContourImageSequence = DicomSequence([_reference(header) for header in headers])
    study.ReferencedSOPClassUID = UID("1.2.840.10008.3.1.2.3.1")  # detached study management
    study.ReferencedSOPInstanceUID = headers[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = DicomSequence([series])
    frame.FrameOfReferenceUID = headers[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = DicomSequence([study])
    return frame


def _reference(header: Dataset) -> Dataset:
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return image


def _roi(
    number: int, name: str, pixels: NDArray[np.uint8], headers: Sequence[Dataset]
) -> tuple[Dataset, Dataset, Dataset]:
    """Return what the three sequences of a structure set say of one organ."""
    structure, contours, observation = Dataset(), Dataset(), Dataset()
    structure.ROINumber, structure.ROIName = number, name
    structure.ReferencedFrameOfReferenceUID = headers[0].FrameOfReferenceUID
    structure.ROIGenerationAlgorithm = "AUTOMATIC"
    contours.ReferencedROINumber, contours.ROIDisplayColor = number, list(rgb(name))
    contours.ContourSequence = DicomSequence(
        contour for plane, header in zip(pixels, headers, strict=True) for contour in _contours(plane == number, header)
    )
    observation.ObservationNumber, observation.ReferencedROINumber = number, number
    observation.RTROIInterpretedType, observation.ROIInterpreter = "ORGAN", ""
    return structure, contours, observation


def _contours(mask: NDArray[np.bool_], header: Dataset) -> Iterator[Dataset]:
    if not mask.any():
        return
    row_mm, column_mm = (float(v) for v in header.PixelSpacing)
    along_row, along_column = np.asarray(header.ImageOrientationPatient, float).reshape(2, 3)
    origin = np.asarray(header.ImagePositionPatient, float)
    # one voxel more on each side, so that contours close at the border of the image
    for line in contourpy.contour_generator(z=np.pad(mask, 1).astype(float)).lines(0.5):
        column, row = np.asarray(line)[:-1].T - 1
        points = origin + np.outer(column * column_mm, along_row) + np.outer(row * row_mm, along_column)
        contour = Dataset()
        contour.ContourImageSequence = DicomSequence([_reference(header)])
        contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
        contour.ContourData = [f"{v:.3f}" for v in points.ravel()]
        yield contour
