"""Checks of a channel's parameters."""

from __future__ import annotations

import math
from numbers import Real

from diffsplit.errors import InputError

__all__ = ["non_negative", "number", "positive"]


def number(name: str, value: object, low: float = -math.inf, expected: str = "") -> float:
    """``value`` as a finite float, at least ``low``; ``expected`` says so in words.

    Raises:
        InputError: it is no real number, NaN, infinite or too low.
    """
    real = isinstance(value, Real) and not isinstance(value, bool)
    result = float(value) if real else math.nan  # type: ignore[arg-type]
    if not (math.isfinite(result) and result >= low):
        raise InputError(f"{name} is {value!r}; give {expected or 'a finite number'}.")
    return result


def non_negative(name: str, value: object) -> float:
    """``value`` as a finite float ≥ 0."""
    return number(name, value, 0, "a finite number, 0 or more")


def positive(name: str, value: object) -> float:
    """``value`` as a finite float > 0."""
    return number(name, value, math.ulp(0.0), "a finite number above 0")
