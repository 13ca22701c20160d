"""Labelled scans for whoever has none at hand: cases of the phantom, written as anyone's folder would hold them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import yaml

from hnlib.datasets import PhantomDataset
from hnlib.datasets.folder import SETTINGS
from hnlib.files import write_atomically, write_text

SPACING_MM = (4.0, 4.0, 3.0)
CASES = {"train": 3, "validation": 1, "test": 1}


def write_demo(root: Path, *, progress: Callable[[str, int, int], None] | None = None) -> list[Path]:
    """Write five cases of the phantom as NIfTI, with an ``hnlib.yaml``; return the case folders.

    No voxel is a patient's. Cases that are there already are written anew, and are the same.

    Raises
    ------
    DataError
        When the disk is full or the folder read-only.
    """
    data = PhantomDataset(num_cases=CASES, spacing_mm=SPACING_MM)
    split = {part: list(names) for part, names in data.split().items()}
    names = [name for part in split.values() for name in part]
    folders = []
    for done, name in enumerate(names, start=1):
        case = data.load(name)
        affine = np.diag([*case.spacing_mm, 1.0])
        for file, array in (("image", case.image_hu.round().astype(np.int16)), ("labels", case.labels)):
            volume = nib.Nifti1Image(array, affine)
            write_atomically(root / name / f"{file}.nii.gz", partial(nib.save, volume))
        folders.append(root / name)
        if progress:
            progress("written", done, len(names))
    settings = {"organs": {name: value for value, name in enumerate(data.organs, start=1)}, "split": split}
    write_text(root / SETTINGS, "# Cases of hnlib's phantom.\n" + yaml.safe_dump(settings, sort_keys=False))
    return folders
