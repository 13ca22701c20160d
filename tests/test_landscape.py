"""The landscape of patch sizes against enumeration, its mixtures, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hnlib.datasets.phantom import PhantomDataset
from hnlib.errors import ConfigError, DataError
from hnlib.imbalance import (
    Quantity,
    Scan,
    expected_ratios,
    landscape,
    mix,
    organ_centres,
    presence,
    ratio_variance,
    scan_sources,
    size_grid,
)
from hnlib.imbalance.landscape import scan_quantities
from hnlib.sampling import (
    RULES,
    CentreComponent,
    CentreDistribution,
    ClassUniform,
    HuGated,
    UniformPosition,
    extract,
    patch_start,
)

ORGANS = ("brainstem", "mandible")


def row_scan(*values: int, name: str = "row", labelled: tuple[str, ...] = ORGANS) -> Scan:
    """Return a scan that is a row of voxels along X."""
    return Scan(name, np.array(values, np.uint8).reshape(-1, 1, 1), ORGANS, frozenset(labelled))


def test_row_of_voxels_by_hand() -> None:
    """Row 0 1 1 1 2 0, patch of four, voxel-uniform: patches 0111, 1112, 1120 with 1/2, 1/4, 1/4."""
    everything = ("ratio", "presence", "classes", "variance")
    table = landscape([row_scan(0, 1, 1, 1, 2, 0)], [(4, 1, 1)], {"fg": RULES["voxel_uniform"]}, quantities=everything)
    assert table["class"].tolist() == ["background", *ORGANS]
    assert table["ratio"].tolist() == pytest.approx([3 / 16, 11 / 16, 2 / 16])
    assert table["presence"].tolist() == pytest.approx([3 / 4, 1, 1 / 2])
    assert table["classes"].tolist() == pytest.approx([9 / 4] * 3)
    assert table["variance"].tolist() == pytest.approx([(3 / 4 - 9 / 16) / 16, (7.75 - 2.75**2) / 16, 1 / 64])
    assert not table["padded"].any()


def test_mixture_of_parts_is_the_rule() -> None:
    """Uniform and one law an organ, weighed, give nnU-Net's rule in every quantity."""
    scan, sizes = row_scan(0, 1, 1, 1, 2, 0, 0, 0, 1), size_grid([2, 5, 12], [1, 2], [1])
    everything = ("ratio", "presence", "classes", "variance")
    parts = landscape([scan], sizes, organ_centres(ORGANS), quantities=everything)
    rule = landscape([scan], sizes, {"nnunet": RULES["nnunet"]}, quantities=everything)
    mixed = mix(parts, {"uniform": 2, "brainstem": 1, "mandible": 1}, "nnunet")
    merged = rule.merge(mixed, on=["case", "patch_x", "patch_y", "patch_z", "padded", "centres", "class"])
    assert len(merged) == len(rule) == len(mixed) == 18
    for quantity in everything:
        assert np.abs(merged[f"{quantity}_x"] - merged[f"{quantity}_y"]).max() < 1e-14


def test_unlabelled_organ_has_no_row() -> None:
    """It is unknown there: neither absent nor zero in a mean over cases."""
    scans = [row_scan(0, 1, 1, 0, name="a", labelled=("brainstem",)), row_scan(0, 1, 2, 0, name="b")]
    table = landscape(scans, [(2, 1, 1)], {"u": RULES["uniform"]})
    assert table["class"].tolist() == ["background", "brainstem", "background", *ORGANS]


def test_bad_input_is_refused_in_one_line() -> None:
    scan, rule = row_scan(0, 1, 2), {"u": RULES["uniform"]}
    with pytest.raises(ConfigError, match=r"patch size is \(0, 2, 2\); three whole numbers"):
        landscape([scan], [(0, 2, 2)], rule)
    with pytest.raises(ConfigError, match="no patch size"):
        landscape([scan], [], rule)
    with pytest.raises(ConfigError, match="unknown quantity 'ratios': did you mean 'ratio'"):
        landscape([scan], [(1, 1, 1)], rule, quantities=["ratios"])  # type: ignore[list-item]
    with pytest.raises(DataError, match=r"case row: labels lie in 0\.\.3 but 2 organs are named"):
        row_scan(0, 1, 3)
    table = landscape([scan], [(1, 1, 1)], rule)
    with pytest.raises(ConfigError, match="not all of them 0"):
        mix(table, {"u": 0.0})
    with pytest.raises(ConfigError, match="unknown law of centres 'v'"):
        mix(table, {"v": 1.0})


