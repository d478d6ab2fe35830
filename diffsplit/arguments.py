"""Checks of arguments that many parts make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real

from torch import Tensor

from diffsplit.errors import InputError

__all__ = ["FAR_OUTSIDE", "TINY", "are_counts", "brief", "image_shape", "is_number", "kind_of"]

TINY = math.ulp(0.0)
"""The least positive number: a bound that leaves out zero."""

FAR_OUTSIDE = 8.0
"""A magnitude that no image on [-1, 1] reaches, whatever its noise; bytes read as floats do."""


def are_counts(*values: object) -> bool:
    """Whether all values are integers from 1 up: a float is none, however round."""
    return all(type(value) is int and value >= 1 for value in values)


def brief(value: object) -> str:
    """A few characters that name any value in a message, whatever its size or depth."""
    if isinstance(value, str):
        return repr(value if len(value) <= 24 else value[:20] + "…")
    if isinstance(value, float | bool) or value is None:
        return str(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**18 else "a huge integer"
    return f"a {type(value).__name__}"


def is_number(value: object, low: float = -math.inf, high: float = math.inf) -> bool:
    """Whether ``value`` is a finite real number from ``low`` to ``high``, and no truth value."""
    try:
        number = float(value) if isinstance(value, Real) else math.nan
    except OverflowError:  # an integer beyond every float
        return False
    return not isinstance(value, bool) and math.isfinite(number) and low <= number <= high


def kind_of(value: object) -> str:
    """What a value is, for a message: the dtype of a tensor, or the name of a type."""
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__


def image_shape(shape: object) -> tuple[int, int, int]:
    """``(C, H, W)`` of positive integers, or an InputError if it is none."""
    sizes = tuple(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else ()
    if len(sizes) != 3 or not are_counts(*sizes):
        raise InputError(f"images have a shape (C, H, W) of positive integers, not {shape!r:.60}.")
    channels, height, width = sizes
    return channels, height, width
