"""A linear map with its adjoint."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.operators.differentiable import linear
from diffsplit.operators.gram import Gram

__all__ = ["LinearOperator"]


class LinearOperator(ABC):
    """A, from images ``(B, *shape_in)`` to measurements ``(B, *shape_out)``.

    A subclass defines `_apply`, `_adjoint` and sets the attributes. `A @ B`, `c * A` and
    `operators.Stacked` build new operators from old ones.

    Attributes:
        shape_in: shape of one image; N is its size.
        shape_out: shape of one measurement; M is its size.
        gram: what is known of A Aᵀ, which decides how fast a data step can be.
    """

    shape_in: tuple[int, ...]
    shape_out: tuple[int, ...]
    gram: Gram

    @abstractmethod
    def _apply(self, x: Tensor) -> Tensor:
        """A x for ``x`` of the right shape."""

    @abstractmethod
    def _adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y for ``y`` of the right shape."""

    def apply(self, x: Tensor) -> Tensor:
        """A x, differentiable: its gradient is one application of Aᵀ, and keeps no memory.

        Args:
            x: images ``(B, *shape_in)`` on [-1, 1].

        Returns:
            ``(B, *shape_out)``, in the dtype of ``x``.

        Raises:
            InputError: ``x`` has another shape, or is not of floats.
        """
        _check(x, self.shape_in, "the operator takes images")
        return linear(x, self._apply, self._adjoint)

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y, from ``(B, *shape_out)`` to ``(B, *shape_in)``.

        Raises:
            InputError: ``y`` has another shape, or is not of floats.
        """
        _check(y, self.shape_out, "the adjoint takes measurements")
        return linear(y, self._adjoint, self._apply)

    __call__ = apply

    @property
    def size_in(self) -> int:
        """N, the number of unknowns."""
        return math.prod(self.shape_in)

    @property
    def size_out(self) -> int:
        """M, the number of measurements."""
        return math.prod(self.shape_out)

    def to(
        self, device: str | torch.device | None = None, dtype: torch.dtype | None = None
    ) -> LinearOperator:
        """Move stored tensors, in place, and return the operator."""
        return self

    def config(self) -> dict[str, Any]:
        """What `operators.from_config` needs to build this operator again: plain JSON values.

        Raises:
            InputError: the operator was built from a function or matrix and cannot be named.
        """
        raise InputError(
            f"{type(self).__name__} cannot be written to a file; "
            "use an operator that a seed or a mask describes."
        )

    def fingerprint(self) -> list[float]:
        """Eight numbers that another machine's equal operator reproduces to about 1e-4."""
        probe = torch.linspace(-1, 1, self.size_in).cos().reshape(1, *self.shape_in)
        values = self.apply(probe.to(self._device())).flatten().cpu()
        index = [i * (len(values) - 1) // 7 for i in range(8)]
        return [round(v, 6) for v in values[index].tolist()]

    def _device(self) -> torch.device:
        """Where the stored tensors are, its own or those of an operator inside; else the CPU."""
        for value in vars(self).values():
            if isinstance(value, Tensor):
                return value.device
            for part in value if isinstance(value, tuple) else (value,):
                if isinstance(part, LinearOperator):
                    return part._device()
        return torch.device("cpu")

    def __matmul__(self, other: LinearOperator) -> LinearOperator:
        from diffsplit.operators.algebra import Composed

        return Composed(self, other)

    def __rmul__(self, factor: float) -> LinearOperator:
        from diffsplit.operators.algebra import Scaled

        return Scaled(self, factor)


def _check(x: Tensor, shape: Sequence[int], what: str) -> None:
    if tuple(x.shape[1:]) != tuple(shape):
        sizes = ", ".join(map(str, shape))
        raise InputError(
            f"{what} of shape (B, {sizes}), not {tuple(x.shape)}; "
            "reshape the input or build the operator for its shape."
        )
    if not x.is_floating_point():
        raise InputError(f"{what} of floats, not {x.dtype}; convert the input with .float().")
