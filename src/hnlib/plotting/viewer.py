"""A scan to scroll through in a static page: three planes, outlines, windows; a still picture where nothing runs."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from hnlib.organs import organ
from hnlib.plotting.scans import best_slices, shown_box

#: A volume is thinned out in plane until it has no more voxels than this: about a megabyte in the page.
MAX_VOXELS = 700_000
#: Lowest and highest HU by the name of the window.
WINDOWS_HU = {"Soft tissue": (-160.0, 240.0), "Bone": (-450.0, 1050.0), "Brain": (-10.0, 90.0)}
MISSED, EXTRA = "#0072B2", "#D55E00"  # blue and vermilion, told apart by every kind of colour vision
AIR_HU, DENSE_HU = -1000, 2000


def pack_volume(
    image_hu: NDArray[np.floating],
    reference: NDArray[np.integer],
    prediction: NDArray[np.integer] | None,
    *,
    spacing_mm: Sequence[float],
    organs: Sequence[str],
    margin_mm: float = 40.0,
    max_voxels: int = MAX_VOXELS,
) -> dict[str, Any]:
    """Return what a viewer needs of a scan, in text: two small volumes and their colours.

    Parameters
    ----------
    image_hu
        CT numbers, shape (X, Y, Z), axes to the right, anterior, superior (RAS+).
    reference, prediction
        Label maps on the same grid; ``i + 1`` is ``organs[i]``. The prediction may be None.
    spacing_mm
        Voxel edges in mm.
    organs
        Names of the organs in label order.
    margin_mm
        Space around the box of all reference organs that is kept.
    max_voxels
        Every second (third, ...) voxel in plane is taken until no more are left.

    Returns
    -------
    dict
        ``image`` and ``labels``, NIfTI in base64; ``labels`` numbers the pairs of reference and prediction that
        occur, and ``colours`` has one list of (red, green, blue, opacity) a way of looking; ``names`` says what
        each pair is; ``windows`` as `WINDOWS_HU`; ``start``, the voxel shown first; ``thinned``, the step in plane.

    Raises
    ------
    ValueError
        When the shapes differ, or more than 256 pairs occur.
    """
    found = reference if prediction is None else prediction
    if not reference.shape == image_hu.shape == found.shape:
        raise ValueError("image, reference and prediction differ in shape; bring them to one grid")
    box = shown_box(reference, spacing_mm, margin_mm)
    size = int(np.prod([part.stop - part.start for part in box]))
    step = max(1, int(np.ceil(np.sqrt(size / max_voxels))))
    cut = tuple(slice(part.start, part.stop, every) for part, every in zip(box, (step, step, 1), strict=True))
    keys = reference[cut].astype(np.int64) * 256 + found[cut]
    values, numbers = np.unique(keys, return_inverse=True)
    if len(values) > 256:
        raise ValueError(f"{len(values)} pairs of reference and prediction; at most 256 can be shown")
    pairs = [divmod(int(value), 256) for value in values]
    if pairs[0] != (0, 0):  # number 0 is seen through
        raise ValueError("no voxel is background in both label maps; nothing can be outlined")
    affine = np.diag([*(np.asarray(spacing_mm) * (step, step, 1)), 1.0])
    image = np.clip(np.rint(image_hu[cut]), AIR_HU, DENSE_HU).astype(np.int16)
    colours = {"Reference": [_colour(a, organs) for a, _ in pairs]}
    if prediction is not None:
        colours["Prediction"] = [_colour(b, organs) for _, b in pairs]
        colours["Errors"] = [_error(a, b) for a, b in pairs]
    return {
        "image": _nifti(image, affine),
        "labels": _nifti(numbers.reshape(keys.shape).astype(np.uint8), affine),
        "names": [_name(pair, organs) for pair in pairs],
        "colours": colours,
        "windows": WINDOWS_HU,
        "start": [best_slices(reference[cut])[plane] for plane in ("sagittal", "coronal", "axial")],
        "thinned": step,
    }


def _nifti(array: NDArray[Any], affine: NDArray[np.float64]) -> str:
    import gzip

    content = nibabel.Nifti1Image(array, affine).to_bytes()
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def _colour(value: int, organs: Sequence[str]) -> list[int]:
    return [*_bytes(organ(organs[value - 1]).colour), 255] if value else [0, 0, 0, 0]


def _error(reference: int, prediction: int) -> list[int]:
    if reference == prediction:
        return [0, 0, 0, 0]
    return [*_bytes(MISSED if reference else EXTRA), 255]


def _bytes(colour: str) -> list[int]:
    return [round(255 * part) for part in to_rgb(colour)]


def _name(pair: tuple[int, int], organs: Sequence[str]) -> str:
    reference, prediction = ("background" if not value else organ(organs[value - 1]).title for value in pair)
    return reference if reference == prediction else f"{reference}, predicted as {prediction}"


def viewer(packed: dict[str, Any], still: Path | str, alt: str) -> str:
    """Return the HTML of a viewer; it shows the still picture until, and unless, the page's script starts it.

    Parameters
    ----------
    packed
        From `pack_volume`.
    still
        PNG file.
    alt
        Says in words what there is to see.
    """
    picture = base64.b64encode(Path(still).read_bytes()).decode()
    data = json.dumps(packed).replace("</", "<\\/")
    return (
        f'<div class="hn-viewer" role="group" aria-label="{html.escape(alt, quote=True)}">'
        f'<img src="data:image/png;base64,{picture}" alt="{html.escape(alt, quote=True)}" width="720">'
        f'<script type="application/json">{data}</script></div>'
    )
