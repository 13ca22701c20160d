"""The anatomy of the phantom: its tissues, and its structures as ellipsoids and tubes in one canonical head.

Coordinates and radii are in mm; origin at the optic chiasm, x right, y anterior, z superior. What
comes in pairs is written for the patient's right. A change here changes cases: raise the phantom's VERSION.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

Triple = tuple[float, float, float]

# Mean HU, half range of the mean over cases, SD of the texture inside a case.
TISSUES: Mapping[str, Triple] = {
    "air": (-1000, 0, 0),
    "fat": (-98, 8, 6),
    "orbital fat": (-55, 10, 4),
    "skin": (15, 8, 3),
    "muscle": (54, 5, 7),
    "mixed": (15, 10, 16),
    "csf": (6, 3, 2),
    "grey matter": (38, 3, 3),
    "white matter": (29, 3, 3),
    "brainstem": (36, 3, 3),
    "optic": (42, 5, 3),
    "lens": (95, 12, 2),
    "parotid": (-8, 16, 13),
    "gland": (38, 10, 8),
    "cartilage": (140, 40, 20),
    "cells": (150, 90, 220),
    "spongy bone": (380, 60, 60),
    "bone": (950, 100, 70),
    "cortical bone": (1300, 120, 60),
    "enamel": (2200, 200, 100),
}


class Part(NamedTuple):
    """A tissue round a polyline: an ellipsoid (one point) or a tube (several)."""

    tissue: str
    radii: Triple
    points: tuple[Triple, ...]

    def on(self, side: int) -> Part:
        """Return the part, written for the patient's right, on side +1 (right) or -1 (left)."""
        return self._replace(points=tuple((side * x, y, z) for x, y, z in self.points))


def _part(tissue: str, radii: Triple | float, *points: Triple) -> Part:
    return Part(tissue, radii if isinstance(radii, tuple) else (radii, radii, radii), points)


def both_sides(parts: Iterable[Part]) -> list[Part]:
    """Return parts on both sides; a part on the midline is its own mirror image and stays alone."""
    return [p.on(side) for p in parts for side in ((1, -1) if any(x for x, _, _ in p.points) else (1,))]


