"""Rules that recompute a claim from the tables that its paper prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import pandas as pd

from hnlib.claims.finding import NOT_TESTABLE, Finding, own_numbers
from hnlib.stats import lower_is_better, printed_table

AVERAGES = ("average", "small_average")
PAPER_NAMES = {
    "gao2019": "Gao 2019",
    "hosseini2024": "Hosseini 2024",
    "pu2020": "Pu 2020",
    "tappeiner2022": "Tappeiner 2022",
}
#: Where the printed tables of a paper stand beside ours.
PAPER_CHAPTERS = {
    "gao2019": "16_focusnet",
    "hosseini2024": "14_losses",
    "pu2020": "17_coarse_to_fine",
    "tappeiner2022": "09_evaluation",
}


def wide(paper: str, table: str, metric: str, column: str = "mean") -> pd.DataFrame:
    """Return a printed table: organs by methods, average rows included where they are printed."""
    rows = printed_table(paper)
    rows = rows[(rows["table"] == table) & (rows["metric"] == metric)]
    if rows.empty:
        raise ValueError(f"{paper} has no table {table} of {metric}")
    return rows.pivot(index="organ", columns="method", values=column)


def organ_rows(paper: str, table: str, metric: str, column: str = "mean") -> pd.DataFrame:
    """Return a printed table without its average rows."""
    found = wide(paper, table, metric, column)
    return found[~found.index.isin(AVERAGES)]


def _one_row(paper: str, table: str, metric: str, organ: str = "average") -> dict[str, float]:
    """Return one printed row, method to value, without the methods that have none."""
    column = wide(paper, table, metric).T[organ].dropna()
    return {str(name): float(value) for name, value in column.items()}


def _where(paper: str, *tables: str) -> str:
    return f"{PAPER_NAMES[paper]}, Table {' and '.join(tables)}"


def _own(holds: bool, found: str, paper: str, *tables: str) -> Finding:
    """Return the finding of a rule on printed tables, with the chapter that shows them."""
    return own_numbers(holds, found, row=_where(paper, *tables), chapter=PAPER_CHAPTERS[paper])


def change(
    metric: str, method: str, baseline: str, claimed: float, *, unit: str = "points", digits: int = 0
) -> Finding:
    """Ask whether the mean over organs of Tappeiner's Table 1 changes by what is claimed.

    Parameters
    ----------
    metric, method, baseline
        Rows to compare: ``method`` minus ``baseline``.
    claimed, digits
        The figure of the paper and the decimals to which it is given.
    unit
        ``points`` (of 100), ``mm``, or ``percent`` of the baseline.

    Notes
    -----
    Rows are rounded to 0.01, so a mean over seven of them is known to an SD of 0.01 / sqrt(12 x 7) and a
    difference to sqrt(2) of that. The claim holds where the claimed figure, itself rounded, meets the estimate
    within two of these SDs.
    """
    rows = organ_rows("tappeiner2022", "1", metric)
    first, second = float(rows[method].mean()), float(rows[baseline].mean())
    factor = {"points": 100.0, "mm": 1.0, "percent": 100.0 / second}[unit]
    value, error = (first - second) * factor, 2 * math.sqrt(2) * 0.01 / math.sqrt(12 * len(rows)) * factor
    half = 0.5 * 10.0**-digits
    holds = value - error <= claimed + half and claimed - half <= value + error
    word = {"points": " points", "mm": " mm", "percent": " %"}[unit]
    places = max(digits + 1, 2 if unit == "mm" else 1)
    relative = "" if unit == "percent" else f", {100 * (first / second - 1):+z.1f} % relative"
    text = f"{value:+z.{places}f}{word}{relative} (rounding of the rows: ±{error:.{places}f})"
    return _own(holds, text, "tappeiner2022", "1")


def without_miss(cases: int = 15, penalty: float = 1000.0) -> Finding:
    """Ask whether one missed chiasm, coded as 1000 mm, alone keeps ca-Dice from a better mean 95HD."""
    rows = printed_table("tappeiner2022").query("metric == 'hd95_plastimatch_mm' and organ not in @AVERAGES")
    means = rows.pivot(index="organ", columns="method", values="mean")
    mean = float(means["large_ca_dice_ce"]["optic_chiasm"])
    printed_sd = float(rows.query("organ == 'optic_chiasm' and method == 'large_ca_dice_ce'")["sd"].item())
    others = (cases * mean - penalty) / (cases - 1)
    implied_sd = (penalty - others) / math.sqrt(cases)  # one value apart from cases - 1 equal ones, ddof 1
    means.loc["optic_chiasm", "large_ca_dice_ce"] = others
    corrected, baseline = float(means["large_ca_dice_ce"].mean()), float(means["large_nnu_dice_ce"].mean())
    text = (
        f"{corrected:.2f} mm without it, baseline {baseline:.2f} mm ({100 * (corrected / baseline - 1):+z.0f} %); "
        f"the other {cases - 1} chiasms average {others:.2f} mm, and one miss gives an SD of {implied_sd:.1f}, "
        f"printed {printed_sd}"
    )
    holds = abs(implied_sd - printed_sd) < 1 and corrected < baseline
    return _own(holds, text, "tappeiner2022", "1")


def every_cell(method: str, baseline: str, metrics: Sequence[str], *, but: Mapping[str, str]) -> Finding:
    """Ask whether a method is better in every row of Tappeiner's Table 1, but for the cells named (organ: metric)."""
    better, same, worse = 0, 0, []
    for metric in metrics:
        rows = organ_rows("tappeiner2022", "1", metric)
        for organ, row in rows.iterrows():
            if but.get(str(organ)) == metric:
                continue
            gain = (row[method] - row[baseline]) * (-1 if lower_is_better(metric) else 1)
            better, same = better + (gain > 1e-9), same + (abs(gain) <= 1e-9)
            if gain < -1e-9:
                worse.append(f"{organ} {metric.split('_')[0]} {row[baseline]:g} to {row[method]:g}")
    text = f"{better} better, {same} equal, {len(worse)} worse" + (f": {'; '.join(worse)}" if worse else "")
    return _own(not worse and not same, text, "tappeiner2022", "1")


