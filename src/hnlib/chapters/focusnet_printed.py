"""Chapter 16: the tables of Gao et al. 2019 beside ours."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from hnlib.chapters.focusnet_runs import FocusStudy
from hnlib.chapters.questions import NOT_RUN
from hnlib.experiment_files import experiment_title
from hnlib.stats import printed_table

#: Our experiments by the names of the printed table's rows, and two that it has not.
ROWS: Mapping[str, str] = {
    "seres_unet_ce": "seres_unet_ce",
    "seres_unet_3ds": "seres_3ds_ce",
    "seres_unet_2ds": "seres_2ds_ce",
    "seres_unet_1ds": "seres_1ds_ce",
    "seres_unet_fl": "seres_1ds_focal",
    "seres_unet_fl_dl": "seres_1ds_focal_dice",
    "snet": "snet",
    "not printed, 2 down-samplings": "snet_2ds",
    "not printed, 3 down-samplings": "snet_3ds",
    "focusnet": "focusnet",
    "fat_unet": "fat_snet",
}
ROI_ROWS: Mapping[str, str] = {
    "snet": "snet",
    "focusnet_roi2": "focusnet_roi2",
    "focusnet_roi3": "focusnet",
    "focusnet_roi5": "focusnet_roi5",
}


def ablation(study: FocusStudy) -> pd.DataFrame:
    """Return the rows of the printed Table 2 over all organs, 0..1, with ours beside them and their seeds."""
    printed = _printed_mean("average")
    ours = _means(study.dsc)
    rows = {
        experiment_title(name): {
            "printed": printed.get(method, np.nan),
            "ours": ours.get(name, np.nan),
            "seeds": study.seeds(name),
        }
        for method, name in ROWS.items()
    }
    return pd.DataFrame(rows).T.astype({"printed": float, "ours": float})


def by_size() -> pd.DataFrame:
    """Return the printed Table 1 in two lines: mean DSC in per cent over its 8 large and its 10 small organs."""
    table = printed_table("gao2019").query("table == '1' and organ != 'average'")
    wide = table.pivot_table(index="organ", columns="method", values="mean", sort=False)
    large = wide.index[:8]  # above the printed line
    rows = {"8 large organs": wide.loc[large].mean(), "10 small organs": wide.drop(large).mean()}
    means = pd.DataFrame(rows).T.round(1).rename(columns=experiment_title)
    return means.rename_axis(index="printed, private data", columns=None)


def roi(study: FocusStudy) -> pd.DataFrame:
    """Return the printed ROI sizes over small organs, 0..1, with ours beside them and their seeds."""
    printed = _printed_mean("small_average")
    small = study.dsc[study.dsc["organ"].isin(study.small)]
    ours = _means(small)
    rows = {
        experiment_title(name): {
            "printed (other data)": f"{printed[method]:.3f}",
            "ours": f"{ours[name]:.3f}" if name in ours else NOT_RUN,
            "seeds": study.seeds(name),
        }
        for method, name in ROI_ROWS.items()
    }
    return pd.DataFrame(rows).T.rename_axis("small organs, DSC")


def _means(dsc: pd.DataFrame) -> Mapping[str, float]:
    by_organ = dsc.groupby(["experiment", "organ"])["value"].mean()
    return {str(name): float(value) for name, value in by_organ.groupby("experiment").mean().items()}


def _printed_mean(organs: str) -> pd.Series:
    """Return the printed Table 2's mean DSC, 0..1, by method, over ``"average"`` or ``"small_average"``."""
    return printed_table("gao2019").query("table == '2' and organ == @organs").set_index("method")["mean"] / 100
