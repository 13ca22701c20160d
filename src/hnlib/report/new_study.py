"""A folder to start a study of one's own organs from: configuration, experiments, notebooks, workflow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from hnlib.datasets.folder import SETTINGS
from hnlib.errors import ConfigError
from hnlib.experiment_files import FOUR_CONFIGURATIONS, config_folder
from hnlib.files import copy_file, write_json, write_text
from hnlib.organs import organ
from hnlib.report.labelled import open_labelled, settings_line

EXPERIMENTS = (*FOUR_CONFIGURATIONS, "recipe", "snet", "focusnet", "coarse_to_fine")
#: Chapters that need the tables of a study and nothing else.
NOTEBOOKS = ("01_dataset", "04_imbalance", "09_evaluation")
PROFILES = ("quick", "laptop")


def notebook_folder() -> Path:
    """Return the folder of the source notebooks: the checkout's, or the installed copy.

    Raises
    ------
    ConfigError
        When neither is there.
    """
    here = Path(__file__).resolve().parents[1]
    places = (here.parents[1] / "notebooks", here / "_notebooks")
    for place in places:
        if (place / f"{NOTEBOOKS[0]}.ipynb").is_file():
            return place
    raise ConfigError(f"no notebooks found at {' or '.join(map(str, places))}; install hnlib again")


def new_study(folder: Path, *, scans: Path | None = None, organs: Sequence[str] = ()) -> Path:
    """Make the folder of a study and return that of its scans.

    Parameters
    ----------
    folder
        It must not exist, or be empty.
    scans
        Folder with ``hnlib.yaml`` and a folder a case, or nnU-Net's raw data set. None makes an empty one inside,
        for ``organs``.
    organs
        Names of the organs, in label order; not with ``scans``, which name theirs.

    Raises
    ------
    ConfigError
        When the folder holds something, the organs are missing or given twice, or a name cannot be used.
    DataError
        When ``scans`` holds no case.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"folder {folder}: is there and not empty; choose another name")
    if (scans is None) == (not organs):
        raise ConfigError(
            "a new study needs either --scans, a folder with hnlib.yaml or nnU-Net's raw data set, or "
            "--organs brainstem,thyroid,..."
        )
    if scans is None:
        place = "scans"
        names = tuple(organ(name).name for name in organs)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"--organs: {', '.join(twice)} given twice; name each organ once")
        write_text(folder / place / SETTINGS, _settings(names))
    else:
        found = open_labelled(scans)
        if found.named_in == SETTINGS and not (scans / SETTINGS).is_file():
            raise ConfigError(f"folder {scans}: has no {SETTINGS}; write there {settings_line(found.settings)}")
        place, names = str(scans.resolve()), found.organs
    _write_files(folder, place, names)
    return scans or folder / place


def _write_files(folder: Path, scans: str, organs: Sequence[str]) -> None:
    source = files("hnlib.data").joinpath("new_study")
    titles = ", ".join(organ(name).title for name in organs)
    readme = source.joinpath("README.md").read_text("utf-8").format(name=folder.name, organs=titles, scans=scans)
    write_text(folder / "README.md", readme)
    write_text(folder / "Snakefile", source.joinpath("Snakefile").read_text("utf-8"))
    write_text(folder / "config.yaml", yaml.safe_dump({"scans": scans, "profile": PROFILES[0]}, sort_keys=False))
    for name in PROFILES:
        text = source.joinpath("profiles", f"{name}.yaml").read_text("utf-8")
        write_text(folder / "experiments" / "profiles" / f"{name}.yaml", text)
    for name in EXPERIMENTS:
        copy_file(config_folder() / f"{name}.yaml", folder / "experiments" / f"{name}.yaml")
    for name in NOTEBOOKS:
        content = json.loads((notebook_folder() / f"{name}.ipynb").read_text("utf-8"))
        write_json(folder / "notebooks" / f"{name}.ipynb", _with_tables(content))


def _settings(organs: Sequence[str]) -> str:
    lines = "".join(f"  {name}: {value}\n" for value, name in enumerate(organs, start=1))
    return f"# Value of each organ in labels.nii.gz; or the name of a file of its own.\norgans:\n{lines}"


def _with_tables(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook whose tables are by default those of the quick profile."""
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            source = "".join(cell["source"]).replace("/published/phantom", f"/{PROFILES[0]}/tables")
            cell["source"] = source.replace("../results/published/", "../results/")  # what the library published alone
    return notebook
