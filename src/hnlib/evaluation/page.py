"""One page of HTML that needs no other file: what was found, in words, tables and pictures."""

from __future__ import annotations

import html
from functools import partial

import numpy as np
import pandas as pd

from hnlib import html_page
from hnlib.evaluation.measure import COMPARED, Comparison, Evaluation
from hnlib.metrics import METRICS
from hnlib.organs import organ
from hnlib.plotting import paired_differences, results_by_organ
from hnlib.plotting.style import METRIC_LABELS
from hnlib.stats import ALL_ORGANS, least_p, mean_over_organs, organ_summary

SHOWN = ("dsc", "surface_dsc", "hd95_mm", "assd_mm")
WORST = 10
UNDEFINED = "not defined"
_LABELS = {**METRIC_LABELS, "assd_mm": "mean distance (mm)", "hd_mm": "HD (mm)"}
_DEFINITIONS = (
    "DSC: overlap of volumes, 0 to 1. Surface DSC: share of both surfaces within the organ's tolerance of the other. "
    "HD95: larger of the two directed 95th percentiles of the distance between surfaces, weighted by area. Mean "
    "distance: over both surfaces, by area. An organ that was outlined and not predicted is missed: its DSC is 0, its "
    "distances are not defined. Intervals in brackets: 95 %, over cases (Student's t), not corrected for their number."
)


def evaluation_page(found: Evaluation, command: str = "") -> str:
    """Return the page of one folder of predictions."""
    metrics = found.metrics
    scored = metrics[metrics["metric"] != "hallucinated"]
    parts = [html_page.paragraph(_lead(found))]
    if len(scored):
        parts += [html_page.table(_by_organ(metrics)), _missed(metrics)]
        parts += [_results(metrics, metric) for metric in COMPARED]
        parts += [f"<h2>Least DSC{_how_many(scored)}</h2>", html_page.table(_worst(scored))]
    return html_page.page(
        f"Evaluation of {found.name}", parts, notes=found.notes, definitions=_DEFINITIONS, command=command
    )


def comparison_page(found: Comparison, command: str = "") -> str:
    """Return the page of two folders of predictions on the same cases."""
    first, second = found.first.name, found.second.name
    primary = found.table[found.table["primary"]].iloc[0]
    verdict = "which the test supports" if primary["shown"] else "which the test does not tell from none"
    verdict += " for these two sets of predictions"
    cases = f"{int(primary['cases'])} case{'s' if primary['cases'] > 1 else ''}"
    known = _interval(primary, "difference", "+.3f")
    lead = (
        f"Mean DSC over organs of {first} minus that of {second}: {known} on {cases}, {verdict} "
        f"(Wilcoxon, p {_p(primary['p'])})."
    )
    if least_p(int(primary["cases"])) > 0.05:
        lead += " So few cases cannot show a difference of any size."
    if primary["note"]:
        lead += f" Test: {primary['note']}."
    how = (
        f"Differences are {first} minus {second}, case by case; cases and organs that only one of them has do not "
        "enter and are counted as left out. Larger is better but for HD95. p: Wilcoxon's signed-rank test; corrected: "
        "Holm's method over all organs and metrics, behind the mean DSC over organs as the one primary endpoint. "
        "Effect: rank-biserial correlation, -1 to 1. What is shown is shown of these two sets of "
        "predictions; whether two methods differ needs several trainings of each."
    )
    figures = [
        html_page.figure(
            partial(paired_differences, found.metrics, second, metric=metric), _paired_caption(found, metric)
        )
        for metric in COMPARED
        if _has_pairs(found, metric)
    ]
    parts = [
        html_page.paragraph(lead),
        html_page.paragraph(how),
        html_page.table(_comparison_table(found.table)),
        *figures,
    ]
    return html_page.page(
        f"{first} against {second}", parts, notes=found.notes, definitions=_DEFINITIONS, command=command
    )


def _lead(found: Evaluation) -> str:
    metrics = found.metrics
    cases = metrics["case"].nunique()
    missed = metrics[metrics["metric"] == "missed"]["value"]
    means = mean_over_organs(metrics).set_index("metric")["mean"]
    text = f"{cases} case{'s' if cases != 1 else ''}"
    if "dsc" in means:
        organs = metrics.loc[metrics["metric"] == "dsc", "organ"].nunique()
        text += f": mean DSC over {organs} organ{'s' if organs != 1 else ''} {means['dsc']:.3f}"
        text += f", surface DSC {means['surface_dsc']:.3f}; {int(missed.sum())} of {len(missed)} organs missed"
    imagined = metrics[metrics["metric"] == "hallucinated"]["value"]
    if len(imagined):
        text += f"; {int(imagined.sum())} of {len(imagined)} absent organs predicted all the same"
    return text + "."


