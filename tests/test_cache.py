"""The cache: what goes in comes out, a slice reads only itself, damage and age are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import blosc2
import numpy as np
import pytest
from damage import full_disk, little_memory, read_only
from scanfiles import head, organ_mask, write_head
from test_preprocess import block

from hnlib.cache import VERSION, cache_digest, load_plan, load_prepared, open_prepared, prepare, save_prepared
from hnlib.cli import main
from hnlib.datasets import FolderDataset, PhantomDataset
from hnlib.errors import DataError
from hnlib.preprocess import Prepared, make_plan, preprocess_case
from hnlib.sampling import extract

FEW = {"train": 2, "validation": 1, "test": 1}


def prepared() -> Prepared:
    case = block()
    return preprocess_case(case, make_plan([case]))


def test_cache_round_trip_keeps_all_but_half_precision(tmp_path: Path) -> None:
    case = prepared()
    save_prepared(tmp_path / "a.b2nd", case)
    again = load_prepared(tmp_path / "a.b2nd")
    assert again.name == "a"
    assert np.array_equal(again.labels, case.labels)
    assert again.image == pytest.approx(case.image, abs=2e-3)
    assert again.low == again.image.min()
    assert (again.box, again.native_shape, again.labelled) == (case.box, case.native_shape, case.labelled)
    assert (again.image.dtype, again.labels.dtype) == (np.float32, np.uint8)


def test_a_patch_cut_on_disk_is_the_patch_cut_in_memory(tmp_path: Path) -> None:
    save_prepared(tmp_path / "a.b2nd", prepared())
    lazy, whole = open_prepared(tmp_path / "a.b2nd"), load_prepared(tmp_path / "a.b2nd")
    for start in ((2, 3, 1), (-2, 0, 5)):
        for one, two in ((lazy.image, whole.image), (lazy.labels, whole.labels)):
            cut = extract(one, start, (5, 4, 6), 0)
            assert cut.dtype == two.dtype
            assert np.array_equal(cut, extract(two, start, (5, 4, 6), 0))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut"])
def test_a_damaged_cache_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pt_7.b2nd").write_bytes(content)
    with pytest.raises(DataError, match=r"case pt_7, cache file .*pt_7\.b2nd: cannot be read .* prepare again"):
        load_prepared(tmp_path / "pt_7.b2nd")


def test_no_flipped_byte_gives_other_voxels(tmp_path: Path) -> None:
    """The compressor notices some damages, the checksum the rest; where nothing is noticed, nothing has changed."""
    path = tmp_path / "pt_7.b2nd"
    save_prepared(path, prepared())
    good, whole, said = path.read_bytes(), load_prepared(path), []
    for place in np.linspace(0, len(good) - 1, 150, dtype=int):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1 :])
        try:
            case = load_prepared(path)
        except DataError as fault:
            said.append(str(fault))
            continue
        assert np.array_equal(case.image, whole.image)
        assert np.array_equal(case.labels, whole.labels)
        assert replace(case, image=whole.image, labels=whole.labels) == whole
    assert any("its checksum is not that of its voxels" in line for line in said)
    assert all(line.startswith(f"case pt_7, cache file {path}: cannot be read (") for line in said)


def test_a_case_of_an_older_version_has_no_checksum_and_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pt_7.b2nd"
    save_prepared(path, prepared())
    stored = blosc2.open(str(path), mode="a")
    about = json.loads(stored.vlmeta["prepared"])
    del about["crc32"]
    stored.vlmeta["prepared"] = json.dumps(about)
    del stored
    assert np.array_equal(load_prepared(path).labels, prepared().labels)


def test_prepare_writes_once_and_finds_its_work_again(tmp_path: Path) -> None:
    data = PhantomDataset(num_cases=FEW)
    plan, cache = prepare(data, tmp_path)
    times = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.b2nd")}
    assert sorted(times) == [f"phantom_{i:03d}.b2nd" for i in range(4)]
    assert load_plan(cache) == plan
    (cache / "phantom_001.b2nd").unlink()
    prepare(data, tmp_path)
    now = {path.name: path.stat().st_mtime_ns for path in cache.glob("*.b2nd")}
    assert {name for name in times if now[name] != times[name]} == {"phantom_001.b2nd"}


def test_parallel_and_serial_preparation_agree(tmp_path: Path) -> None:
    data = PhantomDataset(num_cases=FEW)
    _, one = prepare(data, tmp_path / "one")
    _, two = prepare(data, tmp_path / "two", workers=2)
    assert one.name == two.name
    for path in one.glob("*.b2nd"):
        assert np.array_equal(load_prepared(path).image, load_prepared(two / path.name).image)


def test_a_case_cut_short_is_told_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "pt_7.b2nd"
    save_prepared(path, prepared())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"case pt_7, cache file .*: cannot be read"):
        open_prepared(path)


def test_two_preparations_at_once_leave_one_whole_cache(tmp_path: Path) -> None:
    data = PhantomDataset(num_cases=FEW)
    with ThreadPoolExecutor(2) as pool:
        (_, one), (_, two) = pool.map(lambda _: prepare(data, tmp_path), range(2))
    assert one == two
    assert sorted(path.name for path in one.iterdir()) == [*(f"phantom_{i:03d}.b2nd" for i in range(4)), "plan.json"]
    for path in one.glob("*.b2nd"):
        load_prepared(path)


def test_digest_changes_with_data_and_plan() -> None:
    plan = make_plan([block()])
    digests = {cache_digest("a", plan), cache_digest("b", plan), cache_digest("a", replace(plan, mean_hu=1.0))}
    assert len(digests) == 3
    assert cache_digest("a", plan) == cache_digest("a", replace(plan))


def small_data(folder: Path) -> FolderDataset:
    """Write four small cases of the layout `folder`, quick to prepare."""
    for k in range(4):
        write_head(folder / f"c{k}" / "image.nii.gz", head(k))
        write_head(folder / f"c{k}" / "jaw.nrrd", organ_mask("mandible"))
    (folder / "hnlib.yaml").write_text("organs: {mandible: jaw}\n")
    return FolderDataset(folder)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_processes_at_once_leave_one_whole_cache(tmp_path: Path) -> None:
    """Both succeed with the same plan, every case is whole, and nothing else is left."""
    data = small_data(tmp_path / "data")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(prepare, data, tmp_path / "cache") for _ in range(2)]
        (plan, one), (other, two) = (task.result() for task in tasks)
    assert (plan, one) == (other, two)
    assert sorted(content(one)) == [*(f"c{k}.b2nd" for k in range(4)), "plan.json"]
    _, alone = prepare(data, tmp_path / "alone")
    assert content(one) == content(alone)


def test_an_older_version_is_left_alone_and_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_data(tmp_path / "data")
    _, old = prepare(data, tmp_path / "cache")
    before = content(old)
    monkeypatch.setattr("hnlib.cache.VERSION", VERSION + 1)
    _, new = prepare(data, tmp_path / "cache")
    assert new != old
    assert content(old) == before
    assert sorted(content(new)) == sorted(before)


def test_a_case_that_lacks_what_this_version_writes_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "pt_7.b2nd"
    stored = blosc2.asarray(np.zeros((2, 4, 4, 4), np.float16), urlpath=str(path), mode="w")
    stored.vlmeta["prepared"] = json.dumps({"low": 0.0})
    del stored
    with pytest.raises(DataError, match=r"case pt_7, cache file .*: cannot be read .*prepare again") as caught:
        open_prepared(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(60_000,), (3, 4, 4, 4), (2, 60_000, 60_000, 60_000)])
def test_a_case_of_another_shape_is_one_line_and_takes_no_memory(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "pt_7.b2nd"
    save_prepared(path, prepared())
    whole = blosc2.open(str(path))
    about = whole.vlmeta["prepared"]
    other = blosc2.zeros(shape, np.float16, urlpath=str(path), mode="w")
    other.vlmeta["prepared"] = about
    del whole, other
    with little_memory(), pytest.raises(DataError, match=r"case pt_7, cache file .*not an image and its labels"):
        load_prepared(path)


def test_a_full_disk_leaves_the_last_good_case(tmp_path: Path) -> None:
    """The limit is the kernel's, so that the compressor's own writing fails, too."""
    path, case = tmp_path / "a.b2nd", prepared()
    save_prepared(path, case)
    before = content(tmp_path)
    noise = np.random.default_rng(0).normal(size=case.image.shape).astype(np.float32)
    with full_disk(), pytest.raises(DataError, match=r"file .*a\.b2nd: cannot be written \(.*free space"):
        save_prepared(path, replace(case, image=noise))
    assert content(tmp_path) == before


@pytest.mark.parametrize("fault", [full_disk, read_only])
def test_no_space_and_a_read_only_folder_are_one_line_of_the_command(
    fault: Callable[..., AbstractContextManager[None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was prepared before stays, nothing half-written is left, and no study is written."""
    small_data(tmp_path / "data")
    monkeypatch.setenv("HNLIB_CACHE", str(tmp_path / "cache"))
    out = str(tmp_path / "study.json")
    command = ["prepare", "folder", "tiny", "--data-root", str(tmp_path / "data"), "--out", out]
    with pytest.raises(SystemExit):
        main(command)
    (cache,) = (tmp_path / "cache").iterdir()
    (tmp_path / "study.json").unlink()
    (cache / "c1.b2nd").unlink()
    before = content(cache)
    capsys.readouterr()
    with fault() if fault is full_disk else fault(tmp_path / "cache"), pytest.raises(SystemExit) as stop:
        main(command)
    said = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert len(said) == 1
    assert said[0].startswith(f"hnlib: file {cache / 'c1.b2nd'}: cannot be written (")
    assert said[0].endswith("free space, or choose a folder that you may write to")
    assert content(cache) == before
    assert not (tmp_path / "study.json").exists()
