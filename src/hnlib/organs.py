"""The vocabulary of organs at risk: one row an organ, used by every data set and figure.

Colours are the Okabe-Ito set without its grey, extended by colours of Tol; any two are told apart under red- and
green-blindness too, as a test computes. The two organs of a pair share a colour and differ in their marker.
Tolerances are those of surface Dice, with the source beside each number.
"""

from __future__ import annotations

import colorsys
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

from hnlib.errors import ConfigError, unknown

NIKOLOV = "Nikolov et al. 2018, as in the code of Tappeiner et al. 2022"
UNVERIFIED = "Nikolov et al. 2018, recalled, not verified"
TAPPEINER = "Tappeiner et al. 2022, own choice: no observer value exists"
PROVISIONAL = "no published value found; provisional choice of this library"
DEFAULT = "not in the vocabulary; default of this library"
#: Tolerance of organs outside the vocabulary: what most of its soft organs have.
DEFAULT_TOLERANCE_MM = 2.5
#: The organs of Tappeiner et al. 2022, in the paper's order; also those that PDDCA outlines.
PAPER_ORGANS: tuple[str, ...] = (
    "brainstem",
    "optic_chiasm",
    "optic_nerve_left",
    "optic_nerve_right",
    "parotid_left",
    "parotid_right",
    "mandible",
)
#: Classes, rows of tables and laws of patch centres that are no organs.
RESERVED = frozenset({"background", "average", "uniform"})


@dataclass(frozen=True)
class Organ:
    """One organ at risk.

    Attributes
    ----------
    name
        Name in this library, such as ``parotid_left``.
    title
        Name in figures and tables.
    side
        ``left`` or ``right`` of the patient, or None for an organ on the midline.
    mirror
        Name of the partner on the other side, or None.
    colour, marker
        The same in every figure.
    tolerance_mm
        Tolerance of surface Dice in mm.
    tolerance_source
        Where the tolerance comes from.
    spellings
        What the data sets call it: data set name to file or structure names.
    """

    name: str
    title: str
    colour: str
    marker: str
    tolerance_mm: float
    tolerance_source: str
    spellings: MappingProxyType[str, tuple[str, ...]]
    side: Literal["left", "right"] | None = None
    mirror: str | None = None


def _row(
    name: str,
    title: str,
    colour: str,
    marker: str,
    tolerance_mm: float,
    source: str,
    openkbp: str = "",
    pddca: str = "",
    tcia: str = "",
) -> Organ:
    side, mirror = _side(name)
    found = {
        "openkbp": (openkbp,) if openkbp else (),
        "pddca": (pddca,) if pddca else (),
        "tcia": tuple(dict.fromkeys((tcia, tcia.replace("-", "_")))) if tcia else (),
    }
    return Organ(
        name,
        title,
        colour,
        marker,
        tolerance_mm,
        source,
        MappingProxyType({key: value for key, value in found.items() if value}),
        side,
        mirror,
    )


def _side(name: str) -> tuple[Literal["left", "right"] | None, str | None]:
    """Return side and partner of a name that ends in one."""
    if name.endswith("_left"):
        return "left", f"{name.removesuffix('_left')}_right"
    if name.endswith("_right"):
        return "right", f"{name.removesuffix('_right')}_left"
    return None, None


ORGANS: MappingProxyType[str, Organ] = MappingProxyType(
    {
        row.name: row
        for row in (
            _row("brainstem", "Brainstem", "#D55E00", "s", 2.5, NIKOLOV, "Brainstem", "BrainStem", "Brainstem"),
            _row("spinal_cord", "Spinal cord", "#CC79A7", "D", 2.93, UNVERIFIED, "SpinalCord", "", "Spinal-Cord"),
            _row("parotid_left", "Parotid L", "#009E73", "<", 2.85, NIKOLOV, "LeftParotid", "Parotid_L", "Parotid-Lt"),
            _row(
                "parotid_right", "Parotid R", "#009E73", ">", 2.85, NIKOLOV, "RightParotid", "Parotid_R", "Parotid-Rt"
            ),
            _row("mandible", "Mandible", "#0072B2", "o", 1.01, NIKOLOV, "Mandible", "Mandible", "Mandible"),
            _row("larynx", "Larynx", "#DDCC77", "P", 2.5, PROVISIONAL, "Larynx"),
            _row("oesophagus", "Oesophagus", "#F0E442", "h", 2.5, PROVISIONAL, "Esophagus"),
            _row("optic_chiasm", "Optic chiasm", "#E69F00", "X", 2.5, TAPPEINER, "", "Chiasm"),
            _row(
                "optic_nerve_left", "Optic nerve L", "#56B4E9", "<", 2.5, NIKOLOV, "", "OpticNerve_L", "Optic-Nerve-Lt"
            ),
            _row(
                "optic_nerve_right", "Optic nerve R", "#56B4E9", ">", 2.5, NIKOLOV, "", "OpticNerve_R", "Optic-Nerve-Rt"
            ),
            _row(
                "submandibular_left",
                "Submandibular L",
                "#882255",
                "<",
                2.02,
                UNVERIFIED,
                "",
                "Submandibular_L",
                "Submandibular-Lt",
            ),
            _row(
                "submandibular_right",
                "Submandibular R",
                "#882255",
                ">",
                2.02,
                UNVERIFIED,
                "",
                "Submandibular_R",
                "Submandibular-Rt",
            ),
            _row("lens_left", "Lens L", "#332288", "<", 0.98, UNVERIFIED, tcia="Lens-Lt"),
            _row("lens_right", "Lens R", "#332288", ">", 0.98, UNVERIFIED, tcia="Lens-Rt"),
            _row("cochlea_left", "Cochlea L", "#661100", "<", 1.25, UNVERIFIED, tcia="Cochlea-Lt"),
            _row("cochlea_right", "Cochlea R", "#661100", ">", 1.25, UNVERIFIED, tcia="Cochlea-Rt"),
        )
    }
)


