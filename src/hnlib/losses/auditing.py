"""The audit: what a loss does to large and small, present and absent classes, measured on a known scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hnlib.losses.audit_pressure import ball, cut
from hnlib.losses.audit_probes import batch_split, false_positives, gradients
from hnlib.losses.audit_scene import Loss, Row

#: A penalty, or a pull on an organ, this small beside that of mean cross-entropy is none in practice.
NEGLIGIBLE = 1e-3
#: Rounding of a loss near 1 in float32.
ROUNDING = 1e-6
#: What the printed columns are, by check.
LEGEND = {
    "gradient": "pull: towards the class, over its own voxels; push: away from it, over all others; pull_ratio: large "
    "over small",
    "batch split": "equal where the split of a batch does not matter",
    "false positive": "cost of giving the absent class the probability of P voxels; slope: dL/dP; slope_in_ce: over "
    "that of cross-entropy",
    "ambiguous voxels": "cut: label probability from which a voxel is called organ; volume_ratio: predicted over true",
    "jittered ball": "the same, of a ball whose radius differs from case to case",
}


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes
    ----------
    loss
        The loss, in its own words.
    rows
        One observation each: ``check``, ``prediction``, ``class``, ``measure``, ``value`` and ``analytic`` (the closed
        form, where one is stated); ``pandas.DataFrame(audit.rows)`` is a tidy table.
    warnings
        One line each, empty where nothing is wrong.
    """

    loss: str
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]

    def find(self, check: str, measure: str, **keys: str) -> dict[tuple[str, str], float]:
        """Return the values of one measure by prediction and class.

        Parameters
        ----------
        check, measure
            As in `rows`.
        keys
            Further columns and what they must hold, such as ``prediction="random"``.
        """
        wanted = {"check": check, "measure": measure, **keys}
        rows = [row for row in self.rows if all(row[key] == one for key, one in wanted.items())]
        return {(row["prediction"], row["class"]): row["value"] for row in rows}

    def __str__(self) -> str:
        """Return the table, one block a check with its legend, closed forms in brackets, and the warnings."""
        blocks = [f"Audit of {self.loss}; in brackets the closed form, where there is one"]
        for check in dict.fromkeys(row["check"] for row in self.rows):
            blocks += ["", *_block([row for row in self.rows if row["check"] == check]), f"({LEGEND[check]})"]
        return "\n".join([*blocks, "", *(f"Warning: {line}" for line in self.warnings or ["none"])])


def audit(loss: Loss, *, num_classes: int = 4, seed: int = 0) -> Audit:
    r"""Measure what a loss does to large and small, present and absent classes.

    Parameters
    ----------
    loss
        Anything called as ``loss(logits, target)`` that returns one number: logits (N, C, X, Y, Z), labels
        (N, X, Y, Z), class 0 the background. One that wants labels with a channel axis is audited as
        ``audit(lambda logits, target: loss(logits, target[:, None]))``.
    num_classes
        Classes that the loss is made for, background included, at least 2; those from 3 on are absent. With 3 the
        small organ plays the absent class of the false positives, with 2 the large one does.
    seed
        Of the noise in the predictions and of the labels that are drawn.

    Returns
    -------
    Audit
        Rows and warnings; `print` shows them.

    Raises
    ------
    ValueError
        When the loss cannot be called so, or does not return one number with a gradient; when num_classes is below 2.

    Notes
    -----
    The scene has 64^3 voxels, a cube of 8000 and a box of 40. The checks:

    - **gradient**: norm, pull and push on the logits of each class, at predictions that are random, half-trained
      (the true logit leads by 3, noise of SD 0.5), trained (by 6) and perfect (by 30).
    - **batch split**: loss of a batch beside the mean of its samples' losses.
    - **false positive**: what probability given to the absent class costs, soft and hard. Where a cost is reached as
      soon as the prediction is soft, no false positive adds to it: warned of below a thousandth of what
      cross-entropy adds, at a mass of 100 voxels.
    - **ambiguous voxels**: label probability from which a voxel is called organ once the expected loss is at its
      minimum: 1/2 for cross-entropy, half of the Dice coefficient reached for Dice. A lower cut over-segments.
    - **jittered ball**: volume predicted over true volume where the boundary differs from case to case.

    Everything runs in float32 on the CPU, and the same seed gives the same rows.

    Examples
    --------
    >>> from hnlib.losses import build_loss
    >>> print(*audit(build_loss("dice_sample_organs_skip")).warnings)
    class absent: false positives cost nothing, soft or hard
    """
    if not callable(loss):
        raise ValueError(f"loss is {type(loss).__name__}; something called as loss(logits, target) is needed")
    if not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"num_classes is {num_classes!r}; a whole number of at least 2 is needed")
    rows = [
        *gradients(loss, num_classes, seed),
        *batch_split(loss, num_classes, seed),
        *false_positives(loss, num_classes),
        *cut(loss, num_classes, seed),
        *ball(loss, num_classes, seed),
    ]
    found = Audit(str(loss), tuple(rows), ())
    return Audit(found.loss, found.rows, tuple(_warnings(found)))


def _warnings(found: Audit) -> list[str]:
    """Return what is wrong with a loss, one line each."""
    lines = []
    if broken := sorted({row["check"] for row in found.rows if not math.isfinite(row["value"])}):
        lines.append(f"not a finite number in: {', '.join(broken)}")
    lines += _pulls(found)
    costs = found.find("false positive", "cost")
    slopes = found.find("false positive", "slope_in_ce")
    lasting = slopes["soft", "P = 100"]
    if all(cost <= ROUNDING for cost in costs.values()) and all(abs(slope) < 1e-9 for slope in slopes.values()):
        lines.append("class absent: false positives cost nothing, soft or hard")
    elif lasting < -NEGLIGIBLE:
        lines.append(
            f"class absent: false positives are rewarded (at a mass of 100 voxels, {-lasting:.1g} of what "
            "cross-entropy takes for them): is a sign wrong, are logits taken for probabilities, or labels smoothed?"
        )
    elif lasting < NEGLIGIBLE:
        lines.append(
            "class absent: false positives cost nothing more once the prediction is soft (at a mass of 100 voxels "
            f"the penalty is {lasting:.1g} of that of cross-entropy)"
        )
    return lines


def _pulls(found: Audit) -> list[str]:
    """Return a line for each organ that a loss does not draw its own voxels to."""
    lines = []
    pulls = found.find("gradient", "pull")
    for organ in dict.fromkeys(name for _, name in pulls):
        own = {stage: pull for (stage, name), pull in pulls.items() if name == organ and stage != "perfect"}
        if all(pull == 0 for pull in own.values()):
            lines.append(f"class {organ}: never learnt, its voxels have no gradient towards it")
        elif wrong := [stage for stage, pull in own.items() if pull < 0]:
            lines.append(
                f"class {organ}: its own voxels are driven from it ({', '.join(wrong)} predictions); is the sign right?"
            )
    return lines


def _block(rows: Sequence[Row]) -> list[str]:
    """Return one check as lines: a row for each prediction and class, a column for each measure."""
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        text = f"{row['value']:.3g}" + ("" if row["analytic"] is None else f" ({row['analytic']:.3g})")
        cells.setdefault((row["prediction"], row["class"]), {})[row["measure"]] = text
    head = f"{rows[0]['check']:32s}" + "".join(f"{measure:>23s}" for measure in measures)
    lines = [
        f"{f'{prediction}, {name}':32s}" + "".join(f"{own.get(measure, ''):>23s}" for measure in measures)
        for (prediction, name), own in cells.items()
    ]
    return [line.rstrip() for line in (head, *lines)]
