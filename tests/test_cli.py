"""Commands: a user's fault is one line on the error stream, status 2, and no traceback."""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pandas as pd
import pytest
import torch
from damage import full_disk
from nbformat.v4 import new_code_cell, new_notebook
from scanfiles import head, organ_mask, write_head
from typer.main import get_command

from hnlib.cli import app, main
from hnlib.datasets import FolderDataset
from hnlib.errors import ConfigError
from hnlib.experiments import Study
from hnlib.experiments.notebooks import parse_parameters, run_notebook
from hnlib.files import write_table
from hnlib.losses import build_loss


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("hnlib: ")
    return lines[0]


def test_unknown_dataset_profile_and_missing_root(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "study.json"))
    assert "unknown dataset 'phanton'" in fails(capsys, "prepare", "phanton", "tiny", *out)
    assert "unknown profile 'tinny'" in fails(capsys, "prepare", "phantom", "tinny", *out)
    assert "DATA_ROOT" in fails(capsys, "prepare", "openkbp", "laptop", *out)
    assert "no folder" in fails(capsys, "prepare", "openkbp", "laptop", "--data-root", "/nowhere", *out)
    assert not (tmp_path / "study.json").exists()


def test_a_broken_patient_stops_preparation_with_nothing_written(
    capsys: pytest.CaptureFixture[str], small_openkbp: Path, tmp_path: Path
) -> None:
    path = small_openkbp / "train-pats" / "pt_1" / "ct.csv"
    path.write_text(path.read_text()[:-2])
    path.write_text(path.read_text() + "9,\n")
    out = tmp_path / "out" / "study.json"
    line = fails(capsys, "prepare", "openkbp", "laptop", "--data-root", str(small_openkbp), "--out", str(out))
    assert "case pt_1" in line
    assert "ct.csv" in line
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("train study.json a -1", "a number below 0 stands where one of at least 0 is needed; see hnlib train --help"),
        ("train study.json a one", "it must be a valid integer|is not a valid integer"),
        ("train study.json a 0 --devices 0", "'?--devices'?: .*1.*; see hnlib train --help"),
        ("train study.json", "Missing argument .*; see hnlib train --help"),
        ("trian study.json a 0", "No such command 'trian'.*; see hnlib --help"),
        ("prepare phantom tiny --oot study.json", "No such option: --oot .*; see hnlib prepare --help"),
    ],
)
def test_a_command_that_cannot_be_read_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: str, text: str
) -> None:
    assert re.search(text, fails(capsys, *arguments.split()))


def test_no_command_is_answered_by_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    printed = capsys.readouterr()
    assert "prepare" in printed.out + printed.err
    assert "hnlib: " not in printed.out + printed.err


def test_every_argument_and_option_has_a_help_text() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    silent = [
        (name, parameter.name)
        for name, command in commands.items()
        for parameter in command.params
        if not parameter.help or not command.help
    ]
    assert commands
    assert not silent


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        (BrokenProcessPool(), 2, "a process was killed, most likely for want of memory"),
        (MemoryError(), 2, "there is not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 2, "there is not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "there is not enough memory"),
        (KeyboardInterrupt(), 130, "stopped; give the same command again"),
    ],
)
def test_what_stops_a_command_from_outside_is_one_line(
    fault: BaseException, status: int, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr("hnlib.experiments.prepare_study", stop)
    with pytest.raises(SystemExit) as caught:
        main(["prepare", "phantom", "tiny", "--out", "study.json"])
    assert caught.value.code == status
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"hnlib: {text}")


@pytest.mark.usefixtures("clean_names")
def test_modules_of_ones_own_are_imported_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loss that a file in the working folder registers is known to the commands; a wrong file is one line."""
    monkeypatch.chdir(tmp_path)
    text = "import torch\nfrom hnlib import losses\nlosses.register_loss('of_my_own', torch.nn.CrossEntropyLoss)\n"
    (tmp_path / "my_losses_here.py").write_text(text)
    monkeypatch.setenv("HNLIB_IMPORT", "my_losses_here")
    monkeypatch.setattr("sys.path", [*sys.path])
    with pytest.raises(SystemExit) as caught:
        main(["version"])
    assert caught.value.code == 0
    assert isinstance(build_loss("of_my_own"), torch.nn.Module)
    monkeypatch.setenv("HNLIB_IMPORT", "no_such_module")
    assert "HNLIB_IMPORT: module 'no_such_module' cannot be imported" in fails(capsys, "version")


def test_a_missing_study_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "run hnlib prepare first" in fails(capsys, "train", str(tmp_path / "none.json"), "large_nnu_dice_ce", "0")


def test_prepare_writes_a_study(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["prepare", "phantom", "tiny", "--out", str(tmp_path / "study.json")])
    assert caught.value.code == 0
    assert json.loads((tmp_path / "study.json").read_text())["dataset"] == "phantom"
    assert "3 train, 1 validation, 2 test" in capsys.readouterr().out


def test_prepare_says_whom_the_profile_leaves_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Eight cases: five to train, of which tiny takes three; one validates, two test."""
    for k in range(8):
        write_head(tmp_path / "data" / f"c{k}" / "image.nii.gz", head(k))
        write_head(tmp_path / "data" / f"c{k}" / "jaw.nrrd", organ_mask("mandible"))
    (tmp_path / "data" / "hnlib.yaml").write_text("organs: {mandible: jaw}\n")
    training = FolderDataset(tmp_path / "data").split()["train"]
    out = str(tmp_path / "study.json")
    with pytest.raises(SystemExit):
        main(["prepare", "folder", "tiny", "--data-root", str(tmp_path / "data"), "--out", out])
    said = capsys.readouterr().out
    assert f"left out of train by num_cases of profile tiny: 2 cases ({training[3]}, {training[4]})\n" in said
    assert said.count("left out") == 1


