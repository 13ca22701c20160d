"""Configuration: strict YAML, the numbers of the paper, digests of runs, seeds and arms."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from hnlib.errors import ConfigError, DataError
from hnlib.experiment_files import FOUR_CONFIGURATIONS, config_folder, experiment_title
from hnlib.experiments import (
    Experiment,
    Study,
    load_experiment,
    load_profile,
    load_study,
    planned_seeds,
    train_run,
)
from hnlib.experiments.digests import run_digest
from hnlib.imbalance import Scan, landscape
from hnlib.losses import build_loss
from hnlib.sampling import weighted_centres
from hnlib.systems import build_system
from hnlib.systems.one_network import supervised_loss

EXPERIMENTS = sorted(path.stem for path in config_folder().glob("*.yaml"))
PROFILES = sorted(path.stem for path in (config_folder() / "profiles").glob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_valid(name: str) -> None:
    assert load_experiment(name).title


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_is_valid(name: str) -> None:
    assert load_profile(name).study


def test_the_named_profiles_exist() -> None:
    assert {"phantom", "laptop", "laptop-long", "gpu", "paper", "tiny"} <= set(PROFILES)


def test_the_four_configurations_differ_in_patch_and_loss_alone() -> None:
    """Their loss is the paper's baseline and the released ca-Dice; one sampling rule for all."""
    found = {name: load_experiment(name) for name in FOUR_CONFIGURATIONS}
    assert {(e.patch, e.loss) for e in found.values()} == {
        (patch, loss) for patch in ("large", "small") for loss in ("nnu_dice+ce", "ca_dice+ce")
    }
    assert {(e.centres, e.network) for e in found.values()} == {("nnunet", "dynunet")}
    for experiment in found.values():
        build_loss(experiment.loss)


def test_all_four_configurations_pay_the_same_steps_in_every_profile() -> None:
    for name in PROFILES:
        # a test's own, and questions about one configuration or other systems
        if name not in ("tiny", "released") and not name.endswith(("-seven", "-draws", "-coarse", "-focus")):
            assert load_profile(name).study[:4] == FOUR_CONFIGURATIONS


def test_the_paper_profile_agrees_with_the_facts() -> None:
    """Tappeiner et al. 2022, paper and released code: every number of the setting."""
    paper = load_profile("paper")
    settings = paper.training
    assert paper.patches == {"large": (192, 160, 56), "small": (96, 80, 48)}
    assert (paper.width, paper.cap) == (32, 320)
    assert (settings.steps, settings.batch_size, settings.schedule_steps) == (125_000, 2, 125)
    assert (settings.optimiser, settings.learning_rate, settings.momentum) == ("sgd", 0.01, 0.99)
    assert (settings.weight_decay, settings.schedule, settings.clip_norm) == (3e-5, "poly", 12.0)
    assert settings.same_case
    assert (paper.centres, paper.deep_supervision, paper.precision) == ("paper", "heads", "float32")
    assert paper.augmentation == "paper"
    assert not paper.prior_bias
    assert paper.plan is not None
    assert paper.plan.spacing_mm == (0.98000002, 0.98000002, 2.49962478)
    assert paper.plan.clip_hu == (-170.0, 1680.0)
    assert (paper.plan.mean_hu, paper.plan.sd_hu) == (324.7904, 505.2889)


@pytest.fixture
def own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "profiles").mkdir()
    monkeypatch.setenv("HNLIB_EXPERIMENTS", str(tmp_path))
    load_experiment.cache_clear()
    load_profile.cache_clear()
    yield tmp_path
    load_experiment.cache_clear()
    load_profile.cache_clear()


