"""A stranger's linear map as the fast operator that it equals: a mask, a blur, a reduction.

The answer to one simple image, of ones or of a single bright pixel, suggests an operator. Two
linear maps that agree on a random image are the same map but for a chance of zero, so that one
random image through A and one through Aᵀ decide. What equals no operator of ours may still have a
structure that solvers use, which is found in the same way: orthogonal rows of one length, or
channels that are treated apart and shifts that commute with A.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import seeded
from diffsplit.operators import Blur, Downsample, Identity, PixelMask
from diffsplit.operators.base import LinearOperator
from diffsplit.operators.functional import FunctionOperator
from diffsplit.operators.gram import ScaledIdentity

__all__ = ["agrees", "recognized"]

TOLERANCE = 1e-5
"""Relative difference of two maps that count as one; float32 stays below it."""


def recognized(operator: FunctionOperator) -> tuple[LinearOperator, PixelMask | None]:
    """The operator of ours that a map equals, or the map with what was found of its structure.

    Entries of the measurements that are 0 whatever the image measure nothing, and are left out.

    Args:
        operator: the map; its ``gram`` and ``stride`` are set where none of ours equals it.

    Returns:
        The operator, and the mask that picks its measurements from those of the map; None where
        they are the same.
    """
    mask = _measured(operator)
    kept = operator if mask is None else mask @ operator
    for candidate in _candidates(operator) if mask is None else (mask,):
        if agrees(kept, candidate):
            return candidate, mask
    c = _squared_row_length(kept)
    if c is not None:
        kept.gram = ScaledIdentity(c)
    kept.stride = None if mask is not None else _stride(operator)
    return kept, mask


def agrees(given: LinearOperator, candidate: LinearOperator) -> bool:
    """Whether two maps, and their adjoints, give the same for a random image and measurement."""
    if (given.shape_in, given.shape_out) != (candidate.shape_in, candidate.shape_out):
        return False
    x, v = _random(given, given.shape_in), _random(given, given.shape_out)
    return _close(candidate.apply(x), given.apply(x)) and _close(
        candidate.adjoint(v), given.adjoint(v)
    )


def _measured(operator: LinearOperator) -> PixelMask | None:
    """The entries of the measurements ``(C, h, w)`` that are not 0 for a random image."""
    seen = operator.apply(_random(operator, operator.shape_in))[0] != 0
    return None if seen.ndim != 3 or bool(seen.all()) else PixelMask.from_mask(seen)


def _candidates(operator: LinearOperator) -> Iterator[LinearOperator]:
    """What a map may be by its shapes and its answers to simple images."""
    shape = operator.shape_in
    factor = _factor(operator)
    if factor is None:
        return
    if factor > 1:
        for name in ("average", "bicubic", "lanczos"):
            with suppress(InputError):  # of the sizes that it takes
                yield Downsample(shape, factor, name)
        return
    yield Identity(shape)
    kernel = _response(operator)
    if bool(kernel.flatten(1).any(1).all()):
        yield Blur(shape, kernel, "circular")
        yield Blur(shape, kernel, "reflect")


def _factor(operator: LinearOperator) -> int | None:
    """k, if the map takes images ``(C, H, W)`` to ``(C, H/k, W/k)``."""
    if len(operator.shape_in) != 3 or len(operator.shape_out) != 3:
        return None
    (c, h, w), (channels, height, width) = operator.shape_in, operator.shape_out
    factor = h // height
    fits = (c, h, w) == (channels, factor * height, factor * width)
    return factor if fits and factor > 0 else None


def _response(operator: LinearOperator) -> Tensor:
    """The answer to a bright pixel in the middle, cut to the entries that are not 0 ``(C, h, w)``.

    The pixel stays at the center of what is left, as `Blur` wants its kernels.
    """
    _, height, width = operator.shape_in
    unit = torch.zeros(1, *operator.shape_in, device=operator.device)
    unit[..., height // 2, width // 2] = 1
    response = operator.apply(unit)[0].cpu()
    rows, columns = (response.abs() > 1e-7 * response.abs().max()).any(0).nonzero().unbind(1)
    if len(rows) == 0:
        return response
    for dim, (index, side) in enumerate(((rows, height), (columns, width)), start=1):
        center = side // 2
        radius = int((index - center).abs().max())
        if center + radius < side:
            response = response.narrow(dim, center - radius, 2 * radius + 1)
    return response


def _squared_row_length(operator: LinearOperator) -> float | None:
    """c, if A Aᵀ = c I."""
    v = _random(operator, operator.shape_out)
    image = operator.adjoint(v)
    c = float(image.double().square().sum() / v.double().square().sum())
    return c if _close(operator.apply(image), c * v) else None


def _stride(operator: LinearOperator) -> int | None:
    """k, if channels are apart and a circular shift by k pixels shifts the measurement by one."""
    factor = _factor(operator)
    if factor is None:
        return None
    x = _random(operator, operator.shape_in)
    y = operator.apply(x)
    for dim in (-2, -1):
        if not _close(operator.apply(x.roll(factor, dim)), y.roll(1, dim)):
            return None
    for channel in range(operator.shape_in[0]):
        alone = torch.zeros_like(x)
        alone[:, channel] = x[:, channel]
        leaked = operator.apply(alone)
        leaked[:, channel] = 0
        if not leaked.norm() <= TOLERANCE * y.norm():
            return None
    return factor


def _random(operator: LinearOperator, shape: tuple[int, ...]) -> Tensor:
    drawn = torch.randn((1, *shape), generator=seeded(0, "recognition"))
    return drawn.to(operator.device or "cpu")


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).norm() <= TOLERANCE * b.norm())
