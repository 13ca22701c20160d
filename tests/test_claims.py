"""The ledger of claims: its list, recomputations by hand, and verdicts that follow the tables."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from hnlib.chapters.questions import SEEDLESS
from hnlib.claims import COLUMNS, RULES, VERDICTS, Claim, Evidence, exact, judge, ledger, load_claims, measured, printed
from hnlib.claims.finding import CONTRADICTED, NOT_REPRODUCED, NOT_RUN, NOT_TESTABLE, REPRODUCED, UNDECIDED
from hnlib.errors import ConfigError, DataError
from hnlib.experiment_files import FOUR_CONFIGURATIONS
from hnlib.experiments import load_profile, planned_seeds
from hnlib.experiments.audits import PROFILE
from hnlib.stats import COLUMNS as METRIC_COLUMNS

ROOT = Path(__file__).resolve().parents[1]
CLAIMS = ROOT / "book" / "claims.yaml"
PUBLISHED = ROOT / "results" / "published"
PAPERS, LISTED = load_claims(CLAIMS)
BY_ID = {claim.id: claim for claim in LISTED}
OPEN_CLAIM = {
    "id": "X1",
    "paper": "made",
    "where": "Table 1",
    "what": "a is better than b",
    "figure": "none",
    "judged_by": [{"rule": "difference", "dataset": "scans", "experiment": "a", "baseline": "b"}],
}


def write(path: Path, *claims: dict) -> Path:
    path.write_text(yaml.safe_dump({"papers": {"made": "A made paper"}, "claims": list(claims)}))
    return path


def planned(profile: str, experiments: Sequence[str]) -> int:
    return 5 if set(experiments) <= set(FOUR_CONFIGURATIONS) else 3


def evidence_in(root: Path) -> Evidence:
    return Evidence(root, planned)


def study(folder: Path, tables: dict[str, pd.DataFrame]) -> Path:
    """Write a study named ``scans`` below a folder, and return the folder."""
    place = folder / "scans"
    place.mkdir(parents=True, exist_ok=True)
    (place / "study.json").write_text(json.dumps({"profile": "made"}))
    for name, table in tables.items():
        table.to_csv(place / f"{name}.csv", index=False)
    return folder


def metrics(values: dict[str, float], *, seeds: int = 3, cases: int = 8, organ: str = "mandible") -> pd.DataFrame:
    """Test DSC around a mean for each experiment; cases differ, and so does each experiment's error on them."""
    rng = np.random.default_rng(0)
    rows = []
    for experiment, mean in values.items():
        noise = 0.01 * rng.standard_normal((seeds, cases))
        for seed in range(seeds):
            for case in range(cases):
                value = mean + 0.01 * case + noise[seed, case]
                rows.append(("made", experiment, seed, "test", f"c{case}", organ, "dsc", value))
    return pd.DataFrame(rows, columns=list(METRIC_COLUMNS))


def confidence(values: dict[tuple[str, str, str], float], cases: int = 6) -> pd.DataFrame:
    """Soft recall by (experiment, split, organ), cases spread evenly by 0.02 around it."""
    rows = [
        ("made", experiment, seed, split, f"{split}{case}", organ, value + 0.02 * (case / (cases - 1) - 0.5))
        for (experiment, split, organ), value in values.items()
        for seed in range(3)
        for case in range(cases)
    ]
    return pd.DataFrame(rows, columns=["profile", "experiment", "seed", "split", "case", "organ", "soft_recall"])


# The list


def test_every_claim_of_the_five_papers_has_a_verdict_or_a_stated_reason():
    """114 claims; each is judged from the committed tables, and what is not decided says why."""
    table = ledger(LISTED, PUBLISHED, planned_seeds)
    assert list(table.columns) == list(COLUMNS)
    assert len(table) == 114
    assert set(table["paper"]) == set(PAPERS)
    assert len(PAPERS) == 5
    assert set(table["verdict"]) <= set(VERDICTS)
    assert table["found"].str.len().gt(0).all()
    pages = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} | {"../methods", "../nnunet", ""}
    assert set(table["chapter"]) <= pages
    judged = table[~table["verdict"].isin([NOT_TESTABLE])]
    assert judged["row"].str.len().gt(0).all()


