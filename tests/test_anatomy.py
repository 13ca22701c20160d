"""Where organs lie: sides by their partner or the midline, heights and depths by pairs; nothing is said of the rest."""

from __future__ import annotations

import numpy as np
import pytest

from hnlib.anatomy import centre_mm, misplaced

#: Axes to the right, anterior, superior.
PATIENT = {
    "brainstem": (100.0, 80.0, 120.0),
    "spinal_cord": (100.0, 75.0, 40.0),
    "mandible": (101.0, 140.0, 60.0),
    "optic_chiasm": (100.0, 110.0, 140.0),
    "parotid_left": (50.0, 100.0, 70.0),
    "parotid_right": (150.0, 100.0, 70.0),
    "lacrimal_gland_left": (60.0, 150.0, 140.0),
    "thyroid": (300.0, 0.0, 0.0),
}


def said(centres: dict[str, tuple[float, float, float]]) -> set[str]:
    return {text for _, _, text in misplaced(centres)}


def test_a_centre_is_the_mean_of_its_voxels_in_mm() -> None:
    """Voxels (1, 0, 2) and (3, 0, 2) of edges 2 x 3 x 5 mm: (2 x 2, 0, 2 x 5)."""
    index = np.ravel_multi_index(([1, 3], [0, 0], [2, 2]), (4, 1, 3))
    assert centre_mm(index, (4, 1, 3), (2.0, 3.0, 5.0)) == (4.0, 0.0, 10.0)


def test_a_patient_is_as_it_should_be() -> None:
    assert said(PATIENT) == set()
    assert said({}) == set()


@pytest.mark.parametrize(
    ("axis", "wrong"),
    [
        (
            0,
            {
                "parotid_left lies to the patient's right of parotid_right",
                "lacrimal_gland_left lies to the patient's right of brainstem",
            },
        ),
        (
            1,
            {
                "mandible lies behind brainstem",
                "mandible lies behind spinal_cord",
                "optic_chiasm lies behind brainstem",
            },
        ),
        (
            2,
            {
                "brainstem lies below mandible",
                "brainstem lies below spinal_cord",
                "optic_chiasm lies below mandible",
            },
        ),
    ],
)
def test_a_mirrored_patient_is_told(axis: int, wrong: set[str]) -> None:
    mirrored = {name: tuple(-v if k == axis else v for k, v in enumerate(place)) for name, place in PATIENT.items()}
    assert said(mirrored) == wrong  # type: ignore[arg-type]


def test_a_lone_right_organ_is_compared_with_the_midline() -> None:
    lone = {"parotid_right": PATIENT["parotid_left"], "mandible": PATIENT["mandible"]}
    assert said(lone) == {"parotid_right lies to the patient's left of mandible"}