GOOD = "title: t\npatch: large\nloss: ce\ncentres: nnunet\nnetwork: dynunet\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD + "pathc: 3\n", "pathc: no such key; correct it"),
        (GOOD.replace("large", "middling"), "patch: is 'middling'; one of 'large', 'medium' or 'small' is needed"),
        (GOOD.replace("loss: ce", "loss: cee"), "unknown loss 'cee'"),
        (GOOD.replace("nnunet", "nnunnet"), "nnunnet"),
        (GOOD.replace("dynunet", "unet"), "unknown network 'unet'"),
        (GOOD.replace("patch: large\n", ""), "give either patch or patch_size"),
        (GOOD + "patch_size: [16, 16, 16]\n", "give either patch or patch_size"),
        (GOOD.replace("centres: nnunet", "centres: {uniform: 0.5, lens_left: 0.4}"), "sum to 0.9"),
        (GOOD.replace("centres: nnunet", "centres: {Lens: 1}"), "unknown organ 'Lens'"),
        ("title: [", "not valid YAML"),
        ("", "title: is missing; correct it"),
    ],
)
def test_a_wrong_experiment_is_one_line(own_configuration: Path, text: str, told: str) -> None:
    (own_configuration / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_experiment("mine")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"steps": 0}, "training: steps is 0; a number above 0 is needed; correct it"),
        ({"checkpoint_every": 0}, "training: checkpoint_every is 0; a number above 0 is needed; correct it"),
        ({"momentum": 1.5}, "training: momentum is 1.5; a number of at least 0 and below 1 is needed; correct it"),
        ({"weight_decay": -1}, "training: weight_decay is -1.0; a number of at least 0 is needed; correct it"),
        ({"steps": "many"}, "training.steps: is 'many'; a whole number is needed; correct it"),
    ],
)
def test_training_that_cannot_be_is_one_line(own_configuration: Path, setting: dict[str, object], told: str) -> None:
    tiny = yaml.safe_load((Path(__file__).parents[1] / "experiments/profiles/tiny.yaml").read_text())
    (own_configuration / "profiles/mine.yaml").write_text(yaml.safe_dump({**tiny, "training": {"steps": 9, **setting}}))
    with pytest.raises(ConfigError) as caught:
        load_profile("mine")
    assert str(caught.value).endswith(told)


def test_arms_share_a_profile_and_are_asked_for_by_name() -> None:
    profile = load_profile("tiny").model_copy(update={"study": ("a", "b"), "arms": {"losses": ("b", "c")}})
    assert profile.experiments() == ("a", "b")
    assert profile.experiments("losses") == ("b", "c")
    assert profile.runs_with("losses") == profile.all_experiments == ("a", "b", "c")
    with pytest.raises(ConfigError, match="did you mean 'losses'"):
        profile.experiments("loses")
    assert [profile.measures_drift(name) for name in "abc"] == [True, True, False]
    drifting = profile.model_copy(update={"drift_arms": ("losses",)})
    assert [drifting.measures_drift(name) for name in "abc"] == [True, True, True]


def test_unknown_drift_arms_are_told(own_configuration: Path) -> None:
    tiny = Path(__file__).parents[1] / "experiments" / "profiles" / "tiny.yaml"
    text = tiny.read_text().replace("study: ", "study: [] #")
    (own_configuration / "profiles" / "mine.yaml").write_text(text + "arms: {drift: []}\ndrift_arms: [drfit]\n")
    with pytest.raises(ConfigError, match=r"drift_arms of profile 'mine'.*did you mean 'drift'"):
        load_profile("mine")


def test_an_arm_may_be_that_of_another_profile(own_configuration: Path) -> None:
    """Its experiments are listed once; a profile without such a list is told."""
    tiny = (Path(__file__).parents[1] / "experiments" / "profiles" / "tiny.yaml").read_text()
    text = tiny.replace("study: ", "study: [] #")
    (own_configuration / "profiles" / "tiny.yaml").write_text(text + "arms: {drift: []}\n")
    (own_configuration / "profiles" / "mine.yaml").write_text(text + "arms: {drift: tiny}\n")
    assert load_profile("mine").arms == {"drift": ()}
    (own_configuration / "profiles" / "mine.yaml").write_text(text + "arms: {losses: tiny}\n")
    load_profile.cache_clear()
    with pytest.raises(ConfigError, match=r"profile 'mine'.*arms: profile 'tiny' lists no arm 'losses'"):
        load_profile("mine")


