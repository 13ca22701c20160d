"""A raw data set of nnU-Net as it is: ``dataset.json``, ``labelsTr`` and, where there are scans, ``imagesTr``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hnlib.datasets.case_files import CaseFiles, MaskFile, stem
from hnlib.datasets.folder import SETTINGS, FolderDataset, FolderSettings
from hnlib.datasets.label_folders import DATASET_JSON, LabelFolder, open_folder

LABELS, IMAGES = "labelsTr", "imagesTr"


@dataclass(frozen=True)
class NnunetFolder(FolderDataset):
    """The cases of ``labelsTr``, split by the rule of `hnlib.datasets.folder`; ``imagesTs`` is left alone.

    A scan is the first channel of its case.
    """

    @cached_property
    def _maps(self) -> LabelFolder:
        return open_folder(Path(self.root) / LABELS)

    @cached_property
    def settings(self) -> FolderSettings:
        """What ``dataset.json`` says."""
        return FolderSettings(organs={name: value for value, name in self._maps.organs.items()})

    @property
    def named_in(self) -> str:
        """The file that names the organs."""
        return DATASET_JSON

    @property
    def origin(self) -> str:
        """Where the names of the organs come from, in words."""
        return f"Organs are named by nnU-Net's {DATASET_JSON}."

    @cached_property
    def _cases(self) -> dict[str, Path]:
        return dict(sorted(self._maps.files.items()))

    def files(self, case: str) -> CaseFiles:
        """Return where the parts of a case lie."""
        labels = self._case_path(case)
        ending = labels.name.removeprefix(stem(labels))
        image = Path(self.root) / IMAGES / f"{case}_0000{ending}"
        return CaseFiles(case, image, (MaskFile(labels, dict(self._maps.organs)),), (), labels)


def is_nnunet_raw(root: Path) -> bool:
    """Return whether a folder is a raw data set of nnU-Net that no ``hnlib.yaml`` describes."""
    return (root / LABELS).is_dir() and not (root / SETTINGS).is_file()


def open_own(root: Path, num_cases: Mapping[str, int] | None = None) -> FolderDataset:
    """Return the data set in a stranger's folder: a folder a case with ``hnlib.yaml``, or nnU-Net's raw data set.

    Raises
    ------
    DataError, ConfigError
        As `hnlib.datasets.folder.FolderDataset`.
    """
    return (NnunetFolder if is_nnunet_raw(root) else FolderDataset)(root, num_cases)
