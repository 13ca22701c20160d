"""The cache: what goes in comes out, a slice reads only itself, damage and age are told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_preprocess import block

from hnlib.cache import cache_digest, load_plan, load_prepared, open_prepared, prepare, save_prepared
from hnlib.datasets import PhantomDataset
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
