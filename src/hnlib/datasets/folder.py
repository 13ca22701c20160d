"""Anyone's own data: a folder a case, and one YAML file that names the organs.

::

    root/hnlib.yaml
    root/<case>/image.nii.gz                 or .nii, .nrrd, .mha, .mhd; or a folder image/ with DICOM slices
    root/<case>/labels.nii.gz                a label map, and/or
    root/<case>/Parotis links.nii.gz         one file an organ

``hnlib.yaml`` gives each organ of the study the value in the label map or the name of its file, in any script::

    organs:
      parotid_left: Parotis links
      mandible: 3
    image: image            # optional: name of the scan
    labels: labels          # optional: name of the label map
    split:                  # optional
      train: [a, b, c]
      validation: [d]
      test: [e]

An organ may be one of `hnlib.organs.ORGANS`, or any other under a name of a-z, 0-9 and _ (``thyroid``, ``eye_left``
and ``eye_right``); see `hnlib.organs.organ` for how it is drawn and measured. ``hnlib check`` notes each of them.

Without ``split``, cases are ordered by the BLAKE2b digests of their names: the first fifth is for testing, the next
tenth for validation (at least one each), the rest for training. The same names give the same split everywhere.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hnlib.cases import SPLITS
from hnlib.datasets.case_files import CaseFiles, FileDataset, MaskFile, stem, volumes_in
from hnlib.errors import ConfigError, DataError, unknown, wrong_value
from hnlib.organs import organ

SETTINGS = "hnlib.yaml"
#: Fewer cases than this cannot be split.
LEAST_SPLIT = 3


class FolderSettings(BaseModel):
    """What ``hnlib.yaml`` may say."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    organs: Annotated[dict[str, int | str], Field(min_length=1, max_length=255)]
    image: str = "image"
    labels: str = "labels"
    split: dict[str, list[str]] | None = None


