"""Channels of finitely many outcomes: their derivatives are written out for autograd."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from diffsplit.channels.base import Channel
from diffsplit.channels.derivatives import with_derivatives
from diffsplit.channels.tensors import broadcast

__all__ = ["DiscreteChannel"]


class DiscreteChannel(Channel):
    """A channel whose ℓ and ℓ' a subclass gives in closed form, right in the tails."""

    @abstractmethod
    def _nll(self, s: Tensor, y: Tensor) -> Tensor:
        """ℓ(s) for tensors of one shape."""

    @abstractmethod
    def _grad(self, s: Tensor, y: Tensor) -> Tensor:
        """ℓ'(s) for tensors of one shape."""

    def nll(self, s: Tensor, y: Tensor) -> Tensor:
        s, y = broadcast(s, y)
        return with_derivatives(
            s,
            lambda s: self._nll(s, y),
            lambda s: self._grad(s, y),
            lambda s: self.curvature(s, y),
        )

    def grad(self, s: Tensor, y: Tensor) -> Tensor:
        s, y = broadcast(s, y)
        return with_derivatives(s, lambda s: self._grad(s, y), lambda s: self.curvature(s, y))
