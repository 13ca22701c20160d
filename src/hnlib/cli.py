"""Commands: each does one step of the study; `make` and Snakemake call them.

A fault in data, configuration or the command itself, a full disk too, is told in one line and ends with status 2.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from concurrent.futures.process import BrokenProcessPool
from datetime import date
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from hnlib import __version__
from hnlib.console import progress, say
from hnlib.errors import ConfigError, HnlibError
from hnlib.evaluation import commands as evaluation
from hnlib.experiment_files import LARGEST_SEED
from hnlib.files import reason
from hnlib.nnunet import commands as nnunet
from hnlib.report import commands as reports
from hnlib.report.plan_command import plan

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

#: What a shell calls a command that was interrupted from the keyboard.
STOPPED = 130
NO_MEMORY = "there is not enough memory; close other programs, or take smaller scans"
#: Second panel of ``hnlib --help``.
WORKFLOW = "Steps of make and Snakemake"
#: The base of what typer raises for a command that it cannot read, in its own copy of click or in click itself.
_Unreadable: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
StudyFile = Annotated[Path, typer.Argument(help="study.json, written by hnlib prepare")]
ExperimentName = Annotated[str, typer.Argument(help="name of a file in experiments, such as large_nnu_dice_ce")]
Seed = Annotated[int, typer.Argument(help="number of the repetition, from 0", min=0, max=LARGEST_SEED)]
PublishedFolder = Annotated[Path, typer.Option(help="folder of the committed results")]
Root = Annotated[str, typer.Option(help="folder of the data; the phantom needs none")]


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="phantom, openkbp, pddca, tcia or folder")],
    profile: Annotated[str, typer.Argument(help="name of a file in experiments/profiles")],
    out: Annotated[Path, typer.Option(help="where study.json goes")],
    data_root: Root = "",
) -> None:
    """Preprocess every case once into the cache and write study.json."""
    from hnlib.experiments import left_out, prepare_study

    study = prepare_study(dataset, profile, data_root, progress=progress)
    study.save(out)
    for split, names in left_out(study).items():
        some = ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
        say(f"left out of {split} by num_cases of profile {profile}: {len(names)} cases ({some})")
    cases = ", ".join(f"{len(names)} {split}" for split, names in study.split.items())
    sizes = ", ".join(f"{name} {' x '.join(map(str, size))}" for name, size in study.patches.items())
    say(f"{dataset}/{profile}: {cases}; patches {sizes} voxels; cache {study.cache}")


@app.command()
def check(
    dataset: Annotated[str, typer.Argument(help="openkbp, pddca, tcia, folder or phantom")],
    root: Annotated[str, typer.Argument(help="folder of the data; the phantom needs none")] = "",
) -> None:
    """Read a data set once and say what is wrong, case by case; status 1 where there are problems."""
    from hnlib.datasets import open_dataset
    from hnlib.datasets.check import check_dataset

    data = open_dataset(dataset, root or None)
    problems = 0
    for finding in check_dataset(data):
        problems += finding.is_problem
        say(f"{'problem' if finding.is_problem else 'note'}: {finding.text}")
    word = "problem" if problems == 1 else "problems"
    say(f"{sum(map(len, data.split().values()))} cases read, {problems} {word} found")
    if problems:
        raise typer.Exit(1)


@app.command()
def fetch(
    dataset: Annotated[str, typer.Argument(help="pddca, openkbp or tcia")],
    to: Annotated[Path, typer.Option(help="folder for the archives and what is in them")],
    url: Annotated[str, typer.Option(help="another copy, a zip or tar file; needs --sha256")] = "",
    sha256: Annotated[str, typer.Option(help="checksum of that copy")] = "",
) -> None:
    """Download a public data set, verify and unpack it; a broken download goes on where it stopped."""
    from hnlib.datasets.fetch import fetch as fetch_dataset
    from hnlib.datasets.fetch import mirror

    fetch_dataset(dataset, to, archive=mirror(url, sha256), report=say)
    say(f"{dataset} is in {to}; next: hnlib check {dataset} {to}")


app.command()(plan)


@app.command(rich_help_panel=WORKFLOW)
def estimate(
    study_file: StudyFile, arms: Annotated[str, typer.Option(help="also the arms of the profile with this name")] = ""
) -> None:
    """Print time, memory and disk that the study's unfinished runs will take, from a few timed steps."""
    from hnlib.experiments import load_study
    from hnlib.experiments.estimate import estimate_study

    say(estimate_study(load_study(study_file), arms))


