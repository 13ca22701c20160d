"""Figures of plotly in a page: named for those who do not see them, chosen from by a menu that keys reach."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

#: A menu before the figure; what follows it in the script says what a choice does.
_MENU = """
(() => {
  const plot = document.getElementById('{plot_id}'), label = document.createElement('label');
  const menu = document.createElement('select');
  label.textContent = TITLE + ': ';
  menu.append(...Object.entries(OPTIONS).map(([text, value]) => new Option(text, value)));
  label.append(menu);
  plot.before(label);
  REACT
})();
"""
#: A choice holds one value a trace, from the first trace on; traces beyond stay as they are.
_RESTYLE = """menu.addEventListener('change', () => {
    const choice = plot.layout.meta.choices[menu.value];
    Plotly.restyle(plot, choice, [...Object.values(choice)[0].keys()]);
  });"""


def interactive(figure: Any, name: str) -> Any:
    """Return a figure of plotly as HTML for a page that loads plotly's script, as the pages of the book do.

    `name` becomes the identity of its place in the page, so that the same figure is the same text every time. What
    `with_choices` has said of the figure becomes its description and its menu.
    """
    meta = figure.layout.meta
    return page_of(figure, name, meta["alt"], meta["title"], {text: text for text in meta["choices"]}, _RESTYLE)


def with_choices(figure: Any, alt: str, title: str, choices: Mapping[str, Mapping[str, Any]]) -> Any:
    """Say of a figure what it shows, and what a menu changes in its traces: a text, and lists of values by trace."""
    return figure.update_layout(meta={"alt": alt, "title": title, "choices": choices})


def page_of(figure: Any, name: str, alt: str, title: str, options: Mapping[str, str], react: str) -> Any:
    """Return a figure of plotly with a menu before it as HTML.

    Parameters
    ----------
    figure, name
        The figure, and its identity in the page.
    alt
        What there is to see, in words.
    title, options
        The menu: its label, and from text to value what it offers.
    react
        Script that finds the two as ``plot`` and ``menu``.
    """
    from IPython.display import HTML

    script = _MENU.replace("TITLE", json.dumps(title)).replace("OPTIONS", json.dumps(options)).replace("REACT", react)
    page = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=name, config={"displaylogo": False}, post_script=script
    )
    part = "gl3d" if any(trace.type == "mesh3d" for trace in figure.data) else "cartesian"  # of plotly's script
    group = f'<div role="group" aria-label="{html.escape(alt, quote=True)}" data-plotly="{part}">'
    return HTML(f"{group}{page}</div>")  # type: ignore[no-untyped-call]
