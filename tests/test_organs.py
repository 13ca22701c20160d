"""The vocabulary: partners mirror each other, spellings are unique, unknown names are told."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import is_color_like, to_rgb

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


#: What a reader sees of linear RGB; Machado, Oliveira, Fernandes 2009, IEEE TVCG 15(6), Table 1, severity 1.0.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
#: Linear sRGB to XYZ (IEC 61966-2-1), white D65.
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: str, vision: str) -> np.ndarray:
    """CIE L*a*b* of a colour as it is seen."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(VISIONS[vision] @ linear, 0, 1) / TO_XYZ.sum(axis=1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_lab_is_right_for_white_and_red() -> None:
    """Reference values of sRGB under D65."""
    np.testing.assert_allclose(lab("#FFFFFF", "normal"), (100, 0, 0), atol=0.02)
    np.testing.assert_allclose(lab("#FF0000", "normal"), (53.24, 80.09, 67.20), atol=0.1)


@pytest.mark.parametrize("vision", VISIONS)
def test_organs_are_told_apart_by_every_colour_vision(vision: str) -> None:
    """Any two colours lie 10 or more apart in L*a*b*; about 2 is the least difference that is seen."""
    seen = {row.colour: lab(row.colour, vision) for row in ORGANS.values()}
    apart = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in combinations(seen, 2)}
    assert min(apart.values()) >= 10, min(apart, key=apart.__getitem__)


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