def organ(name: str) -> Organ:
    """Return the organ of that name.

    Own data may hold organs outside the vocabulary. Their title, colour and marker follow from the name, the two of a
    pair (``..._left``, ``..._right``) are partners, and their tolerance is ``DEFAULT_TOLERANCE_MM``, marked as such.

    Raises
    ------
    ConfigError
        When the name is none that an organ can have; it names the nearest known one.

    Examples
    --------
    >>> organ("parotid_left").mirror
    'parotid_right'
    >>> own = organ("eye_left")
    >>> own.title, own.mirror, own.tolerance_mm, own.tolerance_source
    ('Eye L', 'eye_right', 2.5, 'not in the vocabulary; default of this library')
    """
    if name in ORGANS:
        return ORGANS[name]
    if name in RESERVED or len(name) > 48 or not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise ConfigError(f"{unknown('organ', name, ORGANS)}; or an own name of a-z, 0-9 and _ such as thyroid")
    return _own(name)


def _own(name: str) -> Organ:
    side, mirror = _side(name)
    stem = name.removesuffix("_left").removesuffix("_right")
    digest = hashlib.blake2b(stem.encode(), digest_size=2).digest()
    # Pale beside the vocabulary's colours; the hue is the organ's own in every figure, whatever else is drawn.
    channels = colorsys.hls_to_rgb(digest[0] / 256, 0.5, 0.3)
    colour = "#" + "".join(f"{round(255 * channel):02X}" for channel in channels)
    marker = {"left": "<", "right": ">"}.get(side or "", "pv^*d"[digest[1] % 5])
    letter = f" {side[0].upper()}" if side else ""
    return Organ(
        name,
        stem.replace("_", " ").capitalize() + letter,
        colour,
        marker,
        DEFAULT_TOLERANCE_MM,
        DEFAULT,
        MappingProxyType({}),
        side,
        mirror,
    )


def organ_name(text: str) -> str:
    """Return the library's name for what a tool calls an organ: by the spellings of the data sets, else as it is.

    Examples
    --------
    >>> organ_name("Parotid_L"), organ_name("RightParotid"), organ_name("Optic-Nerve-Lt"), organ_name("Eye R")
    ('parotid_left', 'parotid_right', 'optic_nerve_left', 'eye_right')
    """
    known = _spellings().get(_letters(text))
    if known:
        return known
    name = re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
    return re.sub(r"_(?:l|lt)$", "_left", re.sub(r"_(?:r|rt)$", "_right", name))


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


@cache
def _spellings() -> dict[str, str]:
    found: dict[str, str] = {}
    for one in ORGANS.values():
        for text in (one.name, one.title, *(name for names in one.spellings.values() for name in names)):
            found[_letters(text)] = one.name
    return found


def mirror_values(organs: Sequence[str]) -> tuple[int, ...]:
    """Return, for every value of a label map, its value in the mirrored patient.

    Parameters
    ----------
    organs
        Names in label order; organ i has value i + 1, background 0.

    Raises
    ------
    ConfigError
        When the set holds an organ of one side without its partner.

    Examples
    --------
    >>> mirror_values(["brainstem", "parotid_left", "parotid_right"])
    (0, 1, 3, 2)
    """
    values = [0]
    for name in organs:
        partner = organ(name).mirror or name
        if partner not in organs:
            raise ConfigError(f"'{name}' cannot be mirrored: the set lacks '{partner}'")
        values.append(1 + list(organs).index(partner))
    return tuple(values)
