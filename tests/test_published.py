"""The status of published tables: recorded, found stale for each reason, accepted with a reason."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.main import get_command

from hnlib.cli import app, main
from hnlib.errors import DataError
from hnlib.experiments import load_experiment, load_profile
from hnlib.experiments import published as module
from hnlib.experiments.digests import run_digest
from hnlib.experiments.published import RECORD, plain_code, record, runs_status, status

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Published tables of two data sets, recorded."""
    for name in ("openkbp/metrics", "phantom/dataset"):
        path = tmp_path / f"{name}.csv"
        path.parent.mkdir()
        path.write_text("case,value\na,1\nb,2\n")
    assert record(tmp_path, "2026-01-02", "published") == ["openkbp/metrics", "phantom/dataset"]
    return tmp_path


def stale(folder: Path) -> dict[str, str]:
    found = status(folder)
    return dict(zip(found["table"], found["stale"], strict=True))


def test_what_is_recorded_is_not_stale(folder: Path) -> None:
    assert set(stale(folder).values()) == {""}
    assert list(status(folder)["rows"]) == [2, 2]
    assert list(status(folder)["date"]) == ["2026-01-02"] * 2


def test_the_reasons_of_a_plan_are_published_too(folder: Path) -> None:
    """Beside plan.csv, by a name of their own; other files of JSON are no tables."""
    for name in ("plan.csv", "plan.json", "study.json"):
        (folder / "openkbp" / name).write_text("{}\n")
    assert record(folder, "2026-01-03", "published") == ["openkbp/plan", "openkbp/plan.json"]
    (folder / "openkbp" / "plan.json").write_text('{"reasons": ["other"]}\n')
    assert stale(folder)["openkbp/plan.json"] == "content changed since its record"
    assert stale(folder)["openkbp/plan"] == ""


def test_a_table_that_changed_without_a_record_is_stale(folder: Path) -> None:
    (folder / "openkbp" / "metrics.csv").write_text("case,value\na,9\n")
    assert stale(folder) == {"openkbp/metrics": "content changed since its record", "phantom/dataset": ""}


def test_a_new_table_is_not_recorded(folder: Path) -> None:
    (folder / "phantom" / "imbalance.csv").write_text("x\n1\n")
    assert stale(folder)["phantom/imbalance"] == "not recorded"


def test_every_published_table_names_its_code(tmp_path: Path) -> None:
    """The code of the losses is on the path of their audit; a table that nobody listed is refused, not passed over."""
    names = {path.stem for _, path in module.tables_of(ROOT / "results" / "published")}
    assert names <= set(module.CODE)
    assert module.CODE["audit"] == ("losses",)
    assert all(module.code_digest(units) for units in module.CODE.values())
    with pytest.raises(FileNotFoundError, match="no module or package moods"):
        module.code_digest(("losses", "moods"))
    path = tmp_path / "openkbp" / "moods.csv"
    path.parent.mkdir()
    path.write_text("x\n1\n")
    with pytest.raises(DataError, match=r"moods\.csv: no code is named for this table"):
        record(tmp_path, "2026-01-02", "published")


