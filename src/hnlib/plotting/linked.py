"""One point a patient and organ, in a page: choosing one point shows the same patient in every other organ."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

from hnlib.organs import organ
from hnlib.plotting.style import FAINT, INK, in_order, spread

CHOSEN = "#D55E00"
#: What the page does: a click, or the menu for those who use keys, names a patient; its points are joined, and a
#: picture of that outline is scrolled to where the page has one.
_SCRIPT = """
(() => {
  const plot = document.getElementById('{plot_id}'), facts = FACTS;
  const label = document.createElement('label'), menu = document.createElement('select');
  label.textContent = 'Patient: ';
  menu.append(new Option('choose, or click on a point', ''), ...Object.keys(facts).map(name => new Option(name, name)));
  label.append(menu);
  plot.before(label);
  const last = plot.data.length - 1;
  const show = name => {
    const points = facts[name] || [];
    Plotly.restyle(plot, {x: [points.map(p => p[0])], y: [points.map(p => p[1])]}, [last]);
    menu.value = name;
    plot.dataset.chosen = name;
  };
  menu.addEventListener('change', () => show(menu.value));
  plot.on('plotly_click', event => {
    const [name, picture] = event.points[0].customdata;
    show(name);
    const place = picture && document.getElementById(picture);
    if (place) place.scrollIntoView({behavior: 'smooth', block: 'center'});
  });
})();
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
    from IPython.display import HTML
    from plotly import graph_objects

    used = table.dropna(subset="value")
    if used.empty:
        raise ValueError("no value is left to draw")
    organs = in_order(used["organ"].unique())
    pictures = used["picture"] if "picture" in used else pd.Series("", used.index)
    used = used.assign(value=used["value"].round(4), picture=pictures.fillna(""))
    parts = [used[used["organ"] == found] for found in organs]
    parts = [rows.assign(place=i + spread(len(rows), 0.5).round(3)) for i, rows in enumerate(parts)]
    figure = graph_objects.Figure()
    for found, rows in zip(organs, parts, strict=True):
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
    ordered = pd.concat(parts).sort_values(["case", "place"])
    facts = {
        str(case): np.column_stack([rows["value"], rows["place"]]).tolist() for case, rows in ordered.groupby("case")
    }
    page = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        div_id=name,
        config={"displaylogo": False},
        post_script=_SCRIPT.replace("FACTS", json.dumps(facts)),
    )
    return HTML(page)  # type: ignore[no-untyped-call]
