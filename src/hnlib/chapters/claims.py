"""Chapters 18 and 19: the ledger of claims, and what it says to a clinic."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from hnlib.chapters.page import Facts
from hnlib.claims import VERDICTS, ledger, load_claims
from hnlib.claims.finding import (
    BESIDE,
    CONTRADICTED,
    NOT_REPRODUCED,
    NOT_RUN,
    NOT_TESTABLE,
    NOT_TOLD,
    REPRODUCED,
    UNDECIDED,
)
from hnlib.experiments import planned_seeds

_KEYS = dict(
    zip(VERDICTS, ("reproduced", "not-reproduced", "contradicted", "not-testable", "undecided", "not-run"), strict=True)
)


def claims_ledger(claims: Path | str, tables: Path | str) -> pd.DataFrame:
    """Judge every claim by the studies that lie beside ``tables``; the papers stand there by their names."""
    papers, listed = load_claims(claims)
    found = ledger(listed, Path(tables).parent, planned_seeds)
    return found.assign(paper=found["paper"].map(papers))


def claims_facts(table: pd.DataFrame) -> Facts:
    """Return the counts of the chapter."""
    counts = table["verdict"].value_counts()
    runs = table["interval"] != ""
    words = table.loc[table["verdict"] == NOT_REPRODUCED, "found"].str.split(BESIDE).str[0]
    return {
        "opposite": str(int((~words.str.contains(NOT_TOLD)).sum())),
        "not-told": str(int(words.str.contains(NOT_TOLD).sum())),
        "total": str(len(table)),
        "papers": str(table["paper"].nunique()),
        "partial": str(int((table["partial"] != "").sum())),
        "with-interval": str(int(runs.sum())),
        "false-alarms": f"{0.05 * runs.sum():.1f}",
        **{key: str(counts.get(verdict, 0)) for verdict, key in _KEYS.items()},
    }


def claims_of(table: pd.DataFrame, number: int) -> Any:
    """Return the claims of one paper, in the order of the list, as a table with links to the chapters."""
    part = _of_paper(table, number)
    shown = pd.DataFrame(
        {
            "claim": [f"<b>{row.id}</b> {_text(row.what)}" for row in part],
            "in the paper": [f"{_text(row.figure)}<br><i>{_text(row.where)}</i>" for row in part],
            "verdict": [_verdict(row) for row in part],
            "found": [_found(row) for row in part],
            "carried by": [_link(row) for row in part],
        }
    )
    return _as_html(shown)


#: What a verdict is worth to somebody who must decide.
EVIDENCE = {
    REPRODUCED: "for",
    NOT_REPRODUCED: "against",
    CONTRADICTED: "against",
    NOT_TESTABLE: "none here",
    UNDECIDED: "none found",
    NOT_RUN: "none yet",
}


WORTHS = tuple(dict.fromkeys(EVIDENCE.values()))


def recommendations(table: pd.DataFrame, number: int) -> Any:
    """Return the recommendations of one source with this book's evidence for, against, or none."""
    part = _of_paper(table, number)
    shown = pd.DataFrame(
        {
            "recommendation": [f"<b>{row.id}</b> {_text(row.what)}" for row in part],
            "evidence": [_evidence(row) for row in part],
            "what it rests on": [_found(row) for row in part],
            "where": [_link(row) for row in part],
        }
    )
    return _as_html(shown)


def recommendation_facts(table: pd.DataFrame, number: int) -> Facts:
    """Return how many recommendations of one source have evidence for, against, or none."""
    part = _of_paper(table, number)
    words = [_worth(row) for row in part]
    counts = {key: words.count(key) for key in ("for", "against")}
    return {
        "total": str(len(part)),
        "for": str(counts["for"]),
        "against": str(counts["against"]),
        "none": str(len(part) - sum(counts.values())),
    }


def by_worth(table: pd.DataFrame) -> pd.DataFrame:
    """Return claims with what their verdicts are worth, one of `WORTHS`, in place of the verdicts."""
    return table.assign(verdict=[_worth(row) for row in table.itertuples()])


def _of_paper(table: pd.DataFrame, number: int) -> list[Any]:
    return list(table[table["paper"] == table["paper"].unique()[number]].itertuples())


def _as_html(shown: pd.DataFrame) -> Any:
    from IPython.display import HTML

    html = shown.to_html(index=False, escape=False, border=0, classes="claims")
    return HTML(html)  # type: ignore[no-untyped-call]


def _worth(row: Any) -> str:
    """Return the worth of a verdict; where runs show no difference either way, that is neither for nor against."""
    return "none found" if NOT_TOLD in row.found.split(BESIDE)[0] else EVIDENCE[row.verdict]


def _evidence(row: Any) -> str:
    phantom = "<br><i>on the phantom</i>" if row.row.startswith("phantom") else ""
    return f"<b>{_worth(row)}</b>{phantom}" + (f"<br><i>partial: {_text(row.partial)}</i>" if row.partial else "")


def _text(words: str) -> str:
    return escape(words.replace("_", " "))


def _verdict(row: Any) -> str:
    return _text(row.verdict) + (f"<br><i>partial: {_text(row.partial)}</i>" if row.partial else "")


def _found(row: Any) -> str:
    return _text(row.found) + (f"<br>95 % interval {_text(row.interval)}" if row.interval else "")


def _link(row: Any) -> str:
    words = _text(row.row or row.chapter.rpartition("/")[2].lstrip("0123456789_"))
    return f'<a href="{row.chapter}.html">{words}</a>' if row.chapter else words
