"""Scans and label maps from files: NIfTI, NRRD, MetaImage and DICOM folders, all turned to RAS+.

Whatever is wrong with a file is one `DataError` line. The readers behind it are nibabel, pynrrd and pydicom, written in
Python: on damaged files SimpleITK was seen to fill missing voxels of a NIfTI file with old memory, to crash on
MetaImage headers and to hang in DICOM folders, and neither a crash nor a wrong voxel can be told to a user.
"""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
from nibabel.orientations import aff2axcodes, apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from hnlib import dicom
from hnlib.errors import DataError
from hnlib.surfaces import voxel_box

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
#: Axes may be turned from the patient's by at most this angle; they then count as the nearest patient axes.
MAX_OBLIQUE_DEGREES = 10.0
MAX_VOXELS = 2**30
#: Two grids are the same where their corners lie within this fraction of the smallest voxel edge.
GRID_TOLERANCE = 0.1

Native = tuple[NDArray[Any], NDArray[np.float64]]
#: Tells zlib to take data with a header of gzip or of zlib.
_ANY_ZLIB = zlib.MAX_WBITS | 32
#: Bytes of the largest number that a voxel may be.
_LARGEST_TYPE = 8
_CUT_OFF = "is cut off: fewer voxels than its header says; copy it again"
_TOO_LONG = "holds more voxels than its header says; copy or export it again"
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Volume:
    """A scan or a label map on its grid.

    Attributes
    ----------
    array
        Shape (X, Y, Z), axes towards right, anterior, superior (nearest patient axes). Float32; a
        label map is uint8, or int32 where a value needs it.
    spacing_mm
        Voxel edges along X, Y, Z in mm.
    affine
        4 x 4, from voxel indices of ``array`` to RAS coordinates in mm.
    stored_axes
        Where the axes of the stored array point, such as ``LPS``.
    """

    array: NDArray[Any]
    spacing_mm: tuple[float, float, float]
    affine: NDArray[np.float64]
    stored_axes: str = "RAS"


def read_volume(path: Path, *, labels: bool = False, case: str = "") -> Volume:
    """Read a scan, or a label map, and turn it to RAS+.

    A mirrored affine is handled: the same anatomy gives the same array, however it is stored.

    Parameters
    ----------
    path
        A ``.nii``, ``.nii.gz``, ``.nrrd``, ``.mha`` or ``.mhd`` file, or a folder with the slices of one DICOM series.
    labels
        Read a label map: whole numbers are required, and the type is integer.
    case
        Named in the error, where given.

    Raises
    ------
    DataError
        One line: the file is missing, truncated or no image, holds several channels, is not 3D, says no orientation,
        lies askew by more than ``MAX_OBLIQUE_DEGREES``, holds NaN or infinite values, or (labels) fractions.

    Notes
    -----
    Memory follows what the file holds, not what its header claims: voxels that are not there are refused before any
    are allocated. A NIfTI file without qform and sform says no orientation, and one whose qform and sform contradict
    each other is read differently by different programs: both are refused rather than guessed.
    """
    where = f"case {case}, file {path}" if case else f"file {path}"
    if not path.exists():
        no_suffix = not path.name.lower().endswith((*SUFFIXES, ".dcm", ".ima"))
        kinds = f": no {path.name}{', '.join(SUFFIXES)} nor a DICOM folder is there" if no_suffix else ""
        raise DataError(f"{where}: the file is missing{kinds}; copy it again, or name it rightly")
    try:
        with warnings.catch_warnings(), nib.imageglobals.LoggingOutputSuppressor():
            warnings.simplefilter("ignore")  # a library's warning about the header; what matters is checked here
            native, affine = _reader(path)(path)
            return _to_ras(native, affine, labels)
    except DataError as fault:
        raise DataError(f"{where}: {fault}") from None
    except Exception as fault:  # what a damaged file makes a reader raise is no part of any reader's promise
        raise DataError(f"{where}: cannot be read ({_one_line(fault)}); copy or export it again") from None


