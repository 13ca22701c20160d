"""One page of HTML that needs no other file: words, tables, and figures inside the page."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable, Sequence

import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hnlib import __version__
from hnlib.plotting import STYLE

_CSS = """
body{font:16px/1.5 system-ui,sans-serif;color:#222;max-width:62em;margin:2em auto;padding:0 1em}
table{border-collapse:collapse;font-size:14px;margin:1em 0;display:block;overflow-x:auto}
th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}
th:first-child,td:first-child,td.text{text-align:left}img{max-width:100%}figcaption,footer{color:#555;font-size:14px}
pre{background:#f4f4f4;padding:.8em;overflow-x:auto;font-size:13px}
"""


def page(
    title: str, parts: Sequence[str], *, notes: Sequence[str] = (), definitions: str = "", command: str = ""
) -> str:
    """Return the page.

    Parameters
    ----------
    title
        Its heading.
    parts
        HTML of its body, in order; from the functions here.
    notes
        What is not defined, or was left out.
    definitions
        Of the words and measures, for the foot of the page.
    command
        That made it.
    """
    made = f"hnlib {__version__}" + (f", {command}" if command else "")
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>',
            f"<style>{_CSS}</style></head><body><h1>{html.escape(title)}</h1>",
            *parts,
            heading("Not defined, or left out") + items(notes) if notes else "",
            f"<footer>{paragraph(definitions)}{paragraph(made)}</footer></body></html>",
        ]
    )


def heading(text: str) -> str:
    """Return a heading of the second level."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{html.escape(text)}</p>"


def items(texts: Sequence[str]) -> str:
    """Return a list with bullets."""
    return "<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in texts) + "</ul>"


def code(text: str) -> str:
    """Return lines of a file or of commands."""
    return f'<pre tabindex="0">{html.escape(text)}</pre>'


def table(rows: pd.DataFrame, *, index: bool = False) -> str:
    """Return a table, its cells as text."""
    return one_head(str(rows.to_html(index=index, border=0, escape=True)))


def one_head(table: str) -> str:
    """Return the HTML of a table with the names of columns and of index, two rows in pandas, in one where they fit.

    Examples
    --------
    >>> frame = pd.DataFrame({"volume": [2.5]}, index=pd.Index(["chiasm"], name="organ"))
    >>> re.findall("<th>(.*?)</th>", frame.to_html()), re.findall("<th>(.*?)</th>", one_head(frame.to_html()))
    (['', 'volume', 'organ', '', 'chiasm'], ['organ', 'volume', 'chiasm'])
    """
    head = table.partition("</thead>")[0]
    rows = re.findall(r"<tr.*?</tr>", head, re.DOTALL)
    if len(rows) != 2 or "colspan" in head:
        return table
    pairs = list(zip(*(re.findall(r"<th.*?>(.*?)</th>", row, re.DOTALL) for row in rows), strict=True))
    if any(column and index for column, index in pairs):
        return table
    cells = "".join(f"<th>{column or index}</th>" for column, index in pairs)
    return table.replace(rows[0], f"<tr>{cells}</tr>", 1).replace(rows[1], "", 1)


def figure(draw: Callable[[], Axes | Figure], caption: str) -> str:
    """Draw in the one style of all figures, and return picture and caption; the caption is its alternative text."""
    with plt.rc_context(dict(STYLE)):
        drawn = draw()
        fig = drawn.get_figure(root=True) if isinstance(drawn, Axes) else drawn
        assert fig is not None
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", metadata={"Software": ""})
        plt.close(fig)
    text = html.escape(caption)
    picture = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<figure><img alt="{text}" src="data:image/png;base64,{picture}"><figcaption>{text}.</figcaption></figure>'
