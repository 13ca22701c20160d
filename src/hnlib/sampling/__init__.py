"""Where training patches are cut: the law of the patch centre, said as an array and drawn from.

A `CentreDistribution` is the categorical distribution over the voxels of a case from which a patch
centre is drawn, before the patch is clamped at the border. The training sampler draws from it and
`hnlib.imbalance` integrates over it without random numbers, both through one clamping rule, so what
is measured is what is trained on.

Arrays have axes (X, Y, Z); label 0 is background. A patch smaller than the volume always lies
inside it; along an axis on which the volume is the shorter one, both sides are padded.
"""

from hnlib.sampling.centres import (
    PAPER_GATE_HU,
    RULES,
    UNIFORM,
    CentreDistribution,
    CentreSampler,
    centre_rule,
    weighted_centres,
)
from hnlib.sampling.components import (
    CentreComponent,
    ClassUniform,
    HuGated,
    Labels,
    SingleClass,
    UniformPosition,
    VoxelUniform,
)
from hnlib.sampling.laws import BoxLaw, CentreLaw, FlatIndices, StrataLaw, position_law
from hnlib.sampling.patches import (
    Scalar,
    Triple,
    as_triple,
    axis_start,
    axis_starts,
    extract,
    patch_start,
    start_tables,
)

__all__ = [
    "PAPER_GATE_HU",
    "RULES",
    "UNIFORM",
    "BoxLaw",
    "CentreComponent",
    "CentreDistribution",
    "CentreLaw",
    "CentreSampler",
    "ClassUniform",
    "FlatIndices",
    "HuGated",
    "Labels",
    "Scalar",
    "SingleClass",
    "StrataLaw",
    "Triple",
    "UniformPosition",
    "VoxelUniform",
    "as_triple",
    "axis_start",
    "axis_starts",
    "centre_rule",
    "extract",
    "patch_start",
    "position_law",
    "start_tables",
    "weighted_centres",
]
