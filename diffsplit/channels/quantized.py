"""A few bits per measurement: the number of the bin into which a noisy number falls."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diffsplit.arguments import TINY, are_counts, brief
from diffsplit.channels.checks import check_measurements, number
from diffsplit.channels.discrete import NoisyQuantizer
from diffsplit.channels.normal import Cut, Interval
from diffsplit.errors import InputError
from diffsplit.operators.tensors import Constants

__all__ = ["Quantized"]

_MAX_BITS = 16


@dataclass(frozen=True)
class Quantized(NoisyQuantizer):
    """y = the number, 0 … L − 1, of the bin [e_y, e_{y+1}) that holds s + σ n; an int64 tensor.

    With P = Φ((e_{y+1} − s)/σ) − Φ((e_y − s)/σ), ℓ = −log P; its derivatives and the posterior
    moments are those of a normal cut to an interval (see `channels.normal`). Anything else than
    the number of a bin gives NaN.
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
    outcomes: int = field(init=False, repr=False, compare=False)
    _bins: Constants = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if (self.bits is None) == (self.edges is None):
            raise InputError("a quantizer takes either bits or edges; give exactly one of them.")
        if self.bits is not None and not (are_counts(self.bits) and self.bits <= _MAX_BITS):
            raise InputError(f"bits is {brief(self.bits)}; give a whole number from 1 to 16.")
        if self.edges is not None:
            self._set(edges=_checked_edges(self.edges))
        self._set(sigma=number("sigma", self.sigma, 0), limit=number("limit", self.limit, TINY))
        self._set(smooth=self.sigma > 0, outcomes=len(self.inner_edges) + 1)
        self._set(_bins=_tables(torch.tensor(self.inner_edges, dtype=torch.float64), self.limit))

    @property
    def inner_edges(self) -> tuple[float, ...]:
        """The L − 1 finite edges."""
        if not self.bits:
            return tuple(self.edges or ())
        levels = 2**self.bits
        return tuple(self.limit * (2 * k / levels - 1) for k in range(1, levels))

    def value(self, y: Tensor) -> Tensor:
        """The middle of the bin (an outer one is as wide as its neighbor), in the default dtype."""
        check_measurements(y)
        return self._of_bin(torch.empty((), device=y.device), y, "middle")[0]

    def check(self, y: Tensor) -> None:
        check_measurements(y)
        y = y if y.is_floating_point() else y.long()  # 255 < 256 fails in uint8
        if not bool(((y == y.round()) & (y >= 0) & (y < self.outcomes)).all()):
            raise InputError(
                f"the measurements are numbers of bins, whole, from 0 to {self.outcomes - 1}; "
                "others were given, so use the channel that they were made with."
            )

    def config(self) -> dict[str, Any]:
        bins = {"bits": self.bits} if self.edges is None else {"edges": list(self.edges)}
        return {"kind": "quantized", **bins, "sigma": self.sigma, "limit": self.limit}

    def _outcome(self, s: Tensor) -> Tensor:
        edges = self._bins.like("lower", s)[2:-1].contiguous()
        return torch.bucketize(s.contiguous(), edges, right=True)

    def _nearest(self, s: Tensor, y: Tensor) -> Tensor:
        lower, upper = self._of_bin(s, y, "lower", "upper")
        return _inside(s, lower, upper)

    def _reach(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self._of_bin(z, y, "lower", "upper")
        left, right = z - lower, upper - z
        return (right - left).abs() / 2, torch.minimum(left.abs(), right.abs())

    def _cut(self, s: Tensor, y: Tensor, scale: Tensor | float) -> Interval:
        lower, upper, width = self._of_bin(s, y, "lower", "upper", "width")
        return Interval((lower - s) / scale, (upper - s) / scale, width / scale)

    def _mean_seen(self, p: Tensor, y: Tensor, scale: Tensor, cut: Cut) -> Tensor:
        (lower, upper), distance = self._of_bin(p, y, "lower", "upper"), scale * cut.excess
        below = (lower - p) + (upper - p) < 0
        return _inside(torch.where(below, upper - distance, lower + distance), lower, upper)

    def _of_bin(self, s: Tensor, y: Tensor, *names: str) -> list[Tensor]:
        """Facts of `_tables` for each y in the dtype of ``s``; NaN where y is no bin's number."""
        row = (y.long() + 1).clamp(0, self.outcomes + 1)
        row = torch.where(row == y + 1, row, 0) if y.is_floating_point() else row
        return [self._bins.like(name, s)[row] for name in names]


def _tables(inner: Tensor, limit: float) -> Constants:
    """Facts of all bins in order, with one of NaN before and one after them.

    Lower edges, which belong to their bins, upper ones, which do not, widths, and middles, where an
    outer bin counts as wide as its neighbor.
    """
    gaps = inner.diff() if len(inner) > 1 else inner.new_full((1,), limit)
    nan, infinity = inner.new_full((1,), math.nan), inner.new_full((1,), math.inf)
    lower, upper = torch.cat([nan, -infinity, inner, nan]), torch.cat([nan, inner, infinity, nan])
    ends = torch.cat([inner[:1] - gaps[:1], inner, inner[-1:] + gaps[-1:]])
    middle = torch.cat([nan, (ends[:-1] + ends[1:]) / 2, nan])
    return Constants(lower=lower, upper=upper, width=upper - lower, middle=middle)


def _inside(s: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The number nearest to s in [lower, upper)."""
    return s.clamp(lower, upper.nextafter(torch.full_like(upper, -torch.inf)))


def _checked_edges(edges: object) -> tuple[float, ...]:
    """Edges as a tuple.

    Raises:
        InputError: no sequence, too few or too many, not finite, or not increasing.
    """
    if not isinstance(edges, Sequence) or isinstance(edges, str):
        raise InputError(f"edges is {brief(edges)}; give a list of increasing numbers.")
    if not 1 <= len(edges) < 2**_MAX_BITS:
        raise InputError(f"{len(edges)} edges were given; give from 1 to {2**_MAX_BITS - 1}.")
    result = tuple(number("an edge", edge) for edge in edges)
    for low, high in itertools.pairwise(result):
        if low >= high:
            raise InputError(f"edge {low:g} is followed by {high:g}; give increasing edges.")
    return result
