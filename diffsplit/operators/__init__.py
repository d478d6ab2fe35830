"""A: linear maps from images to measurements, with their adjoints and what makes them fast."""

from diffsplit.operators.algebra import Composed, Scaled, Stacked
from diffsplit.operators.base import LinearOperator
from diffsplit.operators.functional import (
    FunctionOperator,
    MatrixOperator,
    from_function,
    from_matrix,
)
from diffsplit.operators.gaussian import GaussianMatrix
from diffsplit.operators.gram import Gram, IIDRows, ScaledIdentity
from diffsplit.operators.mask import PixelMask
from diffsplit.operators.randomized import RandomizedTransform
from diffsplit.operators.registry import from_config

__all__ = [
    "Composed",
    "FunctionOperator",
    "GaussianMatrix",
    "Gram",
    "IIDRows",
    "LinearOperator",
    "MatrixOperator",
    "PixelMask",
    "RandomizedTransform",
    "Scaled",
    "ScaledIdentity",
    "Stacked",
    "from_config",
    "from_function",
    "from_matrix",
]
