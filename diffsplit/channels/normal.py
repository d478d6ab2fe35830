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
from typing import NamedTuple

import torch
from torch import Tensor

from diffsplit.channels.quadrature import cutoff, unit_nodes

__all__ = ["LOG_ROOT_2PI", "Interval", "Tail", "interval", "inverse_mills", "log_density", "tail"]

LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)
_ROOT_HALF = math.sqrt(0.5)


class Tail(NamedTuple):
    """X given X > −u: see `tail`."""

    mean: Tensor
    excess: Tensor
    variance: Tensor
    shrink: Tensor


class Interval(NamedTuple):
    """X given a < X < b: see `interval`."""

    log_mass: Tensor
    mean: Tensor
    excess: Tensor
    variance: Tensor
    shrink: Tensor


def log_density(x: Tensor) -> Tensor:
    """log φ(x)."""
    return -0.5 * x.square() - LOG_ROOT_2PI


def inverse_mills(u: Tensor) -> Tensor:
    """r(u) = φ(u)/Φ(u): about −u for u → −∞, 0 for u → ∞, to the precision of the dtype."""
    scaled: Tensor = torch.special.erfcx(-_ROOT_HALF * u)
    return math.sqrt(2 / math.pi) / scaled


def tail(u: Tensor) -> Tail:
    """Moments of X ~ N(0, 1) given X > −u.

    Returns:
        ``mean`` r(u), ``excess`` r + u (mean distance from the edge), ``variance`` 1 − r (u + r)
        and ``shrink`` r (u + r), each positive and with all its digits.
    """
    _, excess, variance = _beyond((-u).clamp(min=0), torch.full_like(u, torch.inf))
    far, ratio = u < 0, inverse_mills(u)
    excess = torch.where(far, excess, ratio + u)
    ratio = torch.where(far, excess - u, ratio)
    shrink = torch.where(far, 1 - variance, ratio * excess)
    return Tail(ratio, excess, torch.where(far, variance, 1 - shrink), shrink)


def interval(a: Tensor, b: Tensor, width: Tensor) -> Interval:
    """Probability and moments of X ~ N(0, 1) given a < X < b.

    Args:
        a: lower edges, −∞ allowed.
        b: upper edges, ∞ allowed, but not both infinite.
        width: b − a, from wherever it is known without cancellation.

    Returns:
        ``log_mass`` log P, ``mean`` m, ``excess`` (mean distance from the edge nearer to 0,
        meaningful where 0 lies outside), ``variance`` V and ``shrink`` w.
    """
    mirrored = a + b < 0
    near = torch.where(mirrored, -b, a)
    far = near + width  # not −a or b, which may have been rounded onto the near edge
    outside = near > 0
    mass, excess, variance = _beyond(near.clamp(min=-2), width)

    low, high = log_density(near).exp(), log_density(far).exp()
    inside = (torch.erf(_ROOT_HALF * far) - torch.erf(_ROOT_HALF * near)) / 2
    missing = (torch.erfc(_ROOT_HALF * far) + torch.erfc(-_ROOT_HALF * near)) / 2
    mean = -low * torch.expm1(-0.5 * (near + far) * width) / inside
    # 50 φ(50) is zero in every dtype; ∞ φ(∞) would be NaN.
    shrink = mean.square() + (far.clamp(max=50) * high - near * low) / inside

    variance = torch.where(outside | (shrink > 0.5), variance, 1 - shrink)
    shrink = torch.where(outside, 1 - variance, shrink)
    mean = torch.where(outside, near + excess, mean)
    log_inside = torch.where(missing < 0.5, torch.log1p(-missing), inside.log())
    log_mass = torch.where(outside, log_density(near) + mass.log(), log_inside)
    return Interval(log_mass, torch.where(mirrored, -mean, mean), excess, variance, shrink)


def _beyond(a: Tensor, width: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Integral, mean and variance of exp(−a t − t²/2) on (0, width)."""
    drop = cutoff(a.dtype)
    reach = torch.minimum(width, 2 * drop / (a + (a.square() + 2 * drop).sqrt()))
    mass, first, second = torch.zeros_like(reach), torch.zeros_like(reach), torch.zeros_like(reach)
    for node, weight in unit_nodes(32 if a.dtype == torch.float64 else 20):
        t = reach * node
        density = torch.add(a, t, alpha=0.5).mul_(t).neg_().exp_()
        mass.add_(density, alpha=weight)
        first.add_(density, alpha=weight * node)
        second.add_(density, alpha=weight * node**2)
    mean = first / mass
    variance = second / mass - mean.square()
    return mass * reach, mean * reach, variance * reach.square()