@app.command(rich_help_panel=WORKFLOW)
def describe(study_file: StudyFile, out: Annotated[Path, typer.Option(help="folder of the tables")]) -> None:
    """Write the tables and pictures that need no training: volumes, in-patch class ratios, a case."""
    from hnlib.experiments import describe_study, load_study
    from hnlib.experiments.pictures import draw_case

    study = load_study(study_file)
    describe_study(study, out, report=say)
    say(f"picture {draw_case(study, out / 'pictures')}")


@app.command()
def train(
    study_file: StudyFile,
    experiment: ExperimentName,
    seed: Seed,
    devices: Annotated[int, typer.Option(help="GPUs, or processes on CPU, that share each batch", min=1)] = 1,
) -> None:
    """Train one run, or continue it; the notebook 08_training does the same with curves."""
    from hnlib.experiments import load_study, train_run

    study = load_study(study_file)
    finished = (study.run_folder(experiment, seed) / "run.json").exists()
    run = train_run(study, experiment, seed, devices=devices, report=say)
    say(
        f"already trained, {run.record['steps']} steps; run folder {run.folder}"
        if finished
        else f"run folder {run.folder}"
    )


@app.command()
def measure(
    study_file: StudyFile,
    experiment: ExperimentName,
    seed: Seed,
    out: Annotated[Path | None, typer.Option(help="copy of the run's small record")] = None,
    again: Annotated[bool, typer.Option("--again", help="also a run that is measured, for tables added since")] = False,
) -> None:
    """Predict and measure the cases of one trained run."""
    from hnlib.experiments import load_study, measure_run
    from hnlib.experiments.scores import score_lines
    from hnlib.files import copy_file

    folder = measure_run(load_study(study_file), experiment, seed, again=again, report=say)
    if out is not None:
        copy_file(folder / "run.json", out)
    for line in score_lines(folder):
        say(line)
    say(f"tables metrics.csv and confidence.csv in {folder}")


@app.command(rich_help_panel=WORKFLOW)
def tables(study_file: StudyFile, out: Annotated[Path, typer.Option(help="folder of the tables")]) -> None:
    """Gather the finished runs of a study into tidy tables, and draw the predictions of a test case."""
    from hnlib.experiments import load_study, write_tables
    from hnlib.experiments.pictures import draw_predictions

    study = load_study(study_file)
    say(f"{study.dataset}: tables of {write_tables(study, out)} runs in {out}")
    say(f"picture {draw_predictions(study, out, out / 'pictures')}")


@app.command(rich_help_panel=WORKFLOW)
def ignored(
    study_file: StudyFile,
    experiment: ExperimentName,
    seed: Seed,
    out: Annotated[Path, typer.Option(help="folder of the pictures")],
) -> None:
    """Draw which voxels of a training case topK Dice would ignore at each K, by a finished run's network."""
    from hnlib.experiments import load_study
    from hnlib.experiments.pictures import draw_ignored

    say(f"picture {draw_ignored(load_study(study_file), experiment, seed, out)}")


@app.command(rich_help_panel=WORKFLOW)
def stages(
    study_file: StudyFile,
    experiment: ExperimentName,
    seed: Seed,
    out: Annotated[Path, typer.Option(help="folder of the pictures")],
) -> None:
    """Draw what each stage of a finished run of coarse to fine makes of a test case."""
    from hnlib.experiments import load_study
    from hnlib.experiments.pictures import draw_stages

    say(f"picture {draw_stages(load_study(study_file), experiment, seed, out)}")


