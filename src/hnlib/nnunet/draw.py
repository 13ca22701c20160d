"""A planned draw of patch centres inside nnU-Net: its own loader, shown one organ of a case at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import numpy as np

from hnlib.errors import ConfigError
from hnlib.organs import organ_name
from hnlib.sampling import UNIFORM

#: Version of nnU-Net v2 that the trainers are tested with: its first two numbers.
TESTED = (2, 8)
#: Key of a draw in a configuration of nnU-Net's plans.
CENTRES = "hnlib_centres"


def nnunet_version() -> str:
    """Return the version of nnU-Net v2 that is installed; empty where none is."""
    try:
        return version("nnunetv2")
    except PackageNotFoundError:
        return ""


def version_remark(found: str) -> str:
    """Return what to say of a version of nnU-Net; empty for one that is tested.

    Raises
    ------
    ConfigError
        For another major version.

    Examples
    --------
    >>> version_remark("2.8.1")
    ''
    >>> version_remark("2.5")
    'nnU-Net 2.5: hnlib is tested with 2.8'
    """
    numbers = [int(part) for part in found.split(".")[:2] if part.isdigit()]
    tested = ".".join(map(str, TESTED))
    if len(numbers) != 2 or numbers[0] != TESTED[0]:
        raise ConfigError(
            f"nnU-Net {found}: the trainers of hnlib need version {TESTED[0]}; they are tested with {tested}"
        )
    return "" if tuple(numbers) == TESTED else f"nnU-Net {found}: hnlib is tested with {tested}"


def weights_by_label(centres: Mapping[str, float], labels: Mapping[str, Any]) -> dict[int, float]:
    """Return the weights of a draw by label of nnU-Net; those of patches anywhere under 0.

    Parameters
    ----------
    centres
        Share of the patches by organ, and under ``uniform``; sum 1.
    labels
        Name to value, as in ``dataset.json``.

    Raises
    ------
    ConfigError
        When the data set lacks an organ of the draw.

    Examples
    --------
    >>> weights_by_label({"uniform": 0.5, "parotid_left": 0.5}, {"background": 0, "Parotid_L": 3})
    {0: 0.5, 3: 0.5}
    """
    values = {organ_name(name): value for name, value in labels.items() if isinstance(value, int)}
    found = {}
    for name, weight in centres.items():
        if name != UNIFORM and name not in values:
            raise ConfigError(
                f"draw of the plans: organ {name} is none of {', '.join(values)}; plan on this data set again"
            )
        found[0 if name == UNIFORM else values[name]] = float(weight)
    return found


class Cases(Protocol):
    """What nnU-Net's loader asks of a data set."""

    identifiers: Sequence[str]

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Return image, labels, labels of an earlier stage, and what is known of the case."""


@dataclass
class DrawnCases:
    """Cases of nnU-Net that show its loader the voxels of one organ at a time, drawn with given weights.

    nnU-Net centres a forced patch on a voxel of a class drawn evenly from those of which it is shown voxels, and puts
    the patch anywhere where it is shown none. So with these cases and the trainer's share of forced patches set to one
    minus that of patches anywhere, centres follow the weights; an organ that a case lacks leads to a patch anywhere, as
    in `hnlib.sampling.weighted_centres`. What stays nnU-Net's: it pads at the border where this library clamps.

    Attributes
    ----------
    cases
        nnU-Net's own data set.
    weights
        By label, as from `weights_by_label`; those of the organs are shown in proportion.
    """

    cases: Cases
    weights: Mapping[int, float]

    @property
    def identifiers(self) -> Sequence[str]:
        """Names of the cases."""
        return self.cases.identifiers

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Return a case with the voxels of one organ, or of none where the drawn one is not in the case."""
        data, labels, earlier, properties = self.cases.load_case(identifier)
        organs = [label for label, weight in self.weights.items() if label and weight]
        shares = np.array([self.weights[label] for label in organs])
        # numpy's global state is what nnU-Net's loader draws from and seeds in each of its processes
        drawn = int(np.random.choice(organs, p=shares / shares.sum())) if organs else 0
        places = {drawn: properties["class_locations"].get(drawn, [])} if drawn else {}
        return data, labels, earlier, {**properties, "class_locations": places}