def average(paper: str, table: str, metric: str, method: str, *, unit: float = 0.1) -> Finding:
    """Ask whether a printed average is the mean of its organ rows, which are rounded to ``unit``."""
    column = wide(paper, table, metric)[method]
    computed, printed = float(column[~column.index.isin(AVERAGES)].mean()), float(column["average"])
    text = f"the {len(column) - 1} organs average {computed:.1f}, printed {printed:g}"
    return _own(abs(computed - printed) <= unit, text, paper, table)


def best(
    paper: str, tables: Mapping[str, str], method: str, *, others: Sequence[str] = (), organ: str = "average"
) -> Finding:
    """Ask whether a method is ahead of others in one row of each table (table to metric)."""
    holds, words = True, []
    for table, metrics in tables.items():
        for metric in metrics.split():
            row = _one_row(paper, table, metric, organ)
            rivals = [value for name, value in row.items() if (name in others if others else name != method)]
            lower = lower_is_better(metric)
            nearest = min(rivals) if lower else max(rivals)
            holds &= bool(row[method] < nearest if lower else row[method] > nearest)
            words.append(f"{row[method]:g} against {nearest:g}")
    return _own(holds, "; ".join(words), paper, *tables)


def best_mean(paper: str, table: str, metric: str, method: str, *, organs: Sequence[str] = ()) -> Finding:
    """Ask whether a method has the best mean over organ rows, all or those named, of a table without averages."""
    rows = organ_rows(paper, table, metric)
    means = (rows.loc[list(organs)] if organs else rows).mean()
    nearest = float(means.drop(method).min() if lower_is_better(metric) else means.drop(method).max())
    holds = means[method] < nearest if lower_is_better(metric) else means[method] > nearest
    return _own(bool(holds), f"{means[method]:.1f} against {nearest:.1f}", paper, table)


def leads(
    paper: str,
    tables: Mapping[str, str],
    method: str,
    *,
    claimed: int | str,
    column: str = "mean",
    together: bool = True,
    organs: Sequence[str] = (),
    others: Sequence[str] = (),
) -> Finding:
    """Count the organs in which a method is strictly best, or its spread strictly least.

    Parameters
    ----------
    tables
        Number of a table to its metric.
    claimed
        A number of organs, ``most`` (more than half) or ``all``.
    column
        ``mean``, or ``sd``, which is best when least.
    together
        True: an organ counts when it leads in every table; False: each table is counted and has to hold.
    organs, others
        Count among these organs only, against these methods only.
    """
    ahead = {}
    for table, metric in tables.items():
        rows = organ_rows(paper, table, metric, column)
        rows = rows.loc[list(organs)] if organs else rows
        rivals = rows[list(others)] if others else rows.drop(columns=method)
        least = column == "sd" or lower_is_better(metric)
        ahead[table] = rows[method] < rivals.min(axis=1) if least else rows[method] > rivals.max(axis=1)
    counts = {" and ".join(ahead): pd.concat(ahead, axis=1).all(axis=1)} if together else ahead
    holds = all(_as_claimed(int(found.sum()), len(found), claimed) for found in counts.values())
    words = [
        f"{int(found.sum())} of {len(found)} (Table {name}: {', '.join(found.index[found]) or 'none'})"
        for name, found in counts.items()
    ]
    return _own(holds, "; ".join(words), paper, *tables)


