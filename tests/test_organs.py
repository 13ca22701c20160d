"""The vocabulary: partners mirror each other, spellings are unique, unknown names are told."""

from __future__ import annotations

import pytest
from matplotlib.colors import is_color_like

from hnlib.errors import ConfigError
from hnlib.organs import DEFAULT, DEFAULT_TOLERANCE_MM, NIKOLOV, ORGANS, PAPER_ORGANS, TAPPEINER, mirror_values, organ


def test_sixteen_organs_with_the_papers_seven() -> None:
    assert len(ORGANS) == 16
    assert set(PAPER_ORGANS) <= set(ORGANS)


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
    verified = {name: row.tolerance_mm for name, row in ORGANS.items() if row.tolerance_source in (NIKOLOV, TAPPEINER)}
    expected = dict.fromkeys(PAPER_ORGANS, 2.5) | {"parotid_left": 2.85, "parotid_right": 2.85, "mandible": 1.01}
    assert verified == expected


@pytest.mark.parametrize("name", ["Brainstem", "brain stem", "brainstem_", "", "background", "甲状腺", "a" * 49])
def test_what_cannot_be_an_organ_is_told_with_the_nearest_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown organ '{name}'.*or an own name of a-z, 0-9 and _") as caught:
        organ(name)
    assert "\n" not in str(caught.value)
    assert ("did you mean 'brainstem'" in str(caught.value)) == (name in ("Brainstem", "brain stem", "brainstem_"))


def test_an_organ_outside_the_vocabulary_follows_from_its_name() -> None:
    """The same at every call; a default tolerance, said so; the two of a pair look alike and mirror each other."""
    thyroid, left, right = (organ(name) for name in ("thyroid", "lacrimal_gland_left", "lacrimal_gland_right"))
    assert organ("thyroid") == thyroid
    assert (thyroid.title, thyroid.side, thyroid.mirror) == ("Thyroid", None, None)
    assert (thyroid.tolerance_mm, thyroid.tolerance_source) == (DEFAULT_TOLERANCE_MM, DEFAULT)
    assert (left.title, left.side, left.mirror) == ("Lacrimal gland L", "left", "lacrimal_gland_right")
    assert (right.mirror, right.colour, right.tolerance_mm) == ("lacrimal_gland_left", left.colour, left.tolerance_mm)
    assert left.marker != right.marker
    for row in (thyroid, left, right):
        assert is_color_like(row.colour)
        assert row.colour not in {known.colour for known in ORGANS.values()}
    assert mirror_values(["thyroid", "eye_left", "eye_right"]) == (0, 1, 3, 2)
