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

from hnlib.organs import ORGANS

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


#: Half-open boxes in voxels of a head of 40 x 40 x 32, axes RAS, 5 mm: where anatomy puts the organs.
HEAD_SHAPE, HEAD_MM = (40, 40, 32), (5.0, 5.0, 5.0)
BOXES = {
    "brainstem": ((18, 22), (15, 19), (20, 25)),
    "optic_chiasm": ((18, 22), (23, 24), (27, 28)),
    "optic_nerve_left": ((14, 17), (26, 28), (27, 28)),
    "optic_nerve_right": ((23, 26), (26, 28), (27, 28)),
    "parotid_left": ((5, 9), (17, 22), (13, 18)),
    "parotid_right": ((31, 35), (17, 22), (13, 18)),
    "mandible": ((12, 28), (28, 32), (8, 12)),
}


def head(seed: int = 0) -> NDArray[np.int16]:
    """Return air, a block of tissue and bone where the mandible is, with noise, so that no two seeds are alike."""
    image = np.full(HEAD_SHAPE, -1000, np.int16)
    image[3:37, 4:36] = 40
    image[box("mandible")] = 900
    return (image + np.random.default_rng(seed).integers(-20, 20, HEAD_SHAPE)).astype(np.int16)


def box(organ: str) -> tuple[slice, ...]:
    return tuple(slice(*span) for span in BOXES[organ])


def organ_mask(organ: str) -> NDArray[np.uint8]:
    mask = np.zeros(HEAD_SHAPE, np.uint8)
    mask[box(organ)] = 1
    return mask


def write_head(path: Path, array: NDArray[np.generic], **options: object) -> Path:
    return write_scan(path, array, **{"affine": ras_affine(HEAD_MM), **options})  # type: ignore[arg-type]


def write_pddca(root: Path, *cases: str) -> Path:
    """Write cases in PDDCA's layout."""
    for case in cases:
        write_head(root / case / "img.nrrd", head(int(case[-4:])))
        for organ in BOXES:
            name = ORGANS[organ].spellings["pddca"][0]
            write_head(root / case / "structures" / f"{name}.nrrd", organ_mask(organ))
    return root
