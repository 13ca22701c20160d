"""Downloads a public data set, verifies it and unpacks it.

pooch keeps the archive and verifies its checksum. It starts a broken download anew, so `_Download` adds what it lacks:
the bytes that have come stay in a ``.part`` file, and HTTP Range asks for the rest.
"""

from __future__ import annotations

import logging
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pooch
import requests

from hnlib.errors import ConfigError, DataError, unknown

Report = Callable[[str], None]
ATTEMPTS = 3
TIMEOUT_S = 30
CHUNK_BYTES = 1 << 16  # at most so much of a broken download comes twice


@dataclass(frozen=True)
class Archive:
    """A zip or tar file in the network, with the SHA-256 of its content."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """File name of the archive."""
        return PurePosixPath(self.url.partition("?")[0]).name


@dataclass(frozen=True)
class Source:
    """Where a data set is published: its page, its archives, and what to do by hand."""

    page: str
    archives: tuple[Archive, ...]
    by_hand: str


#: PDDCA's archives and checksums are those that the public code of torch-em names; we have not downloaded them
#: ourselves. The other two are published as git repositories: no archive of theirs has a lasting checksum.
SOURCES = {
    "pddca": Source(
        "https://www.imagenglab.com/newsite/pddca/",
        tuple(
            Archive(f"https://www.imagenglab.com/data/pddca/PDDCA-1.4.1_part{part}.zip", sha256)
            for part, sha256 in (
                (1, "5b47b94f1e6aaad0a10c694906bd40ee8bcfc701e6d3bcbe3f12005815b721ef"),
                (2, "a5354e5373050f958e2696088a24f25f72361844d8b0d6988c16a3c989fd5659"),
                (3, "58bc70db301d3f0fd2e856a33e7d2be929859bc5b1a37d7c83a47f2bbe6a7fb6"),
            )
        ),
        "download its three zip files",
    ),
    "openkbp": Source(
        "https://github.com/ababier/open-kbp", (), "clone that repository and take its folder provided-data"
    ),
    "tcia": Source(
        "https://github.com/google-deepmind/tcia-ct-scan-dataset",
        (),
        "clone that repository with git LFS (the CTs lie there) and take its folder nrrds",
    ),
}


def fetch(dataset: str, folder: Path, *, archive: Archive | None = None, report: Report | None = None) -> None:
    """Download the archives of a data set into a folder and unpack them there.

    What is there already stays: an archive with the right checksum is not loaded again, an unpacked file is not
    replaced, and a broken download goes on where it stopped.

    Parameters
    ----------
    dataset
        ``pddca``, ``openkbp`` or ``tcia``.
    archive
        Another copy of the data, such as a mirror of one's own.
    report
        Called with a line on each step.

    Raises
    ------
    ConfigError
        For an unknown data set.
    DataError
        When the data must be fetched by hand, the network or the disk fails, the checksum differs, or an archive is
        damaged or would write outside the folder.
    """
    if dataset not in SOURCES:
        raise unknown("data set to fetch", dataset, SOURCES)
    source = SOURCES[dataset]
    archives = (archive,) if archive else source.archives
    by_hand = f"by hand: see {source.page}, {source.by_hand} and put them into {folder}"
    if not archives:
        raise DataError(f"{dataset}: has no archive with a lasting checksum; fetch it {by_hand}")
    tell = report or (lambda _line: None)
    for one in archives:
        _unpack(_get(one, folder, by_hand, tell), folder)
        tell(f"{one.name} unpacked in {folder}")


def mirror(url: str, sha256: str) -> Archive | None:
    """Return the archive that a user names by address and checksum; None where neither is given."""
    if not url and not sha256:
        return None
    digits = sha256.strip().lower()
    if not url.startswith(("http://", "https://")) or len(digits) != 64 or set(digits) - set("0123456789abcdef"):
        raise ConfigError(
            "an archive of your own needs both --url http(s)://... and --sha256 with 64 hexadecimal digits"
        )
    return Archive(url, digits)


def _get(archive: Archive, folder: Path, by_hand: str, report: Report) -> Path:
    pooch.get_logger().setLevel(logging.ERROR)
    try:
        found = pooch.retrieve(
            archive.url,
            known_hash=f"sha256:{archive.sha256}",
            fname=archive.name,
            path=folder,
            downloader=_Download(folder / f"{archive.name}.part", report),
        )
    except requests.RequestException as fault:
        raise DataError(f"{archive.url}: {_reason(fault)}; try again to go on from there, or {by_hand}") from None
    except ValueError:
        raise DataError(
            f"{archive.url}: the checksum differs from {archive.sha256[:12]}..., the file was thrown away; "
            f"try again, or {by_hand}"
        ) from None
    except OSError as fault:
        raise DataError(
            f"{folder}: cannot be written ({fault.strerror}); free space or choose another folder"
        ) from None
    return Path(found)


@dataclass(frozen=True)
class _Download:
    """A downloader for pooch that keeps what has come and asks for the rest."""

    part: Path
    report: Report

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._append(url)
                break
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                if attempt == ATTEMPTS:
                    raise
        self.part.replace(output_file)

    def _append(self, url: str) -> None:
        have = self.part.stat().st_size if self.part.exists() else 0
        # identity: a compressed transfer has other bytes than the file, and Range would count those
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                if answer.headers.get("Content-Range") == f"bytes */{have}":
                    return  # everything has come already
                self.part.unlink()
                return self._append(url)
            answer.raise_for_status()
            go_on = answer.status_code == requests.codes.partial_content
            have = have if go_on else 0
            total = have + int(answer.headers.get("Content-Length", 0))
            with self.part.open("ab" if go_on else "wb") as file:
                self._copy(answer, file.write, have, total)
        if total and self.part.stat().st_size < total:
            raise requests.ConnectionError(f"the connection broke after {self.part.stat().st_size} of {total} bytes")

    def _copy(self, answer: requests.Response, write: Callable[[bytes], int], have: int, total: int) -> None:
        shown = have * 10 // max(total, 1)
        for chunk in answer.iter_content(CHUNK_BYTES):
            have += write(chunk)
            if total and have * 10 // total > shown:
                shown = have * 10 // total
                self.report(f"{self.part.stem}: {have / 1e6:.0f} of {total / 1e6:.0f} MB")


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack into a folder beside the rest, then move file by file: what is seen is whole."""
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as name:
        try:
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(archive) as packed:
                    for member in packed.infolist():
                        _check_member(member)
                    packed.extractall(name)
            else:
                with tarfile.open(archive) as packed_tar:
                    packed_tar.extractall(name, filter="data")  # refuses absolute paths, .. and links that lead outside
            _merge(Path(name), folder)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, ValueError, EOFError) as fault:
            raise DataError(f"{archive}: cannot be unpacked ({_reason(fault)}); nothing was unpacked") from None
        except OSError as fault:
            raise DataError(f"{archive}: cannot be unpacked ({_reason(fault)}); free space and try again") from None


def _check_member(member: zipfile.ZipInfo) -> None:
    place = PurePosixPath(member.filename.replace("\\", "/"))
    outside = place.is_absolute() or ".." in place.parts or any(":" in part for part in place.parts[:1])
    if outside or stat.S_ISLNK(member.external_attr >> 16):
        raise ValueError(f"member {member.filename!r} would lie outside the folder, or is a link")


def _merge(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for entry in source.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            _merge(entry, target / entry.name)
        elif not (target / entry.name).exists():
            shutil.move(entry, target / entry.name)


def _reason(fault: BaseException) -> str:
    text = " ".join(str(fault).split()) or type(fault).__name__
    return text[:160] + ("..." if len(text) > 160 else "")