def test_the_four_configurations_have_five_seeds_and_the_others_three() -> None:
    assert load_profile("phantom-controlled").arms["controlled"] == load_profile("laptop").arms["controlled"]
    for name in ("laptop", "phantom-controlled"):
        planned = {one: load_profile(name).seeds_for(one) for one in load_profile(name).experiments("controlled")}
        assert {one for one, seeds in planned.items() if seeds == (0, 1, 2, 3, 4)} == set(FOUR_CONFIGURATIONS)
        assert {seeds for one, seeds in planned.items() if one not in FOUR_CONFIGURATIONS} == {(0, 1, 2)}
    assert planned_seeds("laptop", FOUR_CONFIGURATIONS) == 5
    assert planned_seeds("laptop", ("small_nnu_dice_ce", "small_ce")) == 3


def test_seeds_of_an_experiment_that_is_not_run_are_told(own_configuration: Path) -> None:
    tiny = (Path(__file__).parents[1] / "experiments" / "profiles" / "tiny.yaml").read_text()
    text = tiny.replace("study: ", "study: [] #") + "seeds_of: {large_nnu: [0, 1]}\n"
    (own_configuration / "profiles" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"seeds_of of profile 'mine' 'large_nnu'"):
        load_profile("mine")


def test_arms_and_seeds_are_not_in_the_digest_of_a_run() -> None:
    """How much is measured, and how often, moves no result, so that finished runs keep their folders."""
    profile, experiment = load_profile("laptop"), load_experiment("small_nnu_dice_ce")
    bare = profile.model_copy(update={"arms": {}, "drift_arms": (), "seeds_of": {}})
    assert run_digest(experiment, bare, (32, 20, 64), "c") == run_digest(experiment, profile, (32, 20, 64), "c")


def test_the_loss_of_a_profile_replaces_that_of_its_experiments(tiny_study: Study, own_configuration: Path) -> None:
    """All runs of the profile have it, their digests tell, and a wrong name is told when the profile is read."""
    tiny = (Path(__file__).parents[1] / "experiments" / "profiles" / "tiny.yaml").read_text()
    (own_configuration / "mine.yaml").write_text(GOOD)
    (own_configuration / "profiles" / "tiny.yaml").write_text(tiny.replace("study: ", "study: [mine] #"))
    own, before = load_experiment("mine"), tiny_study.run_digest("mine")
    (own_configuration / "profiles" / "tiny.yaml").write_text(
        tiny.replace("study: ", "study: [mine] #") + "loss: tversky+ce\n"
    )
    load_profile.cache_clear()
    assert [stage.loss for stage in own.schedule(load_profile("tiny"))] == ["tversky+ce"]
    assert tiny_study.material(own, 0).loss == "tversky+ce"
    assert tiny_study.run_digest("mine") != before
    (own_configuration / "profiles" / "other.yaml").write_text(
        tiny.replace("study: ", "study: [mine] #") + "loss: dise\n"
    )
    with pytest.raises(ConfigError, match="'dise'"):
        load_profile("other")


def test_an_experiment_changes_fields_of_its_profile() -> None:
    profile = load_profile("laptop")
    changes = {"prior_bias": False, "training": {"batch_size": 8}}
    own = load_experiment("large_ca_dice_ce").model_copy(update={"changes": changes, "more_steps": 0.5})
    assert own.under(profile).training == replace(profile.training, batch_size=8, steps=profile.training.steps // 2)
    assert (own.under(profile).prior_bias, own.under(profile).width) == (False, profile.width)
    assert load_experiment("large_ca_dice_ce").under(profile) == profile


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"widht": 3}, "unknown change in experiment 'mine': 'widht'|did you mean 'width'"),
        ({"study": []}, "unknown change"),
        ({"training": {"batchsize": 8}}, "did you mean 'batch_size'"),
        ({"training": {"batch_size": "many"}}, "training.batch_size"),
        ({"width": "wide"}, "changes: width"),
        ({"width": 0}, "changes: width"),
        ({"cap": -4}, "changes: cap"),
        ({"training": 5}, "changes: training is 5; its fields by name are needed"),
        ({"training": {"learning_rate": float("nan")}}, "learning_rate is nan; a number above 0"),
    ],
)
def test_a_wrong_change_is_told(changes: dict[str, object], told: str) -> None:
    own = load_experiment("large_ca_dice_ce").model_copy(update={"changes": changes, "title": "mine"})
    with pytest.raises(ConfigError, match=told):
        own.under(load_profile("laptop"))


