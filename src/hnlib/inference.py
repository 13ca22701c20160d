"""One case in, class probabilities out: a sliding window with Gaussian weights."""

from __future__ import annotations

from collections.abc import Sequence

import cc3d
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def predict_probabilities(
    network: nn.Module,
    image: NDArray[np.float32],
    patch_size: Sequence[int],
    *,
    device: torch.device | str = "cpu",
    overlap: float = 0.5,
    windows_at_once: int = 2,
    mirror: Sequence[int] = (),
) -> NDArray[np.float32]:
    """Return class probabilities of one preprocessed image.

    Windows of the training patch's size overlap by half and are blended with Gaussian weights of
    0.125 of the patch (Isensee et al. 2021). Logits are blended, then softmax, as in the code of
    Tappeiner et al. 2022.

    Parameters
    ----------
    network
        In evaluation mode it maps (N, 1, X, Y, Z) to logits (N, C, X, Y, Z).
    image
        Normalised image, shape (X, Y, Z).
    mirror
        Value of every label in the mirrored patient (`hnlib.organs.mirror_values`): the result is the
        mean with the prediction of the image mirrored along X. Empty: no mirroring.

    Returns
    -------
    ndarray
        Shape (C, X, Y, Z), float32, sums to 1 over C.
    """
    if mirror:
        straight, mirrored = (
            predict_probabilities(
                network, scan, patch_size, device=device, overlap=overlap, windows_at_once=windows_at_once
            )
            for scan in (image, np.ascontiguousarray(image[::-1]))
        )
        both: NDArray[np.float32] = (straight + mirrored[list(mirror), ::-1]) / np.float32(2)
        return both
    was_training = network.training
    network.eval()
    tensor = torch.from_numpy(image)[None, None].to(device).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        logits = sliding_window(network, tensor, patch_size, overlap=overlap, windows_at_once=windows_at_once)
        result: NDArray[np.float32] = torch.softmax(logits.float(), dim=1)[0].cpu().numpy()
    network.train(was_training)
    return result


def sliding_window(
    network: nn.Module, volume: Tensor, patch_size: Sequence[int], *, overlap: float = 0.5, windows_at_once: int = 2
) -> Tensor:
    """Return what a network says of a volume (1, C, X, Y, Z), window by window, blended as in `predict_probabilities`.

    Its output has the windows' grid and any number of channels. Beyond the volume lies its lowest value.
    """
    from monai.inferers import sliding_window_inference  # MONAI takes seconds to import

    result = sliding_window_inference(
        volume,
        roi_size=tuple(patch_size),
        sw_batch_size=windows_at_once,
        predictor=network,
        overlap=overlap,
        mode="gaussian",
        sigma_scale=0.125,
        padding_mode="constant",
        cval=float(volume.min()),
    )
    assert isinstance(result, Tensor)  # one tensor in, one tensor out
    return result


def keep_largest_components(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Keep the largest 26-connected component of every organ; the rest becomes background.

    Examples
    --------
    >>> row = np.array([1, 1, 0, 1, 0, 2], np.uint8).reshape(6, 1, 1)
    >>> keep_largest_components(row).ravel().tolist()
    [1, 1, 0, 0, 0, 2]
    """
    kept = np.zeros_like(labels)
    for value in np.unique(labels[labels > 0]):
        kept[cc3d.largest_k((labels == value).astype(np.uint8), k=1, connectivity=26) > 0] = value
    return kept
