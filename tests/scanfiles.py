"""Writes small scans in every format that hnlib reads, each by hand or by the format's own library."""

from __future__ import annotations

import zlib
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pydicom
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

RAS = axcodes2ornt(("R", "A", "S"))
SPACING_MM = (1.0, 1.5, 2.5)
ORIGIN_MM = (-30.0, 7.0, 11.0)
_META = {"i2": "MET_SHORT", "u1": "MET_UCHAR", "f4": "MET_FLOAT"}


def ras_affine(spacing: tuple[float, ...] = SPACING_MM, origin: tuple[float, ...] = ORIGIN_MM) -> NDArray[np.float64]:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return affine


def write_scan(
    path: Path,
    array: NDArray[np.generic],
    *,
    axes: str = "LPS",
    affine: NDArray[np.float64] | None = None,
    compress: bool = True,
) -> Path:
    """Write an RAS array so that its stored axes point where ``axes`` says; the anatomy in space stays the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    turn = ornt_transform(RAS, axcodes2ornt(tuple(axes)))
    stored = np.ascontiguousarray(apply_orientation(array, turn))
    place = (ras_affine() if affine is None else affine) @ inv_ornt_aff(turn, array.shape)
    name = path.name
    if name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(stored, place), path)
    elif name.endswith(".nrrd"):
        lps = np.diag((-1.0, -1.0, 1.0, 1.0)) @ place
        header = {
            "space": "left-posterior-superior",
            "space directions": lps[:3, :3].T,
            "space origin": lps[:3, 3],
            "encoding": "gzip" if compress else "raw",
        }
        nrrd.write(str(path), stored, header)
    else:
        write_metaimage(path, stored, np.diag((-1.0, -1.0, 1.0, 1.0)) @ place, compress)
    return path


def write_metaimage(path: Path, stored: NDArray[np.generic], lps: NDArray[np.float64], compress: bool) -> None:
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    data = stored.tobytes(order="F")
    data = zlib.compress(data) if compress else data
    local = path.suffix == ".mha"
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryDataByteOrderMSB = False",
        f"CompressedData = {compress}",
        "TransformMatrix = " + " ".join(map(str, (lps[:3, :3] / spacing).T.ravel())),
        "Offset = " + " ".join(map(str, lps[:3, 3])),
        "ElementSpacing = " + " ".join(map(str, spacing)),
        "DimSize = " + " ".join(map(str, stored.shape)),
        f"ElementType = {_META[stored.dtype.str[1:]]}",
        f"ElementDataFile = {'LOCAL' if local else path.stem + '.raw'}",
    ]
    header = ("\n".join(lines) + "\n").encode()
    path.write_bytes(header + data if local else header)
    if not local:
        path.with_suffix(".raw").write_bytes(data)


def write_dicom(
    folder: Path, array: NDArray[np.generic], *, series: str = "1.2.3", offset: int = 0, modality: str = "CT"
) -> Path:
    """Write an RAS array as axial slices, head last, as scanners store them (axes LPS)."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = array[::-1, ::-1]
    corner = ras_affine() @ [array.shape[0] - 1, array.shape[1] - 1, 0, 1]
    for k in range(array.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"{series}.{k + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, f"{series}.{k + 1}"
        one.Modality, one.SeriesInstanceUID, one.SeriesDescription = modality, series, f"series {series}"
        one.Rows, one.Columns = stored.shape[1], stored.shape[0]
        one.PixelSpacing = [SPACING_MM[1], SPACING_MM[0]]
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        one.ImagePositionPatient = [-corner[0], -corner[1], ORIGIN_MM[2] + k * SPACING_MM[2]]
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation, one.SamplesPerPixel = 15, 0, 1
        one.PhotometricInterpretation = "MONOCHROME2"
        one.RescaleSlope, one.RescaleIntercept = 1, -1024
        one.PixelData = (stored[:, :, k].T + 1024).astype("<u2").tobytes()
        pydicom.dcmwrite(folder / f"{offset + k:03}.dcm", one, enforce_file_format=True)
    return folder
