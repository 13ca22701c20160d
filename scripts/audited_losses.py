"""Make the table from which ``hnlib report`` chooses a loss: src/hnlib/data/audited_losses.csv.

    python scripts/audited_losses.py [--out FILE]

audits the losses below with the defaults of `hnlib.losses.audit`, half a minute each, and keeps of each what the rule
of `hnlib.report.losses` reads.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from hnlib.files import write_table
from hnlib.losses import audit, build_loss
from hnlib.report.losses import KEPT

OUT = Path(__file__).resolve().parents[1] / "src" / "hnlib" / "data" / "audited_losses.csv"
#: The first is taken where nothing speaks against it.
LOSSES = ("nnu_dice+ce", "dice+ce", "ca_dice+ce", "topk_dice+ce", "ce")


def audit_row(name: str) -> dict[str, str | float]:
    """Audit a loss and return its row of the table."""
    rows = audit(build_loss(name)).rows
    found: dict[str, str | float] = {"loss": name}
    for column, (check, measure, prediction, label) in KEPT.items():
        wanted = {"check": check, "measure": measure, "prediction": prediction, "class": label}
        (found[column],) = (row["value"] for row in rows if all(row[key] == value for key, value in wanted.items()))
    return found


def main() -> None:
    """Audit and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    write_table(parser.parse_args().out, pd.DataFrame([audit_row(name) for name in LOSSES]))


if __name__ == "__main__":
    main()
