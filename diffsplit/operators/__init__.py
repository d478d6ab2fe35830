"""A: linear maps from images to measurements, with their adjoints and what makes them fast."""

from diffsplit.operators.algebra import Composed, Scaled, Stacked
from diffsplit.operators.base import LinearOperator
from diffsplit.operators.blur import Blur
from diffsplit.operators.color import ChannelMix, Grayscale
from diffsplit.operators.downsample import Downsample
from diffsplit.operators.functional import (
    FunctionOperator,
    MatrixOperator,
    from_function,
    from_matrix,
)
from diffsplit.operators.gaussian import GaussianMatrix
from diffsplit.operators.gram import Gram, IIDRows, RandomRows, ScaledIdentity
from diffsplit.operators.identity import Identity
from diffsplit.operators.mask import PixelMask
from diffsplit.operators.randomized import RandomizedTransform
from diffsplit.operators.registry import from_config
from diffsplit.operators.spectrum import Spectrum

__all__ = [
    "Blur",
    "ChannelMix",
    "Composed",
    "Downsample",
    "FunctionOperator",
    "GaussianMatrix",
    "Gram",
    "Grayscale",
    "IIDRows",
    "Identity",
    "LinearOperator",
    "MatrixOperator",
    "PixelMask",
    "RandomRows",
    "RandomizedTransform",
    "Scaled",
    "ScaledIdentity",
    "Spectrum",
    "Stacked",
    "from_config",
    "from_function",
    "from_matrix",
]
