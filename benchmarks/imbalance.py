"""Class ratios in patches of one scan: our exact landscape, MONAI's crops counted, and a sampler on cumulative sums.

All follow the rule of Tappeiner et al. 2022: a third of the centres in organs, the others in bone and table. A
sampler is given the draws that bring the standard error of sigma to 1e-5, the last digit that the paper prints;
how many those are is measured beforehand and costs it nothing.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.process import Found, now

Triple = tuple[int, int, int]
Floats = NDArray[np.float64]
#: Standard error of sigma that a sampler is to reach.
PRECISION = {"full": 1e-5, "tiny": 1e-3}
GATE_HU = 324.7904
ONE: dict[str, Triple] = {"full": (96, 80, 48), "tiny": (16, 16, 8)}
#: Widths of the grid along X, Y, Z: first, last, number.
GRID = {"full": ((16, 256, 16), (16, 256, 16), (8, 128, 16)), "tiny": ((8, 16, 2), (8, 16, 2), (4, 8, 2))}
#: The phantom's voxels and the frame in which it lies: a scan of 512 x 512 x 150 voxels.
FRAME: dict[str, tuple[tuple[float, float, float], Triple]] = {
    "full": ((0.98, 0.98, 2.5), (512, 512, 150)),
    "tiny": ((6.0, 6.0, 6.0), (64, 64, 64)),
}
#: Sizes of the grid on which samplers are timed, and crops for each of them.
TIMED, CROPS, PILOT = 16, 60, 20_000


def make_scan(folder: str, size: str) -> Found:
    """Write a phantom's labels and CT in the middle of a full frame."""
    from hnlib.datasets.phantom import PhantomDataset

    spacing, frame = FRAME[size]
    case = PhantomDataset({"train": 1}, spacing_mm=spacing).load("phantom_000")
    labels, image = np.zeros(frame, np.uint8), np.full(frame, -1000, np.int16)
    first = [(n - m) // 2 for n, m in zip(frame, case.labels.shape, strict=True)]
    where = tuple(slice(f, f + m) for f, m in zip(first, case.labels.shape, strict=True))
    labels[where], image[where] = case.labels, case.image_hu.astype(np.int16)
    np.savez(Path(folder) / "scan.npz", labels=labels, image=image)
    return {"organs": list(case.organs)}


def grid_sizes(size: str) -> list[Triple]:
    """Return the sizes of the grid."""
    x, y, z = (np.linspace(*span).astype(int).tolist() for span in GRID[size])
    return [(i, j, k) for i in x for j in y for k in z]


def exact(folder: str, size: str, grid: bool) -> Found:
    """Time our landscape of one size or of the grid, from arrays in memory to the table."""
    from hnlib.imbalance import Scan, landscape
    from hnlib.sampling import RULES

    labels, image = _read(folder)
    organs = tuple(f"organ{i}" for i in range(1, int(labels.max()) + 1))
    scan = Scan("case", labels, organs, frozenset(organs), image)
    sizes = grid_sizes(size) if grid else [ONE[size]]
    began = now()
    table = landscape([scan], sizes, {"paper": RULES["paper"]})
    seconds = now() - began
    shares = table["ratio"].to_numpy().reshape(len(sizes), -1)
    np.savez(Path(folder) / f"exact_{grid}.npz", sizes=sizes, sigma=shares.std(axis=1))
    return {"seconds": seconds}


def monai(folder: str, size: str, grid: bool) -> Found:
    """Time crops by RandCropByPosNegLabel whose labels are counted, and take as many as the precision needs."""
    import torch
    from monai.transforms import RandCropByPosNegLabel

    torch.set_num_threads(1)  # a crop is a copy
    labels, image = _read(folder)
    volume = torch.from_numpy(labels)[None]
    inside, outside = _centres(labels, image)
    counter, classes = _Counter(labels), int(labels.max()) + 1
    seconds, needed = [], []
    for patch in _timed(size) if grid else [ONE[size]]:
        cropper = RandCropByPosNegLabel(spatial_size=patch, pos=1, neg=2, num_samples=CROPS, allow_smaller=True)
        cropper.set_random_state(0)
        began = time.perf_counter()
        crops = cropper(volume, label=volume, fg_indices=inside, bg_indices=outside)
        for crop in crops:
            np.bincount(np.asarray(crop).reshape(-1), minlength=classes)
        each = (time.perf_counter() - began) / CROPS
        variance, _ = _variances(counter, patch, inside, outside)
        needed.append(variance / PRECISION[size] ** 2)
        seconds.append(needed[-1] * each)
    number = len(grid_sizes(size)) if grid else 1
    note = f"extrapolated from {CROPS} crops of each of {len(seconds)} sizes to {np.mean(needed):.0f} crops a size"
    return {"seconds": float(np.mean(seconds)) * number, "note": note}


def prefix_sums(folder: str, size: str) -> Found:
    """Time the best sampler that we can write on the grid: fixed shares of both kinds of centres, drawn once.

    Counts are read from cumulative sums over the organs' box, all classes in one place.
    """
    labels, image = _read(folder)
    inside, outside = _centres(labels, image)
    known, timed = np.load(Path(folder) / "exact_True.npz"), _timed(size)
    counter = _Counter(labels)
    numbers = [int(np.ceil(_variances(counter, patch, inside, outside)[1] / PRECISION[size] ** 2)) for patch in timed]
    began = time.perf_counter()
    counter = _Counter(labels)
    rng = np.random.default_rng(0)
    most = max(numbers)
    pools = [_draw(rng, pool, labels.shape, int(np.ceil(most * f))) for pool, f in ((inside, 1 / 3), (outside, 2 / 3))]
    fixed = time.perf_counter() - began
    worst = 0.0
    exact_sigma = {tuple(p): s for p, s in zip(known["sizes"].tolist(), known["sigma"].tolist(), strict=True)}
    began = time.perf_counter()
    for patch, number in zip(timed, numbers, strict=True):
        means = [
            counter.shares(pool[: max(1, round(number * f))], patch).mean(axis=0)
            for pool, f in zip(pools, (1 / 3, 2 / 3), strict=True)
        ]
        sigma = float(np.std(means[0] / 3 + means[1] * 2 / 3))
        worst = max(worst, abs(sigma - exact_sigma[patch]))
    loop = time.perf_counter() - began
    note = (
        f"extrapolated from {len(timed)} sizes, {np.mean(numbers):.0f} draws each; "
        f"its sigma differs from the exact one by at most {worst:.1e}"
    )
    return {"seconds": fixed + loop / len(timed) * len(grid_sizes(size)), "note": note}


def _read(folder: str) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    with np.load(Path(folder) / "scan.npz") as stored:
        return stored["labels"], stored["image"].astype(np.float32)


def _centres(labels: NDArray[np.uint8], image: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the flat indices of organs, and of the background above the gate."""
    flat = labels.reshape(-1)
    return np.flatnonzero(flat), np.flatnonzero((flat == 0) & (image.reshape(-1) > GATE_HU))


def _timed(size: str) -> list[Triple]:
    """Return sizes spread at random over the grid, always the same."""
    sizes = grid_sizes(size)
    chosen = np.random.default_rng(0).permutation(len(sizes))[:TIMED]
    return [sizes[i] for i in chosen.tolist()]


def _draw(rng: np.random.Generator, pool: NDArray[np.intp], shape: tuple[int, ...], number: int) -> NDArray[np.intp]:
    return np.stack(np.unravel_index(pool[rng.integers(len(pool), size=number)], shape), axis=1)


class _Counter:
    """Class shares of patches around centres, by eight look-ups in cumulative sums."""

    def __init__(self, labels: NDArray[np.uint8]) -> None:
        self._shape = np.array(labels.shape)
        found = np.argwhere(labels)
        self._first, self._last = found.min(axis=0), found.max(axis=0) + 1
        box = labels[tuple(slice(a, b) for a, b in zip(self._first, self._last, strict=True))]
        classes = int(labels.max()) + 1
        total = np.zeros((*(n + 1 for n in box.shape), classes - 1), np.int32)
        total[1:, 1:, 1:] = box[..., None] == np.arange(1, classes)
        for axis in range(3):
            np.cumsum(total, axis=axis, out=total)
        self._total, self._strides = total.reshape(-1, classes - 1), np.array(total.shape[:3])

    def shares(self, centres: NDArray[np.intp], patch: Triple) -> Floats:
        """Return the share of each class in the patch around each centre: (centres, classes)."""
        width = np.array(patch)
        starts = np.clip(centres - width // 2, 0, np.maximum(self._shape - width, 0))
        low = np.clip(starts, self._first, self._last) - self._first
        high = np.clip(starts + width, self._first, self._last) - self._first
        _, ny, nz = self._strides
        ends = [(low[:, 0] * ny, high[:, 0] * ny), (low[:, 1], high[:, 1]), (low[:, 2], high[:, 2])]
        counts: NDArray[Any] = np.zeros((len(centres), self._total.shape[1]), np.int32)
        for x, y, z in np.ndindex(2, 2, 2):
            rows = self._total[(ends[0][x] + ends[1][y]) * nz + ends[2][z]]
            counts += rows if (x + y + z) % 2 else -rows
        organs = counts / np.prod(patch)
        return np.concatenate([1 - organs.sum(axis=1, keepdims=True), organs], axis=1)


def _variances(
    counter: _Counter, patch: Triple, inside: NDArray[np.intp], outside: NDArray[np.intp]
) -> tuple[float, float]:
    """Return the variance that a patch adds to sigma: centres drawn independently, and in fixed shares."""
    rng, shape = np.random.default_rng(1), tuple(counter._shape.tolist())
    parts = [counter.shares(_draw(rng, pool, shape, PILOT), patch) for pool in (inside, outside)]
    weights = (1 / 3, 2 / 3)
    mean = sum(w * part.mean(axis=0) for w, part in zip(weights, parts, strict=True))
    slope = (mean - 1 / len(mean)) / (len(mean) * np.std(mean))  # d sigma / d mean ratio
    values = [part @ slope for part in parts]
    centre = sum(w * v.mean() for w, v in zip(weights, values, strict=True))
    independent = sum(w * np.square(v - centre).mean() for w, v in zip(weights, values, strict=True))
    return float(independent), float(sum(w * v.var() for w, v in zip(weights, values, strict=True)))
