"""Row norms of operators, which the pseudo-likelihood of QCS-SGM takes."""

from __future__ import annotations

import pytest
import torch

from diffsplit.operators import (
    Blur,
    Downsample,
    GaussianMatrix,
    LinearOperator,
    MatrixOperator,
    PixelMask,
    RandomizedTransform,
    Stacked,
)

SHAPE = (3, 8, 8)
MATRIX = GaussianMatrix(SHAPE, rows=90, seed=1)


@pytest.mark.parametrize(
    "operator",
    [
        MATRIX,
        -3.0 * MATRIX,
        Stacked(2.0 * PixelMask(SHAPE, 0.5, 1), MATRIX, Downsample(SHAPE, 2, "average")),
        MatrixOperator(torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 0.5]])),
        RandomizedTransform(SHAPE, rows=90, seed=1),
        Blur.gaussian(SHAPE, 3, 0.6),
    ],
    ids=["matrix", "scaled", "stacked", "own matrix", "transform", "blur"],
)
def test_row_norms_are_those_of_the_rows(operator: LinearOperator) -> None:
    norms = operator.row_square_norms().double().expand(operator.shape_out).flatten()
    unit = torch.eye(operator.size_in, dtype=torch.float64).view(-1, *operator.shape_in)
    exact = operator.apply(unit).flatten(1).square().sum(0)
    torch.testing.assert_close(norms, exact, rtol=1e-5, atol=1e-8)
