"""A case that lies in image and mask files: what pddca, tcia and folder share.

Two rules hold for all of them. Where outlines overlap, the organ later in the data set's ``organs`` wins; one that
would lose more than half of its voxels is refused. An outline without a voxel counts as not outlined.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hnlib.cases import Case
from hnlib.errors import DataError
from hnlib.organs import ORGANS
from hnlib.surfaces import voxel_box
from hnlib.volumes import SUFFIXES, Volume, read_volume, same_grid, volume_files

#: An organ of which others take a larger fraction is a wrong file rather than a rough border.
MAX_LOST_FRACTION = 0.5


class Outline(NamedTuple):
    """The file of an organ's outline, and the flat indices of its voxels."""

    path: Path
    voxels: NDArray[np.int64]


Labels = tuple[Volume, frozenset[str]]
"""A label map on its grid, and the organs that were outlined there."""


@dataclass(frozen=True)
class MaskFile:
    """A file of outlines: of one organ (any value above 0), or a label map with a value for each organ."""

    path: Path
    organs: str | Mapping[int, str]


@dataclass(frozen=True)
class CaseFiles:
    """Where the parts of one case lie.

    Attributes
    ----------
    image
        File or DICOM folder of the scan, or None where only outlines are at hand.
    masks
        The files of outlines that exist.
    unknown
        Files among the outlines that stand for no organ of the data set.
    expected
        Where a first file of outlines is looked for, told where there is none.
    """

    name: str
    image: Path | None
    masks: tuple[MaskFile, ...]
    unknown: tuple[Path, ...]
    expected: Path


def stem(path: Path) -> str:
    """Return the file name without the suffix of a volume.

    Examples
    --------
    >>> stem(Path("a/Parotis links.nii.gz"))
    'Parotis links'
    """
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.name


def volumes_in(folder: Path) -> list[Path]:
    """Return the volume files of a folder in order of their names; none where the folder is missing."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.lower().endswith(SUFFIXES) and not p.name.startswith("."))


def spelled_masks(folder: Path, dataset: str) -> tuple[tuple[MaskFile, ...], tuple[Path, ...], Path]:
    """Return the outlines of a folder by the data set's spellings of organs, the files that match none, an example."""
    organ_of = {name: organ.name for organ in ORGANS.values() for name in organ.spellings.get(dataset, ())}
    found = volumes_in(folder)
    masks = tuple(MaskFile(path, organ_of[stem(path)]) for path in found if stem(path) in organ_of)
    return masks, tuple(path for path in found if stem(path) not in organ_of), folder / f"{next(iter(organ_of))}.nrrd"


def outlines(mask: MaskFile, volume: Volume, case: str) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield each organ of a mask file with the flat indices of its voxels.

    Raises
    ------
    DataError
        For a negative value, several values in the file of one organ, or a value that stands for no organ.
    """
    flat = volume.array.ravel()
    where = f"case {case}, file {mask.path}"
    index = _filled(volume.array)
    values, inverse = np.unique(flat[index], return_inverse=True)
    if isinstance(mask.organs, str):
        if values.size > 1 or (values.size and values[0] < 0):
            raise DataError(
                f"{where}: holds the values {_some(values)} where one organ is outlined by one value above 0; "
                "give a label map as such, or export the organ again"
            )
        yield mask.organs, index
        return
    strange = strange_labels(mask, volume)
    if strange:
        raise DataError(f"{where}: label {_some(strange)} stands for no organ; name it in hnlib.yaml or remove it")
    place = {int(v): k for k, v in enumerate(values)}
    for value, organ in mask.organs.items():
        yield organ, index[inverse == place[value]] if value in place else index[:0]


def _filled(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return the flat indices of all voxels that are not 0; a mask fills a small part of its scan, found first."""
    box = voxel_box(labels) if labels.dtype == np.uint8 else tuple(map(slice, labels.shape))
    if box is None:
        return np.empty(0, np.int64)
    places = [part.indices(n)[0] + at for part, n, at in zip(box, labels.shape, np.nonzero(labels[box]), strict=True)]
    return np.ravel_multi_index(tuple(places), labels.shape)


def strange_labels(mask: MaskFile, volume: Volume) -> list[int]:
    """Return the values of a label map that stand for no organ."""
    if isinstance(mask.organs, str):
        return []
    return [int(value) for value in np.unique(volume.array) if value and int(value) not in mask.organs]


def require_grid(like: Volume, volume: Volume, of: str, where: str) -> None:
    """Refuse a file of outlines on another grid than that ``of`` which it must share.

    Raises
    ------
    DataError
        When the grids differ.
    """
    if difference := same_grid(like, volume, of):
        raise DataError(
            f"{where}: lies on another grid than the rest of the case ({difference}); export it on the grid of the scan"
        )