def test_changes_and_levels_give_another_run(tiny_study: Study, own_configuration: Path) -> None:
    tiny = Path(__file__).parents[1] / "experiments" / "profiles" / "tiny.yaml"
    (own_configuration / "profiles" / "tiny.yaml").write_text(tiny.read_text().replace("study: ", "study: [] #"))
    (own_configuration / "deep.yaml").write_text(GOOD)
    (own_configuration / "flat.yaml").write_text(GOOD + "levels: 2\n")
    (own_configuration / "wide.yaml").write_text(GOOD + "changes: {width: 6}\n")
    (own_configuration / "few.yaml").write_text(GOOD + "train_cases: 2\n")
    (own_configuration / "many.yaml").write_text(GOOD + "train_cases: 9\n")
    assert len({tiny_study.run_digest(name) for name in ("deep", "flat", "wide", "few", "many")}) == 5
    assert tiny_study.training_cases(load_experiment("deep")) == tiny_study.split["train"]
    assert tiny_study.training_cases(load_experiment("few")) == tiny_study.split["train"][:2]
    with pytest.raises(ConfigError, match="train_cases is 9, and phantom has 3"):
        tiny_study.training_cases(load_experiment("many"))
    assert tiny_study.topology(load_experiment("flat")).num_levels == 2
    assert tiny_study.topology(load_experiment("deep")).num_levels > 2


def test_heads_are_those_of_the_experiment(tiny_study: Study) -> None:
    """Enlarged heads all count alike, as in Hosseini 2024; a level that the network lacks is told with the title."""
    usual = load_experiment("small_topk_dice_ce")
    found = load_experiment("small_topk_dice_ce_low_heads").model_copy(update={"heads": (1, 2)})
    blueprint, material = tiny_study.blueprint(found), tiny_study.material(found, 0)
    topology, loss = blueprint.topology, supervised_loss(blueprint, material)
    assert (topology.head_levels, loss.weights, loss.resample) == ((1, 2), (1.0, 1.0), "linear")
    network = blueprint.build()
    patch = tiny_study.patch(found)
    heads = network.train()(torch.zeros(1, 1, *patch))
    value = loss(heads, torch.zeros(1, *patch, dtype=torch.int64))
    assert (len(heads), bool(value.isfinite())) == (2, True)
    assert tuple(network.eval()(torch.zeros(1, 1, *patch)).shape[2:]) == patch
    assert supervised_loss(tiny_study.blueprint(usual), tiny_study.material(usual, 0)).weights is None
    with pytest.raises(ConfigError, match=r"topK.*heads are at levels \[2, 9\]"):
        tiny_study.topology(found.model_copy(update={"heads": (2, 9)}))
    profile = load_profile("laptop")
    other = usual.model_copy(update={"heads": (2, 3)})
    assert run_digest(other, profile, (32, 20, 64), "cache") != run_digest(usual, profile, (32, 20, 64), "cache")


def test_heads_leave_the_digests_of_published_runs_alone() -> None:
    """Digest of a finished laptop run, from before experiments had heads."""
    cache = "openkbp-61eea966703b1126"
    found = run_digest(load_experiment("small_dice_ce"), load_profile("laptop"), (32, 20, 64), cache)
    assert found == "878beb3a"


