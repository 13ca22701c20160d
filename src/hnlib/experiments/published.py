"""What stands published, since when, made by what; and what of it has gone stale.

``status.json`` beside the published tables keeps, for each of them, a digest of its content and of the code on its path
when it was recorded. Code is compared without comments, docstrings and layout. A table is stale when its content
changed without a record, the code on its path changed, or (runs) the experiment or the data did. Code that changed and
moves no number is accepted with a reason (`record`), which the status page shows.
"""

from __future__ import annotations

import ast
import hashlib
import platform
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import date as day
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from hnlib.errors import DataError, HnlibError
from hnlib.experiments.config import load_experiment, load_profile
from hnlib.experiments.digests import run_digest
from hnlib.files import read_json, read_table, write_json

RECORD = "status.json"
#: Numbers and reasons of a plan: the one published table that is no CSV file, as it holds sentences.
PLAN = "plan.json"
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_DATA = ("cases", "volumes", "organs", "datasets", "preprocess")
_RUN = (
    *_DATA,
    "cache",
    "patches",
    "sampling",
    "augmentation",
    "losses",
    "networks",
    "systems",
    "training",
    "inference",
)
_IMBALANCE = (*_DATA, "sampling", "imbalance", "experiments/tables")
_LANDSCAPE = (*_IMBALANCE, "experiments/landscapes")
_PLANNING = (*_IMBALANCE, "networks", "experiments/planning")
_MEASURED = (*_RUN, "metrics", "surfaces", "experiments/run")
_CONFIDENCE = (*_RUN, "confidence", "surfaces", "experiments/run")
_OBSERVERS = (*_DATA, "metrics", "surfaces", "observers", "stats")
#: Modules and packages of hnlib on the path of a table, by its name.
CODE: dict[str, tuple[str, ...]] = {
    "dataset": (*_DATA, "experiments/tables"),
    "imbalance": _IMBALANCE,
    **dict.fromkeys(("landscape", "landscape_classes"), _LANDSCAPE),
    **dict.fromkeys(("plan", "plan_choices", "plan_draws", "plan_landscape", PLAN), _PLANNING),
    **dict.fromkeys(("draws", "draws_classes"), _PLANNING),
    **dict.fromkeys(("audit", "warnings"), ("losses",)),
    "metrics": _MEASURED,
    "failures": (*_MEASURED, "experiments/failures"),
    **dict.fromkeys(("confidence", "confidence_quantiles"), _CONFIDENCE),
    **dict.fromkeys(("confidence_margins", "calibration"), _CONFIDENCE),
    **dict.fromkeys(("history", "runs"), _RUN),
    "pairs": (*_DATA, "metrics", "surfaces"),
    **dict.fromkeys(("agreement", "tolerances", "hd95_definitions", "swapped_axes"), _OBSERVERS),
    "equivalence": (*_DATA, "stats"),
    "atlas": (*_DATA, "atlas", "inference", "metrics", "surfaces"),
}


#: What makes a table, by its name or by the folder's and its own; all others come from `hnlib publish`.
MADE_BY: dict[str, str] = {
    **dict.fromkeys(("audit", "warnings"), "hnlib audit"),
    **dict.fromkeys(("plan", "plan_choices", "plan_draws", "plan_landscape"), "scripts/planning_tables.py"),
    **dict.fromkeys(("draws", "draws_classes"), "scripts/planning_tables.py"),
    **dict.fromkeys(("tcia/landscape", "tcia/landscape_classes"), "scripts/tcia_landscape.py"),
    **dict.fromkeys(("pairs", "agreement", "tolerances"), "scripts/human_reference.py"),
    **dict.fromkeys(("hd95_definitions", "swapped_axes"), "scripts/human_reference.py"),
    "equivalence": "scripts/phantom_equivalence.py",
    "atlas": "scripts/atlas.py",
}
#: Packages whose versions are kept with a table.
PACKAGES = ("numpy", "pandas", "scipy", "torch")


def made_by(name: str) -> str:
    """Return the command or script that makes a table, such as ``tcia/landscape``."""
    return MADE_BY.get(name) or MADE_BY.get(name.rpartition("/")[2], "hnlib publish")


