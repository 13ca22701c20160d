"""The vocabulary: partners mirror each other, spellings are unique, unknown names are told."""

from __future__ import annotations

import pytest
from matplotlib.colors import is_color_like

from hnlib.errors import ConfigError
from hnlib.organs import ORGANS, organ

PAPER = (
    "brainstem",
    "optic_chiasm",
    "optic_nerve_left",
    "optic_nerve_right",
    "parotid_left",
    "parotid_right",
    "mandible",
)


def test_sixteen_organs_with_the_papers_seven() -> None:
    assert len(ORGANS) == 16
    assert set(PAPER) <= set(ORGANS)


@pytest.mark.parametrize("name", ORGANS)
def test_mirror_partner_is_the_other_side_and_looks_alike(name: str) -> None:
    row = ORGANS[name]
    if row.mirror is None:
        assert row.side is None
        return
    partner = ORGANS[row.mirror]
    assert partner.mirror == name
    assert {row.side, partner.side} == {"left", "right"}
    assert row.colour == partner.colour
    assert row.marker != partner.marker
    assert row.tolerance_mm == partner.tolerance_mm


@pytest.mark.parametrize("name", ORGANS)
def test_every_row_is_complete(name: str) -> None:
    row = ORGANS[name]
    assert is_color_like(row.colour)
    assert row.tolerance_mm > 0
    assert row.tolerance_source
    assert all(row.spellings.values())


def test_no_two_organs_share_colour_and_marker() -> None:
    assert len({(row.colour, row.marker) for row in ORGANS.values()}) == len(ORGANS)


@pytest.mark.parametrize("dataset", ["openkbp", "pddca", "tcia"])
def test_a_spelling_names_one_organ(dataset: str) -> None:
    names = [name for row in ORGANS.values() for name in row.spellings.get(dataset, ())]
    assert names
    assert len(names) == len(set(names))


def test_hyphen_and_underscore_are_both_known_for_tcia() -> None:
    assert organ("optic_nerve_left").spellings["tcia"] == ("Optic-Nerve-Lt", "Optic_Nerve_Lt")


def test_verified_tolerances_are_those_of_the_published_code() -> None:
    """Tappeiner et al. 2022, code: 2.5 mm for brainstem, chiasm and nerves, 2.85 parotids, 1.01 mandible."""
    verified = {name: row.tolerance_mm for name, row in ORGANS.items() if row.tolerance_verified}
    expected = dict.fromkeys(PAPER, 2.5) | {"parotid_left": 2.85, "parotid_right": 2.85, "mandible": 1.01}
    assert verified == expected


def test_an_unknown_organ_is_told_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="unknown organ 'brainstm': did you mean 'brainstem'"):
        organ("brainstm")
