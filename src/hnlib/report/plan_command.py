"""The command `hnlib plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hnlib.console import progress, say

if TYPE_CHECKING:  # `hnlib --help` loads no library for it
    from hnlib.cases import Dataset
    from hnlib.imbalance.candidates import Vector


def plan(
    data: Annotated[str, typer.Argument(help="folder with hnlib.yaml and labelled cases, or name of a data set")],
    memory: Annotated[str, typer.Option(help="memory of a training step, such as 11GB")],
    data_root: Annotated[str, typer.Option(help="folder of the data; the phantom needs none")] = "",
    measure: Annotated[str, typer.Option(help="measure of imbalance")] = "sightings",
    aim: Annotated[
        str, typer.Option(help="what the draw of centres is best for: presence, voxels, shares")
    ] = "presence",
    min_uniform: Annotated[float, typer.Option(help="least share of patches anywhere")] = 1 / 3,
    target: Annotated[list[str] | None, typer.Option(help="share of an organ for the aim shares: mandible=0.2")] = None,
    organ_box: Annotated[float, typer.Option(help="share of the largest organ's box that a patch is to hold")] = 0.9,
    network: Annotated[str, typer.Option(help="dynunet or slim_dynunet")] = "dynunet",
    width: Annotated[int, typer.Option(help="channels of the finest level")] = 32,
    cap: Annotated[int, typer.Option(help="most channels of a level")] = 320,
    min_levels: Annotated[int, typer.Option(help="least number of levels of the network")] = 3,
    max_aspect: Annotated[float, typer.Option(help="longest over shortest edge of a patch, in mm")] = 2.0,
    precision: Annotated[str, typer.Option(help="auto, float32 or bf16")] = "auto",
    voxels_per_step: Annotated[int | None, typer.Option(help="of every plan; by default what the memory holds")] = None,
    spacing_mm: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="grid of the plan along X, Y, Z; by default that of a study", metavar="X Y Z"),
    ] = None,
    cases: Annotated[int | None, typer.Option(help="at most so many training cases", min=1)] = None,
    outlines_only: Annotated[bool, typer.Option("--outlines-only", help="read no CT; scans are not cropped")] = False,
    out: Annotated[Path | None, typer.Option(help="the plan as an experiment, YAML")] = None,
    nnunet: Annotated[Path | None, typer.Option(help="nnUNetPlans.json; the plan goes beside it")] = None,
) -> None:
    """Plan patch size, batch, network and draw of centres for a memory, with reasons."""
    from hnlib import imbalance
    from hnlib.files import write_json, write_text
    from hnlib.imbalance import report

    wish = imbalance.Wish(measure, aim, min_uniform, report.read_targets(target), organ_box)
    bytes_, arithmetic = report.read_size(memory), _precision(precision)
    most = {"voxels_per_step": voxels_per_step, "min_levels": min_levels, "max_aspect": max_aspect}
    limits = imbalance.Limits(bytes_, network, width, cap, arithmetic, **most)  # type: ignore[arg-type]
    plans = None if nnunet is None else imbalance.read_nnunet(nnunet)
    found = _opened(data, data_root)
    spacing, scans = imbalance.scans_on_grid(
        found,
        imbalance.planning_cases(found)[:cases],
        spacing_mm=_grid(spacing_mm, plans),
        outlines_only=outlines_only,
        progress=progress,
    )
    planned = imbalance.plan(scans, spacing, limits, wish, progress=progress)
    for line in (*report.lines(planned), report.CAUTION):
        say(line)
    if out is not None:
        write_text(out, imbalance.to_yaml(planned, title=out.stem.replace("_", " ")))
        say(f"experiment {out}")
    if nnunet is not None and plans is not None:
        beside = nnunet.with_name(f"{nnunet.stem}_hnlib.json")
        write_json(beside, imbalance.to_nnunet(planned, plans))
        say(f"nnU-Net's plans {beside}: train with -p {beside.stem}")


def _precision(wanted: str) -> str:
    from hnlib.errors import unknown
    from hnlib.training import choose_precision

    if wanted not in ("auto", "float32", "bf16"):
        raise unknown("precision", wanted, ("auto", "float32", "bf16"))
    return choose_precision(wanted)


def _opened(data: str, data_root: str) -> Dataset:
    from hnlib.datasets import DATASETS, open_dataset
    from hnlib.errors import unknown
    from hnlib.report.labelled import open_labelled

    if data in DATASETS:
        return open_dataset(data, data_root or None)
    if not Path(data).is_dir():
        raise unknown("folder or data set", data, DATASETS)
    return open_labelled(Path(data))


def _grid(spacing_mm: Vector | None, plans: dict[str, Any] | None) -> Vector | None:
    """Return the grid that was asked for, or that of nnU-Net's plans, before hours are spent on another."""
    from hnlib.errors import ConfigError
    from hnlib.imbalance import nnunet_spacing

    if plans is None:
        return spacing_mm
    own = nnunet_spacing(plans)
    if spacing_mm and any(abs(a - b) > 0.01 * b for a, b in zip(spacing_mm, own, strict=True)):
        text = " ".join(f"{mm:g}" for mm in own)
        raise ConfigError(f"--spacing-mm is not the grid of nnU-Net's plans, {text}; leave it out")
    return own