def test_the_digest_knows_the_cases_that_choose_the_weights() -> None:
    """Of systems that end with their best weights the number of watched cases is part of the result."""
    profile = load_profile("laptop-coarse")
    more = profile.model_copy(update={"validation_cases": 9})
    for name, alike in (("coarse_axial", False), ("unet_2d", False), ("two_stage", True), ("rival_dynunet", True)):
        digests = {run_digest(load_experiment(name), one, (8, 8, 8), "c") for one in (profile, more)}
        assert (len(digests) == 1) is alike, name


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mirror: true\n", "system slices has no mirror; leave it out"),
        ("changes: {augmentation: nnunet}\n", "system slices has no augmentation; leave it out"),
    ],
)
def test_a_setting_that_a_system_would_ignore_is_refused(own_configuration: Path, text: str, told: str) -> None:
    (own_configuration / "mine.yaml").write_text(GOOD + "system: slices\n" + text)
    with pytest.raises(ConfigError, match=told):
        load_experiment("mine")


def test_a_file_of_another_encoding_is_told(own_configuration: Path) -> None:
    (own_configuration / "mine.yaml").write_bytes("title: Schädel\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_experiment("mine")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("plan: {spacing_mm: [0, 4, 4], clip_hu: [-100, 200], mean_hu: 0, sd_hu: 1}", "plan.spacing_mm"),
        ("plan: {spacing_mm: [4, 4, 4], clip_hu: [200, -100], mean_hu: 0, sd_hu: 1}", "a lower limit below the upper"),
        ("organs: [brainstem, brainstem]", "'brainstem' is named more than once"),
        ("patch_voxels: 100", "patch_voxels"),
        ("seeds_of: {mine: [-1]}", "seeds_of"),
    ],
)
def test_a_profile_that_would_prepare_rubbish_is_refused(own_configuration: Path, line: str, told: str) -> None:
    text = "study: [mine]\nseeds: [0]\ntraining: {steps: 4}\npatches: {large: [16, 16, 16]}\n"
    (own_configuration / "mine.yaml").write_text(GOOD)
    (own_configuration / "profiles" / "odd.yaml").write_text(text + line + "\n")
    with pytest.raises(ConfigError, match=told):
        load_profile("odd")


def test_a_patch_that_a_network_cannot_take_is_told_before_training(tiny_study: Study) -> None:
    found = load_experiment("large_nnu_dice_ce").model_copy(update={"network": "se_unet"})
    blueprint = replace(tiny_study.blueprint(found), patch=(10, 12, 40))
    with pytest.raises(ConfigError, match="network se_unet: patch 10 x 12 x 40; edges that divide by 8 are needed"):
        build_system(blueprint).part("network", tiny_study.material(found, 0), {})


def test_unknown_names_are_told() -> None:
    with pytest.raises(ConfigError, match="unknown experiment 'large_nnu_dice': did you mean 'large_nnu_dice_ce'"):
        load_experiment("large_nnu_dice")
    with pytest.raises(ConfigError, match="unknown profile 'labtop': did you mean 'laptop'"):
        load_profile("labtop")


def test_run_digest_ignores_cost_of_evaluation_and_follows_the_rest(tiny_study: Study) -> None:
    first = tiny_study.run_digest("large_nnu_dice_ce")
    assert tiny_study.run_digest("small_ca_dice_ce") != first
    assert replace(tiny_study, cache="elsewhere").run_digest("large_nnu_dice_ce") != first
    assert replace(tiny_study, data_root="elsewhere").run_digest("large_nnu_dice_ce") == first


PLANNED = """title: planned
patch_size: [32, 24, 16]
changes: {training: {batch_size: 3}}
loss: nnu_dice+ce
centres: {uniform: 0.5, brainstem: 0.2, optic_chiasm: 0.3}
network: dynunet
"""


def test_an_experiment_may_name_its_patch_batch_and_weights(tiny_study: Study) -> None:
    """What a plan writes is what a run takes: patch, batch and the law of centres by organ."""
    found = Experiment.model_validate(yaml.safe_load(PLANNED))
    assert tiny_study.patch(found) == (32, 24, 16)
    assert tiny_study.settings_of(found).training.batch_size == 3
    weights = {str(part): weight for weight, part in tiny_study.centres(found).components}
    organs = tiny_study.plan.organs
    chiasm, brainstem = (organs.index(name) + 1 for name in ("optic_chiasm", "brainstem"))
    expected = {"UniformPosition()": 0.5, f"SingleClass(label={brainstem})": 0.2, f"SingleClass(label={chiasm})": 0.3}
    assert weights == expected
    with pytest.raises(ConfigError, match="each side must divide by"):
        tiny_study.topology(found.model_copy(update={"patch_size": (33, 24, 16)}))
    with pytest.raises(ConfigError, match="unknown class of the patch centres 'lens_left'"):
        tiny_study.centres(found.model_copy(update={"centres": {"lens_left": 1.0}}))


