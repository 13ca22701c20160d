"""Chapter 15: when each organ is learnt, by loss, seed, optimiser and smoothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from hnlib.chapters.compared import coverage_phrase
from hnlib.chapters.page import DASH, Facts, inside, listed, title
from hnlib.experiment_files import experiment_title

#: An organ counts as switched on once its validation DSC exceeds this.
SWITCHED_ON = 0.3
#: Pairs that differ in the denominator alone, linear first.
PAIRS = (
    ("equal start, AdamW", "ignition_linear", "ignition_squared"),
    ("equal start, smoothing 1", "ignition_linear_smooth", "ignition_squared_smooth"),
    ("equal start, SGD", "ignition_linear_sgd", "ignition_squared_sgd"),
    ("start at class frequencies", "small_linear_dice_ce", "small_dice_ce"),
)
_COUNTS = ("squared first", "at the same check", "linear first", "neither")
CURVES = ("linear Dice", "squared Dice", "CE")


def switch_on_steps(history: pd.DataFrame, threshold: float = SWITCHED_ON) -> pd.DataFrame:
    """Return the first check above the threshold: ``experiment``, ``seed``, ``organ``, ``step`` (NaN: never)."""
    rows = history.dropna(subset=["organ", "validation_dsc"])
    keys = ["experiment", "seed", "organ"]
    first = rows[rows["validation_dsc"] > threshold].groupby(keys, sort=False)["step"].min()
    return first.reindex(pd.MultiIndex.from_frame(rows[keys].drop_duplicates())).rename("step").reset_index()


def switch_on_table(history: pd.DataFrame) -> pd.DataFrame:
    """Return, by experiment and organ, the steps over seeds at which the organ was switched on."""
    found = switch_on_steps(history)
    text = found.groupby(["experiment", "organ"], sort=False)["step"].agg(_steps)
    wide = text.unstack("organ")[list(found["organ"].unique())].reindex(found["experiment"].unique())
    wide["seeds"] = found.groupby("experiment")["seed"].nunique()
    wide["steps"] = history.groupby("experiment")["step"].max()
    organs = {str(name): title(str(name)) for name in found["organ"].unique()}
    return wide.fillna(DASH).rename(index=experiment_title, columns=organs).rename_axis(index=None, columns=None)


def _steps(steps: pd.Series[float]) -> str:
    """Write the steps of several seeds in a cell: a range, and how many never came."""
    came = steps.dropna()
    if came.empty:
        return "never"
    low, high = int(came.min()), int(came.max())
    text = str(low) if low == high else f"{low}–{high}"
    return text if len(came) == len(steps) else f"{text}, {len(steps) - len(came)} never"


def pair_table(history: pd.DataFrame) -> pd.DataFrame:
    """Return, for each pair of linear and squared Dice, which switches organs on first, over organs and seeds."""
    steps = switch_on_steps(history).set_index(["experiment", "seed", "organ"])["step"].fillna(np.inf)
    known = set(history["experiment"])
    rows = []
    for name, linear, squared in PAIRS:
        counts = {**dict.fromkeys(_COUNTS, DASH), "seeds": "0"}
        if {linear, squared} <= known:
            both = pd.concat({"linear": steps[linear], "squared": steps[squared]}, axis=1).dropna()
            counts = {
                "squared first": str(int((both["squared"] < both["linear"]).sum())),
                "at the same check": str(int(((both["squared"] == both["linear"]) & (both["linear"] < np.inf)).sum())),
                "linear first": str(int((both["squared"] > both["linear"]).sum())),
                "neither": str(int((both.min(axis=1) == np.inf).sum())),
                "seeds": str(both.index.unique("seed").size),
            }
        rows.append({"pair": name, **counts})
    return pd.DataFrame(rows).set_index("pair")


def budget_table(history: pd.DataFrame) -> pd.DataFrame:
    """Return the mean validation DSC over organs and seeds at each check, and the rank correlation with the last.

    Only checks that all experiments have are shown. The correlation is over the experiments that start at class
    frequencies: those of `PAIRS` with an equal start switch on late, and would decide it.
    """
    rows = history.dropna(subset=["organ", "validation_dsc"])
    means = rows.pivot_table(index="experiment", columns="step", values="validation_dsc", sort=False).dropna(axis=1)
    means = means.reindex(rows["experiment"].unique())[sorted(means.columns)]
    table = means.map(lambda value: f"{value:.3f}").rename(index=experiment_title)
    late = {name for words, *pair in PAIRS if words.startswith("equal start") for name in pair}
    ranked = means[~means.index.isin(late)]
    if len(ranked) > 2:
        ranks = [ranked[step].corr(ranked.iloc[:, -1], method="spearman") for step in ranked.columns]
        few = "" if len(ranked) == len(means) else f", of the {len(ranked)} that start at class frequencies"
        table.loc[f"rank correlation with the last check{few}"] = [DASH if np.isnan(r) else f"{r:.2f}" for r in ranks]
    return table.rename_axis(index=None, columns="step")


# The derivation


def organ_pull(loss: str, p: float | np.ndarray, fraction: float, num_organs: int) -> np.ndarray:
    r"""Return the pull of a loss at an organ to which every voxel of a patch gives the same probability.

    Parameters
    ----------
    loss
        One of `CURVES`.
    p
        That probability.
    fraction
        Share f of the organ in the patch.
    num_organs
        F, the organs over which Dice is averaged.

    Notes
    -----
    Pull is -sum of dL/dz over the organ's voxels, z the organ's logit, by its own term alone. With the organ's share
    f = n/V and D its coefficient: CE f (1 - p); linear Dice, S = p + f, f p (1 - p) (2 - D) / (F S); squared Dice,
    S = p^2 + f, 2 f p (1 - p) (1 - D p) / (F S).
    """
    p = np.asarray(p, dtype=np.float64)
    if loss == "CE":
        return fraction * (1 - p)
    power = {"linear Dice": 1, "squared Dice": 2}[loss]
    total = p**power + fraction
    coefficient = 2 * p * fraction / total
    slope = (2 - coefficient) if power == 1 else 2 * (1 - coefficient * p)
    return np.asarray(fraction * p * (1 - p) * slope / (num_organs * total))


def organ_fractions(dataset: pd.DataFrame, patch: Sequence[int]) -> pd.Series[float]:
    """Return the median voxels of each organ over those of a patch, the largest first."""
    voxels = dataset.groupby("organ")["voxels"].median() / float(np.prod(patch))
    return voxels.sort_values(ascending=False)


def pull_tables(fractions: pd.Series[float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the pulls at the largest and the smallest organ over p, and where trainings start."""
    count, rows, starts = len(fractions), [], []
    for name in (fractions.index[0], fractions.index[-1]):
        share = float(fractions[name])
        p = np.geomspace(share / 10, 0.9, 121)
        for loss in CURVES:
            pulls = organ_pull(loss, p, share, count)
            rows.append(pd.DataFrame({"organ": name, "loss": loss, "probability": p, "pull": pulls}))
        starts.append({"organ": name, "name": "its share", "probability": share})
        starts.append({"organ": name, "name": "equal", "probability": 1 / (count + 1)})
    return pd.concat(rows, ignore_index=True), pd.DataFrame(starts)


