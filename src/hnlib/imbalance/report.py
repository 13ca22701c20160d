"""A plan in words: sizes that people write, and the lines that the command prints."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from hnlib.errors import ConfigError
from hnlib.imbalance.candidates import GB
from hnlib.imbalance.planner import PatchPlan

_UNITS = {"kb": 1e3, "mb": 1e6, "gb": GB, "tb": 1e12, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30, "tib": 2.0**40}
#: What no plan says by itself; that its last part is so, a test asks the published runs.
CAUTION = (
    "Nothing was trained: a plan says what patches show, not what a network learns from them. Where such a plan was "
    "trained beside nnU-Net's choice on real scans, it lost on organs to which its draw gives no centre of their own. "
    "Compare the two on validation cases."
)
#: Rows of the front that are printed.
_ROWS = 12


def read_size(text: str) -> float:
    """Return the bytes of a size such as ``11GB``, ``10.5 GiB`` or ``800 MB``.

    Raises
    ------
    ConfigError
        When it is no number above 0 with a unit.

    Examples
    --------
    >>> read_size("11GB"), read_size("1 GiB")
    (11000000000.0, 1073741824.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z]+)\s*", text, re.IGNORECASE)
    unit = _UNITS.get(found[2].lower()) if found else None
    if found is None or unit is None or not float(found[1]) > 0 or not math.isfinite(float(found[1])):
        raise ConfigError(f"memory '{text}': a number above 0 and a unit, such as 11GB or 800MiB, is needed")
    return float(found[1]) * unit


def read_targets(texts: Sequence[str] | None) -> dict[str, float] | None:
    """Return shares of the foreground by organ, written as ``mandible=0.2``; None where there is none.

    Raises
    ------
    ConfigError
        When one is no organ with a number of at least 0, an organ comes twice, or all are 0.

    Examples
    --------
    >>> read_targets(["mandible=0.2", "optic_chiasm=0.8"])
    {'mandible': 0.2, 'optic_chiasm': 0.8}
    """
    found: dict[str, float] = {}
    for text in texts or ():
        parts = re.fullmatch(r"\s*(\w+)\s*=\s*(\d+(?:\.\d+)?|\.\d+)\s*", text)
        if parts is None or parts[1] in found:
            raise ConfigError(
                f"target '{text}': an organ and its share, each organ once, such as mandible=0.2, is needed"
            )
        found[parts[1]] = float(parts[2])
    if found and not sum(found.values()) > 0:
        raise ConfigError("targets: all shares are 0; at least one above 0 is needed")
    return found or None


def some_rows(front: pd.DataFrame) -> pd.DataFrame:
    """Return a dozen rows of a front, evenly through it from the first to the last, and the chosen one."""
    shown = np.unique(np.linspace(0, len(front) - 1, min(_ROWS, len(front))).round().astype(int))
    return front.iloc[np.union1d(shown, np.flatnonzero(front["chosen"]))]


def front_lines(plan: PatchPlan) -> list[str]:
    """Return the front as a table of text, line by line; the chosen plan has a star."""
    front, measure = plan.front, plan.wish.measure
    shown = some_rows(front)
    head = f"  {'patch':>15} {'batch':>5} {'levels':>6} {'GB':>6} {'context':>8} {'box':>5}  {'rarest organ':26}"
    text = [f"{head} {measure.replace('_', ' ')}"]
    for row in shown.to_dict("records"):
        size = " x ".join(str(row[f"patch_{axis}"]) for axis in "xyz")
        rarest = f"{str(row['rarest']).replace('_', ' ')} {row['least_presence']:.1%}"
        text.append(
            f"{'*' if row['chosen'] else ' '} {size:>15} {row['batch_size']:>5} {row['levels']:>6} "
            f"{row['memory_gb']:>6.2f} {row['context_mm']:>5.0f} mm {row['organ_box']:>5.0%}  {rarest:26} "
            f"{row[measure]:.4g}"
        )
    if len(shown) < len(front):
        text.append(f"  ({len(shown)} of the {len(front)} plans on the front)")
    return text


def lines(plan: PatchPlan) -> list[str]:
    """Return the front as a table, the chosen plan and its reasons, line by line."""
    size = " x ".join(map(str, plan.candidate.patch_size))
    weights = ", ".join(f"{name.replace('_', ' ')} {w:.1%}" for name, w in plan.draw.weights.items() if w >= 5e-4)
    grid = " x ".join(f"{mm:.3g}" for mm in plan.spacing_mm)
    chosen = f"plan: {plan.candidate.batch_size} patches of {size} voxels of {grid} mm; centres: {weights}"
    return [*front_lines(plan), chosen, *(f"- {reason}" for reason in plan.reasons)]
