"""Gauss–Legendre nodes: positive weights, so that a variance never comes from a difference."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

__all__ = ["cutoff", "unit_nodes"]


def cutoff(dtype: torch.dtype) -> float:
    """Where a density is left out: e^-cutoff is below the rounding of the dtype."""
    return 39.0 if dtype == torch.float64 else 22.0


@lru_cache(maxsize=8)
def unit_nodes(count: int) -> tuple[tuple[float, float], ...]:
    """The ``count`` nodes and weights of ∫₀¹, as pairs of numbers."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return tuple(zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))
