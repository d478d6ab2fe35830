"""How hard a quantizer with Gaussian noise pushes: `balance` of a threshold and of a bin.

All in units of the noise. A threshold pushes with r(u + t), u the signed distance by which z
already fulfills it; a bin with edges a < b relative to z pushes towards its middle, with the mean
of the normal cut to (a − t, b − t).
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplit.channels.normal import interval, inverse_mills, log_density
from diffsplit.channels.prox import Push, balance

__all__ = ["bin_step", "threshold_step"]


def threshold_step(u: Tensor, kappa: Tensor) -> Tensor:
    """The t ≥ 0 with κ t = r(u + t)."""
    return balance(lambda t: _threshold_push(u + t), _bound(u, kappa), kappa)


def bin_step(a: Tensor, b: Tensor, width: Tensor, kappa: Tensor) -> Tensor:
    """The signed t with κ t = E[X | a − t < X < b − t], X ~ N(0, 1); ``width`` is b − a."""
    mirrored = a + b < 0
    near, far = torch.where(mirrored, -b, a), torch.where(mirrored, -a, b)
    middle = (near + far) / 2
    # Three upper bounds: the push is at most that of the near edge alone; at most the distance x
    # from the middle, for a cut normal has a variance ≥ 0; and near the middle of a bin of half
    # width c, about x times the shrink there, up to x = 1/c.
    half = (width / 2).clamp(max=1e3)
    shrink = interval(-half, half, 2 * half).shrink
    rest = torch.minimum(middle * (kappa / (kappa + shrink)), 1 / half) / 2
    bound = torch.minimum(_bound(-near, kappa), middle / (1 + kappa)).minimum(middle - rest)
    least = torch.finfo(near.dtype).tiny

    def push(t: Tensor) -> Push:
        cut = interval(near - t, far - t, width)
        mean = cut.mean.clamp(min=least)
        return Push(mean.log(), cut.shrink / mean)

    t = balance(push, bound, kappa)
    return torch.where(mirrored, -t, t)


def _bound(u: Tensor, kappa: Tensor) -> Tensor:
    """An upper bound of the t with κ t = r(u + t), from r(x) ≤ 0.8 exp(−x²/2) for x ≥ 0."""
    reach = (2 * (0.8 / kappa).log().clamp(min=0.5)).sqrt()
    return torch.minimum(inverse_mills(u) / kappa, (reach - u).clamp(min=1))


def _threshold_push(x: Tensor) -> Push:
    ratio = inverse_mills(x)
    log_ratio = torch.where(x < 5, ratio.log(), log_density(x) - torch.special.log_ndtr(x))
    # r(x) + x cancels far on the wrong side; its continued fraction does not.
    a = (-x).clamp(min=5)
    excess = 1 / (a + 2 / (a + 3 / (a + 4 / (a + 5 / a))))
    return Push(log_ratio, torch.where(x < -5, excess, ratio + x))
