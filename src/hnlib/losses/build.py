"""Losses by name: presets, weighted sums, options in brackets."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from hnlib.errors import ConfigError, unknown
from hnlib.losses.cross_entropy import CrossEntropy
from hnlib.losses.dice import DiceLoss
from hnlib.losses.softmax import VoxelLoss, Voxels

_TERM = re.compile(
    r"\s*(?:(?P<weight>\d+\.?\d*(?:e-?\d+)?|\.\d+)\s*\*\s*)?(?P<name>[a-z]\w*)\s*(?:\((?P<options>[^()]*)\))?\s*",
    re.IGNORECASE,
)
_WORDS = {"true": True, "false": False, "in": True, "out": False}


@dataclass(frozen=True)
class _Preset:
    """A named loss: what it is in one line, what makes it, and the arguments it is made with."""

    description: str
    make: Callable[..., nn.Module]
    arguments: Mapping[str, Any]


_DENOMINATOR_ONLY = {"smooth_numerator": 0.0, "smooth_denominator": 1e-5}
_BOTH = {"smooth_numerator": 1e-5, "smooth_denominator": 1e-5}


def _dice(description: str, **arguments: Any) -> _Preset:
    return _Preset(description, DiceLoss, arguments)


def _steps() -> dict[str, _Preset]:
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


_PRESETS: dict[str, _Preset] = {
    "ce": _Preset("cross-entropy, mean over all voxels", CrossEntropy, {}),
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
    **_steps(),
}

LOSSES: Mapping[str, str] = MappingProxyType({name: preset.description for name, preset in _PRESETS.items()})
"""Every loss known to `build_loss`, by name, with one line on what it is."""


class SumLoss(nn.Module):
    """Weighted sum of losses; those that are a `VoxelLoss` share one pass over the logits.

    Parameters
    ----------
    terms
        Pairs (weight, loss); a loss is any module called as ``loss(logits, target)``, and with
        `labelled` as third argument where that is given.

    Raises
    ------
    ValueError
        When there is no term.
    """

    def __init__(self, terms: Sequence[tuple[float, nn.Module]]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("terms are empty; at least one pair (weight, loss) is needed")
        self.weights = tuple(float(weight) for weight, _ in terms)
        self.losses = nn.ModuleList([loss for _, loss in terms])
        self._squares = any(loss.squares for loss in self.losses if isinstance(loss, VoxelLoss))

    # nn.Module declares __call__ as Any; callers deserve the signature
    __call__: Callable[..., Tensor]

    def extra_repr(self) -> str:
        """Return the weights, for printing the module."""
        return f"weights={self.weights}"

    def forward(self, logits: Tensor, target: Tensor, labelled: Tensor | None = None) -> Tensor:
        """Return the weighted sum, a scalar, for logits (N, C, ...) and an integer label map (N, ...).

        `labelled` (N, C), boolean, says which classes were outlined in each sample; None means all.
        """
        voxels = Voxels(logits, target, squares=self._squares, labelled=labelled)
        given = (logits, target) if labelled is None else (logits, target, labelled)
        total = voxels.logits.new_zeros(())
        for weight, loss in zip(self.weights, self.losses, strict=True):
            term = loss.value(voxels) if isinstance(loss, VoxelLoss) else loss(*given)
            total = total + weight * term
        return total


def build_loss(text: str) -> nn.Module:
    """Return the loss that a short text names.

    Parameters
    ----------
    text
        Names of `LOSSES` joined by ``+``, each with an optional weight in front (``0.5*ce``) and
        optional arguments of its class in brackets behind (``dice(pooling=batch, background=in)``);
        ``in`` and ``true`` mean the same, so do ``out`` and ``false``.
        Without a weight a term has weight 1.

    Returns
    -------
    nn.Module
        Called as ``loss(logits, target)`` with logits (N, C, ...) and an integer label map (N, ...);
        a third argument, boolean (N, C), names the classes that were outlined in each sample.

    Raises
    ------
    ConfigError
        When the text cannot be read, or a name, an option or an option's value is unknown.

    Examples
    --------
    >>> import torch
    >>> loss = build_loss("0.5*ce+nnu_dice")
    >>> round(float(loss(torch.zeros(1, 2, 2), torch.tensor([[0, 1]]))), 4)  # 0.5 log 2 + 0.5
    0.8466
    """
    terms = []
    position = 0
    while True:
        match = _TERM.match(text, position)
        if match is None or text[match.end() : match.end() + 1] not in ("", "+"):
            raise ConfigError(
                f"loss '{text}': cannot read '{text[position:]}'; write names joined by +, such as "
                "'0.5*ce+nnu_dice' or 'dice(pooling=batch)+ce'"
            )
        terms.append((float(match["weight"] or 1), _make(match["name"], match["options"] or "")))
        if match.end() == len(text):
            break
        position = match.end() + 1
    if len(terms) == 1 and terms[0][0] == 1:
        return terms[0][1]
    return SumLoss(terms)


def _make(name: str, options: str) -> nn.Module:
    """Return one loss from its name and the text between its brackets."""
    if name not in _PRESETS:
        raise unknown("loss", name, LOSSES)
    preset = _PRESETS[name]
    allowed = list(inspect.signature(preset.make).parameters)
    given: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in options.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if key not in allowed:
            raise unknown(f"option of loss '{name}'", key, allowed)
        if not equals or not value:
            raise ConfigError(f"loss '{name}': option '{key}' has no value; write {key}=VALUE")
        given[key] = _option(value)
    try:
        return preset.make(**{**preset.arguments, **given})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"loss '{name}({options})': {error}") from error


def _option(text: str) -> bool | float | str:
    """Return an option's value: true, false, in, out, a number or a word."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return float(text)
    except ValueError:
        return text