@app.command(rich_help_panel=WORKFLOW)
def publish(
    study_file: StudyFile,
    results: Annotated[Path, typer.Option(help="folder of the study's results")] = Path("results"),
    published: PublishedFolder = Path("results/published"),
) -> None:
    """Copy the finished runs and data tables of a study into the committed results, run by run."""
    from hnlib.chapters.found import draw_found
    from hnlib.experiments import load_study
    from hnlib.experiments import publish as publish_study
    from hnlib.experiments.published import record

    study = load_study(study_file)
    runs, tables = publish_study(study, results, published)
    say(f"{study.dataset}: {runs} runs published in {published / study.dataset}")
    record(published, f"{date.today()}", "published", tables)
    say(f"picture {draw_found(published)}")


@app.command("check-published", rich_help_panel=WORKFLOW)
def check_published(
    published: PublishedFolder = Path("results/published"),
    accept: Annotated[str, typer.Option(help="why tables still hold though code on their path changed")] = "",
) -> None:
    """Say which published tables are stale, and why; status 1 where there are some."""
    from hnlib.experiments.published import tell_stale

    raise typer.Exit(1 if tell_stale(published, accept, say) else 0)


@app.command()
def table(
    tables_folder: Annotated[Path, typer.Argument(help="folder of a study's tables, such as results/openkbp")],
    out: Annotated[Path, typer.Option(help="folder for table1.csv and table1.tex")],
    profile: Annotated[str, typer.Option(help="whose runs; by default those of the tables' own profile")] = "",
) -> None:
    """Write the results as a paper's table, CSV and LaTeX; the best value is bold only where tests support it."""
    from hnlib.experiments.table_one import write_table_one

    for path in write_table_one(tables_folder, out, profile):
        say(f"table {path}")


@app.command()
def export(
    study_file: StudyFile,
    experiment: ExperimentName,
    seed: Seed,
    out: Annotated[Path | None, typer.Option(help="file in place of model.safetensors in the run's folder")] = None,
    half: Annotated[bool, typer.Option("--half", help="weights in half precision, half the size")] = False,
) -> None:
    """Write the model file of a trained run: all that `hnlib predict` needs."""
    from hnlib.experiments import load_study
    from hnlib.experiments.export import export_model

    say(f"model {export_model(load_study(study_file), experiment, seed, out=out, half=half)}")


@app.command()
def predict(
    image: Annotated[Path, typer.Argument(help="NIfTI, NRRD or MetaImage file, or a folder of DICOM slices")],
    out: Annotated[Path, typer.Option(help="label map, .nii.gz; names and colours go beside it")],
    model: Annotated[
        Path | None, typer.Option(help="model file, or a run's folder with one; none: the model of the package")
    ] = None,
    dicom_seg: Annotated[Path | None, typer.Option(help="also a DICOM segmentation, for DICOM slices")] = None,
    rtstruct: Annotated[Path | None, typer.Option(help="also an RT structure set, for DICOM slices")] = None,
    force: Annotated[bool, typer.Option("--force", help="also an image unlike those of training")] = False,
) -> None:
    """Outline the organs of a scan; research only, not for clinical use."""
    from hnlib.model_file import released_model
    from hnlib.predict import Outputs, predict_files

    predict_files(image, model or released_model(), Outputs(out, dicom_seg, rtstruct), force=force, report=say)


@app.command()
def losses(name: Annotated[str | None, typer.Argument(help="one of them: its options too")] = None) -> None:
    """List the names that a loss may have in an experiment, one line each."""
    from hnlib.losses import LOSSES, loss_options

    if name:
        options = "\n".join(f"    {option}={value}" for option, value in loss_options(name).items())
        say(f"{name:24} {LOSSES[name]}\n{options or '    no options'}")
    else:
        for known, description in LOSSES.items():
            say(f"{known:24} {description}")
        say("join names by +, options in brackets: 0.5*ce+topk_dice(percent=30); hnlib losses NAME lists the options")


