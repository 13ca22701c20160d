"""Cross-entropy."""

from __future__ import annotations

from torch import Tensor

from hnlib.losses.softmax import VoxelLoss, Voxels


class CrossEntropy(VoxelLoss):
    r"""Mean over all voxels of the negative log-probability of the true class.

    Notes
    -----
    .. math:: L = -\frac{1}{N V} \sum_{b,v} \log p_{b, t(b,v), v}

    Tappeiner et al. 2022, Eq. 1, with two corrections that their code makes as well: the print
    misplaces the minus sign, and divides by the batch size only, not by the number of voxels.

    Examples
    --------
    >>> import torch
    >>> loss = CrossEntropy()
    >>> round(float(loss(torch.zeros(1, 4, 2, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.int64))), 4)  # log 4
    1.3863
    """

    def value(self, voxels: Voxels) -> Tensor:
        """Return the loss, a scalar."""
        log_probs = voxels.true_log_probs
        # not mean(): the gradient of a sum is one number for all voxels, that of a mean is written out for each
        return -log_probs.sum() / log_probs.numel()
