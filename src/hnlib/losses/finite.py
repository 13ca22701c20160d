"""What is said of logits that are no numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def refuse_nan(loss: Tensor, true_log_probs: Tensor) -> Tensor:
    """Return a loss, after refusing one that is NaN or infinite because logits are.

    Costs nothing where the loss is a number: the log-probabilities of the true classes (N, V) are looked at only
    otherwise. On an accelerator nothing is looked at, since reading one number would stall it: there the loss stays.

    Raises
    ------
    ValueError
        When the loss is on the CPU and some true class has no finite log-probability: a logit is NaN or infinity, or
        the true class's is minus infinity. Minus infinity for another class is a probability of 0, and legal.

    Examples
    --------
    >>> float(refuse_nan(torch.tensor(0.5), torch.tensor([[torch.nan]])))
    0.5
    """
    if loss.device.type != "cpu" or torch.compiler.is_compiling() or bool(loss.isfinite()):
        return loss
    faulty = ~true_log_probs.isfinite()
    if bool(faulty.any()):
        samples = faulty.any(dim=1).nonzero().flatten().tolist()
        raise ValueError(
            f"logits hold NaN or infinity at {int(faulty.sum())} voxels of samples {samples}; "
            "finite logits are needed: look at the input, or lower the learning rate"
        )
    return loss
