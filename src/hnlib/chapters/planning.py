"""Chapter 06: a patch planned on the outlines of a data set, beside nnU-Net's choices for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from hnlib.chapters.page import Facts, inside, listed, percent, title
from hnlib.files import read_json, read_table
from hnlib.imbalance.report import some_rows
from hnlib.imbalance.summary import PATCH

_REMEDY = "run python scripts/planning_tables.py, or name another folder"
#: How far the voxels of a step may be from the plan's for both to be on one budget.
_SAME_BUDGET = 0.2
#: From this presence of the organ shown least on, every patch shows every organ, as far as the tables say.
_ALWAYS = 1 - 1e-6
#: Presences that differ by less are alike.
_ALIKE = 1e-4


class PlanTables(NamedTuple):
    """What ``scripts/planning_tables.py`` wrote about a plan.

    Attributes
    ----------
    facts
        ``plan.json``: data, grid, limits, reasons.
    candidates, choices, draws, sizes
        ``plan.csv``, ``plan_choices.csv``, ``plan_draws.csv``, ``plan_landscape.csv``.
    """

    facts: Mapping[str, Any]
    candidates: pd.DataFrame
    choices: pd.DataFrame
    draws: pd.DataFrame
    sizes: pd.DataFrame

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel edges along X, Y, Z."""
        x, y, z = self.facts["spacing_mm"]
        return float(x), float(y), float(z)

    @property
    def marks(self) -> dict[str, tuple[int, int, int]]:
        """The patches of the choices on the plan's budget of voxels, by name; one name a patch."""
        own = self.choices.iloc[0]
        found: dict[tuple[int, int, int], str] = {}
        for row in self.choices.to_dict("records"):
            if abs(row["voxels_per_step"] / own["voxels_per_step"] - 1) <= _SAME_BUDGET:
                x, y, z = (int(row[edge]) for edge in PATCH)
                found.setdefault((x, y, z), str(row["choice"]).split(",")[0])
        return {name: size for size, name in found.items()}


def load_plan(folder: Path | str) -> PlanTables:
    """Return the plan of a folder of tables.

    Raises
    ------
    DataError
        When a file is missing or damaged.
    """
    place = Path(folder)
    facts = read_json(place / "plan.json", _REMEDY)
    names = ("plan", "plan_choices", "plan_draws", "plan_landscape")
    return PlanTables(facts, *(read_table(place / f"{name}.csv", _REMEDY) for name in names))


def choices_table(plan: PlanTables) -> pd.DataFrame:
    """Return the plan and the choices of others, one column each."""
    columns = {}
    for row in plan.choices.to_dict("records"):
        columns[row["choice"]] = {
            "patch, voxels": " x ".join(str(int(row[edge])) for edge in PATCH),
            "patches a step": f"{row['batch_size']:.0f}",
            "voxels a step": f"{row['voxels_per_step']:.0f}",
            "memory, GB": f"{row['memory_gb']:.2f}",
            "levels": f"{row['levels']:.0f}",
            "context, mm": f"{row['context_mm']:.0f}",
            "of the largest organ's box": f"{row['organ_box']:.0%}",
            "draw of the centres": row["draw"],
            "organ shown least": "all alike" if row["least_presence"] >= _ALWAYS else title(row["rarest"]),
            "share of patches that show it": percent(row["least_presence"]),
            "patches a step that show it": f"{row['sightings']:.2f}",
        }
    return pd.DataFrame(columns).rename_axis("choice")


def front_table(plan: PlanTables) -> pd.DataFrame:
    """Return a dozen plans, evenly through the front, the most context first; the chosen one is marked."""
    front = some_rows(plan.candidates[plan.candidates["front"]].sort_values("context_mm", ascending=False))
    table = pd.DataFrame(
        {
            "patch": [" x ".join(str(row[edge]) for edge in PATCH) for row in front.to_dict("records")],
            "patches a step": front["batch_size"].to_numpy(),
            "memory, GB": front["memory_gb"].round(2).to_numpy(),
            "context, mm": front["context_mm"].round().astype(int).to_numpy(),
            "largest organ": [f"{value:.0%}" for value in front["organ_box"]],
            "shown least": [title(name) for name in front["rarest"]],
            "presence": [percent(value) for value in front["least_presence"]],
            "sightings": front["sightings"].round(2).to_numpy(),
            "": ["chosen" if chosen else "" for chosen in front["chosen"]],
        }
    )
    return table.set_index("patch")


def plan_reasons(plan: PlanTables) -> Any:
    """Return the reasons that the planner gives, as Markdown."""
    from IPython.display import Markdown

    return Markdown("\n".join(f"- {reason}" for reason in plan.facts["reasons"]))  # type: ignore[no-untyped-call]


