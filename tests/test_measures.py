"""Measures of imbalance: closed forms, published vectors, and what each is blind to."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hnlib.errors import ConfigError
from hnlib.imbalance import (
    MEASURES,
    PAPER_RATIOS,
    aitchison_spread,
    effective_classes,
    effective_classes_simpson,
    foreground_shares,
    least_presence,
    normalised_entropy,
    rarest_voxels,
    sigma_foreground,
    sigma_of_mean,
    sigma_pooled,
    summarise,
)

BALANCED, SKEWED = [0.9, 0.05, 0.05], [0.9, 0.08, 0.02]


def test_two_organs_by_hand() -> None:
    """Shares 0.8 and 0.2 of the foreground: every measure has the value one writes by hand."""
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert foreground_shares(SKEWED).tolist() == pytest.approx([0.8, 0.2])
    assert sigma_foreground(SKEWED) == pytest.approx(0.3)
    assert normalised_entropy(SKEWED) == pytest.approx(entropy / math.log(2))
    assert effective_classes(SKEWED) == pytest.approx(math.exp(entropy))
    assert effective_classes_simpson(SKEWED) == pytest.approx(1 / 0.68)
    assert aitchison_spread(SKEWED) == pytest.approx(math.log(4) / 2)
    assert rarest_voxels(SKEWED, 1000) == pytest.approx(20)
    assert least_presence([[1.0, 0.5, 0.2], [1.0, 0.1, 0.2]]) == pytest.approx(0.2)


def test_equal_organs_have_the_best_value() -> None:
    assert sigma_foreground(BALANCED) == pytest.approx(0, abs=1e-15)
    assert aitchison_spread(BALANCED) == pytest.approx(0, abs=1e-15)
    assert normalised_entropy(BALANCED) == pytest.approx(1)
    assert effective_classes(BALANCED) == pytest.approx(2)
    assert effective_classes_simpson(BALANCED) == pytest.approx(2)


@given(st.lists(st.floats(0.001, 1.0), min_size=2, max_size=8), st.floats(0.01, 0.99))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_measures_of_the_foreground_do_not_see_the_background(organs: list[float], background: float) -> None:
    """More background changes none of them; Hill numbers are ordered and lie in 1..K."""
    shares = np.array(organs) / sum(organs)
    one, other = np.r_[0.0, shares], np.r_[background, (1 - background) * shares]
    for function in (sigma_foreground, normalised_entropy, effective_classes, aitchison_spread):
        assert function(one) == pytest.approx(function(other), abs=1e-9)
    assert 1 - 1e-9 <= effective_classes_simpson(one) <= effective_classes(one) + 1e-9 <= len(organs) + 2e-9


def test_organ_that_is_never_seen() -> None:
    """Its log-ratio is infinite and said so; entropy adds nothing; presence and voxels are 0."""
    ratios = [0.9, 0.1, 0.0]
    assert aitchison_spread(ratios) == math.inf
    assert normalised_entropy(ratios) == 0
    assert effective_classes(ratios) == 1
    assert rarest_voxels(ratios, 1e6) == 0


def test_published_vectors_are_flat_where_sigma_moves() -> None:
    """From the whole scan to 8 x 8 x 8 voxels sigma falls by 18 %, the effective number of organs by 3 %."""
    full, tiny = PAPER_RATIOS["full"], PAPER_RATIOS["8x8x8"]
    assert sigma_of_mean(tiny) / sigma_of_mean(full) == pytest.approx(0.822, abs=1e-3)
    assert effective_classes(tiny) / effective_classes(full) == pytest.approx(0.97, abs=2e-3)
    assert aitchison_spread(tiny) > aitchison_spread(full) + 0.3


def test_every_measure_says_what_it_is_blind_to() -> None:
    """The claims that can be checked: a tiny organ vanishing, and organs changing places."""
    for measure in MEASURES.values():
        assert measure.blind_to
        assert "\n" not in measure.blind_to
    before, after = [0.9, 0.0995, 0.0005], [0.9, 0.1, 0.0]
    assert abs(sigma_foreground(before) - sigma_foreground(after)) < 0.006
    assert sigma_of_mean(after) - sigma_of_mean(before) == pytest.approx(4.1e-5, abs=1e-6)
    swapped = [0.9, 0.02, 0.08]
    for name in ("sigma_of_mean", "sigma_foreground", "normalised_entropy", "effective_classes", "aitchison_spread"):
        assert MEASURES[name].function(SKEWED) == pytest.approx(MEASURES[name].function(swapped)), name


def table_of(rows: list[tuple[str, str, float, float]]) -> pd.DataFrame:
    """Return a landscape of one size and law from (case, class, ratio, presence)."""
    table = pd.DataFrame(rows, columns=["case", "class", "ratio", "presence"])
    return table.assign(patch_x=4, patch_y=5, patch_z=10, padded=False, centres="uniform")


def test_summary_by_hand() -> None:
    """Two cases, the second without an outline of organ b, which is unknown there and never zero."""
    rows = [("1", "background", 0.7, 1.0), ("1", "a", 0.2, 0.9), ("1", "b", 0.1, 0.4)]
    rows += [("2", "background", 0.6, 1.0), ("2", "a", 0.4, 0.7)]
    found = summarise(table_of(rows), patches_per_step=3).iloc[0]
    assert (found["cases"], found["complete_cases"]) == (2, 1)
    assert found["sigma_of_mean"] == pytest.approx(sigma_of_mean([0.6, 0.3, 0.1]))
    assert found["sigma_pooled"] == pytest.approx(sigma_pooled([[0.7, 0.2, 0.1]]))
    assert found["effective_classes"] == pytest.approx(effective_classes([0.6, 0.3, 0.1]))
    assert found["least_presence"] == pytest.approx(0.4)
    assert found["rarest_voxels"] == pytest.approx(0.1 * 200 * 3)
    assert not found.isna().any()


def test_summary_without_a_complete_case_has_no_pooled_sigma() -> None:
    rows = [("1", "background", 0.8, 1.0), ("1", "a", 0.2, 0.9), ("2", "background", 0.6, 1.0), ("2", "b", 0.4, 0.7)]
    assert "sigma_pooled" not in summarise(table_of(rows))


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="the background alone"):
        effective_classes([1.0, 0.0])
    with pytest.raises(ValueError, match="the background alone"):
        rarest_voxels([1.0], 10)
    with pytest.raises(ValueError, match=r"presence of shape \(1,\)"):
        least_presence([1.0])
    with pytest.raises(ValueError, match=r"values in 0\.\.1"):
        least_presence([1.0, np.nan])
    table = table_of([("1", "background", 0.8, 1.0), ("1", "a", 0.2, 0.9)])
    with pytest.raises(ConfigError, match="unknown measure 'sigma'"):
        summarise(table, ["sigma"])
    with pytest.raises(ConfigError, match="no column presence"):
        summarise(table.drop(columns="presence"), ["least_presence"])
    assert "least_presence" not in summarise(table.drop(columns="presence"))