def test_numbers_of_the_facts_are_all_there():
    """Tappeiner's claims are numbered C1 to C15 elsewhere; each number is in the list, whole or by letters."""
    known = {claim.id.rstrip("abcde") for claim in LISTED if claim.paper == "tappeiner2022"}
    assert {f"C{number}" for number in range(1, 16)} <= known


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"paper": "mad"}, "unknown paper of claim X1 'mad': did you mean 'made'"),
        ({"judged_by": []}, "claim X1 is judged by nothing"),
        ({"judged_by": [{"rule": "differnce"}]}, "unknown rule of claim X1 'differnce': did you mean 'difference'"),
        ({"judged_by": [{"rule": "difference", "dataset": "scans"}]}, "rule difference needs experiment, baseline"),
        ({"judged_by": [{"rule": "without_miss", "case": 1}]}, "unknown argument of rule without_miss in claim X1"),
        ({"verdict": "reproduced"}, "claim X1 needs exactly the fields"),
    ],
)
def test_a_list_that_does_not_serve_is_refused(tmp_path, change, text):
    """One line names the claim; a verdict cannot be written into the list."""
    with pytest.raises(ConfigError, match=text):
        load_claims(write(tmp_path / "claims.yaml", {**OPEN_CLAIM, **change}))


def test_a_number_is_given_once_and_the_file_has_to_be_there(tmp_path):
    with pytest.raises(ConfigError, match="X1 is there twice"):
        load_claims(write(tmp_path / "claims.yaml", OPEN_CLAIM, OPEN_CLAIM))
    with pytest.raises(DataError, match="cannot be read"):
        load_claims(tmp_path / "nothing.yaml")
    (tmp_path / "empty.yaml").write_text("papers: {}\n")
    with pytest.raises(DataError, match="papers and claims are needed"):
        load_claims(tmp_path / "empty.yaml")


def test_every_rule_is_used_or_can_be():
    """No rule is dead: each is named by some claim."""
    used = {call["rule"] for claim in LISTED for call in claim.judged_by}
    assert used == set(RULES)


# From the papers' own numbers


def verdict_of(name: str, root: Path = PUBLISHED) -> tuple[str, str]:
    found = judge(BY_ID[name], evidence_in(root))
    return found.verdict, found.found


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({"a": 0.8, "b": 0.7, "c": 0.6}, REPRODUCED),
        ({"a": 0.8, "b": 0.9, "c": 0.6}, NOT_REPRODUCED),
        ({"a": 0.8, "b": 0.9}, NOT_REPRODUCED),
        ({"a": 0.8, "b": 0.7}, NOT_RUN),
    ],
)
def test_ahead_of_all_is_ahead_of_each(tmp_path, values, verdict):
    """One that is ahead decides, whether the other has been run or not."""
    root = study(tmp_path, {"metrics": metrics(values)})
    found = measured.ahead_of_all(evidence_in(root), "scans", "a", ["b", "c"])
    assert found.verdict == verdict
    assert "against b" in found.found
    assert "against c" in found.found


def of_scans(name: str) -> Claim:
    """A claim judged on the made study ``scans``."""
    claim = BY_ID[name]
    calls = [call | {"dataset": "scans"} if "dataset" in call else call for call in claim.judged_by]
    return replace(claim, judged_by=tuple(calls))


@pytest.mark.parametrize(("value", "verdict"), [(0.6, REPRODUCED), (0.8, NOT_REPRODUCED)])
def test_noise_is_a_fall(tmp_path, value, verdict):
    """C23 says that the generalised Dice harms."""
    values = {"small_nnu_dice_ce": 0.7, "small_generalised_dice_ce": value}
    root = study(tmp_path, {"metrics": metrics(values)})
    assert judge(of_scans("C23"), evidence_in(root)).verdict == verdict


