"""What the papers claim, and what their own numbers and our runs say of it."""

from hnlib.claims.finding import VERDICTS, Finding, Verdict
from hnlib.claims.ledger import COLUMNS, RULES, Claim, judge, ledger, load_claims
from hnlib.claims.measured import Evidence

__all__ = [
    "COLUMNS",
    "RULES",
    "VERDICTS",
    "Claim",
    "Evidence",
    "Finding",
    "Verdict",
    "judge",
    "ledger",
    "load_claims",
]
