"""Exact values against the training sampler on a real scan: a million patches with HNLIB_FULL=1, else a tenth."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hnlib.datasets import OpenKBP
from hnlib.imbalance import Scan, landscape, scan_sources
from hnlib.sampling import (
    PAPER_GATE_HU,
    CentreComponent,
    CentreDistribution,
    CentreSampler,
    ClassUniform,
    HuGated,
    VoxelUniform,
    extract,
    patch_start,
)

DRAWS = 1_000_000 if os.environ.get("HNLIB_FULL") else 100_000
ORGANS = ("brainstem", "spinal_cord", "parotid_left", "parotid_right", "mandible")
SIZES = [(96, 80, 48), (32, 48, 24), (16, 8, 130)]  # the last one is longer than the scan
LAWS: dict[str, CentreComponent] = {
    "voxel_uniform": VoxelUniform(),
    "class_uniform": ClassUniform(),
    "gated": HuGated(PAPER_GATE_HU),
}


class Counter:
    """Class counts of many patches of one scan at once, from cumulative sums over the volume."""

    def __init__(self, scan: Scan) -> None:
        self.shape = np.array(scan.labels.shape)
        self.total = np.zeros((*(self.shape + 1), scan.num_classes), np.int32)
        for k in range(1, scan.num_classes):
            mask = (scan.labels == k).astype(np.int32)
            self.total[1:, 1:, 1:, k] = mask.cumsum(0).cumsum(1).cumsum(2)

    def __call__(self, starts: NDArray[np.intp], patch: tuple[int, int, int]) -> NDArray[np.int64]:
        low, high = np.clip(starts, 0, self.shape), np.clip(starts + patch, 0, self.shape)
        counts = np.zeros((len(starts), self.total.shape[3]), np.int64)
        for corner in np.ndindex(2, 2, 2):
            x, y, z = np.where(corner, high, low).T
            counts += (-1) ** (3 - sum(corner)) * self.total[x, y, z]
        counts[:, 0] = np.prod(patch) - counts[:, 1:].sum(axis=1)
        return counts


def starts_of(centres: NDArray[np.intp], shape: tuple[int, ...], patch: tuple[int, int, int]) -> NDArray[np.intp]:
    """Return `patch_start` of many centres, which is one function of each axis."""
    tables = [
        [patch_start((c,) * 3, (n,) * 3, (w,) * 3)[0] for c in range(n)] for n, w in zip(shape, patch, strict=True)
    ]
    return np.stack([np.array(table)[column] for table, column in zip(tables, centres.T, strict=True)], axis=1)


@pytest.mark.slow
@pytest.mark.data
def test_draws_of_the_training_sampler_meet_the_exact_values(openkbp_root: Path) -> None:
    """Share and presence of every class within three standard errors: three sizes, both foreground modes, the gate."""
    data = OpenKBP(openkbp_root, organs=ORGANS)
    name = next(name for part in data.split().values() for name in part)
    scan = scan_sources(data, [name], images=True)[0]()
    table = landscape([scan], SIZES, LAWS, quantities=("ratio", "presence", "variance"))
    table = table.set_index(["patch_x", "patch_y", "patch_z", "centres"])
    count, rng, scores = Counter(scan), np.random.default_rng(0), []
    for law, component in LAWS.items():
        sampler = CentreSampler(CentreDistribution(((1.0, component),)), scan.labels, SIZES[0], scan.image_hu)
        centres = np.array([sampler.draw(rng, 0) for _ in range(DRAWS)])
        for patch in SIZES:
            starts = starts_of(centres, scan.labels.shape, patch)
            counts = count(starts, patch)
            for i in range(0, DRAWS, DRAWS // 20):  # the sums say what cutting the patch says
                cut = extract(scan.labels, patch_start(centres[i], scan.labels.shape, patch), patch, 0)
                assert np.array_equal(np.bincount(cut.ravel(), minlength=6), counts[i])
            exact, shares = table.loc[(*patch, law)], counts / np.prod(patch)
            chance = exact["presence"].to_numpy()
            error = np.sqrt(exact["variance"].to_numpy() / DRAWS)
            scores.append((shares.mean(axis=0) - exact["ratio"]).to_numpy() / np.maximum(error, 1e-12))
            error = np.sqrt(chance * (1 - chance) / DRAWS)
            scores.append(((counts > 0).mean(axis=0) - chance) / np.maximum(error, 1e-12))
            assert shares.var(axis=0) == pytest.approx(exact["variance"].to_numpy(), rel=0.1, abs=1e-12)
    assert len(scores) == 18
    assert np.abs(scores).max() < 3
