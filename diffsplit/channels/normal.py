"""The standard normal, cut to a half line or an interval, right in every tail.

For X ~ N(0, 1) and an interval (a, b), a < b, with P = Φ(b) − Φ(a):

    mean      m = E[X | a < X < b] = (φ(a) − φ(b)) / P
    variance  V = Var[X | a < X < b]
    shrink    w = 1 − V = m² + (b φ(b) − a φ(a)) / P

For the half line X > −u these are r = φ(u)/Φ(u), the inverse Mills ratio, and w = r (u + r).
They are all that a quantizer needs: for t ~ N(s, σ²) and t in an interval, the derivatives of log P
in s are m/σ and −w/σ².

Where 0 lies inside the interval the formulas are stable as they stand. Where it lies beyond the
edge a, the excess X − a has density ∝ exp(−a t − t²/2) on (0, b − a), and its moments are taken
by Gauss–Legendre quadrature over the part that matters: sums of positive terms, nothing to cancel
however far away or narrow the interval is.
"""

from __future__ import annotations

import math
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

__all__ = ["Cut", "HalfLine", "Interval", "inverse_mills", "log_density", "unit_nodes"]

_ROOT_HALF = math.sqrt(0.5)


class HalfLine:
    """X ~ N(0, 1) given X > −u where side = 1, given X < u where side = −1.

    The excess e = r(u) + u, the mean distance from the edge, and V = 1 − r e cancel for u → −∞.
    There, with a = −u, the continued fraction of the Mills ratio (Abramowitz and Stegun 26.2.14)
    gives  e = 1/(a + k₂),  V = e (k₂ − e),  k_j = j/(a + k_{j+1}).
    """

    def __init__(self, u: Tensor, side: Tensor | float = 1.0) -> None:
        self._u, self._side = u, side

    @cached_property
    def log_mass(self) -> Tensor:
        """log Φ(u)."""
        result: Tensor = torch.special.log_ndtr(self._u)
        return result

    @property
    def mean(self) -> Tensor:
        """± r(u)."""
        return self._side * self._ratio

    @property
    def excess(self) -> Tensor:
        """Mean distance from the edge, positive."""
        return self._excess_and_variance[0]

    @property
    def variance(self) -> Tensor:
        return self._excess_and_variance[1]

    @property
    def shrink(self) -> Tensor:
        return self._ratio * self.excess

    @cached_property
    def _ratio(self) -> Tensor:
        return inverse_mills(self._u)

    @cached_property
    def _excess_and_variance(self) -> tuple[Tensor, Tensor]:
        start, depth = (4.0, 28) if self._u.dtype == torch.float64 else (3.0, 12)
        a = (-self._u).clamp(min=start)
        # The rest of the fraction is about the fixed point of k = j/(a + k).
        k = (a.square() + 4 * (depth + 1.5)).sqrt_().sub_(a).mul_(0.5)
        for j in range(depth, 1, -1):
            k.add_(a).reciprocal_().mul_(j)
        far, excess = a > start, 1 / (a + k)
        near = self._ratio + self._u
        return (
            torch.where(far, excess, near),
            torch.where(far, excess * (k - excess), 1 - self._ratio * near),
        )


def log_density(x: Tensor) -> Tensor:
    """log φ(x)."""
    return -0.5 * x.square() - 0.5 * math.log(2 * math.pi)


def inverse_mills(u: Tensor) -> Tensor:
    """r(u) = φ(u)/Φ(u): about −u for u → −∞, 0 for u → ∞, to the precision of the dtype."""
    scaled: Tensor = torch.special.erfcx(-_ROOT_HALF * u)
    return math.sqrt(2 / math.pi) / scaled


