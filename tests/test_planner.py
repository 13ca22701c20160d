"""The planner: every plan keeps to its limits, promises what its patches show, and is chosen by the stated rule."""

from __future__ import annotations

import contextlib
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scanfiles import head, organ_mask, write_head

from hnlib.cli import main
from hnlib.errors import ConfigError, DataError
from hnlib.imbalance import Limits, Scan, Wish, expected_ratios, plan, planned_draw, presence, rarest_voxels, to_yaml
from hnlib.imbalance.candidates import Candidate, candidate_of, candidates
from hnlib.imbalance.draw import Draw
from hnlib.imbalance.grids import planning_cases, scans_on_grid
from hnlib.imbalance.planner import PatchPlan, _seen, assess, held_organ_box
from hnlib.imbalance.report import lines, read_size
from hnlib.imbalance.shown import PLAN_MEASURES
from hnlib.networks import plan_topology
from hnlib.sampling import RULES, CentreDistribution, ClassUniform, Triple, UniformPosition

ORGANS = ("gland", "cord", "lens")
SPACING = (2.0, 2.0, 3.0)
LIMITS = Limits(2e8, width=4, cap=8, voxels_per_step=60_000)


def scan(seed: int, *, lens: bool = True) -> Scan:
    """Return a scan with a large organ, a long one and, where asked for, a tiny one near a corner."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((48, 40, 30), dtype=np.uint8)
    x, y = rng.integers(10, 16, 2)
    labels[x : x + 18, y : y + 12, 4:12] = 1
    labels[30:33, 20:23, 2:28] = 2
    if lens:
        labels[4:6, 33:35, 26:27] = 3
    return Scan(f"case_{seed}", labels, ORGANS, frozenset(ORGANS if lens else ORGANS[:2]))


SCANS = (scan(0), scan(1), scan(2, lens=False))


@pytest.fixture(scope="module")
def planned() -> PatchPlan:
    return plan(SCANS, SPACING, LIMITS)


def found(limits: Limits = LIMITS, shape: tuple[int, int, int] = (48, 40, 30)) -> list[Candidate]:
    return candidates(shape, SPACING, 4, limits)


# Candidates


def test_every_candidate_keeps_to_the_limits() -> None:
    """Divisible sides, three levels, voxels a step within a tenth, memory, batch and aspect."""
    chosen = found()
    assert len({c.patch_size for c in chosen}) == len(chosen) > 10
    for candidate in chosen:
        size = candidate.patch_size
        assert not any(n % d for n, d in zip(size, candidate.topology.divisor, strict=True))
        assert candidate.topology.num_levels >= 3
        assert candidate.voxels_per_step == math.prod(size) * candidate.batch_size
        assert abs(candidate.voxels_per_step / 60_000 - 1) <= 0.1
        assert 2 <= candidate.batch_size <= 64
        assert candidate.memory.total <= LIMITS.memory_bytes
        edges = [n * mm for n, mm in zip(size, SPACING, strict=True)]
        assert max(edges) <= 2 * min(edges)


def test_no_patch_that_a_network_takes_is_left_out() -> None:
    """All triples of whole numbers from 8 up to the first side that holds the scan: 20, 20 and 14."""
    limits = replace(LIMITS, voxels_per_step=20_000)
    expected = set()
    for size in itertools.product(range(8, 21), range(8, 21), range(8, 15)):
        edges = [n * mm for n, mm in zip(size, SPACING, strict=True)]
        batch = round(20_000 / math.prod(size))
        near = any(abs(n * math.prod(size) / 20_000 - 1) <= 0.1 for n in (batch, batch - 1))
        if near and 2 <= batch <= 64 and max(edges) <= 2 * min(edges):
            with contextlib.suppress(ValueError):
                if plan_topology(size, SPACING).num_levels >= 3:
                    expected.add(size)
    assert {c.patch_size for c in found(limits, (20, 18, 14))} == expected
    assert len(expected) > 40


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "voxels", "patches"),
    [
        ((117, 65, 119), (3.92, 3.92, 2.5), 327_680, [(64, 40, 64), (40, 32, 64), (32, 32, 40)]),
        ((237, 237, 97), (0.98, 0.98, 2.5), 2 * 192 * 160 * 56, [(192, 160, 56), (96, 80, 48)]),
    ],
    ids=["OpenKBP: nnU-Net's own and two that were trained", "PDDCA: the two of Tappeiner et al. 2022"],
)
def test_patches_of_others_are_candidates(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], voxels: int, patches: list[Triple]
) -> None:
    limits = Limits(40e9, network="slim_dynunet", width=16, cap=128, voxels_per_step=voxels)
    assert set(patches) <= {c.patch_size for c in candidates(shape, spacing_mm, 8, limits)}


def test_without_a_number_the_voxels_are_those_that_the_memory_holds() -> None:
    """More memory never makes fewer voxels, and some patch at batch two is the reason for the number."""
    small, large = (found(replace(LIMITS, voxels_per_step=None, memory_bytes=b)) for b in (2e7, 4e7))
    most = [max(c.voxels_per_step for c in part if c.batch_size == 2) for part in (small, large)]
    assert most[0] < most[1]
    assert all(c.memory.total <= 2e7 for c in small)


def test_context_is_the_smaller_of_patch_and_receptive_field() -> None:
    candidate = found()[0]
    seen = [min(n, f) * mm for n, f, mm in zip(candidate.patch_size, candidate.receptive_field, SPACING, strict=True)]
    assert candidate.context_mm(SPACING) ** 3 == pytest.approx(math.prod(seen))


def test_limits_that_no_patch_meets_are_one_line() -> None:
    """Each names what is at fault and what would do."""
    with pytest.raises(ConfigError, match=r"memory of 1e-06 GB: no patch fits; the smallest, .* needs 0\.00"):
        found(replace(LIMITS, memory_bytes=1e3))
    with pytest.raises(ConfigError, match="7 voxels a step: no patch comes within 10%"):
        found(replace(LIMITS, voxels_per_step=7))
    with pytest.raises(ConfigError, match="scans of 6 x 6 x 6 voxels at 2 x 2 x 3 mm: no patch gives a network of 3"):
        found(shape=(6, 6, 6))
    with pytest.raises(ConfigError, match="memory_bytes is 0"):
        Limits(0)
    with pytest.raises(ConfigError, match="voxels_per_step is -3"):
        Limits(1e9, voxels_per_step=-3)
    with pytest.raises(ConfigError, match="unknown network of the memory model 'dynnet'"):
        found(replace(LIMITS, network="dynnet"))


# Plans


def test_a_plan_promises_what_its_patches_show(planned: PatchPlan) -> None:
    """Least presence and measures equal those of the law that the plan trains with, case by case where the organ is."""
    rule = planned.draw.centres(ORGANS)
    size, row = planned.candidate.patch_size, planned.table[planned.table["chosen"]].iloc[0]
    shown = np.array([presence(s.labels, 4, size, rule)[1:] for s in SCANS])
    held = [shown[:, 0].mean(), shown[:, 1].mean(), shown[:2, 2].mean()]
    assert row["least_presence"] == pytest.approx(min(held), rel=1e-9)
    assert row["rarest"] in [name for name, one in zip(ORGANS, held, strict=True) if one < min(held) + 1e-6]
    assert row["sightings"] == pytest.approx(min(held) * planned.candidate.batch_size, rel=1e-9)
    assert planned.draw.value == pytest.approx(min(held), rel=1e-9)
    assert planned.draw.weights["uniform"] >= 1 / 3 - 1e-6


def test_measures_by_ratio_are_those_of_the_mean_patch() -> None:
    """Expected voxels of the rarest organ, from the exact ratios of each case that holds it."""
    other = plan(SCANS, SPACING, LIMITS, Wish(measure="rarest_voxels", aim="voxels"))
    size, rule = other.candidate.patch_size, other.draw.centres(ORGANS)
    ratios = np.array([expected_ratios(s.labels, 4, size, rule) for s in SCANS])
    organs = np.array([ratios[:, 1].mean(), ratios[:, 2].mean(), ratios[:2, 3].mean()])
    expected = rarest_voxels(np.append(1 - organs.sum(), organs), other.candidate.voxels_per_step)
    assert other.table.loc[other.table["chosen"], "rarest_voxels"].item() == pytest.approx(expected, rel=1e-9)


def test_the_draw_is_no_worse_than_organs_forced_evenly(planned: PatchPlan) -> None:
    """Direction of field notes item 5, with the same share of patches anywhere."""
    size, uniform = planned.candidate.patch_size, planned.draw.weights["uniform"]
    even = CentreDistribution(((uniform, UniformPosition()), (1 - uniform, ClassUniform())))
    shown = np.array([presence(s.labels, 4, size, even)[1:] for s in SCANS[:2]])
    optimum = np.array([presence(s.labels, 4, size, planned.draw.centres(ORGANS))[1:] for s in SCANS[:2]])
    assert optimum.mean(axis=0).min() >= shown.mean(axis=0).min() - 1e-9


@pytest.mark.parametrize("measure", ["sightings", "sigma_of_mean", "sigma_pooled", "aitchison_spread"])
def test_front_and_choice_follow_the_stated_rule(measure: str) -> None:
    """The front is what nothing dominates; the choice is the best of those that hold the largest organ's box."""
    result = plan(SCANS, SPACING, LIMITS, Wish(measure=measure))
    table, sign = result.table, 1 if PLAN_MEASURES[measure].higher_is_better else -1
    goods = np.column_stack([sign * table[measure], table["context_mm"], table["organ_box"], -table["memory_gb"]])
    for row, kept in zip(goods, table["front"], strict=True):
        close = 1e-8 * np.abs(goods).max(axis=0)
        better = [(other >= row - close).all() and (other > row + close).any() for other in goods]
        assert kept == (not any(better))
    enough = result.front[result.front["organ_box"] >= min(0.9, result.front["organ_box"].max())]
    best = (sign * enough[measure]).max()
    assert sign * table.loc[table["chosen"], measure].item() == pytest.approx(best)
    assert result.front["chosen"].sum() == 1


