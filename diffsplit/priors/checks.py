"""What priors are given, checked in one place: batches, noise levels, numbers and shapes."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffsplit.arguments import kind_of
from diffsplit.errors import InputError

__all__ = [
    "as_levels",
    "check_batch",
    "check_levels",
    "check_shape",
    "checked_count",
    "checked_number",
    "checked_numbers",
    "per_image",
]


def per_image(sigma: float | Tensor, batch: int, like: Tensor) -> Tensor:
    """A noise level, given once or one per image, as ``(batch,)`` on the device of ``like``."""
    if isinstance(sigma, Tensor):
        sigma = sigma.to(dtype=like.dtype, device=like.device)
    else:  # filled in where it is needed: a copy would wait for the device
        sigma = torch.full((), checked_number("sigma", sigma), dtype=like.dtype, device=like.device)
    if sigma.ndim > 1 or (sigma.ndim == 1 and len(sigma) not in (1, batch)):
        raise InputError(
            f"sigma has shape {tuple(sigma.shape)}; give one number, or one per image ({batch},)."
        )
    return sigma.expand(batch)


def check_batch(x: Tensor, shape: Sequence[int]) -> None:
    """Raise InputError unless ``x`` is a floating-point tensor ``(B, *shape)``."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise InputError(
            f"a prior takes floating-point tensors on [-1, 1], not {kind_of(x)}; images in bytes "
            "become one with ds.images.from_uint8."
        )
    if tuple(x.shape[1:]) != tuple(shape) or x.ndim == 0:
        raise InputError(
            f"the prior takes batches of shape (B, {', '.join(map(str, shape))}), "
            f"but the input has shape {tuple(x.shape)}; resize it or load another prior."
        )


def check_levels(sigma_min: float, sigma_max: float, **scales: float) -> None:
    """Raise InputError unless 0 < sigma_min < sigma_max < ∞ and ``scales`` are positive numbers."""
    low, high = checked_number("sigma_min", sigma_min), checked_number("sigma_max", sigma_max)
    if not 0 < low < high < math.inf:
        raise InputError(
            f"the noise levels of a prior are 0 < sigma_min < sigma_max, not {low} and {high}."
        )
    for name, value in scales.items():
        if not 0 < checked_number(name, value) < math.inf:
            raise InputError(f"the {name} of a prior is a positive number, not {value}.")


def checked_number(name: str, value: Any) -> float:
    """``value`` as a float that is not NaN, or an InputError that calls it ``name``."""
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if math.isnan(number):
        raise InputError(f"{name} is a number, not {value!r:.40}.")
    return number


def checked_count(name: str, value: Any) -> int:
    """``value`` as an integer of 1 or more, or an InputError that calls it ``name``."""
    try:
        count = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = 0
    if not 1 <= count < 2**31:
        raise InputError(f"{name} is an integer of 1 or more, not {value!r:.40}.")
    return count


def checked_numbers(
    name: str, values: float | Sequence[float] | Tensor, shape: tuple[int, ...] | None = None
) -> Tensor:
    """Finite numbers as a float64 tensor, broadcast to ``shape`` and flattened if there is one."""
    try:
        result = torch.as_tensor(values, dtype=torch.float64)
        result = result if shape is None else result.expand(shape).flatten()
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        wanted = "made of numbers" if shape is None else f"made of numbers and broadcast to {shape}"
        raise InputError(f"the {name} is {wanted}, not {values!r:.60}.") from error
    if not bool(result.isfinite().all()):
        raise InputError(f"the {name} is not finite; give finite numbers.")
    return result


def as_levels(sigma: float | Tensor) -> Tensor:
    """Noise levels as a floating-point tensor of their shape."""
    if not isinstance(sigma, Tensor):
        return torch.tensor(checked_number("sigma", sigma))
    return sigma if sigma.is_floating_point() else sigma.float()


def check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape as a tuple of positive integers, or an InputError if it is something else."""
    try:
        result = tuple(checked_count("a size", n) for n in shape)
    except (TypeError, InputError):
        result = ()
    if not result:
        raise InputError(f"shape {shape!r:.60} is not made of positive sizes; give (C, H, W).")
    return result