def test_a_fault_of_the_file_system_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a place that writes files, and from one that says nothing more about it."""
    (tmp_path / "file").write_text("in the way of a folder")
    line = fails(capsys, "prepare", "phantom", "tiny", "--out", str(tmp_path / "file" / "study.json"))
    assert line.startswith(f"hnlib: file {tmp_path}/file/study.json: cannot be written (")

    def broken(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/data/secret")

    monkeypatch.setattr("hnlib.experiments.load_study", broken)
    line = fails(capsys, "train", str(tmp_path / "study.json"), "large_nnu_dice_ce", "0")
    assert line.startswith("hnlib: /data/secret: Permission denied; check that it is there")


def test_tables_on_a_full_disk_stay_as_they_were(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path / "a.csv", pd.DataFrame({"value": [1]}))
    before = (tmp_path / "a.csv").read_bytes()

    def write(_study: object, out: Path) -> None:
        write_table(out / "a.csv", pd.DataFrame({"value": range(999)}))

    monkeypatch.setattr("hnlib.experiments.load_study", lambda _path: SimpleNamespace(dataset="folder"))
    monkeypatch.setattr("hnlib.experiments.write_tables", write)
    with full_disk():
        line = fails(capsys, "tables", "study.json", "--out", str(tmp_path))
    assert line.startswith(f"hnlib: file {tmp_path / 'a.csv'}: cannot be written (")
    assert (tmp_path / "a.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_study_of_another_version_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_study: Study
) -> None:
    tiny_study.save(tmp_path / "study.json")
    monkeypatch.setattr("hnlib.cache.VERSION", 99)
    line = fails(capsys, "train", str(tmp_path / "study.json"), "large_nnu_dice_ce", "0")
    assert "is of another version of hnlib; run hnlib prepare again" in line


def small_notebook(path: Path, code: str) -> Path:
    cells = [new_code_cell("number: int = 1", metadata={"tags": ["parameters"]}), new_code_cell(code)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return path


def test_notebook_parameters_are_read_as_yaml() -> None:
    assert parse_parameters(["a=3", "b=x", "c="]) == {"a": 3, "b": "x", "c": ""}
    with pytest.raises(ConfigError, match="name=value"):
        parse_parameters(["a"])


def test_an_unknown_notebook_parameter_is_refused(tmp_path: Path) -> None:
    source = small_notebook(tmp_path / "a.ipynb", "print(number)")
    with pytest.raises(ConfigError, match=r"unknown parameter of a\.ipynb 'numbr': did you mean 'number'"):
        run_notebook(source, tmp_path / "b.ipynb", {"numbr": 2})
    assert not (tmp_path / "b.ipynb").exists()


@pytest.mark.slow
def test_a_notebook_runs_with_its_parameters_and_prints_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = small_notebook(tmp_path / "a.ipynb", "print('number is', number)")
    run_notebook(source, tmp_path / "out" / "b.ipynb", {"number": 2})
    assert "number is 2" in capsys.readouterr().out
    injected = [
        c
        for c in nbformat.read(tmp_path / "out" / "b.ipynb", 4).cells
        if "injected-parameters" in c.metadata.get("tags", [])
    ]
    assert [c.source for c in injected] == ["# as set for this page\nnumber = 2"]


@pytest.mark.slow
def test_a_failing_notebook_is_told_in_one_line_and_kept(tmp_path: Path) -> None:
    source = small_notebook(tmp_path / "a.ipynb", "raise RuntimeError('no luck')")
    with pytest.raises(ConfigError, match=r"notebook a\.ipynb: RuntimeError: no luck; see .*b\.ipynb"):
        run_notebook(source, tmp_path / "b.ipynb", {})
    assert (tmp_path / "b.ipynb").exists()


def test_what_is_kept_is_listed_and_removed_by_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("cache", "runs"):
        monkeypatch.setenv(f"HNLIB_{kind.upper()}", str(tmp_path / kind))
    scan = tmp_path / "cache" / "phantom-0a" / "case.b2nd"
    model = tmp_path / "runs" / "phantom" / "tiny" / "a" / "model.safetensors"
    for path, size in ((scan, 2_000_000), (model, 500_000)):
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(size))

    def lists() -> list[list[str]]:
        with pytest.raises(SystemExit) as caught:
            main(["cache"])
        assert caught.value.code == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()[:-1]]

    assert lists() == [["2.0", "MB", "cache/phantom-0a"], ["0.5", "MB", "runs/phantom/tiny"]]
    assert "did you mean 'cache/phantom-0a'" in fails(capsys, "cache", "--clear", "cache/phantom-0b")
    with pytest.raises(SystemExit):
        main(["cache", "--clear", "cache/phantom-0a"])
    capsys.readouterr()
    assert lists() == [["0.5", "MB", "runs/phantom/tiny"]]
    assert not scan.exists()
    assert model.exists()
