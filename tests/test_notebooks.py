"""Every notebook runs top to bottom in a fresh kernel with its defaults, as a reader would open it."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from hnlib.experiments.notebooks import run_notebook

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_with_its_defaults(path: Path, tmp_path: Path) -> None:
    run_notebook(path, tmp_path / path.name, {})
    cells = [cell for cell in nbformat.read(tmp_path / path.name, 4).cells if cell.cell_type == "code"]
    streams = [out for cell in cells for out in cell.outputs if out.output_type == "stream" and out.name == "stderr"]
    assert not streams, streams
    figures = [cell for cell in cells if "mystnb" in cell.metadata]
    assert figures
    for cell in figures:
        assert any("image/png" in out.get("data", {}) for out in cell.outputs), cell.source


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_on_the_published_study_of_real_scans(path: Path, tmp_path: Path) -> None:
    tables = ROOT / "results" / "published" / "openkbp"
    if not (tables / "metrics.csv").exists():
        pytest.skip("results/published/openkbp holds no runs yet")
    run_notebook(path, tmp_path / path.name, {"tables": str(tables)})
    text = (tmp_path / path.name).read_text()
    assert "OpenKBP" in text
    assert "{data}" not in text
