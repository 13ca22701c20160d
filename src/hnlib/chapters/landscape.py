"""Chapter 05: what sigma measures, over the whole landscape of patch sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hnlib.chapters.page import NBSP, Facts, inside, listed, percent, title
from hnlib.files import read_table
from hnlib.imbalance import MEASURES, PAPER_CLASSES, PAPER_RATIOS, sigma_of_mean
from hnlib.imbalance.summary import PATCH
from hnlib.plotting.landscape import QUANTITIES, RULE_TITLES, sigma_bounds
from hnlib.sampling import Triple

#: Patches of Tappeiner et al. 2022, on whose grid the landscape at full resolution is marked.
PAPER_PATCHES: Mapping[str, Triple] = {"large": (192, 160, 56), "small": (96, 80, 48)}
_DATA_TITLES = {"openkbp": "OpenKBP", "phantom": "phantom"}
#: Rules in the order of the figures.
RULES = tuple(RULE_TITLES)


def load_landscape(folder: Path | str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the landscape of a folder of tables: measures, and shares and presence by class.

    Raises
    ------
    DataError
        When a table is missing.
    """
    place, remedy = Path(folder), "run the study first, or name another folder"
    return read_table(place / "landscape.csv", remedy), read_table(place / "landscape_classes.csv", remedy)


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
    found: Facts = {"organ": inside(organ)}
    for rule in ("voxel_uniform", "class_uniform"):
        shares = foreground_share(classes, organ, rule, patches)
        for name, size in patches.items():
            own = _at(classes, rule, size).query("`class` == @organ")
            found[f"{rule}-{name}-share"] = percent(shares[name])
            found[f"{rule}-{name}-presence"] = percent(float(own["presence"].sum()))
    return found