def test_share_of_the_largest_organ_by_hand(planned: PatchPlan) -> None:
    """The gland's box is 18 x 12 x 8 voxels in every scan."""
    for row in planned.table.to_dict("records"):
        held = min(1, row["patch_x"] / 18) * min(1, row["patch_y"] / 12) * min(1, row["patch_z"] / 8)
        assert row["organ_box"] == pytest.approx(held)


def test_reasons_are_sentences_with_their_numbers(planned: PatchPlan) -> None:
    text = planned.reasons
    assert all(reason[0].isupper() or reason[0].isdigit() for reason in text)
    assert all(reason.endswith(".") and "nan" not in reason for reason in text)
    assert text[0].startswith(f"Planned on 3 cases. {len(planned.table)} patches are candidates: sides from 8 voxels")
    assert "no edge more than 2 times" in text[0]
    assert text[1].startswith(f"{len(planned.front)} of them are on the front")
    assert "largest organ, gland" in " ".join(text)
    assert "That measure does not see" in " ".join(text)
    assert "More memory would add 0 candidates." in " ".join(text)


def test_patches_that_only_the_memory_keeps_out_are_counted(planned: PatchPlan) -> None:
    """With as much memory as the candidates need in the middle, the rest is said to be missing."""
    middle = float(planned.table["memory_gb"].median()) * 1e9
    tight = plan(SCANS, SPACING, replace(LIMITS, memory_bytes=middle))
    missing = len(planned.table) - len(tight.table)
    assert missing > 0
    assert f"More memory would add {missing} candidates." in " ".join(tight.reasons)


