"""Inference: blended windows agree with a whole pass where they must; components are kept by size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hnlib.inference import keep_largest_components, predict_probabilities


class Threshold(nn.Module):
    """Logits that depend on each voxel alone, so that windows cannot matter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([-x, x], dim=1)


@pytest.mark.parametrize("shape", [(9, 8, 8), (20, 13, 17), (5, 30, 8)])
def test_a_voxelwise_network_gives_the_same_in_any_window(shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = predict_probabilities(Threshold(), image, (8, 8, 8))
    assert found.shape == (2, *shape)
    assert found[1] == pytest.approx(1 / (1 + np.exp(-2 * image)), abs=1e-5)
    assert found.sum(axis=0) == pytest.approx(1, abs=1e-5)


class LeftOfCentre(nn.Module):
    """Class 1 on the low half of X and class 2 on the high half, whatever the image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        side = torch.linspace(3, -3, x.shape[2]).reshape(1, 1, -1, 1, 1).expand_as(x)
        return torch.cat([torch.zeros_like(x), side, -2 * side], dim=1)


def test_mirroring_averages_both_sides_of_the_patient() -> None:
    """By hand: the mirrored prediction comes back along X with the pair's values exchanged."""
    image = np.zeros((8, 8, 8), np.float32)
    plain = predict_probabilities(LeftOfCentre(), image, (8, 8, 8))
    both = predict_probabilities(LeftOfCentre(), image, (8, 8, 8), mirror=(0, 2, 1))
    assert both[1] == pytest.approx((plain[1] + plain[2][::-1]) / 2, abs=1e-6)
    assert both[2] == pytest.approx(both[1][::-1], abs=1e-6)
    assert both.sum(axis=0) == pytest.approx(1, abs=1e-5)


def test_the_network_is_left_in_the_mode_it_was_in() -> None:
    network = Threshold().train()
    predict_probabilities(network, np.zeros((8, 8, 8), np.float32), (8, 8, 8))
    assert network.training


def test_only_the_largest_piece_of_each_organ_stays() -> None:
    labels = np.zeros((12, 3, 3), np.uint8)
    labels[0:3, 0, 0] = 1
    labels[5, 0, 0] = 1
    labels[8:12, 2, 2] = 2
    kept = keep_largest_components(labels)
    assert (kept == 1).sum() == 3
    assert (kept == 2).sum() == 4
    assert kept[5, 0, 0] == 0


def test_pieces_that_touch_at_a_corner_are_one() -> None:
    labels = np.zeros((2, 2, 2), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 1
    assert (keep_largest_components(labels) == 1).sum() == 2


def test_an_empty_prediction_stays_empty() -> None:
    assert not keep_largest_components(np.zeros((3, 3, 3), np.uint8)).any()
