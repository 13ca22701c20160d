"""FocusNet as a system: S-Net, then SOL-Net, then the SOS-Nets, then all of them together (Gao et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import nn

from hnlib.errors import ConfigError, unknown, wrong_value
from hnlib.losses import build_loss
from hnlib.networks import set_output_prior
from hnlib.networks.focusnet import FocusNet
from hnlib.networks.focusnet_build import DILATIONS, build_focusnet
from hnlib.sampling import UNIFORM, weighted_centres
from hnlib.systems.focusnet_fusion import FocusPredictor, localisation
from hnlib.systems.focusnet_losses import FocusLoss, HeatLoss, RoiLoss
from hnlib.systems.focusnet_statistics import OrganSize, SmallRule, organ_sizes, roi_voxels, small_organs
from hnlib.systems.one_network import network_part, patch_stream, validation_dsc
from hnlib.systems.system import Blueprint, Material, Part, Predictor, System, Weights
from hnlib.training import load_state

FOCUSNET = "focusnet"
#: The one main network that it has.
MAIN = "snet"
#: Share of the patches of the stage of the small networks that are centred on a small organ: in the others a ROI
#: has none, and nothing to teach.
SOS_DRAW = 1.0


class FocusNetOptions(BaseModel):
    """What an experiment may choose of FocusNet.

    Attributes
    ----------
    small_organs
        The small organs by name; none: those for which the rule holds.
    below_voxels, below_ml, longest_mm
        The rule, see `SmallRule`.
    roi
        Side of a ROI over the organ's mean diameter: 2, 3 or 5 in the paper's ablation.
    sigma_mm
        SD of the Gaussian of a heat map.
    heat_power
        See `HeatLoss`.
    small_draw
        Share of the patches of SOL-Net's stage and the joint one that are centred on a small organ, each as often; the
        rest lie anywhere. 0: the experiment's own draw. The paper's crop holds all small organs at once; a patch of a
        few centimetres shows each of them rarely. In the stage of the SOS-Nets every patch is centred on a small organ,
        as one without any teaches them nothing.
    gate
        Least peak of a heat map for its organ to count as present.
    downsamplings, dilations, sos_channels
        See `hnlib.networks.build_focusnet`.
    largest_voxels
        Largest scan that SOL-Net reads at once; see `FocusPredictor` for what else is held.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    small_organs: tuple[str, ...] = ()
    below_voxels: float = Field(1000, gt=0)
    below_ml: float = Field(float("inf"), gt=0)
    longest_mm: float = Field(float("inf"), gt=0)
    roi: float = Field(3, ge=1)
    sigma_mm: float = Field(5.0, gt=0)
    heat_power: float = Field(1.0, ge=0, le=1)
    small_draw: float = Field(0.5, ge=0, le=1)
    gate: float = Field(0.3, ge=0, le=1)
    downsamplings: int = Field(1, ge=1, le=4)
    dilations: tuple[Annotated[int, Field(ge=1)], ...] = DILATIONS
    sos_channels: int | None = Field(None, ge=2)
    largest_voxels: int = Field(2**24, ge=0)

    @field_validator("small_organs")
    @classmethod
    def _named_once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"'{name}' is named {names.count(name)} times; once is needed")
        return names


