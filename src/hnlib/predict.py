"""From a scan in any format to a label map on its own grid, with nothing but a model file.

>>> labels = predict_image("ct.nii.gz", "model.safetensors")  # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from numpy.typing import NDArray

from hnlib.anatomy import centre_mm, misplaced
from hnlib.cases import Case
from hnlib.dicom import is_slice
from hnlib.dicom.export import rgb, write_segmentation, write_structures
from hnlib.errors import ConfigError, DataError
from hnlib.files import write_atomically
from hnlib.inference import keep_largest_components
from hnlib.model_file import MODEL_NAME, ModelFile, how_far, load_model, odd_volumes, origin
from hnlib.organs import organ
from hnlib.preprocess import preprocess_case, restore_probabilities
from hnlib.volumes import Volume, read_volume


@dataclass(frozen=True)
class Outputs:
    """What a prediction writes; None is not written.

    Attributes
    ----------
    labels
        NIfTI label map; beside it ``.labels.txt`` for ITK-SNAP and ``.ctbl`` for 3D Slicer.
    segmentation, structures
        DICOM-SEG and RTSTRUCT; only for a scan that is a folder of DICOM slices.
    """

    labels: Path
    segmentation: Path | None = None
    structures: Path | None = None


def predict_image(
    scan: Path | str | Volume,
    model: Path | str | ModelFile,
    *,
    force: bool = False,
    device: torch.device | str | None = None,
) -> NDArray[np.uint8]:
    """Outline the organs of one scan.

    Parameters
    ----------
    scan
        NIfTI, NRRD or MetaImage file, folder of DICOM slices, or a volume that was read already.
    model
        Model file, folder of a run that holds one, or a model that was read already.
    force
        Predict also where the image is far from what the model was trained on.
    device
        None takes the GPU where there is one.

    Returns
    -------
    ndarray
        Label map (X, Y, Z), uint8, axes to the right, anterior, superior, on the grid of
        `hnlib.volumes.read_volume`: ``i + 1`` is ``model.plan.organs[i]``; the largest component of each.

    Raises
    ------
    DataError
        When the scan or the model is damaged, or (without `force`) far from the training images.
    """
    model = model if isinstance(model, ModelFile) else load_model(Path(model))
    if isinstance(scan, Volume):
        return _predict(scan, "in memory", model, force, device)
    return _predict(read_volume(Path(scan)), str(scan), model, force, device)


def _predict(
    volume: Volume, name: str, model: ModelFile, force: bool, device: torch.device | str | None
) -> NDArray[np.uint8]:
    empty = np.zeros(volume.array.shape, np.uint8)
    image = np.asarray(volume.array, np.float32)
    if image.min() == image.max():
        raise DataError(f"image {name}: is constant, {image.min():g} everywhere; export it again")
    prepared = preprocess_case(Case(name, image, empty, volume.spacing_mm, model.plan.organs), model.plan)
    reasons = how_far(prepared, model.plan, model.seen)
    if reasons and not force:
        raise DataError(
            f"image {name}: far from the {model.seen.cases} scans that the model was trained on: "
            f"{'; '.join(reasons)}; force it (--force) to predict all the same"
        )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    probabilities = model.predictor(device)(prepared.image)
    return keep_largest_components(restore_probabilities(probabilities, prepared))


def predict_files(
    scan: Path, model: Path, outputs: Outputs, *, force: bool = False, report: Callable[[str], None] | None = None
) -> NDArray[np.uint8]:
    """Outline the organs of one scan and write what is asked for; returns the label map of `predict_image`.

    Raises
    ------
    ConfigError
        When a name does not end as it must, stands for two outputs, the scan, a slice of it or the model, or DICOM is
        asked for a scan that is not.
    DataError
        As `predict_image`, or where nothing can be written.
    """
    _check_outputs(scan, model, outputs)
    loaded, volume = load_model(model), read_volume(scan)
    report = report or (lambda _line: None)
    report(f"model {model}: {origin(loaded)}")
    if loaded.provenance.get("profile") == "tiny":
        report(f"warning: model {model}: the profile tiny shows only that files work; its outlines mean nothing")
    labels = _predict(volume, str(scan), loaded, force, None)
    organs = loaded.plan.organs
    written = write_labels(outputs.labels, labels, volume, organs)
    for path, write in ((outputs.segmentation, write_segmentation), (outputs.structures, write_structures)):
        if path is not None:
            write(path, labels, volume.affine, organs, scan)
            written.append(path)
    _report_organs(scan, labels, volume, loaded, report)
    report(f"written: {', '.join(map(str, written))}")
    return labels


def _check_outputs(scan: Path, model: Path, outputs: Outputs) -> None:
    """Refuse, before any work, outputs that cannot be written or would replace what they are made from."""
    if not outputs.labels.name.endswith((".nii", ".nii.gz")):
        raise ConfigError(f"output {outputs.labels}: the label map is NIfTI; name it .nii.gz or .nii")
    paths = [path for path in (outputs.labels, outputs.segmentation, outputs.structures) if path is not None]
    if len(paths) > 1 and not scan.is_dir():
        raise ConfigError(f"image {scan}: a DICOM-SEG or RTSTRUCT refers to slices; give the folder of DICOM slices")
    taken = {scan.resolve(), (model / MODEL_NAME if model.is_dir() else model).resolve()}
    for path in paths:
        place = path.resolve()
        if place in taken or (scan.is_dir() and place.parent == scan.resolve() and is_slice(path)):
            raise ConfigError(f"output {path}: the scan, the model or another output has this name; give another")
        taken.add(place)
        if path.is_dir():
            raise ConfigError(f"output {path}: is a folder; name a file in it")
        folder = next(parent for parent in place.parents if parent.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise DataError(f"output {path}: {folder} is no folder that you may write to; choose another")


def _report_organs(
    scan: Path, labels: NDArray[np.uint8], volume: Volume, model: ModelFile, report: Callable[[str], None]
) -> None:
    """Report what is doubtful about a label map, and the volume of each organ."""
    counts = np.bincount(labels.ravel(), minlength=len(model.plan.organs) + 1)[1:]
    volumes = counts * float(np.prod(volume.spacing_mm)) / 1000
    found = {name: float(ml) for name, ml in zip(model.plan.organs, volumes, strict=True)}
    for line in (*doubts(labels, volume.spacing_mm, model.plan.organs), *odd_volumes(found, model)):
        report(f"warning: image {scan}: {line}")
    for name, ml in found.items():
        report(f"{name}: {f'{ml:.2f}' if ml >= 0.01 else 'less than 0.01'} ml" if ml else f"{name}: not found")


def doubts(labels: NDArray[np.uint8], spacing_mm: tuple[float, float, float], organs: Sequence[str]) -> Iterator[str]:
    """Yield one line for each two organs of a label map that lie to each other as in no patient.

    A scan that is mirrored throughout cannot always be told so: a network may outline its left parotid on the left.
    """
    found = {name: np.flatnonzero(labels == value) for value, name in enumerate(organs, start=1)}
    centres = {name: centre_mm(index, labels.shape, spacing_mm) for name, index in found.items() if index.size}
    for _, _, text in misplaced(centres):
        yield f"{text}; the outlines are wrong, or the scan is mirrored or turned over: compare with its source"


def write_labels(path: Path, labels: NDArray[np.uint8], volume: Volume, organs: Sequence[str]) -> list[Path]:
    """Write a label map on the grid of its scan as that was stored, and the organs' names and colours beside it.

    ``NAME.labels.txt`` is ITK-SNAP's label description, ``NAME.ctbl`` 3D Slicer's colour table. The three paths are
    returned.
    """
    turn = ornt_transform(axcodes2ornt(("R", "A", "S")), axcodes2ornt(tuple(volume.stored_axes)))
    stored = np.ascontiguousarray(apply_orientation(labels, turn))
    affine = volume.affine @ inv_ornt_aff(turn, labels.shape)
    image = nibabel.Nifti1Image(stored, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"hnlib label map"
    write_atomically(path, lambda part: nibabel.save(image, part))
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    snap = ['    0     0    0    0        0  0  0    "Clear Label"']
    slicer = ["0 Background 0 0 0 0"]
    for value, name in enumerate(organs, start=1):
        red, green, blue = rgb(name)
        snap.append(f'{value:5d} {red:5d} {green:4d} {blue:4d}        1  1  1    "{organ(name).title}"')
        slicer.append(f"{value} {name} {red} {green} {blue} 255")
    written = [path, path.with_name(f"{stem}.labels.txt"), path.with_name(f"{stem}.ctbl")]
    for beside, lines in zip(written[1:], (snap, slicer), strict=True):
        text = "\n".join(lines) + "\n"
        write_atomically(beside, lambda part, text=text: part.write_text(text))  # type: ignore[misc]
    return written
