"""Volumes: one array however it is stored, one line however it is damaged."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pytest
from damage import Damage, bounded, damages, little_memory
from hypothesis import given, settings
from hypothesis import strategies as st
from scanfiles import ORIGIN_MM, SPACING_MM, ras_affine, write_dicom, write_scan

from hnlib.errors import DataError
from hnlib.volumes import read_volume, same_grid, volume_files

SHAPE = (5, 4, 3)
SCAN = np.arange(60, dtype=np.int16).reshape(SHAPE) * 10 - 300
KINDS = ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "PIR", "SLA"])
def test_the_same_anatomy_is_the_same_array_however_it_is_stored(tmp_path: Path, kind: str, axes: str) -> None:
    """Mirrored, turned and permuted storage all give the RAS array, its spacing and its place."""
    volume = read_volume(write_scan(tmp_path / kind, SCAN, axes=axes))
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array, SCAN)
    np.testing.assert_allclose(volume.affine, ras_affine(), atol=1e-5)
    np.testing.assert_allclose(volume.spacing_mm, SPACING_MM, rtol=1e-6)
    assert volume.stored_axes == axes


@pytest.mark.parametrize("kind", ["a.nrrd", "a.mha", "a.mhd"])
def test_uncompressed_files_read_the_same(tmp_path: Path, kind: str) -> None:
    np.testing.assert_array_equal(read_volume(write_scan(tmp_path / kind, SCAN, compress=False)).array, SCAN)


def test_a_volume_consists_of_all_files_that_hold_it(tmp_path: Path) -> None:
    """Of a MetaImage header and the voxels it names, of any name; of the slices of a folder; else of one file."""
    path = write_scan(tmp_path / "a.mhd", SCAN)
    path.with_suffix(".raw").rename(tmp_path / "voxels.bin")
    edit(path, b"a.raw", b"voxels.bin")
    np.testing.assert_array_equal(read_volume(path).array, SCAN)
    assert volume_files(path) == [path, tmp_path / "voxels.bin"]
    (tmp_path / "voxels.bin").unlink()
    assert volume_files(path) == [path]
    write_dicom(tmp_path / "d", SCAN)
    assert len(volume_files(tmp_path / "d")) == SCAN.shape[2]
    for kind in ("b.nii.gz", "c.mha"):
        assert volume_files(write_scan(tmp_path / kind, SCAN)) == [tmp_path / kind]


def test_a_dicom_series_gives_hu_in_ras(tmp_path: Path) -> None:
    """File names in any order, rescaled values, and a plan beside the slices that is no scan."""
    write_dicom(tmp_path / "d", SCAN)
    write_dicom(tmp_path / "d", SCAN[:, :, :1], series="1.9", offset=90, modality="RTDOSE")
    (tmp_path / "d" / "000.dcm").rename(tmp_path / "d" / "zzz.dcm")
    (tmp_path / "d" / "notes.txt").write_text("not a slice")
    volume = read_volume(tmp_path / "d")
    np.testing.assert_array_equal(volume.array, SCAN)
    np.testing.assert_allclose(volume.affine, ras_affine(), atol=1e-9)
    assert volume.spacing_mm == SPACING_MM


def test_labels_are_whole_numbers(tmp_path: Path) -> None:
    """A label map that was exported as float is read as uint8; one with fractions is refused; large values are kept."""
    labels = (np.arange(60).reshape(SHAPE) % 3).astype(np.float32)
    volume = read_volume(write_scan(tmp_path / "a.nii.gz", labels), labels=True)
    assert volume.array.dtype == np.uint8
    np.testing.assert_array_equal(volume.array, labels)
    assert read_volume(write_scan(tmp_path / "b.nrrd", SCAN), labels=True).array.dtype == np.int32
    with pytest.raises(DataError, match="fractions"):
        read_volume(write_scan(tmp_path / "c.nii.gz", labels + 0.5), labels=True)


def test_a_slight_tilt_counts_as_the_nearest_axes_and_a_large_one_is_refused(tmp_path: Path) -> None:
    for degrees, refused in ((5, False), (20, True)):
        angle = np.radians(degrees)
        turn = np.eye(4)
        turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        path = write_scan(tmp_path / "a.nii.gz", SCAN, affine=turn @ ras_affine())
        if refused:
            with pytest.raises(DataError, match="20 degrees askew"):
                read_volume(path)
        else:
            np.testing.assert_array_equal(read_volume(path).array, SCAN)


def test_same_grid_says_what_differs(tmp_path: Path) -> None:
    one = read_volume(write_scan(tmp_path / "a.nii.gz", SCAN))
    assert same_grid(one, read_volume(write_scan(tmp_path / "b.nrrd", SCAN, axes="RAI"))) == ""
    other = read_volume(write_scan(tmp_path / "b.nrrd", SCAN[:4]))
    assert same_grid(one, other) == "shape 5 x 4 x 3 against 4 x 4 x 3"
    other = read_volume(write_scan(tmp_path / "b.nrrd", SCAN, affine=ras_affine(spacing=(1, 1.5, 3))))
    assert same_grid(one, other) == "spacing 1 x 1.5 x 2.5 mm against 1 x 1.5 x 3 mm"
    shifted = tuple(o + 3 for o in ORIGIN_MM)
    other = read_volume(write_scan(tmp_path / "b.nrrd", SCAN, affine=ras_affine(origin=shifted)))
    assert "corners up to 5.2 mm apart" in same_grid(one, other)


def nifti_without_orientation(path: Path) -> None:
    image = nib.Nifti1Image(SCAN, ras_affine())
    image.header.set_sform(None, 0)
    image.header.set_qform(None, 0)
    path.write_bytes(image.to_bytes()[:252] + struct.pack("<hh", 0, 0) + image.to_bytes()[256:])


def nifti_with_two_sides(path: Path) -> None:
    image = nib.Nifti1Image(SCAN, None)
    image.set_sform(ras_affine(), 1)
    image.set_qform(np.diag((-1.0, 1, 1, 1)) @ ras_affine(), 1)
    nib.save(image, path)


def nrrd_without_space(path: Path) -> None:
    nrrd.write(str(path), SCAN, {"spacings": [1.0, 1.0, 2.0]})


def nrrd_elsewhere(path: Path) -> None:
    write_scan(path, SCAN)
    path.write_bytes(path.read_bytes().replace(b"\n\n", b"\ndata file: other.raw\n\n", 1))


def nrrd_with_channels(path: Path) -> None:
    header = {"space": "LPS", "space directions": np.vstack([[np.nan] * 3, np.eye(3)]), "space origin": [0, 0, 0]}
    nrrd.write(str(path), np.stack([SCAN, SCAN]), header)


def nrrd_with_nan(path: Path) -> None:
    nrrd.write(str(path), SCAN, {"space": "LPS", "space directions": np.eye(3), "space origin": [0, np.nan, 0]})


def sheared(path: Path) -> None:
    affine = ras_affine()
    affine[1, 2] = 0.3
    nib.save(nib.Nifti1Image(SCAN, affine), path)


def edit(path: Path, old: bytes, new: bytes) -> None:
    assert old in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(old, new, 1))


FAULTS: list[tuple[str, Callable[[Path], object], str]] = [
    ("a.nii.gz", lambda p: None, "the file is missing"),
    ("a.nii.gz", lambda p: p.touch(), "is cut off"),
    ("a.nii", lambda p: p.touch(), "is cut off"),
    (
        "a.nii",
        lambda p: p.write_bytes(write_scan(p, SCAN).read_bytes() + b"more"),
        "holds more voxels than its header says",
    ),
    ("a.nii.gz", lambda p: write_scan(p, SCAN + np.float32(np.nan)), "NaN or infinite"),
    ("a.nrrd", lambda p: write_scan(p, SCAN * np.float64(1e300)), "NaN or infinite"),
    ("a.nrrd", lambda p: edit(write_scan(p, SCAN), b"\n\n", b"\nline skip: 1000000000000\n\n"), "skips a part"),
    ("a.nrrd", lambda p: p.touch(), "cannot be read"),
    ("a.mha", lambda p: p.touch(), "no MetaImage"),
    ("a.jpg", lambda p: p.write_bytes(b"x"), "of no known kind"),
    ("a.dcm", lambda p: p.write_bytes(b"x"), "one DICOM slice"),
    ("a.nii.gz", lambda p: p.write_text("<html>not found</html>"), "cannot be read"),
    ("a.nii", nifti_without_orientation, "says no orientation"),
    ("a.nii", nifti_with_two_sides, r"two orientations \(sform RAS, qform LAS\)"),
    ("a.nii", lambda p: nib.save(nib.Nifti1Image(np.stack([SCAN, SCAN], -1), np.eye(4)), p), "5 x 4 x 3 x 2; one 3D"),
    ("a.nii", lambda p: nib.save(nib.Nifti1Image(SCAN[0], np.eye(4)), p), "shape 4 x 3; one 3D"),
    ("a.nii", sheared, "right angles"),
    ("a.nrrd", nrrd_without_space, "says no orientation"),
    ("a.nrrd", nrrd_elsewhere, "another file"),
    ("a.nrrd", nrrd_with_channels, "one 3D volume"),
    ("a.nrrd", nrrd_with_nan, "no number"),
    ("a.mha", lambda p: edit(write_scan(p, SCAN), b"ElementSpacing = 1.0", b"ElementSpacing = inf"), "no number"),
    ("a.mha", lambda p: edit(write_scan(p, SCAN), b"ElementSpacing = 1.0", b"ElementSpacing = 0.0"), "three positive"),
    ("a.mhd", lambda p: write_scan(p, SCAN) and p.with_suffix(".raw").unlink(), "cannot be read"),
    ("d", lambda p: p.mkdir(), "no DICOM slice"),
    ("d", lambda p: write_dicom(p, SCAN) and write_dicom(p, SCAN, series="1.7", offset=50), "holds 2 series"),
    ("d", lambda p: (write_dicom(p, np.tile(SCAN, 3)) / "004.dcm").unlink(), "slices are missing"),
    ("d", lambda p: (write_dicom(p, SCAN) / "001.dcm").write_bytes(b""), "slice 001.dcm is damaged"),
    ("d", lambda p: (write_dicom(p, SCAN) / "x.dcm").write_bytes((p / "001.dcm").read_bytes()), "two slices lie at"),
    ("d", lambda p: write_dicom(p, SCAN[:, :, :1]), "one slice"),
    ("d", lambda p: write_dicom(p, SCAN) and write_dicom(p, SCAN[:4], offset=1), "differ in Columns"),
]


@pytest.mark.parametrize(("name", "make", "text"), FAULTS, ids=[f"{n}-{t[:20]}" for n, _, t in FAULTS])
def test_each_fault_is_one_line_with_case_file_and_remedy(
    tmp_path: Path, name: str, make: Callable[[Path], object], text: str
) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(DataError, match=text) as caught:
        read_volume(path, case="pt_7")
    message = str(caught.value)
    assert message.startswith(f"case pt_7, file {path}")
    assert "\n" not in message
    assert ";" in message or "," in message  # the remedy follows


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, kind: str, keep: float) -> None:
    """Also where the header is whole: missing voxels are never filled."""
    noise = np.random.default_rng(0).integers(-1000, 1000, (16, 16, 8)).astype(np.int16)
    path = write_scan(tmp_path / kind, noise)
    data = path.with_suffix(".raw") if kind == "a.mhd" else path
    data.write_bytes(data.read_bytes()[: int(keep * data.stat().st_size)])
    with pytest.raises(DataError):
        read_volume(path)


def test_a_flipped_bit_in_compressed_voxels_is_refused(tmp_path: Path) -> None:
    """The checksum of gzip is verified to its end."""
    path = write_scan(tmp_path / "a.nii.gz", SCAN)
    content = bytearray(gzip.compress(gzip.decompress(path.read_bytes()), compresslevel=0))
    content[-20] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="incorrect data check"):
        read_volume(path)


def test_a_header_that_claims_too_much_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    """A few hundred bytes that claim gigabytes, or that unpack to them, in every format."""
    nifti = write_scan(tmp_path / "a.nii", SCAN)
    content = bytearray(nifti.read_bytes())
    content[42:48] = struct.pack("<hhh", 1000, 1000, 900)
    nifti.write_bytes(content)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(bytes(content)))
    bomb = write_scan(tmp_path / "c.nii", SCAN).read_bytes() + bytes(2**27)
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(bomb, 1))
    edit(write_scan(tmp_path / "d.nrrd", SCAN, compress=False), b"sizes: 5 4 3", b"sizes: 1000 1000 900")
    edit(write_scan(tmp_path / "e.nrrd", SCAN), b"sizes: 5 4 3", b"sizes: 1000 1000 900")
    edit(write_scan(tmp_path / "f.mha", SCAN), b"DimSize = 5 4 3", b"DimSize = 1000 1000 900")
    edit(write_scan(tmp_path / "g.mhd", SCAN), b"DimSize = 5 4 3", b"DimSize = 30000 30000 30000")
    for name in ("a.nii", "b.nii.gz", "c.nii.gz", "d.nrrd", "e.nrrd", "f.mha", "g.mhd"):
        with little_memory(), pytest.raises(DataError, match=r"cut off|more voxels|cannot be read|claims"):
            read_volume(tmp_path / name)


@settings(bounded, max_examples=400)
@given(kind=st.sampled_from([*KINDS, "d"]), damage=damages(), inside=st.booleans(), labels=st.booleans())
def test_a_damaged_file_of_any_kind_is_read_or_told_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, kind: str, damage: Damage, inside: bool, labels: bool
) -> None:
    """A volume of finite values with three axes, or one line that names the file; at once and in little memory."""
    path = tmp_path_factory.getbasetemp() / "damaged" / kind
    target = write_dicom(path, SCAN) / "001.dcm" if kind == "d" else write_scan(path, SCAN, compress=not inside)
    if kind == "a.mhd" and labels:
        target = path.with_suffix(".raw")
    if kind == "a.nii.gz" and inside:  # a fault that was there before it was packed
        target.write_bytes(gzip.compress(damage(gzip.decompress(target.read_bytes())), 1))
    else:
        target.write_bytes(damage(target.read_bytes()))
    try:
        with little_memory():
            volume = read_volume(path, labels=labels)
    except DataError as caught:
        fault, volume = str(caught), None
    if volume is None:
        assert fault.startswith(f"file {path}: ")
        assert "\n" not in fault
        return
    assert volume.array.ndim == 3
    assert 0 < volume.array.size <= 60 * 8
    assert np.isfinite(volume.array).all()
    assert np.isfinite(volume.affine).all()
    assert min(volume.spacing_mm) > 0
