"""OpenKBP (Babier et al. 2021) in the challenge's own layout of CSV files.

A patient folder ``<split>-pats/pt_<n>`` holds ``ct.csv``, ``voxel_dimensions.csv`` and one CSV an
organ. A row is a flat C-order index into 128 x 128 x 128 and, for the CT, a value; a mask row has
no value. The native axes point posterior, left, inferior (PLI): the derivation is tested on the
organs' positions. A missing organ file means not outlined, not absent.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
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
from hnlib.datasets.case_files import Outline
from hnlib.errors import DataError
from hnlib.files import reason
from hnlib.organs import ORGANS

SHAPE = (128, 128, 128)
AXES = ("P", "L", "I")
#: Stored CT values are HU + 1000; ten patients hold 16-bit values beyond the 12-bit range.
HU_OFFSET = 1000
MAX_STORED = 4095
#: First line of every file but that of the spacing.
HEADER = b",data"
#: What the challenge's folders also hold.
OTHERS = frozenset({"ct", "voxel_dimensions", "dose", "possible_dose_mask", "PTV56", "PTV63", "PTV70"})
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
            patients = [p for p in (self._folder / folder).glob("pt_*") if re.fullmatch(r"pt_\d+", p.name)]
            patients.sort(key=lambda p: int(p.name[3:]))
            limit = len(patients) if self.num_cases is None else self.num_cases.get(split, len(patients))
            found.update({path.name: (split, path) for path in patients[:limit]})
        return found

    def split(self) -> dict[str, tuple[str, ...]]:
        """Return case names by the challenge's own folders."""
        return {split: tuple(c for c, (s, _) in self._by_case.items() if s == split) for split in FOLDERS}

    def load(self, case: str) -> Case:
        """Read one patient; where masks overlap, the organ later in ``organs`` wins.

        An organ of which no voxel is left, or whose file has none, counts as not outlined.
        """
        folder = self.folder(case)
        index, stored = _read_sparse(folder / "ct.csv", case)
        if index.size == 0:
            raise DataError(f"case {case}, file {folder / 'ct.csv'}: the image is empty; export it again")
        volume = np.zeros(SHAPE, np.float32)
        volume.flat[index] = np.minimum(stored, MAX_STORED)
        if volume.min() == volume.max():
            raise DataError(f"case {case}, file {folder / 'ct.csv'}: the image is constant; export it again")
        labels = np.zeros(SHAPE, np.uint8)
        outlines = self.outlines(case)
        for organ, outline in outlines.items():
            labels.flat[outline.voxels] = self.organs.index(organ) + 1
        spacing = _read_spacing(folder / "voxel_dimensions.csv", case)
        return Case(
            name=case,
            image_hu=_to_ras(volume - np.float32(HU_OFFSET)),
            labels=_to_ras(labels),
            spacing_mm=(spacing[1], spacing[0], spacing[2]),
            organs=self.organs,
            labelled=frozenset(organ for organ in outlines if (labels == self.organs.index(organ) + 1).any()),
        )

    def folder(self, case: str) -> Path:
        """Return the folder of a patient."""
        if case not in self._by_case:
            raise DataError(f"case {case}: not in {self._folder}; choose one of its pt_* folders")
        return self._by_case[case][1]

    def outlines(self, case: str) -> dict[str, Outline]:
        """Read the outlines of a patient, voxels by their indices into the stored volume."""
        paths = {organ: self.outline_file(case, organ) for organ in self.organs}
        return {o: Outline(path, _read_sparse(path, case)[0]) for o, path in paths.items() if path.exists()}

    def outline_file(self, case: str, organ: str) -> Path:
        """Return where the outline of an organ lies, or would lie."""
        return self.folder(case) / _file_name(organ)

    def strays(self) -> Iterator[tuple[Path, str]]:
        """Yield folders that are no patient's, or a patient's second, with what to do."""
        for folder in FOLDERS.values():
            for path in sorted(p for p in (self._folder / folder).glob("*") if p.is_dir()):
                if not re.fullmatch(r"pt_\d+", path.name):
                    yield path, "is no patient of the challenge; name it pt_<number>, or remove it"
                elif path.name in self._by_case and path != self.folder(path.name):
                    yield path, f"the patient is also in {self.folder(path.name)}; remove one"

    def faults(self, case: str) -> Iterator[str]:
        """Yield one line for each broken file of a patient, where `load` stops at the first."""
        folder = self.folder(case)
        known = OTHERS | {name for row in ORGANS.values() for name in row.spellings.get("openkbp", ())}
        for path in sorted(folder.glob("*.csv")):
            if path.stem not in known:
                yield f"case {case}, file {path}: stands for no organ of the data set; name it rightly, or remove it"
        for path in [folder / "ct.csv", *(folder / _file_name(organ) for organ in self.organs)]:
            try:
                if (path.name == "ct.csv" or path.exists()) and not _read_sparse(path, case)[0].size:
                    yield f"case {case}, file {path}: holds no voxel; copy it again from the data set"
            except DataError as fault:
                yield str(fault)
        try:
            _read_spacing(folder / "voxel_dimensions.csv", case)
        except DataError as fault:
            yield str(fault)

    def digest(self) -> str:
        """Return a digest over the content of every file that a study reads."""
        state = hashlib.blake2b(repr((self.name, self.organs, HU_OFFSET, MAX_STORED)).encode(), digest_size=16)
        names = ["ct.csv", "voxel_dimensions.csv", *(_file_name(organ) for organ in self.organs)]
        for case, (split, folder) in self._by_case.items():
            state.update(f"{split}/{case}".encode())
            for name in names:
                path = folder / name
                state.update(name.encode() + (path.read_bytes() if path.exists() else b"-"))
        return state.hexdigest()


def _file_name(organ: str) -> str:
    return f"{ORGANS[organ].spellings['openkbp'][0]}.csv"


def _to_ras(native: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(apply_orientation(native, _TO_RAS))


def _read_sparse(path: Path, case: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return flat indices and values (ones for a mask) of one CSV, checked against the volume."""
    where = f"case {case}, file {path}"
    try:
        content = path.read_bytes()
        if content.split(b"\n", 1)[0].rstrip() != HEADER:
            raise DataError(f"{where}: cannot be read (its first line is not '{HEADER.decode()}'); copy it again")
        if not content.endswith(b"\n"):
            raise DataError(f"{where}: is cut off within its last line; copy it again from the data set")
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a line with too many fields
            types = {"index": np.int64, "value": np.float32}
            table = pd.read_csv(io.BytesIO(content), header=0, names=list(types), dtype=types, index_col=False)
        index, values = table["index"].to_numpy(), table["value"].to_numpy()
    except FileNotFoundError:
        raise DataError(f"{where}: the file is missing; copy it again from the data set") from None
    except (OSError, ValueError, TypeError, OverflowError, pd.errors.ParserWarning) as fault:
        raise DataError(f"{where}: cannot be read ({reason(fault)}); copy it again from the data set") from None
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty file; what is in it is checked here
            values = np.loadtxt(path, dtype=float, ndmin=1)
    except (OSError, ValueError) as fault:
        raise DataError(f"case {case}, file {path}: cannot be read ({reason(fault)}); copy it again") from None
    if values.shape != (3,) or not (np.isfinite(values) & (values > 0)).all():
        raise DataError(
            f"case {case}, file {path}: three positive numbers in mm are needed, found {values.tolist()}; copy it again"
        )
    return float(values[0]), float(values[1]), float(values[2])
