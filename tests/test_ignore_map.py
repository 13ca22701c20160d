"""The voxels that topK Dice ignores: counted by hand, drawn as figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from hnlib.losses import TopKDiceLoss, Voxels, ignore_map
from hnlib.plotting import ignore_maps


def example() -> tuple[torch.Tensor, torch.Tensor]:
    """Return probabilities (3, 6, 5, 4) and labels of two organs of 40 and 20 voxels."""
    logits = torch.randn((3, 6, 5, 4), generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(6, 5, 4, dtype=torch.int64)
    labels[:2], labels[5] = 1, 2
    return logits.softmax(0), labels


@pytest.mark.parametrize(("percent", "numbers"), [(100, (0, 0)), (90, (4, 2)), (50, (20, 10)), (10, (36, 18))])
def test_the_best_predicted_share_of_each_organ_is_ignored(percent: float, numbers: tuple[int, int]) -> None:
    probs, labels = example()
    ignored = ignore_map(probs, labels, percent, floor=1)
    assert tuple(int((ignored & (labels == k)).sum()) for k in (1, 2)) == numbers
    assert not (ignored & (labels == 0)).any()
    for k, number in zip((1, 2), numbers, strict=True):
        own = probs[k][labels == k]
        assert number == 0 or own[ignored[labels == k]].min() >= own[~ignored[labels == k]].max()


def test_it_is_what_the_loss_itself_leaves_out() -> None:
    probs, labels = example()
    kept = TopKDiceLoss(30, floor=8).kept(Voxels(probs.log()[None], labels[None])).view(labels.shape)
    assert torch.equal(ignore_map(probs, labels, 30, floor=8), ~kept & (labels > 0))


def test_small_organs_are_kept_whole_by_the_floor() -> None:
    probs, labels = example()
    ignored = ignore_map(probs, labels, 10)
    assert int(ignored[labels == 1].sum()) == 8
    assert not ignored[labels == 2].any()


def test_impossible_k_and_shapes_are_refused() -> None:
    probs, labels = example()
    with pytest.raises(ValueError, match="percent is 0"):
        ignore_map(probs, labels, 0)
    with pytest.raises(ValueError, match="target has shape"):
        ignore_map(probs, labels[:3], 50)


def test_each_k_has_a_panel_whose_white_voxels_are_the_ignored_ones() -> None:
    probs, labels = example()
    maps = {k: ignore_map(probs, labels, k, floor=1).numpy() for k in (100, 90, 50, 30, 10)}
    image, organs = np.zeros(labels.shape), ("mandible", "brainstem")
    fig = ignore_maps(image, labels.numpy(), maps, spacing_mm=(2, 2, 3), organs=organs, index=1, margin_mm=np.inf)
    assert [ax.get_xlabel() for ax in fig.axes] == ["K = 100 %", "K = 90 %", "K = 50 %", "K = 30 %", "K = 10 %"]
    for ax, one in zip(fig.axes, maps.values(), strict=True):
        overlay = np.asarray(ax.images[1].get_array()).swapaxes(0, 1)
        white = (overlay[..., 3] > 0) & (overlay[..., :3] == 1).all(axis=-1)
        assert (white == one[:, :, 1]).all()
        assert ((overlay[..., 3] > 0) == (labels.numpy()[:, :, 1] > 0)).all()
    plt.close(fig)
    with pytest.raises(ValueError, match="ignored is empty"):
        ignore_maps(image, labels.numpy(), {}, spacing_mm=(2, 2, 3), organs=organs, index=1)
    with pytest.raises(ValueError, match="differ in shape"):
        ignore_maps(image[:2], labels.numpy(), maps, spacing_mm=(2, 2, 3), organs=organs, index=1)
