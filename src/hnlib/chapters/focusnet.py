"""Chapter 20: FocusNet, its pictures on the phantom, its runs beside their rivals, and what is printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter

from hnlib.cases import Case
from hnlib.chapters.page import DASH, NBSP, Facts, counted, percent, title, with_limits
from hnlib.datasets import PhantomDataset
from hnlib.experiments import load_experiment
from hnlib.files import read_table
from hnlib.networks.focusnet import roi_starts
from hnlib.preprocess import Prepared
from hnlib.stats import paired_difference, printed_table
from hnlib.systems import FocusNetOptions
from hnlib.systems.focusnet_fusion import Found, fuse
from hnlib.systems.focusnet_losses import heat_targets
from hnlib.systems.focusnet_statistics import OrganSize, SmallRule, organ_sizes, roi_voxels, small_organs

#: Profiles of the two studies, by data set.
PROFILES: Mapping[str, str] = {"phantom": "phantom-focus", "openkbp": "laptop-focus"}
SCENE_ORGANS = ("brainstem", "optic_chiasm", "optic_nerve_left", "optic_nerve_right", "lens_left", "lens_right")
#: Our experiments by the names of the printed table's rows.
ROWS: Mapping[str, str] = {
    "seres_unet_ce": "seres_unet_ce",
    "seres_unet_3ds": "seres_3ds_ce",
    "seres_unet_2ds": "seres_2ds_ce",
    "seres_unet_1ds": "seres_1ds_ce",
    "seres_unet_fl": "seres_1ds_focal",
    "seres_unet_fl_dl": "seres_1ds_focal_dice",
    "snet": "snet",
    "focusnet": "focusnet",
    "fat_unet": "fat_snet",
}
ROI_ROWS: Mapping[str, str] = {
    "focusnet_roi2": "focusnet_roi2",
    "focusnet_roi3": "focusnet",
    "focusnet_roi5": "focusnet_roi5",
}
_SIZE_HEADS = ("organ", "voxels", "share of the scan", "diameter, mm", "ROI, voxels", "share of the ROI")
NOT_RUN = "not yet run"


@dataclass(frozen=True)
class Scene:
    """One phantom around the optic nerves, with what FocusNet makes of its labels and of made-up outputs.

    Attributes
    ----------
    case
        The phantom, cut to the field that is shown.
    sizes
        One row a small organ: voxels, diameter, ROI, share of the ROI that is organ.
    heat
        Heat map of each small organ in the slice.
    index
        The slice.
    rois
        Of the left nerve by multiple of the diameter: first voxel and size in plane.
    masks
        The left nerve of the slice by the main network, in the ROI, and fused.
    """

    case: Case
    sizes: pd.DataFrame
    heat: Mapping[str, NDArray[np.float32]]
    index: int
    rois: Mapping[int, tuple[int, int, int, int]]
    masks: Mapping[str, NDArray[np.bool_]]

    @property
    def step_mm(self) -> tuple[float, float]:
        """Pixel edges of the slice."""
        return self.case.spacing_mm[0], self.case.spacing_mm[1]

    @property
    def pixels(self) -> NDArray[np.float32]:
        """CT numbers of the slice."""
        return self.case.image_hu[:, :, self.index]

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Labels of the slice."""
        return self.case.labels[:, :, self.index]