def same_grid(one: Volume, other: Volume, of: str = "") -> str:
    """Return in words how two grids differ, or an empty string where they are the same; ``of`` says whose is one."""
    against = f"{of} against" if of else "against"
    if one.array.shape != other.array.shape:
        return f"shape {_times(one.array.shape)} {against} {_times(other.array.shape)}"
    spacings = np.asarray([one.spacing_mm, other.spacing_mm])
    corners = np.indices((2, 2, 2)).reshape(3, -1) * (np.asarray(one.array.shape).reshape(3, 1) - 1)
    shift = (one.affine - other.affine) @ np.vstack([corners, np.ones(8)])
    distance_mm = float(np.linalg.norm(shift[:3], axis=0).max())
    if distance_mm <= GRID_TOLERANCE * spacings.min():
        return ""
    if np.abs(spacings[0] - spacings[1]).max() > 1e-3 * spacings.min():
        return f"spacing {_times(one.spacing_mm)} mm {against} {_times(other.spacing_mm)} mm"
    return f"the same shape and spacing, but another place or direction: corners up to {distance_mm:.1f} mm apart"


def _reader(path: Path) -> Callable[[Path], Native]:
    if path.is_dir():
        return dicom.read_series
    name = path.name.lower()
    for suffixes, reader in (((".nii", ".nii.gz"), _nifti), ((".nrrd",), _nrrd), ((".mha", ".mhd"), _metaimage)):
        if name.endswith(suffixes):
            return reader
    if name.endswith((".dcm", ".ima")):
        raise DataError("is one DICOM slice; give the folder with all slices of the series")
    raise DataError(f"is of no known kind; use {', '.join(SUFFIXES)} or a folder of DICOM slices")


