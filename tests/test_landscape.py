"""The landscape of patch sizes against enumeration, its mixtures, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

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
    size_grid,
)
from hnlib.sampling import (
    RULES,
    CentreComponent,
    CentreDistribution,
    ClassUniform,
    HuGated,
    UniformPosition,
    as_triple,
    extract,
    patch_start,
)

ORGANS = ("brainstem", "mandible")


def row_scan(*values: int, labelled: tuple[str, ...] = ORGANS) -> Scan:
    """Return a scan that is a row of voxels along X."""
    return Scan("row", np.array(values, np.uint8).reshape(-1, 1, 1), ORGANS, frozenset(labelled))


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
    table = landscape([row_scan(0, 1, 1, 0, labelled=("brainstem",))], [(2, 1, 1)], {"u": RULES["uniform"]})
    assert table["class"].tolist() == ["background", "brainstem"]


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
    table = landscape([scan], size_grid(*widths), RULES_AND_PARTS, quantities=EVERYTHING)
    for size, of_size in table.groupby(["patch_x", "patch_y", "patch_z"]):
        patch = as_triple("patch", size)  # type: ignore[arg-type]
        counts = counts_around_centres(scan, patch)
        assert of_size["padded"].eq(any(w > n for w, n in zip(patch, shape, strict=True))).all()
        for name, law in RULES_AND_PARTS.items():
            slow = weigh(counts, law.probabilities(labels, patch, scan.image_hu))
            rows = of_size[of_size["centres"] == name]
            for quantity in EVERYTHING:
                assert np.abs(rows[quantity] - slow[quantity]).max() < 1e-12, (quantity, patch, name)


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