def test_code_that_changed_is_found_and_accepted_with_a_reason(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The date of publication stays; the reason and the day of the acceptance are kept beside it."""
    monkeypatch.setitem(module.CODE, "metrics", ("metrics",))
    assert stale(folder)["openkbp/metrics"] == "code on its path changed"
    assert record(folder, "2026-03-04", "same numbers", ["openkbp/metrics"]) == ["openkbp/metrics"]
    assert stale(folder)["openkbp/metrics"] == ""
    entry = json.loads((folder / RECORD).read_text())["openkbp/metrics"]
    assert (entry["date"], entry["accepted"], entry["reason"]) == ("2026-01-02", "2026-03-04", "same numbers")


def test_words_and_layout_are_no_code() -> None:
    plain = "def f(x):\n    return x + 1\n"
    dressed = '"""A module."""\n\ndef f(x):  # adds\n    """Add."""\n    return (x\n            + 1)\n'
    assert plain_code(plain) == plain_code(dressed)
    assert plain_code(plain) != plain_code(plain.replace("1", "2"))


def test_what_makes_a_table_exists(folder: Path) -> None:
    """A script of the repository or a command; that of its folder goes before that of its name."""
    commands = {f"hnlib {name}" for name in get_command(app).commands}  # type: ignore[attr-defined]
    makers = {module.made_by(name) for name, _ in module.tables_of(ROOT / "results" / "published")}
    assert all(maker in commands or (ROOT / maker).is_file() for maker in makers)
    assert list(status(folder)["made_by"]) == ["hnlib publish"] * 2
    assert module.made_by("tcia/landscape") != module.made_by("openkbp/landscape") == "hnlib publish"


def test_versions_are_kept_until_the_content_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = status(folder)["versions"].iloc[0]
    assert "numpy=" in first
    monkeypatch.setattr(module, "_versions", lambda: "numpy=9")
    monkeypatch.setitem(module.CODE, "metrics", ("metrics",))
    record(folder, "2026-03-04", "same numbers")
    assert status(folder)["versions"].iloc[0] == first
    (folder / "openkbp" / "metrics.csv").write_text("case,value\na,9\n")
    record(folder, "2026-03-05", "published")
    assert status(folder)["versions"].iloc[0] == "numpy=9"


STRINGS = """x = f"{a:{b}{c}}" f"" u"k" f"{d!r:>{w}.2f}" f"{e = }" "{}"
def f(*, y=None): return {**x, None: [1e400, 2j, "\u2022"]}
"""


def test_the_digest_of_code_is_the_same_under_every_python() -> None:
    """Python 3.12 adds fields and pieces of f-strings, 3.13 leaves fields out; this was computed with all three."""
    assert hashlib.blake2b(plain_code(STRINGS).encode(), digest_size=8).hexdigest() == "288196f25c984fde"
    assert "kind" not in plain_code(STRINGS)


@pytest.mark.parametrize(
    "changed", [STRINGS.replace("2f", "3f"), STRINGS.replace("None:", "0:"), STRINGS.replace("2j", "3j")]
)
def test_the_digest_of_code_sees_f_strings_and_none(changed: str) -> None:
    assert plain_code(changed) != plain_code(STRINGS)


def test_a_run_whose_experiment_or_data_changed_is_stale(tmp_path: Path) -> None:
    """Digests as the published runs of the phantom have them; then one of another experiment, and other data."""
    source = ROOT / "results" / "published" / "phantom"
    shutil.copy(source / "runs.csv", tmp_path)
    shutil.copy(source / "study.json", tmp_path)
    runs = pd.read_csv(tmp_path / "runs.csv")
    runs = runs[runs["profile"] == json.loads((tmp_path / "study.json").read_text())["profile"]]  # whose data lie here
    runs.to_csv(tmp_path / "runs.csv", index=False)
    before = runs_status(tmp_path / "runs.csv")["stale"]
    runs["digests"] = runs["digests"].str.replace(r"run=\w+", "run=00000000", regex=True)
    runs.to_csv(tmp_path / "runs.csv", index=False)
    after = runs_status(tmp_path / "runs.csv")["stale"]
    assert all("experiment or profile changed" in text for text in after)
    assert not any("data changed" in text for text in before)
    about = json.loads((tmp_path / "study.json").read_text())
    (tmp_path / "study.json").write_text(json.dumps({**about, "data_digest": "other"}))
    assert all("data changed" in text for text in runs_status(tmp_path / "runs.csv")["stale"])


def test_a_network_planned_for_another_patch_is_known_by_that_patch(tmp_path: Path) -> None:
    """The digest of small_patch_same_net holds the large patch, which a run beside it tells."""
    settings, experiment = load_profile("laptop"), load_experiment("small_patch_same_net")
    digest = run_digest(experiment, settings, (32, 20, 64), "c", (64, 40, 64))
    one = {"profile": "laptop", "experiment": "small_patch_same_net", "seed": 0, "patch": "32 x 20 x 64", "seconds": 1}
    one |= {"hardware": "", "versions": "", "digests": f"run={digest} data=d cache=c"}
    other = one | {"experiment": "large_nnu_dice_ce", "patch": "64 x 40 x 64"}
    for rows, said in (([one, other], ""), ([one], "no run with the large patch is published beside it")):
        pd.DataFrame(rows).to_csv(tmp_path / "runs.csv", index=False)
        assert said in runs_status(tmp_path / "runs.csv")["stale"].iloc[0]
        assert bool(said) == bool(runs_status(tmp_path / "runs.csv")["stale"].iloc[0])
    assert digest != run_digest(experiment, settings, (32, 20, 64), "c", (64, 40, 80))


def test_the_command_fails_where_something_is_stale(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for expected in (0, 1):
        with pytest.raises(SystemExit) as stop:
            main(["check-published", "--published", str(folder)])
        assert stop.value.code == expected
        (folder / "phantom" / "dataset.csv").write_text("case\n")
    assert "stale: phantom/dataset: content changed" in capsys.readouterr().out
