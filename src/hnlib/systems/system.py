"""The nouns of a staged system: blueprint, material, stage, part, predictor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hnlib.augmentation import AUGMENTATIONS, Augmentation
from hnlib.errors import ConfigError, DataError
from hnlib.networks import Topology, build_network
from hnlib.preprocess import Plan, Prepared
from hnlib.sampling import CentreDistribution
from hnlib.training import Batches, Settings

#: The state of every network that was trained, by the name of its training.
Weights = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class Blueprint:
    """A system without its weights: all that is needed to build it again.

    Attributes
    ----------
    network
        Name in `hnlib.networks.NETWORKS`; of a staged system, its main network.
    width, cap
        Channels of the finest level, most channels of any.
    topology
        Kernels and strides.
    patch
        Voxels of a training patch and of the sliding window along X, Y, Z.
    plan
        Grid, intensity scale and organs.
    mirror
        Values of the mirrored patient where predictions are averaged with those of the mirrored scan.
    system
        Name in `hnlib.systems.SYSTEMS`.
    options
        What the system lets one choose, by name; of one network, what its builder does.
    """

    network: str
    width: int
    cap: int
    topology: Topology
    patch: tuple[int, int, int]
    plan: Plan
    mirror: tuple[int, ...] = ()
    system: str = "one_network"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of classes, background counted."""
        return len(self.plan.organs) + 1

    def build(self, network: str | None = None, num_classes: int | None = None, **options: Any) -> nn.Module:
        """Return the untrained main network, or another of the same plan."""
        return build_network(
            network or self.network,
            self.topology,
            num_classes or self.num_classes,
            width=self.width,
            cap=self.cap,
            **options,
        )


@dataclass(frozen=True)
class Material:
    """What a system is trained on and how; test cases are no part of it.

    Attributes
    ----------
    training, watched
        Preprocessed training cases, and the validation cases that are scored while training.
    organs
        Organs of the labels.
    centres
        Distribution of the patch centres.
    loss
        Of the stage, as `hnlib.losses.build_loss` reads it.
    budget
        Steps, batch and optimiser of one training of the stage.
    seed, device
        Of the run.
    prior_bias, deep_supervision, compile, changes
        As in a profile; `changes` are the random rotations, scalings and changes of intensity.
    """

    training: Sequence[Prepared]
    watched: Sequence[Prepared]
    organs: tuple[str, ...]
    centres: CentreDistribution
    loss: str
    budget: Settings
    seed: int
    device: torch.device
    prior_bias: bool = True
    deep_supervision: Literal["labels", "heads", "sum"] = "labels"
    compile: bool = False
    changes: Augmentation = AUGMENTATIONS["none"]

    @cached_property
    def class_fractions(self) -> list[float]:
        """Mean share of each class over the training scans in which it was outlined."""
        return class_fractions(self.training, self.organs)


def class_fractions(cases: Sequence[Prepared], organs: Sequence[str]) -> list[float]:
    """Return the mean share of each class over the scans in which it was outlined.

    An organ without a voxel counts as one voxel.

    Raises
    ------
    DataError
        When an organ was outlined in none of them.
    """
    for organ in organs:
        if not any(organ in case.labelled for case in cases):
            raise DataError(f"organ {organ}: outlined in no training case; leave it out of the organs, or add a case")
    rows = []
    for case in cases:
        counts = np.maximum(np.bincount(np.asarray(case.labels).ravel(), minlength=len(organs) + 1), 1)
        known = [True, *(organ in case.labelled for organ in organs)]
        rows.append(np.where(known, counts / counts.sum(), np.nan))
    shares = np.nanmean(rows, axis=0)
    return [float(v) for v in shares / shares.sum()]


@dataclass(frozen=True)
class Stage:
    """One entry of a schedule.

    Attributes
    ----------
    name
        One of the system's stages.
    budget
        Steps (shared by all trainings of the stage), batch and optimiser.
    loss
        As `hnlib.losses.build_loss` reads it.
    """

    name: str
    budget: Settings
    loss: str


@dataclass(frozen=True)
class Part:
    """What one training takes: the arguments of `hnlib.training.train` that differ from stage to stage.

    Parameters of the network that do not require a gradient stay as they are. With ``checks`` the training is
    validated so many times, evenly, and ends with the best weights instead of the last.
    """

    network: nn.Module
    loss: nn.Module
    stream: Batches
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None
    checks: int = 0


@dataclass(frozen=True)
class Predictor:
    """A trained system: call it with a normalised image (X, Y, Z) for class probabilities (C, X, Y, Z), float32.

    Attributes
    ----------
    modules
        Its networks.
    predict
        What is called.
    also
        What else is to be measured of the case that was predicted last: a value by (organ, metric).
    """

    modules: tuple[nn.Module, ...]
    predict: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    also: Callable[[Prepared], Mapping[tuple[str, str], float]] | None = None

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return class probabilities of one preprocessed image; they sum to 1 over C."""
        return self.predict(image)

    @property
    def parameters(self) -> int:
        """Number of parameters of all networks that take part."""
        return sum(p.numel() for module in self.modules for p in module.parameters())


class System(ABC):
    """What is trained in stages and predicts a case. A subclass is registered in `hnlib.systems.SYSTEMS`.

    Parameters
    ----------
    blueprint
        Describes it; wrong options raise ConfigError here.
    """

    #: The stages in the order in which they run.
    stages: ClassVar[tuple[str, ...]]
    #: Options that say which trainings there are and what is put out, but change no training of a given name.
    late: ClassVar[frozenset[str]] = frozenset()
    #: Options by name, with their values where an experiment does not give them.
    defaults: ClassVar[Mapping[str, Any]] = {}
    #: The only network that it has; None where an experiment names one.
    only_network: ClassVar[str | None] = None
    #: Settings of an experiment that would do nothing here.
    ignores: ClassVar[tuple[str, ...]] = ()

    def __init__(self, blueprint: Blueprint) -> None:
        if self.only_network not in (None, blueprint.network):
            given, own = blueprint.network, self.only_network
            raise ConfigError(f"system {blueprint.system}: network is '{given}'; its own is {own}, name that")
        self.blueprint = blueprint

    def trainings(self, stage: str) -> tuple[str, ...]:
        """Return the names of the trainings of a stage: one for each organ, say. As a rule the stage's own."""
        return (stage,)

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of the trainings that are run. All, as a rule; those left out keep their share of a stage's steps."""
        return tuple(name for stage in self.stages for name in self.trainings(stage))

    @property
    def deployed(self) -> tuple[str, ...]:
        """Names of the trainings whose weights a predictor needs. All that are run, as a rule."""
        return self.needed

    def notes(self, material: Material) -> list[str]:
        """Return what the training cases decide and a user should read before it trains; nothing, as a rule."""
        return []

    @abstractmethod
    def part(self, name: str, material: Material, done: Weights) -> Part:
        """Return what one training takes, given the weights of all trainings before it."""

    @abstractmethod
    def predictor(self, weights: Weights, device: torch.device | str = "cpu") -> Predictor:
        """Return the trained system from the weights that `deployed` names."""