def test_a_patch_longer_than_a_scan_is_said() -> None:
    """A scan of 5 slices is padded by every patch."""
    short = replace(SCANS[0], name="short", labels=SCANS[0].labels[:, :, 5:10])
    result = plan((scan(0), scan(1), replace(short, labelled=frozenset(ORGANS[:2]))), SPACING, LIMITS)
    assert "1 of 3 scans are shorter than the patch along an axis and are padded there." in result.reasons


def test_faults_of_data_and_wishes_are_one_line() -> None:
    nobody = [scan(0, lens=False), scan(1, lens=False)]
    with pytest.raises(DataError, match="organ lens: no voxel in any of the 2 cases that are planned on"):
        plan(nobody, SPACING, LIMITS)
    with pytest.raises(DataError, match="no scan to plan on"):
        plan([], SPACING, LIMITS)
    with pytest.raises(ConfigError, match="unknown measure 'sighting': did you mean 'sightings'"):
        Wish(measure="sighting")
    with pytest.raises(ConfigError, match="unknown aim 'shere': did you mean 'shares'"):
        Wish(aim="shere")
    with pytest.raises(ConfigError, match=r"min_uniform is 1\.5"):
        Wish(min_uniform=1.5)


def test_the_share_of_the_largest_organ_that_is_asked_for_moves_the_choice(planned: PatchPlan) -> None:
    """A patch that need hold none of the gland has at least as many sightings, and here more."""
    free = plan(SCANS, SPACING, LIMITS, Wish(organ_box_fraction=0))
    sightings = [p.table.loc[p.table["chosen"], "sightings"].item() for p in (planned, free)]
    assert sightings[1] == free.front["sightings"].max() > sightings[0]


