"""One point a patient and organ, in a page: choosing one point shows the same patient in every other organ."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from hnlib.organs import organ
from hnlib.plotting.interactive import page_of
from hnlib.plotting.style import FAINT, INK, in_order, make_axes, spread

CHOSEN = "#D55E00"
#: What the page does: a click, or the menu for those who use keys, names a patient; its points are joined, and a
#: picture of that outline, or of the patient's worst one, is scrolled to where the page has one.
_REACT = """
  const facts = FACTS, last = plot.data.length - 1;
  const show = (name, chosen) => {
    const points = facts[name] || [], picture = chosen || (points.find(point => point[2]) || [])[2];
    Plotly.restyle(plot, {x: [points.map(p => p[0])], y: [points.map(p => p[1])]}, [last]);
    menu.value = name;
    plot.dataset.chosen = name;
    const place = picture && document.getElementById(picture);
    if (place) place.scrollIntoView({behavior: 'smooth', block: 'center'});
  };
  menu.addEventListener('change', () => show(menu.value));
  plot.on('plotly_click', event => show(...event.points[0].customdata));
"""


def linked_points(table: pd.DataFrame, label: str, name: str) -> Any:
    """Return points to explore in a browser, one row an organ; a patient that is chosen stands out in all rows.

    Parameters
    ----------
    table
        Columns ``organ``, ``case``, ``value``, ``text`` (what the pointer shows) and, where a page has pictures of
        single outlines, ``picture``: identity of the picture in the page, or ''.
    label
        What the values are.
    name
        Identity of the figure in its page.

    Returns
    -------
    IPython.display.HTML
        For a page that loads plotly's script, as the pages of the book do.

    Raises
    ------
    ValueError
        When there is no point.
    """
    from plotly import graph_objects

    parts = _placed(table)
    organs = list(parts)
    figure = graph_objects.Figure()
    for found, rows in parts.items():
        figure.add_scatter(
            x=rows["value"].tolist(),
            y=rows["place"].tolist(),
            mode="markers",
            marker={"color": organ(found).colour, "size": 7, "line": {"color": "white", "width": 0.5}},
            customdata=rows[["case", "picture"]].astype(str).to_numpy().tolist(),
            text=rows["text"].tolist(),
            hovertemplate="%{text}<extra></extra>",
        )
    figure.add_scatter(x=[], y=[], mode="lines+markers", line={"color": CHOSEN, "width": 1.5}, hoverinfo="skip")
    ticks = [organ(found).title for found in organs]
    figure.update_yaxes(
        tickvals=list(range(len(organs))),
        ticktext=ticks,
        range=[len(organs) - 0.5, -0.5],
        gridcolor=FAINT,
        zeroline=False,
    )
    figure.update_xaxes(title_text=label, gridcolor=FAINT, zerolinecolor=INK)
    figure.update_layout(
        height=144 + 42 * len(organs),
        showlegend=False,
        margin={"l": 110, "r": 10, "t": 34, "b": 50},
        plot_bgcolor="white",
        font={"size": 12},
    )
    ordered = pd.concat(parts.values()).sort_values(["case", "place"])
    facts = {
        str(case): rows[["value", "place", "picture"]].to_numpy().tolist() for case, rows in ordered.groupby("case")
    }
    words = f"{label}, a point a case, by organ: {', '.join(ticks)}. A case that is chosen has its points joined."
    options = {"choose, or click on a point": "", **{case: case for case in facts}}
    return page_of(figure, name, words, "Patient", options, _REACT.replace("FACTS", json.dumps(facts)))


def organ_points(table: pd.DataFrame, label: str, ax: Axes | None = None) -> Axes:
    """Draw the points of `linked_points` for print, one row an organ."""
    parts = _placed(table)
    ax = make_axes(ax, 0.6 + 0.3 * len(parts))
    for found, rows in parts.items():
        look = organ(found)
        ax.plot(rows["value"], rows["place"], look.marker, color=look.colour, alpha=0.6, ms=3, mew=0)
    ax.set_yticks(range(len(parts)), [organ(found).title for found in parts])
    ax.set_ylim(len(parts) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(label)
    ax.grid(axis="x")
    return ax


def _placed(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the points by organ, each with its place across the row of the organ.

    Raises
    ------
    ValueError
        When there is no point.
    """
    used = table.dropna(subset="value")
    if used.empty:
        raise ValueError("no value is left to draw")
    pictures = used["picture"] if "picture" in used else pd.Series("", used.index)
    used = used.assign(value=used["value"].round(4), picture=pictures.fillna(""))
    parts = {found: used[used["organ"] == found] for found in in_order(used["organ"].unique())}
    return {
        found: rows.assign(place=i + spread(len(rows), 0.5).round(3)) for i, (found, rows) in enumerate(parts.items())
    }
