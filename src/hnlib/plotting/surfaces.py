"""Errors on the surfaces of organs: to turn in a browser, and as a still picture for print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from numpy.typing import NDArray

from hnlib.organs import organ
from hnlib.plotting.interactive import with_choices
from hnlib.plotting.style import FULL_WIDTH_IN

Mesh = Mapping[str, Any]
#: Errors beyond this many mm have the same colour.
LIMIT_MM = 8.0
#: Directions of view: name to elevation and azimuth in degrees (from the front, from the patient's left).
VIEWS = {"from the front": (5, 90), "from the left": (5, 180)}


def surface_explorer(meshes: Mapping[str, Mesh]) -> Any:
    """Return a figure to turn in a browser: every organ's reference surface, coloured by the error of the prediction.

    Parameters
    ----------
    meshes
        Organ to ``vertices_mm`` (points, 3), ``faces`` (triangles, 3) and ``error_mm`` (points,), as lists or arrays.
        A missed organ, whose errors are undefined (None or NaN), is grey.

    Returns
    -------
    plotly.graph_objects.Figure
        `hnlib.plotting.interactive` puts it into a page, with a menu that shows one organ or all.
    """
    from plotly import graph_objects

    figure = graph_objects.Figure()
    for name, mesh in meshes.items():
        points, faces, error = _arrays(mesh)
        missed = bool(np.isnan(error).any())
        x, y, z = points.T
        i, j, k = faces.T
        colour = {"color": "#999999"} if missed else {"intensity": error, "coloraxis": "coloraxis"}
        words = f"{organ(name).title}<br>{'missed' if missed else '%{intensity:+z.1f} mm'}<extra></extra>"
        corners = {"x": x, "y": y, "z": z, "i": i, "j": j, "k": k}
        light = {"ambient": 0.6, "diffuse": 0.6, "specular": 0.1}
        figure.add_trace(
            graph_objects.Mesh3d(**corners, **colour, name=organ(name).title, hovertemplate=words, lighting=light)
        )
    figure.update_layout(
        coloraxis={
            **{"colorscale": "RdBu", "reversescale": True, "cmin": -LIMIT_MM, "cmax": LIMIT_MM},
            "colorbar": {"thickness": 12, "title": {"text": "mm"}},
        },
        scene={
            **{f"{axis}axis": {"visible": False} for axis in "xyz"},
            "aspectmode": "data",
            "camera": {"eye": {"x": 0.0, "y": 1.7, "z": 0.2}},
        },
        height=460,
        margin={"l": 0, "r": 0, "t": 10, "b": 0},
    )
    titles = [organ(name).title for name in meshes]
    words = f"Surfaces of {', '.join(titles)} to turn, coloured by how far the prediction lies outside or inside (mm)."
    return with_choices(figure, words, "Shown", _choices(titles))


def _choices(titles: list[str]) -> dict[str, dict[str, list[bool]]]:
    alone = {title: {"visible": [other == title for other in titles]} for title in titles}
    return {"all organs": {"visible": [True] * len(titles)}, **alone}


def surface_views(meshes: Mapping[str, Mesh]) -> Figure:
    """Draw the same surfaces from the front and from the left, for print; see `surface_explorer`."""
    scale = ScalarMappable(Normalize(-LIMIT_MM, LIMIT_MM), colormaps["RdBu_r"])
    fig, axes = plt.subplots(
        1, len(VIEWS), figsize=(FULL_WIDTH_IN, 3.2), subplot_kw={"projection": "3d", "proj_type": "ortho"}
    )
    everything = np.concatenate([_arrays(mesh)[0] for mesh in meshes.values()])
    low, high = everything.min(axis=0), everything.max(axis=0)
    for ax, (title, (elevation, azimuth)) in zip(axes, VIEWS.items(), strict=True):
        for mesh in meshes.values():
            points, faces, error = _arrays(mesh)
            colours = _shaded(points, faces, scale.to_rgba(np.ma.masked_invalid(error[faces].mean(axis=1))))
            ax.add_collection3d(Poly3DCollection(points[faces], facecolors=colours, edgecolors=colours, linewidths=0.2))
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
        ax.set_box_aspect(high - low, zoom=1.25)
        ax.view_init(elevation, azimuth)
        ax.set_axis_off()
        ax.set_title(title, y=-0.05, loc="center")
    fig.colorbar(scale, ax=axes, shrink=0.7, label="prediction outside (+) or\ninside (-) the reference (mm)")
    return fig


def _shaded(points: NDArray[np.float64], faces: NDArray[np.int64], colours: NDArray[Any]) -> NDArray[Any]:
    """Darken faces that look away from a light in front, above and to the left; grey where the error is undefined."""
    first, second, third = (points[faces[:, corner]] for corner in range(3))
    normal = np.cross(second - first, third - first)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    light = np.abs(normal @ (np.array([-0.4, 0.8, 0.45]) / np.linalg.norm([-0.4, 0.8, 0.45])))
    lit = np.asarray(colours, dtype=np.float64).copy()
    lit[lit[:, 3] == 0] = (0.6, 0.6, 0.6, 1.0)
    lit[:, :3] *= (0.65 + 0.35 * light)[:, None]
    return lit


def _arrays(mesh: Mesh) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    points, error = (np.asarray(mesh[name], dtype=np.float64) for name in ("vertices_mm", "error_mm"))
    return points, np.asarray(mesh["faces"], dtype=np.int64), error