# Words and files


def test_sizes_as_people_write_them() -> None:
    assert [read_size(text) for text in ("11GB", " 1.5 gib ", "800MiB")] == [11e9, 1.5 * 2**30, 800 * 2**20]
    for text in ("11", "GB", "11 potatoes", "-3GB", "0GB", "1e3GB", ""):
        with pytest.raises(ConfigError, match="a number above 0 and a unit"):
            read_size(text)


def test_the_printed_table_holds_the_chosen_plan(planned: PatchPlan) -> None:
    """At most twelve rows of the front and the chosen one, marked."""
    text = lines(planned)
    marked = [line for line in text if line.startswith("*")]
    assert len(marked) == 1
    assert " x ".join(map(str, planned.candidate.patch_size)) in marked[0]
    assert text[-len(planned.reasons) :] == [f"- {reason}" for reason in planned.reasons]


def test_yaml_is_an_experiment_with_its_reasons(planned: PatchPlan) -> None:
    """Shares of four digits that sum to 1, and comments that YAML skips."""
    text = to_yaml(planned, title="mine")
    stored = yaml.safe_load(text)
    assert stored["patch_size"] == list(planned.candidate.patch_size)
    assert (stored["title"], stored["network"]) == ("mine", "dynunet")
    assert stored["changes"] == {"training": {"batch_size": planned.candidate.batch_size}}
    assert sum(stored["centres"].values()) == pytest.approx(1, abs=1e-12)
    for name, weight in stored["centres"].items():
        assert weight == pytest.approx(planned.draw.weights[name], abs=3e-4)
    assert all(f"# {reason}" in text for reason in planned.reasons)


