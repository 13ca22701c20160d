"""Where cases come from. Each data set has its own module; all offer `hnlib.cases.Dataset`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from hnlib.cases import Dataset
from hnlib.datasets.folder import FolderDataset
from hnlib.datasets.openkbp import OpenKBP
from hnlib.datasets.pddca import PDDCA
from hnlib.datasets.phantom import PhantomDataset
from hnlib.datasets.phantom_anatomy import ALL_ORGANS
from hnlib.datasets.tcia import TCIA
from hnlib.errors import ConfigError, unknown
from hnlib.organs import ORGANS

#: Name to where that stands which opens a folder of scans with ``(root, num_cases, organs=...)``; without organs: the
#: data set's own.
READERS: Mapping[str, str] = {
    "openkbp": "hnlib.datasets.openkbp:OpenKBP",
    "pddca": "hnlib.datasets.pddca:PDDCA",
    "tcia": "hnlib.datasets.tcia:TCIA",
    "folder": "hnlib.datasets.nnunet_raw:open_own",
}
DATASETS = ("phantom", *READERS)

__all__ = ["DATASETS", "PDDCA", "READERS", "TCIA", "FolderDataset", "OpenKBP", "PhantomDataset", "open_dataset"]


def open_dataset(
    name: str,
    root: Path | str | None = None,
    num_cases: Mapping[str, int] | None = None,
    organs: tuple[str, ...] | None = None,
    phantom_spacing_mm: tuple[float, float, float] | None = None,
) -> Dataset:
    """Return the data set of that name.

    Parameters
    ----------
    name
        One of ``DATASETS``.
    root
        Folder of the data; the phantom needs none.
    num_cases
        At most so many cases of each split (phantom: exactly so many). None takes the data set's own.
    organs
        Organs in label order. None takes the data set's own; in a case that has no outline of one of
        them, it is unknown.
    phantom_spacing_mm
        Voxel edges of the phantom, which can be made on any grid; None takes its own. Scans have theirs.

    Raises
    ------
    ConfigError
        For an unknown name or organ, or real data without a root.
    DataError
        When the folder or its layout is missing.
    """
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    options: dict[str, Any] = {} if organs is None else {"organs": _known(name, organs)}
    if name == "phantom":
        options |= {"num_cases": num_cases} if num_cases else {}
        options |= {"spacing_mm": phantom_spacing_mm} if phantom_spacing_mm else {}
        return PhantomDataset(**options)
    if root is None or not str(root):
        raise ConfigError(
            f"dataset {name} needs the folder of its data: give DATA_ROOT=... (make), --data-root (hnlib prepare), or "
            "its place (hnlib check)"
        )
    reader: Callable[..., Dataset] = resolve_name(READERS[name])
    return reader(Path(root), num_cases, **options)


def _known(name: str, organs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the organs where the data set outlines them and can be told which to take."""
    if name == "folder":
        raise ConfigError(
            "dataset folder: its organs are named in its own file (hnlib.yaml); leave organs out of the profile"
        )
    offered = [organ.name for organ in ORGANS.values() if name in organ.spellings]
    if name == "phantom":
        offered = list(ALL_ORGANS)
    for organ in organs:
        if organ not in offered:
            raise unknown(f"organ of dataset {name}", organ, offered)
    return organs
