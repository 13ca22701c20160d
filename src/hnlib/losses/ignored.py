"""Which label voxels topK Dice leaves out, for pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from hnlib.losses.softmax import Voxels
from hnlib.losses.topk_dice import TopKDiceLoss


@torch.no_grad()
def ignore_map(probabilities: Tensor, labels: Tensor, percent: float, *, floor: int = 32) -> Tensor:
    """Return the organ voxels that topK Dice ignores because they are predicted best, class by class.

    Parameters
    ----------
    probabilities
        Softmax of the network, shape (C, ...).
    labels
        Integer label map (...), 0 the background, which is never ignored.
    percent
        K: the share of each organ's voxels that is kept, above 0 and at most 100.
    floor
        At least this many voxels of an organ are kept.

    Returns
    -------
    Tensor
        Boolean, shape of `labels`; ``labels * ~ignored`` are the paper's modified labels.

    Raises
    ------
    ValueError
        When shapes do not fit, a label lies outside the classes, or K outside (0, 100].

    Notes
    -----
    Hosseini 2024, Eqs. 3 to 5 and Figure 1, selected by `TopKDiceLoss` itself.

    Examples
    --------
    Of an organ of three voxels the harder two are kept.

    >>> p = torch.tensor([0.9, 0.4, 0.6, 0.1])
    >>> ignore_map(torch.stack([1 - p, p]), torch.tensor([1, 1, 1, 0]), 50, floor=1).tolist()
    [True, False, False, False]
    """
    smallest = torch.finfo(probabilities.dtype).tiny if probabilities.is_floating_point() else 1
    voxels = Voxels(probabilities.clamp(min=smallest).log().unsqueeze(0), labels.unsqueeze(0))
    return ~TopKDiceLoss(percent, floor=floor).kept(voxels).view(labels.shape) & (labels > 0)
