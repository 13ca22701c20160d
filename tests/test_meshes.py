"""Errors on surfaces: worked on boxes, whose faces and distances are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hnlib import chapters, plotting
from hnlib.meshes import surface_error

PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "published"


def box(x: slice, y: slice = slice(4, 12), z: slice = slice(4, 12)) -> np.ndarray:
    mask = np.zeros((20, 16, 16), bool)
    mask[x, y, z] = True
    return mask


def as_mesh(reference: np.ndarray, prediction: np.ndarray, spacing=(1.0, 1.0, 1.0)) -> dict:
    found = surface_error(reference, prediction, spacing)
    return {"vertices_mm": found.vertices_mm, "faces": found.faces, "error_mm": found.error_mm}


def test_equal_masks_have_no_error_and_a_closed_surface() -> None:
    """Box of 8 x 8 x 8 voxels of 2 x 1 x 3 mm from voxel 4: faces at 8 and 24, 4 and 12, 12 and 36 mm."""
    found = surface_error(box(slice(4, 12)), box(slice(4, 12)), (2.0, 1.0, 3.0))
    assert np.abs(found.error_mm).max() < 1e-6
    np.testing.assert_allclose(found.vertices_mm.min(axis=0), [8, 4, 12])
    np.testing.assert_allclose(found.vertices_mm.max(axis=0), [24, 12, 36])
    edges = np.sort(found.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()  # every edge has two triangles


@pytest.mark.parametrize(("stop", "error"), [(14, 4.0), (10, -4.0)])
def test_error_is_positive_where_the_prediction_reaches_further(stop: int, error: float) -> None:
    """Two voxels of 2 mm more, or fewer, at the far X face; nothing at the near one."""
    found = surface_error(box(slice(4, 12)), box(slice(4, stop)), (2.0, 3.0, 3.0))
    x, y, z = found.vertices_mm.T
    middle = (abs(y - 24) < 6) & (abs(z - 24) < 6)  # nearer to these faces than to others
    np.testing.assert_allclose(found.error_mm[middle & (x > 20)], error)
    np.testing.assert_allclose(found.error_mm[middle & (x < 12)], 0.0, atol=1e-6)


def test_an_organ_at_the_border_of_the_scan_is_closed_and_in_place() -> None:
    found = surface_error(box(slice(0, 4)), box(slice(0, 4)), (1.0, 1.0, 1.0))
    np.testing.assert_allclose(found.vertices_mm[:, 0].min(), 0.0)
    np.testing.assert_allclose(found.vertices_mm[:, 0].max(), 4.0)


def test_a_large_mesh_is_made_coarser() -> None:
    whole = surface_error(box(slice(2, 18)), box(slice(2, 18)), (1.0, 1.0, 1.0))
    few = surface_error(box(slice(2, 18)), box(slice(2, 18)), (1.0, 1.0, 1.0), max_vertices=300)
    assert len(whole.vertices_mm) > 300 >= len(few.vertices_mm) > 0


def test_a_missed_organ_has_no_error_and_an_empty_reference_no_surface() -> None:
    empty = np.zeros((20, 16, 16), bool)
    assert np.isnan(surface_error(box(slice(4, 12)), empty, (1.0, 1.0, 1.0)).error_mm).all()
    with pytest.raises(ValueError, match="reference is empty"):
        surface_error(empty, box(slice(4, 12)), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="one grid is needed"):
        surface_error(empty, empty[1:], (1.0, 1.0, 1.0))


def test_every_organ_can_be_turned_and_is_drawn_for_print() -> None:
    """The interactive view holds points and errors as they are; a missed organ is grey in both."""
    missed = as_mesh(box(slice(4, 8)), np.zeros((20, 16, 16), bool))
    meshes = {"mandible": as_mesh(box(slice(4, 12)), box(slice(4, 14))), "optic_chiasm": missed}
    figure = plotting.surface_explorer(meshes)
    mandible, chiasm = figure.data
    np.testing.assert_allclose(mandible.intensity, meshes["mandible"]["error_mm"])
    np.testing.assert_allclose(mandible.x, meshes["mandible"]["vertices_mm"][:, 0])
    assert chiasm.intensity is None
    assert "missed" in chiasm.hovertemplate
    assert list(figure.layout.meta["choices"]) == ["all organs", "Mandible", "Optic chiasm"]
    assert figure.layout.meta["choices"]["Mandible"] == {"visible": [True, False]}
    still = plotting.surface_views(meshes)
    counts = [sum(len(part.get_facecolor()) for part in ax.collections) for ax in still.axes[:2]]
    assert counts == [sum(len(mesh["faces"]) for mesh in meshes.values())] * 2


@pytest.mark.parametrize("dataset", ["openkbp", "phantom"])
def test_published_surfaces_are_small_and_hold_no_scan(dataset: str) -> None:
    """Points, triangles and errors of organs, from the corner of the organs' box; below 200 kB."""
    path = PUBLISHED / dataset / "pictures" / "surfaces.json"
    assert path.stat().st_size < 200_000
    content = json.loads(path.read_text())
    assert set(content) == {"attribution", "case", "experiment", "meshes", "organs", "rule", "seed"}
    meshes = chapters.data.surface_errors(PUBLISHED / dataset)
    assert list(meshes) == content["organs"]
    points = np.concatenate([mesh["vertices_mm"] for mesh in meshes.values()])
    np.testing.assert_allclose(points.min(axis=0), 0.0)
    assert all(set(mesh) == {"vertices_mm", "faces", "error_mm"} for mesh in meshes.values())
