"""The largest singular value of an operator of which only A and Aᵀ are known."""

from __future__ import annotations

import torch

from diffsplit.noise import seeded
from diffsplit.operators.base import LinearOperator

__all__ = ["lanczos_norm"]

_STEPS = 40
_TOLERANCE = 1e-5  # relative change of the norm from one step to the next that ends the iteration


@torch.no_grad()
def lanczos_norm(operator: LinearOperator) -> float:
    """‖A‖ by Lanczos' iteration on AAᵀ from a fixed random start.

    Each step costs one Aᵀ and one A, as in a power iteration, but the answer is the best over all
    powers together: a lower bound, usually right to 1e-4 after twenty steps.
    Source: Golub and Van Loan, "Matrix Computations", section 10.1.

    Args:
        operator: A; nothing but `apply` and `adjoint` is used.
    """
    generator = seeded(0, "lanczos_norm")
    start = torch.randn(operator.size_out, generator=generator).to(operator._device())
    basis = [start / start.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    norm = 0.0
    for _ in range(min(_STEPS, operator.size_out)):
        y = basis[-1].reshape(1, *operator.shape_out)
        v = operator.apply(operator.adjoint(y)).flatten()
        diagonal.append(float(v @ basis[-1]))
        stacked = torch.stack(basis)
        for _ in range(2):  # once is not enough in float32
            v = v - stacked.mT @ (stacked @ v)
        tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        if beside:
            off = torch.diag(torch.tensor(beside, dtype=torch.float64), 1)
            tridiagonal = tridiagonal + off + off.mT
        before, norm = norm, float(torch.linalg.eigvalsh(tridiagonal)[-1].clamp(min=0).sqrt())
        beside.append(float(v.norm()))
        if norm - before <= _TOLERANCE * norm or beside[-1] <= 1e-6 * norm**2:
            break
        basis.append(v / beside[-1])
    return norm