def plan_facts(plan: PlanTables) -> Facts:
    """Return the phrases of the chapter on planning."""
    facts, own, rule = plan.facts, plan.choices.iloc[0], plan.choices.iloc[1]
    by_draw = {str(draw): rows.set_index("class") for draw, rows in plan.draws.groupby("draw")}
    least, need = {draw: rows["presence"] for draw, rows in by_draw.items()}, plan.candidates["memory_gb"]
    forced = by_draw["planned"]["weight"].sort_values(ascending=False)
    chosen = [f"{inside(name)} {percent(float(weight))}" for name, weight in forced.items() if weight > 0]
    unforced = [inside(name) for name, weight in forced.items() if weight == 0]
    through = f"{listed(unforced)} never get a centre of their own and are shown all the same" if unforced else ""
    return {
        "data": f"{facts['cases']} training cases of {facts['attribution']}",
        "candidates": str(len(plan.candidates)),
        "front": str(int(plan.candidates["front"].sum())),
        "memory": f"{need.min():.2f} to {need.max():.2f} of {facts['limits']['memory_bytes'] / 1e9:g} GB",
        "patch": " x ".join(str(int(own[edge])) for edge in PATCH),
        "batch": f"{own['batch_size']:.0f}",
        "sightings": f"{own['sightings']:.2f}",
        "rarest": inside(own["rarest"]),
        "rule-patch": " x ".join(str(int(rule[edge])) for edge in PATCH),
        "rule-sightings": f"{rule['sightings']:.2f}",
        "rule-rarest": inside(rule["rarest"]),
        "context": f"{own['context_mm']:.0f}",
        "rule-context": f"{rule['context_mm']:.0f}",
        "presence": percent(float(least["planned"].min())),
        **{
            f"presence-{draw}": f"{percent(float(values.min()))} ({inside(_least(values, own['rarest']))})"
            for draw, values in least.items()
        },
        "weights": listed(chosen),
        "through": (through[:1].upper() + through[1:] + ".") if through else "",
        "nnunet": _nnunet(plan),
    }


def _least(presence: pd.Series[float], first: str) -> str:
    """Return the organ that is shown least; of those alike the one named, so that a page names one."""
    return first if presence[first] <= presence.min() + _ALIKE else str(presence.idxmin())


def command(plan: PlanTables) -> str:
    """Return the command that plans for the same network, grid and step."""
    limits = plan.facts["limits"]
    precision = "float32" if limits["precision"] == "32-true" else "bf16"
    grid = " ".join(f"{mm:g}" for mm in plan.spacing_mm)
    return (
        f"hnlib plan ROOT --memory {limits['memory_bytes'] / 1e9:g}GB --network {limits['network']} "
        f"--width {limits['width']} --cap {limits['cap']} \\\n"
        f"  --precision {precision} --voxels-per-step {limits['voxels_per_step']} --spacing-mm {grid}"
    )


def _nnunet(plan: PlanTables) -> str:
    """Say what nnU-Net v2 itself answered."""
    notes, rule = plan.facts["notes"], plan.choices.iloc[1]
    rows = plan.choices[plan.choices["choice"].isin(notes)]
    if rows.empty:
        return "nnU-Net v2 itself was not asked."
    said = [
        f"{' x '.join(str(int(row[edge])) for edge in PATCH)} at batch {row['batch_size']:.0f} "
        f"({str(row['choice']).split(', ')[1]})"
        for row in rows.to_dict("records")
    ]
    same = (rows[PATCH] == rule[PATCH].to_numpy(int)).all(axis=1).any()
    own = " x ".join(str(int(rule[edge])) for edge in PATCH)
    agrees = f" The rule as this library computes it gives {own} too." if same else ""
    version = ", ".join(sorted(set(notes.values())))
    return f"Its own planner ({version}), asked for these scans, says {listed(said)}.{agrees}"


def plan_provenance(plan: PlanTables) -> pd.DataFrame:
    """Return where the numbers of a plan come from."""
    facts, limits = plan.facts, plan.facts["limits"]
    rows = {
        "data": facts["attribution"],
        "cases": f"{facts['cases']} for training, those of profile {facts['profile']}",
        "grid, mm": " x ".join(f"{mm:g}" for mm in facts["spacing_mm"]),
        "network": f"{limits['network']}, width {limits['width']}, cap {limits['cap']}, {limits['precision']}",
        "limits": f"{limits['voxels_per_step']} voxels a step, {limits['memory_bytes'] / 1e9:g} GB",
        "nnU-Net": ", ".join(sorted(set(facts["notes"].values()))) or "not asked",
        "data digest": facts["data_digest"],
    }
    return pd.DataFrame({"value": rows}).rename_axis("provenance")
