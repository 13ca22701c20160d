"""Chapter 16: FocusNet in pictures on the phantom; its runs are in `hnlib.chapters.focusnet_runs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

from hnlib.cases import Case
from hnlib.chapters.page import percent, title
from hnlib.datasets import PhantomDataset
from hnlib.experiments import load_profile
from hnlib.networks import roi_starts
from hnlib.preprocess import Prepared
from hnlib.systems import Found, OrganSize, SmallRule, fuse, heat_targets, organ_sizes, roi_voxels, small_organs

SCENE_ORGANS = ("brainstem", "optic_chiasm", "optic_nerve_left", "optic_nerve_right", "lens_left", "lens_right")
_SIZE_HEADS = ("organ", "voxels", "share of the scan", "diameter, mm", "ROI in training, voxels", "share of the ROI")


@dataclass(frozen=True)
class Scene:
    """One phantom around the optic nerves, with what FocusNet makes of its labels and of made-up outputs.

    Attributes
    ----------
    case
        The phantom, cut to the field that is shown.
    sizes
        One row a small organ: voxels, diameter, ROI, share of the ROI that is organ.
    heat
        Heat map of each small organ in the slice.
    index
        The slice.
    rois
        Of the left nerve by multiple of the diameter: first voxel and size in plane.
    masks
        The left nerve of the slice by the main network, in the ROI, and fused.
    """

    case: Case
    sizes: pd.DataFrame
    heat: Mapping[str, NDArray[np.float32]]
    index: int
    rois: Mapping[int, tuple[int, int, int, int]]
    masks: Mapping[str, NDArray[np.bool_]]

    @property
    def step_mm(self) -> tuple[float, float]:
        """Pixel edges of the slice."""
        return self.case.spacing_mm[0], self.case.spacing_mm[1]

    @property
    def pixels(self) -> NDArray[np.float32]:
        """CT numbers of the slice."""
        return self.case.image_hu[:, :, self.index]

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Labels of the slice."""
        return self.case.labels[:, :, self.index]


def focus_scene(profile: str = "phantom-focus") -> Scene:
    """Make one phantom and, from its labels, heat maps, ROIs, and a fusion of probabilities that are made up.

    No ROI is larger than the training patch of the profile.
    """
    whole = PhantomDataset({"test": 1}, organs=SCENE_ORGANS).load("phantom_000")
    case, spacing, limit = _cut(whole), whole.spacing_mm, training_patch(profile)
    small = small_organs(organ_sizes([_prepared(whole)], SCENE_ORGANS, spacing), SmallRule(), SCENE_ORGANS[1:])
    target = torch.from_numpy(case.labels.astype(np.int64))[None]
    heat, _ = heat_targets(target, [size.value for size in small], spacing, 5.0)
    nerve = next(size for size in small if size.organ == "optic_nerve_left")
    truth = case.labels == nerve.value
    index = int(truth.sum(axis=(0, 1)).argmax())
    centre = np.argwhere(truth).mean(axis=0).round().astype(int)
    edges = {times: roi_voxels(nerve, times, spacing, limit) for times in (2, 3, 5)}
    x, y = int(centre[0]), int(centre[1])
    rois = {times: (x - n // 2, y - m // 2, n, m) for times, (n, m, _) in edges.items()}
    rows = [_size_row(size, roi_voxels(size, 3, spacing, limit), whole.labels.size) for size in small]
    return Scene(
        case,
        pd.DataFrame(rows, columns=list(_SIZE_HEADS)).set_index("organ"),
        {size.organ: heat[0, k, :, :, index].numpy() for k, size in enumerate(small)},
        index,
        rois,
        _fusion(truth, centre, edges[3], index),
    )


def training_patch(profile: str) -> tuple[int, int, int]:
    """Return the voxels of the large patch that a profile names."""
    return (load_profile(profile).patches or {})["large"]


def _size_row(size: OrganSize, roi: tuple[int, int, int], scan: int) -> tuple[str, int, str, float, str, str]:
    shares = [percent(size.voxels / whole) for whole in (scan, int(np.prod(roi)))]
    edges = " x ".join(map(str, roi))
    return title(size.organ), round(size.voxels), shares[0], round(size.diameter_mm, 1), edges, shares[1]


def _cut(case: Case) -> Case:
    """Return the case around all organs but the brainstem, with 35 mm around them in plane and 20 mm across."""
    where = np.argwhere(case.labels > 1)
    margin = np.round(np.array([35, 35, 20]) / case.spacing_mm).astype(int)
    low, high = np.maximum(where.min(axis=0) - margin, 0), where.max(axis=0) + margin + 1
    cut = slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])
    return replace(case, image_hu=case.image_hu[cut], labels=case.labels[cut])


def _prepared(case: Case) -> Prepared:
    x, y, z = case.labels.shape
    box = tuple((0, n) for n in (x, y, z))
    return Prepared(case.name, case.image_hu, case.labels, 0.0, box, (x, y, z), case.spacing_mm, case.labelled)


def _fusion(
    truth: NDArray[np.bool_], centre: NDArray[np.intp], edges: tuple[int, int, int], index: int
) -> dict[str, NDArray[np.bool_]]:
    """Return the nerve of a slice by a main network that swells it, in the ROI, fused, and with the gate shut."""
    x, y, z = roi_starts(torch.from_numpy(centre)[None, None], truth.shape, [edges])[0, 0].tolist()
    start, size = (x, y, z), np.minimum(edges, truth.shape)
    swollen = binary_dilation(truth, iterations=2)
    main = np.stack([np.where(swollen, 0.3, 0.95), np.where(swollen, 0.7, 0.05)]).astype(np.float32)
    cut = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
    sharp = gaussian_filter(truth[cut].astype(np.float32), 0.4)
    found = Found(1, (0, 0, 0), 0.9, True, start, edges, sharp)
    shut = Found(1, (0, 0, 0), 0.1, False, start, edges)
    inside = np.zeros_like(truth)
    inside[cut] = sharp > 0.5
    volumes = {
        "main network": main[1] > 0.5,
        "small network": inside,
        "gate open: fused": fuse(main, [found])[1] > 0.5,
        "gate shut": fuse(main, [shut])[1] > 0.5,
    }
    return {name: volume[:, :, index] for name, volume in volumes.items()}
