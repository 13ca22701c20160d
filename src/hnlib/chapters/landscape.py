"""Chapter 07: what sigma measures, over the whole landscape of patch sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from hnlib.chapters.page import Facts, listed, percent, title
from hnlib.errors import DataError
from hnlib.imbalance import MEASURES, PAPER_RATIOS, sigma_of_mean
from hnlib.imbalance.summary import PATCH
from hnlib.plotting.landscape import QUANTITIES, RULE_TITLES, sigma_bounds

#: Rules in the order of the figures.
RULES = tuple(RULE_TITLES)


def load_landscape(folder: Path | str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the landscape of a folder of tables: measures, and shares and presence by class.

    Raises
    ------
    DataError
        When a table is missing.
    """
    try:
        names = ("landscape", "landscape_classes")
        measures, classes = (pd.read_csv(Path(folder) / f"{name}.csv") for name in names)
    except (OSError, ValueError) as fault:
        raise DataError(f"landscape in {folder}: {fault}; run the study first, or name another folder") from None
    return measures, classes


def sigma_points(measures: pd.DataFrame, classes: pd.DataFrame) -> pd.DataFrame:
    """Return sigma and the share of the background of every size, grouped by rule."""
    organs = classes[classes["class"] != "background"].groupby([*PATCH, "centres"], as_index=False)["ratio"].sum()
    points = measures.merge(organs, on=[*PATCH, "centres"])
    return pd.DataFrame(
        {
            "group": points["centres"].map(RULE_TITLES),
            "background": 1 - points["ratio"],
            "sigma": points["sigma_of_mean"],
        }
    )


def paper_points() -> pd.DataFrame:
    """Return sigma and background of the paper's four mean vectors."""
    rows = [(f"paper, {name}", shares[0], sigma_of_mean(shares)) for name, shares in PAPER_RATIOS.items()]
    return pd.DataFrame(rows, columns=["group", "background", "sigma"])


def sigma_facts(measures: pd.DataFrame, classes: pd.DataFrame) -> Facts:
    """Return the phrases on what sigma measures."""
    num_classes = classes["class"].nunique()
    points = sigma_points(measures, classes)
    low, high = sigma_bounds(points["background"].to_numpy(), num_classes)
    volume = measures[PATCH].prod(axis=1)
    best = measures.loc[measures.groupby("centres", sort=False)["sigma_of_mean"].idxmin()]
    rules = [RULE_TITLES[rule] for rule in best.loc[volume[best.index] == volume.min(), "centres"]]
    which = f"Under {len(rules)} of the {len(best)} rules its best patch is the smallest of all"
    return {
        "sizes": str(len(measures[PATCH].drop_duplicates())),
        "range": f"{points['sigma'].min():.3f} to {points['sigma'].max():.3f}",
        "width-dominated": f"{float((high - low)[points['background'] > 0.9].max()):.1g}",
        "smallest": f"{which} ({listed(rules)})" if rules else which,
    }


def rarest_facts(classes: pd.DataFrame, organ: str, patches: Mapping[str, Sequence[int]]) -> Facts:
    """Return what becomes of one organ's share of the foreground and presence from patch to patch."""
    name_of = title(organ)
    found: Facts = {"organ": name_of[0].lower() + name_of[1:]}
    for rule in ("voxel_uniform", "class_uniform"):
        for name, size in patches.items():
            rows = classes[(classes["centres"] == rule) & (classes[PATCH] == list(size)).all(axis=1)]
            own = rows[rows["class"] == organ]
            organs = rows.loc[rows["class"] != "background", "ratio"].sum()
            found[f"{rule}-{name}-share"] = percent(float(own["ratio"].sum() / organs))
            found[f"{rule}-{name}-presence"] = percent(float(own["presence"].sum()))
    return found


def rank_table(measures: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Return, for every measure, the patch it likes best and how it agrees in rank with the background's decline.

    Returns
    -------
    pandas.DataFrame
        One row a measure: best patch, rank correlation with the patch's volume (Spearman), what it is blind to.
    """
    rows = measures[measures["centres"] == rule]
    volume = rows[PATCH].prod(axis=1)
    found = []
    for name, measure in MEASURES.items():
        if name not in rows:
            continue
        good = rows[name] if measure.higher_is_better else -rows[name]
        size = rows[PATCH].to_numpy()[good.to_numpy().argmax()]
        found.append(
            {
                "measure": QUANTITIES[name],
                "likes best": " x ".join(str(int(edge)) for edge in size),
                "rank correlation with volume": f"{good.corr(volume, method='spearman'):.2f}",
                "blind to": measure.blind_to,
            }
        )
    return pd.DataFrame(found).set_index("measure")


def presence_by_rule(
    classes: pd.DataFrame, patches: Mapping[str, Sequence[int]], rules: Sequence[str] = RULES[:4]
) -> pd.DataFrame:
    """Return the presence of every organ in the named patches under each rule, in whole per cent."""
    parts = {}
    for name, size in patches.items():
        rows = classes[(classes[PATCH] == list(size)).all(axis=1) & (classes["class"] != "background")]
        wide = rows.pivot_table(index="class", columns="centres", values="presence", sort=False)
        parts.update({(name, RULE_TITLES[rule]): (100 * wide[rule]).round().astype(int) for rule in rules})
    return pd.DataFrame(parts).rename(index=title).rename_axis("organ")


def smallest_organ(classes: pd.DataFrame) -> str:
    """Return the organ with the smallest share under uniform sampling of the largest patch."""
    rows = classes[(classes["centres"] == "uniform") & (classes["class"] != "background")]
    largest = rows[PATCH].prod(axis=1)
    return str(rows[largest == largest.max()].sort_values("ratio")["class"].iloc[0])
