"""Losses by name: presets, weighted sums, options in brackets."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from hnlib.errors import ConfigError, unknown
from hnlib.losses.finite import refuse_nan
from hnlib.losses.presets import MAKES, find_preset
from hnlib.losses.softmax import VoxelLoss, Voxels, without_channel

# a hyphen in a name is read, so that the nearest name can be told
_TERM = re.compile(
    r"\s*(?:(?P<weight>\d+\.?\d*(?:e-?\d+)?|\.\d+)\s*\*\s*)?(?P<name>[a-z][\w-]*)\s*(?:\((?P<options>[^()]*)\))?\s*",
    re.IGNORECASE,
)
_WORDS = {"true": True, "false": False, "in": True, "out": False}


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
        When there is no term, a loss is no module, or a weight is not finite.
    """

    def __init__(self, terms: Sequence[tuple[float, nn.Module]]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("terms are empty; at least one pair (weight, loss) is needed")
        for weight, loss in terms:
            if not math.isfinite(weight):
                raise ValueError(f"the weight of {loss} is {weight}; a finite number is needed")
            if not isinstance(loss, nn.Module):
                raise ValueError(f"a term is of type {type(loss).__name__}; a torch.nn.Module is needed")
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
        labels = without_channel(logits, target)
        given = (logits, labels) if labelled is None else (logits, labels, labelled)
        total = voxels.logits.new_zeros(())
        for weight, loss in zip(self.weights, self.losses, strict=True):
            term = loss.value(voxels) if isinstance(loss, VoxelLoss) else loss(*given)
            total = total + weight * term
        return refuse_nan(total, voxels.true_log_probs)


ClassVoxels = Sequence[float] | Callable[[], Sequence[float]]


def build_loss(text: str, *, class_voxels: ClassVoxels | None = None) -> nn.Module:
    """Return the loss that a short text names.

    Parameters
    ----------
    text
        Names of `LOSSES` joined by ``+``, each with an optional weight in front (``0.5*ce``) and
        optional arguments of its class in brackets behind (``dice(pooling=batch, background=in)``);
        ``in`` and ``true`` mean the same, so do ``out`` and ``false``. Numbers for each class are parted by ``/``
        (``weighted_ce(weights=1/4/4)``).
        Without a weight a term has weight 1.
    class_voxels
        Voxels of each class in the training cases, background first (or anything proportional), for terms that
        weight classes by it and have no weights in their brackets. A function is called only where
        there is such a term.

    Returns
    -------
    nn.Module
        Called as ``loss(logits, target)`` with logits (N, C, ...) and an integer label map (N, ...), or
        (N, 1, ...) as MONAI has it; a third argument, boolean (N, C), names the classes that were outlined in each
        sample.

    Raises
    ------
    ConfigError
        When the text cannot be read, a name, an option or an option's value is unknown, or a term needs
        class_voxels.

    Examples
    --------
    >>> import torch
    >>> loss = build_loss("0.5*ce+nnu_dice")
    >>> round(float(loss(torch.zeros(1, 2, 2), torch.tensor([[0, 1]]))), 4)  # 0.5 log 2 + 0.5
    0.8466
    """
    if not isinstance(text, str):
        raise ConfigError(f"loss is {text!r}; a text such as 'ca_dice+0.5*ce' is needed")
    terms = []
    position = 0
    while True:
        match = _TERM.match(text, position)
        if match is None or text[match.end() : match.end() + 1] not in ("", "+"):
            raise ConfigError(
                f"loss '{text}': cannot read '{text[position:]}'; write names joined by +, such as "
                "'0.5*ce+nnu_dice' or 'dice(pooling=batch)+ce'"
            )
        terms.append((float(match["weight"] or 1), _make(match["name"], match["options"] or "", class_voxels)))
        if match.end() == len(text):
            break
        position = match.end() + 1
    if len(terms) == 1 and terms[0][0] == 1:
        return terms[0][1]
    return SumLoss(terms)


def _make(name: str, options: str, class_voxels: ClassVoxels | None) -> nn.Module:
    """Return one loss from its name and the text between its brackets."""
    preset = find_preset(name)
    allowed = preset.options()
    given: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in options.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals and key not in allowed:
            raise ConfigError(
                f"loss '{name}': cannot read '{key}' in the brackets; write OPTION=VALUE, and numbers for each "
                f"class as 1/2/3. Options: {', '.join(allowed) or 'none'}"
            )
        if key not in allowed:
            raise unknown(f"option of loss '{name}'", key, allowed)
        if not value:
            raise ConfigError(f"loss '{name}': option '{key}' has no value; write {key}=VALUE")
        if key in given:
            raise ConfigError(f"loss '{name}': option '{key}' is given twice; write it once")
        given[key] = _option(value)
    if class_voxels is not None and "class_voxels" in allowed and not {"weights", "class_voxels"} & given.keys():
        given["class_voxels"] = class_voxels() if callable(class_voxels) else class_voxels
    try:
        made = preset.maker(**{**preset.arguments, **given})
    except (TypeError, ValueError) as error:
        hint = f"; {MAKES}" if isinstance(error, TypeError) else ""
        raise ConfigError(f"loss '{name}({options})': {error}{hint}") from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"loss '{name}({options})': made a {type(made).__name__}; {MAKES}")
    return made


def _option(text: str) -> bool | float | str | tuple[float, ...]:
    """Return an option's value: true, false, in, out, a number, numbers parted by a slash, or a word."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        numbers = tuple(float(part) for part in text.split("/"))
    except ValueError:
        return text
    return numbers if len(numbers) > 1 else numbers[0]
