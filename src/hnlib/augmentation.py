"""Random changes of training patches: rotation and scaling in mm, and nnU-Net's changes of intensity.

A rotated or scaled patch is read from the whole scan in one resampling about the patch's middle voxel, so
that no corner is empty inside the scan and the voxel drawn as the centre stays where it was. A flip is not
here: left and right are different organs, so the stream of patches flips image and labels together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from torch.nn.functional import grid_sample, interpolate

from hnlib.errors import unknown

Image = NDArray[np.float32]
Labels = NDArray[np.integer]
Range = tuple[float, float]


@dataclass(frozen=True)
class Effect:
    """One random change: its probability, and the range of the number that is drawn for it.

    Attributes
    ----------
    probability
        0..1.
    low, high
        Ends of the uniform distribution.
    halves
        True: half of the draws fall below 1 and half above, each uniformly.

    Raises
    ------
    ValueError
        When the probability or the range is impossible.
    """

    probability: float = 0.0
    low: float = 0.0
    high: float = 0.0
    halves: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1 or self.low > self.high:
            raise ValueError(f"{self}; a probability in 0..1 and low <= high are needed")

    def draw(self, rng: np.random.Generator) -> float | None:
        """Return the number drawn, or None where the change does not happen."""
        if rng.random() >= self.probability:
            return None
        low, high = self.low, self.high
        if self.halves:
            low, high = (low, 1.0) if rng.random() < 0.5 else (1.0, high)
        return float(rng.uniform(low, high))


@dataclass(frozen=True)
class Augmentation:
    """What is changed, how often and how far; by default nothing.

    Attributes
    ----------
    rotation
        Probability of a rotation.
    max_degrees
        Largest angle about X, Y, Z; the three are drawn independently.
    scaling
        Probability of a scaling.
    scale_ranges
        Range of the factor along X, Y, Z. It multiplies coordinates: above 1 the anatomy shrinks.
    same_scale
        Whether one draw sets the factor of all three axes.
    joint
        Whether rotation and scaling happen together or not at all.
    in_voxels
        Whether voxels are treated as cubes, as nnU-Net and the paper's code do.
    noise
        Standard deviation, in units of the normalised image.
    blur
        Standard deviation of the Gaussian in voxels, drawn for each axis.
    brightness
        Factor on all values.
    contrast
        Factor on the distance from the mean; values stay within those of the patch.
    low_resolution
        Voxels kept along each axis, as a fraction, before enlarging again.
    inverted_gamma, gamma
        Exponent on the values brought to 0..1; the inverted one acts on the negative image.
    retain_statistics
        Whether mean and standard deviation are restored after gamma.
    """

    rotation: float = 0.0
    max_degrees: tuple[float, float, float] = (30.0, 30.0, 30.0)
    scaling: float = 0.0
    scale_ranges: tuple[Range, Range, Range] = ((0.7, 1.4), (0.7, 1.4), (0.7, 1.4))
    same_scale: bool = True
    joint: bool = False
    in_voxels: bool = False
    noise: Effect = Effect()
    blur: Effect = Effect()
    brightness: Effect = Effect()
    contrast: Effect = Effect()
    low_resolution: Effect = Effect()
    inverted_gamma: Effect = Effect()
    gamma: Effect = Effect()
    retain_statistics: bool = True


AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {
        "none": Augmentation(),
        "nnunet": Augmentation(
            rotation=0.2,
            scaling=0.2,
            noise=Effect(0.1, 0.0, 0.1),
            blur=Effect(0.1, 0.5, 1.0),
            brightness=Effect(0.15, 0.75, 1.25, halves=True),
            contrast=Effect(0.15, 0.75, 1.25, halves=True),
            low_resolution=Effect(0.125, 0.5, 1.0),
            inverted_gamma=Effect(0.1, 0.7, 1.5, halves=True),
            gamma=Effect(0.3, 0.7, 1.5, halves=True),
        ),
        "paper": Augmentation(
            rotation=0.2,
            max_degrees=(180.0, 30.0, 30.0),
            scaling=0.2,
            scale_ranges=((0.7, 1.3), (0.6, 1.4), (1.0, 1.0)),
            same_scale=False,
            joint=True,
            in_voxels=True,
            gamma=Effect(0.3, 0.7, 1.5),
            retain_statistics=False,
        ),
    }
)
"""Presets by name.