def code_digest(units: tuple[str, ...]) -> str:
    """Return a digest of modules and packages of hnlib, blind to comments, docstrings and layout.

    Parameters
    ----------
    units
        Modules and packages below hnlib, such as ``stats`` and ``experiments/run``.

    Raises
    ------
    FileNotFoundError
        When there is no such module or package.
    """
    source = Path(__file__).resolve().parents[1]
    state = hashlib.blake2b(digest_size=8)
    for unit in sorted(set(units)):
        single = source / f"{unit}.py"
        paths = [single] if single.is_file() else sorted((source / unit).rglob("*.py"))
        if not paths:
            raise FileNotFoundError(f"hnlib has no module or package {unit}")
        for path in paths:
            state.update(path.relative_to(source).as_posix().encode())
            state.update(_plain_digest(path))
    return state.hexdigest()


@cache
def _plain_digest(path: Path) -> bytes:
    """Return a digest of one file's code; many tables share a file."""
    return hashlib.blake2b(plain_code(path.read_text("utf-8")).encode(), digest_size=8).digest()


def plain_code(text: str) -> str:
    """Return Python code as its syntax tree says it, without docstrings.

    Examples
    --------
    >>> plain_code("x  = 1  # one") == plain_code("x = 1")
    True
    """
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return _said(tree)


def _said(part: object) -> str:
    """Return a part of a syntax tree as text that every Python from 3.11 on writes alike, which ``ast.dump`` does not.

    Fields without content are left out, since later versions add some; so are the empty pieces of f-strings that 3.12
    makes, and the prefix of u-strings, which it keeps where 3.11 drops it.
    """
    if isinstance(part, list):
        return f"[{','.join(map(_said, part))}]"
    if not isinstance(part, ast.AST):
        return ascii(part)
    if isinstance(part, ast.JoinedStr):
        part.values = [piece for piece in part.values if getattr(piece, "value", None) != ""]
    fields = [(name, value) for name, value in ast.iter_fields(part) if value not in (None, []) and name != "kind"]
    return f"{type(part).__name__}({','.join(f'{name}={_said(value)}' for name, value in fields)})"