def foreground_share(
    classes: pd.DataFrame, organ: str, rule: str, patches: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    """Return an organ's expected share of the foreground, 0..1, in each of the named patches under one rule."""
    shares = {}
    for name, size in patches.items():
        organs = _at(classes, rule, size).query("`class` != 'background'").set_index("class")["ratio"]
        shares[name] = float(organs[organ] / organs.sum())
    return shares


def _at(classes: pd.DataFrame, rule: str, size: Sequence[int]) -> pd.DataFrame:
    return classes[(classes["centres"] == rule) & (classes[PATCH] == list(size)).all(axis=1)]


def equal_steps(measures: pd.DataFrame, large: Sequence[int]) -> pd.DataFrame:
    """Return measures whose voxels of the rarest organ are for a step of as many voxels, whatever the patch.

    Parameters
    ----------
    measures
        Rows of ``landscape.csv``, where a step has two patches of any size.
    large
        Voxels of a patch along X, Y, Z: a step has as many as two of it.
    """
    patches = math.prod(large) / measures[PATCH].prod(axis=1)
    return measures.assign(rarest_voxels=measures["rarest_voxels"] * patches)


def foreground_shares(measures: pd.DataFrame, classes: pd.DataFrame, organ: str) -> pd.DataFrame:
    """Return an organ's share of the foreground at the best patch by sigma, beside all sizes, for each rule.

    Returns
    -------
    pandas.DataFrame
        Index ``rule``; ``best`` by sigma, ``share`` there, its ``place`` among ``sizes`` (1: the least share),
        ``least`` and ``most`` with the patches ``least_at`` and ``most_at``. Shares of 0..1.
    """
    organs = classes[classes["class"] != "background"]
    share = organs["ratio"] / organs.groupby([*PATCH, "centres"])["ratio"].transform("sum")
    own = organs.assign(share=share)[organs["class"] == organ]
    rows = own.merge(measures[[*PATCH, "centres", "sigma_of_mean"]], on=[*PATCH, "centres"])
    found = {}
    for rule in RULES:
        sizes = rows[rows["centres"] == rule].sort_values("share", kind="stable").reset_index(drop=True)
        if sizes.empty:
            continue
        best = int(sizes["sigma_of_mean"].to_numpy().argmin())
        text = [_size(row) for row in sizes[PATCH].to_numpy().tolist()]
        found[rule] = {"best": text[best], "share": sizes["share"][best], "place": best + 1, "sizes": len(sizes)}
        found[rule] |= {"least": sizes["share"].iloc[0], "least_at": text[0]}
        found[rule] |= {"most": sizes["share"].iloc[-1], "most_at": text[-1]}
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("rule")


def foreground_table(shares: pd.DataFrame) -> pd.DataFrame:
    """Return `foreground_shares` in words, one row a rule."""
    rows: list[dict[Any, Any]] = shares.to_dict("records")
    columns = {
        "best patch by σ": shares["best"],
        "share of the foreground there": shares["share"].map(percent),
        "place from the least": [f"{row['place']} of {row['sizes']}" for row in rows],
        "least": [f"{percent(row['least'])} ({row['least_at']})" for row in rows],
        "most": [f"{percent(row['most'])} ({row['most_at']})" for row in rows],
    }
    return pd.DataFrame(columns).rename(index=RULE_TITLES)


def paper_shares(organ: str) -> dict[str, float]:
    """Return an organ's share of the foreground in the paper's four mean vectors, by patch, the largest first."""
    k = PAPER_CLASSES.index(organ)
    return {patch: shares[k] / sum(shares[1:]) for patch, shares in PAPER_RATIOS.items()}


def worst_facts(shares: pd.DataFrame, organ: str) -> Facts:
    """Return the phrases on whether sigma's best patch is the worst for an organ's share of the foreground.

    Parameters
    ----------
    shares
        As from `foreground_shares`.
    organ
        One of `hnlib.imbalance.PAPER_CLASSES`.
    """
    vectors, rows = paper_shares(organ), dict(zip(shares.index, shares.to_dict("records"), strict=True))
    voxel = rows["voxel_uniform"]
    best = min(PAPER_RATIOS, key=lambda patch: sigma_of_mean(PAPER_RATIOS[patch]))
    titles = {at: [RULE_TITLES[str(rule)] for rule in rows.index] for at, rows in shares.groupby(shares["place"] == 1)}
    return {
        "vectors": listed([f"{percent(v)} ({patch.replace('full', 'whole scan')})" for patch, v in vectors.items()]),
        "vectors-verdict": "holds" if vectors[best] == min(vectors.values()) else "fails",
        "holds": f"holds under {listed(titles[True])}" if True in titles else "holds under no rule",
        "fails": f"fails under {listed(titles[False])}" if False in titles else "fails under none",
        "voxel-worst": f"{percent(voxel['least'])}, at {voxel['least_at']}",
        **{
            str(rule): f"{percent(row['share'])} of the foreground, {_place(row['place'], row['sizes'])}"
            for rule, row in rows.items()
        },
    }


def _place(place: int, sizes: int) -> str:
    """Return a place from the least share in words."""
    if place in (1, sizes):
        return f"the {'least' if place == 1 else 'most'} of all {sizes} sizes"
    return f"number {place} of {sizes} from the least"


def _size(edges: Sequence[float]) -> str:
    return f"{NBSP}x{NBSP}".join(str(int(edge)) for edge in edges)


def rank_table(measures: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Return, for every measure, the patch it likes best and how it agrees in rank with the patch's volume.

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
                "likes best": _size(size),
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


def ratio_sources(imbalances: Mapping[str, pd.DataFrame], centres: str = "paper") -> pd.DataFrame:
    """Return Figure 1 of the paper as a table: mean class shares by patch, the paper's vectors first, then ours.

    Parameters
    ----------
    imbalances
        Tables ``imbalance.csv`` by the name of their data set.
    centres
        Rule of the centres in them; the paper's own by default, as in its vectors.

    Returns
    -------
    pandas.DataFrame
        ``source``, ``patch``, ``class``, ``ratio``; patches from the largest to the smallest.
    """
    names = {"full": "whole scan"}
    rows = [
        ("paper, PDDCA", names.get(patch, patch), organ, share)
        for patch, shares in PAPER_RATIOS.items()
        for organ, share in zip(PAPER_CLASSES, shares, strict=True)
    ]
    for source, table in imbalances.items():
        chosen = table[table["centres"] == centres]
        volume = chosen[PATCH].prod(axis=1).groupby(chosen["patch"]).mean().sort_values(ascending=False)
        means = chosen.groupby(["patch", "class"], sort=False)["ratio"].mean()
        rows += [
            (_DATA_TITLES.get(source, source), str(patch), str(organ), float(share))
            for patch in volume.index
            for organ, share in means[patch].items()
        ]
    return pd.DataFrame(rows, columns=["source", "patch", "class", "ratio"])


def full_resolution(folder: Path | str) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Return the landscape of real outlines at full resolution, or nothing where nobody has measured it.

    Voxels of the rarest organ are for a step of two of the paper's large patches.
    """
    if not (Path(folder) / "landscape_classes.csv").exists():
        return None
    measures, classes = load_landscape(folder)
    return equal_steps(measures, PAPER_PATCHES["large"]), classes


def full_resolution_answer(full: tuple[pd.DataFrame, pd.DataFrame] | None) -> str:
    """Return what voxel-uniform centres do to the smallest real organ; nothing where it was not measured."""
    if full is None:
        return ""
    _, classes = full
    organ = smallest_organ(classes)
    shares = foreground_share(classes, organ, "voxel_uniform", PAPER_PATCHES)
    way = "a smaller part, too" if shares["small"] < shares["large"] else "a larger part"
    return (
        f"In real outlines at full resolution it makes the smallest organ, the {inside(organ)}, {way}: "
        f"{percent(shares['large'])} and {percent(shares['small'])}."
    )


def full_resolution_note(full: tuple[pd.DataFrame, pd.DataFrame] | None) -> Any:
    """Return what real small organs say at full resolution, as Markdown; nothing where it was not measured."""
    from IPython.display import Markdown

    if full is None:
        return None
    measures, classes = full
    organ = smallest_organ(classes)
    seen, facts = rarest_facts(classes, organ, PAPER_PATCHES), sigma_facts(measures, classes)
    text = (
        f"**Real small organs, at full resolution.** The outlines of Nikolov et al. 2018 "
        f"({int(classes['cases'].max())} scans, {classes['class'].nunique() - 1} organs, no CT needed) hold small "
        f"organs that OpenKBP lacks, on the scanner's own grid. Over {facts['sizes']} sizes up to one and a half of "
        f"the paper's large patch sigma runs from {facts['range']}. The smallest of them, the {seen['organ']}, is in "
        f"{seen['voxel_uniform-large-presence']} of the paper's large patches and in "
        f"{seen['voxel_uniform-small-presence']} of its small ones when centres are voxel-uniform, and in "
        f"{seen['class_uniform-large-presence']} and {seen['class_uniform-small-presence']} when all organs are drawn "
        f"alike; its share of the foreground is then {seen['class_uniform-large-share']} and "
        f"{seen['class_uniform-small-share']} in place of {seen['voxel_uniform-large-share']} and "
        f"{seen['voxel_uniform-small-share']}."
    )
    return Markdown(text)  # type: ignore[no-untyped-call]


def full_resolution_table(full: tuple[pd.DataFrame, pd.DataFrame] | None) -> pd.DataFrame | None:
    """Return the presence of every organ at full resolution in the paper's patches; nothing where it is not known."""
    return None if full is None else presence_by_rule(full[1], PAPER_PATCHES)
