"""The cache of preprocessed cases: one compressed file a case, of which a patch is read without the rest.

A cache's folder is named by the digest of all that matters: the data, the plan and the version of the
preprocessing. Cases are written whole or not at all, so a killed preparation goes on where it stood
and two at once do no harm. A checksum of the voxels lies in each file and is compared when the case is
opened: the compressor finds only some damages itself.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import blosc2
import numpy as np
from numpy.typing import NDArray

from hnlib.cases import Case, Dataset
from hnlib.errors import DataError
from hnlib.files import write_atomically, write_json
from hnlib.preprocess import BODY_HU, PLAN_RULES, Plan, PlanRule, Prepared, make_plan, preprocess_case
from hnlib.processes import process_pool

#: Raise it when the arrays that `hnlib.preprocess.preprocess_case` writes change, so that old caches are not used.
VERSION = 1
SUFFIX = ".b2nd"
#: Edge of a compressed chunk in voxels: a patch touches few of them, and none is large.
CHUNK = 64
#: More than a case can have: a damaged file may claim any number, and memory would be sought for it.
MAX_NUMBERS = 2**31
#: What lies beside the voxels of a case, besides their checksum (which files of older versions lack).
RECORD = frozenset({"low", "box", "native_shape", "native_spacing_mm", "labelled"})


def cache_digest(dataset_digest: str, plan: Plan) -> str:
    """Return the digest that names a cache: data, plan and version of the preprocessing."""
    matters = {key: value for key, value in asdict(plan).items() if value is not None}  # as before there was a crop
    text = json.dumps([dataset_digest, matters, VERSION, BODY_HU], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def case_path(cache: Path, name: str) -> Path:
    """Return the file of a case in a cache."""
    return cache / f"{name}{SUFFIX}"


def save_prepared(path: Path, prepared: Prepared) -> None:
    """Write one preprocessed case.

    Image and labels are two channels in half precision: a step of at most about 0.5 HU, and labels exact.
    """
    both = np.stack([prepared.image.astype(np.float16), prepared.labels.astype(np.float16)])
    about = {
        "low": float(both[0].min()),
        "box": [list(span) for span in prepared.box],
        "native_shape": list(prepared.native_shape),
        "native_spacing_mm": list(prepared.native_spacing_mm),
        "labelled": sorted(prepared.labelled),
    }

    def write(part: Path) -> None:
        part.unlink()  # blosc2 wants to make the file itself
        chunks = (1, *(min(CHUNK, n) for n in both.shape[1:]))
        packing = {"codec": blosc2.Codec.ZSTD, "clevel": 1, "nthreads": 1}
        stored = blosc2.asarray(both, urlpath=str(part), mode="w", chunks=chunks, cparams=packing)
        stored.vlmeta["prepared"] = json.dumps({**about, "crc32": _checksum(both, about)})

    write_atomically(path, write)


def _checksum(both: Any, about: Mapping[str, Any]) -> int:
    """Return the CRC-32 of a case's record and voxels, which are read slab by slab."""
    state = zlib.crc32(json.dumps(about, sort_keys=True).encode())
    for channel in range(2):
        for start in range(0, both.shape[1], CHUNK):
            state = zlib.crc32(np.ascontiguousarray(both[channel, start : start + CHUNK]).data, state)
    return state


