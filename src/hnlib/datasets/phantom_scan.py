"""What a scanner adds to a phantom: texture, noise with correlation, streaks from metal in teeth."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from hnlib.datasets.phantom_anatomy import Float, statistics
from hnlib.datasets.phantom_atlas import ARCH, LOWER_Z_MM, UPPER_Z_MM
from hnlib.datasets.phantom_canvas import Canvas

TEXTURE_MM = 2.6  # Gaussian of the texture: neighbours at 3.9 mm correlate by 0.57, at 2.5 mm by 0.79
NOISE_MM = (1.0, 1.0, 0.6)  # Gaussian of the noise: on voxels of 2 mm 0.26 in plane, of 3.9 mm 0.00
METAL_HU = 3071.0
CHANCE_OF_METAL = 0.6
MAX_METALS = 3


def correlated(rng: np.random.Generator, shape: tuple[int, ...], width_mm: object, spacing_mm: object) -> Float:
    """Return Gaussian noise of SD 1, smoothed by a Gaussian of stated width along each axis."""
    white = rng.standard_normal(shape, np.float32)
    smooth = ndimage.gaussian_filter(white, np.asarray(width_mm) / np.asarray(spacing_mm), mode="wrap")
    return np.asarray(smooth / smooth.std(), np.float32)


def add_texture_and_noise(canvas: Canvas, rng: np.random.Generator) -> Float:
    """Return the CT numbers with the texture of each tissue and the noise of the scan.

    The SD of the noise is the one measured between neighbours inside real brainstems; over cases it varies by
    a factor of about 1.4.
    """
    hu = canvas.hu + canvas.grain * correlated(rng, canvas.hu.shape, TEXTURE_MM, canvas.spacing_mm)
    noise_hu = statistics()["ct"]["organs"]["brainstem"]["core_step_hu"] * np.exp(0.35 * rng.normal(size=1).clip(-2, 2))
    return np.asarray(hu + np.float32(noise_hu[0]) * correlated(rng, hu.shape, NOISE_MM, canvas.spacing_mm), np.float32)


def add_streaks(canvas: Canvas, hu: Float, rng: np.random.Generator) -> Float:
    """Return the CT numbers with metal in up to three teeth of some cases: bright rays, dark bands between metals."""
    if rng.uniform() > CHANCE_OF_METAL:
        return hu
    places = []
    for _ in range(int(rng.integers(1, MAX_METALS + 1))):
        x, y = ARCH[int(rng.integers(len(ARCH)))]
        z = UPPER_Z_MM if rng.uniform() < 0.5 else LOWER_Z_MM
        far = sum((p - np.float32(c)) ** 2 for p, c in zip(canvas.atlas, (x, y, z), strict=True))
        places.append(np.unravel_index(int(np.argmin(far)), hu.shape))
    x_mm, y_mm = np.ix_(*(np.arange(hu.shape[k], dtype=np.float32) * canvas.spacing_mm[k] for k in (0, 1)))
    hu = hu.copy()
    for number, place in enumerate(places):
        dx, dy = x_mm - place[0] * canvas.spacing_mm[0], y_mm - place[1] * canvas.spacing_mm[1]
        radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
        rays = sum(
            rng.normal() * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
            for k in rng.choice(np.arange(3, 26), 9, replace=False)
        )
        star = 45 * rays * np.exp(-radius / 45) * np.minimum(radius / 6, 1)
        for other in places[:number]:
            star = star + _band(x_mm, y_mm, place, other, canvas.spacing_mm)
        for k in range(hu.shape[2]):
            fade = np.exp(-0.5 * ((k - place[2]) * canvas.spacing_mm[2] / 3.0) ** 2)
            if fade > 0.02:
                metal = np.clip((3.0 - np.hypot(radius, (k - place[2]) * canvas.spacing_mm[2])) / 2.0 + 0.5, 0, 1)
                layer = hu[:, :, k] + np.float32(fade) * star
                hu[:, :, k] = layer + metal * (METAL_HU - layer)
    return np.asarray(hu, np.float32)


def _band(x_mm: Float, y_mm: Float, a: object, b: object, spacing_mm: object) -> Float:
    """Return the dark band on the line through two metals of about one height."""
    first, second = (np.asarray(p, float) * np.asarray(spacing_mm) for p in (a, b))
    along = second - first
    length = float(np.hypot(along[0], along[1]))
    if length < 8 or abs(along[2]) > 6:
        return np.zeros(1, np.float32)
    off = ((x_mm - first[0]) * along[1] - (y_mm - first[1]) * along[0]) / length
    at = ((x_mm - first[0]) * along[0] + (y_mm - first[1]) * along[1]) / length**2
    near = np.exp(-np.maximum(np.maximum(-at, at - 1), 0) * length / 30)
    return np.asarray(-220 * np.exp(-0.5 * (off / 3.0) ** 2) * near, np.float32)