def _nifti(path: Path) -> Native:
    content = path.read_bytes()
    packed = path.name.lower().endswith(".gz")
    start = zlib.decompressobj(_ANY_ZLIB).decompress(content, 540) if packed else content[:540]
    kind = nib.Nifti2Image if start[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nib.Nifti1Image
    header_class: Any = kind.header_class
    header_size = header_class.template_dtype.itemsize
    if len(start) < header_size:
        raise DataError("is cut off: not even a whole header; copy it again")
    header = header_class(start[:header_size])
    _check_shape(header.get_data_shape())
    if header.get_data_dtype().fields:
        raise DataError("holds colours; one channel of numbers is needed")
    size = header.get_data_offset() + int(np.prod(header.get_data_shape())) * header.get_data_dtype().itemsize
    content = _inflate(content, size) if packed else content
    _check_size(len(content), size)
    image = kind.from_file_map({"header": _holder(content), "image": _holder(content)})
    sform, qform = (transform(coded=True)[0] for transform in (header.get_sform, header.get_qform))
    if sform is None and qform is None:
        raise DataError("says no orientation (no sform, no qform); export it again with one")
    if sform is not None and qform is not None and aff2axcodes(sform) != aff2axcodes(qform):
        raise DataError(
            f"says two orientations (sform {_axes(sform)}, qform {_axes(qform)}), so that sides are uncertain; "
            "export it again with one"
        )
    unit = {"meter": 1000.0, "micron": 0.001}.get(header.get_xyzt_units()[0], 1.0)
    affine = np.diag((unit, unit, unit, 1.0)) @ (sform if sform is not None else qform)
    return np.asanyarray(image.dataobj), affine


def _holder(content: bytes) -> nib.FileHolder:
    return nib.FileHolder(fileobj=io.BytesIO(content))


def _inflate(packed: bytes, size: int) -> bytes:
    """Unpack gzip or zlib data, checksums verified; more than ``size`` bytes are refused before they are unpacked."""
    parts: list[bytes] = []
    while packed:
        stream = zlib.decompressobj(_ANY_ZLIB)
        parts.append(stream.decompress(packed, size + 1))
        size -= len(parts[-1])
        if size < 0:
            raise DataError(_TOO_LONG)
        if not stream.eof:
            raise DataError(_CUT_OFF)
        packed = stream.unused_data.lstrip(b"\0")  # gzip files may follow each other, padded with zeros
    return b"".join(parts)


def _check_size(found: int, wanted: int) -> None:
    if found != wanted:
        raise DataError(_CUT_OFF if found < wanted else _TOO_LONG)


def _nrrd(path: Path) -> Native:
    with path.open("rb") as file:
        header = nrrd.read_header(file)
        if "data file" in header or "datafile" in header:
            raise DataError("keeps its voxels in another file; export it as one .nrrd file")
        content = file.read()
    lacking = [key for key in ("type", "dimension", "sizes", "encoding") if key not in header]
    if lacking:
        raise DataError(f"is cut off or damaged: its header lacks {', '.join(lacking)}; copy it again")
    shape = tuple(int(n) for n in header["sizes"])
    _check_shape(shape)
    if any(int(header.get(key, 0)) for key in ("line skip", "lineskip", "byte skip", "byteskip")):
        raise DataError("skips a part of itself; export it again")
    if header.get("encoding") in ("gzip", "gz"):
        header["encoding"], content = "raw", _inflate(content, int(np.prod(shape)) * _LARGEST_TYPE)
    array = nrrd.read_data(header, io.BytesIO(content))
    if header["encoding"] == "raw":  # of compressed and of plain voxels
        _check_size(len(content), array.nbytes)
    space = str(header.get("space", "")).lower()
    signs = {
        **dict.fromkeys(("left-posterior-superior", "lps"), (-1, -1, 1)),
        **dict.fromkeys(("right-anterior-superior", "ras"), (1, 1, 1)),
        **dict.fromkeys(("left-anterior-superior", "las"), (-1, 1, 1)),
    }.get(space)
    if signs is None or "space directions" not in header:
        raise DataError(f"says no orientation (space '{space}'); export it again with one")
    affine = np.eye(4)
    directions = np.asarray(header["space directions"], float)
    affine[:3, :3] = directions.T
    affine[:3, 3] = header.get("space origin", (0, 0, 0))
    return array, np.diag((*signs, 1)) @ affine


_META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_DATA_FILE = re.compile(rb"^ElementDataFile\s*=\s*(.*?)\r?\n", re.MULTILINE)


def volume_files(path: Path) -> list[Path]:
    """Return the files of which a volume consists: the slices of a DICOM folder, header and data of a ``.mhd``."""
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.is_file())
    if path.suffix.lower() != ".mhd" or not (found := _DATA_FILE.search(path.read_bytes())):
        return [path]
    data = path.parent / found[1].decode("ascii", "replace").strip()
    return [path, data] if data.is_file() else [path]


def _metaimage(path: Path) -> Native:
    content = path.read_bytes()
    end = _DATA_FILE.search(content)
    if end is None:
        raise DataError("is cut off or no MetaImage: no line ElementDataFile; copy it again")
    text = content[: end.end()].decode("ascii")
    fields = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in text.splitlines())}
    if int(fields.get("ElementNumberOfChannels", 1)) != 1:
        raise DataError("holds several channels; one is needed")
    shape = tuple(int(n) for n in fields["DimSize"].split())
    _check_shape(shape)
    source = fields["ElementDataFile"]
    if source != "LOCAL" and Path(source).name != source:
        raise DataError(f"keeps its voxels in {source}; they must lie in a file beside it")
    data = content[end.end() :] if source == "LOCAL" else (path.parent / source).read_bytes()
    msb = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False")).lower() == "true"
    dtype = np.dtype(_META_TYPES[fields["ElementType"]]).newbyteorder(">" if msb else "<")
    size = int(np.prod(shape)) * dtype.itemsize
    if fields.get("CompressedData", "False").lower() == "true":
        data = _inflate(data, size)
    _check_size(len(data), size)
    array = np.frombuffer(data, dtype)
    axes = fields.get("TransformMatrix", fields.get("Orientation", fields.get("Rotation")))
    if axes is None:
        raise DataError("says no orientation (no TransformMatrix); export it again with one")
    affine = np.eye(4)
    spacing = fields.get("ElementSpacing", fields.get("ElementSize", ""))
    affine[:3, :3] = np.asarray(axes.split(), float).reshape(3, 3).T * np.asarray(spacing.split(), float)
    affine[:3, 3] = [float(n) for n in fields.get("Offset", fields.get("Position", "0 0 0")).split()]
    return array.reshape(shape, order="F"), _LPS_TO_RAS @ affine


