"""The commands `hnlib report`, `new-study` and `demo`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hnlib.console import progress, say

Memory = Annotated[str, typer.Option(help="memory of a training step, such as 11GB")]
MOST_CASES = 20


@dataclass(frozen=True)
class Wanted:
    """What a report is about, and where it goes."""

    root: Path
    out: Path
    memory: str
    cases: int = MOST_CASES
    experiment: Path | None = None


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""

    @app.command()
    def report(
        root: Annotated[Path, typer.Argument(help="labelled folder: a folder a case, or nnU-Net's raw data set")],
        out: Annotated[Path, typer.Option(help="the page; it needs no other file")] = Path("report.html"),
        memory: Memory = "8GB",
        cases: Annotated[int, typer.Option(help="most training cases that the plan reads", min=1)] = MOST_CASES,
        experiment: Annotated[Path | None, typer.Option(help="the recommendation as an experiment, YAML")] = None,
    ) -> None:
        """Say what labelled scans are like, and which patch, loss and sampling fit them: one HTML page."""
        write_report(Wanted(root, out, memory, cases, experiment))

    @app.command("new-study")
    def new_study_command(
        name: Annotated[Path, typer.Argument(help="folder that is made")],
        scans: Annotated[
            Path | None, typer.Option(help="folder with hnlib.yaml and a folder a case, or nnU-Net's raw data")
        ] = None,
        organs: Annotated[str, typer.Option(help="organs by comma, where there are no scans yet")] = "",
    ) -> None:
        """Start a study of your own organs: configuration, experiments, notebooks, workflow."""
        from hnlib.report.new_study import new_study

        place = new_study(name, scans=scans, organs=[part.strip() for part in organs.split(",") if part.strip()])
        say(f"study {name}; scans {place}; next: cd {name} && snakemake --cores 2")

    @app.command()
    def demo(
        to: Annotated[Path, typer.Option(help="folder for scans and report")] = Path("demo"),
        memory: Memory = "8GB",
    ) -> None:
        """Write labelled scans of a phantom and a report on them: a first look that needs no data."""
        from hnlib.report.demo import write_demo

        write_demo(to / "scans", progress=progress)
        write_report(Wanted(to / "scans", to / "report.html", memory))
        say(f"next: hnlib new-study my_study --scans {to / 'scans'}")


def write_report(wanted: Wanted) -> None:
    """Measure a labelled folder and write its page."""
    from hnlib.files import write_text
    from hnlib.imbalance import Limits
    from hnlib.imbalance.report import read_size
    from hnlib.report.labelled import open_labelled
    from hnlib.report.measure import measure
    from hnlib.report.page import experiment_text, report_page
    from hnlib.training import choose_precision

    limits = Limits(read_size(wanted.memory), precision=choose_precision("auto"))
    found = measure(open_labelled(wanted.root), limits, most_cases=wanted.cases, progress=progress)
    command = f"hnlib report {shlex.quote(wanted.root.name)} --memory {wanted.memory} --cases {wanted.cases}"
    write_text(wanted.out, report_page(found, command))
    for note in found.notes:
        say(f"note: {note}")
    if wanted.experiment is not None and found.plan is not None:
        write_text(wanted.experiment, experiment_text(found))
        say(f"experiment {wanted.experiment}")
    say(f"report {wanted.out}")
