"""The page of a report: what the scans are like, what patches show of them, what to train on."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure

from hnlib import html_page
from hnlib.cases import SPLITS, Case
from hnlib.chapters import listed, percent, title
from hnlib.chapters.data import dataset_facts, organ_table
from hnlib.imbalance import PatchPlan, sigma_of_mean, to_yaml
from hnlib.imbalance.report import CAUTION, front_lines
from hnlib.plotting import class_ratios, contour_panel, organ_volumes
from hnlib.report.measure import CHOSEN, Report

#: Most organs that a figure can hold and a reader tell apart.
MOST_DRAWN = 24
MOST_OUTLINED = 16
MOST_CURVES = 10
_DEFINITIONS = (
    "Volumes are those of the outlines, and where two overlap the later organ has the voxels; an organ that is not "
    "outlined in a case is unknown there, not absent. The share of a class is that of the voxels of a patch, its "
    "presence the probability that a patch holds one of them at "
    "least; both are exact expectations over all places of a patch, means over the cases that have the organ. Sigma: "
    "standard deviation of the mean shares over classes (Tappeiner et al. 2022). Memory is counted from the layers of "
    "the network. Research only; not a medical device."
)
_AUDIT = {
    "loss": "loss",
    "pull_ratio": "pull on a large over that on a small organ",
    "step": "cost of 0.001 voxel of an absent organ",
    "false_positive": "slope of false positives (cross-entropy: 1)",
    "volume_ratio": "volume where outlines vary, over the true one",
}


def report_page(found: Report, command: str = "") -> str:
    """Return the page, which needs no other file."""
    parts = [html_page.paragraph(text) for text in _lead(found)]
    parts += ["<h2>The scans</h2>", *_scans(found)]
    if found.plan is not None:
        parts += ["<h2>What patches show</h2>", *_patches(found, found.plan)]
    parts += ["<h2>Recommended</h2>", *_recommended(found)]
    return html_page.page(
        f"Report on {found.name}", parts, notes=found.notes, definitions=_DEFINITIONS, command=command
    )


def _lead(found: Report) -> list[str]:
    cases, organs = found.data["case"].nunique(), found.data["organ"].nunique()
    facts = dataset_facts({"dataset": "folder", "attribution": found.name}, found.data)
    text = f"{cases} case{'s' * (cases != 1)} with {organs} organ{'s' * (organs != 1)}. {found.origin}"
    if organs > 1:
        text += (
            f" The largest organ, {facts['largest']}, has {facts['size-ratio']} times the median volume of the "
            f"smallest, {facts['smallest']};"
        )
    where = "box around the body" if found.with_scans else "label map"
    text += f" all together fill {facts['foreground']} of the {where}."
    return [text, f"In short: {_short(found)}"]


def _short(found: Report) -> str:
    if found.plan is None:
        return f"no patch can be planned (see the end of the page); loss {found.loss.name}."
    size = " x ".join(map(str, found.plan.candidate.patch_size))
    return (
        f"patches of {size} voxels, {found.plan.candidate.batch_size} a step; loss {found.loss.name}; patch centres: "
        f"{_centres(found)}."
    )


def _centres(found: Report) -> str:
    if isinstance(found.centres, str):
        return "a third anywhere, the others on an organ of the scan, each equally often"
    heavy = [f"{name.replace('_', ' ')} {weight:.0%}" for name, weight in found.centres.items() if weight >= 0.005]
    return listed(heavy)


def _scans(found: Report) -> list[str]:
    data, count = found.data, found.data["case"].nunique()
    parts = []
    if found.case is not None:
        parts.append(_picture(found.case, found.volumes))
    names = list(found.volumes.index)
    some = names if len(names) <= MOST_DRAWN else [*names[: MOST_DRAWN // 2], *names[-MOST_DRAWN // 2 :]]
    which = (
        "every organ" if some == names else f"the {MOST_DRAWN // 2} smallest and the {MOST_DRAWN // 2} largest organs"
    )
    caption = f"Volume of {which} in every case, the largest on top; a point is a case of {count}"
    parts.append(html_page.figure(partial(organ_volumes, data[data["organ"].isin(some)]), caption))
    table = organ_table(data.fillna({"mean_hu": 0, "sd_hu": 0}))
    parts.append(
        html_page.table(table if found.with_scans else table.drop(columns=["mean HU", "SD within, HU"]), index=True)
    )
    counts = data.groupby("split")["case"].nunique().reindex(SPLITS).fillna(0).astype(int)
    grids = data.drop_duplicates("case")
    edges = [f"{grids[f'spacing_{axis}_mm'].min():.3g} to {grids[f'spacing_{axis}_mm'].max():.3g}" for axis in "xyz"]
    parts.append(
        html_page.paragraph(
            f"Cases by split: {', '.join(f'{n} {split}' for split, n in counts.items())}. Voxel edges along X, Y, Z, "
            f"mm: {', '.join(edges)}."
        )
    )
    return parts


def _picture(case: Case, volumes: pd.Series) -> str:
    largest = [name for name in volumes.index[::-1] if name in case.labelled][:MOST_OUTLINED]
    values = np.zeros(len(case.organs) + 1, np.uint8)
    for name in largest:
        values[1 + case.organs.index(name)] = 1 + case.organs.index(name)

    def draw() -> Figure:
        return contour_panel(case.image_hu, values[case.labels], None, spacing_mm=case.spacing_mm, organs=case.organs)

    which = "its organs" if len(largest) == len(case.labelled) else f"its {MOST_OUTLINED} largest organs"
    return html_page.figure(draw, f"Case {case.name}, that with the median labelled volume, with {which} outlined")


def _patches(found: Report, plan: PatchPlan) -> list[str]:
    rule = found.imbalance[found.imbalance["centres"] == "planned"]
    means = rule.groupby(["patch", "class"], sort=False)["ratio"].mean().unstack("class")
    rows = means.to_numpy(copy=True)
    rows[:, 0] = 1 - np.nansum(rows[:, 1:], axis=1)  # an organ's mean is over the cases that have it
    sigma = pd.DataFrame(
        {"background": [percent(b) for b in rows[:, 0]], "sigma": [f"{sigma_of_mean(row):.4f}" for row in rows]},
        index=means.index,
    )
    rarest = [name for name in found.volumes.index if name in plan.organs][:MOST_CURVES]
    curves = rule[rule["class"].isin(["background", *rarest])]
    which = "each class" if len(rarest) == len(plan.organs) else f"the background and the {len(rarest)} smallest organs"
    caption = (
        f"Expected share of {which} in the whole scan, in the recommended patch and in half of it, centres drawn as "
        "recommended; the axis is logarithmic"
    )
    presence = found.imbalance[(found.imbalance["patch"] == CHOSEN) & (found.imbalance["class"] != "background")]
    wide = presence.pivot_table(index="class", columns="centres", values="presence", sort=False)
    table = wide.map(percent).rename(index=title).rename_axis(columns=None, index="organ")
    return [
        html_page.figure(partial(class_ratios, curves), caption),
        html_page.table(sigma.rename_axis("patch", axis=0), index=True),
        html_page.paragraph(
            "Presence of every organ in the recommended patch, by the rule that draws its centre. Where it is small, "
            "look at the rule before the size: sigma follows the background and does not see the organs."
        ),
        html_page.table(table, index=True),
        "<h3>Patches on the front</h3>",
        html_page.code("\n".join(front_lines(plan))),
    ]


def _recommended(found: Report) -> list[str]:
    parts = []
    if found.plan is not None:
        parts += ["<h3>Patch and draw of its centres</h3>", html_page.items([*found.plan.reasons, CAUTION])]
        if isinstance(found.centres, str):
            parts.append(
                html_page.paragraph(f"The planned draw knows a part of the organs: take instead {_centres(found)}.")
            )
    table = found.loss.table[list(_AUDIT)].rename(columns=_AUDIT).set_index("loss").map(_short_number).T
    parts += [
        f"<h3>Loss: {found.loss.name}</h3>",
        html_page.items(found.loss.reasons),
        html_page.table(table.rename_axis(columns=None, index="audit"), index=True),
    ]
    if found.plan is not None:
        parts += [
            html_page.paragraph("All of it as an experiment, to be saved as experiments/planned.yaml:"),
            html_page.code(experiment_text(found)),
        ]
    return parts


def experiment_text(found: Report) -> str:
    """Return the recommendation as an experiment, YAML; empty where no patch could be planned."""
    if found.plan is None:
        return ""
    text = to_yaml(found.plan, loss=found.loss.name)
    if not isinstance(found.centres, str):
        return text
    head, _, _ = text.partition("title:")
    experiment = yaml.safe_load(text) | {"centres": found.centres}
    return head + yaml.safe_dump(experiment, sort_keys=False, default_flow_style=None, width=120)


def _short_number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