@pytest.mark.parametrize(("rise", "verdict"), [(0.1, REPRODUCED), (-0.1, NOT_REPRODUCED)])
def test_of_two_things_claimed_both_must_hold(tmp_path, rise, verdict):
    """S12 claims better outlines and more confidence."""
    names = ("small_ca_dice_ce", "large_nnu_dice_ce")
    values = {(name, split, "mandible"): 0.7 for name in names for split in ("train", "test")}
    values[names[0], "test", "mandible"] += rise
    tables = {"metrics": metrics({names[0]: 0.8, names[1]: 0.7}), "confidence": confidence(values)}
    assert judge(of_scans("S12"), evidence_in(study(tmp_path, tables))).verdict == verdict


def test_an_atlas_stands_among_the_metrics_beside_every_seed(tmp_path):
    """It has one run of its own, and nobody waits for more; the spread is that of the other's seeds."""
    root = study(tmp_path, {"metrics": metrics({"a": 0.8}), "atlas": metrics({"atlas": 0.6}, seeds=1)})
    found = measured.difference(evidence_in(root), "scans", "a", "atlas")
    assert (found.verdict, found.partial) == (REPRODUCED, "")


def test_mean_distance_without_the_missed_chiasm():
    """(15 x 69.42 - 1000) / 14 = 2.95 mm; the row mean falls from 12.82 to 3.32 mm, below the baseline's 4.05."""
    verdict, text = verdict_of("C6c")
    assert verdict == REPRODUCED
    assert "3.32 mm without it, baseline 4.05 mm (-18 %)" in text
    assert "average 2.95 mm" in text
    assert "SD of 257.4, printed 257.44" in text


def test_three_per_cent_are_two_point_four_points():
    """0.7957 - 0.7714 from the rows of Table 1; rounding leaves 0.3 points open."""
    found = printed.change("dsc", "small_ca_dice_ce", "large_nnu_dice_ce", 3)
    assert found.found == "+2.4 points, +3.1 % relative (rounding of the rows: ±0.3)"
    assert found.verdict == REPRODUCED
    assert printed.change("dsc", "small_ca_dice_ce", "large_nnu_dice_ce", 4).verdict == CONTRADICTED


def test_loss_adds_nothing_to_surface_dice_at_the_small_patch():
    """Both rows average 0.9414, so that "another 1 %" is not in the table."""
    found = printed.change("surface_dsc_axes_swapped", "small_ca_dice_ce", "small_nnu_dice_ce", 1)
    assert found.verdict == CONTRADICTED
    assert found.found.startswith("+0.0 points")


def test_distance_of_the_small_patch():
    """4.049 to 3.143 mm."""
    found = printed.change("hd95_plastimatch_mm", "small_nnu_dice_ce", "large_nnu_dice_ce", -0.91, unit="mm", digits=2)
    assert (found.verdict, found.found[:9]) == (REPRODUCED, "-0.906 mm")
    found = printed.change("hd95_plastimatch_mm", "small_nnu_dice_ce", "large_nnu_dice_ce", -22, unit="percent")
    assert (found.verdict, found.found[:7]) == (REPRODUCED, "-22.4 %")


def test_two_single_organ_values_get_worse():
    """DSC of the chiasm 0.54 to 0.53 and of the right parotid 0.84 to 0.83, although all are said to improve."""
    verdict, text = verdict_of("C6d")
    assert verdict == CONTRADICTED
    assert "2 worse: optic_chiasm dsc 0.54 to 0.53; parotid_right dsc 0.84 to 0.83" in text


def test_loss_gains_less_at_the_small_patch():
    """0.7957 - 0.7929 against 0.7800 - 0.7714: +0.3 and +0.9 points, more apart than rounding can make them."""
    found = printed.loss_gains_more_at_small()
    assert found.verdict == CONTRADICTED
    assert found.found.startswith("+0.3 points at the small, +0.9 at the large patch (rounding: ±0.4)")


def test_sigma_is_a_function_of_the_background_share():
    """0.9805 of background leaves sigma between 0.32335 and 0.32341 whatever the organs share."""
    verdict, text = verdict_of("C2e")
    assert verdict == CONTRADICTED
    assert "fixes σ to 0.32335–0.32341" in text


