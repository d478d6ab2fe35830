"""How often a computation evaluated a network and applied an operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["Count", "count_network", "count_operator", "counting", "uncounted"]


@dataclass
class Count:
    """Totals over all images that were processed while `counting`.

    Attributes:
        network: evaluations of a denoiser or consistency model, one for each image.
        operator: applications of A and Aᵀ, one for each image; A Aᵀ counts as two.
    """

    network: int = 0
    operator: int = 0


_ACTIVE: ContextVar[Count | None] = ContextVar("count", default=None)


@contextmanager
def counting() -> Iterator[Count]:
    """Count everything that this thread evaluates inside the ``with`` block."""
    count = Count()
    token = _ACTIVE.set(count)
    try:
        yield count
    finally:
        _ACTIVE.reset(token)


@contextmanager
def uncounted() -> Iterator[None]:
    """Nothing that this thread evaluates inside the ``with`` block is counted."""
    token = _ACTIVE.set(None)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def count_network(images: int) -> None:
    """Note that a network saw ``images`` images."""
    count = _ACTIVE.get()
    if count is not None:
        count.network += images


def count_operator(images: int) -> None:
    """Note that A or Aᵀ was applied to ``images`` vectors."""
    count = _ACTIVE.get()
    if count is not None:
        count.operator += images
