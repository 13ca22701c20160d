"""A folder of label maps: which file is which case, and which value is which organ.

Names of organs come from, in this order: a list on the command line; ``hnlib.yaml``, nnU-Net's ``dataset.json`` or the
colour tables of ``hnlib predict`` in the folder; the first two in the folder above; the other folder of the pair.
nnU-Net copies ``dataset.json`` beside what it predicts; its other files are left alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hnlib.datasets.case_files import stem, volumes_in
from hnlib.datasets.folder import SETTINGS, read_settings
from hnlib.errors import ConfigError, DataError
from hnlib.organs import organ, organ_name

DATASET_JSON = "dataset.json"
#: Where names come from that stand on the command line.
GIVEN = "--organs"


@dataclass(frozen=True)
class LabelFolder:
    """Label maps of some cases, and what their values mean.

    Attributes
    ----------
    root
        The folder.
    files
        Name of a case to its file.
    organs
        Value to organ, in the order in which the source of the names lists them.
    source
        Where the names come from, in words.
    """

    root: Path
    files: Mapping[str, Path]
    organs: Mapping[int, str]
    source: str


def open_folder(root: Path, given: str = "", other: Path | None = None) -> LabelFolder:
    """Find the label maps of a folder and the names of their values.

    Parameters
    ----------
    root
        Holds ``<case>.nii.gz`` (or .nii, .nrrd, .mha, .mhd), or ``<case>/labels.nii.gz`` as `hnlib.yaml` has it.
    given
        Organs by comma in the order of their values, from 1.
    other
        A folder whose names serve where this one has none.

    Raises
    ------
    DataError
        When the folder is missing, holds no label map or one case twice.
    ConfigError
        When the names are missing or cannot be used.
    """
    inner = read_settings(root / SETTINGS).labels if (root / SETTINGS).is_file() else "labels"
    files = _label_files(root, inner)
    return LabelFolder(root, files, *_names(root, given, other))


def _label_files(root: Path, name: str) -> dict[str, Path]:
    """Return the label maps of a folder by case: ``<case>.nii.gz``, or ``<case>/<name>.nii.gz``."""
    if not root.is_dir():
        raise DataError(f"folder {root}: is missing or no folder; give a folder of label maps")
    found: dict[str, Path] = {}
    inner = [p for d in sorted(root.iterdir()) if d.is_dir() for p in volumes_in(d) if stem(p) == name]
    for path, case in [*((p, stem(p)) for p in volumes_in(root)), *((p, p.parent.name) for p in inner)]:
        if case in found:
            raise DataError(f"case {case}: {found[case].name} and {path.name} are both there; keep one")
        found[case] = path
    if not found:
        raise DataError(f"folder {root}: holds no label map; expected <case>.nii.gz, .nii, .nrrd, .mha or .mhd")
    return found


def _names(root: Path, given: str, other: Path | None) -> tuple[dict[int, str], str]:
    if given:
        names = [part.strip() for part in given.split(",")]
        return _checked(dict(enumerate(names, start=1)), GIVEN), GIVEN
    places = [folder for one in (root, other) if one is not None for folder in (one, one.absolute().parent)]
    for place in places:
        if (place / SETTINGS).is_file():
            file = place / SETTINGS
            values = {value: name for name, value in read_settings(file).organs.items() if isinstance(value, int)}
            if values:
                return _checked(values, str(file)), str(file)
        if (place / DATASET_JSON).is_file():
            file = place / DATASET_JSON
            return _checked(_nnunet_labels(file), str(file)), str(file)
        if place in (root, other) and (tables := sorted(place.glob("*.ctbl"))):
            return _checked(_colour_tables(tables), str(tables[0])), str(tables[0])
    raise ConfigError(
        f"folder {root}: nothing says which value is which organ; give --organs brainstem,parotid_left,... in the "
        f"order of the values, or put {SETTINGS} or nnU-Net's {DATASET_JSON} there"
    )


def _colour_tables(files: Sequence[Path]) -> dict[int, str]:
    """Return value to name of tables for 3D Slicer, a line a value: number, name (of words), colour and opacity."""
    found = [_colour_table(file) for file in files]
    for file, names in zip(files, found, strict=True):
        if names != found[0]:
            raise ConfigError(f"{file}: names other organs than {files[0].name}; keep the predictions of one model")
    return found[0]


def _colour_table(file: Path) -> dict[int, str]:
    try:
        lines = [line.split() for line in file.read_text("utf-8").splitlines() if line.strip() and line[0] != "#"]
        named = {int(value): "_".join(words) for value, *words in ((line[0], *line[1:-4]) for line in lines) if words}
    except ValueError as fault:
        raise ConfigError(f"{file}: is no colour table ({fault}); a line a value: number, name, four numbers") from None
    return {value: name for value, name in named.items() if value}


def _nnunet_labels(file: Path) -> dict[int, str]:
    """Return value to name; the first version of nnU-Net wrote the two the other way round."""
    try:
        labels: Any = json.loads(file.read_text("utf-8"))["labels"]
        pairs = [(name, value) for name, value in labels.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise ConfigError(f"{file}: has no readable `labels` ({' '.join(str(fault).split())}); correct it") from None
    if all(isinstance(value, str) and str(name).isdigit() for name, value in pairs):
        pairs = [(value, int(name)) for name, value in pairs]
    found: dict[int, str] = {}
    for name, value in pairs:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"{file}: label '{name}' is {value!r}; regions of several values are not evaluated here")
        if name == "ignore":
            raise ConfigError(f"{file}: has an ignore label ({value}); set its voxels to 0 in both label maps first")
        if value:
            found[value] = str(name)
    return found


def _checked(values: Mapping[int, str], where: str) -> dict[int, str]:
    """Turn names to the library's own; refuse what no organ can be called and what stands there twice."""
    found: dict[int, str] = {}
    for value, text in values.items():
        name = organ_name(text)
        try:
            organ(name or text)
        except ConfigError as fault:
            raise ConfigError(f"{where}: value {value}: {fault}") from None
        if name in found.values() or value < 1:
            raise ConfigError(f"{where}: value {value} is '{text}', read as {name}; each organ needs one value above 0")
        found[value] = name
    if not found:
        raise ConfigError(f"{where}: names no organ; one is needed at least")
    return found
