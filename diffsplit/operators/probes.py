"""What a few vectors tell about an operator of which only A x and Aᵀ y are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from diffsplit.noise import seeded
from diffsplit.operators.tensors import Map

__all__ = ["fingerprint_of", "lanczos_norm", "mean_row_norm"]

_PROBES = 16
_STEPS = 40
_TOLERANCE = 1e-5  # relative change of the norm from one step to the next that ends the iteration


@torch.no_grad()
def mean_row_norm(adjoint: Map, shape_out: Sequence[int], device: torch.device) -> float:
    """Estimate tr(A Aᵀ)/M, the mean squared norm of a row, by Hutchinson's method.

    E ‖Aᵀ r‖² = tr(A Aᵀ) for random signs r. The signs have a fixed seed, so that an operator
    always gets the same answer. With at most 16 rows the answer is exact.
    """
    size = math.prod(shape_out)
    if size <= _PROBES:
        probes = torch.eye(size)
    else:
        generator = seeded(0, "mean_row_norm")
        probes = torch.randint(0, 2, (_PROBES, size), generator=generator) * 2.0 - 1
    images = adjoint(probes.reshape(-1, *shape_out).to(device))
    # Each of the probes has the square norm 1 (unit vectors) or M (signs).
    return float(images.double().square().sum() / probes.square().sum())


@torch.no_grad()
def lanczos_norm(gram: Map, shape_out: Sequence[int], device: torch.device) -> float:
    """‖A‖ by Lanczos' iteration on A Aᵀ from a fixed random start.

    Each step costs one A Aᵀ, as in a power iteration, but the answer is the best over all powers
    together: a lower bound, usually right to 1e-4 after twenty steps.
    Source: Golub and Van Loan, "Matrix Computations", section 10.1.

    Args:
        gram: y ↦ A Aᵀ y.
        shape_out: shape of one measurement.
        device: where ``gram`` is computed.
    """
    size = math.prod(shape_out)
    start = torch.randn(size, generator=seeded(0, "lanczos_norm")).to(device)
    basis = [start / start.norm()]
    steps, norm = min(_STEPS, size), 0.0
    tridiagonal = torch.zeros(steps + 1, steps + 1, dtype=torch.float64)
    for i in range(steps):
        v = gram(basis[-1].reshape(1, *shape_out)).flatten()
        tridiagonal[i, i] = v @ basis[-1]
        stacked = torch.stack(basis)
        for _ in range(2):  # one pass of Gram–Schmidt is not enough in float32
            v = v - stacked.mT @ (stacked @ v)
        largest = torch.linalg.eigvalsh(tridiagonal[: i + 1, : i + 1])[-1]
        before, norm = norm, float(largest.clamp(min=0).sqrt())
        length = float(v.norm())
        if norm - before <= _TOLERANCE * norm or length <= 1e-6 * norm**2:
            break
        tridiagonal[i, i + 1] = tridiagonal[i + 1, i] = length
        basis.append(v / length)
    return norm


@torch.no_grad()
def fingerprint_of(apply: Map, shape_in: Sequence[int], device: torch.device) -> list[float]:
    """Eight random sums of all measurements of a random image.

    Everything random in it is a small integer drawn on the CPU, the same on every machine.
    """
    generator = seeded(0, "fingerprint")
    # In steps of 1/512, which even half precision holds exactly.
    image = torch.randint(-512, 513, (1, math.prod(shape_in)), generator=generator) / 512
    values = apply(image.reshape(1, *shape_in).to(device)).flatten().cpu().double()
    sums = []
    for _ in range(8):
        signs = torch.randint(2, values.shape, generator=generator, dtype=torch.int8)
        sums.append(values.dot((2 * signs - 1).double()).item() / math.sqrt(len(values)))
    return [float(f"{value:.9g}") for value in sums]