def read_settings(file: Path) -> FolderSettings:
    """Read an ``hnlib.yaml``.

    Raises
    ------
    ConfigError
        When the file is missing, cannot be read or says something impossible.
    """
    try:
        return FolderSettings.model_validate(yaml.safe_load(file.read_text("utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"{file}: the file is missing; name the organs there") from None
    except ValidationError as fault:
        raise ConfigError(f"{file}: {wrong_value(fault.errors()[0])}; correct it") from None
    except (OSError, UnicodeError, yaml.YAMLError) as fault:
        raise ConfigError(f"{file}: cannot be read ({' '.join(str(fault).split())}); correct it") from None


@dataclass(frozen=True)
class FolderDataset(FileDataset):
    """Cases in the layout above.

    Parameters
    ----------
    root
        Folder with ``hnlib.yaml`` and the case folders.
    num_cases
        At most so many cases of each split, the first by name. None takes all.
    lenient
        Fewer than three cases, which cannot be split, are all for training.

    Raises
    ------
    DataError
        When the folder or its cases are missing. Later, when a file is missing or broken.
    ConfigError
        When ``hnlib.yaml`` is missing or says something impossible.
    """

    root: Path
    num_cases: Mapping[str, int] | None = None
    lenient: bool = False
    name: str = "folder"

    def __post_init__(self) -> None:
        if not Path(self.root).is_dir():
            raise DataError(f"folder: no folder {self.root}; give the place of the data")
        for name in self.settings.organs:
            organ(name)
        values = [v for v in self.settings.organs.values() if isinstance(v, int)]
        if len(set(values)) < len(values) or min(values, default=1) < 1:
            raise ConfigError(f"{self._file}: label values {values}; each organ needs its own, 1 or above")
        files = [_plain(v) for v in self.settings.organs.values() if isinstance(v, str)]
        taken = [_plain(self.settings.image), *([_plain(self.settings.labels)] if values else []), *files]
        if twice := sorted({name for name in taken if taken.count(name) > 1}):
            raise ConfigError(f"{self._file}: {', '.join(twice)} named twice; each organ needs a file of its own")
        if not self._cases:
            raise DataError(f"folder: {self.root} holds no case folder; expected <case>/{self.settings.image}.nii.gz")
        self.split()

    @property
    def _file(self) -> Path:
        return Path(self.root) / SETTINGS

    @cached_property
    def settings(self) -> FolderSettings:
        """What ``hnlib.yaml`` says."""
        return read_settings(self._file)

    @property
    def organs(self) -> tuple[str, ...]:
        """Organs in the order of ``hnlib.yaml``."""
        return tuple(self.settings.organs)

    @property
    def named_in(self) -> str:
        """The file that names the organs."""
        return SETTINGS

    @property
    def origin(self) -> str:
        """Where the names of the organs come from, in words."""
        return f"Organs are named by {self.named_in}."

    @property
    def attribution(self) -> str:
        """One line for captions."""
        return f"own data in {Path(self.root).name}"

    @cached_property
    def _cases(self) -> dict[str, Path]:
        folders = sorted(p for p in Path(self.root).iterdir() if p.is_dir() and not p.name.startswith("."))
        return {_plain(p.name): p for p in folders}

    def split(self) -> dict[str, tuple[str, ...]]:
        """Return case names by the file's ``split``, or by the rule above."""
        given = self.settings.split
        if given is None and self.lenient and len(self._cases) < LEAST_SPLIT:
            return {split: tuple(self._cases) if split == "train" else () for split in SPLITS}
        parts = _split_by_name(list(self._cases)) if given is None else self._given_split(given)
        return {split: names[: (self.num_cases or {}).get(split)] for split, names in parts.items()}

    def _given_split(self, given: Mapping[str, list[str]]) -> dict[str, tuple[str, ...]]:
        for split, names in given.items():
            if split not in SPLITS:
                raise unknown(f"split of {self._file}", split, SPLITS)
            for name in names:
                if _plain(name) not in self._cases:
                    raise unknown(f"case of {self._file}", name, self._cases)
        listed = [_plain(name) for names in given.values() for name in names]
        twice = sorted({name for name in listed if listed.count(name) > 1})
        if twice:
            raise ConfigError(f"{self._file}: case {twice[0]} stands in the split twice; keep one")
        return {split: tuple(map(_plain, given.get(split, ()))) for split in SPLITS}

    def _case_path(self, case: str) -> Path:
        if _plain(case) not in self._cases:
            raise DataError(f"case {case}: not in {self.root}; choose one of its cases")
        return self._cases[_plain(case)]

    def files(self, case: str) -> CaseFiles:
        """Return where the parts of a case lie."""
        folder = self._case_path(case)
        found: dict[str, Path] = {}
        for path in volumes_in(folder):
            name = _plain(stem(path))
            if name in found:
                raise DataError(f"case {case}, file {path}: {found[name].name} has the same name; keep one")
            found[name] = path
        image = found.pop(_plain(self.settings.image), folder / self.settings.image)
        masks = []
        values = {v: o for o, v in self.settings.organs.items() if isinstance(v, int)}
        if values and _plain(self.settings.labels) in found:
            masks.append(MaskFile(found.pop(_plain(self.settings.labels)), values))
        for name, given in self.settings.organs.items():
            if isinstance(given, str) and _plain(given) in found:
                masks.append(MaskFile(found.pop(_plain(given)), name))
        first = next(iter(self.settings.organs.values()))
        expected = folder / f"{first if isinstance(first, str) else self.settings.labels}.nii.gz"
        return CaseFiles(_plain(case), image, tuple(masks), tuple(found.values()), expected)

    def has_scan(self, case: str) -> bool:
        """Return whether the scan of a case is there, beside its outlines."""
        image = self.files(case).image
        return image is not None and image.exists()

    def _meaning(self) -> object:
        return self.settings.model_dump(exclude={"split"})

    def strays(self) -> Iterator[tuple[Path, str]]:
        """Yield folders that the split leaves out, with what to do."""
        used = {name for names in self.split().values() for name in names} if self.num_cases is None else self._cases
        for name, path in self._cases.items():
            if name not in used:
                yield path, f"is in no split; add it to {SETTINGS}, or remove it"


def _plain(name: str) -> str:
    """Return a name in one form of Unicode: file systems differ in how they write accents."""
    return unicodedata.normalize("NFC", name)


def _split_by_name(names: list[str]) -> dict[str, tuple[str, ...]]:
    if len(names) < LEAST_SPLIT:
        raise DataError(f"folder: {len(names)} cases cannot be split; three are needed, or a split in {SETTINGS}")
    mixed = sorted(names, key=lambda name: hashlib.blake2b(name.encode()).hexdigest())
    test = max(1, round(0.2 * len(names)))
    validation = test + max(1, round(0.1 * len(names)))
    parts = (mixed[validation:], mixed[test:validation], mixed[:test])
    return {split: tuple(sorted(part)) for split, part in zip(SPLITS, parts, strict=True)}
