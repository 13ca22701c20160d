"""What is compared (experiments) and what it costs (profiles): YAML files, checked when read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from hnlib.augmentation import augmentation
from hnlib.errors import ConfigError, unknown, wrong_value
from hnlib.experiment_files import LARGEST_SEED, config_folder
from hnlib.losses import build_loss
from hnlib.networks import NETWORKS
from hnlib.organs import organ
from hnlib.preprocess import PLAN_RULES
from hnlib.sampling import UNIFORM, centre_rule, weighted_centres
from hnlib.systems import ONE_NETWORK, SYSTEMS, Stage
from hnlib.training import Settings

Triple = tuple[int, int, int]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Edge = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Spacing = tuple[Edge, Edge, Edge]
PatchName = Literal["large", "medium", "small"]
#: Rule of the patch centres that is solved for the patch and the training cases.
PLANNED = "planned"
Model = TypeVar("Model", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StageOf(_Strict):
    """One entry of an experiment's schedule.

    Attributes
    ----------
    name
        One of the stages of the system, in its order.
    share
        Of the experiment's steps.
    loss
        None takes the experiment's.
    training
        Fields of `hnlib.training.Settings` that this stage sets otherwise.
    """

    name: str
    share: float = Field(gt=0, le=1)
    loss: str | None = None
    training: dict[str, Any] = {}


class Experiment(_Strict):
    """What is compared: patch, loss, sampling, network.

    Attributes
    ----------
    title
        Name in figures.
    patch
        ``large`` (nnU-Net's rule for the data and the profile's budget) or ``small`` (half of it in plane), or one
        of the profile's own ``patches``.
    loss
        As `hnlib.losses.build_loss` reads it; weights by class come from the training cases where none are named.
    centres
        Name of the rule for patch centres, as in `hnlib.sampling.RULES`; ``planned`` for the one that
        `hnlib.imbalance.planned_draw` finds for the patch and the training cases; or the share of the patches by
        organ and under ``uniform``, as `hnlib.sampling.weighted_centres` reads them.
    network
        Name in `hnlib.networks.NETWORKS`.
    mirror
        Mirror half of the training patches left to right, paired organs swapped, and average each
        prediction with that of the mirrored scan.
    more_steps
        Multiplies the profile's steps: 2 for an experiment whose step costs half.
    patch_size
        Voxels along X, Y, Z, in place of ``patch``.
    levels
        Most levels of the network; None leaves them to the patch size.
    heads
        Levels that have an output, the finest first: ``[2, 3, 4]`` for 1/4, 1/8 and 1/16 of the resolution. The
        decoder ends at the finest, which is enlarged at inference. None: nnU-Net's, from full resolution down.
    network_of
        Named patch for which the network is planned, so that two patch sizes can have one network. A patch that does
        not divide by that network's strides grows to the next that does. None: the network of its own patch.
    train_cases
        Training cases that are used: ``all``, ``complete`` (those in which every organ is outlined), or the first
        so many.
    changes
        Fields of the profile that this experiment sets otherwise, those of ``training`` nested:
        ``{prior_bias: false, training: {batch_size: 8}}``.
    system
        Name in `hnlib.systems.SYSTEMS`: what is trained, in which stages, and how it predicts a case.
    stages
        The schedule of a system that has several.
    options
        What the system lets one choose, by name; of one network, what its builder does.
    takes
        An experiment whose finished trainings this one takes over where they are its own too; without them it trains
        the same itself.
    """

    title: str
    patch: PatchName | None = None
    loss: str
    centres: str | dict[str, float]
    network: str
    mirror: bool = False
    more_steps: float = Field(1.0, gt=0)
    patch_size: Triple | None = None
    levels: int | None = Field(None, ge=2)
    heads: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    network_of: PatchName | None = None
    train_cases: Literal["all", "complete"] | Annotated[int, Field(ge=1)] = "all"
    changes: dict[str, Any] = {}
    system: str = ONE_NETWORK
    stages: tuple[StageOf, ...] = ()
    options: dict[str, Any] = {}
    takes: str | None = None

    def schedule(self, profile: Profile) -> tuple[Stage, ...]:
        """Return the stages of the system with their budgets and losses.

        Raises
        ------
        ConfigError
            When they are not those of the system, their shares do not sum to 1, or a change is wrong.
        """
        budget, known = self.under(profile).training, SYSTEMS[self.system].stages
        declared = self.stages or tuple(StageOf(name=name, share=1 / len(known)) for name in known)
        names = tuple(stage.name for stage in declared)
        if names != known:
            raise ConfigError(
                f"experiment '{self.title}': stages are {', '.join(names)}; {self.system} has {', '.join(known)}"
            )
        whole = sum(stage.share for stage in declared)
        if abs(whole - 1) > 1e-6:
            raise ConfigError(f"experiment '{self.title}': the shares of its stages sum to {whole:g}; 1 is needed")
        return tuple(
            Stage(
                stage.name,
                self._training(asdict(budget) | {"steps": max(1, round(budget.steps * stage.share))}, stage.training),
                stage.loss or profile.loss or self.loss,
            )
            for stage in declared
        )

    def _training(self, given: Mapping[str, Any], own: Mapping[str, Any]) -> Settings:
        for name in own:
            if name not in TRAINING:
                raise unknown(f"change of training in experiment '{self.title}'", name, TRAINING)
        try:
            return TypeAdapter(Settings).validate_python({**given, **own})
        except ValidationError as fault:
            first = fault.errors()[0]
            told = wrong_value({**first, "loc": ("training", *first["loc"])})
            raise ConfigError(f"experiment '{self.title}': {told}") from None

    def under(self, profile: Profile) -> Profile:
        """Return the profile as it holds for this experiment: with its changes and its number of steps.

        Raises
        ------
        ConfigError
            When a change is no field of the profile that moves a run, or has a wrong value.
        """
        changes = dict(self.changes)
        own = changes.pop("training", {})
        if not isinstance(own, Mapping):
            raise ConfigError(f"experiment '{self.title}': changes: training is {own!r}; its fields by name are needed")
        for name in changes:
            if name not in CHANGEABLE:
                raise unknown(f"change in experiment '{self.title}'", name, CHANGEABLE)
        training = asdict(self._training(asdict(profile.training), own))
        training["steps"] = round(training["steps"] * self.more_steps)
        try:
            return Profile.model_validate({**profile.model_dump(), **changes, "training": training})
        except ValidationError as fault:
            raise ConfigError(f"experiment '{self.title}': changes: {wrong_value(fault.errors()[0])}") from None


class PlanOverride(_Strict):
    """Numbers that replace those derived from the training cases."""

    spacing_mm: Spacing
    clip_hu: tuple[float, float]
    mean_hu: float
    sd_hu: float = Field(gt=0)

    @field_validator("clip_hu")
    @classmethod
    def _ascending(cls, limits: tuple[float, float]) -> tuple[float, float]:
        if not limits[0] < limits[1]:
            raise ValueError(f"{limits[0]:g} to {limits[1]:g}; a lower limit below the upper one is needed")
        return limits


class Profile(_Strict):
    """What a study costs and which runs it has.

    Attributes
    ----------
    study
        Experiments of the study, in the order of its tables.
    arms
        Further studies at the same cost, by name: the experiments that each compares, or the profile whose arm of
        that name holds them. They share the runs, and of those that are in an arm alone only the test cases are
        measured.
    drift_arms
        Arms whose runs are measured on training and validation cases too, as those of the study are.
    seeds
        Seeds of each experiment.
    seeds_of
        Seeds of experiments that have others.
    training
        Steps, batch, optimiser; see `hnlib.training.Settings`.
    patch_voxels
        Budget of voxels of the large patch; None where ``patches`` names both sizes.
    patches
        Fixed patch sizes by name.
    centres, loss
        Rule and loss that replace the experiments' own; None leaves theirs.
    width, cap
        Channels of the finest level, and the most channels of any.
    prior_bias
        Start the output at the class frequencies; see `hnlib.networks.set_output_prior`.
    deep_supervision
        ``labels``: labels are made coarser (nnU-Net); ``heads``: heads are enlarged (paper's code); ``sum``: heads
        are enlarged linearly and all count alike (Hosseini 2024).
    augmentation
        Name in `hnlib.augmentation.AUGMENTATIONS`.
    organs
        Organs of the study, in label order; None takes those of the data set that every case has.
    compile
        Compile the network with torch.compile: minutes before the first step, faster steps on a GPU.
    precision
        ``auto`` (bfloat16 where the hardware has it), ``float32`` or ``bf16``.
    num_cases
        Cases of each split; None takes all.
    phantom_spacing_mm
        Voxel edges of the phantom; None takes 2 x 2 x 2.5 mm. Scans have their own.
    validation_cases
        Validation cases scored during training.
    drift_cases
        Training cases that are predicted for the confidence drift.
    plan
        Fixed spacing and intensity scale; None derives them from the training cases.
    preprocessing
        Name in `hnlib.preprocess.PLAN_RULES`: how they are derived.
    """

    study: tuple[str, ...]
    arms: dict[str, tuple[str, ...]] = {}
    drift_arms: tuple[str, ...] = ()
    seeds: tuple[Seed, ...]
    seeds_of: dict[str, tuple[Seed, ...]] = {}
    training: Settings
    patch_voxels: int | None = Field(None, ge=512)
    patches: dict[PatchName, Triple] | None = None
    centres: str | None = None
    loss: str | None = None
    width: int = Field(16, ge=1)
    cap: int = Field(128, ge=1)
    prior_bias: bool = True
    deep_supervision: Literal["labels", "heads", "sum"] = "labels"
    augmentation: str = "none"
    organs: tuple[str, ...] | None = None
    compile: bool = False
    precision: Literal["auto", "float32", "bf16"] = "auto"
    num_cases: dict[str, int] | None = None
    phantom_spacing_mm: Spacing | None = None
    validation_cases: int = Field(4, ge=0)
    drift_cases: int = Field(16, ge=0)
    plan: PlanOverride | None = None
    preprocessing: str = "nnunet"

    @field_validator("organs")
    @classmethod
    def _each_once(cls, organs: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in organs or ():
            if (organs or ()).count(name) > 1:
                raise ValueError(f"'{name}' is named more than once; each organ once is needed")
        return organs

    @field_validator("arms", mode="before")
    @classmethod
    def _arms_of_other_profiles(cls, arms: Any) -> Any:
        if not isinstance(arms, Mapping):
            return arms
        return {name: _arm_of(found, name) if isinstance(found, str) else found for name, found in arms.items()}

    def seeds_for(self, experiment: str) -> tuple[int, ...]:
        """Return the seeds with which an experiment is run."""
        return self.seeds_of.get(experiment, self.seeds)

    def experiments(self, arms: str = "") -> tuple[str, ...]:
        """Return the experiments of the study, or of one of its arms by name.

        Raises
        ------
        ConfigError
            When the arms are unknown.
        """
        if arms and arms not in self.arms:
            raise unknown("arms", arms, self.arms)
        return self.arms[arms] if arms else self.study

    def runs_with(self, arms: str = "") -> tuple[str, ...]:
        """Return the experiments of the study and of the named arms, each once."""
        return tuple(dict.fromkeys([*self.study, *self.experiments(arms)]))

    @property
    def all_experiments(self) -> tuple[str, ...]:
        """The experiments of the study and of all its arms, each once."""
        return tuple(dict.fromkeys([*self.study, *(name for names in self.arms.values() for name in names)]))

    def measures_drift(self, experiment: str) -> bool:
        """Return whether the runs of an experiment are measured on training and validation cases too."""
        return any(experiment in names for names in (self.study, *(self.arms[arm] for arm in self.drift_arms)))


#: Fields of a profile, and of its training, that an experiment may change.
CHANGEABLE = ("width", "cap", "prior_bias", "deep_supervision", "augmentation", "precision")
TRAINING = tuple(field.name for field in fields(Settings))


def _content(kind: str, folder: Path, name: str) -> Any:
    path = folder / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"{unknown(kind, name, (p.stem for p in folder.glob('*.yaml')))}; looked in {folder}")
    try:
        return yaml.safe_load(path.read_text("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{kind} '{name}', file {path}: not valid YAML ({' '.join(str(fault).split())})") from None


def _read(kind: str, folder: Path, name: str, model: type[Model]) -> Model:
    content = _content(kind, folder, name)
    try:
        return model.model_validate(content)
    except ValidationError as fault:
        told = wrong_value(fault.errors()[0])
        raise ConfigError(f"{kind} '{name}', file {folder / name}.yaml: {told}; correct it") from None


def _arm_of(profile: str, arm: str) -> Any:
    """Return the experiments of an arm as the file of a profile lists them."""
    arms = _content("profile", config_folder() / "profiles", profile).get("arms", {})
    if not isinstance(arms.get(arm), list):
        raise ValueError(f"profile '{profile}' lists no arm '{arm}'")
    return arms[arm]


@cache
def load_experiment(name: str) -> Experiment:
    """Read ``experiments/<name>.yaml``.

    Raises
    ------
    ConfigError
        For an unknown name, a wrong key or value, an unknown loss, rule or network, or a setting that the system would
        ignore.
    """
    found = _read("experiment", config_folder(), name, Experiment)
    if (found.patch is None) == (found.patch_size is None):
        raise ConfigError(f"experiment '{name}': give either patch or patch_size")
    build_loss(found.loss, class_voxels=(1.0, 1.0))  # the real ones come from the training cases
    check_centres(name, found.centres)
    if found.network not in NETWORKS:
        raise unknown("network", found.network, NETWORKS)
    if found.system not in SYSTEMS:
        raise unknown("system", found.system, SYSTEMS)
    given = {*found.changes, *(["mirror"] if found.mirror else [])}
    for setting in SYSTEMS[found.system].ignores:
        if setting in given:
            raise ConfigError(f"experiment '{name}': system {found.system} has no {setting}; leave it out")
    for stage in found.stages:
        build_loss(stage.loss or found.loss, class_voxels=(1.0, 1.0))
    return found


def check_centres(experiment: str, centres: str | Mapping[str, float]) -> None:
    """Refuse a rule that does not exist, or weights that no data set can give a law.

    Raises
    ------
    ConfigError
        For an unknown rule, a name that no organ can have, or weights that are not shares.
    """
    if isinstance(centres, str):
        if centres != PLANNED:
            centre_rule(centres)
        return
    organs = [organ(name).name for name in centres if name != UNIFORM]
    try:
        weighted_centres(centres, organs)
    except ValueError as fault:
        raise ConfigError(f"experiment '{experiment}': centres: {fault}") from None


@cache
def load_profile(name: str) -> Profile:
    """Read ``experiments/profiles/<name>.yaml``.

    Raises
    ------
    ConfigError
        For an unknown name, a wrong key or value, or an unknown experiment in the study or its arms.
    """
    found = _read("profile", config_folder() / "profiles", name, Profile)
    for experiment in found.all_experiments:
        load_experiment(experiment).schedule(found)
    for arm in found.drift_arms:
        if arm not in found.arms:
            raise unknown(f"arm among the drift_arms of profile '{name}'", arm, found.arms)
    for experiment in found.seeds_of:
        if experiment not in found.all_experiments:
            raise unknown(f"experiment among the seeds_of of profile '{name}'", experiment, found.all_experiments)
    augmentation(found.augmentation)
    if found.loss is not None:
        build_loss(found.loss, class_voxels=(1.0, 1.0))
    if found.preprocessing not in PLAN_RULES:
        raise unknown("preprocessing", found.preprocessing, PLAN_RULES)
    if (found.patches is None) == (found.patch_voxels is None):
        raise ConfigError(f"profile '{name}': give either patch_voxels or patches")
    sizes = found.patches or ("large", "small")
    for experiment in found.all_experiments:
        given = load_experiment(experiment)
        for patch in (given.patch, given.network_of):
            if patch is not None and patch not in sizes:
                raise ConfigError(
                    f"profile '{name}': experiment '{experiment}' needs a patch '{patch}'; add it to patches"
                )
    return found


def planned_seeds(profile: str, experiments: Iterable[str]) -> int:
    """Return how many seeds a profile plans for the experiment that has the fewest."""
    return min(len(load_profile(profile).seeds_for(name)) for name in experiments)
