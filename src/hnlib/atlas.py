"""Segmentation by registration: training scans are bent onto a scan, their outlines go with them and vote.

The classical rival of networks. Gao et al. 2019 register by SyN; here it is an affine registration and diffeomorphic
demons from SimpleITK (extra ``hnlib[atlas]``): the package that has SyN holds NumPy and SciPy at old versions, and the
B-splines of elastix are no diffeomorphic flow, which SyN and these demons are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hnlib.errors import ConfigError

#: Of SimpleITK, which is not always installed.
Image: TypeAlias = Any
Transform: TypeAlias = Any
#: Of the demons: the grid in parts of the scan's, and how often the field is improved there.
DEMONS = ((4, 60), (2, 30), (1, 10))
#: Smoothing of the displacement field, in voxels.
FIELD_SD = 1.5


def carry_labels(
    target: NDArray[np.float32], image: NDArray[np.float32], labels: NDArray[np.uint8], spacing_mm: Sequence[float]
) -> NDArray[np.uint8]:
    """Return an atlas's labels on the grid of a target scan.

    Parameters
    ----------
    target, image
        Normalised target and atlas, (X, Y, Z), of any two shapes and one spacing.
    labels
        Of the atlas.
    spacing_mm
        Voxel edges along X, Y, Z.

    Returns
    -------
    ndarray
        Labels of the target's shape; background where the atlas does not reach.

    Raises
    ------
    ConfigError
        When SimpleITK is not installed.
    """
    sitk = _sitk()
    fixed, moving = _image(target, spacing_mm), _image(image, spacing_mm)
    transform = _register(fixed, moving)
    carried = sitk.Resample(_image(labels, spacing_mm), fixed, transform, sitk.sitkNearestNeighbor, 0)
    found: NDArray[np.uint8] = np.ascontiguousarray(sitk.GetArrayFromImage(carried).T)
    return found


def fuse_votes(
    votes: Sequence[NDArray[np.uint8]], outlined: Sequence[Collection[str]], organs: Sequence[str]
) -> NDArray[np.float32]:
    """Return the share of votes that each class has in each voxel.

    Parameters
    ----------
    votes
        Label maps (X, Y, Z) of the atlases on the target's grid.
    outlined
        Organs that somebody outlined in each atlas: of another organ an atlas has no opinion.
    organs
        In label order.

    Returns
    -------
    ndarray
        (C, X, Y, Z), summing to 1. An organ has the share of the atlases with it that vote for it, the background what
        the organs leave; its largest class is the majority's. An organ that no atlas has gets no vote.

    Examples
    --------
    >>> votes = [np.array([[[1, 1, 0]]], np.uint8), np.array([[[1, 0, 0]]], np.uint8)]
    >>> fuse_votes(votes, [{"brainstem"}] * 2, ["brainstem"])[1].tolist()
    [[[1.0, 0.5, 0.0]]]
    """
    shares = np.zeros((len(organs) + 1, *votes[0].shape), np.float32)
    for value, organ in enumerate(organs, start=1):
        heard = [labels for labels, known in zip(votes, outlined, strict=True) if organ in known]
        if heard:
            shares[value] = np.mean([labels == value for labels in heard], axis=0)
    total = shares.sum(axis=0)
    shares[0] = np.maximum(1 - total, 0)
    shares /= np.maximum(total, 1)
    return shares


def _register(fixed: Image, moving: Image) -> Transform:
    """Return the map from points of the fixed image to those of the moving one: affine, then demons."""
    sitk = _sitk()
    affine = _affine(fixed, moving)
    near = sitk.Resample(moving, fixed, affine, sitk.sitkLinear, float(sitk.GetArrayViewFromImage(moving).min()))
    field = None
    for shrink, iterations in DEMONS:
        coarse = [sitk.Shrink(sitk.SmoothingRecursiveGaussian(image, shrink), [shrink] * 3) for image in (fixed, near)]
        demons = sitk.DiffeomorphicDemonsRegistrationFilter()
        demons.SetNumberOfIterations(iterations)
        demons.SetSmoothDisplacementField(True)
        demons.SetStandardDeviations(FIELD_SD)
        start: list[Image] = [] if field is None else [sitk.Resample(field, coarse[0])]
        field = demons.Execute(*coarse, *start)
    bend = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    return sitk.CompositeTransform([affine, bend])


def _affine(fixed: Image, moving: Image) -> Transform:
    sitk = _sitk()
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 100)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2, 1])
    method.SetInitialTransform(start, inPlace=False)
    return method.Execute(fixed, moving)


def _image(array: NDArray[Any], spacing_mm: Sequence[float]) -> Image:
    image = _sitk().GetImageFromArray(np.ascontiguousarray(np.asarray(array).T))
    image.SetSpacing([float(edge) for edge in spacing_mm])
    return image


def _sitk() -> Any:
    try:
        import SimpleITK
    except ImportError:
        raise ConfigError("atlas: SimpleITK is not installed; pip install 'hnlib[atlas]'") from None
    return SimpleITK