def _check_shape(shape: tuple[int, ...]) -> None:
    if min(shape, default=0) < 1:
        raise DataError(f"is empty (shape {_times(shape)}); export it again")
    if len(shape) < 3 or max(shape[3:], default=1) > 1:
        raise DataError(f"has shape {_times(shape)}; one 3D volume with one channel is needed")
    if np.prod([float(n) for n in shape]) > MAX_VOXELS:
        raise DataError(f"claims {_times(shape)} voxels, more than a CT can have; copy or export it again")


def _to_ras(native: NDArray[Any], affine: NDArray[np.float64], labels: bool) -> Volume:
    if native.dtype.kind not in "iufb":
        raise DataError(f"holds values of type {native.dtype}; one 3D volume of numbers is needed")
    native = native.reshape(native.shape[:3])  # what follows are axes of length one
    _check_affine(affine)
    orientation = io_orientation(affine)
    array = _in_order(apply_orientation(_labels(native) if labels else native, orientation))
    turned = affine @ inv_ornt_aff(orientation, native.shape)
    x, y, z = (float(edge) for edge in np.linalg.norm(turned[:3, :3], axis=0))
    array = array if labels else array.astype(np.float32, copy=False)
    if not labels and not np.isfinite(array).all():
        raise DataError("holds NaN or infinite values; export it again")
    return Volume(array, (x, y, z), turned, _axes(affine))


def _in_order(turned: NDArray[Any]) -> NDArray[Any]:
    """Return a C-ordered array; of a label map only the box of its labels is copied, the rest is 0 anyway."""
    if turned.dtype != np.uint8:  # other types may hold what is not above 0
        return np.ascontiguousarray(turned)
    array, box = np.zeros(turned.shape, np.uint8), voxel_box(turned)
    if box is not None:
        array[box] = turned[box]
    return array


def _check_affine(affine: NDArray[np.float64]) -> None:
    if not np.isfinite(affine).all():
        raise DataError("has a position or spacing that is no number; export it again")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.min() <= 0:
        raise DataError(f"has a spacing of {_times(spacing)} mm; three positive numbers are needed, export it again")
    axes = affine[:3, :3] / spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
        raise DataError("has axes that are not at right angles (a tilted gantry?); resample it first")
    angle = float(np.degrees(np.arccos(np.clip(np.abs(axes).max(axis=0), 0, 1))).max())
    if angle > MAX_OBLIQUE_DEGREES:
        raise DataError(
            f"lies {angle:.0f} degrees askew of the patient's axes, {MAX_OBLIQUE_DEGREES:.0f} are allowed; "
            "resample it to axial slices first"
        )


def _labels(native: NDArray[Any]) -> NDArray[Any]:
    if native.dtype == np.uint8:
        return native
    if native.dtype.kind == "f" and not np.equal(native, np.round(native)).all():
        raise DataError("holds fractions or NaN; a label map has whole numbers only, export it again")
    low, high = native.min(), native.max()
    if low >= 0 and high <= 255:
        return native.astype(np.uint8)
    if low < -(2**31) or high >= 2**31:
        raise DataError(f"holds values from {low} to {high}; a label map has small whole numbers, export it again")
    return native.astype(np.int32)


def _times(numbers: Any) -> str:
    return " x ".join(f"{n:.4g}" if isinstance(n, float) else str(n) for n in numbers)


def _axes(affine: NDArray[np.float64]) -> str:
    return "".join(code or "?" for code in aff2axcodes(affine))


def _one_line(fault: Exception) -> str:
    text = " ".join(str(fault).split())
    return (text[:120] + "..." if len(text) > 120 else text) or type(fault).__name__
