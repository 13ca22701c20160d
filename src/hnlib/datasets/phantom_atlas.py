"""The drawn surroundings of the phantom's organs: tissues, and structures as ellipsoids and tubes in one mean head.

Coordinates and radii are in mm; origin at the optic chiasm, x right, y anterior, z superior, the gaze level. What
comes in pairs is written for the patient's right. ``SIMILARITY`` turns, scales and shifts this head onto the mean
places of the real organs. A change here changes cases: raise the phantom's VERSION.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

Triple = tuple[float, float, float]

SIMILARITY = (Rotation.from_euler("x", 13.3, degrees=True).as_matrix(), 1.05, np.array([0.0, 29.0, 23.4]))
"""Rotation, scale and shift in mm from this head to the head frame of `phantom_anatomy`: a least-squares fit."""

# Mean HU, SD of the texture inside a case, half range of the mean over cases. Measured means of organs replace
# those of the five tissues marked "measured"; fat and muscle are the two peaks of the histogram of OpenKBP.
TISSUES: Mapping[str, Triple] = {
    "air": (-1000, 0, 0),
    "fat": (-97, 9, 6),
    "orbital fat": (-85, 6, 8),
    "skin": (5, 8, 8),
    "muscle": (46, 11, 6),
    "mixed": (10, 22, 10),
    "csf": (8, 4, 3),
    "grey matter": (34, 6, 3),
    "white matter": (26, 5, 3),
    "brainstem": (29, 7, 0),  # measured
    "spinal_cord": (32, 7, 0),  # measured
    "optic": (29, 5, 0),  # nobody outlined it on the CT at hand: as the brainstem
    "lens": (85, 5, 12),  # a textbook's value, not measured here
    "sclera": (40, 3, 5),
    "parotid": (0, 21, 0),  # measured
    "gland": (48, 12, 12),
    "cartilage": (110, 40, 30),
    "cells": (80, 200, 90),
    "marrow": (330, 60, 60),
    "bone": (800, 120, 100),
    "cortical bone": (1200, 90, 100),
    "mandible": (710, 60, 0),  # measured; its two parts lie so far apart that the SD inside comes near the 438 measured
    "jaw marrow": (100, 60, 60),
    "jaw cortex": (1600, 90, 100),
    "enamel": (1900, 150, 200),
    "vessel": (120, 8, 50),
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


NECK = _part("skin", (62, 60, 62), (0, -30, -75), (0, -45, -130), (0, -62, -260))
SHOULDERS = _part("skin", (110, 62, 62), (0, -62, -215))
BODY = (
    _part("skin", (76, 98, 84), (0, -22, 18)),
    _part("skin", (74, 70, 72), (0, -2, -50)),
    _part("skin", (40, 34, 22), (0, 36, -96)),
    _part("skin", (26, 20, 18), (0, 52, -92)),  # chin
    _part("skin", (30, 20, 18), (0, 50, -66)),  # lips
    _part("skin", (9, 8, 9), (0, 66, -6), (0, 80, -38)),  # nose
    _part("skin", (18, 16, 15), (31, 52, -10)),
    _part("skin", (5, 13, 27), (75, -34, -16)),  # ear
)
SOFT = (  # below the skin, in this order
    _part("fat", (17, 18, 20), (40, 36, -56)),
    _part("fat", (9, 10, 26), (26, -2, -62)),  # parapharyngeal space
    _part("fat", (16, 22, 48), (40, -30, -118)),
    _part("fat", (13, 17, 22), (33, 12, -100)),  # submandibular space
    _part("mixed", (32, 12, 62), (0, -84, -106)),
    _part("muscle", (15, 14, 58), (18, -68, -96)),  # semispinalis
    _part("muscle", (9, 22, 60), (40, -62, -100)),  # splenius and levator
    _part("muscle", (9, 12, 60), (24, -38, -110)),
    _part("muscle", (16, 9, 60), (9, -16, -100)),  # longus colli
    _part("muscle", (9, 12, 11), (56, -46, -46), (48, -18, -100), (26, 2, -170)),  # sternocleidomastoid
    _part("muscle", (30, 12, 14), (34, -70, -140), (70, -66, -190)),  # trapezius
    _part("vessel", 4.5, (33, -22, -40), (33, -16, -95), (34, -18, -190)),  # jugular vein
    _part("vessel", 3.2, (24, -16, -40), (25, -8, -95), (22, -12, -190)),  # carotid artery
    _part("muscle", (7, 17, 26), (57, 12, -66)),  # masseter
    _part("muscle", (8, 14, 20), (37, 8, -54)),  # pterygoid muscles
    _part("muscle", (7, 20, 24), (61, 18, -8)),  # temporal
    _part("fat", (30, 34, 22), (0, 22, -80)),
    _part("muscle", (24, 31, 17), (0, 20, -74)),  # tongue
    _part("muscle", (20, 28, 7), (0, 26, -98)),  # floor of the mouth
    _part("muscle", (20, 15, 34), (0, 4, -124)),
)
BRAIN = (  # over grey matter
    _part("white matter", (22, 58, 34), (28, -22, 34)),
    _part("csf", (1.6, 70, 50), (0, -22, 42)),
    _part("csf", (6, 22, 8), (9, -14, 36)),  # lateral ventricle
    _part("csf", (5, 12, 10), (17, -46, 30)),
    _part("csf", (2.5, 14, 9), (0, -14, 20)),  # third ventricle
    _part("csf", (18, 13, 8), (0, 0, -2)),  # suprasellar cistern
    _part("csf", (24, 17, 17), (0, -31, -6)),
    _part("csf", (17, 14, 24), (0, -38, -34)),
    _part("grey matter", (26, 24, 18), (21, -68, -20)),  # cerebellum
    _part("csf", (6, 4, 8), (0, -47, -20)),  # fourth ventricle
    _part("bone", (2.2, 3, 7), (9, -9, -8)),  # clinoid processes
)
ARCH = ((-28, 20), (-27, 28), (-22, 41), (-15, 50), (-5, 54), (5, 54), (15, 50), (22, 41), (27, 28), (28, 20))
"""Places of teeth: x, y."""
UPPER_Z_MM, LOWER_Z_MM = -64.0, -77.0
FACE = (
    _part("bone", (9, 9, 16), (0, -10, -24)),  # clivus
    _part("marrow", (6, 6, 11), (0, -9, -25)),
    _part("cortical bone", 7, (54, -40, -24), (19, -20, -20)),  # petrous bone
    _part("cells", (9, 13, 17), (54, -42, -34)),  # mastoid
    _part("air", 2.5, (82, -30, -24), (56, -32, -23)),  # ear canal
    _part("bone", (30, 26, 13), (0, 26, -40)),  # maxilla
    _part("bone", (5, 5, 8), *((x, y, -54) for x, y in ARCH)),
    _part("air", (12, 15, 14), (24, 28, -33)),  # maxillary sinus
    _part("bone", (8, 7, 6), (49, 42, -28)),
    _part("bone", (2.6, 2.6, 3.5), (54, 38, -28), (66, 12, -26), (62, -12, -24)),  # zygomatic arch
    _part("mixed", (13, 33, 19), (0, 34, -27)),
    _part("air", (3.2, 29, 15), (5, 36, -30)),  # nasal cavity
    _part("mixed", (2.2, 20, 4), (6, 32, -36)),  # turbinates
    _part("bone", (0.9, 28, 14), (0, 34, -30)),  # septum
    _part("bone", (15, 24, 2.2), (0, 32, -48)),  # palate
    _part("air", (5, 17, 8), (6, 30, -10)),  # ethmoid cells
    _part("bone", (0.8, 16, 8), (6, 30, -10)),
    _part("air", (9, 9, 7), (0, 8, -18)),  # sphenoid sinus
    _part("air", (9, 3, 7), (10, 67, 10)),  # frontal sinus
    _part("air", (11, 7, 11), (0, 0, -40)),  # nasopharynx
    _part("air", (10, 5, 5), (0, -2, -46), (0, -3, -75), (0, 0, -106)),  # pharynx
    _part("muscle", (6, 6, 16), (0, 7, -52)),  # soft palate
    _part("air", (16, 20, 1.6), (0, 24, -55)),
    _part("bone", 2.5, (-19, 8, -102), (-10, 25, -108), (10, 25, -108), (19, 8, -102)),  # hyoid
    _part("cartilage", (17, 17, 15), (0, 8, -128)),  # thyroid cartilage
    _part("muscle", (14.5, 14.5, 18), (0, 6, -128)),
    _part("gland", (9, 9, 20), (19, -4, -150)),  # thyroid gland
    _part("air", 6, (0, -2, -104), (0, 4, -124), (0, -4, -150), (0, -26, -220)),  # larynx and trachea
)
ORBIT = (
    _part("bone", (20, 19, 19), (31, 46, -11)),
    _part("bone", (13, 18, 12), (22, 27, -6)),
    _part("orbital fat", (17.5, 20, 16.5), (31, 50, -11)),
    _part("orbital fat", (10.5, 16, 9.5), (22, 27, -6)),
    _part("csf", 4.0, (15, 16, -3), (9, 8, -1)),  # optic canal
    _part("muscle", (1.8, 1.8, 3.5), (18, 20, -6), (18, 44, -11)),
    _part("muscle", (1.8, 1.8, 3.5), (21, 20, -6), (43, 42, -11)),
    _part("muscle", (3.5, 1.8, 1.8), (19, 20, -1), (31, 46, 1)),
    _part("muscle", (3.5, 1.8, 1.8), (19, 20, -11), (31, 46, -23)),
)
TEETH = (
    _part("enamel", (3.6, 4, 6), *((x, y, UPPER_Z_MM) for x, y in ARCH)),
    _part("enamel", (3.4, 3.8, 5.5), *((x, y, LOWER_Z_MM) for x, y in ARCH)),
)