def focus_scene() -> Scene:
    """Make one phantom and, from its labels, heat maps, ROIs, and a fusion of probabilities that are made up."""
    whole = PhantomDataset({"test": 1}, organs=SCENE_ORGANS).load("phantom_000")
    case, spacing, limit = _cut(whole), whole.spacing_mm, whole.labels.shape
    small = small_organs(organ_sizes([_prepared(whole)], SCENE_ORGANS, spacing), SmallRule(), SCENE_ORGANS[1:])
    target = torch.from_numpy(case.labels.astype(np.int64))[None]
    heat, _ = heat_targets(target, [size.value for size in small], spacing, 5.0)
    nerve = next(size for size in small if size.organ == "optic_nerve_left")
    truth = case.labels == nerve.value
    index = int(truth.sum(axis=(0, 1)).argmax())
    centre = np.argwhere(truth).mean(axis=0).round().astype(int)
    edges = {times: roi_voxels(nerve, times, spacing, limit) for times in (2, 3, 5)}
    x, y = int(centre[0]), int(centre[1])
    rois = {times: (x - n // 2, y - m // 2, n, m) for times, (n, m, _) in edges.items()}
    rows = [_size_row(size, roi_voxels(size, 3, spacing, limit), whole.labels.size) for size in small]
    return Scene(
        case,
        pd.DataFrame(rows, columns=list(_SIZE_HEADS)).set_index("organ"),
        {size.organ: heat[0, k, :, :, index].numpy() for k, size in enumerate(small)},
        index,
        rois,
        _fusion(truth, centre, edges[3], index),
    )


def _size_row(size: OrganSize, roi: tuple[int, int, int], scan: int) -> tuple[str, int, str, float, str, str]:
    shares = [percent(size.voxels / whole) for whole in (scan, int(np.prod(roi)))]
    edges = " x ".join(map(str, roi))
    return title(size.organ), round(size.voxels), shares[0], round(size.diameter_mm, 1), edges, shares[1]


def _cut(case: Case) -> Case:
    """Return the case around all organs but the brainstem, with 35 mm around them in plane and 20 mm across."""
    where = np.argwhere(case.labels > 1)
    margin = np.round(np.array([35, 35, 20]) / case.spacing_mm).astype(int)
    low, high = np.maximum(where.min(axis=0) - margin, 0), where.max(axis=0) + margin + 1
    cut = slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])
    return replace(case, image_hu=case.image_hu[cut], labels=case.labels[cut])


def _prepared(case: Case) -> Prepared:
    x, y, z = case.labels.shape
    box = tuple((0, n) for n in (x, y, z))
    return Prepared(case.name, case.image_hu, case.labels, 0.0, box, (x, y, z), case.spacing_mm, case.labelled)


def _fusion(
    truth: NDArray[np.bool_], centre: NDArray[np.intp], edges: tuple[int, int, int], index: int
) -> dict[str, NDArray[np.bool_]]:
    """Return the nerve of a slice by a main network that swells it, in the ROI, fused, and with the gate shut."""
    x, y, z = roi_starts(torch.from_numpy(centre)[None, None], truth.shape, [edges])[0, 0].tolist()
    start, size = (x, y, z), np.minimum(edges, truth.shape)
    swollen = binary_dilation(truth, iterations=2)
    main = np.stack([np.where(swollen, 0.3, 0.95), np.where(swollen, 0.7, 0.05)]).astype(np.float32)
    cut = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
    sharp = gaussian_filter(truth[cut].astype(np.float32), 0.4)
    found = Found(1, (0, 0, 0), 0.9, True, start, sharp)
    shut = Found(1, (0, 0, 0), 0.1, False, start)
    inside = np.zeros_like(truth)
    inside[cut] = sharp > 0.5
    volumes = {
        "main network": main[1] > 0.5,
        "small network": inside,
        "gate open: fused": fuse(main, [found])[1] > 0.5,
        "gate shut": fuse(main, [shut])[1] > 0.5,
    }
    return {name: volume[:, :, index] for name, volume in volumes.items()}


# Runs and printed tables.


