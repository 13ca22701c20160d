"""Audits of losses as tables: what `hnlib.losses.audit` finds, for the chapter that compares them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from hnlib.errors import ConfigError
from hnlib.experiments.config import load_experiment, load_profile
from hnlib.files import write_table
from hnlib.losses import LOSSES, Audit, audit, build_loss
from hnlib.losses.audit_scene import CLASSES, make_target

#: K of Hosseini 2024's figures, and those between at which the cut is lowest.
PERCENTS = (100, 90, 70, 50, 30, 10)
#: TopK Dice with each denominator, one name a K.
SWEEPS = tuple(f"topk_dice(percent={k}{form})" for form in ("", ",squared=false") for k in PERCENTS)
#: Where the experiments that compare losses are listed.
PROFILE, ARMS = "laptop", "losses"


def audited_losses() -> tuple[str, ...]:
    """Return the losses of the book: every name, the sweeps over K, and what the experiments on losses train with."""
    trained = [load_experiment(name).loss for name in load_profile(PROFILE).experiments(ARMS)]
    return tuple(dict.fromkeys([*LOSSES, *SWEEPS, *trained]))


def audit_losses(names: Sequence[str], num_classes: int = len(CLASSES)) -> Iterator[tuple[str, Audit]]:
    """Audit losses by name; weights by class come from the audit's own scene, an absent class as rare as the rarest.

    Raises
    ------
    ConfigError
        When a name cannot be read, or a loss is for another number of classes.
    """
    counts = [int((make_target() == label).sum()) for label in range(num_classes)]
    class_voxels = [count or min(filter(None, counts)) for count in counts]
    built = {name: build_loss(name, class_voxels=class_voxels) for name in names}
    for name, loss in built.items():
        try:
            found = audit(loss, num_classes=num_classes)
        except ValueError as fault:
            raise ConfigError(f"loss '{name}': {fault}") from fault
        yield name, found


def write_audits(
    folder: Path, names: Sequence[str], num_classes: int = len(CLASSES), *, report: Callable[[str], None] = print
) -> None:
    """Write ``audit.csv``, one row an observation, and ``warnings.csv``, one row a loss; some 4 s a loss."""
    rows, warnings = [], []
    for name, found in audit_losses(names, num_classes):
        rows += [{"loss": name, **row} for row in found.rows]
        warnings.append({"loss": name, "warning": "; ".join(found.warnings)})
        report(f"{name}: {warnings[-1]['warning'] or 'no warning'}")
    write_table(folder / "audit.csv", pd.DataFrame(rows))
    write_table(folder / "warnings.csv", pd.DataFrame(warnings))