NECK = _part("skin", (60, 62, 62), (0, -24, -95), (0, -28, -400))
BODY = (
    _part("skin", (77, 96, 84), (0, -20, 18)),
    _part("skin", (75, 69, 72), (0, 0, -50)),
    _part("skin", (28, 23, 22), (0, 40, -100)),
    _part("skin", 9, (0, 66, -8), (0, 78, -38)),  # nose
    _part("skin", (16, 13, 13), (31, 50, -12)),
    _part("skin", (6, 12, 26), (74, -30, -16)),  # ear
)
SOFT = (  # below the skin, in this order
    _part("fat", (14, 14, 16), (38, 34, -58)),
    _part("fat", (9, 9, 22), (27, -6, -62)),  # parapharyngeal space
    _part("fat", (15, 20, 45), (38, -24, -122)),
    _part("mixed", (30, 14, 60), (0, -66, -110)),
    _part("muscle", (17, 13, 62), (20, -58, -110)),
    _part("muscle", (8, 11, 60), (25, -34, -120)),
    _part("muscle", 10, (53, -42, -48), (44, -12, -105), (34, 10, -160)),  # sternocleidomastoid
    _part("gland", 5, (31, -20, -45), (33, -14, -95), (35, -8, -160)),
    _part("muscle", (7, 17, 26), (57, 8, -68)),  # masseter
    _part("muscle", (7, 14, 20), (34, 4, -58)),
    _part("muscle", (8, 20, 24), (62, 18, -8)),
    _part("fat", (30, 34, 22), (0, 20, -78)),
    _part("muscle", (23, 31, 18), (0, 20, -76)),  # tongue
    _part("muscle", (19, 26, 8), (0, 22, -98)),
    _part("gland", (8, 14, 11), (30, 8, -104)),
    _part("muscle", (20, 14, 34), (0, 4, -124)),
)
BRAIN = (  # over grey matter
    _part("white matter", (22, 58, 36), (28, -20, 32)),
    _part("csf", (1.2, 70, 50), (0, -20, 40)),
    _part("csf", (5, 26, 10), (9, -18, 34)),  # lateral ventricle
    _part("csf", (17, 13, 8), (0, 1, -1)),  # suprasellar cistern
    _part("csf", (24, 18, 24), (0, -19, -20)),
    _part("grey matter", (25, 24, 18), (20, -58, -26)),  # cerebellum
    _part("csf", (6, 4, 8), (0, -40, -26)),
)
ARCH = ((-30, 14), (-28, 22), (-21, 39), (-11, 48), (11, 48), (21, 39), (28, 22), (30, 14))  # of teeth: x, y
FACE = (
    _part("bone", (10, 11, 12), (0, -5, -22)),
    _part("cortical bone", 7, (52, -32, -24), (20, -14, -22)),  # petrous bone
    _part("cells", (10, 13, 17), (54, -38, -34)),  # mastoid
    _part("air", 2.5, (80, -22, -20), (56, -22, -22)),
    _part("spongy bone", (35, 29, 16), (0, 26, -36)),  # maxilla
    _part("bone", (6, 5, 9), *((x, y, -54) for x, y in ARCH)),
    _part("air", (12, 16, 14), (25, 28, -32)),  # maxillary sinus
    _part("bone", (9, 9, 7), (50, 40, -28)),
    _part("bone", 2.8, (52, 38, -28), (66, 12, -27), (62, -12, -24)),  # zygomatic arch
    _part("mixed", (13, 32, 19), (0, 36, -26)),
    _part("air", (3.6, 29, 16), (5.5, 36, -30)),  # nasal cavity
    _part("air", (5, 17, 9), (7, 28, -8)),
    _part("air", (9, 9, 7), (0, 8, -17)),  # sphenoid sinus
    _part("air", (8, 3, 6), (9, 65, 8)),
    _part("air", (12, 8, 12), (0, -1, -38)),
    _part("air", (11, 5, 5), (0, -2, -44), (0, -3, -75), (0, 2, -106)),  # pharynx
    _part("air", (18, 22, 2.5), (0, 22, -57)),
    _part("bone", 2.5, (-19, 12, -106), (-10, 29, -110), (10, 29, -110), (19, 12, -106)),  # hyoid
    _part("cartilage", (17, 17, 15), (0, 12, -126)),
    _part("muscle", (14, 14, 18), (0, 10, -126)),
    _part("air", 6, (0, 2, -104), (0, 10, -122), (0, 8, -190)),  # larynx and trachea
)
ORBIT = (
    _part("bone", (20, 18, 19), (31, 47, -12)),
    _part("bone", (12.5, 17, 11.5), (22, 28, -7)),
    _part("orbital fat", (18, 18, 17), (31, 49, -12)),
    _part("orbital fat", (10.5, 15, 9.5), (22, 28, -7)),
    _part("csf", 4.5, (16, 19, -4), (9, 9, -1)),  # optic canal
    _part("muscle", 2.2, (17, 20, -6), (19, 44, -12)),
    _part("muscle", 2.2, (20, 20, -6), (41, 42, -12)),
    _part("optic", 12.3, (31, 50, -12)),
    _part("csf", 10.8, (31, 50, -12)),
    _part("lens", (4.5, 2.2, 4.5), (31, 59.5, -12)),
)
TEETH = (
    _part("enamel", (4, 4, 6.5), *((x, y, -68) for x, y in ARCH)),
    _part("enamel", (4, 4, 6.5), *((x, y, -80) for x, y in ARCH)),
)
NERVE = _part("optic", 2.5, (7, 7, 0), (13, 17, -3), (20, 28, -7), (28.5, 39, -11.5))
PAROTID = (
    _part("parotid", (9, 18, 26), (60, -20, -56)),
    _part("parotid", (9, 9, 18), (50, -30, -52)),
    _part("parotid", (5, 11, 13), (63, -4, -48)),
)
CHIASM = _part("optic", 2.2, (7, 6, 0), (0, -1, 0), (-9, -10, 2))
STEM = (
    _part("brainstem", (17, 11, 10), (0, -18, -6)),
    _part("brainstem", (18, 13.5, 14), (0, -21, -23)),
    _part("brainstem", 8, (0, -29, -34), (0, -37, -54)),
)
JAW_PLAN: tuple[Triple, ...] = ((0, 52, 0), (12, 50, 0), (24, 41, 0), (34, 24, 0), (42, 4, 0), (48, -16, 0))
JAW_LOW_MM = ((-26, -14, 0, 25, 45, 60), (-64, -78, -91, -105, -112, -112))  # lower edge: y, z
JAW_HIGH_MM = ((-16, -10, -4, 2, 9, 15, 21, 50), (-24, -26, -40, -40, -33, -62, -80, -85))
ORGANS: Mapping[str, tuple[Part, ...]] = {
    "brainstem": STEM,
    "optic_chiasm": (CHIASM, CHIASM.on(-1)),
    "optic_nerve_left": (NERVE.on(-1),),
    "optic_nerve_right": (NERVE,),
    "mandible": (_part("bone", (58, 46, 46), (0, 16, -68)),),  # its box only: see the JAW tables
    "parotid_left": tuple(part.on(-1) for part in PAROTID),
    "parotid_right": PAROTID,
}
"""Organs in painting order: an organ never takes voxels of an earlier one."""
