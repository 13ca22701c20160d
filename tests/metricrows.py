"""Rows of metric tables, made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd

from hnlib.stats import COLUMNS


def rows(*entries, profile="laptop", metric="dsc"):
    """Metric rows from (experiment, seed, split, case, organ, value)."""
    return pd.DataFrame([(profile, *entry[:5], metric, entry[5]) for entry in entries], columns=COLUMNS)


def study(values, experiment="recipe", split="test", seed=0):
    """Rows of one experiment from an array (cases, organs)."""
    return rows(
        *(
            (experiment, seed, split, f"pt_{case}", organ, value)
            for case, row in enumerate(np.asarray(values))
            for organ, value in zip(("mandible", "larynx", "brainstem"), row, strict=False)
        )
    )