def pull_facts(fractions: pd.Series[float]) -> Facts:
    """Return the phrases on the derivation."""
    count, small, large = len(fractions), float(fractions.iloc[-1]), float(fractions.iloc[0])
    p = np.geomspace(small / 100, 0.99, 2001)
    peaks = {loss: float(organ_pull(loss, p, small, count).max()) for loss in CURVES}
    equal = 1 / (count + 1)
    start = {loss: float(organ_pull(loss, equal, small, count)) for loss in CURVES}
    top = {loss: float(organ_pull(loss, p, large, count).max()) for loss in CURVES}
    return {
        "smallest": inside(str(fractions.index[-1])),
        "size-ratio": f"{large / small:.1f}",
        "peak-ratio": f"{peaks['squared Dice'] / peaks['linear Dice']:.1f}",
        "start-ratio": f"{start['squared Dice'] / start['linear Dice']:.1f}",
        "linear-even": f"{top['linear Dice'] / peaks['linear Dice']:.1f}",
        "squared-even": f"{top['squared Dice'] / peaks['squared Dice']:.1f}",
    }


def ignition_facts(history: pd.DataFrame, runs: pd.DataFrame, pairs: pd.DataFrame) -> Facts:
    """Return the phrases on what was seen."""
    steps = switch_on_steps(history)
    never = int(steps["step"].isna().sum())
    known = pairs[pairs["squared first"] != DASH]
    if known.empty:
        verdict = "No pair of networks that differ in the denominator alone has been trained yet."
    else:
        counts = known[list(_COUNTS)].astype(int)
        first, same, last, neither = counts.sum()
        leads = [
            f"{name} {row['squared first']} to {row['linear first']}"
            for name, row in counts.iterrows()
            if row["neither"] < row.sum()
        ]
        verdict = (
            f"In {first} of {counts.to_numpy().sum()} pairs of organ and run the squared denominator switched the "
            f"organ on at an earlier check than the linear one, in {same} at the same, in {last} at a later one, and "
            f"in {neither} neither did; earlier to later by pair: {'; '.join(leads) or 'none'}."
        )
    missing = [str(name) for name in pairs.index[pairs["squared first"] == DASH]]
    return {
        "coverage": coverage_phrase(runs, "ignition", "losses"),
        "verdict": verdict,
        "missing-pairs": f"Not compared yet: {listed(missing)}." if missing else "All pairs have been trained.",
        "switched": f"{len(steps) - never} of {len(steps)}",
        "order-seen": _order(steps),
        "threshold": f"{SWITCHED_ON:g}",
        "seeds": str(runs["seed"].nunique()),
    }


def _order(steps: pd.DataFrame) -> str:
    """Say which organs are switched on first and last in the median run, and which in most runs not at all."""
    order = _median_steps(steps).sort_values(kind="stable")
    seen, never = order[order < np.inf], [inside(str(name)) for name in order.index[order == np.inf]]
    if seen.empty:
        return "no organ in most of its runs"
    ends = [listed([inside(str(name)) for name in seen.index[seen == end]]) for end in (seen.iloc[0], seen.iloc[-1])]
    text = f"{ends[0]} first and {ends[1]} last"
    if seen.nunique() == 1:
        text = f"{ends[0] if never else 'all organs'} at about the same check"
    return text + (f"; in most runs not by the last check: {listed(never)}" if never else "")


def _median_steps(steps: pd.DataFrame) -> pd.Series:
    """Return by organ the check at which its median run switches it on; infinite where most runs never do."""
    late = steps.assign(step=steps["step"].fillna(np.inf))
    return late.groupby("organ")["step"].median()


def order_by_size(history: pd.DataFrame, fractions: Mapping[str, float]) -> str:
    """Say by rank correlation over organs how the order of switching on agrees with that of size; never is last."""
    medians = _median_steps(switch_on_steps(history))
    sizes = pd.Series({name: float(fractions[name]) for name in medians.index if name in fractions})
    if len(sizes) < 3 or medians[sizes.index].nunique() < 2:
        return "The organs do not differ in when they are switched on at these checks."
    value = float(medians[sizes.index].rank().corr(sizes.rank()))
    return f"Rank correlation of an organ's size with the step at which its median run switches it on: {value:.2f}."
