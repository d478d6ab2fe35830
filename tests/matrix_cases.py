"""A dense and a thin matrix, and the check that an operator made of one is that matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from operator_cases import randn

from diffsplit.operators import from_matrix

DENSE = np.random.default_rng(0).standard_normal((5, 12))
THIN = DENSE * (DENSE > 0.3)


def check_matrix(matrix: Any, values: NDArray[np.float64]) -> None:
    """That ``from_matrix(matrix)`` has these values, and keeps the dtype of what it is given."""
    operator, x = from_matrix(matrix, (3, 2, 2)), randn(2, 3, 2, 2)
    expected = torch.from_numpy(values.copy())
    y = operator(x)
    torch.testing.assert_close(y, x.flatten(1) @ expected.T, rtol=1e-12, atol=1e-12)
    back = operator.adjoint(y)
    assert back.shape == x.shape
    torch.testing.assert_close(back.flatten(1), y @ expected, rtol=1e-12, atol=1e-12)
    for dtype in (torch.float32, torch.float16):
        assert operator(x.to(dtype)).dtype == operator.adjoint(y.to(dtype)).dtype == dtype
    mean = expected.square().sum().item() / 5
    assert operator.gram.mean == pytest.approx(mean, rel=1e-6)