def focus_runs(tables: Path | str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return metrics and runs of the FocusNet study in a folder of tables, with the atlas where it has been run.

    Both are empty where none of its runs is published there yet.
    """
    folder = Path(tables)
    profile = PROFILES["openkbp" if folder.name.startswith("openkbp") else "phantom"]
    found = []
    for name in ("metrics", "runs"):
        path = folder / f"{name}.csv"
        nothing = pd.DataFrame(columns=["profile", "experiment", "seed"])
        rows = read_table(path, "publish the runs again") if path.exists() else nothing
        found.append(rows[rows["profile"] == profile].reset_index(drop=True))
    atlas = folder / "atlas.csv"
    if atlas.exists():
        rows = read_table(atlas, "run python scripts/atlas.py again")
        found[0] = pd.concat([found[0], rows[rows["profile"] == profile]], ignore_index=True)
    return found[0], found[1]


def located_organs(metrics: pd.DataFrame) -> list[str]:
    """Return the organs that FocusNet locates in these runs: the small ones."""
    return list(metrics[metrics["metric"] == "centre_error_mm"]["organ"].unique()) if len(metrics) else []


def focus_results(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return mean test DSC of each experiment: over all organs, over the small ones, and seeds and cases behind it."""
    rows = metrics[(metrics["split"] == "test") & (metrics["metric"] == "dsc")] if len(metrics) else metrics
    if rows.empty:
        return pd.DataFrame({"test DSC": [NOT_RUN]}, index=pd.Index(["FocusNet and its rivals"], name="experiment"))
    small = located_organs(metrics)
    found = {}
    for name, part in rows.groupby("experiment", sort=False):
        organs = part.groupby("organ")["value"].mean()
        found[_name(str(name))] = {
            "all organs": f"{organs.mean():.3f}",
            "small organs": f"{organs.reindex(small).mean():.3f}" if small else DASH,
            "large organs": f"{organs.drop(small, errors='ignore').mean():.3f}"
            if len(organs) > len(small) > 0
            else DASH,
            "seeds": str(part["seed"].nunique()),
            "cases": str(part["case"].nunique()),
        }
    return pd.DataFrame(found).T.rename_axis("experiment")


def localisation_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return by organ the error of FocusNet's centres in mm, the peak, and how often the gate stood open."""
    rows = metrics[(metrics["split"] == "test") & (metrics["experiment"] == "focusnet")] if len(metrics) else metrics
    rows = rows[rows["metric"].isin(["centre_error_mm", "centre_peak", "located"])] if len(rows) else rows
    if rows.empty:
        return pd.DataFrame({"error of the centre": [NOT_RUN]}, index=pd.Index(["FocusNet"], name="organ"))
    wide = rows.groupby(["organ", "metric"], sort=False)["value"].agg(["median", "max", "mean"]).unstack()
    table = pd.DataFrame(
        {
            "error, median mm": wide["median"]["centre_error_mm"].round(1),
            "error, largest mm": wide["max"]["centre_error_mm"].round(1),
            "peak, median": wide["median"]["centre_peak"].round(2),
            "gate open": [f"{100 * share:.0f} %" for share in wide["mean"]["located"]],
        }
    )
    return table.rename(index=title).rename_axis("organ")


def focus_facts(metrics: pd.DataFrame) -> Facts:
    """Return the phrases of the answer: FocusNet against S-Net over the small organs and over the others."""
    small = located_organs(metrics)
    rows = metrics[metrics["organ"].isin(small) & (metrics["split"] == "test")] if small else metrics
    names = set(rows["experiment"]) if len(rows) else set()
    if not {"focusnet", "snet"} <= names:
        verdict = "The two have not both been run on this data yet."
        return {"difference": NOT_RUN, "verdict": verdict, "small": NOT_RUN, "open": NOT_RUN, "elsewhere": NOT_RUN}
    found = paired_difference(rows, "focusnet", "snet")
    count = rows.groupby("experiment")["seed"].nunique()[["focusnet", "snet"]].min()
    interval = f"95 % interval {found.low:+z.3f} to {found.high:+z.3f}, {found.cases} cases, {counted(count, 'seed')}"
    text = f"{found.difference:+z.3f} DSC ({interval})"
    others = metrics[~metrics["organ"].isin(small) & (metrics["split"] == "test")]
    rest = paired_difference(others, "focusnet", "snet") if len(others) else None
    elsewhere = with_limits(rest.difference, rest.low, rest.high) if rest else "not defined: there is none"
    gate = rows.query("experiment == 'focusnet' and metric == 'located'").groupby("organ")["value"].max()
    if found.low > 0:
        verdict = "FocusNet is ahead."
    elif found.high < 0:
        verdict = "S-Net is ahead."
    else:
        verdict = "The interval holds zero: no difference is shown."
    opened = f"{int((gate > 0).sum())} of {len(small)}"
    return {
        "difference": text,
        "verdict": verdict,
        "small": str(len(small)),
        "open": opened,
        "elsewhere": elsewhere.replace(NBSP, " "),
    }


def focus_settings() -> Facts:
    """Return what the experiment sets: longest side, SD of a heat map, gate, draw, shares of the steps."""
    found = load_experiment("focusnet")
    options = FocusNetOptions.model_validate(found.options)
    shares = {stage.name.replace("_", "-"): f"{100 * stage.share:.0f} %" for stage in found.stages}
    return {
        "longest": f"{options.longest_mm:.0f} mm",
        "sigma": f"{options.sigma_mm:.0f} mm",
        "gate": f"{options.gate:.1f}",
        "draw": percent(options.small_draw),
        **shares,
    }


def cost_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Return parameters and time of each experiment."""
    if runs.empty:
        return pd.DataFrame({"cost": [NOT_RUN]}, index=pd.Index(["FocusNet and its rivals"], name="experiment"))
    grouped = runs.groupby("experiment", sort=False)
    steps = grouped["steps"].first()
    table = pd.DataFrame(
        {
            "parameters": grouped["parameters"].first(),
            "steps": steps,
            "s a step": (grouped["seconds"].mean() / steps).round(2),
            "minutes": (grouped["seconds"].mean() / 60).round(1),
        }
    )
    return table.rename(index=_name).rename_axis("experiment")


def printed_ablation(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the printed Table 2 over all organs, 0..1, with ours beside them."""
    printed = printed_table("gao2019").query("table == '2' and organ == 'average'").set_index("method")["mean"] / 100
    ours = _means(metrics)
    rows = {method: (printed[method], ours.get(name, np.nan)) for method, name in ROWS.items()}
    table = pd.DataFrame(rows, index=["printed", "ours"]).T
    return table.rename(index={method: _name(name) for method, name in ROWS.items()})


def printed_by_size() -> pd.DataFrame:
    """Return the printed Table 1 in two lines: mean DSC in per cent over its 8 large and its 10 small organs."""
    table = printed_table("gao2019").query("table == '1' and organ != 'average'")
    wide = table.pivot_table(index="organ", columns="method", values="mean", sort=False)
    large = wide.index[:8]  # above the printed line
    rows = {"8 large organs": wide.loc[large].mean(), "10 small organs": wide.drop(large).mean()}
    return pd.DataFrame(rows).T.round(1).rename_axis("printed, private data")


def printed_roi(metrics: pd.DataFrame) -> pd.DataFrame:
    """Return the printed ROI sizes over small organs, 0..1, with ours beside them."""
    table = (
        printed_table("gao2019").query("table == '2' and organ == 'small_average'").set_index("method")["mean"] / 100
    )
    small = located_organs(metrics)
    ours = _means(metrics[metrics["organ"].isin(small)] if small else metrics)
    found = {_name(name): (table[row], ours.get(name, np.nan)) for row, name in {"snet": "snet", **ROI_ROWS}.items()}
    shown = pd.DataFrame(found, index=["printed (other data)", "ours"]).T
    return shown.map(lambda value: NOT_RUN if np.isnan(value) else f"{value:.3f}").rename_axis("small organs, DSC")


def _means(metrics: pd.DataFrame) -> Mapping[str, float]:
    rows = metrics[(metrics["split"] == "test") & (metrics["metric"] == "dsc")] if len(metrics) else metrics
    if rows.empty:
        return {}
    by_organ = rows.groupby(["experiment", "organ"])["value"].mean()
    return {str(name): float(value) for name, value in by_organ.groupby("experiment").mean().items()}


def _name(experiment: str) -> str:
    return "atlas" if experiment == "atlas" else load_experiment(experiment).title