@app.command()
def audit(
    loss: Annotated[list[str] | None, typer.Argument(help="as in an experiment; none: all of the book")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for audit.csv and warnings.csv in place of text")] = None,
    classes: Annotated[int, typer.Option(help="that the losses are for, background included", min=2)] = 4,
) -> None:
    """Measure what losses do to large, small and absent classes; some 4 s a loss."""
    from hnlib.experiments import audits

    names = loss or audits.audited_losses()
    if out is not None:
        audits.write_audits(out, names, classes, report=say)
        return
    for _, found in audits.audit_losses(names, classes):
        say(f"{found}\n")


@app.command()
def cache(clear: Annotated[str, typer.Option(help="name of a folder in the list, to be removed")] = "") -> None:
    """List preprocessed scans and run folders with their sizes, or remove one of them."""
    from hnlib.experiments import storage
    from hnlib.experiments.study import home

    if clear:
        gone = storage.clear(clear)
        say(f"removed {gone.path}, {gone.size_bytes / 1e6:.0f} MB")
        return
    for one in storage.stored_folders():
        say(f"{one.size_bytes / 1e6:10.1f} MB  {one.name}")
    say(f"in {home('cache')} and {home('runs')}; hnlib cache --clear NAME removes one")


@app.command(rich_help_panel=WORKFLOW)
def notebook(
    source: Annotated[Path, typer.Argument(help="notebook without outputs")],
    target: Annotated[Path, typer.Argument(help="where the executed copy goes")],
    parameter: Annotated[list[str] | None, typer.Option("-p", help="name=value; may be repeated")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="values and words in place of the book's markup")] = False,
) -> None:
    """Execute a notebook with parameters; an unknown one is refused."""
    from hnlib.experiments.notebooks import parse_parameters, run_notebook

    run_notebook(source, target, parse_parameters(parameter or []), plain=plain)


evaluation.register(app)
reports.register(app)
nnunet.register(app)


@app.command()
def version() -> None:
    """Print the version."""
    say(__version__)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line; a user's fault is one line on the error stream and status 2."""
    status = 2
    try:
        _import_own(os.environ.get("HNLIB_IMPORT", ""))
        status = app(args=arguments, prog_name="hnlib", standalone_mode=False) or 0
    except HnlibError as fault:
        _tell(str(fault))
    except _Unreadable as fault:
        if type(fault).__name__ != "NoArgsIsHelpError":  # the help was asked for, and printed
            _tell(_misuse(fault))
    except typer.Abort:
        status = STOPPED
    except MemoryError:
        _tell(NO_MEMORY)
    except BrokenProcessPool:
        _tell("a process was killed, most likely for want of memory; free some and give the same command again")
    except RuntimeError as fault:  # torch's own words for the same
        if not re.search(r"out of memory|can't allocate memory|not enough memory", str(fault)):
            raise
        _tell(NO_MEMORY)
    except OSError as fault:  # from a place that does not say more about it
        where = f"{fault.filename}: " if fault.filename else ""
        remedy = "check that it is there, that you may read and write it, and that the disk has space"
        _tell(f"{where}{reason(fault)}; {remedy}")
    if status == STOPPED:
        _tell("stopped; give the same command again to go on")
    raise SystemExit(status)


def _import_own(names: str) -> None:
    """Import a user's modules, by comma, so that what they register is known; from here or where Python looks."""
    for name in filter(None, map(str.strip, names.split(","))):
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        try:
            importlib.import_module(name)
        except Exception as fault:
            said = f"{type(fault).__name__}: {' '.join(str(fault).split())}"
            raise ConfigError(f"HNLIB_IMPORT: module '{name}' cannot be imported ({said})") from None


def _tell(line: str) -> None:
    typer.echo(f"hnlib: {line}", err=True)


def _misuse(fault: Any) -> str:
    """Return in one line what is wrong with a command, and how to see what it takes."""
    text = " ".join(fault.format_message().split()).rstrip(".")
    text = re.sub(r"Input should be (.*?)(, unable .*)?$", r"it must be \1", text)
    if re.fullmatch(r"-\d", getattr(fault, "option_name", "")):
        text = "a number below 0 stands where one of at least 0 is needed"
    command = fault.ctx.command_path if getattr(fault, "ctx", None) else "hnlib"
    return f"{text}; see {command} --help"


if __name__ == "__main__":
    main()