RULES_AND_PARTS: dict[str, CentreDistribution | CentreComponent] = {
    **RULES,
    **organ_centres(("a", "b", "c", "d")),
    "gated": CentreDistribution(((0.25, HuGated(0.0)), (0.35, ClassUniform()), (0.4, UniformPosition()))),
}
EVERYTHING: tuple[Quantity, ...] = ("ratio", "presence", "classes", "variance")


def one_part(component: CentreComponent) -> CentreDistribution:
    """Return a rule of one part."""
    return CentreDistribution(((1.0, component),))


def counts_around_centres(scan: Scan, patch: tuple[int, int, int]) -> NDArray[np.int64]:
    """Cut the patch of every centre and count its classes: (centres, classes)."""
    cuts = (
        extract(scan.labels, patch_start(centre, scan.labels.shape, patch), patch, pad_value=0)
        for centre in np.ndindex(scan.labels.shape)
    )
    return np.stack([np.bincount(cut.ravel(), minlength=scan.num_classes) for cut in cuts])


def weigh(counts: NDArray[np.int64], probabilities: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Return every quantity the slow way."""
    shares, law = counts / counts[0].sum(), probabilities.reshape(-1)
    ratio, chance = law @ shares, law @ (counts > 0)
    classes = np.full(len(ratio), chance.sum())
    return {"ratio": ratio, "presence": chance, "classes": classes, "variance": law @ shares**2 - ratio**2}


@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    widths=st.tuples(*[st.lists(st.integers(1, 8), min_size=1, max_size=2)] * 3),
    density=st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_equals_enumeration_of_all_centres(
    shape: tuple[int, int, int], widths: tuple[list[int], list[int], list[int]], density: float, seed: int
) -> None:
    """Every quantity of every rule equals the enumeration to 1e-12, also for patches beyond the volume."""
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(shape) < density, rng.integers(0, 5, shape), 0).astype(np.uint8)
    organs = ("a", "b", "c", "d")
    scan = Scan("random", labels, organs, frozenset(organs), rng.normal(0.0, 100.0, shape))
    rules = [law if isinstance(law, CentreDistribution) else one_part(law) for law in RULES_AND_PARTS.values()]
    sizes = size_grid(*widths)
    exact = scan_quantities(scan, sizes, rules, EVERYTHING)
    for i, patch in enumerate(sizes):
        counts = counts_around_centres(scan, patch)
        for j, rule in enumerate(rules):
            slow = weigh(counts, rule.probabilities(labels, patch, scan.image_hu))
            for quantity in EVERYTHING:
                assert np.abs(exact[quantity][i, j] - slow[quantity]).max() < 1e-12, (quantity, patch, rule)


def test_larger_volume_equals_one_size_at_a_time() -> None:
    """Organs with room around them, borders met and not: the grid equals the functions for one size."""
    labels = np.zeros((30, 26, 18), np.uint8)
    labels[4:11, 8:15, 3:9] = 1
    labels[20:29, 3:7, 10:18] = 2
    labels[14, 20, 12] = 3
    image_hu = np.random.default_rng(0).normal(0.0, 400.0, labels.shape)
    scan = Scan("scan", labels, ("a", "b", "c"), frozenset("abc"), image_hu)
    rules = {name: RULES[name] for name in ("nnunet", "paper", "uniform")}
    sizes = [*size_grid([3, 12, 31], [6, 25], [1, 7, 18]), (30, 2, 5)]
    keys = ["patch_x", "patch_y", "patch_z", "centres"]
    table = landscape([scan], sizes, rules, quantities=EVERYTHING).set_index(keys)
    single = {"ratio": expected_ratios, "presence": presence, "variance": ratio_variance}
    for size in sizes:
        for name, rule in rules.items():
            rows = table.loc[(*size, name)]
            for quantity, function in single.items():
                assert np.abs(rows[quantity] - function(labels, 4, size, rule, image_hu)).max() < 1e-12


def test_patch_longer_than_the_scan_is_said() -> None:
    """Padding counts as background, as in training, and a column says that there is some."""
    table = landscape([row_scan(1, 1, 2, 2)], [(4, 1, 1), (8, 1, 1)], {"u": RULES["uniform"]})
    assert table["padded"].tolist() == [False] * 3 + [True] * 3
    assert table["ratio"].tolist() == pytest.approx([0, 0.5, 0.5, 0.5, 0.25, 0.25])


def test_several_cases_by_processes_and_from_the_cache(tmp_path: Path) -> None:
    """Two processes, one, and the cache give the same table; other labels or sizes are measured anew."""
    scans = [row_scan(0, 1, 2, 0, 0, name="a"), row_scan(1, 0, 0, 0, 1, name="b", labelled=("brainstem",))]
    done: list[tuple[str, int, int]] = []
    given = (size_grid([1, 3], [1], [1]), {"nnunet": RULES["nnunet"]})
    alone = landscape(scans, *given, cache=tmp_path, progress=lambda *said: done.append(said))
    assert done == [("landscape", 1, 2), ("landscape", 2, 2)]
    assert alone.groupby("case", observed=True).size().to_dict() == {"a": 6, "b": 4}
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    for file in files:
        file.touch()
    before = [file.stat().st_mtime_ns for file in files]
    pd.testing.assert_frame_equal(alone, landscape(scans, *given, cache=tmp_path))
    assert [file.stat().st_mtime_ns for file in files] == before
    files[0].write_bytes(b"damaged")
    pd.testing.assert_frame_equal(alone, landscape(scans, *given, cache=tmp_path, workers=2))
    landscape([row_scan(0, 1, 2, 0, 1, name="a")], *given, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_organ_that_no_case_has_is_refused() -> None:
    rule = {"u": RULES["uniform"]}
    landscape([row_scan(0, 1), row_scan(0, 2, name="other")], [(1, 1, 1)], rule)
    with pytest.raises(DataError, match="mandible: no voxel in any of 2 cases"):
        landscape([row_scan(0, 1), row_scan(1, 1, name="other")], [(1, 1, 1)], rule)
    with pytest.raises(DataError, match="case row is given 2 times"):
        landscape([row_scan(1, 2), row_scan(1, 2)], [(1, 1, 1)], rule)
    other = Scan("other", np.ones((2, 2, 2), np.uint8), ("larynx",), frozenset({"larynx"}))
    with pytest.raises(DataError, match="case other: its organs are larynx, those of case row brainstem, mandible"):
        landscape([row_scan(1, 2), other], [(1, 1, 1)], rule)


def test_scans_of_a_data_set_with_a_choice_of_organs() -> None:
    """Organs left out are background, and the outlines alone are read."""
    data = PhantomDataset({"train": 1}, spacing_mm=(6.0, 6.0, 6.0))
    everything, some = scan_sources(data)[0](), scan_sources(data, organs=("mandible", "brainstem"))[0]()
    assert everything.organs == data.organs
    assert everything.image_hu is None
    for value, organ in enumerate(some.organs, start=1):
        both = (some.labels == value) == (everything.labels == data.organs.index(organ) + 1)
        assert both.all()
    case = data.load("phantom_000")
    assert np.array_equal(scan_sources(data, ["phantom_000"], images=True)[0]().image_hu, case.image_hu)
    with pytest.raises(ConfigError, match="unknown organ of phantom 'mandibel': did you mean 'mandible'"):
        scan_sources(data, organs=["mandibel"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_cuda_gives_the_same_numbers() -> None:
    scan = row_scan(0, 1, 1, 2, 0, 2, 2, 0)
    given = ([scan], size_grid([2, 3, 9], [1], [1, 2]), {"n": RULES["nnunet"]})
    one = landscape(*given, quantities=EVERYTHING, device="cpu")
    other = landscape(*given, quantities=EVERYTHING, device="cuda")
    for quantity in EVERYTHING:
        assert np.abs(one[quantity] - other[quantity]).max() < 1e-12