``nnunet`` is nnU-Net v2's default (``nnUNetTrainer.get_training_transforms``; Isensee et al. 2021) for one
channel: its 0.2 x 0.5 for blur and 0.25 x 0.5 for low resolution are one probability here, and the number
it calls the variance of the noise is a standard deviation, as in its code. Deviations: angles are in mm,
the patch is read from the scan and not from a margin around it, and nothing is mirrored here.
``paper`` is the released code of Tappeiner et al. 2022, with its rotation by up to 180 degrees about X (in
nnU-Net that angle belongs to the axis of the slices), in voxels; what its code fills with zeros outside a
crop of 1.4 patches is read from the scan.
"""


def augmentation(name: str) -> Augmentation:
    """Return the preset of that name.

    Raises
    ------
    ConfigError
        When the name is unknown.
    """
    if name not in AUGMENTATIONS:
        raise unknown("augmentation", name, AUGMENTATIONS)
    return AUGMENTATIONS[name]


def draw_matrix(
    rng: np.random.Generator, settings: Augmentation, spacing_mm: Sequence[float]
) -> NDArray[np.float64] | None:
    """Draw a rotation and scaling.

    Parameters
    ----------
    spacing_mm
        Voxel edges along X, Y, Z: a rotation keeps distances in mm, not in voxels.

    Returns
    -------
    ndarray or None
        The matrix (3, 3) that takes an offset in the patch to one in the scan, both in voxels from the
        patch's middle; None where neither rotation nor scaling happens.
    """
    first, second = rng.random(2)
    turned, scaled = first < settings.rotation, (first if settings.joint else second) < settings.scaling
    if not turned and not scaled:
        return None
    matrix = np.eye(3)
    if turned:
        limits = np.asarray(settings.max_degrees)
        matrix = Rotation.from_euler("xyz", rng.uniform(-limits, limits), degrees=True).as_matrix()
    if scaled:
        low, high = np.asarray(settings.scale_ranges).T
        matrix = matrix * (low + rng.random(1 if settings.same_scale else 3) * (high - low))
    edges = np.ones(3) if settings.in_voxels else np.asarray(spacing_mm, np.float64)
    return np.asarray(matrix * edges / edges[:, None])


def spatial_patch(
    image: Image,
    labels: Labels,
    start: Sequence[int],
    patch_size: Sequence[int],
    matrix: NDArray[np.float64],
    *,
    fill: float,
) -> tuple[Image, Labels]:
    """Read a rotated and scaled patch from a scan.

    Parameters
    ----------
    image, labels
        The whole scan, both of shape (X, Y, Z); only the part that is needed is read.
    start
        First voxel of the patch before it is turned, as from `hnlib.sampling.patch_start`.
    patch_size
        Voxels along X, Y, Z.
    matrix
        From `draw_matrix`.
    fill
        Value of the image outside the scan; labels are background there.

    Returns
    -------
    image, labels
        New arrays of shape ``patch_size``; the voxel at ``patch_size // 2`` is that of the scan at
        ``start + patch_size // 2``. The image is interpolated linearly, labels by the nearest voxel: that
        keeps an organ's volume on average, where the largest linear share eats the edges of the small ones.

    Examples
    --------
    A quarter turn about Z:

    >>> image = np.arange(9, dtype=np.float32).reshape(3, 3, 1)
    >>> turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    >>> turned, _ = spatial_patch(image, np.zeros((3, 3, 1), int), (0, 0, 0), (3, 3, 1), turn, fill=0.0)
    >>> turned[:, :, 0].round(3).tolist()
    [[6.0, 3.0, 0.0], [7.0, 4.0, 1.0], [8.0, 5.0, 2.0]]
    """
    size = np.asarray(patch_size)
    middle = size // 2
    pivot = np.asarray(start) + middle
    corners = np.array(list(product(*zip(-middle, size - 1 - middle, strict=True)))) @ matrix.T + pivot
    low = np.clip(np.floor(corners.min(axis=0)).astype(int) - 1, 0, np.array(image.shape) - 1)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 2, low + 1, image.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = _grid(np.array(high - low), size, middle, matrix, pivot - low)
    turned = _sample(np.asarray(image[box], np.float32) - np.float32(fill), grid, "bilinear") + np.float32(fill)
    classes = _sample(np.asarray(labels[box], np.float32), grid, "nearest")
    return turned, classes.astype(labels.dtype)


def _grid(
    shape: NDArray[np.integer],
    size: NDArray[np.integer],
    middle: NDArray[np.integer],
    matrix: NDArray[np.float64],
    pivot: NDArray[np.integer],
) -> torch.Tensor:
    """Return where each voxel of the patch lies in a volume of `shape`, as torch counts.

    That is from -1 to 1 between the outer edges of the volume, last axis first.
    """
    scaled = 2 / shape[:, None] * matrix
    origin = (2 * pivot + 1) / shape - 1
    grid = torch.zeros((*size, 3), dtype=torch.float32)
    for axis in range(3):
        steps = np.arange(-middle[axis], size[axis] - middle[axis])[:, None] * scaled[:, axis]
        place = [1, 1, 1, 3]
        place[axis] = int(size[axis])
        grid += torch.from_numpy(steps + origin * (axis == 0)).float().flip(1).view(place)
    return grid


def _sample(volume: Image, grid: torch.Tensor, mode: str) -> Image:
    """Return a volume at the places of a grid, zero outside."""
    found = grid_sample(torch.from_numpy(volume)[None, None], grid[None], mode=mode, align_corners=False)
    sampled: Image = found[0, 0].numpy()
    return sampled


def change_intensity(image: Image, rng: np.random.Generator, settings: Augmentation) -> Image:
    """Return the image of a patch (X, Y, Z) with noise, blur, brightness, contrast, resolution and gamma changed.

    The order is nnU-Net's. The input is not written to; where nothing is drawn it is returned as it is.

    Notes
    -----
    Gamma: :math:`((x - m) / r)^g r + m` with m the smallest value of the patch and r its range.
    """
    if (sd := settings.noise.draw(rng)) is not None:
        image = image + np.float32(sd) * rng.standard_normal(image.shape, dtype=np.float32)
    if settings.blur.draw(rng) is not None:
        sds = rng.uniform(settings.blur.low, settings.blur.high, 3)
        image = gaussian_filter(image, sds, mode="mirror", truncate=3.0)
    if (factor := settings.brightness.draw(rng)) is not None:
        image = image * np.float32(factor)
    if (factor := settings.contrast.draw(rng)) is not None:
        mean = image.mean(dtype=np.float64)
        image = np.clip((image - mean) * factor + mean, image.min(), image.max()).astype(np.float32)
    if (kept := settings.low_resolution.draw(rng)) is not None:
        image = _low_resolution(image, kept)
    if (power := settings.inverted_gamma.draw(rng)) is not None:
        image = -_gamma(-image, power, settings.retain_statistics)
    if (power := settings.gamma.draw(rng)) is not None:
        image = _gamma(image, power, settings.retain_statistics)
    return image


def _low_resolution(image: Image, kept: float) -> Image:
    small = [max(1, round(n * kept)) for n in image.shape]
    coarse = interpolate(torch.from_numpy(np.ascontiguousarray(image))[None, None], small, mode="nearest-exact")
    enlarged: Image = interpolate(coarse, image.shape, mode="trilinear")[0, 0].numpy()
    return enlarged


def _gamma(image: Image, power: float, retain_statistics: bool) -> Image:
    low, extent = image.min(), np.ptp(image)
    if extent < 1e-7:
        return image
    changed = ((image - low) / extent) ** np.float32(power) * extent + low
    if retain_statistics:
        mean, sd = image.mean(dtype=np.float64), image.std(dtype=np.float64)
        new_mean, new_sd = changed.mean(dtype=np.float64), changed.std(dtype=np.float64)
        changed = (changed - new_mean) * (sd / max(new_sd, 1e-7)) + mean
    return np.asarray(changed, np.float32)
