"""A labelled folder of a stranger: any number of cases, with or without scans, with or without ``hnlib.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml

from hnlib.datasets.case_files import stem, volumes_in
from hnlib.datasets.folder import SETTINGS, FolderDataset, FolderSettings, read_settings
from hnlib.datasets.label_folders import DATASET_JSON
from hnlib.datasets.nnunet_raw import NnunetFolder, is_nnunet_raw
from hnlib.errors import ConfigError, DataError
from hnlib.organs import organ, organ_name
from hnlib.volumes import read_volume

#: Names under which a scan or a label map is found where no file says its name.
SCAN_NAMES = ("image", "ct", "scan", "img")
LABEL_NAMES = ("labels", "label", "segmentation", "seg", "mask")
#: Most organs that label values of 8 bits can name.
MOST_ORGANS = 255


@dataclass(frozen=True)
class LabelledFolder(FolderDataset):
    """A `FolderDataset` that takes what there is.

    Without ``hnlib.yaml`` organs are named by their files or, in a label map, by their values. `origin` says which.
    """

    @cached_property
    def settings(self) -> FolderSettings:
        """What ``hnlib.yaml`` says, or what the files look like."""
        return read_settings(self._file) if self._file.is_file() else _guess(Path(self.root))

    @property
    def origin(self) -> str:
        """Where the names of the organs come from, in words."""
        if self._file.is_file():
            return super().origin
        return (
            f"There is no {SETTINGS}: organs are named by their files, and labels of a map by their values. A study "
            f"needs that file; here it would say {settings_line(self.settings)}"
        )


def settings_line(settings: FolderSettings) -> str:
    """Return settings as one line of YAML.

    Examples
    --------
    >>> settings_line(FolderSettings(organs={"mandible": "jaw", "thyroid": 2}, image="ct"))
    '{organs: {mandible: jaw, thyroid: 2}, image: ct}'
    """
    content = settings.model_dump(exclude_defaults=True)
    return yaml.safe_dump(content, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6).strip()


def open_labelled(root: Path) -> FolderDataset:
    """Return the cases of a labelled folder: any number, with or without scans, with or without ``hnlib.yaml``.

    Raises
    ------
    DataError, ConfigError
        When there is no case, or names of organs cannot be used; one line with what to do.
    """
    return (NnunetFolder if is_nnunet_raw(root) else LabelledFolder)(root, lenient=True)


def _guess(root: Path) -> FolderSettings:
    """Return settings that fit the files of the case folders."""
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = {folder: {stem(path): path for path in volumes_in(folder)} for folder in folders}
    names = sorted({name for found in files.values() for name in found})
    if not names:
        raise DataError(
            f"folder {root}: no case folder with a volume; expected <case>/labels.nii.gz or <case>/<organ>.nii.gz, or "
            f"nnU-Net's labelsTr with {DATASET_JSON}"
        )
    image = _first(names, SCAN_NAMES)
    labels = _first(names, LABEL_NAMES)
    organs: dict[str, int | str] = {}
    if labels:
        for value in _values([found[labels] for found in files.values() if labels in found]):
            organs[f"label_{value}"] = value
    for name in names:
        if name in (image, labels):
            continue
        plain = organ_name(name)
        if plain in organs:
            raise ConfigError(f"folder {root}: several files stand for {plain}; name the organs in {SETTINGS}")
        organs[organ(plain).name] = name
    if not 0 < len(organs) <= MOST_ORGANS:
        raise ConfigError(f"folder {root}: {len(organs)} organs found; 1 to {MOST_ORGANS} are needed, see {SETTINGS}")
    return FolderSettings(organs=organs, image=image or "image", labels=labels or "labels")


def _first(names: Sequence[str], wanted: Sequence[str]) -> str:
    lower = {name.lower(): name for name in names}
    return next((lower[name] for name in wanted if name in lower), "")


def _values(paths: Sequence[Path]) -> list[int]:
    found: set[int] = set()
    for path in paths:
        found |= {int(value) for value in np.unique(read_volume(path, labels=True).array)}
    return sorted(found - {0})