@pytest.mark.parametrize(
    ("name", "verdict", "part"),
    [
        ("C2a", REPRODUCED, "σ = 0.33010"),
        ("C2b", REPRODUCED, "σ = 0.27130, printed 0.27146"),
        ("C2d", CONTRADICTED, "least at 8x8x8"),
        ("C4", CONTRADICTED, "from 1.55 to 1.26 %"),
        ("C7b", CONTRADICTED, "1e-05 at a predicted mass of 1"),
        ("C12b", CONTRADICTED, "mandible > parotid_right > parotid_left > brainstem"),
        ("C12c", REPRODUCED, "large: mandible > brainstem"),
        ("G3", CONTRADICTED, "the 18 organs average 60.1, printed 62.3"),
        ("G12", CONTRADICTED, "1.9 % of the cube"),
        ("G17", CONTRADICTED, "0 of 3 (Table 5"),
        ("P1a", CONTRADICTED, "5 of 9"),
        ("P1d", CONTRADICTED, "7 of 9"),
        ("P2a", CONTRADICTED, "3 of 9"),
        ("H6", REPRODUCED, "rose in all of 200"),
        ("H10", REPRODUCED, "100 are kept without the map and 51 with it"),
    ],
)
def test_recomputed_claims(name, verdict, part):
    """Worked by hand from the printed rows, equations and shares."""
    found = verdict_of(name)
    assert found[0] == verdict
    assert part in found[1]


def test_pu_leads_in_seven_of_nine():
    """By DSC: all but the left parotid and the right submandibular gland."""
    found = printed.leads("pu2020", {"II": "dsc_percent"}, "coarse_to_fine", claimed=7)
    assert found.verdict == REPRODUCED
    assert "parotid_left" not in found.found
    assert "submandibular_right" not in found.found
    assert printed.leads("pu2020", {"II": "dsc_percent"}, "coarse_to_fine", claimed=3).verdict == CONTRADICTED


def test_means_of_pu_by_hand():
    """Rows of Table I average 72.9 after fusion and 72.6 from above."""
    found = printed.best_mean("pu2020", "I", "dsc_percent", "fusion")
    assert (found.verdict, found.found) == (REPRODUCED, "72.9 against 72.6")


def test_own_numbers_do_not_confirm_themselves():
    """FocusNet leads its Table 3, and PDDCA is not at hand: not testable, with what the table says beside it."""
    assert verdict_of("G13") == (
        NOT_TESTABLE,
        "the PDDCA scans are not at hand; beside it: 80.29 against 79.25",
    )


def test_a_missed_cube_costs_dice_alike_at_any_size():
    """64^3 voxels; 20^3 against 4^3: cross-entropy 125 times, Dice 0.5067 / 0.4991 = 1.015 times."""
    verdict, text = verdict_of("H8")
    assert verdict == REPRODUCED
    assert "Dice loss 1.02 times and cross-entropy 125 times" in text
    assert exact.response_to_a_missed_object(large=60).verdict == CONTRADICTED  # nearly the whole patch


def test_a_ball_in_a_tight_cube_is_balanced():
    """(pi / 6) of a cube of one diameter is organ: the rule can also say yes."""
    assert exact.cube_is_balanced(1).verdict == REPRODUCED


# From runs


def open_ledger(tmp_path: Path, tables: dict[str, pd.DataFrame]) -> pd.Series:
    _, claims = load_claims(write(tmp_path / "claims.yaml", OPEN_CLAIM))
    return ledger(claims, study(tmp_path / "results", tables), planned).iloc[0]


def test_phantom_cases_are_not_called_patients(tmp_path):
    root = study(tmp_path, {"metrics": metrics({"a": 0.8, "b": 0.6})})
    (root / "scans").rename(root / "phantom")
    found = measured.difference(evidence_in(root), "phantom", "a", "b")
    assert found.found.endswith(" points, 8 phantom cases, no patients")


