"""Mend what the theme leaves undone for readers; `tests/test_book.py` holds every page to WCAG A and AA."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

#: In the written pages: text to what replaces it.
MENDED = {
    # A button's name must hold the text that is seen on it; the titles of the icons count as such.
    'search-button-field search-button__button pst-js-only" title="Search" aria-label="Search"': (
        'search-button-field search-button__button pst-js-only"'
    ),
    ' aria-label="Toggle hidden content"': "",
    'data-mode="light" title="Light"': 'data-mode="light"',
    'data-mode="dark"  title="Dark"': 'data-mode="dark"',
    'data-mode="auto"  title="System Settings"': 'data-mode="auto"',
    # The bibliography's roles are deprecated, and its list has children that are no items.
    '<div role="list" class="citation-list">': '<div class="citation-list">',
    ' role="doc-biblioentry"': "",
}

#: A value that a notebook puts into its text is bold; where it is a whole sentence, that would shout.
SENTENCE = re.compile(r'<span class="pasted-text">(?=[^<]*\.</span>)')

#: A number and its unit stay in one line.
UNIT = re.compile(r"(?<=\d) (?=(?:%|mm|ml|HU|GB|MB)(?!\w))")


def _mend(app: Any, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = before = page.read_text()
        for old, new in MENDED.items():
            text = text.replace(old, new)
        text = UNIT.sub("\N{NO-BREAK SPACE}", SENTENCE.sub('<span class="pasted-text sentence">', text))
        if text != before:
            page.write_text(text)


def setup(app: Any) -> dict[str, bool]:
    """Connect the step to the end of the build."""
    app.connect("build-finished", _mend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
