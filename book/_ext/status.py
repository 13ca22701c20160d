"""Directives that compute a table while the book is built: ``published`` (what is published) and ``model-card``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

import hnlib
from hnlib.chapters.released import released_origin, released_scores
from hnlib.experiments.published import runs_status, status
from hnlib.model_file import released_model

PUBLISHED = Path(hnlib.__file__).resolve().parents[2] / "results" / "published"


class Published(Directive):
    """A table of the published tables, or of the published runs."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table as HTML, or a sentence where nothing is published here."""
        if not PUBLISHED.is_dir():
            return [nodes.paragraph(text="The published tables are not beside this copy of the library.")]
        if self.arguments[0] == "tables":
            parts = [status(PUBLISHED)]
        else:
            parts = [
                runs_status(path).assign(dataset=path.parent.name) for path in sorted(PUBLISHED.glob("*/runs.csv"))
            ]
        return [nodes.raw("", html(part), format="html") for part in parts]


class ModelCard(Directive):
    """What the file of the released model says of its scores, or of its origin."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table as HTML, or a sentence where the package holds no model."""
        if not released_model().exists():
            return [nodes.paragraph(text="This copy of the library holds no model.")]
        table = (released_scores if self.arguments[0] == "scores" else released_origin)()
        return [nodes.raw("", table.to_html(border=0, classes="table", float_format="{:.3f}".format), format="html")]


def html(table: Any) -> str:
    """Return a table as wide as its column, its long words broken; a stale row says so in words."""
    shown = table.assign(stale=[f"stale: {why}" if why else "no" for why in table["stale"]])
    if "dataset" in shown:
        shown.insert(0, "data", shown.pop("dataset"))
    text = shown.to_html(index=False, border=0, classes="table", float_format="{:.2f}".format)
    style = "table-layout: fixed; width: 100%; overflow-wrap: anywhere; font-size: 0.7em"
    return text.replace("<table ", f'<table style="{style}" ', 1)


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.add_directive("published", Published)
    app.add_directive("model-card", ModelCard)
    return {"parallel_read_safe": True}