def test_a_made_table_flips_the_verdict(tmp_path):
    """The same claim, three tables: better, worse, and not told apart."""
    better = open_ledger(tmp_path, {"metrics": metrics({"a": 0.8, "b": 0.6})})
    assert (better["verdict"], better["partial"], better["chapter"]) == (REPRODUCED, "", "09_evaluation")
    assert better["found"].endswith(" points, 8 patients")
    low, _, high = better["interval"].partition(" to ")
    assert 18 < float(low) < float(better["found"].split()[0]) < float(high) < 22
    worse = open_ledger(tmp_path, {"metrics": metrics({"a": 0.6, "b": 0.8})})
    assert worse["verdict"] == NOT_REPRODUCED
    assert "(the opposite)" in worse["found"]
    same = metrics({"a": 0.8})
    sign = same["case"].str[1:].astype(int) % 2 * 0.1 - 0.05
    same = open_ledger(
        tmp_path, {"metrics": pd.concat([same, same.assign(experiment="b", value=same["value"] + sign)])}
    )
    assert same["verdict"] == NOT_REPRODUCED
    assert "(not told from zero)" in same["found"]


def test_missing_runs_are_not_yet_run_and_few_seeds_are_partial(tmp_path):
    """Without a study, without one of the experiments, with one seed of three, with another profile's runs only."""
    _, claims = load_claims(write(tmp_path / "claims.yaml", OPEN_CLAIM))
    nothing = ledger(claims, tmp_path, planned).iloc[0]
    assert (nothing["verdict"], nothing["found"]) == (NOT_RUN, "no study of scans")
    one = open_ledger(tmp_path, {"metrics": metrics({"a": 0.8})})
    assert (one["verdict"], one["found"]) == (NOT_RUN, "no run of b on scans")
    few = open_ledger(tmp_path, {"metrics": metrics({"a": 0.8, "b": 0.6}, seeds=1)})
    assert (few["verdict"], few["partial"]) == (UNDECIDED, "1 of 3 seeds")
    other = open_ledger(tmp_path, {"metrics": metrics({"a": 0.8, "b": 0.6}).assign(profile="other")})
    assert other["verdict"] == NOT_RUN


def test_what_seeds_alone_can_make_is_undecided(tmp_path):
    """Every patient gains 0.03, but runs of one experiment differ by 0.1 among themselves; one seed cannot tell."""
    table = metrics({"a": 0.8, "b": 0.8}, cases=20)
    table["value"] += (table["experiment"] == "a") * (0.03 + 0.1 * (table["seed"] - 1))
    row = open_ledger(tmp_path, {"metrics": table})
    assert row["verdict"] == UNDECIDED
    assert "(within the spread between seeds: too few to say)" in row["found"]
    assert float(row["interval"].split()[0]) > 0
    row = open_ledger(tmp_path, {"metrics": table[table["seed"] == 1]})
    assert row["verdict"] == UNDECIDED
    assert "(one seed: their spread is not known)" in row["found"]


def test_organs_that_are_not_learnt_decide_nothing(tmp_path):
    root = study(tmp_path, {"metrics": metrics({"a": 0.1, "b": 0.02}, organ="optic_chiasm")})
    found = measured.difference(evidence_in(root), "scans", "a", "b", organs=["optic_chiasm"])
    assert found.verdict == NOT_RUN
    assert "not learnt at this budget: optic_chiasm (DSC 0.1" in found.found


def test_one_patient_gives_no_verdict(tmp_path):
    row = open_ledger(tmp_path, {"metrics": metrics({"a": 0.8, "b": 0.6}, cases=1)})
    assert (row["verdict"], row["interval"]) == (NOT_RUN, "")
    assert "one patient: no interval" in row["found"]


def test_a_margin_asks_whether_it_is_not_worse(tmp_path):
    """A loss of about 0.01 is worse, but not by more than 0.05."""
    root = study(tmp_path, {"metrics": metrics({"a": 0.78, "b": 0.8})})
    assert measured.difference(evidence_in(root), "scans", "a", "b").verdict == NOT_REPRODUCED
    assert measured.difference(evidence_in(root), "scans", "a", "b", margin=0.05).verdict == REPRODUCED
    close = measured.difference(evidence_in(root), "scans", "a", "b", margin=0.001)
    assert close.verdict == NOT_REPRODUCED
    assert "worse by more than 0.001" in close.found
    table = metrics({"a": 0.78, "b": 0.8})
    table["value"] += (table["experiment"] == "a") * 0.05 * (table["seed"] - 1)
    spread = measured.difference(evidence_in(study(tmp_path, {"metrics": table})), "scans", "a", "b", margin=0.05)
    assert spread.verdict == UNDECIDED  # seeds 0.05 apart do not exclude a loss of 0.05
    across = measured.difference(evidence_in(root), "scans", "a", "b", margin=0.02)
    assert (across.verdict, "(not told from 0.02 less)" in across.found) == (UNDECIDED, True)


