"""The surface of an organ as a small mesh, and how far a prediction strays from it at every point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from hnlib.surfaces import voxel_box

#: Voxels of background around the organ's box, so that its surface closes.
MARGIN = 2


@dataclass(frozen=True)
class SurfaceError:
    """The reference's surface with the signed distance of the prediction's.

    Attributes
    ----------
    vertices_mm
        Points of the reference's surface, shape (points, 3), axes X, Y, Z, from the corner of the scan.
    faces
        Triangles of points, shape (triangles, 3).
    error_mm
        For each point the distance to the prediction's surface: positive where the prediction reaches further out
        than the reference, negative where it falls short. NaN everywhere for a missed organ.
    """

    vertices_mm: NDArray[np.float64]
    faces: NDArray[np.int64]
    error_mm: NDArray[np.float64]


def surface_error(
    reference: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    *,
    max_vertices: int = 1500,
) -> SurfaceError:
    """Return the surface of one organ's reference with the error of a prediction.

    Parameters
    ----------
    reference, prediction
        Masks of one organ on one grid, shape (X, Y, Z).
    spacing_mm
        Voxel edges along X, Y, Z.
    max_vertices
        The mesh is made coarser until it has no more points than this, as far as the organ's size allows.

    Raises
    ------
    ValueError
        When the masks differ in shape or the reference is empty.

    Notes
    -----
    Marching cubes (Lewiner, by scikit-image) on the signed distance to the border of the mask put points midway
    between voxels inside and outside. The error is the distance from a point to the nearest such point of the
    prediction: zero where both have the same voxels, and otherwise right to within the spread of points, less than
    a voxel. Points of a coarser mesh are the nearest ones of the full mesh.
    """
    if reference.shape != prediction.shape:
        raise ValueError(f"reference has shape {reference.shape} and prediction {prediction.shape}; one grid is needed")
    box = voxel_box(reference | prediction)
    if box is None or not reference.any():
        raise ValueError("the reference is empty; an organ that is not there has no surface")
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    cut = tuple(slice(max(0, part.start - MARGIN), part.stop + MARGIN) for part in box)
    start = np.array([part.start for part in cut], dtype=np.float64) - MARGIN
    own, found = (np.pad(mask[cut], MARGIN) for mask in (reference, prediction))
    points, faces = _mesh(_signed_distance(own, spacing), max_vertices)
    error = np.full(len(points), np.nan)
    if found.any():
        field = _signed_distance(found, spacing)
        distance, _ = KDTree(_marching_cubes(field)[0] * spacing).query(points * spacing)
        # Where a point lies outside of the prediction, the prediction falls short there.
        error = -np.sign(ndimage.map_coordinates(field, points.T, order=1)) * distance
    return SurfaceError((points + start + 0.5) * spacing, faces, error)


def _mesh(distance: NDArray[np.float64], max_vertices: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return points in voxels and triangles of the zero surface, on every voxel or on fewer."""
    full = found = _marching_cubes(distance)
    step = 2
    while len(found[0]) > max_vertices and step < min(distance.shape) // 4:
        found, step = _marching_cubes(distance, step), step + 1
    if found is full:
        return full
    return full[0][KDTree(full[0]).query(found[0])[1]], found[1]


def _marching_cubes(distance: NDArray[np.float64], step: int = 1) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from skimage.measure import marching_cubes

    points, faces, _, _ = marching_cubes(distance, 0.0, step_size=step)  # type: ignore[no-untyped-call]
    return np.asarray(points, np.float64), np.asarray(faces, np.int64)


def _signed_distance(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance to the mask's border in mm, negative inside; voxels on both sides are alike."""
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    return np.asarray(outside - inside, dtype=np.float64)
