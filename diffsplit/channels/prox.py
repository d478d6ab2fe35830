"""Proximal steps of log-concave likelihoods: where the data's push meets the spring's pull.

In units of the noise, with t ≥ 0 the distance from z the way that the data push, the minimizer of
ℓ(s) + μ/2 (s − z)² solves ``κ t = m(t)``, where m = −ℓ' > 0 falls with t and κ = μ σ². The
logarithm of m is concave for every likelihood here, so

    f(log t) = log κ + log t − log m(t)

is increasing and convex in log t, and Newton's method that starts at an upper bound of the root
falls to it without ever passing it: quadratically, in a fixed number of steps, with no bracket to
keep and no test whose outcome the host needs. (Plain Newton on κ t − m(t) would crawl through the
exponential tail of m.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Push", "balance"]

_ITERATIONS = 10
"""Eight reach the rounding of float64 for |z|/σ ≤ 1e3 and every κ from 1e-18 to 1e14."""


class Push(NamedTuple):
    """The push m at some t.

    Attributes:
        log: log m.
        rate: −d log m/dt ≥ 0.
    """

    log: Tensor
    rate: Tensor


def balance(push: Callable[[Tensor], Push], bound: Tensor, kappa: Tensor) -> Tensor:
    """The t ≥ 0 with κ t = m(t), to the precision of the dtype.

    Args:
        push: m, falling and log-concave.
        bound: an upper bound of t; a loose one costs steps.
        kappa: stiffness κ > 0.
    """
    least = torch.finfo(bound.dtype).tiny
    log_kappa = kappa.log()
    t = bound.clamp(min=least)
    for _ in range(_ITERATIONS):
        m = push(t)
        excess = log_kappa + t.log() - m.log
        t = (t * torch.exp(-excess / (1 + t * m.rate))).clamp(min=least)
    # A last plain step takes off the rounding of the logarithms.
    m = push(t)
    size = m.log.exp()
    return (t - (kappa * t - size) / (kappa + size * m.rate)).clamp(min=0)
