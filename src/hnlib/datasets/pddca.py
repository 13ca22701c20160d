"""PDDCA 1.4.1 (Raudaschl et al. 2017), the data of the MICCAI 2015 challenge and of Tappeiner et al. 2022.

A case folder ``0522c<nnnn>`` holds ``img.nrrd`` and ``structures/<Organ>.nrrd``. It may lie right under the root or
one folder deeper, as the unpacked parts of the archive do. A missing organ file means not outlined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hnlib.cases import SPLITS
from hnlib.datasets.case_files import CaseFiles, FileDataset, spelled_masks
from hnlib.errors import DataError
from hnlib.organs import PAPER_ORGANS


def _names(numbers: str) -> tuple[str, ...]:
    return tuple(f"0522c{number}" for number in numbers.split())


TRAINING = _names(
    "0001 0002 0003 0009 0013 0014 0017 0057 0070 0077 0079 0081 0125 0132 0147 0149 0159 0161 0190 0195 0226 0248 "
    "0251 0253 0328"
)
#: Eight more cases that the challenge left out of its 25; some lack organs.
EXTRA = _names("0329 0330 0427 0433 0441 0455 0457 0479")
OFFSITE = _names("0555 0576 0598 0659 0661 0667 0669 0708 0727 0746")
ONSITE = _names("0788 0806 0845 0857 0878")


@dataclass(frozen=True)
class PDDCA(FileDataset):
    """The 48 planning CTs with the paper's seven organs.

    Parameters
    ----------
    root
        Folder of the case folders, or one that holds such folders.
    num_cases
        At most so many cases of each split, the first by number. None takes all.

    Raises
    ------
    DataError
        When the folder or the layout is missing. Later, when a file is missing or broken.

    Notes
    -----
    The paper validates on its test cases. Here the eight extra cases validate, so that the 25 training and 15 test
    cases (10 off-site, 5 on-site) stay the paper's and no test case chooses anything.
    """

    root: Path
    num_cases: Mapping[str, int] | None = None
    name: str = "pddca"
    organs: tuple[str, ...] = PAPER_ORGANS
    attribution: str = "PDDCA 1.4.1, from RTOG 0522 (Raudaschl et al. 2017)"

    def __post_init__(self) -> None:
        if not Path(self.root).is_dir():
            raise DataError(f"pddca: no folder {self.root}; unpack the PDDCA archives there or give its place")
        if not self._folders:
            raise DataError(f"pddca: {self.root} holds no case; expected 0522c0001/img.nrrd and so on")

    @cached_property
    def _folders(self) -> dict[str, tuple[Path, ...]]:
        """All places of each case, known or not, by name."""
        found: dict[str, tuple[Path, ...]] = {}
        for pattern in ("0522c*", "*/0522c*"):
            for path in sorted(p for p in Path(self.root).glob(pattern) if p.is_dir()):
                found[path.name] = (*found.get(path.name, ()), path)
        return found

    def split(self) -> dict[str, tuple[str, ...]]:
        """Return the cases at hand: the challenge's 25 for training, its 15 for testing, the eight extra between."""
        parts = dict(zip(SPLITS, (TRAINING, EXTRA, OFFSITE + ONSITE), strict=True))
        limits = self.num_cases or {}
        return {
            split: tuple(n for n in names if n in self._folders)[: limits.get(split)] for split, names in parts.items()
        }

    def files(self, case: str) -> CaseFiles:
        """Return where the parts of a case lie."""
        places = self._folders.get(case, ())
        if not places:
            raise DataError(f"case {case}: not in {self.root}; choose one of its 0522c* folders")
        if len(places) > 1:
            raise DataError(f"case {case}, folder {places[0]}: found twice, also in {places[1]}; remove one")
        image = places[0] / "img.nrrd"
        return CaseFiles(case, image, *spelled_masks(places[0] / "structures", self.name))

    def strays(self) -> Iterator[tuple[Path, str]]:
        """Yield folders that are no case of the data set, with what to do."""
        for case, places in self._folders.items():
            if case not in TRAINING + EXTRA + OFFSITE + ONSITE:
                yield places[0], "is none of the 48 cases of PDDCA 1.4.1; remove it, or use the data set `folder`"
