"""Where organs lie in every patient: what tells a mirrored scan, swapped names and a scan turned over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from hnlib.organs import organ

#: Who lies above, and in front of, whom.
ABOVE = (("brainstem", "mandible"), ("brainstem", "spinal_cord"), ("optic_chiasm", "mandible"))
IN_FRONT = (("mandible", "brainstem"), ("mandible", "spinal_cord"), ("optic_chiasm", "brainstem"))
#: Organs whose centre lies between left and right; an organ without its partner is compared with them.
MIDLINE = ("brainstem", "spinal_cord", "optic_chiasm", "mandible")

Point = tuple[float, float, float]


def centre_mm(index: NDArray[np.int64], shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Point:
    """Return the centre of some voxels, given by flat indices into an array (X, Y, Z), in mm from its first voxel."""
    x, y, z = (float(axis.mean()) * mm for axis, mm in zip(np.unravel_index(index, shape), spacing_mm, strict=True))
    return x, y, z


def misplaced(centres_mm: Mapping[str, Point]) -> Iterator[tuple[str, str, str]]:
    """Yield two organs and in words how they lie to each other, where no patient has them so.

    Parameters
    ----------
    centres_mm
        Centres of organs; axes to the right, anterior, superior.

    Examples
    --------
    >>> [text for _, _, text in misplaced({"parotid_left": (60.0, 0, 0), "parotid_right": (20.0, 0, 0)})]
    ["parotid_left lies to the patient's right of parotid_right"]
    """
    for name in sorted(centres_mm):
        look = organ(name)
        if look.side is None or (look.side == "right" and look.mirror in centres_mm):
            continue
        partner = () if look.mirror is None else (look.mirror,)
        for other in [other for other in (*partner, *MIDLINE) if other in centres_mm][:1]:
            if (centres_mm[name][0] > centres_mm[other][0]) == (look.side == "left"):
                wrong = "right" if look.side == "left" else "left"
                yield name, other, f"{name} lies to the patient's {wrong} of {other}"
    for axis, pairs, word in ((2, ABOVE, "below"), (1, IN_FRONT, "behind")):
        for one, other in pairs:
            if one in centres_mm and other in centres_mm and centres_mm[one][axis] < centres_mm[other][axis]:
                yield one, other, f"{one} lies {word} {other}"
