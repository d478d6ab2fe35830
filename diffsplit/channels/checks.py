"""Parameters and arguments of channels, checked without waiting for the device."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from diffsplit.arguments import TINY, brief, is_number
from diffsplit.errors import InputError

__all__ = ["broadcast", "check_measurements", "check_signal", "like", "number"]


def number(name: str, value: Any, low: float = -math.inf) -> float:
    """``value`` as a finite float, at least ``low``: 0, or `TINY` for a positive one.

    Raises:
        InputError: it is no real number, NaN, infinite or too low.
    """
    if not is_number(value, low):
        limit = {0: ", 0 or more", TINY: " above 0"}.get(low, "")
        raise InputError(f"{name} is {brief(value)}; give a finite number{limit}.")
    return float(value)


def like(value: float | Tensor, x: Tensor) -> Tensor:
    """``value`` in the dtype and on the device of ``x``."""
    if isinstance(value, Tensor):
        return value.to(x)
    return torch.full((), value, dtype=x.dtype, device=x.device)


def check_signal(s: object, batched: bool = False) -> None:
    """Raise InputError unless ``s`` is a tensor of float32 or float64, with a batch dimension."""
    if not isinstance(s, Tensor) or s.dtype not in (torch.float32, torch.float64):
        kind = s.dtype if isinstance(s, Tensor) else type(s).__name__
        raise InputError(
            f"s = A x is a tensor of float32 or float64, not {kind}; the order of arguments is "
            "s, then the measurements y."
        )
    if batched and not s.ndim:
        raise InputError("s is a single number; give a batch (B, …), for example s[None].")


def check_measurements(y: object) -> None:
    """Raise InputError unless ``y`` is a tensor of real numbers."""
    if not isinstance(y, Tensor) or y.dtype == torch.bool or y.is_complex():
        kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise InputError(f"measurements are a tensor of numbers, not {kind}.")


def broadcast(s: Tensor, y: Tensor, level: float | Tensor = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """``s`` and ``y`` in the common shape of the three, and ``level`` as a tensor.

    Args:
        s: float32 or float64.
        y: real numbers or integers, on the device of ``s``.
        level: a weight μ or a variance τ, positive.

    Raises:
        InputError: a wrong type or device, shapes that do not fit, or a ``level`` out of range.
    """
    check_signal(s)
    check_measurements(y)
    if y.device != s.device and y.ndim:
        raise InputError(f"s is on {s.device} and y on {y.device}; move one with .to(device).")
    if not isinstance(level, Tensor):
        level = number("a weight or a variance", level, TINY)
    try:
        level = like(level, s)
        parts = torch.broadcast_tensors(s, y, level)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise InputError(
            f"the shapes of s {tuple(s.shape)} and y {tuple(y.shape)} do not fit together, "
            "or that of the weight or variance does not."
        ) from error
    return parts[0], parts[1], level