def test_runs_of_another_profile_are_named(tmp_path):
    """The study's own profile is the default; another one is named with the data set; a metric may be lacking."""
    both = pd.concat([metrics({"a": 0.8, "b": 0.6}), metrics({"a": 0.6, "b": 0.8}).assign(profile="gpu")])
    evidence = evidence_in(study(tmp_path, {"metrics": both}))
    assert measured.difference(evidence, "scans", "a", "b").verdict == REPRODUCED
    assert measured.difference(evidence, "scans@gpu", "a", "b").verdict == NOT_REPRODUCED
    lacking = measured.difference(evidence, "scans", "a", "b", metric="recall")
    assert lacking.verdict == NOT_RUN
    assert "share no test case with a value of recall" in lacking.found


def test_distances_are_better_when_less(tmp_path):
    root = study(tmp_path, {"metrics": pd.concat([t := metrics({"a": 0.5, "b": 0.9}), t.assign(metric="hd95_mm")])})
    assert measured.difference(evidence_in(root), "scans", "a", "b").verdict == NOT_REPRODUCED
    assert measured.difference(evidence_in(root), "scans", "a", "b", metric="hd95_mm").verdict == REPRODUCED


def test_interaction_of_patch_and_loss(tmp_path):
    """The loss gains 0.1 at the small patch and nothing at the large one; the other way round it is the opposite."""
    four = {"large_nnu_dice_ce": 0.7, "large_ca_dice_ce": 0.7, "small_nnu_dice_ce": 0.6, "small_ca_dice_ce": 0.7}
    found = measured.interaction(evidence_in(study(tmp_path / "one", {"metrics": metrics(four)})), "scans")
    assert (found.verdict, found.partial) == (REPRODUCED, "3 of 5 seeds")
    four.update(small_ca_dice_ce=0.6, large_ca_dice_ce=0.8)
    found = measured.interaction(evidence_in(study(tmp_path / "two", {"metrics": metrics(four)})), "scans")
    assert found.verdict == NOT_REPRODUCED
    assert "(the opposite)" in found.found


def test_organs_lose_little_confidence_where_every_interval_lies_below_the_margin(tmp_path):
    """The mandible loses 0.03 with a spread of 0.04 over patients, and 0.1: less and more than 0.06."""
    for name, loss, verdict in (("less", 0.03, REPRODUCED), ("more", 0.1, NOT_REPRODUCED), ("near", 0.06, UNDECIDED)):
        evidence = evidence_in(study(tmp_path / name, drifting(0.3, loss)))
        found = measured.drift_within(evidence, "scans", ["mandible"], most=0.06, experiments=["a"])
        assert found.verdict == verdict
        assert found.found == f"largest loss {loss:+.3f}, mandible by a; 0.06 allowed"
    lacking = measured.drift_within(evidence, "scans", ["lens_left"], most=0.06, experiments=["a"])
    assert lacking.verdict == NOT_RUN


def test_an_experiment_that_has_not_learnt_the_organ_is_named(tmp_path):
    root = study(tmp_path, {"metrics": metrics({"a": 0.8, "b": 0.0})})
    found = measured.difference(evidence_in(root), "scans", "a", "b")
    assert found.verdict == REPRODUCED
    assert "; b has not learnt " in found.found


def drifting(small: float, large: float) -> dict[str, pd.DataFrame]:
    """A study in which chiasm and mandible are learnt and lose some confidence from training to test."""
    values = {
        ("a", split, organ): 0.9 - (split == "test") * drift
        for organ, drift in (("optic_chiasm", small), ("mandible", large))
        for split in ("train", "test")
    }
    learnt = pd.concat([metrics({"a": 0.7}), metrics({"a": 0.7}, organ="optic_chiasm")])
    return {"metrics": learnt, "confidence": confidence(values)}


