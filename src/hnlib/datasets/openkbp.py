"""OpenKBP (Babier et al. 2021) in the challenge's own layout of CSV files.

A patient folder ``<split>-pats/pt_<n>`` holds ``ct.csv``, ``voxel_dimensions.csv`` and one CSV an
organ. A row is a flat C-order index into 128 x 128 x 128 and, for the CT, a value; a mask row has
no value. The native axes point posterior, left, inferior (PLI): the derivation is tested on the
organs' positions. A missing organ file means not outlined, not absent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform
from numpy.typing import NDArray

from hnlib.cases import Case
from hnlib.errors import DataError
from hnlib.organs import ORGANS

SHAPE = (128, 128, 128)
AXES = ("P", "L", "I")
#: Stored CT values are HU + 1000; ten patients hold 16-bit values beyond the 12-bit range.
HU_OFFSET = 1000
MAX_STORED = 4095
FOLDERS: Mapping[str, str] = {"train": "train-pats", "validation": "validation-pats", "test": "test-pats"}
_TO_RAS = ornt_transform(axcodes2ornt(AXES), axcodes2ornt(("R", "A", "S")))


@dataclass(frozen=True)
class OpenKBP:
    """The OpenKBP planning CTs with the five organs that every shipped patient has.

    Parameters
    ----------
    root
        Folder ``provided-data``, or the folder that holds it.
    num_cases
        At most so many patients of each split, the first by number. None takes all.

    Raises
    ------
    DataError
        When the folder or the layout is missing. Later, when a file is missing or broken.
    """

    root: Path
    num_cases: Mapping[str, int] | None = None
    name: str = "openkbp"
    organs: tuple[str, ...] = ("brainstem", "spinal_cord", "parotid_left", "parotid_right", "mandible")
    attribution: str = "OpenKBP challenge data (Babier et al. 2021)"

    def __post_init__(self) -> None:
        if not self._folder.is_dir():
            raise DataError(
                f"openkbp: no folder {self._folder}; unpack the OpenKBP data there or give its place as DATA_ROOT"
            )
        if not self._by_case:
            raise DataError(
                f"openkbp: {self._folder} holds no patient folders; expected {'/pt_*, '.join(FOLDERS.values())}/pt_*"
            )

    @property
    def _folder(self) -> Path:
        inner = Path(self.root) / "provided-data"
        return inner if inner.is_dir() else Path(self.root)

    @cached_property
    def _by_case(self) -> dict[str, tuple[str, Path]]:
        found: dict[str, tuple[str, Path]] = {}
        for split, folder in FOLDERS.items():
            patients = sorted((self._folder / folder).glob("pt_*"), key=lambda p: int(p.name.partition("_")[2]))
            limit = len(patients) if self.num_cases is None else self.num_cases.get(split, len(patients))
            found.update({path.name: (split, path) for path in patients[:limit]})
        return found

    def split(self) -> dict[str, tuple[str, ...]]:
        """Return case names by the challenge's own folders."""
        return {split: tuple(c for c, (s, _) in self._by_case.items() if s == split) for split in FOLDERS}

    def load(self, case: str) -> Case:
        """Read one patient; where masks overlap, the organ later in ``organs`` wins."""
        if case not in self._by_case:
            raise DataError(f"case {case}: not in {self._folder}; choose one of its pt_* folders")
        folder = self._by_case[case][1]
        index, stored = _read_sparse(folder / "ct.csv", case)
        if index.size == 0:
            raise DataError(f"case {case}, file {folder / 'ct.csv'}: the image is empty; export it again")
        volume = np.zeros(SHAPE, np.float32)
        volume.flat[index] = np.minimum(stored, MAX_STORED)
        labels = np.zeros(SHAPE, np.uint8)
        labelled = []
        for value, organ in enumerate(self.organs, start=1):
            path = folder / f"{ORGANS[organ].spellings['openkbp'][0]}.csv"
            if path.exists():
                labels.flat[_read_sparse(path, case)[0]] = value
                labelled.append(organ)
        spacing = _read_spacing(folder / "voxel_dimensions.csv", case)
        return Case(
            name=case,
            image_hu=_to_ras(volume - np.float32(HU_OFFSET)),
            labels=_to_ras(labels),
            spacing_mm=(spacing[1], spacing[0], spacing[2]),
            organs=self.organs,
            labelled=frozenset(labelled),
        )

    def faults(self, case: str) -> Iterator[str]:
        """Yield one line for each broken file of a patient, where `load` stops at the first."""
        folder = self._by_case[case][1]
        for path in [folder / "ct.csv", *(folder / f"{ORGANS[o].spellings['openkbp'][0]}.csv" for o in self.organs)]:
            try:
                if path.name == "ct.csv" or path.exists():
                    _read_sparse(path, case)
            except DataError as fault:
                yield str(fault)
        try:
            _read_spacing(folder / "voxel_dimensions.csv", case)
        except DataError as fault:
            yield str(fault)

    def digest(self) -> str:
        """Return a digest over the content of every file that a study reads."""
        state = hashlib.blake2b(repr((self.name, self.organs, HU_OFFSET, MAX_STORED)).encode(), digest_size=16)
        names = ["ct.csv", "voxel_dimensions.csv", *(f"{ORGANS[o].spellings['openkbp'][0]}.csv" for o in self.organs)]
        for case, (split, folder) in self._by_case.items():
            state.update(f"{split}/{case}".encode())
            for name in names:
                path = folder / name
                state.update(name.encode() + (path.read_bytes() if path.exists() else b"-"))
        return state.hexdigest()


def _to_ras(native: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(apply_orientation(native, _TO_RAS))


def _read_sparse(path: Path, case: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return flat indices and values (ones for a mask) of one CSV, checked against the volume."""
    where = f"case {case}, file {path}"
    try:
        table = pd.read_csv(path, index_col=0)
        index = table.index.to_numpy(dtype=np.int64)
        values = table.iloc[:, 0].to_numpy(dtype=np.float32)
    except FileNotFoundError:
        raise DataError(f"{where}: the file is missing; copy it again from the data set") from None
    except (OSError, ValueError, TypeError, IndexError, pd.errors.ParserError) as fault:
        reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        raise DataError(f"{where}: cannot be read ({reason}); copy it again from the data set") from None
    if index.size and (index.min() < 0 or index.max() >= np.prod(SHAPE)):
        raise DataError(
            f"{where}: voxel index {index.max() if index.min() >= 0 else index.min()} lies outside "
            f"{' x '.join(map(str, SHAPE))}; copy it again from the data set"
        )
    if path.name == "ct.csv" and not np.isfinite(values).all():
        raise DataError(f"{where}: holds NaN or cut lines; copy it again from the data set")
    return index, values


def _read_spacing(path: Path, case: str) -> tuple[float, float, float]:
    try:
        values = np.loadtxt(path, dtype=float, ndmin=1)
    except (OSError, ValueError) as fault:
        raise DataError(f"case {case}, file {path}: cannot be read ({fault}); copy it again") from None
    if values.shape != (3,) or not (np.isfinite(values) & (values > 0)).all():
        raise DataError(
            f"case {case}, file {path}: three positive numbers in mm are needed, found {values.tolist()}; copy it again"
        )
    return float(values[0]), float(values[1]), float(values[2])
