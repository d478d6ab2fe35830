"""A: linear maps from images to measurements, with their adjoints and what makes them fast."""

from diffsplit.operators.base import Composed, LinearOperator, Scaled, Stacked
from diffsplit.operators.blur import Blur
from diffsplit.operators.color import ChannelMix, Grayscale
from diffsplit.operators.dense import GaussianMatrix, MatrixOperator
from diffsplit.operators.downsample import Downsample
from diffsplit.operators.functional import FunctionOperator, from_function, from_matrix
from diffsplit.operators.gram import Gram, IIDRows, RandomRows, ScaledIdentity
from diffsplit.operators.masks import Identity, PixelMask
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
