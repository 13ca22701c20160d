"""Damages to the bytes of a file, as hypothesis draws them: cuts, flips, other lines in a header, other bytes."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

Damage = Callable[[bytes], bytes]
#: What no header should say.
VALUES = [
    b"", b"-1", b"0", b"1", b"nan", b"inf", b"1e300", b"99999999999999999999", b"30000 30000 30000", b"5 4 3 1000000",
    b"-5 4 3", b"0 0 0", b"(1,0,0) (0,1,0) (0,0,0)", b"1 0 0 0 1 0 0 0 nan", b"\xff\xfe\x00", b"double", b"MET_DOUBLE",
    b"raw", b"gzip", b"LOCAL", b"..", b"1000000000000",
]  # fmt: skip
KEYS = [b"line skip", b"byte skip", b"data file", b"dimension", b"sizes", b"NDims", b"DimSize", b"HeaderSize"]
MEMORY_BYTES = 64 * 2**20

#: The same examples at every run; none may take long, on a busy machine neither.
bounded = settings(
    derandomize=True,
    deadline=timedelta(seconds=10),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def damages() -> st.SearchStrategy[Damage]:
    """Return one or two damages in a row, prefer those of the first bytes, where headers are."""
    place = st.one_of(st.floats(0, 1), st.integers(0, 400))
    one = st.one_of(
        st.builds(cut, place),
        st.builds(put, place, st.binary(min_size=1, max_size=8)),
        st.builds(splice, place, st.integers(0, 40), st.binary(max_size=6)),
        st.builds(line, st.integers(0, 15), st.sampled_from(VALUES)),
        st.builds(added, st.sampled_from(KEYS), st.sampled_from(VALUES)),
        st.builds(lambda new: lambda _content: new, st.binary(max_size=500)),
    )
    return st.builds(lambda steps: lambda content: _all(steps, content), st.lists(one, min_size=1, max_size=2))


def cut(place: float | int) -> Damage:
    """Return what keeps the bytes before a place: an index, or a fraction of the whole."""
    return lambda content: content[: _index(place, content)]


def put(place: float | int, new: bytes) -> Damage:
    """Return what overwrites bytes."""
    return lambda content: content[: _index(place, content)] + new + content[_index(place, content) + len(new) :]


def splice(place: float | int, length: int, new: bytes) -> Damage:
    """Return what replaces some bytes by fewer or more."""
    return lambda content: content[: _index(place, content)] + new + content[_index(place, content) + length :]


def line(number: int, value: bytes) -> Damage:
    """Return what gives a line of a text header another value."""

    def do(content: bytes) -> bytes:
        lines = content.split(b"\n")
        k = number % len(lines)
        for separator in (b":", b"=", b","):
            if separator in lines[k]:
                lines[k] = lines[k].split(separator)[0] + separator + b" " + value
                return b"\n".join(lines)
        return b"\n".join([*lines[:k], value, *lines[k + 1 :]])

    return do


def added(key: bytes, value: bytes) -> Damage:
    """Return what adds a line behind the first, as NRRD or as MetaImage writes it."""

    def do(content: bytes) -> bytes:
        first, _, rest = content.partition(b"\n")
        separator = b": " if first.startswith(b"NRRD") else b" = "
        return first + b"\n" + key + separator + value + b"\n" + rest

    return do


def _index(place: float | int, content: bytes) -> int:
    return min(len(content), place if isinstance(place, int) else int(place * len(content)))


def _all(steps: list[Damage], content: bytes) -> bytes:
    for step in steps:
        content = step(content)
    return content


@contextmanager
def little_memory() -> Iterator[None]:
    """Fail where more than ``MEMORY_BYTES`` are allocated at once, touched or not."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_BYTES, f"{peak / 2**20:.0f} MiB"


@contextmanager
def full_disk(limit_bytes: int = 1000) -> Iterator[None]:
    """Let every file of this process end at a size: what is written beyond fails as on a full disk, in C code too."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Refuse new files below a folder; taking rights away would not stop a superuser."""
    make = os.open

    def refuse(path: str | Path, flags: int, *arguments: int, **options: int) -> int:
        if flags & os.O_CREAT and Path(os.fsdecode(path)).is_relative_to(folder):
            raise OSError(30, "Read-only file system", str(path))
        return make(path, flags, *arguments, **options)

    with mock.patch("os.open", refuse):
        yield
