"""A threshold whose bit is inverted with probability ε: P(u) = ε + (1 − 2ε) Φ(u).

With ρ(u) = (log P)' = (1 − 2ε) φ(u)/P(u), (log P)'' = −ρ (u + ρ). log P is concave only where
u + ρ(u) ≥ 0, to the right of some u₀; further left a wrong bit is more likely a flip than noise,
and stops pushing. So the proximal objective −log P(u + t) + κ t²/2 can have two minima: "it was a
flip, stay near z", and "it was noise, go to the threshold".

Its derivative F(t) = κ t − ρ(u + t) has F' = κ + ρ (u + ρ), which falls up to the one point u₁
where ρ rises fastest, then grows up to u₀ and beyond. Hence F is concave left of u₁, and Newton's
method from t = 0 climbs to its first root; right of u₁ it is convex to a little beyond u₀ (while
l (l + ρ) < 1 for l = u + ρ), and right of u₀ log ρ falls and is concave (see `prox`), so that
Newton's method from an upper bound falls to its last root. Whichever of the two has the lower
objective is the global minimum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from diffsplit.channels.normal import log_density
from diffsplit.channels.normal_push import threshold_step

__all__ = ["flip_log_probability", "flip_score", "flip_step"]

_ITERATIONS = 20


def flip_log_probability(u: Tensor, flip: float) -> Tensor:
    """log P(u)."""
    right = torch.log1p(-(flip + (1 - 2 * flip) * torch.special.ndtr(-u)))
    return torch.where(u > 0, right, _log_mixture(u, flip))


def flip_score(u: Tensor, flip: float) -> tuple[Tensor, Tensor]:
    """ρ(u) and u + ρ(u)."""
    log_score = math.log1p(-2 * flip) + log_density(u) - _log_mixture(u, flip)
    score = log_score.exp()
    return score, u + score


def flip_step(u: Tensor, kappa: Tensor, flip: float) -> Tensor:
    """argmin_{t ≥ 0} −log P(u + t) + κ t²/2, the global one."""
    steepest, peak = _landmarks(flip)
    split = (steepest - u).clamp(min=0)
    start = threshold_step(u, kappa)  # ρ ≤ r: without flips the step is longer
    stay, move = torch.zeros_like(start), torch.maximum(start, split)
    for _ in range(_ITERATIONS):
        score, lean = flip_score(u + stay, flip)
        slope = kappa + score * lean
        newton = stay - (kappa * stay - score) / slope
        stay = torch.where(slope > 0, newton, stay).clamp(min=0).minimum(split)

        score, lean = flip_score(u + move, flip)
        slope = kappa + score * lean
        newton = torch.where(slope > 0, move - (kappa * move - score) / slope, split)
        least = torch.finfo(u.dtype).tiny
        excess = ((kappa * move).clamp(min=least) / score.clamp(min=least)).log()
        falling = torch.maximum(move * torch.exp(-excess / (1 + move * lean)), peak - u)
        beyond = (lean > 0) & (lean * (lean + score) > 0.25)
        move = torch.where(beyond, falling, newton).maximum(split).minimum(start)

    def objective(t: Tensor) -> Tensor:
        return 0.5 * kappa * t.square() - flip_log_probability(u + t, flip)

    return torch.where((split > 0) & (objective(stay) < objective(move)), stay, move)


def _log_mixture(u: Tensor, flip: float) -> Tensor:
    log_flip = torch.full_like(u, math.log(flip))
    return torch.logaddexp(log_flip, math.log1p(-2 * flip) + torch.special.log_ndtr(u))


@lru_cache(maxsize=64)
def _landmarks(flip: float) -> tuple[float, float]:
    """u₁, where ρ rises fastest, and u₀, where it is largest."""

    def score(u: float) -> float:
        mass = flip + (1 - 2 * flip) * 0.5 * math.erfc(-u / math.sqrt(2))
        return (1 - 2 * flip) * math.exp(-0.5 * u * u) / math.sqrt(2 * math.pi) / mass

    def rise(u: float) -> float:
        # ρ'' = 0 where (u + ρ)² + ρ (u + ρ) = 1; this is its negative solution, increasing in u.
        rho = score(u)
        return u + rho + 0.5 * (rho + math.sqrt(rho * rho + 4))

    return _zero(rise), _zero(lambda u: u + score(u))


def _zero(increasing: Callable[[float], float]) -> float:
    low, high = -40.0, 1.0
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if increasing(middle) > 0 else (middle, high)
    return 0.5 * (low + high)
