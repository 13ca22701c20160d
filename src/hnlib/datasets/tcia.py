"""The two-observer outlines of TCIA scans (Nikolov et al. 2018, CC BY 4.0).

A case lies in ``nrrds/{test,validation}/{oncologist,radiographer}/<case>``: ``CT_IMAGE.nrrd``, and
``segmentations/<Organ>.nrrd`` with hyphens or, in some cases, underscores. Copies without the CTs are common: then
`TCIA.load` says so, and `TCIA.load_labels` reads the outlines alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from hnlib.cases import Case
from hnlib.datasets.case_files import CaseFiles, Labels, digest_files, read_case, read_labels, spelled_masks, stem
from hnlib.errors import DataError, unknown
from hnlib.organs import ORGANS

Observer = Literal["oncologist", "radiographer"]
OBSERVERS: tuple[Observer, ...] = get_args(Observer)
IMAGE = "CT_IMAGE.nrrd"
_PAIRS = {f"{organ}-{side}" for organ in ("Lacrimal", "Lung", "Orbit") for side in ("Lt", "Rt")}
#: Structures of the full set that the vocabulary does not hold.
OTHERS = frozenset({"Brain", "Spinal-Canal"} | _PAIRS)


@dataclass(frozen=True)
class TCIA:
    """Scans outlined twice; there is no training part.

    Parameters
    ----------
    root
        Folder ``nrrds``, or the folder that holds it.
    num_cases
        At most so many cases of each split, the first by name. None takes all.
    observer
        Whose outlines `load` and `load_labels` give where no other is named.

    Raises
    ------
    DataError
        When the folder or the layout is missing. Later, when a file is missing or broken.

    Notes
    -----
    17 of these patients are also in PDDCA under the same name: never train on one set and test on the other.
    """

    root: Path
    num_cases: Mapping[str, int] | None = None
    observer: Observer = "oncologist"
    name: str = "tcia"
    organs: tuple[str, ...] = tuple(organ.name for organ in ORGANS.values() if "tcia" in organ.spellings)
    attribution: str = "TCIA scans outlined by two observers (Nikolov et al. 2018), CC BY 4.0"

    def __post_init__(self) -> None:
        if not self._folder.is_dir():
            raise DataError(f"tcia: no folder {self._folder}; copy the data set there or give its place")
        if not self._by_case:
            raise DataError(f"tcia: {self._folder} holds no case; expected test/oncologist/<case>/segmentations")

    @property
    def _folder(self) -> Path:
        inner = Path(self.root) / "nrrds"
        return inner if inner.is_dir() else Path(self.root)

    @cached_property
    def _by_case(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for split in ("validation", "test"):
            folders = [p for o in OBSERVERS for p in (self._folder / split / o).glob("*") if p.is_dir()]
            names = sorted({p.name for p in folders})
            found.update(dict.fromkeys(names[: (self.num_cases or {}).get(split)], split))
        return found

    def split(self) -> dict[str, tuple[str, ...]]:
        """Return case names by the data set's own folders; training is empty."""
        return {s: tuple(c for c, of in self._by_case.items() if of == s) for s in ("train", "validation", "test")}

    def files(self, case: str, observer: Observer | None = None) -> CaseFiles:
        """Return where the parts of a case lie; the CT is taken from either observer's folder."""
        observer = observer or self.observer
        if observer not in OBSERVERS:
            raise unknown("observer", observer, OBSERVERS)
        if case not in self._by_case:
            raise DataError(f"case {case}: not in {self._folder}; choose one of its case folders")
        places = {o: self._folder / self._by_case[case] / o / case for o in OBSERVERS}
        image = next((p / IMAGE for p in places.values() if (p / IMAGE).exists()), None)
        masks, strange, expected = spelled_masks(places[observer] / "segmentations", self.name)
        strange = tuple(path for path in strange if stem(path).replace("_", "-") not in OTHERS)
        return CaseFiles(case, image, masks, strange, expected)

    def load(self, case: str, observer: Observer | None = None) -> Case:
        """Read one case with the outlines of one observer.

        Raises
        ------
        DataError
            When the CT is absent, or a file is broken.
        """
        return read_case(self.files(case, observer), self.organs)

    def load_labels(self, case: str, observer: Observer | None = None) -> Labels:
        """Read the outlines of one observer, without the CT: the label map on its grid, and the organs outlined.

        Two observers compare on the organs that both outlined, with `hnlib.metrics.evaluate_case`.
        """
        return read_labels(self.files(case, observer), self.organs)

    def digest(self) -> str:
        """Return a digest over the content of every file of the data set's observer."""
        return digest_files((self.name, self.organs, self.observer), (self.files(case) for case in self._by_case))
