"""Chapter on sigma: its phrases and tables by hand, on two organs and three sizes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from hnlib import chapters, plotting
from hnlib.imbalance import PAPER_RATIOS
from hnlib.imbalance.summary import PATCH

#: A small patch, a middle one and a large one, 8, 64 and 512 voxels.
EDGES = (2, 4, 8)
#: Shares of mandible and optic chiasm in a patch by rule, from the small patch to the large one.
SHARES = {
    "voxel_uniform": ((0.4, 0.001), (0.2, 0.0004), (0.1, 0.001)),
    "class_uniform": ((0.2, 0.05), (0.1, 0.01), (0.05, 0.001)),
    "paper": ((0.3, 0.001), (0.2, 0.001), (0.1, 0.001)),
}
CHIASM = "optic_chiasm"


def cube(edge: int) -> str:
    """Return the size of a patch as tables show it: no break inside."""
    return "\N{NO-BREAK SPACE}x\N{NO-BREAK SPACE}".join(3 * [str(edge)])


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return measures and classes; sigma of three classes by its own formula, presence 0.1, 0.2, 0.4."""
    measures, classes = [], []
    for rule, sizes in SHARES.items():
        for edge, shares, presence in zip(EDGES, sizes, (0.1, 0.2, 0.4), strict=True):
            size = dict.fromkeys(PATCH, edge)
            ratios = {"background": 1 - sum(shares), "mandible": shares[0], CHIASM: shares[1]}
            sigma = float(np.std(list(ratios.values())))
            rarest = 2 * edge**3 * shares[1]
            measures.append(
                {**size, "centres": rule, "sigma_of_mean": sigma, "least_presence": presence, "rarest_voxels": rarest}
            )
            classes += [{**size, "centres": rule, "class": name, "ratio": ratio} for name, ratio in ratios.items()]
    return pd.DataFrame(measures), pd.DataFrame(classes)


def test_sigma_likes_the_smallest_patch_and_says_under_which_rules() -> None:
    """Under all three rules the background is least in the small patch; one other best patch is said too."""
    measures, classes = tables()
    facts = chapters.landscape.sigma_facts(measures, classes)
    assert facts["sizes"] == "3"
    low, high = measures["sigma_of_mean"].min(), measures["sigma_of_mean"].max()
    assert facts["range"] == f"{low:.3f} to {high:.3f}"
    assert facts["smallest"].startswith("Under 3 of the 3 rules its best patch is the smallest of all (voxel-uniform, ")
    measures.loc[(measures["centres"] == "paper") & (measures["patch_x"] == 8), "sigma_of_mean"] = 0.0
    assert "Under 2 of the 3 rules" in chapters.landscape.sigma_facts(measures, classes)["smallest"]
    # above nine tenths only class-uniform's large patch is left, b = 0.949: from one organ alone to both alike
    width = np.sqrt((0.949**2 + 0.051**2) / 3 - 1 / 9) - np.sqrt((0.949**2 + 0.051**2 / 2) / 3 - 1 / 9)
    assert facts["width-dominated"] == f"{width:.1g}"


def test_measures_are_ranked_against_the_volume_of_the_patch() -> None:
    """Presence rises with the patch, sigma's goodness falls; each likes an end of the grid."""
    table = chapters.landscape.rank_table(tables()[0], "class_uniform")
    assert table.loc["σ", ["likes best", "rank correlation with volume"]].tolist() == [cube(2), "-1.00"]
    presence = table.loc["presence of the organ shown least"]
    assert presence[["likes best", "rank correlation with volume"]].tolist() == [cube(8), "1.00"]
    assert "how much of the organ" in presence["blind to"]


