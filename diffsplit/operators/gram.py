"""The one structural fact of an operator: what is known of its Gram matrix A Aᵀ."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Gram", "IIDRows", "RandomRows", "ScaledIdentity"]


@dataclass(frozen=True)
class Gram:
    """Nothing is known of A Aᵀ but the mean of its diagonal.

    Attributes:
        mean: c̄ = tr(A Aᵀ)/M, the mean squared norm of a row.
    """

    mean: float

    def scaled(self, factor: float) -> Gram:
        """The fact for ``factor`` · A."""
        return type(self)(self.mean * factor**2)


class ScaledIdentity(Gram):
    """A Aᵀ = c I with c = ``mean``: the rows are orthogonal and of equal length."""


class RandomRows(ScaledIdentity):
    """A Aᵀ = c I, and no row is nearer to one image or pixel than to another."""


class IIDRows(Gram):
    """Entries independent, with zero mean and variance ``mean``/N: A Aᵀ ≈ c̄ I for M ≪ N."""