def test_planned_centres_are_solved_for_the_patch_and_the_training_cases(tiny_study: Study) -> None:
    """Their least presence is no smaller than that of a uniform third and the rest shared evenly by the organs."""
    experiment = load_experiment("large_nnu_dice_ce").model_copy(update={"centres": "planned"})
    law, organs = tiny_study.centres(experiment), tiny_study.plan.organs
    even = weighted_centres({"uniform": 1 / 3, **dict.fromkeys(organs, 2 / 3 / len(organs))}, organs)
    cases = [tiny_study.case(name) for name in tiny_study.training_cases(experiment)]
    scans = [Scan(case.name, case.labels, organs, frozenset(case.labelled)) for case in cases]
    laws = {"planned": law, "even": even}
    table = landscape(scans, [tiny_study.patch(experiment)], laws, quantities=("presence",))
    shown = table[table["class"].isin(organs)].groupby(["centres", "class"])["presence"].mean()
    least = shown.groupby("centres").min()
    assert law.weights[0] == pytest.approx(1 / 3, abs=1e-6)
    assert least["planned"] > least["even"]


def test_new_fields_keep_the_digests_of_old_experiments() -> None:
    """Patch size, batch and weights are in the digest where they are given, and nowhere else."""
    profile = load_profile("laptop")
    old = load_experiment("large_nnu_dice_ce")
    first = {"patch": "large", "loss": "nnu_dice+ce", "centres": "nnunet", "network": "dynunet"}
    assert old.model_dump(exclude={"title"}, exclude_defaults=True) == first
    changed = ({"changes": {"width": 3}}, {"patch_size": (32, 24, 16), "patch": None}, {"centres": {"brainstem": 1.0}})
    digests = {run_digest(old.model_copy(update=change), profile, (32, 24, 16), "cache") for change in ({}, *changed)}
    assert len(digests) == 4


def test_a_study_survives_its_file(tiny_study: Study, tmp_path: Path) -> None:
    tiny_study.save(tmp_path / "study.json")
    assert load_study(tmp_path / "study.json") == tiny_study


@pytest.mark.parametrize("content", [None, "{", '{"dataset": "phantom"}'])
def test_a_missing_or_broken_study_is_one_line(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "study.json").write_text(content)
    with pytest.raises(DataError, match=r"study .*study\.json"):
        load_study(tmp_path / "study.json")


def test_what_is_no_study_is_not_to_be_deleted(tmp_path: Path) -> None:
    """The file may be something else, such as a notebook, or the short study.json beside the tables."""
    for content, text in (
        ("# README", "is no study \\("),
        ('{"dataset": "phantom"}', "is no study \\(it lacks 'split'\\)"),
    ):
        (tmp_path / "study.json").write_text(content)
        with pytest.raises(DataError, match=text + r".*; give the file that hnlib prepare wrote, or prepare again$"):
            load_study(tmp_path / "study.json")


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("run.json", "{", "cannot be read as JSON .*; delete it and run hnlib train again"),
        ("run.json", "[]", "lacks digests, hardware"),
        ("history.csv", "", "cannot be read as a table"),
    ],
)
def test_a_damaged_record_of_a_run_is_one_line(tiny_study: Study, name: str, content: str, text: str) -> None:
    folder = tiny_study.run_folder("large_nnu_dice_ce", 99)
    folder.mkdir(parents=True, exist_ok=True)
    record = dict.fromkeys(
        ("steps", "seconds", "parameters", "voxels_per_step", "patch", "precision", "hardware", "versions", "digests")
    )
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "history.csv").write_text("step\n1\n")
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=text) as caught:
        train_run(tiny_study, "large_nnu_dice_ce", 99)
    assert str(folder / name) in str(caught.value)


