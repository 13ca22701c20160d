"""Which loss to take: facts of the data, measures of the audit, and a rule between them that is written down."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

import pandas as pd

#: Measures of `hnlib.losses.audit` that the table of audited losses keeps: check, measure, prediction, class.
KEPT = {
    "pull_ratio": ("gradient", "pull_ratio", "half-trained", "large : small"),
    "false_positive": ("false positive", "slope_in_ce", "soft", "P = 100"),
    "step": ("false positive", "cost", "soft", "P = 0.001"),
    "volume_ratio": ("jittered ball", "volume_ratio", "settled", "large"),
}
#: A Dice term that costs this much for a thousandth of a voxel sees presence, not amount.
A_STEP = 0.01
#: From this share of (patch, organ) pairs without the organ on, what an absent organ costs matters.
OFTEN_ABSENT = 0.5
#: From this ratio of volumes on, organs count as unequal.
UNEQUAL = 5


@dataclass(frozen=True)
class LossAdvice:
    """A loss, why, and the audited losses that it was chosen from."""

    name: str
    reasons: tuple[str, ...]
    table: pd.DataFrame


def audited_losses() -> pd.DataFrame:
    """Return the measures of `KEPT` for the losses that a report chooses from, one row a loss.

    They are those of `hnlib.losses.audit` with its defaults; ``scripts/audited_losses.py`` makes them.
    """
    with files("hnlib.data").joinpath("audited_losses.csv").open(encoding="utf-8") as text:
        return pd.read_csv(text)


def advise(size_ratio: float, absent_fraction: float, *, partial: bool) -> LossAdvice:
    """Choose a loss by a rule from what is known of the data.

    Parameters
    ----------
    size_ratio
        Median volume of the largest organ over that of the smallest, at least 1.
    absent_fraction
        Share of (patch, organ) pairs in which the patch does not hold the organ, in expectation, 0..1.
    partial
        Whether some organ was not outlined in some case.

    Notes
    -----
    Where organs are absent at least as often as not, losses go that cost more than ``A_STEP`` for a thousandth of a
    voxel of an absent organ. Of those that stay: the first of the table (nnU-Net's, where it stays) if all organs are
    within a factor of ``UNEQUAL`` of each other; else the one that pulls least on a large organ beside a small one.
    """
    found = audited_losses()
    often, unequal = absent_fraction >= OFTEN_ABSENT, size_ratio >= UNEQUAL
    stays = found[found["step"] < A_STEP] if often else found
    row = stays.sort_values("pull_ratio", kind="stable").iloc[0] if unequal else stays.iloc[0]
    first = found.iloc[0]
    reasons = [
        f"A patch lacks an organ in {absent_fraction:.0%} of the pairs of patch and organ. "
        + (
            f"That is often: a loss is left out where a thousandth of a voxel of an absent organ costs over {A_STEP:g} "
            f"({first['loss']}: {first['step']:.2f}), since it then sees whether, and not how much, was predicted."
            if often
            else "That is seldom: what a loss does to an absent organ decides nothing here."
        ),
        f"The largest organ has {size_ratio:.3g} times the volume of the smallest. "
        + (
            f"Of the losses that stay, {row['loss']} pulls least on a large organ beside a small one: "
            f"{row['pull_ratio']:.3g} to 1 for a half-trained network on organs of 8000 and 40 voxels "
            f"({first['loss']}: {first['pull_ratio']:.3g})."
            if unequal
            else f"That is less than {UNEQUAL}: the first of the losses that stay is taken."
        ),
        f"Where outlines differ from case to case, what it settles on has {row['volume_ratio']:.2f} times the true "
        "volume.",
        "These numbers are measured on a known scene (hnlib.losses.audit), not in trainings on these scans.",
    ]
    if partial:
        reasons.append(
            "Some organs are not outlined everywhere. A study of hnlib leaves what is unknown out of the loss "
            "by itself; in code of your own give the loss the organs that are outlined (`labelled`)."
        )
    return LossAdvice(str(row["loss"]), tuple(reasons), found)