def read_labels(files: CaseFiles, organs: tuple[str, ...], like: Volume | None = None) -> Labels:
    """Read the outlines of a case into one label map, ``i + 1`` for ``organs[i]``.

    Parameters
    ----------
    like
        The scan whose grid the outlines must share. None takes the grid of the first file.

    Raises
    ------
    DataError
        When there is no outline, a file is broken or on another grid, or outlines overlap by more than
        ``MAX_LOST_FRACTION`` of an organ.
    """
    found: dict[str, NDArray[np.int64]] = {}
    masks = [m for m in files.masks if not isinstance(m.organs, str) or m.organs in organs]
    of = "of the scan" if like else f"of {masks[0].path.name}" if masks else ""
    for mask in masks:
        volume = read_volume(mask.path, labels=True, case=files.name)
        like = volume if like is None else like
        require_grid(like, volume, of, f"case {files.name}, file {mask.path}")
        found.update((organ, index) for organ, index in outlines(mask, volume, files.name) if organ in organs)
    if like is None or not found:
        raise DataError(
            f"case {files.name}: no file of outlines, such as {files.expected}; copy the case again, or name its files "
            "rightly"
        )
    flat = np.zeros(like.array.size, np.uint8)
    labelled = [organ for organ in organs if found.get(organ, np.empty(0)).size]
    for organ in labelled:
        flat[found[organ]] = organs.index(organ) + 1
    for organ in labelled:
        kept = np.count_nonzero(flat[found[organ]] == organs.index(organ) + 1)
        if kept < (1 - MAX_LOST_FRACTION) * found[organ].size:
            raise DataError(
                f"case {files.name}: other outlines cover {found[organ].size - kept} of {found[organ].size} voxels of "
                f"{organ}; export the outlines again"
            )
    return Volume(flat.reshape(like.array.shape), like.spacing_mm, like.affine), frozenset(labelled)


def read_case(files: CaseFiles, organs: tuple[str, ...]) -> Case:
    """Read scan and outlines of a case.

    Raises
    ------
    DataError
        When the scan is absent or broken, or the outlines are (see `read_labels`).
    """
    if files.image is None:
        raise DataError(
            f"case {files.name}: there are outlines but no CT; copy the CT to its place, or use the outlines alone "
            "(hnlib plan --outlines-only; load_labels in Python)"
        )
    image = read_volume(files.image, case=files.name)
    labels, labelled = read_labels(files, organs, like=image)
    return Case(
        name=files.name,
        image_hu=image.array,
        labels=labels.array,
        spacing_mm=image.spacing_mm,
        organs=organs,
        labelled=labelled,
    )


def digest_files(about: object, cases: Iterable[CaseFiles]) -> str:
    """Return a digest over what ``about`` says and the content of every file of the cases."""
    state = hashlib.blake2b(repr(about).encode(), digest_size=16)
    for files in cases:
        state.update(files.name.encode())
        images = [files.image] if files.image else []
        for path in [*images, *(mask.path for mask in files.masks)]:
            for part in volume_files(path):
                state.update(part.name.encode())
                with part.open("rb") as content:
                    state.update(hashlib.file_digest(content, "blake2b").digest())
    return state.hexdigest()


class FileDataset(ABC):
    """What data sets have in common whose cases lie in files: they only say which files, and split them."""

    name: str

    @property
    @abstractmethod
    def organs(self) -> tuple[str, ...]:
        """Organs in label order."""

    @abstractmethod
    def split(self) -> Mapping[str, tuple[str, ...]]:
        """Return case names by split."""

    @abstractmethod
    def files(self, case: str) -> CaseFiles:
        """Return where the parts of a case lie."""

    def load(self, case: str) -> Case:
        """Read one case."""
        return read_case(self.files(case), self.organs)

    def load_labels(self, case: str) -> Labels:
        """Read the outlines of one case alone: the label map on its grid, and the organs outlined."""
        return read_labels(self.files(case), self.organs)

    def digest(self) -> str:
        """Return a digest over what the labels stand for and the content of every file of the split's cases."""
        cases = (self.files(case) for names in self.split().values() for case in names)
        return digest_files((self.name, self._meaning(), self.split()), cases)

    def _meaning(self) -> object:
        """Return what the digest covers beside names and files."""
        return self.organs


def _some(values: Iterable[object]) -> str:
    listed = [str(v) for v in values]
    return ", ".join(listed[:4]) + (" ..." if len(listed) > 4 else "")
