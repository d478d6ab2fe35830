"""The letters of papers that keep x_t = α_t x, α = 1/√(1 + σ²), where here x = x0 + σ n.

An update x_{t'} ← x_{t'} − ζ ∇_{x_t} f there is x ← x − ζ √((1 + σ²)(1 + σ'²)) ∇_x f here.
"""

from __future__ import annotations

import math

from torch import Tensor

from diffsplit.noise import Generators, randn_like

__all__ = ["alpha", "first_noise", "vp_step"]


def alpha(sigma: float) -> float:
    """α = 1/√(1 + σ²), the scale of the clean image in a variance-preserving model."""
    return 1 / math.sqrt(1 + sigma**2)


def vp_step(now: float, after: float) -> float:
    """1/(α α') = √((1 + σ²)(1 + σ'²)): what turns a step on ∇_{x_t} in x_{t'} into one on ∇_x."""
    return math.sqrt((1 + now**2) * (1 + after**2))


def first_noise(like: Tensor, sigma: float, generator: Generators) -> Tensor:
    """Where a variance-preserving model starts at level σ: √(1 + σ²) n, shaped like ``like``."""
    return math.sqrt(1 + sigma**2) * randn_like(like, generator)
