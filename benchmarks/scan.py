"""From a scan on disk to a file in the cache, and to a label map: the library's own commands, timed.

The scan is a phantom written as NIfTI; `make_scan` writes it once, and each side reads that file.
"""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

from benchmarks.process import Found, need, now
from benchmarks.sizes import CACHED, IMAGE, LABELS, MODEL, SIZES, Size
from hnlib.cache import open_prepared, save_prepared
from hnlib.cases import Case
from hnlib.datasets.phantom import PhantomDataset
from hnlib.preprocess import preprocess_case
from hnlib.volumes import read_volume


def make_scan(folder: str, size: str, device: str = "cpu") -> Found:
    """Write a phantom's scan and label map, the preprocessed case, and the file of an untrained model."""
    need(device)
    big, place = SIZES[size], Path(folder)
    case = PhantomDataset({"train": 1}, spacing_mm=big.case_spacing_mm).load("phantom_000")
    affine = np.diag([*case.spacing_mm, 1.0])
    for name, array in ((IMAGE, case.image_hu.astype(np.int16)), (LABELS, case.labels)):
        image = nibabel.Nifti1Image(array, affine)
        image.set_qform(affine, code=1)
        image.set_sform(affine, code=1)
        nibabel.save(image, place / name)
    preprocess(folder, size)
    _save_untrained(place, big)
    return {"shape": list(case.image_hu.shape), "plan_shape": list(open_prepared(place / CACHED).image.shape)}


def preprocess(folder: str, size: str) -> Found:
    """Time a case from its files to the cache: read, crop, resample, normalise, compress."""
    place, target = Path(folder), SIZES[size].plan
    began = now("cpu")
    image, labels = read_volume(place / IMAGE), read_volume(place / LABELS, labels=True)
    case = Case("case", image.array, labels.array, image.spacing_mm, target.organs, frozenset(target.organs))
    save_prepared(place / CACHED, preprocess_case(case, target))
    return {"seconds": now("cpu") - began}


def predict(folder: str, size: str, device: str = "cpu") -> Found:
    """Time a case from scan and model file to the written label map, as `hnlib predict` does it."""
    need(device)
    place = Path(folder)
    from hnlib.predict import Outputs, predict_files

    began = now(device)
    predict_files(place / IMAGE, place / MODEL, Outputs(place / "predicted.nii.gz"))
    return {"seconds": now(device) - began, "note": f"{_windows(place, SIZES[size])} windows"}


def _save_untrained(place: Path, size: Size) -> None:
    import torch

    from hnlib.model_file import ModelFile, save_model, see
    from hnlib.networks import build_network, set_output_prior
    from hnlib.systems import Blueprint

    target = size.plan
    torch.manual_seed(0)
    network = build_network("dynunet", size.topology, len(target.organs) + 1, width=size.width)
    set_output_prior(network, [1.0, *(1e-3 for _ in target.organs)])
    save_model(
        place / MODEL,
        ModelFile(
            Blueprint("dynunet", width=size.width, cap=320, topology=size.topology, patch=size.patch, plan=target),
            seen=see([open_prepared(place / CACHED)], target),
            attribution="none: untrained weights",
            weights={"network": network.state_dict()},
        ),
    )


def _windows(place: Path, size: Size) -> int:
    """Return how many windows, half overlapping, cover the preprocessed case."""
    shape = np.maximum(open_prepared(place / CACHED).image.shape, size.patch)
    half = np.asarray(size.patch) // 2
    return int(np.prod(np.ceil((shape - size.patch) / half).astype(int) + 1))
