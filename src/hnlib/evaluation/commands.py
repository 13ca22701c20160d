"""The commands `hnlib evaluate` and `hnlib compare`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hnlib.console import say

if TYPE_CHECKING:  # `hnlib --help` loads no library for it
    from pandas import DataFrame

    from hnlib.evaluation.measure import Rules

Folder = Annotated[Path, typer.Argument(help="folder of label maps, such as nnU-Net's output")]
Reference = Annotated[Path, typer.Argument(help="folder of reference label maps of the same names")]
Organs = Annotated[
    str, typer.Option(help="organs by comma in the order of their values; default: what a file there says")
]
Absent = Annotated[
    bool, typer.Option("--absent", help="an organ without a voxel in the reference is not in the patient")
]
Common = Annotated[
    bool, typer.Option("--common", help="take the cases that all folders have, and say which are left out")
]
Workers = Annotated[int, typer.Option(help="cases at a time; 0: one a core, 8 at most", min=0)]
Out = Annotated[Path, typer.Option(help="folder for the tables and the page")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""

    def progress(name: str, done: int, total: int) -> None:
        if done == total or done % max(1, total // 10) == 0:
            say(f"{name}: {done} of {total} cases")

    @app.command()
    def evaluate(
        prediction: Folder,
        reference: Reference,
        out: Out = Path("evaluation"),
        organs: Organs = "",
        absent: Absent = False,
        common: Common = False,
        workers: Workers = 0,
    ) -> None:
        """Measure predictions of any tool against a reference: one table, one page."""
        from hnlib.evaluation.measure import Rules, evaluate_folders
        from hnlib.evaluation.page import evaluation_page

        rules = Rules(organs, absent, common, workers)
        found = evaluate_folders(prediction, reference, rules, progress=progress)
        page = evaluation_page(found, _command("evaluate", (prediction, reference), rules))
        _finish(out, {"metrics": found.metrics, "left_out": found.left_out}, page, found.notes)

    @app.command()
    def compare(
        first: Folder,
        second: Folder,
        reference: Reference,
        out: Out = Path("comparison"),
        organs: Organs = "",
        absent: Absent = False,
        common: Common = False,
        workers: Workers = 0,
    ) -> None:
        """Compare two folders of predictions on the same cases: paired differences, first minus second."""
        from hnlib.evaluation.measure import Rules, compare_folders
        from hnlib.evaluation.page import comparison_page

        rules = Rules(organs, absent, common, workers)
        found = compare_folders(first, second, reference, rules, progress=progress)
        page = comparison_page(found, _command("compare", (first, second, reference), rules))
        _finish(
            out,
            {"metrics": found.metrics, "comparison": found.table, "left_out": found.left_out},
            page,
            found.notes,
        )


def _command(name: str, paths: Sequence[Path], rules: Rules) -> str:
    """Return the command as a reader can give it again."""
    options = ["--organs", shlex.quote(rules.organs)] if rules.organs else []
    options += [f"--{flag}" for flag, on in (("absent", rules.absent), ("common", rules.common)) if on]
    return " ".join(["hnlib", name, *(shlex.quote(str(path)) for path in paths), *options])


def _finish(out: Path, tables: Mapping[str, DataFrame], page: str, notes: tuple[str, ...]) -> None:
    from hnlib.files import write_table, write_text

    for name, table in tables.items():
        write_table(out / f"{name}.csv", table)
    write_text(out / "report.html", page)
    for note in notes:
        say(f"note: {note}")
    say(f"tables and page in {out}: open {out / 'report.html'}")
