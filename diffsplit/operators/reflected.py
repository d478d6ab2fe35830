"""Images continued by reflection, without repeating the edge: indices −1, −2, … are 1, 2, …"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["fast_length", "fold", "mean_square_of_rows"]


def fast_length(n: int) -> int:
    """The smallest even number ≥ n without prime factors above 5, which an FFT likes."""
    while True:
        n += n % 2
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 2


def fold(x: Tensor, before: int, after: int, size: int, dim: int) -> Tensor:
    """The adjoint of padding by reflection: what lies outside is added to where it came from.

    Args:
        x: at least before + size + after entries along ``dim``; further ones are dropped.
        before: entries that were added in front.
        after: entries that were added behind.
        size: entries of the image.
        dim: the dimension that was padded.
    """
    image = x.narrow(dim, before, size).clone()
    image.narrow(dim, 1, before).add_(x.narrow(dim, 0, before).flip(dim))
    behind = x.narrow(dim, before + size, after).flip(dim)
    image.narrow(dim, size - 1 - after, after).add_(behind)
    return image


def _coincidences(taps: int, size: int) -> Tensor:
    """For how many of ``size`` positions two taps of a kernel fall on the same pixel: (taps, taps).

    At position i the taps t and t' read i + c − t and i + c − t', which are one pixel if their sum
    is 0 or 2 (size − 1), the two mirrors.
    """
    t = torch.arange(taps)
    total, center = t[:, None] + t, taps // 2
    even = (total % 2 == 0) & (t[:, None] != t)
    count = torch.diag(torch.full((taps,), float(size), dtype=torch.float64))
    for position in (total // 2 - center, total // 2 - center + size - 1):
        count += even & (position >= 0) & (position < size)
    return count


def mean_square_of_rows(kernel: Tensor, sides: Sequence[int]) -> float:
    """tr(A Aᵀ)/M of a convolution under a reflecting boundary, exactly.

    Args:
        kernel: ``(C or 1, h, w)`` in float64.
        sides: (H, W) of the images.
    """
    rows = _coincidences(kernel.shape[1], sides[0])
    columns = _coincidences(kernel.shape[2], sides[1])
    trace = (rows @ kernel @ columns * kernel).sum((1, 2)).mean()
    return float(trace) / (sides[0] * sides[1])
