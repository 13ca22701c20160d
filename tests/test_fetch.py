"""Fetching against a server on this machine: checksum, resume, safe unpacking, one line where it fails."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hnlib.cli import main
from hnlib.datasets import fetch as module
from hnlib.datasets.fetch import SOURCES, Archive, fetch, mirror
from hnlib.errors import ConfigError, DataError


class Server:
    """Serves one content; breaks off the first answers after some bytes, and counts what it sent."""

    def __init__(self) -> None:
        self.content = b""
        self.break_after: list[int] = []
        self.ranges = True
        self.asked: list[str | None] = []
        self.sent = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/data.zip"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(self.content) > 0:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        body = body[: self.break_after.pop(0)] if self.break_after else body
        self.sent += len(body)
        request.wfile.write(body)
        request.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    thread = threading.Thread(target=partial(one.http.serve_forever, 0.01), daemon=True)
    thread.start()
    yield one
    one.http.shutdown()
    one.http.server_close()
    thread.join()


def packed(members: dict[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return memory.getvalue()


GOOD = packed({"0522c0001/img.nrrd": os.urandom(5000), "0522c0001/structures/Mandible.nrrd": b"mandible"})


def archive_of(server: Server, content: bytes = GOOD) -> Archive:
    server.content = content
    return Archive(server.url, hashlib.sha256(content).hexdigest())


def test_an_archive_is_loaded_verified_and_unpacked_once(server: Server, tmp_path: Path) -> None:
    lines: list[str] = []
    archive = archive_of(server)
    fetch("pddca", tmp_path / "new", archive=archive, report=lines.append)
    folder = tmp_path / "new"
    assert (folder / "0522c0001" / "structures" / "Mandible.nrrd").read_bytes() == b"mandible"
    assert sorted(p.name for p in folder.iterdir()) == ["0522c0001", "data.zip"]
    assert lines[-1] == f"data.zip unpacked in {folder}"
    (folder / "0522c0001" / "structures" / "Mandible.nrrd").write_bytes(b"mine")
    fetch("pddca", folder, archive=archive)
    assert len(server.asked) == 1
    assert (folder / "0522c0001" / "structures" / "Mandible.nrrd").read_bytes() == b"mine"


def test_a_broken_download_goes_on_where_it_stopped(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three answers break off at 1000 bytes: the command fails and says so; given again, it asks for the rest only."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 100)
    archive = archive_of(server)
    server.break_after = [1000, 1000, 1000]
    with pytest.raises(DataError, match="try again to go on from there, or by hand"):
        fetch("pddca", tmp_path, archive=archive)
    assert (tmp_path / "data.zip.part").stat().st_size == 3000
    fetch("pddca", tmp_path, archive=archive)
    assert server.asked == [None, "bytes=1000-", "bytes=2000-", "bytes=3000-"]
    assert server.sent == len(GOOD)
    assert (tmp_path / "data.zip").read_bytes() == GOOD


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    archive = archive_of(server)
    server.ranges, server.break_after = False, [1000]
    fetch("pddca", tmp_path, archive=archive)
    assert (tmp_path / "data.zip").read_bytes() == GOOD


def test_a_part_that_is_already_whole_or_too_long_is_handled(server: Server, tmp_path: Path) -> None:
    archive = archive_of(server)
    (tmp_path / "data.zip.part").write_bytes(GOOD)
    fetch("pddca", tmp_path, archive=archive)
    (tmp_path / "data.zip").unlink()
    (tmp_path / "data.zip.part").write_bytes(GOOD + b"more")
    fetch("pddca", tmp_path, archive=archive)
    assert (tmp_path / "data.zip").read_bytes() == GOOD


def test_a_wrong_checksum_leaves_nothing(server: Server, tmp_path: Path) -> None:
    archive = archive_of(server)
    server.content = GOOD[:-1] + b"x"
    with pytest.raises(DataError, match="the checksum differs"):
        fetch("pddca", tmp_path, archive=archive)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_page_and_a_dead_server_are_one_line(server: Server, tmp_path: Path) -> None:
    """Without a network the line says what to fetch by hand and where to put it."""
    archive = Archive("http://127.0.0.1:9/PDDCA-1.4.1_part1.zip", "0" * 64)
    with pytest.raises(DataError) as caught:
        fetch("pddca", tmp_path, archive=archive)
    message = str(caught.value)
    assert SOURCES["pddca"].page in message
    assert "download its three zip files and put them into" in message
    assert str(tmp_path) in message
    assert "\n" not in message


@pytest.mark.parametrize("dataset", ["openkbp", "tcia"])
def test_a_set_without_a_lasting_checksum_is_fetched_by_hand(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{dataset}: .*by hand: see https://github.com/.* put them into"):
        fetch(dataset, tmp_path)


IDS = [
    "up",
    "deep-up",
    "absolute",
    "backslash",
    "drive",
    "link",
    "tar-up",
    "tar-link",
    "tar-abs",
    "tar-hard",
    "device",
    "cut",
    "tar-cut",
    "html",
]


def link_zip() -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as file:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        file.writestr(info, "/etc")
    return memory.getvalue()


def tar_of(name: str, **change: object) -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w:gz") as file:
        info = tarfile.TarInfo(name)
        for key, value in change.items():
            setattr(info, key, value)
        file.addfile(info, io.BytesIO(b"x" * info.size))
    return memory.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        packed({"fine.txt": b"x", "../evil.txt": b"x"}),
        packed({"fine.txt": b"x", "a/../../evil.txt": b"x"}),
        packed({"/tmp/evil.txt": b"x"}),
        packed({"..\\evil.txt": b"x"}),
        packed({"C:/evil.txt": b"x"}),
        link_zip(),
        tar_of("../evil.txt", size=1),
        tar_of("link", type=tarfile.SYMTYPE, linkname="../../outside"),
        tar_of("link", type=tarfile.SYMTYPE, linkname="/etc"),
        tar_of("hard", type=tarfile.LNKTYPE, linkname="../outside"),
        tar_of("device", type=tarfile.CHRTYPE),
        GOOD[:2000],
        tar_of("a", size=5000)[:40],
        b"<html>moved</html>",
    ],
    ids=IDS,
)
def test_an_archive_that_reaches_outside_or_is_damaged_unpacks_nothing(
    server: Server, tmp_path: Path, content: bytes
) -> None:
    folder = tmp_path / "in"
    with pytest.raises(DataError, match="cannot be unpacked") as caught:
        fetch("pddca", folder, archive=archive_of(server, content))
    assert "\n" not in str(caught.value)
    assert [p.name for p in folder.iterdir()] == ["data.zip"]
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_an_honest_tar_file_unpacks(server: Server, tmp_path: Path) -> None:
    fetch("pddca", tmp_path, archive=archive_of(server, tar_of("a/b.txt", size=3)))
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"xxx"


def test_a_full_disk_is_one_line(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module._Download, "_copy", full)
    with pytest.raises(DataError, match=r"No space left on device.*free space"):
        fetch("pddca", tmp_path, archive=archive_of(server))


def test_an_archive_of_ones_own_needs_address_and_checksum() -> None:
    assert mirror("", "") is None
    assert mirror("https://a/b.zip?x=1", "AB" * 32) == Archive("https://a/b.zip?x=1", "ab" * 32)
    assert Archive("https://a/b.zip?x=1", "").name == "b.zip"
    for url, digits in (
        ("https://a/b.zip", ""),
        ("", "ab" * 32),
        ("file:///etc/passwd", "ab" * 32),
        ("https://a", "z"),
    ):
        with pytest.raises(ConfigError, match="--sha256 with 64"):
            mirror(url, digits)


def test_the_command_fetches_and_says_what_is_next(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = archive_of(server)
    with pytest.raises(SystemExit) as caught:
        main(["fetch", "pddca", "--to", str(tmp_path), "--url", archive.url, "--sha256", archive.sha256])
    assert caught.value.code == 0
    assert f"hnlib check pddca {tmp_path}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["fetch", "pdca", "--to", str(tmp_path)])
    assert caught.value.code == 2
    assert "did you mean 'pddca'" in capsys.readouterr().err
