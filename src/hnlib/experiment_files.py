"""Where the YAML files of experiments lie, and what an experiment is called in figures and tables."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import yaml

from hnlib.errors import ConfigError

LARGEST_SEED = 2**32 - 1
#: The 2 x 2 of Tappeiner et al. 2022, in the order of their Table 1.
FOUR_CONFIGURATIONS = ("large_nnu_dice_ce", "large_ca_dice_ce", "small_nnu_dice_ce", "small_ca_dice_ce")


def config_folder() -> Path:
    """Return the folder of the YAML files: HNLIB_EXPERIMENTS, ``experiments`` here, the checkout's, the installed copy.

    The first of these that has a folder ``profiles`` counts, so that in a folder of `hnlib new-study` its own do.
    """
    here, own = Path(__file__).resolve().parent, os.environ.get("HNLIB_EXPERIMENTS")
    if own:
        if not (Path(own) / "profiles").is_dir():
            raise ConfigError(f"HNLIB_EXPERIMENTS: {own} has no folder profiles; a folder of experiments has one")
        return Path(own)
    places = [Path("experiments").resolve(), here.parents[1] / "experiments", here / "_experiments"]
    for place in places:
        if (place / "profiles").is_dir():
            return place
    raise ConfigError(f"no experiments folder found at {' or '.join(map(str, places))}; set HNLIB_EXPERIMENTS")


def experiment_title(name: str) -> str:
    """Return the title that an experiment's file gives it; without such a file, its name with spaces.

    Examples
    --------
    >>> experiment_title("small_ca_dice_ce"), experiment_title("of_nobody")
    ('small, ca-Dice+CE', 'of nobody')
    """
    return _title(config_folder() / f"{name}.yaml") or name.replace("_", " ")


@cache
def _title(path: Path) -> str:
    """Return the title in a file, or nothing; what is wrong with the file is told where the experiment is read."""
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    found = content.get("title") if isinstance(content, dict) else None
    return found if isinstance(found, str) else ""