def tables_of(published: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name in the record, such as ``openkbp/metrics``, and the file of every published table."""
    for path in sorted([*published.glob("*/*.csv"), *published.glob(f"*/{PLAN}")]):
        yield f"{path.parent.name}/{_name(path)}", path


def _name(path: Path) -> str:
    return path.name if path.name == PLAN else path.stem


def record(published: Path, date: str, reason: str, only: Collection[str] | None = None) -> list[str]:
    """Write what the tables and the code on their paths are now; return the tables whose entry changed.

    Parameters
    ----------
    published
        Folder of the published results.
    date, reason
        When and why, such as a publication, or code that changed and moves no number; the status page shows them.
    only
        Names of the tables, such as ``openkbp/metrics``; None takes all.
    """
    found = _recorded(published)
    changed = []
    for name, path in tables_of(published):
        if only is not None and name not in only:
            continue
        entry = {"content": _content(path), "code": code_digest(_units(path))}
        known = found.get(name, {})
        if {key: known.get(key) for key in entry} != entry:
            new = known.get("content") != entry["content"]
            kept = {"date": date, "versions": _versions()} if new else known
            found[name] = {**kept, **entry, "accepted": date, "reason": reason}
            changed.append(name)
    here = {name for name, _ in tables_of(published)}
    write_json(published / RECORD, {name: found[name] for name in sorted(found) if name in here})
    return changed


def status(published: Path) -> pd.DataFrame:
    """Return a row for every published table: ``table, made_by, date, rows, accepted, reason, versions, stale``.

    ``stale`` says why, or nothing. ``versions`` are those under which a table was recorded, or its runs were trained.
    """
    found = _recorded(published)
    rows = []
    for name, path in tables_of(published):
        entry = found.get(name, {})
        reasons = []
        if not entry:
            reasons.append("not recorded")
        else:
            reasons += ["content changed since its record"] if entry["content"] != _content(path) else []
            reasons += ["code on its path changed"] if entry["code"] != code_digest(_units(path)) else []
        if path.stem == "runs":
            stale = runs_status(path)
            reasons += [f"{row.run}: {row.stale}" for row in stale[stale["stale"] != ""].itertuples()]
        rows.append(
            {
                "table": name,
                "made_by": made_by(name),
                "date": entry.get("date", ""),
                "rows": path.read_bytes().count(b"\n") - 1,
                "accepted": entry.get("accepted", ""),
                "reason": entry.get("reason", ""),
                "versions": entry.get("versions") or _versions_of_runs(path),
                "stale": "; ".join(reasons),
            }
        )
    return pd.DataFrame(rows)


def tell_stale(published: Path, accept: str, say: Callable[[str], None]) -> int:
    """Say which tables are stale, and return how many; with a reason to accept them, record first that they are not."""
    if accept:
        for name in record(published, f"{day.today()}", accept):
            say(f"recorded: {name}")
    found = status(published)
    stale = found[found["stale"] != ""]
    for row in stale.itertuples():
        say(f"stale: {row.table}: {row.stale}")
    say(f"{len(found)} tables, {len(stale)} stale")
    return len(stale)


def runs_status(path: Path) -> pd.DataFrame:
    """Return a row for every published run: what it ran on, how long, digests, and whether it is stale.

    A run is stale when the experiment under its profile has another digest now, or another data digest than the data
    tables beside it.
    """
    runs = read_table(path, "publish the runs again")
    about = path.with_name("study.json")
    study = read_json(about, "publish the study again") if about.exists() else {}
    rows = []
    for row in runs.to_dict("records"):
        digests = dict(part.split("=", 1) for part in str(row["digests"]).split())
        reasons = _experiment_changes({str(key): value for key, value in row.items()}, digests, runs)
        if row["profile"] == study.get("profile") and digests.get("data") != study["data_digest"]:
            reasons.append("data changed")
        rows.append(
            {
                "run": f"{row['profile']}/{row['experiment']}/seed {row['seed']}",
                "hours": float(row["seconds"]) / 3600,
                "hardware": row["hardware"],
                "versions": row["versions"],
                "digests": row["digests"],
                "stale": ", ".join(reasons),
            }
        )
    return pd.DataFrame(rows)


def _experiment_changes(row: Mapping[str, Any], digests: Mapping[str, str], runs: pd.DataFrame) -> list[str]:
    try:
        experiment, profile = load_experiment(str(row["experiment"])), load_profile(str(row["profile"]))
        network_patch = None
        if experiment.network_of is not None:
            beside = runs[runs["profile"] == row["profile"]]
            alike = [load_experiment(str(name)).patch == experiment.network_of for name in beside["experiment"]]
            if not any(alike):
                return [f"not known to hold: no run with the {experiment.network_of} patch is published beside it"]
            network_patch = _edges(beside.loc[alike, "patch"].iloc[0])
        now = run_digest(experiment, profile, _edges(row["patch"]), digests["cache"], network_patch)
    except HnlibError as fault:
        return [f"cannot be made again ({fault})"]
    return [] if now == digests["run"] else ["experiment or profile changed"]


def _edges(patch: object) -> tuple[int, int, int]:
    x, y, z = (int(edge) for edge in re.findall(r"\d+", str(patch)))
    return x, y, z


def _versions() -> str:
    return " ".join([f"python={platform.python_version()}", *(f"{name}={version(name)}" for name in PACKAGES)])


def _versions_of_runs(path: Path) -> str:
    """Return the versions with which the runs behind a table were trained, or nothing where it has none."""
    runs = path.with_name("runs.csv")
    if "training" not in _units(path) or not runs.exists():
        return ""
    return ", ".join(read_table(runs, "publish the runs again")["versions"].unique())


def _units(path: Path) -> tuple[str, ...]:
    if _name(path) not in CODE:
        raise DataError(f"{path}: no code is named for this table; name its modules in CODE of {__name__}")
    return CODE[_name(path)]


def _content(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def _recorded(published: Path) -> dict[str, dict[str, str]]:
    path = published / RECORD
    return dict(read_json(path, "restore it from the repository")) if path.exists() else {}
