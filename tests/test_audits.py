"""Audits as tables: every loss of the book is in them, and a row says what the audit itself says."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from hnlib.cli import main
from hnlib.errors import ConfigError
from hnlib.experiments import load_experiment, load_profile
from hnlib.experiments.audits import SWEEPS, audit_losses, audited_losses, write_audits
from hnlib.losses import LOSSES, audit, build_loss

PUBLISHED = Path(__file__).resolve().parents[1] / "results" / "published" / "losses"


def test_every_name_every_k_and_every_trained_loss_is_audited_once() -> None:
    names = audited_losses()
    assert len(names) == len(set(names))
    assert set(LOSSES) | set(SWEEPS) <= set(names)
    assert {load_experiment(name).loss for name in load_profile("laptop").arms["losses"]} <= set(names)
    assert "topk_dice(percent=30,squared=false)" in SWEEPS


def test_tables_hold_what_the_audit_finds(tmp_path: Path) -> None:
    """Warnings too; weights by class come from the scene: 8000 and 40 voxels of 64^3, the absent class as 40."""
    told: list[str] = []
    write_audits(tmp_path, ["weighted_ce", "dice_sample_organs_skip"], report=told.append)
    table = pd.read_csv(tmp_path / "audit.csv")
    assert list(table["loss"].unique()) == ["weighted_ce", "dice_sample_organs_skip"]
    expected = audit(build_loss("weighted_ce", class_voxels=(64**3 - 8040, 8000, 40, 40))).rows
    found = table[table["loss"] == "weighted_ce"]
    assert found["value"].tolist() == pytest.approx([row["value"] for row in expected], rel=1e-4)
    assert found["measure"].tolist() == [row["measure"] for row in expected]
    warnings = pd.read_csv(tmp_path / "warnings.csv", keep_default_na=False).set_index("loss")["warning"]
    assert warnings.to_dict() == {
        "weighted_ce": "",
        "dice_sample_organs_skip": "class absent: false positives cost nothing, soft or hard",
    }
    assert told[0] == "weighted_ce: no warning"


def test_an_unknown_loss_is_told_before_anything_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'nnu_dice'"):
        next(audit_losses(["ce", "nu_dice"]))
    with pytest.raises(SystemExit) as caught:
        main(["audit", "nu_dice"])
    assert caught.value.code == 2
    assert "did you mean 'nnu_dice'" in capsys.readouterr().err


def test_the_published_audit_is_of_all_losses() -> None:
    """A loss that is new, or one that an experiment trains with, has to be audited again: hnlib audit --out."""
    published = pd.read_csv(PUBLISHED / "warnings.csv")["loss"]
    assert set(published) == set(audited_losses())
    assert set(pd.read_csv(PUBLISHED / "audit.csv")["loss"]) == set(published)