BOXED = {"parotid_left": "left", "mandible": "jaw"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for k, case in enumerate("abcd"):
        write_head(tmp_path / "data" / case / "image.nii.gz", head(k))
        for organ, file in BOXED.items():
            write_head(tmp_path / "data" / case / f"{file}.nii.gz", organ_mask(organ))
    (tmp_path / "data" / "hnlib.yaml").write_text(yaml.safe_dump({"organs": BOXED}))
    return tmp_path / "data"


def test_command_plans_on_a_folder_and_writes_an_experiment_that_loads(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table, choice and reasons are printed; the file is one that experiments read."""
    from hnlib.experiments import load_experiment

    (tmp_path / "profiles").mkdir()
    monkeypatch.setenv("HNLIB_EXPERIMENTS", str(tmp_path))
    given = ["--memory", "1GB", "--width", "4", "--voxels-per-step", "20000", "--precision", "float32"]
    with pytest.raises(SystemExit) as caught:
        main(["plan", str(folder), *given, "--out", str(tmp_path / "planned.yaml")])
    printed = capsys.readouterr().out
    assert not caught.value.code
    assert "rarest organ" in printed
    assert "plan: " in printed
    load_experiment.cache_clear()
    experiment = load_experiment("planned")
    load_experiment.cache_clear()
    assert experiment.patch_size is not None
    batch = experiment.changes["training"]["batch_size"]
    assert f"{batch} patches of {' x '.join(map(str, experiment.patch_size))} voxels" in printed


def test_command_tells_faults_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*arguments: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main(["plan", *arguments])
        assert caught.value.code == 2
        text = capsys.readouterr().err.strip()
        assert text.startswith("hnlib: ")
        assert "\n" not in text
        return text

    assert "did you mean 'openkbp'" in fails("opnkbp", "--memory", "11GB")
    assert "such as 11GB" in fails(str(folder), "--memory", "eleven")
    assert "unknown measure 'sigma'" in fails(str(folder), "--memory", "1GB", "--measure", "sigma")
    assert "unknown network of the memory model 'dynnet'" in fails(
        str(folder), "--memory", "1GB", "--network", "dynnet"
    )
    assert "min_levels is 0" in fails(str(folder), "--memory", "1GB", "--min-levels", "0")
    assert "organ_box_fraction is 2.0" in fails(str(folder), "--memory", "1GB", "--organ-box", "2")
    shares = (str(folder), "--memory", "1GB", "--aim", "shares", "--target")
    assert "target 'mandible'" in fails(*shares, "mandible")
    assert "target 'mandible=1'" in fails(*shares, "mandible=2", "--target", "mandible=1")
    assert "all shares are 0" in fails(*shares, "mandible=0")
    assert "targets are for the aim shares" in fails(str(folder), "--memory", "1GB", "--target", "mandible=1")
    few = ("--width", "4", "--voxels-per-step", "20000")
    assert "unknown organ of the targets 'mandibel'" in fails(*shares, "mandibel=1", *few)
    assert "no patch gives a network of 9 levels" in fails(str(folder), "--memory", "1GB", *few, "--min-levels", "9")
    assert "no patch fits" in fails(str(folder), "--memory", "1kB", "--width", "4")
    assert "cannot be read" in fails(str(folder), "--memory", "1GB", "--nnunet", str(folder / "none.json"))
    (folder / "hnlib.yaml").write_text(yaml.safe_dump({"organs": {"jaw": "jaw", "lens_left": "none"}}))
    assert "organ lens_left: no voxel" in fails(str(folder), "--memory", "1GB", "--width", "4")


def test_scans_on_a_grid_are_cropped_and_resampled(folder: Path) -> None:
    """To twice the spacing the body has half the voxels along every axis; without CT the scan keeps its air."""
    from hnlib.datasets import open_dataset

    data = open_dataset("folder", folder)
    names = planning_cases(data)
    assert names == data.split()["train"]
    own, scans = scans_on_grid(data, names)
    double = (own[0] * 2, own[1] * 2, own[2] * 2)
    _, coarse = scans_on_grid(data, names, spacing_mm=double)
    _, whole = scans_on_grid(data, names, outlines_only=True)
    case = data.load(names[0])
    assert own == pytest.approx(case.spacing_mm)
    assert np.array_equal(whole[0].labels, case.labels)
    assert all(n < m for n, m in zip(scans[0].labels.shape[:2], case.labels.shape[:2], strict=True))
    assert [round(n / 2) for n in scans[0].labels.shape] == list(coarse[0].labels.shape)
    with pytest.raises(DataError, match="no case to plan on"):
        scans_on_grid(data, [])
    with pytest.raises(ConfigError, match="three positive numbers"):
        scans_on_grid(data, names, spacing_mm=(1.0, 0.0, 1.0))


def test_any_patch_is_assessed_as_a_plan_is(planned: PatchPlan) -> None:
    """The chosen candidate with its own draw gives its row of the table; another patch may break every limit."""
    row = planned.table[planned.table["chosen"]].iloc[0]
    same = assess(SCANS, SPACING, planned.candidate, planned.draw.weights)
    assert {name: row[name] for name in same} == pytest.approx(same)
    other = candidate_of((48, 40, 24), 1, SPACING, 4, LIMITS)
    found = assess(SCANS, SPACING, other, {"uniform": 1.0})
    assert (found["batch_size"], found["organ_box"]) == (1, 1)
    assert held_organ_box(SCANS, (9, 12, 8)) == pytest.approx(0.5)  # half of the gland's 18 x 12 x 8 voxels


def test_plans_give_both_sides_the_same_weight_and_experiments_keep_theirs() -> None:
    """A tiny left gland in a corner, a large right one in the middle that patches anywhere show oftener.

    By default a plan is even all the same; a planned experiment centres more patches on the left.
    """
    organs = ("parotid_left", "parotid_right")
    labels = np.zeros((48, 40, 30), np.uint8)
    labels[2:4, 2:4, 2:4], labels[16:32, 12:28, 8:22] = 1, 2
    scans = [Scan("lopsided", labels, organs, frozenset(organs))]
    even = plan(scans, SPACING, LIMITS)
    weights = even.draw.weights
    assert weights["parotid_left"] == pytest.approx(weights["parotid_right"], abs=1e-6)
    assert "The two sides of a pair have the same weight." in " ".join(even.reasons)
    free = planned_draw(scans, (16, 16, 16)).weights
    assert free["parotid_left"] > free["parotid_right"] + 0.05
    bound = planned_draw(scans, (16, 16, 16), symmetric=True).weights
    assert bound["parotid_left"] == pytest.approx(bound["parotid_right"], abs=1e-6)


def test_class_uniform_is_the_rule_that_the_reasons_compare_with() -> None:
    """In scans that hold every organ, forcing each equally often is `ClassUniform`."""
    result = plan(SCANS[:2], SPACING, LIMITS)
    rule = CentreDistribution(((1 / 3, UniformPosition()), (2 / 3, ClassUniform())))
    assert rule.weights == pytest.approx(RULES["class_uniform_two_thirds"].weights)
    shown = np.array([presence(s.labels, 4, result.candidate.patch_size, rule)[1:] for s in SCANS[:2]])
    even = shown.mean(axis=0)
    least = ORGANS[int(even.argmin())]
    assert f"beside as many patches anywhere, {least} in {even.min():.1%}." in " ".join(result.reasons)
    assert isinstance(result.table, pd.DataFrame)


def test_organs_that_are_seen_alike_are_all_named() -> None:
    """Half of the patches anywhere, which show a in 0.2, b in 0.4, c always; the rest by hand on a and b."""
    shown = np.array([[0.2, 0.4, 1.0], [1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.2, 0.4, 1.0]])
    weights = {"uniform": 0.5, "a": 0.3, "b": 0.2, "c": 0.0}  # a: 0.1 + 0.3, b: 0.2 + 0.2
    text = _seen(shown, Draw("presence", 0.4, weights), ["a", "b", "c"])
    # forced alike, a sixth each: a 0.1 + 1/6 + 0.2/6 = 0.3, b 0.2 + 1/6 + 0.4/6 = 0.433
    assert text == (
        "Seen least: a and b, in 40.0% of the patches; were all organs forced equally often beside as many patches "
        "anywhere, a in 30.0%. B falls from 43.3% to 40.0%."
    )
    assert _seen(np.ones((4, 3)), Draw("presence", 1.0, weights), ["a", "b", "c"]) == "Every patch shows every organ."


@pytest.mark.parametrize(
    ("organs", "labelled", "text"),
    [
        (("uniform", "gland"), {"gland"}, "'uniform' is a name that no organ may have"),
        (("gland", "gland"), {"gland"}, "'gland' is a name that two organs have"),
        (("gland",), {"lens"}, "lens is labelled but not among the organs"),
    ],
)
def test_names_that_stand_for_something_else_are_refused(
    organs: tuple[str, ...], labelled: set[str], text: str
) -> None:
    with pytest.raises(DataError, match=text):
        Scan("a", np.zeros((4, 4, 4), np.uint8), organs, frozenset(labelled))
