"""A study: one data set prepared under one profile, and where its runs lie."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hnlib.augmentation import augmentation
from hnlib.cache import cache_digest, case_path, load_plan, load_prepared, open_prepared, prepare
from hnlib.cases import SPLITS, Dataset
from hnlib.datasets import open_dataset
from hnlib.errors import ConfigError, DataError
from hnlib.experiments.config import (
    PLANNED,
    Experiment,
    Profile,
    Triple,
    load_experiment,
    load_profile,
)
from hnlib.experiments.digests import run_digest
from hnlib.files import read_json, reason, write_json
from hnlib.imbalance import Scan, planned_draw
from hnlib.networks import Topology, halve_in_plane, plan_patch, plan_topology
from hnlib.organs import mirror_values
from hnlib.preprocess import PLAN_RULES, Plan, Prepared
from hnlib.processes import WORKERS
from hnlib.sampling import CentreDistribution, centre_rule, weighted_centres
from hnlib.systems import Blueprint, Material

Progress = Callable[[str, int, int], None]
#: What the record of a finished training says at least.
RECORD = frozenset(
    {"steps", "seconds", "parameters", "voxels_per_step", "patch", "precision", "hardware", "versions", "digests"}
)


def home(kind: str) -> Path:
    """Return the folder outside the checkout for ``runs`` or ``cache``: HNLIB_RUNS, HNLIB_CACHE or ~/.cache/hnlib."""
    given = os.environ.get(f"HNLIB_{kind.upper()}")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "hnlib" / kind


@dataclass(frozen=True)
class Study:
    """A prepared data set under a profile; written to ``study.json``, from which every later step starts.

    Attributes
    ----------
    dataset, profile
        Names.
    data_root
        Folder of the data; empty for the phantom.
    attribution
        Where the scans come from, for captions.
    data_digest
        Digest of the data set's content.
    cache
        Folder of the preprocessed cases.
    split
        Case names by split.
    patches
        Patch size by name.
    plan
        Grid and intensity scale.
    """

    dataset: str
    profile: str
    data_root: str
    attribution: str
    data_digest: str
    cache: str
    split: Mapping[str, tuple[str, ...]]
    patches: Mapping[str, Triple]
    plan: Plan

    @property
    def settings(self) -> Profile:
        """The profile's settings."""
        return load_profile(self.profile)

    @property
    def num_classes(self) -> int:
        """Number of classes, background counted."""
        return len(self.plan.organs) + 1

    def open(self) -> Dataset:
        """Return the data set that the study was prepared from."""
        return _open(self.dataset, self.data_root, self.settings)

    def case(self, name: str) -> Prepared:
        """Read one preprocessed case."""
        return load_prepared(case_path(Path(self.cache), name))

    def open_case(self, name: str) -> Prepared:
        """Open one preprocessed case, whose volumes are read where they are sliced."""
        return open_prepared(case_path(Path(self.cache), name))

    def training_cases(self, experiment: Experiment) -> tuple[str, ...]:
        """Return the names of the cases that an experiment is trained on.

        Raises
        ------
        ConfigError
            When there are none, or fewer than the experiment names.
        """
        names, wanted = self.split["train"], experiment.train_cases
        if wanted == "complete":
            names = tuple(name for name in names if set(self.open_case(name).labelled) >= set(self.plan.organs))
        elif wanted != "all":
            names = names[:wanted]
        if not names or len(names) < (wanted if isinstance(wanted, int) else 1):
            raise ConfigError(
                f"experiment '{experiment.title}': train_cases is {wanted}, "
                f"and {self.dataset} has {len(names)} such cases"
            )
        return names

    def settings_of(self, experiment: Experiment) -> Profile:
        """Return the profile's settings with what an experiment changes in them."""
        return experiment.under(self.settings)

    def topology(self, experiment: Experiment) -> Topology:
        """Return the levels of an experiment's network.

        Raises
        ------
        ConfigError
            When the experiment names a patch size or heads that no network on this grid can have.
        """
        patch = self.patches[experiment.network_of] if experiment.network_of else self.patch(experiment)
        try:
            return plan_topology(
                patch, self.plan.spacing_mm, max_levels=experiment.levels, heads=experiment.heads or ()
            )
        except ValueError as fault:
            raise ConfigError(f"experiment '{experiment.title}': {fault}") from None

    def blueprint(self, experiment: Experiment) -> Blueprint:
        """Return the system of an experiment, without its weights."""
        settings = self.settings_of(experiment)
        return Blueprint(
            network=experiment.network,
            width=settings.width,
            cap=settings.cap,
            topology=self.topology(experiment),
            patch=self.patch(experiment),
            plan=self.plan,
            mirror=self.mirror(experiment),
            system=experiment.system,
            options=experiment.options,
        )

    def material(self, experiment: Experiment, seed: int, device: torch.device | None = None) -> Material:
        """Return what an experiment is trained on and how, before its schedule divides the steps."""
        settings = self.settings_of(experiment)
        return Material(
            training=[self.open_case(name) for name in self.training_cases(experiment)],
            watched=self._watched(settings.validation_cases),
            organs=self.plan.organs,
            centres=self.centres(experiment),
            loss=self.settings.loss or experiment.loss,
            budget=settings.training,
            seed=seed,
            device=device or torch.device("cpu"),
            prior_bias=settings.prior_bias,
            deep_supervision=settings.deep_supervision,
            compile=settings.compile,
            changes=augmentation(settings.augmentation),
        )

    def _watched(self, count: int) -> list[Prepared]:
        """Return validation cases to score while training, those with the most organs outlined first."""
        names = sorted(self.split["validation"], key=lambda name: -len(self.open_case(name).labelled))
        return [self.case(name) for name in names[:count]]

    def centres(self, experiment: Experiment) -> CentreDistribution:
        """Return the rule for patch centres of an experiment under this profile.

        Raises
        ------
        ConfigError
            When the experiment gives a weight to an organ that the study does not have.
        DataError
            When the centres are to be planned and an organ is in no training case.
        """
        centres = self.settings.centres or experiment.centres
        if centres == PLANNED:
            cases = [self.open_case(name) for name in self.training_cases(experiment)]
            scans = [Scan(c.name, np.asarray(c.labels), self.plan.organs, frozenset(c.labelled)) for c in cases]
            centres = dict(planned_draw(scans, self.patch(experiment)).weights)
        return centre_rule(centres) if isinstance(centres, str) else weighted_centres(centres, self.plan.organs)

    def patch(self, experiment: Experiment) -> Triple:
        """Return the voxels along X, Y, Z of an experiment's patch, one that its network can take."""
        x, y, z = experiment.patch_size or self.patches[str(experiment.patch)]
        if experiment.network_of is None:
            return x, y, z
        a, b, c = self.topology(experiment).divisor
        return -(-x // a) * a, -(-y // b) * b, -(-z // c) * c

    def mirror(self, experiment: Experiment) -> tuple[int, ...]:
        """Return the label values of the mirrored patient where an experiment mirrors, else nothing."""
        return mirror_values(self.plan.organs) if experiment.mirror else ()

    def run_digest(self, experiment: str) -> str:
        """Return the digest of all that moves the result of a run, apart from its seed."""
        found = load_experiment(experiment)
        network_patch = self.patches[found.network_of] if found.network_of else None
        return run_digest(found, self.settings, self.patch(found), Path(self.cache).name, network_patch)

    def run_folder(self, experiment: str, seed: int) -> Path:
        """Return the folder of a run; another configuration or other data give another folder."""
        name = f"seed{seed}-{self.run_digest(experiment)}"
        return home("runs") / self.dataset / self.profile / experiment / name

    def save(self, path: Path) -> None:
        """Write the study as JSON."""
        write_json(path, asdict(self))


def prepare_study(dataset: str, profile: str, data_root: str = "", *, progress: Progress | None = None) -> Study:
    """Preprocess a data set under a profile, or find it in the cache.

    Raises
    ------
    ConfigError
        For an unknown data set or profile.
    DataError
        For missing or broken data.
    """
    settings = load_profile(profile)
    data = _open(dataset, data_root, settings)
    rule = PLAN_RULES[settings.preprocessing]
    change = _override(settings)
    plan, cache = prepare(data, home("cache"), workers=WORKERS, progress=progress, change=change, rule=rule)
    patches: dict[str, Triple] = {str(name): size for name, size in (settings.patches or {}).items()}
    if settings.patch_voxels is not None:
        large = plan_patch(plan.median_shape, plan.spacing_mm, settings.patch_voxels)
        patches = {"large": large, "small": halve_in_plane(large, plan.spacing_mm)}
    return Study(
        dataset=dataset,
        profile=profile,
        data_root=str(data_root),
        attribution=data.attribution,
        data_digest=data.digest(),
        cache=str(cache),
        split=data.split(),
        patches=patches,
        plan=plan,
    )


def left_out(study: Study) -> dict[str, tuple[str, ...]]:
    """Return the cases of each split that the profile's ``num_cases`` leaves out; of a phantom there are no others."""
    if study.dataset == "phantom" or study.settings.num_cases is None:
        return {}
    whole = open_dataset(study.dataset, study.data_root, organs=study.settings.organs).split()
    rest = {split: tuple(n for n in names if n not in study.split[split]) for split, names in whole.items()}
    return {split: names for split, names in rest.items() if names}


def _open(dataset: str, data_root: str, settings: Profile) -> Dataset:
    grid = settings.phantom_spacing_mm
    return open_dataset(dataset, data_root or None, settings.num_cases, settings.organs, phantom_spacing_mm=grid)


def _override(settings: Profile) -> Callable[[Plan], Plan]:
    fixed: dict[str, Any] = settings.plan.model_dump() if settings.plan else {}
    return lambda plan: replace(plan, **fixed)


def load_study(path: Path) -> Study:
    """Read ``study.json``.

    Raises
    ------
    DataError
        When the file is missing or damaged, or its cache is gone.
    """
    try:
        stored = json.loads(Path(path).read_text())
        stored["split"] = {key: tuple(stored["split"][key]) for key in SPLITS}
        stored["patches"] = {key: tuple(value) for key, value in stored["patches"].items()}
        stored["plan"] = load_plan(Path(stored["cache"]))
        study = Study(**stored)
    except FileNotFoundError:
        raise DataError(f"study {path}: no such file; run hnlib prepare first") from None
    except (OSError, ValueError, KeyError, TypeError) as fault:
        why = f"it lacks {fault}" if isinstance(fault, KeyError) else reason(fault)
        raise DataError(
            f"study {path}: is no study ({why}); give the file that hnlib prepare wrote, or prepare again"
        ) from None
    if not Path(study.cache).name.endswith(cache_digest(study.data_digest, study.plan)):
        raise DataError(
            f"study {path}: its cache {study.cache} is of another version of hnlib; run hnlib prepare again"
        )
    return study


def check_run(study: Study, experiment: str, seed: int) -> Experiment:
    """Return the experiment of a run, after refusing what cannot be run."""
    found = load_experiment(experiment)
    if seed < 0:
        raise ConfigError(f"seed {seed}: a whole number of at least 0 is needed")
    for patch in filter(None, (None if found.patch_size else found.patch, found.network_of)):
        if patch not in study.patches:
            raise ConfigError(
                f"experiment {experiment}: needs the patch '{patch}', and profile {study.profile} has "
                f"{', '.join(study.patches)}; name its size under patches of the profile"
            )
    return found


def read_record(folder: Path) -> dict[str, Any]:
    """Read the ``run.json`` of a finished training.

    Raises
    ------
    DataError
        When it is damaged.
    """
    remedy = "delete it and run hnlib train again, which goes on from the checkpoint"
    record = read_json(folder / "run.json", remedy)
    lacking = RECORD - record.keys() if isinstance(record, dict) else RECORD
    if lacking:
        raise DataError(f"file {folder / 'run.json'}: lacks {', '.join(sorted(lacking))}; {remedy}")
    return dict(record)
