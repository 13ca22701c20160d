"""The peer nnU-Net v2, called through its own classes: trainer, preprocessor, predictor.

It is no dependency of the library. ``make bench`` puts it in a folder of its own (``HNLIB_PEERS``, by default
``peers`` in the virtual environment) that comes last on the path, so that it replaces no package.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.batch import random_batch
from benchmarks.process import Found, NotMeasuredError, need, now
from benchmarks.sizes import BATCH, CLASSES, IMAGE, LABELS, SIZES, WARM_UP, Size

DATASET, CONFIGURATION = "Dataset001_Bench", "3d_fullres"


def peers() -> Path:
    return Path(os.environ.get("HNLIB_PEERS", Path(sys.prefix) / "peers"))


def load(folder: Path) -> None:
    """Put nnU-Net on the path and set its folders and threads, which it reads when it is imported."""
    sys.path.append(str(peers()))
    cached = folder / "nnunet" / DATASET / CONFIGURATION
    cached.mkdir(parents=True, exist_ok=True)
    (cached / "case.b2nd").touch()  # it looks at the file endings here to choose a reader
    folders = dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), str(folder / "nnunet"))
    os.environ.update({**folders, "nnUNet_def_n_proc": str(os.cpu_count() or 1)})
    try:
        import nnunetv2.training.nnUNetTrainer.nnUNetTrainer  # noqa: F401
    except ImportError as fault:
        raise NotMeasuredError(f"nnunetv2 is not installed ({fault})") from None


def time_steps(size: str, device: str = "cpu") -> Found:
    """Return the median seconds of `nnUNetTrainer.train_step`, all as nnU-Net sets it up for the device.

    That is float32 on a CPU, float16 under autocast and compiled on a GPU.
    """
    need(device)
    with tempfile.TemporaryDirectory() as folder:
        load(Path(folder))
        trainer = _trainer(SIZES[size], device)
        image, target = random_batch(SIZES[size])
        targets = [target[:, None].to(torch.int16)]
        for _ in range(SIZES[size].levels - 2):
            targets.append(targets[-1][..., ::2, ::2, ::2].contiguous())
        trainer.network.train()
        times = []
        for _ in range(WARM_UP + SIZES[size].steps):
            began = now(device)
            trainer.train_step({"data": image, "target": targets})
            times.append(now(device) - began)
    return {"seconds": median(times[WARM_UP:]), "note": "32-true" if device == "cpu" else "16-mixed, compiled"}


def preprocess(folder: str, size: str) -> Found:
    """Time a case from its files to the cache by `DefaultPreprocessor.run_case_save`."""
    place = Path(folder)
    load(place)
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    manager, data = _plans(SIZES[size]), _dataset(len(SIZES[size].plan.organs) + 1)
    target = tempfile.mkdtemp(dir=place)  # it does not write over a case of an earlier round
    began = now("cpu")
    DefaultPreprocessor(verbose=False).run_case_save(
        str(Path(target) / "nnunet_case"),
        [str(place / IMAGE)],
        str(place / LABELS),
        manager,
        manager.get_configuration(CONFIGURATION),
        data,
    )
    return {"seconds": now("cpu") - began}


def predict(folder: str, size: str, device: str = "cpu") -> Found:
    """Time a case from scan to written label map by `nnUNetPredictor`, weights in memory, no mirroring."""
    need(device)
    place, big = Path(folder), SIZES[size]
    load(place)
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    manager, data = _plans(big), _dataset(len(big.plan.organs) + 1)
    torch.manual_seed(0)
    network = _trainer(big, device, data).network.eval()
    network = getattr(network, "_orig_mod", network)
    network.decoder.deep_supervision = False
    predictor = nnUNetPredictor(
        use_mirroring=False,
        perform_everything_on_device=device == "cuda",
        device=torch.device(device),
        allow_tqdm=False,
    )
    configuration = manager.get_configuration(CONFIGURATION)
    weights = network.state_dict()
    predictor.manual_initialization(network, manager, configuration, [weights], data, "nnUNetTrainer", None)
    reader = manager.image_reader_writer_class()
    began = now(device)
    image, about = reader.read_images([str(place / IMAGE)])
    predictor.predict_single_npy_array(image, about, None, str(place / "nnunet_predicted"))
    return {"seconds": now(device) - began}


def _trainer(size: Size, device: str, data: dict[str, Any] | None = None) -> Any:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(0)
    plans = {**_plans(size).plans, "continue_training": False}
    trainer = nnUNetTrainer(plans, CONFIGURATION, 0, data or _dataset(CLASSES), torch.device(device))
    trainer.initialize()
    return trainer


def _dataset(num_classes: int) -> dict[str, Any]:
    labels = {"background": 0, **{f"organ {value}": value for value in range(1, num_classes)}}
    return {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}


def _plans(size: Size) -> Any:
    """Return nnU-Net's plans with our network, patch, grid and intensity scale; arrays there are (Z, Y, X)."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    target = size.plan
    scale = {"mean": target.mean_hu, "std": target.sd_hu}
    scale |= dict(zip(("percentile_00_5", "percentile_99_5"), target.clip_hu, strict=True))
    return PlansManager(
        {
            "dataset_name": DATASET,
            "plans_name": "nnUNetPlans",
            "image_reader_writer": "SimpleITKIO",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {"0": scale},
            "configurations": {CONFIGURATION: _configuration(size)},
        }
    )


def _configuration(size: Size) -> dict[str, Any]:
    axis = {"order_z": 0, "force_separate_z": None}
    resampling = "resample_data_or_seg_to_shape"
    return {
        "data_identifier": CONFIGURATION,
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": BATCH,
        "batch_dice": True,
        "patch_size": list(size.patch[::-1]),
        "spacing": list(size.plan_spacing_mm[::-1]),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": resampling,
        "resampling_fn_seg": resampling,
        "resampling_fn_probabilities": resampling,
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, **axis},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, **axis},
        "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, **axis},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": size.levels,
                "features_per_stage": list(size.filters),
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [list(kernel) for kernel in size.kernels],
                "strides": [list(stride) for stride in size.strides],
                "n_conv_per_stage": [2] * size.levels,
                "n_conv_per_stage_decoder": [2] * (size.levels - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
