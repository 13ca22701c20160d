"""A labelled folder of a stranger: any number of cases, with or without scans, with or without ``hnlib.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from hnlib.cases import SPLITS
from hnlib.datasets.case_files import CaseFiles, MaskFile, stem, volumes_in
from hnlib.datasets.folder import SETTINGS, FolderDataset, FolderSettings, read_settings
from hnlib.errors import ConfigError, DataError
from hnlib.evaluation.folders import DATASET_JSON, open_folder
from hnlib.organs import organ, organ_name
from hnlib.volumes import read_volume

#: Names under which a scan or a label map is found where no file says its name.
SCAN_NAMES = ("image", "ct", "scan", "img")
LABEL_NAMES = ("labels", "label", "segmentation", "seg", "mask")
#: Fewer cases than this are not split.
LEAST_SPLIT = 3
#: Most organs that label values of 8 bits can name.
MOST_ORGANS = 255


@dataclass(frozen=True)
class LabelledFolder(FolderDataset):
    """A `FolderDataset` that takes what there is.

    Fewer than three cases are all for training. Without ``hnlib.yaml`` organs are named by their files or, in a label
    map, by their values. `origin` says which, for the reader.
    """

    @cached_property
    def settings(self) -> FolderSettings:
        """What ``hnlib.yaml`` says, or what the files look like."""
        return read_settings(self._file) if self._file.is_file() else _guess(Path(self.root))

    @property
    def origin(self) -> str:
        """Where the names of the organs come from, in words."""
        if self._file.is_file():
            return f"Organs are named by {SETTINGS}."
        return f"There is no {SETTINGS}: organs are named by their files, and labels of a map by their values."

    def split(self) -> dict[str, tuple[str, ...]]:
        """Return case names by split; all for training where there are too few."""
        if self.settings.split is None and len(self._cases) < LEAST_SPLIT:
            return {split: tuple(self._cases) if split == "train" else () for split in SPLITS}
        return super().split()

    def has_scan(self, case: str) -> bool:
        """Return whether the scan of a case is there, beside its outlines."""
        image = self.files(case).image
        return image is not None and image.exists()


@dataclass(frozen=True)
class NnunetFolder(LabelledFolder):
    """A raw data set of nnU-Net: ``dataset.json``, ``labelsTr`` and, where there are scans, ``imagesTr``."""

    maps: dict[str, Path] = field(default_factory=dict)
    values: dict[int, str] = field(default_factory=dict)

    @cached_property
    def settings(self) -> FolderSettings:
        """What ``dataset.json`` says."""
        return FolderSettings(organs={name: value for value, name in self.values.items()})

    @property
    def origin(self) -> str:
        """Where the names of the organs come from, in words."""
        return f"Organs are named by nnU-Net's {DATASET_JSON}."

    @cached_property
    def _cases(self) -> dict[str, Path]:
        return dict(sorted(self.maps.items()))

    def files(self, case: str) -> CaseFiles:
        """Return where the parts of a case lie; the scan is its first channel."""
        labels = self.maps[case]
        image = Path(self.root) / "imagesTr" / labels.name.replace(case, f"{case}_0000", 1)
        return CaseFiles(case, image, (MaskFile(labels, self.values),), (), labels)


def open_labelled(root: Path) -> LabelledFolder:
    """Return the cases of a labelled folder.

    Raises
    ------
    DataError, ConfigError
        When there is no case, or names of organs cannot be used; one line with what to do.
    """
    labels = root / "labelsTr"
    if labels.is_dir() and not (root / SETTINGS).is_file():
        found = open_folder(labels)
        return NnunetFolder(root, maps=dict(found.files), values=dict(found.organs))
    return LabelledFolder(root)


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