class FocusNetSystem(System):
    """One network in four stages; what a stage does not train does not move.

    Which organs are small, and the size of their ROIs, come from the training cases and are kept with the weights.
    """

    stages = ("s_net", "sol_net", "sos_net", "joint")
    only_network = MAIN

    def __init__(self, blueprint: Blueprint) -> None:
        super().__init__(blueprint)
        for name in blueprint.options:
            if name not in FocusNetOptions.model_fields:
                raise unknown("focusnet option", name, FocusNetOptions.model_fields)
        try:
            self.options = FocusNetOptions.model_validate(dict(blueprint.options))
        except ValidationError as fault:
            raise ConfigError(f"focusnet: options: {wrong_value(fault.errors()[0])}; correct it") from None

    @property
    def deployed(self) -> tuple[str, ...]:
        """The last stage: its weights are those of the whole network."""
        return self.stages[-1:]

    def part(self, name: str, material: Material, done: Weights) -> Part:
        """Return the network, what is frozen in it, its loss and the patches of a stage."""
        before = self.stages.index(name) - 1
        if before < 0:
            network = self.untrained(material.training)
            if material.prior_bias:
                set_output_prior(network.snet, material.class_fractions)
            own = replace(material, prior_bias=False)  # set above, on the head that it is for
            return network_part(self.blueprint, own, network.train_stage("s_net"))
        network = self.network(done[self.stages[before]]).train_stage(name)  # type: ignore[arg-type]
        validate = self._validation(material) if name == "joint" and material.watched else None
        loss, drawn = self._loss(name, material, network), self._drawn(name, material, network)
        return Part(network, loss, patch_stream(self.blueprint, drawn), validate)

    def predictor(self, weights: Weights, device: torch.device | str = "cpu") -> Predictor:
        """Return the trained system; it tells where it found the small organs of the last image."""
        return self._predictor(self.network(weights["joint"]).to(device).eval(), device)

    def untrained(self, cases: Sequence[Any]) -> FocusNet:
        """Return the network for the small organs of training cases.

        Raises
        ------
        ConfigError
            When no organ is small, or one that is named is in no case.
        """
        small = self._small(cases)
        return self._build([size.value for size in small], [self._roi(size) for size in small])

    def notes(self, material: Material) -> list[str]:
        """Say which organs are small, and how large their ROIs are."""
        small = self._small(material.training)
        rois = (" x ".join(map(str, self._roi(size))) for size in small)
        return [
            f"small: {s.organ}, {s.voxels:.0f} voxels, ROI {roi} voxels" for s, roi in zip(small, rois, strict=True)
        ]

    def _small(self, cases: Sequence[Any]) -> list[OrganSize]:
        options, plan = self.options, self.blueprint.plan
        rule = SmallRule(options.below_voxels, options.below_ml, options.longest_mm)
        return small_organs(organ_sizes(cases, plan.organs, plan.spacing_mm), rule, options.small_organs)

    def network(self, state: Mapping[str, torch.Tensor]) -> FocusNet:
        """Return the network with the weights, small organs and ROI sizes of a state."""
        values, sizes = state["values"].tolist(), state["roi_voxels"].tolist()
        network = self._build(values, [(x, y, z) for x, y, z in sizes])
        load_state(network, state)
        return network

    def _roi(self, size: OrganSize) -> tuple[int, int, int]:
        return roi_voxels(size, self.options.roi, self.blueprint.plan.spacing_mm, self.blueprint.patch)

    def _build(self, values: Sequence[int], sizes: Sequence[tuple[int, int, int]]) -> FocusNet:
        blueprint, options = self.blueprint, self.options
        return build_focusnet(
            blueprint.topology,
            blueprint.num_classes,
            values,
            sizes,
            width=blueprint.width,
            cap=blueprint.cap,
            downsamplings=options.downsamplings,
            dilations=options.dilations,
            sos_channels=options.sos_channels,
        )

    def _drawn(self, stage: str, material: Material, network: FocusNet) -> Material:
        """Return the material with the draw of a stage after S-Net's: they learn where small organs are."""
        share, organs = SOS_DRAW if stage == "sos_net" else self.options.small_draw, self.blueprint.plan.organs
        if not share:
            return material
        values = network.values.tolist()
        weights = {organs[value - 1]: share / len(values) for value in values} | {UNIFORM: 1 - share}
        return replace(material, centres=weighted_centres(weights, organs))

    def _loss(self, name: str, material: Material, network: FocusNet) -> nn.Module:
        values, options = network.values.tolist(), self.options
        heat = HeatLoss(values, self.blueprint.plan.spacing_mm, options.sigma_mm, power=options.heat_power)
        if name == "sol_net":
            return heat
        losses = [build_loss(material.loss, class_voxels=shares) for shares in self._shares(material, network)]
        rois = RoiLoss(losses, values)
        if name == "sos_net":
            return FocusLoss(rois)
        return FocusLoss(rois, build_loss(material.loss, class_voxels=lambda: material.class_fractions), heat)

    def _shares(self, material: Material, network: FocusNet) -> list[tuple[float, float]]:
        """Return the shares of a ROI that are background and organ."""
        sizes = organ_sizes(material.training, self.blueprint.plan.organs, self.blueprint.plan.spacing_mm)
        shares = []
        for value, (x, y, z) in zip(network.values.tolist(), network.sizes, strict=True):
            organ = min(0.9, max(sizes[value - 1].voxels, 1) / (x * y * z))
            shares.append((1 - organ, organ))
        return shares

    def _predictor(self, network: FocusNet, device: torch.device | str) -> Predictor:
        blueprint, options = self.blueprint, self.options
        predict = FocusPredictor(
            network,
            blueprint.patch,
            gate=options.gate,
            mirror=blueprint.mirror,
            largest_voxels=options.largest_voxels,
            device=device,
        )
        return Predictor((network,), predict, lambda prepared: localisation(predict.last, prepared, blueprint.plan))

    def _validation(self, material: Material) -> Callable[[nn.Module], Mapping[str, float]]:
        def validate(network: nn.Module) -> Mapping[str, float]:
            assert isinstance(network, FocusNet)
            predictor = self._predictor(network, material.device)
            return validation_dsc(predictor, material.watched, self.blueprint.plan.organs)

        return validate
