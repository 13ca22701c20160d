"""Directives that compute a table while the book is built: ``published`` and ``model-card``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from docutils import nodes
from docutils.parsers.rst import Directive

import hnlib
from hnlib.chapters.released import released_origin, released_scores
from hnlib.experiments.published import runs_status, status
from hnlib.files import read_json
from hnlib.html_page import one_head
from hnlib.model_file import released_model

PUBLISHED = Path(hnlib.__file__).resolve().parents[2] / "results" / "published"


class Published(Directive):
    """A table of the published ``tables``, of the published ``runs``, of their ``seeds``, or of the ``benches``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table as HTML, or a sentence where nothing is published here."""
        if not PUBLISHED.is_dir():
            return [nodes.paragraph(text="The published tables are not beside this copy of the library.")]
        if self.arguments[0] == "tables":
            table, texts = numbered(status(PUBLISHED), "reason", reason_and_versions)
            parts = [(table.rename(columns={"made_by": "made by"}).drop(columns="versions"), texts)]
        elif self.arguments[0] == "benches":
            parts = [benches(read_json(PUBLISHED / "bench.json", "run make bench"))]
        elif self.arguments[0] == "seeds":
            parts = [(seed_counts(pd.concat(map(pd.read_csv, PUBLISHED.glob("*/runs.csv")))), [])]
        else:
            paths = sorted(PUBLISHED.glob("*/runs.csv"))
            runs = pd.concat([runs_status(path).assign(data=path.parent.name) for path in paths], ignore_index=True)
            runs["digest"] = runs["digests"].str.extract(r"run=(\S+)", expand=False)
            table, recorded = numbered(runs, "recorded", circumstances)
            parts = [(table[["data", "run", "hours", "digest", "recorded", "stale"]], recorded)]
        return [nodes.raw("", html(table) + legend(texts), format="html") for table, texts in parts]


def seed_counts(runs: pd.DataFrame) -> pd.DataFrame:
    """Return how many experiments of a profile have how many seeds."""
    seeds = runs.groupby(["profile", "experiment"])["seed"].nunique()
    return seeds.value_counts().sort_index().rename_axis("seeds").rename("experiments").reset_index()


class ModelCard(Directive):
    """What the file of the released model says of its scores, or of its origin."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table as HTML, or a sentence where the package holds no model."""
        if not released_model().exists():
            return [nodes.paragraph(text="This copy of the library holds no model.")]
        table = (released_scores if self.arguments[0] == "scores" else released_origin)()
        text = table.to_html(border=0, justify="left", classes="table", float_format="{:.3f}".format)
        return [nodes.raw("", one_head(text), format="html")]


def benches(rows: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, list[str]]:
    """Return a row for each benchmark, ours over the peer's, with number and text of what was measured."""
    shown = pd.DataFrame(
        {
            "what": row["name"].replace("_", " "),
            "ours": quantity(row["ours"]),
            "peer": quantity(row["peer"]),
            "unit": row["unit"],
            "ratio": "" if row["ratio"] is None else f"{row['ratio']:.4g}",
            "goal": "" if row["goal"] is None else f"{row['goal']:g}",
            "met": "" if None in (row["ratio"], row["goal"]) else "yes" if row["ratio"] <= row["goal"] else "no",
            "measured": "; ".join(
                filter(None, (f"peer: {row['peer_name']}", row["note"], row["hardware"], row["date"]))
            ),
        }
        for row in rows
    )
    return numbered(shown, "measured", lambda row: row["measured"])


def quantity(value: float | None) -> str:
    """Return a measured number with three digits, or a dash where it was not measured."""
    if value is None:
        return "\N{EN DASH}"
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 1000 else f"{value:.3g}"


def reason_and_versions(row: Any) -> str:
    """Return why a table counts as it does, and what is recorded of the versions that made it."""
    return "; ".join(filter(None, (row["reason"], row["versions"].replace("=", " "))))


def circumstances(run: Any) -> str:
    """Return what many runs share: machine, versions, data and the cache made of them."""
    shared = [part for part in run["digests"].split() if not part.startswith("run=")]
    return "; ".join([run["hardware"], run["versions"].replace("=", " "), *shared])


def numbered(table: pd.DataFrame, column: str, text: Callable[[Any], str]) -> tuple[pd.DataFrame, list[str]]:
    """Return a table with a number in place of a text that many rows share, and the texts in order."""
    texts = [text(row) for row in table.to_dict("records")]
    known = list(dict.fromkeys(one for one in texts if one))
    return table.assign(**{column: [str(known.index(one) + 1) if one else "" for one in texts]}), known


def html(table: pd.DataFrame) -> str:
    """Return a table as wide as its column, long names in its cells broken; a stale row says so in words."""
    shown = table
    if "stale" in table:
        shown = table.assign(stale=[f"stale: {why}" if why else "no" for why in table["stale"]])
    text = shown.to_html(index=False, border=0, justify="left", classes="table", float_format="{:.2f}".format)
    wrap = "normal" if "ratio" in table else "anywhere"  # numbers stay whole
    style = f"width: 100%; overflow-wrap: {wrap}; font-size: 0.8em"
    return '<div class="hn-wide">' + text.replace("<table ", f'<table style="{style}" ', 1) + "</div>"


def legend(texts: Sequence[str]) -> str:
    """Return texts as the numbered list below a table; nothing where there is none."""
    return "" if not texts else '<ol class="hn-long">' + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ol>"


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.add_directive("published", Published)
    app.add_directive("model-card", ModelCard)
    return {"parallel_read_safe": True}
