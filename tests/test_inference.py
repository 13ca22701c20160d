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