def _as_claimed(count: int, number: int, claimed: int | str) -> bool:
    return {"most": 2 * count > number, "all": count == number}.get(str(claimed), count == claimed)


def rising(paper: str, table: str, metric: str, methods: Sequence[str], *, organ: str = "average") -> Finding:
    """Ask whether a row rises from each method to the next."""
    values = [_one_row(paper, table, metric, organ)[method] for method in methods]
    text = " to ".join(f"{value:g}" for value in values)
    rises = all(first < second for first, second in pairwise(values))
    return _own(rises, text, paper, table)


def larger_gain(
    paper: str, table: str, metric: str, methods: Sequence[str], baseline: str, organs: Sequence[str]
) -> Finding:
    """Ask whether methods gain on a baseline in the organs named, and more there than in the other organs."""
    rows, holds, words = organ_rows(paper, table, metric), True, []
    for method in methods:
        gain = (rows[method] - rows[baseline]) * (-1 if lower_is_better(metric) else 1)
        inside, outside = float(gain[list(organs)].mean()), float(gain.drop(list(organs)).mean())
        holds &= inside > max(outside, 0)
        words.append(f"{method}: {inside:+z.1f} there, {outside:+z.1f} elsewhere")
    return _own(holds, "; ".join(words), paper, table)


def not_worse(paper: str, table: str, metric: str, method: str, baseline: str, organs: Sequence[str]) -> Finding:
    """Ask whether a method keeps the mean of a baseline in the organs named; count those in which it does not."""
    rows = organ_rows(paper, table, metric).loc[list(organs)]
    gain = (rows[method] - rows[baseline]) * (-1 if lower_is_better(metric) else 1)
    worse = list(gain.index[gain < 0])
    text = f"{gain.mean():+z.1f} on average; worse in {len(worse)} of {len(gain)}" + (
        f" ({', '.join(worse)})" if worse else ""
    )
    return _own(bool(gain.mean() >= 0), text, paper, table)


def little_gain(
    paper: str, tables: Mapping[str, str], methods: Sequence[str], baseline: str, *, limit: float
) -> Finding:
    """Ask whether methods differ from a baseline by no more than a limit in the average rows."""
    gains = [
        row[method] - row[baseline]
        for table, metric in tables.items()
        for row in [_one_row(paper, table, metric)]
        for method in methods
    ]
    text = f"{min(gains):+z.2f} to {max(gains):+z.2f} points against {baseline}"
    return _own(max(map(abs, gains)) <= limit, text, paper, *tables)


def group_gap(organs: Sequence[str], against: Sequence[str], *, least: float) -> Finding:
    """Ask whether Tappeiner's Table 1 has a group of organs below another by some DSC in every configuration."""
    rows = organ_rows("tappeiner2022", "1", "dsc")
    gaps = rows.loc[list(against)].mean() - rows.loc[list(organs)].mean()
    text = f"DSC lower by {gaps.min():.2f} to {gaps.max():.2f}"
    return _own(bool(gaps.min() >= least), text, "tappeiner2022", "1")


def with_less_data(method: str, rival: str, cases: int, rival_cases: int, claimed_percent: float) -> Finding:
    """Ask whether Gao's method is within 0.1 points of a rival with the claimed share of its training data."""
    row = _one_row("gao2019", "3", "dsc_percent")
    share = 100 * cases / rival_cases
    holds = abs(row[method] - row[rival]) <= 0.1 and abs(share - claimed_percent) <= 0.5
    text = f"{row[method]:g} against {row[rival]:g} with {share:.1f} % of the scans"
    return _own(bool(holds), text, "gao2019", "3")


def not_testable(reason: str) -> Finding:
    """Say why neither the papers' numbers nor the data at hand can decide."""
    return Finding(NOT_TESTABLE, reason)


def loss_gains_more_at_small() -> Finding:
    """Ask whether in Tappeiner's Table 1 ca-Dice gains more DSC at the small patch than at the large one."""
    means = organ_rows("tappeiner2022", "1", "dsc").mean()
    gains = {
        size: 100 * float(means[f"{size}_ca_dice_ce"] - means[f"{size}_nnu_dice_ce"]) for size in ("small", "large")
    }
    error = 2 * 2 / math.sqrt(12 * 7)  # two SDs of a sum of four means over seven rows rounded to 1 point
    small, large = gains["small"], gains["large"]
    text = f"{small:+z.1f} points at the small, {large:+z.1f} at the large patch (rounding: ±{error:.1f})"
    return _own(small - large > -error, text, "tappeiner2022", "1")
