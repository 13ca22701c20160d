"""The list of claims, and the verdict on each from tables: nothing in the list says how it came out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from hnlib.claims import exact, measured, printed
from hnlib.claims.finding import BESIDE, CONTRADICTED, Finding, weakest
from hnlib.claims.measured import Evidence, Planned
from hnlib.errors import ConfigError, DataError, unknown

FIELDS = ("id", "paper", "where", "what", "figure", "judged_by")
#: What stands beside the arguments of a rule: the page that carries its rows; that it must hold beside the last rule.
_OF_CLAIM = ("rule", "chapter", "also")
COLUMNS = ("id", "paper", "where", "what", "figure", "verdict", "partial", "found", "interval", "row", "chapter")
"""Columns of the ledger."""


def _rules(module: Any) -> dict[str, Callable[..., Finding]]:
    found = inspect.getmembers(module, inspect.isfunction)
    return {name: rule for name, rule in found if rule.__module__ == module.__name__ and not name.startswith("_")}


_TABLES = {"wide", "organ_rows"}
RULES: Mapping[str, Callable[..., Finding]] = {
    **{name: rule for name, rule in _rules(printed).items() if name not in _TABLES},
    **_rules(exact),
    **_rules(measured),
}
"""Rules by name. Those of `hnlib.claims.measured` take the evidence first."""


@dataclass(frozen=True)
class Claim:
    """One claim of one paper.

    Attributes
    ----------
    id, paper, where
        Its number, the key of its paper and the place there.
    what, figure
        The claim in our words, and the figure that the paper gives.
    judged_by
        Rules with their arguments, each ``{"rule": name, ...}``, from the paper's own numbers to runs; ``chapter``
        names the page that carries the rows where it is not the rule's own, and ``also`` marks what must hold, too.
    """

    id: str
    paper: str
    where: str
    what: str
    figure: str
    judged_by: tuple[Mapping[str, Any], ...]


def load_claims(path: Path | str) -> tuple[Mapping[str, str], list[Claim]]:
    """Read the list of claims.

    Returns
    -------
    tuple
        Key to title of the papers, and the claims in their order.

    Raises
    ------
    DataError
        When the file is missing or no YAML.
    ConfigError
        When a claim lacks a field, has an unknown one, repeats a number, or names an unknown paper or rule, or
        arguments that its rule does not take.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        papers, entries = dict(content["papers"]), list(content["claims"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as fault:
        text = " ".join(str(fault).split())
        raise DataError(f"claims {path}: cannot be read ({text}); papers and claims are needed") from None
    claims: list[Claim] = []
    for entry in entries:
        claims.append(_claim(path, entry, papers))
        if claims[-1].id in {claim.id for claim in claims[:-1]}:
            raise ConfigError(f"claims {path}: {claims[-1].id} is there twice; give each claim its own number")
    return papers, claims


def _claim(path: Path | str, entry: Any, papers: Mapping[str, str]) -> Claim:
    if not isinstance(entry, dict) or set(entry) != set(FIELDS):
        name = entry.get("id", "?") if isinstance(entry, dict) else entry
        raise ConfigError(f"claims {path}: claim {name} needs exactly the fields {', '.join(FIELDS)}")
    if entry["paper"] not in papers:
        raise unknown(f"paper of claim {entry['id']}", entry["paper"], papers)
    if not entry["judged_by"]:
        raise ConfigError(f"claims {path}: claim {entry['id']} is judged by nothing; name a rule, or not_testable")
    for call in entry["judged_by"]:
        _check_rule(str(entry["id"]), call)
    texts = {name: str(entry[name]) for name in FIELDS[:-1]}
    return Claim(**texts, judged_by=tuple(entry["judged_by"]))


def _check_rule(claim: str, call: Mapping[str, Any]) -> None:
    name = str(call.get("rule"))
    if name not in RULES:
        raise unknown(f"rule of claim {claim}", name, RULES)
    signature = inspect.signature(RULES[name])
    known = [one for one in signature.parameters if one != "evidence"]
    needed = [one for one in known if signature.parameters[one].default is inspect.Parameter.empty]
    for argument in call:
        if argument not in (*_OF_CLAIM, *known):
            raise unknown(f"argument of rule {name} in claim {claim}", argument, known)
    if lacking := [one for one in needed if one not in call]:
        raise ConfigError(f"claim {claim}: rule {name} needs {', '.join(lacking)}")


def judge(claim: Claim, evidence: Evidence) -> Finding:
    """Return the verdict on a claim.

    The paper's own numbers come first: a claim that they contradict is contradicted, whatever runs say. Otherwise
    the last rule decides, the strongest evidence of those named, together with those marked ``also``, of which each
    must hold. What every rule found is kept.
    """
    findings = [_apply(call, evidence) for call in claim.judged_by]
    also = [one for one, call in zip(findings, claim.judged_by, strict=True) if call.get("also")]
    contradicted = [one for one in findings if one.verdict == CONTRADICTED]
    decisive = contradicted[0] if contradicted else weakest([findings[-1], *also])
    found = [decisive.found, *(one.found for one in findings if one is not decisive)]
    rows = [decisive.row, *(one.row for one in findings if one is not decisive)]
    return Finding(
        decisive.verdict,
        BESIDE.join(text for text in found if text),
        decisive.interval,
        decisive.partial,
        "; ".join(text for text in rows if text),
        next((one.chapter for one in (decisive, *findings) if one.chapter), ""),
    )


def _apply(call: Mapping[str, Any], evidence: Evidence) -> Finding:
    rule = RULES[call["rule"]]
    arguments = {name: value for name, value in call.items() if name not in _OF_CLAIM}
    first = (evidence,) if rule.__module__ == measured.__name__ else ()
    found = rule(*first, **arguments)
    return replace(found, chapter=call.get("chapter", found.chapter))


def ledger(claims: list[Claim], root: Path | str, planned: Planned) -> pd.DataFrame:
    """Judge every claim by the tables below a folder.

    Parameters
    ----------
    claims
        Claims, see `load_claims`.
    root, planned
        See `hnlib.claims.measured.Evidence`.

    Returns
    -------
    pandas.DataFrame
        One row a claim: ``id``, ``paper``, ``where``, ``what``, ``figure``; ``verdict``, ``partial``, ``found``,
        ``interval``, ``row`` and ``chapter`` as in `hnlib.claims.finding.Finding`.
    """
    evidence = Evidence(root, planned)
    rows = []
    for claim in claims:
        finding = judge(claim, evidence)
        texts = {name: getattr(claim, name) for name in ("id", "paper", "where", "what", "figure")}
        rows.append({**texts, **{name: getattr(finding, name) for name in COLUMNS[5:]}})
    return pd.DataFrame(rows, columns=list(COLUMNS))