def test_drift_of_small_organs_by_hand(tmp_path):
    """0.3 against 0.1: 0.2 more; with the numbers exchanged the claim falls."""
    small = {"organs": ["optic_chiasm"], "experiments": ["a"]}
    found = measured.drift_larger(evidence_in(study(tmp_path / "one", drifting(0.3, 0.1))), "scans", **small)
    assert (found.verdict, found.found) == (REPRODUCED, "+0.200")
    found = measured.drift_larger(evidence_in(study(tmp_path / "two", drifting(0.1, 0.3))), "scans", **small)
    assert (found.verdict, found.found) == (NOT_REPRODUCED, "-0.200 (the opposite)")
    found = measured.drift_larger(evidence_in(tmp_path / "two"), "scans", ["mandible"], experiments=["a"], larger=False)
    assert found.verdict == NOT_REPRODUCED


def test_change_of_drift_and_confidence_by_hand(tmp_path):
    """a drifts by 0.1 and b by 0.3 from the same training confidence: a has 0.2 less drift and 0.2 more confidence."""
    values = {
        (experiment, split, "mandible"): 0.9 - (split == "test") * drift
        for experiment, drift in (("a", 0.1), ("b", 0.3))
        for split in ("train", "test")
    }
    table = confidence(values)
    table["soft_recall"] += 1e-4 * (table["experiment"] == "a") * table["case"].str[-1].astype(int)
    root = study(tmp_path, {"metrics": metrics({"a": 0.7, "b": 0.7}), "confidence": table})
    found = measured.drift_changes(evidence_in(root), "scans", "a", "b", organs=["mandible"])
    assert (found.verdict, found.found) == (REPRODUCED, "-0.200")
    kept = measured.drift_changes(evidence_in(root), "scans", "a", "b", organs=["mandible"], margin=0.02)
    assert (kept.verdict, kept.found) == (NOT_REPRODUCED, "-0.200 (a fall beyond 0.02)")
    assert measured.confidence_rises(evidence_in(root), "scans", "a", "b").found.startswith("+0.200")
    assert measured.confidence_rises(evidence_in(root), "scans", "b", "a").verdict == NOT_REPRODUCED


@pytest.mark.parametrize(("cases", "spread", "verdict"), [(1, 0.0, NOT_RUN), (6, 0.0, REPRODUCED), (6, 0.2, UNDECIDED)])
def test_that_nothing_falls_needs_an_interval_within_the_margin(tmp_path, cases, spread, verdict):
    """Both drift by 0.1. One patient has no interval; patients who differ by 0.2 do not exclude a fall of 0.02."""
    values = {(e, split, "mandible"): 0.9 - 0.1 * (split == "test") for e in "ab" for split in ("train", "test")}
    table = confidence(values, cases=max(cases, 2))
    table = table[table["case"].str[-1].astype(int) < cases]
    sign = table["case"].str[-1].astype(int) % 2 - 0.5
    table["soft_recall"] += (table["experiment"] == "a") * (spread * sign + 1e-4 * table["seed"])
    root = study(tmp_path, {"metrics": metrics({"a": 0.7, "b": 0.7}), "confidence": table})
    found = measured.drift_changes(evidence_in(root), "scans", "a", "b", organs=["mandible"], margin=0.02)
    assert found.verdict == verdict


def test_the_drift_of_small_organs_is_held_against_the_seeds_and_experiments_count_alike(tmp_path):
    """a drifts more in the small organ by 0.2 and b by 0: 0.1 on average, however many seeds b has."""
    values = {
        (e, split, organ): 0.9 - (split == "test") * (drift if organ == "optic_chiasm" else 0.1)
        for e, drift in (("a", 0.3), ("b", 0.1))
        for organ in ("optic_chiasm", "mandible")
        for split in ("train", "test")
    }
    learnt = pd.concat([metrics({"a": 0.7, "b": 0.7}, organ=organ) for organ in ("optic_chiasm", "mandible")])
    table = confidence(values)
    more = [table[table["experiment"] == "b"].assign(seed=k) for k in (3, 4)]
    small = {"organs": ["optic_chiasm"], "experiments": ["a", "b"]}
    evidence = evidence_in(study(tmp_path, {"metrics": learnt, "confidence": pd.concat([table, *more])}))
    found = measured.drift_larger(evidence, "scans", **small)
    assert (found.verdict, found.found) == (REPRODUCED, "+0.100")
    one = evidence_in(study(tmp_path, {"metrics": learnt, "confidence": table[table["seed"] == 0]}))
    assert measured.drift_larger(one, "scans", **small).verdict == UNDECIDED
    apart = (table["organ"] == "optic_chiasm") & (table["split"] == "test")
    table.loc[apart, "soft_recall"] += 0.2 * (table["seed"] - 1)
    evidence = evidence_in(study(tmp_path, {"metrics": learnt, "confidence": table}))
    found = measured.drift_larger(evidence, "scans", **small)
    assert (found.verdict, found.found[:6]) == (UNDECIDED, "+0.100")


