"""The names of losses: those of the library, and those that a user registers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pkgutil import resolve_name
from types import MappingProxyType
from typing import Any

from torch import nn

from hnlib.errors import ConfigError, unknown
from hnlib.losses.cross_entropy import CrossEntropy, TopKCrossEntropy, WeightedCrossEntropy
from hnlib.losses.dice import DiceLoss
from hnlib.losses.focal import FocalLoss, WeightedFocalLoss
from hnlib.losses.generalised_dice import GeneralisedDiceLoss
from hnlib.losses.margin import AsymmetricCrossEntropy, MarginDiceLoss
from hnlib.losses.topk_dice import TopKDiceLoss
from hnlib.losses.tversky import TverskyLoss


@dataclass(frozen=True)
class Preset:
    """A named loss: what it is in one line, what makes it or where that stands, and the arguments it is made with."""

    description: str
    make: Callable[..., nn.Module] | str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def maker(self) -> Callable[..., nn.Module]:
        """What makes it; a text such as ``package.module:Name`` is imported when the loss is first asked for."""
        return resolve_name(self.make) if isinstance(self.make, str) else self.make

    def options(self) -> dict[str, Any]:
        """Return the options, those passed on to base classes too, with the values that the preset has."""
        found: dict[str, Any] = {}
        for maker in inspect.getmro(self.maker) if inspect.isclass(self.maker) else (self.maker,):
            parameters = inspect.signature(maker).parameters.values()
            named = (p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
            found = {p.name: None if p.default is p.empty else p.default for p in named} | found
            if all(p.kind != p.VAR_KEYWORD for p in parameters):
                break
        return found | dict(self.arguments)


#: What is to be registered, for errors.
MAKES = "what is registered is a class of torch.nn.Module, or a function that returns one"
_DENOMINATOR_ONLY = {"smooth_numerator": 0.0, "smooth_denominator": 1e-5}
_BOTH = {"smooth_numerator": 1e-5, "smooth_denominator": 1e-5}


_PRESENT = {"pooling": "sample", "absent": "skip"}


def _dice(description: str, **arguments: Any) -> Preset:
    return Preset(description, DiceLoss, arguments)


def _steps() -> dict[str, Preset]:
    """Return the 2 x 2 x 2 Dice losses between nnu_dice and ca_dice; the smoothing goes with the absent classes."""
    steps = {}
    for pooling, (word, background), absent in product(
        ("batch", "sample"), (("organs", False), ("all", True)), ("count", "skip")
    ):
        smoothing = _BOTH if absent == "count" else _DENOMINATOR_ONLY
        steps[f"dice_{pooling}_{word}_{absent}"] = _dice(
            f"Dice, {pooling} pooling, background {'in' if background else 'out'}, absent classes "
            f"{'counted' if absent == 'count' else 'skipped'}: a step between nnu_dice and ca_dice",
            pooling=pooling,
            background=background,
            absent=absent,
            **smoothing,
        )
    return steps


_PRESETS: dict[str, Preset] = {
    "ce": Preset("cross-entropy, mean over all voxels", CrossEntropy),
    "weighted_ce": Preset(
        "cross-entropy weighted by how rare each class is in training, at most 50 (Pu et al. 2020, Eqs 1-2); needs "
        "weights or class_voxels",
        WeightedCrossEntropy,
    ),
    "topk_ce": Preset("cross-entropy of the hardest 50 percent of a sample's voxels", TopKCrossEntropy),
    "focal": Preset("focal loss, gamma 2, classes unweighted (Lin et al. 2017, by softmax)", FocalLoss),
    "weighted_focal": Preset(
        "focal loss, gamma 2, weighted by the inverse root of each class's size in training (Gao et al. 2019, Eq 1); "
        "needs weights or class_voxels",
        WeightedFocalLoss,
    ),
    "asymmetric_ce": Preset(
        "cross-entropy with margin 1 for organs and focal (gamma 2) for background (Li et al. 2021)",
        AsymmetricCrossEntropy,
    ),
    "dice": _dice(
        "soft Dice of each sample, background out, absent classes counted, smoothing 1e-5 in both places",
        pooling="sample",
        background=False,
        absent="count",
        **_BOTH,
    ),
    "nnu_dice": _dice(
        "nnU-Net's Dice, the baseline of Tappeiner et al. 2022 (Eq 3): batch pooling, background out, absent "
        "classes counted, smoothing 1e-5 in both places",
        pooling="batch",
        background=False,
        absent="count",
        **_BOTH,
    ),
    "ca_dice": _dice(
        "class-adaptive Dice as in the code of Tappeiner et al. 2022: mean over the classes present in a sample, "
        "background in, then over samples; smoothing 1e-5 in the denominator",
        pooling="sample",
        background=True,
        absent="skip",
        **_DENOMINATOR_ONLY,
    ),
    "ca_dice_print": _dice(
        "class-adaptive Dice as printed in Tappeiner et al. 2022 (Eq 4): mean over all (sample, class) pairs present, "
        "background in; smoothing 1e-5 in the denominator",
        pooling="sample",
        background=True,
        absent="skip_jointly",
        **_DENOMINATOR_ONLY,
    ),
    "squared_dice": _dice(
        "Dice with squared denominator (Milletari et al. 2016): batch pooling, background out, absent classes "
        "counted, smoothing 1 in both places",
        pooling="batch",
        background=False,
        absent="count",
        smooth_numerator=1.0,
        smooth_denominator=1.0,
        squared=True,
    ),
    "topk_dice": Preset(
        "squared Dice on the hardest 50 percent of each organ's label voxels (Hosseini 2024, Eqs 1-7): of each sample, "
        "classes present, no smoothing",
        TopKDiceLoss,
        {**_PRESENT, "smooth_numerator": 0.0, "smooth_denominator": 0.0, "squared": True},
    ),
    "ca_topk_dice": Preset(
        "class-adaptive Dice on the hardest 50 percent of each class's label voxels, the background's too",
        TopKDiceLoss,
        {**_PRESENT, **_DENOMINATOR_ONLY, "background": True},
    ),
    "ca_dice_margin": Preset(
        "class-adaptive Dice of logits less a margin of 1 for organs; with asymmetric_ce the terms of Li et al. 2021",
        MarginDiceLoss,
        {**_PRESENT, **_DENOMINATOR_ONLY, "background": True},
    ),
    "gao_dice": _dice(
        "Dice added up over the classes present, background in (Gao et al. 2019, Eq 2); with weighted_focal their Eq 3",
        **_PRESENT,
        **_DENOMINATOR_ONLY,
        background=True,
        over_classes="sum",
    ),
    "generalised_dice": Preset(
        "one Dice for all classes, weighted by 1 / size^2 in the sample (Sudre et al. 2017; Pu et al. 2020, Eqs 3-4)",
        GeneralisedDiceLoss,
    ),
    "tversky": Preset(
        "Tversky loss, false positives 0.3, false negatives 0.7, background out, absent classes counted (Salehi 2017)",
        TverskyLoss,
    ),
    **_steps(),
}

_DESCRIPTIONS = {name: preset.description for name, preset in _PRESETS.items()}
_OWN = frozenset(_PRESETS)

LOSSES: Mapping[str, str] = MappingProxyType(_DESCRIPTIONS)
"""Every loss known to `build_loss`, by name, with one line on what it is; registered ones come last."""


def find_preset(name: str) -> Preset:
    """Return a loss by its name.

    Raises
    ------
    ConfigError
        For an unknown name, with the nearest known one.
    """
    if name not in _PRESETS:
        raise unknown("loss", name, LOSSES)
    return _PRESETS[name]


def loss_options(name: str) -> dict[str, Any]:
    """Return the options of a loss and their values; None where none is set.

    Raises
    ------
    ConfigError
        For an unknown name, with the nearest known one.

    Examples
    --------
    >>> loss_options("topk_ce")
    {'percent': 50.0, 'pooling': 'sample'}
    """
    return find_preset(name).options()


def register_loss(name: str, make: Callable[..., nn.Module], description: str = "", *, replace: bool = False) -> None:
    """Give a loss of your own a name, by which `build_loss` then knows it.

    Parameters
    ----------
    name
        Letters, digits and underscores, a letter first.
    make
        Class or function that returns a module called as ``loss(logits, target)``: logits (N, C, ...), integer label
        map (N, ...); with `labelled` as third argument too where organs may lack in the labels. Its arguments are the
        options that may stand in brackets behind the name. One named ``class_voxels`` receives what `build_loss` is
        given under that name. A `VoxelLoss` shares the softmax of a sum.
    description
        One line for `LOSSES`; empty: the first line of what makes it has as docstring.
    replace
        Whether a name that is registered already may be given to another loss; the library's own never are.

    Raises
    ------
    ConfigError
        When the name cannot be read in a text, is the library's own, or is taken and not to be replaced; when `make`
        cannot be called.

    Examples
    --------
    >>> from torch.nn import functional
    >>> class Smooth(nn.Module):
    ...     def forward(self, logits, target):
    ...         return functional.cross_entropy(logits, target, label_smoothing=0.1)
    >>> register_loss("smooth_ce", Smooth, "cross-entropy with smoothed labels", replace=True)
    >>> from hnlib.losses import build_loss
    >>> build_loss("smooth_ce+ca_dice").weights
    (1.0, 1.0)
    """
    if not callable(make) or isinstance(make, nn.Module):
        raise ConfigError(f"loss '{name}': make is of type {type(make).__name__}; {MAKES}")
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise ConfigError(f"loss '{name}': letters, digits and underscores are needed, a letter first")
    if name in _OWN:
        raise ConfigError(f"loss '{name}': the library has one of this name; choose another")
    if name in _PRESETS and not replace:
        raise ConfigError(f"loss '{name}': already registered; choose another name, or give replace=True")
    # a class without words of its own would show those of nn.Module
    said = vars(make).get("__doc__") if isinstance(make, type) else getattr(make, "__doc__", None)
    words = (description or said or "").strip() or "a loss of your own"
    _PRESETS[name] = Preset(words.splitlines()[0], make)
    _DESCRIPTIONS[name] = _PRESETS[name].description
