"""Chapter 00: every idea of the book beside what it was compared with, in one figure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from hnlib.chapters.controlled import Contrast, contrasts, controlled_facts, load_controlled, lost_view, switches
from hnlib.chapters.page import TOO_WEAK, Facts, begin, told
from hnlib.chapters.prediction import correlations, load_draws, prediction_facts
from hnlib.experiment_files import experiment_title
from hnlib.experiments import load_profile, read_tables
from hnlib.files import write_atomically
from hnlib.plotting import contrasts as contrasts_figure
from hnlib.stats import COLUMNS


class Idea(NamedTuple):
    """What somebody proposes, the experiment that has it, the one that lacks it, and the data where it is tried."""

    name: str
    source: str
    words: str
    experiment: str
    baseline: str
    dataset: str = "openkbp"


_ROWS = (
    ("patch", "Tappeiner", "small patch for large", "small_nnu_dice_ce", "large_nnu_dice_ce"),
    ("patch-step", "Tappeiner", "small patch, equal voxels a step", "small_batch8", "large_nnu_dice_ce"),
    ("patch-all", "Tappeiner", "small patch, equal voxels in all", "small_nnu_dice_ce", "large_quarter_steps"),
    ("loss-large", "Tappeiner", "ca-Dice, large patch", "large_ca_dice_ce", "large_nnu_dice_ce"),
    ("loss-small", "Tappeiner", "ca-Dice, small patch", "small_ca_dice_ce", "small_nnu_dice_ce"),
    ("topk", "Hosseini", "TopK Dice for Dice", "small_topk_dice_ce", "small_dice_ce"),
    ("topk-ce", "Hosseini", "TopK cross-entropy for cross-entropy", "small_topk_ce_dice", "small_dice_ce"),
    ("focal", "Gao", "focal loss for cross-entropy", "small_focal_dice", "small_dice_ce"),
    ("focusnet", "Gao", "FocusNet for S-Net alone", "focusnet", "snet"),
    ("views", "Pu", "three 2D views, weights learned, for one", "coarse_fused_weights", "coarse_axial"),
    ("fine", "Pu", "3D networks after the 2D views", "coarse_to_fine", "coarse_fused_weights"),
    ("coarse-to-fine", "Pu", "coarse to fine for one 3D network", "coarse_to_fine", "rival_dynunet"),
    ("squared", "here", "squared Dice for linear", "small_dice_ce", "small_linear_dice_ce"),
    ("class-draw", "here", "centres drawn by class, not voxel", "large_class_draw", "large_voxel_draw"),
    ("planned-draw", "here", "planned draw for voxel-uniform", "large_planned_draw", "large_voxel_draw"),
    ("plan", "here", "planned patch and draw for nnU-Net's", "planned_openkbp", "nnunet_openkbp"),
    ("plan-phantom", "here", "planned patch and draw for nnU-Net's", "planned_phantom", "nnunet_phantom", "phantom"),
)
#: Rows that are asked of the phantom, too, by the same experiments.
_ON_BOTH = ("patch", "loss-large", "loss-small", "focusnet", "fine", "coarse-to-fine", "class-draw")
IDEAS = tuple(
    idea._replace(name=name, dataset=dataset)
    for idea in (Idea(*row) for row in _ROWS)
    for name, dataset in ((idea.name, idea.dataset), (f"{idea.name}-phantom", "phantom"))[: 1 + (idea.name in _ON_BOTH)]
)


def load_found(folders: Mapping[str, Path | str], ideas: tuple[Idea, ...] = IDEAS) -> pd.DataFrame:
    """Return what each idea changes in the mean test DSC, with intervals over patients and over seeds.

    Parameters
    ----------
    folders
        Data set to the folder of its tables; one that is not named has no run.
    ideas
        What is compared.

    Returns
    -------
    pandas.DataFrame
        As of `hnlib.chapters.controlled.contrasts`, with ``name``, ``dataset`` and ``profile``: of the profiles that
        ran both sides the one with most seeds, and of these the one of most steps. An idea that no profile ran has NaN,
        and so has one whose other side has learnt next to nothing: whatever learns would be far ahead of it.
    """
    rows = []
    for idea, found, profile in _runs_of(folders, ideas):
        weak = _has_learnt_nothing(found, idea.baseline)
        row = contrasts(found.iloc[:0] if weak else found, wanted=[_contrast(idea)])
        if weak:
            row = row.assign(lacking=f"{experiment_title(idea.baseline)} that has learnt something")
        rows.append(row.assign(name=idea.name, dataset=idea.dataset, profile=profile))
    return pd.concat(rows, ignore_index=True)


def lost_table(folders: Mapping[str, Path | str], ideas: tuple[Idea, ...] = IDEAS) -> pd.DataFrame:
    """Return the ideas of which a run lost an organ, with and without it, as `hnlib.chapters.controlled.lost_view`."""
    learnt = ((i, rows) for i, rows, _ in _runs_of(folders, ideas) if not _has_learnt_nothing(rows, i.baseline))
    return lost_view((rows, [_contrast(idea)]) for idea, rows in learnt)


def _contrast(idea: Idea) -> Contrast:
    where = "" if idea.dataset == "openkbp" else f" ({idea.dataset})"
    return Contrast(idea.source, f"{idea.words}{where}", idea.experiment, idea.baseline)


def _runs_of(folders: Mapping[str, Path | str], ideas: tuple[Idea, ...]) -> Iterator[tuple[Idea, pd.DataFrame, str]]:
    """Yield each idea with the metrics of its two sides and their profile."""
    metrics = {name: read_tables(folder)["metrics"] for name, folder in folders.items()}
    for idea in ideas:
        found = metrics.get(idea.dataset, pd.DataFrame(columns=list(COLUMNS)))
        profile = _most_seeds(found, idea)
        sides = (found["profile"] == profile) & found["experiment"].isin([idea.experiment, idea.baseline])
        yield idea, found[sides], profile


def _has_learnt_nothing(metrics: pd.DataFrame, experiment: str) -> bool:
    """Return whether an experiment was run and its mean test DSC is not that of outlines."""
    rows = metrics[(metrics["experiment"] == experiment) & (metrics["metric"] == "dsc") & (metrics["split"] == "test")]
    return bool(len(rows)) and float(rows.groupby("organ")["value"].mean().mean()) < TOO_WEAK


def _most_seeds(metrics: pd.DataFrame, idea: Idea) -> str:
    """Return the profile in which both sides have most seeds, of equals the longest; '' where none has both."""
    sides = metrics[metrics["experiment"].isin([idea.experiment, idea.baseline])]
    seeds = sides.groupby(["profile", "experiment"])["seed"].nunique().unstack()
    if seeds.shape[1] < 2 or seeds.dropna().empty:
        return ""
    fewer = seeds.dropna().min(axis=1)
    most = [str(name) for name in fewer[fewer == fewer.max()].index]
    return max(most, key=lambda name: load_profile(name).training.steps)


def found_facts(table: pd.DataFrame) -> Facts:
    """Return the phrases of the chapter: how many ideas were tried, and those that help or harm beyond doubt."""
    tried = table[table["lacking"] == ""]
    limits = tried[["low", "high", "seeds_low", "seeds_high"]]
    up, down = (limits[["low", "seeds_low"]] > 0).all(axis=1), (limits[["high", "seeds_high"]] < 0).all(axis=1)
    return {
        "ideas": str(len(table)),
        "tried": str(len(tried)),
        "helps": _named(tried[up]),
        "harms": _named(tried[down]),
        "open": str(int((~up & ~down).sum())),
        "one-seed": str(int(tried["seeds_low"].isna().sum())),
        **{str(row["name"]): _value(row) for _, row in table.iterrows()},
    }


def order_facts(folder: Path | str, profile: str) -> Facts:
    """Return the phrases of chapter 07 on whether a measure orders the patches and draws of a profile."""
    study = load_draws(folder, profile)
    return prediction_facts(study, *(correlations(study, metric) for metric in ("dsc", "missed")))


def short_facts(folder: Path | str) -> Facts:
    """Return the phrases of chapter 10 on what is left of the patch."""
    study, metrics, _ = load_controlled(folder)
    return controlled_facts(contrasts(metrics), switches(metrics), study)


def draw_found(published: Path) -> Path:
    """Draw the figure of the chapter into the published folder, for the README, and return its path.

    The file says in its description which numbers it shows.
    """
    begin()
    names = sorted({idea.dataset for idea in IDEAS})
    table = load_found({name: published / name for name in names if (published / name).is_dir()})
    contrasts_figure(table, "change of the mean test DSC")
    figure, path, text = plt.gcf(), published / "found.png", json.dumps(found_facts(table))
    write_atomically(path, lambda part: figure.savefig(part, format="png", dpi=150, metadata={"Description": text}))
    plt.close(figure)
    return path


def _named(rows: pd.DataFrame) -> str:
    return "; ".join(f"{row['question']}, {row['value']:+z.3f}" for _, row in rows.iterrows()) or "none"


def _value(row: pd.Series) -> str:
    return "waits for runs" if np.isnan(row["value"]) else told(row.to_dict())
