"""The model card: what the file of the released model says of itself."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from hnlib.chapters.page import title
from hnlib.model_file import SPACING_FACTOR, load_model, released_model


def released_scores() -> pd.DataFrame:
    """Return the mean test DSC of each organ of the released model."""
    test = load_model(released_model()).provenance["test"]
    rows = {title(organ): value for organ, value in test["dsc"].items()} | {"Mean over organs": test["mean_dsc"]}
    return pd.DataFrame({f"mean test DSC ({test['cases']} patients)": rows}).rename_axis("organ")


def released_origin() -> pd.DataFrame:
    """Return how the released model was made, from how many scans, and what they were like."""
    model = load_model(released_model())
    made, seen = model.provenance, model.seen
    low, high = seen.spacing_mm
    rows = {
        "data": f"{model.attribution}; {seen.cases} training patients",
        "voxel edges of their scans": f"{_times(low)} to {_times(high)} mm",
        "voxel edges that it accepts": f"{_times([n / SPACING_FACTOR for n in low])} to "
        f"{_times([n * SPACING_FACTOR for n in high])} mm; others only by force",
        "grid of the network": f"{_times(model.plan.spacing_mm)} mm, patches of {_times(made['patch'])} voxels",
        "network": f"{model.blueprint.network}, {made['parameters']:,} parameters",
        "training": f"{made['experiment']} of profile {made['profile']}, seed {made['seed']}: "
        f"{made['steps']} steps, {made['seconds'] / 60:.0f} min",
        "hardware": made["hardware"],
        "versions": " ".join(f"{name}={version}" for name, version in made["versions"].items()),
        "digests": " ".join(f"{name}={digest}" for name, digest in made["digests"].items()),
        "file": f"{released_model().name}, {released_model().stat().st_size / 1e6:.1f} MB",
    }
    return pd.DataFrame({"value": rows}).rename_axis("model")


def _times(numbers: Sequence[float]) -> str:
    return " x ".join(f"{n:.3g}" for n in numbers)