def test_a_negative_seed_is_refused(tiny_study: Study) -> None:
    with pytest.raises(ConfigError, match="seed -1"):
        train_run(tiny_study, "large_nnu_dice_ce", -1)


def test_a_patch_that_the_profile_lacks_is_told(tiny_study: Study) -> None:
    with pytest.raises(
        ConfigError, match="medium_class_draw: needs the patch 'medium', and profile tiny has large, small"
    ):
        train_run(tiny_study, "medium_class_draw", 0)


def test_titles_are_those_of_the_files_and_differ() -> None:
    """Those of the four configurations are Tappeiner 2022's, Table 1."""
    assert experiment_title("large_ca_dice_ce") == "large, ca-Dice+CE"
    assert len({experiment_title(name) for name in EXPERIMENTS}) == len(EXPERIMENTS)


def test_an_experiment_of_ones_own_is_called_as_its_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "profiles").mkdir()
    monkeypatch.setenv("HNLIB_EXPERIMENTS", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("title: My idea\n")
    (tmp_path / "broken.yaml").write_text("title: [\n")
    assert [experiment_title(name) for name in ("mine", "broken", "not_there")] == ["My idea", "broken", "not there"]


def test_two_patches_may_have_one_network(tiny_study: Study) -> None:
    """The network of the other patch, and a patch that it can take, no smaller than its own name's."""
    for name, other, own in (
        ("small_patch_same_net", "large_nnu_dice_ce", "small"),
        ("large_patch_small_net", "small_nnu_dice_ce", "large"),
    ):
        experiment, like = load_experiment(name), load_experiment(other)
        assert tiny_study.topology(experiment) == tiny_study.topology(like)
        patch, divisor = tiny_study.patch(experiment), tiny_study.topology(experiment).divisor
        assert all(side % part == 0 for side, part in zip(patch, divisor, strict=True))
        grown = [side - asked for side, asked in zip(patch, tiny_study.patches[own], strict=True)]
        assert all(0 <= more < part for more, part in zip(grown, divisor, strict=True))
        elsewhere = replace(tiny_study, patches={**tiny_study.patches, str(like.patch): (16, 16, 16)})
        assert elsewhere.run_digest(name) != tiny_study.run_digest(name)


def test_the_new_fields_keep_the_digests_of_published_runs() -> None:
    """Digests as they stand in results/published/openkbp/runs.csv."""
    profile, cache = load_profile("laptop-long"), "openkbp-073af0f4e0bee8c2"
    known = {"large_nnu_dice_ce": ((64, 40, 64), "e4a530bd"), "small_ca_dice_ce": ((32, 20, 64), "df4e49a2")}
    for name, (patch, digest) in known.items():
        assert run_digest(load_experiment(name), profile, patch, cache) == digest


@pytest.mark.parametrize("profile", ["laptop", "phantom-controlled"])
def test_the_controlled_arm_takes_apart_what_the_paper_changes_at_once(profile: str) -> None:
    """All eight corners between the two losses, and the printed one; patches that differ in one thing each."""
    arm = [load_experiment(name) for name in load_profile(profile).experiments("controlled")]
    plain = [e for e in arm if e.patch == "small" and e.centres == "nnunet" and not e.changes and not e.network_of]
    corners = set()
    for experiment in plain:
        dice = build_loss(experiment.loss).losses[0]
        corners.add((dice.pooling, dice.background, dice.absent))
    assert len(plain) == len(corners) == 9
    assert {e.network_of for e in arm} == {None, "small", "large"}
    assert {e.changes.get("training", {}).get("batch_size") for e in arm} == {None, 4, 8}
    assert {e.centres for e in arm} == {"nnunet", "paper"}
    theirs = {(e.patch, e.loss) for e in arm if e.centres == "paper"}
    assert theirs == {(load_experiment(name).patch, load_experiment(name).loss) for name in FOUR_CONFIGURATIONS}