def profiles_read(chapter: str) -> set[str]:
    """Profiles that a page names, in its cells or in the modules that they call, and those whose arm it looks for."""
    text = (ROOT / "notebooks" / f"{chapter}.ipynb").read_text().replace('\\"', '"')
    for name in set(re.findall(r"chapters\.(\w+)\.", text)):
        text += (ROOT / "src" / "hnlib" / "chapters" / f"{name}.py").read_text()
    files = [path.stem for path in (ROOT / "experiments" / "profiles").glob("*.yaml")]
    named = {name for name in files if f'"{name}"' in text}
    named |= {PROFILE} if "import PROFILE" in text else set()
    if "load_controlled" in text:
        named |= {name for name in files if "controlled" in load_profile(name).arms}
    return named


def test_the_page_of_a_claim_reads_the_profile_of_its_runs():
    """Runs of the study's own profile are on any page; of another one, on pages that name it."""
    for claim in LISTED:
        for call in claim.judged_by:
            profile, page = call.get("dataset", "").partition("@")[2], call.get("chapter")
            if profile:
                assert profile in profiles_read(page), (claim.id, page)
    table = ledger(LISTED, PUBLISHED, planned_seeds).set_index("id")
    assert table.loc[["C13", "C17", "C20"], "chapter"].tolist() == ["03_observers", "03_observers", "11_confidence"]
    assert (table["chapter"] != "").all()


def test_shares_and_presence_of_other_scans(tmp_path):
    """Sigma of (0.9, 0.1) is 0.4 and of (0.8, 0.2) 0.3; absent with probability 0.5 from each of two patches: 0.25."""
    rows = [
        (patch, "paper", "c0", name, ratio, presence)
        for patch, shares in (("large", (0.9, 0.1)), ("small", (0.8, 0.2)))
        for name, ratio, presence in zip(("background", "mandible"), shares, (1.0, 0.5), strict=True)
    ]
    table = pd.DataFrame(rows, columns=["patch", "centres", "case", "class", "ratio", "presence"])
    evidence = evidence_in(study(tmp_path, {"imbalance": table}))
    assert measured.sigma_falls_on(evidence, "scans").found == "0.4000 to 0.3000"
    found = measured.rarely_absent(evidence, "scans", most=0.05)
    assert (found.verdict, found.found) == (
        NOT_REPRODUCED,
        "at worst the mandible is absent from 25.0 % of the batches of two, 5 % allowed",
    )
    assert measured.rarely_absent(evidence, "scans", most=0.3).verdict == REPRODUCED


def test_every_experiment_of_a_claim_can_be_run():
    """A claim's runs are found by name: experiment and profile exist, and the profile has the experiment."""
    files = {path.stem for path in (ROOT / "experiments").glob("*.yaml")}
    for claim in LISTED:
        for call in claim.judged_by:
            names = {call[key] for key in ("experiment", "baseline") if "dataset" in call and key in call}
            names |= {*call.get("experiments", ()), *call.get("baselines", ())} if "dataset" in call else set()
            names -= set(SEEDLESS)  # no training: scripts/atlas.py writes it
            assert names <= files, claim.id
            dataset, _, profile = call.get("dataset", "").partition("@")
            if dataset:
                settings = load_profile(profile or {"openkbp": "laptop-long", "phantom": "phantom"}[dataset])
                assert names <= set(settings.all_experiments), claim.id
