"""Segmentation by registration: outlines follow the image, votes are counted among those who have an opinion."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from hnlib.atlas import carry_labels, fuse_votes
from hnlib.errors import ConfigError

ORGANS = ("brainstem", "spinal_cord")


def test_organs_have_the_share_of_the_atlases_that_outline_them() -> None:
    """Three atlases, one of which has no opinion on the cord: two of two say cord, two of three brainstem."""
    votes = [np.array([[[1, 2, 0]]], np.uint8), np.array([[[1, 2, 0]]], np.uint8), np.array([[[0, 0, 0]]], np.uint8)]
    shares = fuse_votes(votes, [set(ORGANS), set(ORGANS), {"brainstem"}], ORGANS)
    np.testing.assert_allclose(shares[1].ravel(), [2 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(shares[2].ravel(), [0, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=0), 1, rtol=1e-6)
    assert shares.argmax(axis=0).ravel().tolist() == [1, 2, 0]


def test_shares_that_sum_to_more_than_one_are_scaled() -> None:
    """One atlas knows the brainstem alone, the other the cord alone, and both claim the voxel."""
    votes = [np.array([[[1]]], np.uint8), np.array([[[2]]], np.uint8)]
    shares = fuse_votes(votes, [{"brainstem"}, {"spinal_cord"}], ORGANS)
    np.testing.assert_allclose(shares.ravel(), [0, 0.5, 0.5])


def test_an_organ_that_no_atlas_has_gets_no_vote() -> None:
    shares = fuse_votes([np.array([[[2]]], np.uint8)], [{"brainstem"}], ORGANS)
    np.testing.assert_allclose(shares.ravel(), [1, 0, 0])


def ball(centre: tuple[float, float, float], shape: tuple[int, int, int] = (32, 30, 24)) -> np.ndarray:
    grid = np.indices(shape)
    return np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)))


def test_outlines_follow_a_shifted_image() -> None:
    """A head with an organ in it, moved by 3 voxels along X and 2 along Z on an anisotropic grid."""
    pytest.importorskip("SimpleITK")
    scans = []
    for shift in (0.0, 3.0):
        head, organ = ball((14 + shift, 15, 11 + shift * 2 / 3)), ball((17 + shift, 13, 12 + shift * 2 / 3))
        image = (np.clip(10 - head, 0, 1) + np.clip(4 - organ, 0, 1)).astype(np.float32)
        scans.append((image, (organ < 3.5).astype(np.uint8)))
    (target, wanted), (atlas, labels) = scans
    before = 2 * (wanted & labels).sum() / (wanted.sum() + labels.sum())
    found = carry_labels(target, atlas, labels, (2.0, 2.0, 3.0))
    after = 2 * (wanted & found).sum() / (wanted.sum() + found.sum())
    assert found.shape == target.shape
    assert before < 0.6 < 0.9 < after


def test_without_the_package_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ConfigError, match=r"pip install 'hnlib\[atlas\]'"):
        carry_labels(
            np.zeros((4, 4, 4), np.float32), np.zeros((4, 4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), (1, 1, 1)
        )
