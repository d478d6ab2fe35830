"""The bins of a quantizer: checked edges, and a table of every bin."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffsplit.channels.parameters import number
from diffsplit.errors import InputError

__all__ = ["MAX_BITS", "Bins", "checked_edges", "table", "uniform_edges"]

MAX_BITS = 16


class Bins(NamedTuple):
    """Every bin, in order, or the bins of some measurements.

    Attributes:
        lower: lower edges, which belong to their bins; the first is −∞.
        upper: upper edges, which do not; the last is ∞.
        top: the largest number of the dtype inside the bin.
        width: upper − lower, rounded once.
        middle: the middle; an outer bin counts as wide as its neighbor.
    """

    lower: Tensor
    upper: Tensor
    top: Tensor
    width: Tensor
    middle: Tensor

    def of(self, y: Tensor) -> Bins:
        """The bins numbered ``y``."""
        index = y.long()
        return Bins(*(column[index] for column in self))


def uniform_edges(bits: int, limit: float) -> tuple[float, ...]:
    """The inner edges of 2^bits bins of equal width over [−limit, limit]."""
    levels = 2**bits
    return tuple(limit * (2 * k / levels - 1) for k in range(1, levels))


def checked_edges(edges: object) -> tuple[float, ...]:
    """Edges as a tuple.

    Raises:
        InputError: no sequence, too few or too many, not finite, or not increasing.
    """
    if not isinstance(edges, Sequence) or isinstance(edges, str):
        raise InputError(f"edges is {edges!r}; give a list of increasing numbers.")
    if not 1 <= len(edges) < 2**MAX_BITS:
        raise InputError(f"{len(edges)} edges were given; give from 1 to {2**MAX_BITS - 1}.")
    result = tuple(number("an edge", edge) for edge in edges)
    for low, high in itertools.pairwise(result):
        if low >= high:
            raise InputError(f"edge {low:g} is followed by {high:g}; give increasing edges.")
    return result


def table(edges: Sequence[float], limit: float, dtype: torch.dtype, device: torch.device) -> Bins:
    """All bins between ``edges``; a single edge has two bins that count as ``limit`` wide."""
    inner = torch.tensor(edges, dtype=torch.float64)
    gaps = inner.diff() if len(edges) > 1 else torch.tensor([limit], dtype=torch.float64)
    infinity = torch.tensor([math.inf], dtype=torch.float64)
    middle = torch.cat(
        [inner[:1] - gaps[:1] / 2, inner + torch.cat([gaps, gaps[-1:]])[-len(edges) :] / 2]
    )
    width = torch.cat([infinity, inner.diff(), infinity])
    lower, upper = (torch.cat(ends).to(dtype) for ends in ([-infinity, inner], [inner, infinity]))
    top = torch.nextafter(upper, torch.full_like(upper, -math.inf))
    return Bins(*(column.to(device, dtype) for column in (lower, upper, top, width, middle)))
