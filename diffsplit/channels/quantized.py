"""A few bits per measurement: the number of the bin into which a noisy number falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diffsplit.channels.base import Moments
from diffsplit.channels.bins import MAX_BITS, Bins, checked_edges, table, uniform_edges
from diffsplit.channels.derivatives import with_derivatives
from diffsplit.channels.discrete import DiscreteChannel
from diffsplit.channels.normal import Interval, interval
from diffsplit.channels.normal_push import bin_step
from diffsplit.channels.parameters import non_negative, positive
from diffsplit.channels.tensors import broadcast, like
from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like

__all__ = ["Quantized"]


@dataclass(frozen=True)
class Quantized(DiscreteChannel):
    """y = the number, 0 … L − 1, of the bin [e_y, e_{y+1}) that holds s + σ n; an int64 tensor.

    With P = Φ((e_{y+1} − s)/σ) − Φ((e_y − s)/σ), ℓ = −log P; its derivatives and the posterior
    moments are those of a normal cut to an interval (see `channels.normal`).
    Subtractive dither d is a shift of s: sample(s + d), then nll(s + d, y) and so on.

    Attributes:
        bits: 2^bits bins of equal width over [−limit, limit], the outer two reaching to ±∞.
        edges: or the L − 1 inner edges, increasing.
        sigma: σ ≥ 0, in the units of s = A x with x on [-1, 1]; with 0 there is no gradient.
        limit: half the range of s that the bins divide; with ``edges`` of a single edge it says
            how wide the two bins are taken to be by `value`.

    Raises:
        InputError: not exactly one of bits (1 … 16) and edges (increasing, finite) is given, σ is
            negative, or the limit is not positive.
    """

    bits: int | None = None
    edges: Sequence[float] | None = None
    sigma: float = 0.0
    limit: float = 1.0
    _cache: dict[tuple[torch.dtype, torch.device], Bins] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if (self.bits is None) == (self.edges is None):
            raise InputError("a quantizer takes either bits or edges; give exactly one of them.")
        if self.bits is not None and (type(self.bits) is not int or not 1 <= self.bits <= MAX_BITS):
            raise InputError(f"bits is {self.bits!r}; give a whole number from 1 to {MAX_BITS}.")
        if self.edges is not None:
            object.__setattr__(self, "edges", checked_edges(self.edges))
        object.__setattr__(self, "sigma", non_negative("sigma", self.sigma))
        object.__setattr__(self, "limit", positive("limit", self.limit))
        object.__setattr__(self, "smooth", self.sigma > 0)
        object.__setattr__(self, "outcomes", len(self.inner_edges) + 1)

    @property
    def inner_edges(self) -> tuple[float, ...]:
        """The L − 1 finite edges."""
        return tuple(self.edges or ()) if not self.bits else uniform_edges(self.bits, self.limit)

    def sample(self, s: Tensor, generator: Generators) -> Tensor:
        return self._code(s + self.sigma * randn_like(s, generator))

    def curvature(self, s: Tensor, y: Tensor) -> Tensor:
        if self.sigma == 0:
            return torch.zeros_like(s * y)
        return self._cut(s, y, like(self.sigma, s)).shrink / self.sigma**2

    def prox(self, z: Tensor, y: Tensor, mu: float | Tensor) -> Tensor:
        """The minimizer; without noise the nearest number in the bin."""
        z, y, stiffness = broadcast(z, y, like(mu, z))
        bins = self._table(z).of(y)
        if self.sigma == 0:
            return z.clamp(bins.lower, bins.top)

        def step(z: Tensor) -> Tensor:
            a, b, width = ((e / self.sigma) for e in (bins.lower - z, bins.upper - z, bins.width))
            return z + self.sigma * bin_step(a, b, width, stiffness * self.sigma**2)

        return with_derivatives(
            z, step, lambda z: stiffness / (stiffness + self.curvature(step(z), y))
        )

    @torch.no_grad()
    def evidence_score(self, p: Tensor, y: Tensor, tau: float | Tensor) -> tuple[Tensor, Tensor]:
        """m/√v and (1 − V)/v of the normal N(p, v) cut to the bin, v = σ² + τ."""
        variance = self.sigma**2 + like(tau, p)
        cut = self._cut(p, y, variance.sqrt())
        return cut.mean / variance.sqrt(), cut.shrink / variance

    @torch.no_grad()
    def moments(self, p: Tensor, y: Tensor, tau: float | Tensor) -> Moments:
        """Mean and variance of s given y, through t = s + σ n, which fell into the bin."""
        p, y, prior = broadcast(p, y, like(tau, p))
        noise, bins = self.sigma**2, self._table(p).of(y)
        scale = (noise + prior).sqrt()
        cut = self._cut(p, y, scale)
        # From the near edge where p lies outside: a sum from p would lose digits.
        seen = p + scale * cut.mean
        seen = torch.where(p < bins.lower, bins.lower + scale * cut.excess, seen)
        seen = torch.where(p > bins.upper, bins.upper - scale * cut.excess, seen)
        seen = seen.clamp(bins.lower, bins.top)
        mean = (noise * p + prior * seen) / (noise + prior) if noise else seen
        return Moments(mean, prior * (noise + prior * cut.variance) / (noise + prior))

    def value(self, y: Tensor) -> Tensor:
        """The middle of the bin (an outer one is as wide as its neighbor), in the default dtype."""
        numbers = torch.empty((), device=y.device)
        return self._table(numbers).middle[y.long()]

    def sign_agreement(self, s: Tensor, y: Tensor) -> Tensor:
        return (self._code(s) == y).to(s.dtype)

    def check(self, y: Tensor) -> None:
        levels = len(self.inner_edges) + 1
        if not bool(((y == y.round()) & (y >= 0) & (y < levels)).all()):
            raise InputError(
                f"the measurements are numbers of bins, whole, from 0 to {levels - 1}; "
                "others were given, so use the channel that they were made with."
            )

    def config(self) -> dict[str, Any]:
        bins = {"bits": self.bits} if self.edges is None else {"edges": list(self.edges)}
        return {"kind": "quantized", **bins, "sigma": self.sigma, "limit": self.limit}

    def _table(self, s: Tensor) -> Bins:
        key = (s.dtype, s.device)
        if key not in self._cache:
            self._cache[key] = table(self.inner_edges, self.limit, s.dtype, s.device)
        return self._cache[key]

    def _code(self, s: Tensor) -> Tensor:
        return torch.bucketize(s.contiguous(), self._table(s).lower[1:].contiguous(), right=True)

    def _cut(self, s: Tensor, y: Tensor, scale: Tensor) -> Interval:
        """Of t ~ N(s, scale²) given its bin, standardized."""
        bins = self._table(s).of(y)
        return interval((bins.lower - s) / scale, (bins.upper - s) / scale, bins.width / scale)

    def _nll(self, s: Tensor, y: Tensor) -> Tensor:
        if self.sigma == 0:
            return torch.zeros_like(s).masked_fill(self._code(s) != y, torch.inf)
        return -self._cut(s, y, like(self.sigma, s)).log_mass

    def _grad(self, s: Tensor, y: Tensor) -> Tensor:
        if self.sigma == 0:
            return torch.zeros_like(s)
        return -self._cut(s, y, like(self.sigma, s)).mean / self.sigma