def test_steps_of_equally_many_voxels_turn_the_rarest_organs_voxels_round() -> None:
    """Two patches a step: 0.8, 1.28, 1.024 voxels. As many voxels as two of 512: 1024 times the share."""
    measures = tables()[0]
    equal = chapters.landscape.equal_steps(measures, (8, 8, 8))
    mine = equal["centres"] == "class_uniform"
    assert equal.loc[mine, "rarest_voxels"].tolist() == pytest.approx([51.2, 10.24, 1.024])
    assert measures.loc[mine, "rarest_voxels"].tolist() == pytest.approx([0.8, 1.28, 1.024])
    row = chapters.landscape.rank_table(equal, "class_uniform").loc["voxels a step of the rarest organ"]
    assert row[["likes best", "rank correlation with volume"]].tolist() == [cube(2), "-1.00"]


def test_the_claim_on_the_chiasm_is_said_where_it_holds_and_where_it_fails() -> None:
    """Shares of the foreground by hand; voxel-uniform: 1/401, 1/501, 1/101 from small to large."""
    shares = chapters.landscape.foreground_shares(*tables(), CHIASM)
    voxel = shares.loc["voxel_uniform"]
    assert (voxel["best"], voxel["place"], voxel["sizes"]) == (cube(2), 2, 3)
    assert voxel["share"] == pytest.approx(1 / 401)
    assert (voxel["least_at"], voxel["most_at"]) == (cube(4), cube(8))
    assert shares.loc["class_uniform", ["place", "share"]].tolist() == pytest.approx([3, 0.2])
    facts = chapters.landscape.worst_facts(shares, CHIASM)
    assert facts["holds"] == "holds under paper's rule"
    assert facts["fails"] == "fails under voxel-uniform and class-uniform"
    assert facts["voxel_uniform"] == "0.25 % of the foreground, number 2 of 3 from the least"
    assert facts["class_uniform"] == "20 % of the foreground, the most of all 3 sizes"
    assert facts["paper"] == "0.33 % of the foreground, the least of all 3 sizes"
    assert facts["voxel-worst"] == f"0.2 %, at {cube(4)}"
    table = chapters.landscape.foreground_table(shares)
    assert table.loc["voxel-uniform", "place from the least"] == "2 of 3"


def test_the_papers_vectors_carry_the_claim() -> None:
    """Chiasm over all organs, from the vectors by hand: in 8 x 8 x 8 a seventh of what the small patch has."""
    found = chapters.landscape.paper_shares(CHIASM)
    assert list(found) == list(PAPER_RATIOS)
    assert [round(100 * share, 3) for share in found.values()] == [0.384, 0.487, 0.463, 0.064]
    facts = chapters.landscape.worst_facts(chapters.landscape.foreground_shares(*tables(), CHIASM), CHIASM)
    assert facts["vectors"] == "0.38 % (whole scan), 0.49 % (large), 0.46 % (small) and 0.064 % (8x8x8)"
    assert facts["vectors-verdict"] == "holds"


def test_maps_and_explorer_mark_the_patches_and_hold_the_values() -> None:
    """In mm or in voxels; the menu changes the maps and leaves the marks."""
    rows = tables()[0].query("centres == 'class_uniform'")
    grid = pd.concat([rows.assign(patch_z=depth) for depth in (3, 6)], ignore_index=True)
    marks = {"large": (8, 8, 6), "small": (4, 4, 3)}
    for spacing, place, unit in (((2.0, 2.0, 3.0), [(16, 18), (8, 9)], "mm"), (None, [(8, 6), (4, 3)], "voxels")):
        figure = plotting.landscape_maps(grid, ["sigma_of_mean", "least_presence"], spacing, marks)
        points = [(line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[0].lines]
        assert points == place
        assert figure.get_supxlabel() == f"edge of the patch left to right ({unit})"
        plt.close(figure)
    explorer = plotting.landscape_explorer(grid, ["sigma_of_mean", "least_presence"], ["class_uniform"], marks)
    heat, points = explorer.data
    assert np.asarray(heat.z).tolist() == [rows["sigma_of_mean"].tolist()] * 2
    assert (list(points.x), list(points.y), list(points.text)) == ([8, 4], [6, 3], ["large", "small"])
    change = list(explorer.layout.meta["choices"].values())[1]
    assert len(change["z"]) == 1  # the heat map's alone
    assert np.asarray(change["z"][0]).tolist() == [rows["least_presence"].round(6).tolist()] * 2
