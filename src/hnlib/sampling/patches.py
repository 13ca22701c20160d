"""Where a patch lies and how it is cut: the one clamping rule, and padding where a volume is short.

Arrays have axes (X, Y, Z). A patch smaller than the volume always lies inside it; along an axis on
which the volume is the shorter one, both sides are padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Triple = tuple[int, int, int]
Scalar = TypeVar("Scalar", bound=np.generic)


def as_triple(name: str, values: Sequence[int]) -> Triple:
    """Return three positive whole numbers, or say what came instead.

    Raises
    ------
    ValueError
        When ``values`` are not three whole numbers of at least 1.
    """
    try:
        triple = tuple(int(value) for value in values)
        whole = triple == tuple(values)
    except (TypeError, ValueError):
        triple, whole = (), False
    if not whole or len(triple) != 3 or min(triple) < 1:
        raise ValueError(f"{name} is {values!r}; three whole numbers of at least 1 are needed")
    return triple[0], triple[1], triple[2]


def axis_start(centre: int, length: int, width: int) -> int:
    """Return the first index of a patch along one axis: the clamping rule of the library.

    Parameters
    ----------
    centre
        Index of the wished centre.
    length, width
        Voxels of the volume and of the patch along this axis.

    Returns
    -------
    int
        ``clip(centre - width // 2, 0, length - width)``; negative, for padding on both sides,
        where the patch is the longer one.

    Examples
    --------
    >>> [axis_start(centre, length=6, width=4) for centre in range(6)]
    [0, 0, 0, 1, 2, 2]
    >>> axis_start(0, length=3, width=6)
    -1
    """
    if length < width:
        return -((width - length) // 2)
    return min(max(centre - width // 2, 0), length - width)


def patch_start(centre: Sequence[int], shape: Sequence[int], patch_size: Sequence[int]) -> Triple:
    """Return the first voxel of the patch around a centre, clamped into the volume.

    Parameters
    ----------
    centre
        Voxel index (x, y, z).
    shape
        Shape of the volume.
    patch_size
        Voxels of the patch along X, Y, Z, each at least 1.

    Returns
    -------
    tuple of int
        Start of the patch; negative along axes on which the patch is longer than the volume.

    Raises
    ------
    ValueError
        When a patch size is zero or negative.

    Examples
    --------
    >>> patch_start((9, 0, 2), shape=(10, 10, 3), patch_size=(4, 4, 5))
    (6, 0, -1)
    """
    width = as_triple("patch_size", patch_size)
    return (
        axis_start(int(centre[0]), int(shape[0]), width[0]),
        axis_start(int(centre[1]), int(shape[1]), width[1]),
        axis_start(int(centre[2]), int(shape[2]), width[2]),
    )


def extract(
    array: NDArray[Scalar], start: Sequence[int], patch_size: Sequence[int], pad_value: float
) -> NDArray[Scalar]:
    """Cut a patch out of an array, padding where it reaches outside.

    Parameters
    ----------
    array
        Shape (..., X, Y, Z); leading axes, such as channels, are kept whole.
    start
        First voxel, as from `patch_start`; may be negative.
    patch_size
        Voxels along X, Y, Z.
    pad_value
        Value of voxels outside the array.

    Returns
    -------
    ndarray
        A new array of shape (..., ``patch_size``) and the type of ``array``.

    Raises
    ------
    ValueError
        When a patch size is zero or negative, or the array has fewer than three axes.

    Examples
    --------
    >>> extract(np.ones((1, 1, 2)), (0, 0, -1), (1, 1, 4), pad_value=-7.0).ravel().tolist()
    [-7.0, 1.0, 1.0, -7.0]
    """
    width = as_triple("patch_size", patch_size)
    if array.ndim < 3:
        raise ValueError(f"array has shape {array.shape}; at least three axes (X, Y, Z) are needed")
    source, goal = [], []
    for first, wide, length in zip(start, width, array.shape[-3:], strict=True):
        low, high = max(int(first), 0), min(int(first) + wide, length)
        high = max(low, high)
        source.append(slice(low, high))
        goal.append(slice(low - int(first), high - int(first)))
    inside = array[..., source[0], source[1], source[2]]
    if inside.shape[-3:] == width:
        return inside.copy()
    patch = np.full((*array.shape[:-3], *width), pad_value, dtype=array.dtype)
    if inside.size:
        patch[..., goal[0], goal[1], goal[2]] = inside
    return patch


def start_tables(shape: Triple, patch_size: Triple) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return, for each axis, the number of the start position to which every centre is clamped.

    Start positions are counted from the lowest one, so an axis of length n and a patch of width
    w <= n give numbers 0 .. n - w, and a longer patch gives only number 0.
    """
    x, y, z = (axis_starts(n, w) for n, w in zip(shape, patch_size, strict=True))
    return x, y, z


def axis_starts(length: int, width: int) -> NDArray[np.intp]:
    """Return `axis_start` of every centre of an axis, counted from the lowest; it never decreases.

    Examples
    --------
    >>> axis_starts(6, 4).tolist(), axis_starts(3, 6).tolist()
    ([0, 0, 0, 1, 2, 2], [0, 0, 0])
    """
    lowest = axis_start(0, length, width)
    return np.array([axis_start(c, length, width) - lowest for c in range(length)], dtype=np.intp)
