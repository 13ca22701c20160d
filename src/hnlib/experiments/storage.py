"""What past work keeps outside the checkout: preprocessed scans and run folders, their sizes, and their removal."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from hnlib.errors import unknown
from hnlib.experiments.study import home


@dataclass(frozen=True)
class Stored:
    """A folder that can be made again: ``cache/<data set>-<digest>`` or ``runs/<data set>/<profile>``."""

    name: str
    path: Path
    size_bytes: int


def stored_folders() -> list[Stored]:
    """Return what is kept, the caches first."""
    caches = [(f"cache/{path.name}", path) for path in _folders(home("cache"))]
    runs = [(f"runs/{data.name}/{path.name}", path) for data in _folders(home("runs")) for path in _folders(data)]
    return [Stored(name, path, _size(path)) for name, path in [*caches, *runs]]


def clear(name: str) -> Stored:
    """Remove one of `stored_folders` and return what it was.

    Raises
    ------
    ConfigError
        For a name that is not among them.
    """
    found = {one.name: one for one in stored_folders()}
    if name not in found:
        raise unknown("stored folder", name, found)
    shutil.rmtree(found[name].path)
    return found[name]


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
