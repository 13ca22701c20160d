"""What a rule says of a claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Verdict = Literal[
    "reproduced",
    "not reproduced",
    "contradicted by the paper's own numbers",
    "not testable here",
    "undecided",
    "not yet judged",
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
REPRODUCED, NOT_REPRODUCED, CONTRADICTED, NOT_TESTABLE, UNDECIDED, NOT_RUN = VERDICTS

BESIDE = "; beside it: "
"""Between what the deciding rule found and what the others did."""
NOT_TOLD = "not told from zero"
"""What is said of a difference whose interval holds zero."""


@dataclass(frozen=True)
class Finding:
    """Verdict on a claim, with what it rests on.

    Attributes
    ----------
    verdict
        One of ``VERDICTS``.
    found
        The figure found, or the reason why there is none, in words.
    interval
        Its interval, in words; empty where there is none.
    partial
        What is lacking, ``3 of 5 seeds``; empty when nothing is.
    row
        Which rows of which table carry it.
    chapter
        Chapter that shows these rows; empty where none does.
    """

    verdict: Verdict
    found: str
    interval: str = ""
    partial: str = ""
    row: str = ""
    chapter: str = ""


def weakest(findings: Sequence[Finding]) -> Finding:
    """Return the finding that decides whether all hold: one that does not, before one that is open or not run."""
    ranked = (CONTRADICTED, NOT_REPRODUCED, UNDECIDED, NOT_RUN, NOT_TESTABLE, REPRODUCED)
    return min(findings, key=lambda one: ranked.index(one.verdict))


def own_numbers(holds: bool, found: str, *, row: str, chapter: str = "") -> Finding:
    """Return the finding of a rule that asks whether a claim agrees with its paper's own numbers."""
    return Finding(REPRODUCED if holds else CONTRADICTED, found, row=row, chapter=chapter)
