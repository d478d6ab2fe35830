"""Checks of the arguments of operators, which may come from a file that nobody vouches for."""

from __future__ import annotations

import base64
import math
import operator
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from diffsplit.arguments import TINY, brief
from diffsplit.errors import InputError

__all__ = [
    "MAX_SIZE",
    "check_batch",
    "choice",
    "decoded",
    "integer",
    "real",
    "seed_of",
    "shape_of",
]

MAX_SIZE = 2**26
"""The largest number of entries of one image."""


def integer(value: Any, name: str, low: int, high: int) -> int:
    """``value`` as an int with low ≤ value ≤ high.

    Raises:
        InputError: it is no integer (a bool or a float is none), or out of range.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        number = None
    if number is None or not low <= number <= high:
        raise InputError(f"{name} is an integer from {low} to {high}, not {brief(value)}.")
    return number


def real(value: Any, name: str, low: float = -math.inf, high: float = math.inf) -> float:
    """``value`` as a finite float with low ≤ value ≤ high; a bool is none.

    Raises:
        InputError: it is no number, infinite, NaN or out of range.
    """
    try:
        number = math.nan if isinstance(value, bool | str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number = math.nan
    if not (math.isfinite(number) and low <= number <= high):
        least = "above 0" if low == TINY else f"from {low:g}"
        limits = "" if low == -math.inf else f" {least}" + f" to {high:g}" * (high < math.inf)
        raise InputError(f"{name} is a finite number{limits}, not {brief(value)}.")
    return number


def choice(value: Any, name: str, options: Sequence[str]) -> str:
    """``value``, one of the words in ``options``.

    Raises:
        InputError: it is none of them.
    """
    if not isinstance(value, str) or value not in options:
        words = " or ".join(f'"{option}"' for option in options)
        raise InputError(f"{name} is {words}, not {brief(value)}.")
    return value


def shape_of(value: Any, ndim: int | None = None) -> tuple[int, ...]:
    """``value`` as the shape of one image, with ``ndim`` dimensions if that is given.

    Raises:
        InputError: not a sequence of positive integers, or more than `MAX_SIZE` entries.
    """
    wanted = "(C, H, W)" if ndim == 3 else "a tuple such as (3, 64, 64)"
    if isinstance(value, str | bytes) or not isinstance(value, Sequence) or not 1 <= len(value) < 9:
        raise InputError(f"the shape of one image is {wanted}, not {brief(value)}.")
    shape = tuple(integer(size, "every size of a shape", 1, MAX_SIZE) for size in value)
    if ndim is not None and len(shape) != ndim:
        raise InputError(f"the shape of one image is {wanted}, not {shape}.")
    if math.prod(shape) > MAX_SIZE:
        raise InputError(
            f"an image of shape {shape} has more than {MAX_SIZE:,} entries; "
            "work on smaller images or on crops."
        )
    return shape


def seed_of(value: Any) -> int:
    """``value`` as a seed, from 0 to 2³² − 1, for `diffsplit.noise.seeded`.

    Torch keeps 32 bits of a seed: a larger one would repeat the operator of another.
    """
    return integer(value, "a seed", 0, 2**32 - 1)


def decoded(text: Any, size: int, name: str) -> bytes:
    """The ``size`` bytes that ``text`` holds in base64.

    Raises:
        InputError: it is no base64, or of another length.
    """
    try:  # base64 writes three bytes as four characters
        fits = isinstance(text, str) and len(text) == 4 * math.ceil(size / 3)
        data = base64.b64decode(text, validate=True) if fits else b""
    except ValueError:
        data = b""
    if len(data) != size:
        raise InputError(f"{name} is a text in base64 that holds {size} bytes; this is none.")
    return data


def check_batch(x: Any, shape: Sequence[int], what: str) -> None:
    """Refuse what is no tensor of floats ``(B, *shape)`` with B ≥ 1.

    Raises:
        InputError: with ``what`` as its start, such as "the operator takes images".
    """
    if not isinstance(x, Tensor):
        raise InputError(
            f"{what} as a tensor, not {brief(x)}; convert a picture "
            "with ds.images.from_numpy, other arrays with torch.as_tensor."
        )
    if tuple(x.shape[1:]) != tuple(shape) or len(x) == 0:
        sizes = ", ".join(map(str, shape))
        raise InputError(
            f"{what} of shape (B, {sizes}) with B ≥ 1, not {tuple(x.shape)}; "
            "reshape the input or build the operator for its shape."
        )
    if not x.is_floating_point():
        raise InputError(
            f"{what} of real floats, not {x.dtype}; convert 8-bit pictures with "
            "ds.images.from_uint8, other values with .float()."
        )