def _by_organ(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return means with intervals, an organ a row; cells are text."""
    summary = organ_summary(metrics).set_index(["organ", "metric"])
    sums = metrics.groupby(["organ", "metric"])["value"].agg(["sum", "size"])
    rows = []
    for name in dict.fromkeys(metrics["organ"]):
        row = {"organ": organ(name).title}
        for metric, title in (("missed", "missed"), ("hallucinated", "predicted though absent")):
            if metric in set(metrics["metric"]):
                count = sums.loc[(name, metric)] if (name, metric) in sums.index else None
                row[title] = "–" if count is None else f"{int(count['sum'])} of {int(count['size'])}"
        for metric in SHOWN:
            digits = ".3f" if metric in METRICS and not metric.endswith("_mm") else ".2f"
            known = (name, metric) in summary.index
            row[_LABELS[metric]] = _interval(summary.loc[(name, metric)], "mean", digits) if known else "–"
        rows.append(row)
    return pd.DataFrame(rows)


def _how_many(metrics: pd.DataFrame) -> str:
    number = int((metrics["metric"] == "dsc").sum())
    return f" ({WORST} of {number} outlines)" if number > WORST else ""


def _worst(metrics: pd.DataFrame) -> pd.DataFrame:
    wide = metrics.pivot(index=["case", "organ"], columns="metric", values="value").reset_index()
    found = wide.nsmallest(WORST, "dsc")[["case", "organ", "dsc", "surface_dsc", "hd95_mm"]]
    found["organ"] = [organ(name).title for name in found["organ"]]
    for name in ("dsc", "surface_dsc", "hd95_mm"):
        digits = ".2f" if name == "hd95_mm" else ".3f"
        found[name] = [UNDEFINED if np.isnan(value) else format(value, digits) for value in found[name]]
    return found.rename(columns=_LABELS)


def _missed(metrics: pd.DataFrame) -> str:
    rows = metrics[(metrics["metric"].isin(("missed", "hallucinated"))) & (metrics["value"] == 1)]
    if rows.empty:
        return html_page.paragraph("No organ was missed.")
    words = {"missed": "missed", "hallucinated": "predicted though absent"}
    items = "".join(
        f"<li>{html.escape(f'{row.case}: {organ(str(row.organ)).title} {words[str(row.metric)]}')}</li>"
        for row in rows.itertuples()
    )
    return f"<h2>Missed, or predicted though absent</h2><ul>{items}</ul>"


def _comparison_table(table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for record in table.to_dict("records"):
        name = str(record["organ"])
        digits = "+.2f" if str(record["metric"]).endswith("_mm") else "+.3f"
        rows.append(
            {
                "organ": name if name == ALL_ORGANS else organ(name).title,
                "metric": _LABELS.get(str(record["metric"]), record["metric"]),
                "difference": _interval(pd.Series(record), "difference", digits),
                "cases": int(record["cases"]),
                "outlines left out": int(record["left_out"]),
                "p": _p(record["p"]),
                "p corrected": _p(record["p_holm"]),
                "effect": UNDEFINED if np.isnan(record["rank_biserial"]) else f"{record['rank_biserial']:+.2f}",
                "shown": "yes" if record["shown"] else "no",
                "note": record["note"],
            }
        )
    return pd.DataFrame(rows)


def _has_pairs(found: Comparison, metric: str) -> bool:
    rows = found.table[(found.table["metric"] == metric) & (found.table["organ"] == ALL_ORGANS)]
    return bool(rows["difference"].notna().any())


def _results(metrics: pd.DataFrame, metric: str) -> str:
    if metrics.loc[metrics["metric"] == metric, "value"].notna().sum() == 0:
        return ""

    draw = partial(results_by_organ, metrics, metric=metric)
    return html_page.figure(draw, f"{_LABELS[metric]} of every case by organ, with mean and 95 % interval")


def _paired_caption(found: Comparison, metric: str) -> str:
    return (
        f"Difference in {_LABELS[metric]}, {found.first.name} minus {found.second.name}: a point is a case; bars are "
        "95 % intervals over cases"
    )


def _interval(row: pd.Series, key: str, digits: str) -> str:
    if np.isnan(row[key]):
        return UNDEFINED
    text = format(row[key], digits)
    return text if np.isnan(row["low"]) else f"{text} ({row['low']:{digits}} to {row['high']:{digits}})"


def _p(value: float) -> str:
    if np.isnan(value):
        return UNDEFINED
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