class _Channel:
    """One channel of a stored case; what is sliced is read from disk and nothing else."""

    def __init__(self, stored: Any, channel: int, dtype: type[np.generic]) -> None:
        self._stored, self._channel, self.dtype = stored, channel, np.dtype(dtype)
        self.shape, self.ndim = tuple(int(n) for n in stored.shape[1:]), 3

    def __getitem__(self, index: Any) -> NDArray[Any]:
        spans = index if isinstance(index, tuple) else (index,)
        spans = spans[1:] if spans and spans[0] is Ellipsis else spans
        return np.asarray(self._stored[(self._channel, *spans)]).astype(self.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[...].astype(dtype or self.dtype, copy=False)


def open_prepared(path: Path) -> Prepared:
    """Open a preprocessed case without keeping its volumes: they are read once, to compare their checksum.

    Its image and labels are read from disk where they are sliced; `load_prepared` reads them whole.

    Raises
    ------
    DataError
        When the file is missing or damaged.
    """
    try:
        stored = blosc2.open(str(path), mode="r", mmap_mode="r")
        about = json.loads(stored.vlmeta["prepared"])
        stated = about.pop("crc32", None)
        if set(about) != RECORD:
            raise ValueError(f"its record holds {', '.join(map(str, about)) or 'nothing'}")
        shape, spacing = about["native_shape"], about["native_spacing_mm"]
        if stored.ndim != 4 or stored.shape[0] != 2 or math.prod(stored.shape) > MAX_NUMBERS:
            raise ValueError(f"holds {stored.shape} numbers, not an image and its labels")
        if stated is not None and stated != _checksum(stored, about):
            raise ValueError("its checksum is not that of its voxels")
        return Prepared(
            name=path.name.removesuffix(SUFFIX),
            image=cast("NDArray[np.float32]", _Channel(stored, 0, np.float32)),
            labels=cast("NDArray[np.uint8]", _Channel(stored, 1, np.uint8)),
            low=float(about["low"]),
            box=tuple((int(a), int(b)) for a, b in about["box"]),
            native_shape=(int(shape[0]), int(shape[1]), int(shape[2])),
            native_spacing_mm=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
            labelled=frozenset(str(name) for name in about["labelled"]),
        )
    except Exception as fault:  # what a damaged file makes a reader raise is no part of any reader's promise
        raise _broken(path, fault) from None


def load_prepared(path: Path) -> Prepared:
    """Read a preprocessed case into memory.

    Raises
    ------
    DataError
        When the file is missing or damaged.
    """
    case = open_prepared(path)
    try:
        return replace(case, image=np.asarray(case.image), labels=np.asarray(case.labels))
    except (OSError, RuntimeError, ValueError) as fault:
        raise _broken(path, fault) from None


def _broken(path: Path, fault: Exception) -> DataError:
    reason = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
    return DataError(
        f"case {path.name.removesuffix(SUFFIX)}, cache file {path}: cannot be read ({reason}); "
        "delete it and prepare again"
    )


def _prepare_one(task: tuple[Dataset, str, Plan, Path]) -> str:
    dataset, name, plan, path = task
    save_prepared(path, preprocess_case(dataset.load(name), plan))
    return name


def prepare(
    dataset: Dataset,
    folder: Path,
    *,
    workers: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
    change: Callable[[Plan], Plan] | None = None,
    rule: PlanRule = PLAN_RULES["nnunet"],
) -> tuple[Plan, Path]:
    """Preprocess every case of a data set once; what is already in the cache stays.

    Parameters
    ----------
    folder
        The cache's root; cases go to ``folder/<dataset>-<digest>/<case>.b2nd``.
    workers
        Number of processes.
    progress
        Called with (what, done, total).
    change
        Replaces numbers of the derived plan, such as a fixed spacing.
    rule
        How the plan is derived.

    Returns
    -------
    plan, cache
        The plan and the folder of this data set's cases.
    """
    split = dataset.split()
    training = split["train"]
    names = [name for part in split.values() for name in part]
    report = progress or (lambda _what, _done, _total: None)

    def read_training() -> Iterable[Case]:
        for done, name in enumerate(training, start=1):
            yield dataset.load(name)
            report("plan", done, len(training))

    plan = make_plan(read_training(), rule)
    plan = change(plan) if change else plan
    cache = folder / f"{dataset.name}-{cache_digest(dataset.digest(), plan)}"
    missing = [(dataset, name, plan, path) for name in names if not (path := case_path(cache, name)).exists()]
    if workers > 1 and len(missing) > 1:
        with process_pool(workers) as pool:
            for done, _ in enumerate(pool.map(_prepare_one, missing), start=1):
                report("preprocess", done, len(missing))
    else:
        for done, task in enumerate(missing, start=1):
            _prepare_one(task)
            report("preprocess", done, len(missing))
    write_json(cache / "plan.json", asdict(plan))
    return plan, cache


def load_plan(cache: Path) -> Plan:
    """Read the plan that lies beside the cases of a cache."""
    try:
        stored = json.loads((cache / "plan.json").read_text())
        for key in ("spacing_mm", "median_shape", "clip_hu", "organs", *(["crop"] if stored.get("crop") else [])):
            stored[key] = tuple(stored[key])
        return Plan(**stored)
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise DataError(f"cache {cache}: no usable plan.json ({fault}); run hnlib prepare again") from None