class Interval:
    """X ~ N(0, 1) given a < X < b.

    The formulas hold for the interval or its mirror image, whichever has its middle above 0; its
    edge nearer to 0 is called near.

    Args:
        a: lower edges, −∞ allowed.
        b: upper edges, ∞ allowed, but not both infinite.
        width: b − a, from wherever it is known without cancellation.
    """

    def __init__(self, a: Tensor, b: Tensor, width: Tensor) -> None:
        self._mirrored = a + b < 0
        self._near = torch.where(self._mirrored, -b, a)
        self._far = self._near + width  # not −a or b, which may have been rounded onto the edge
        self._outside = self._near > 0
        self._width = width

    @cached_property
    def log_mass(self) -> Tensor:
        """log P."""
        missing = (torch.erfc(_ROOT_HALF * self._far) + torch.erfc(-_ROOT_HALF * self._near)) / 2
        inside = torch.where(missing < 0.5, torch.log1p(-missing), self._if_inside[0].log())
        outside = log_density(self._near) + self._if_outside[0].log()
        return torch.where(self._outside, outside, inside)

    @cached_property
    def mean(self) -> Tensor:
        mean = torch.where(self._outside, self._near + self._if_outside[1], self._if_inside[1])
        return torch.where(self._mirrored, -mean, mean)

    @property
    def excess(self) -> Tensor:
        """Mean distance from the near edge, positive."""
        inside = self._if_inside[1] - self._near
        return torch.where(self._outside, self._if_outside[1], inside)

    @property
    def variance(self) -> Tensor:
        by_quadrature = self._outside | (self._if_inside[2] > 0.5)
        return torch.where(by_quadrature, self._if_outside[2], 1 - self._if_inside[2])

    @property
    def shrink(self) -> Tensor:
        return torch.where(self._outside, 1 - self._if_outside[2], self._if_inside[2])

    @cached_property
    def _if_outside(self) -> tuple[Tensor, Tensor, Tensor]:
        """P/φ(near), the mean excess and the variance, if 0 is not much above the near edge."""
        return _beyond(self._near.clamp(min=-2), self._width)

    @cached_property
    def _if_inside(self) -> tuple[Tensor, Tensor, Tensor]:
        """P, mean and shrink of the interval or its mirror image, if it holds 0."""
        near, far = self._near, self._far
        mass = (torch.erf(_ROOT_HALF * far) - torch.erf(_ROOT_HALF * near)) / 2
        low, high = log_density(near).exp(), log_density(far).exp()
        mean = -low * torch.expm1(-0.5 * (near + far) * self._width) / mass
        # 50 φ(50) is zero in every dtype; ∞ φ(∞) would be NaN.
        return mass, mean, mean.square() + (far.clamp(max=50) * high - near * low) / mass


Cut = HalfLine | Interval
"""Either gives the logarithm of P, and the mean, the variance and 1 − the variance of X."""


def _beyond(a: Tensor, width: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Integral, mean and variance of exp(−a t − t²/2) on (0, width)."""
    # Beyond t = reach the density is below e^−drop, the rounding of the dtype.
    drop, count = (39.0, 32) if a.dtype == torch.float64 else (22.0, 20)
    reach = torch.minimum(width, 2 * drop / (a + (a.square() + 2 * drop).sqrt()))
    mass, first, second = torch.zeros_like(reach), torch.zeros_like(reach), torch.zeros_like(reach)
    for node, weight in unit_nodes(count):
        t = reach * node
        density = torch.add(a, t, alpha=0.5).mul_(t).neg_().exp_()
        mass.add_(density, alpha=weight)
        first.add_(density, alpha=weight * node)
        second.add_(density, alpha=weight * node**2)
    mean = first / mass
    variance = second / mass - mean.square()
    return mass * reach, mean * reach, variance * reach.square()


@lru_cache(maxsize=8)
def unit_nodes(count: int) -> tuple[tuple[float, float], ...]:
    """The ``count`` nodes and weights of the Gauss–Legendre rule on (0, 1), as pairs of numbers."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return tuple(zip(((nodes + 1) / 2).tolist(), (weights / 2).tolist(), strict=True))
