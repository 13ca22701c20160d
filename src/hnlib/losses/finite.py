"""What is said of logits that are no numbers."""

from __future__ import annotations

import torch
from torch import Tensor


def refuse_nan(loss: Tensor, logits: Tensor) -> Tensor:
    """Return a loss, after refusing one that is NaN because logits are.

    Costs nothing where the loss is a number: the logits (N, C, V) are looked at only otherwise. On an accelerator
    nothing is looked at, since reading one number would stall it: there the loss stays NaN.

    Raises
    ------
    ValueError
        When loss and logits are on the CPU and some logit is NaN or plus infinity.

    Examples
    --------
    >>> float(refuse_nan(torch.tensor(0.5), torch.tensor([[[torch.nan]]])))
    0.5
    """
    if loss.device.type != "cpu" or torch.compiler.is_compiling() or not bool(loss.isnan()):
        return loss
    faulty = (logits.isnan() | logits.isposinf()).any(dim=1)
    if bool(faulty.any()):
        samples = faulty.any(dim=1).nonzero().flatten().tolist()
        raise ValueError(
            f"logits hold NaN or infinity at {int(faulty.sum())} voxels of samples {samples}; "
            "finite logits are needed: look at the input, or lower the learning rate"
        )
    return loss
