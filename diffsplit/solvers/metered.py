"""Wrappers that count what a solver uses."""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplit.operators.base import LinearOperator
from diffsplit.operators.spectrum import Spectrum
from diffsplit.priors.base import Prior

__all__ = ["MeteredOperator", "MeteredPrior"]


class MeteredOperator(LinearOperator):
    """An operator that counts applications of A and Aᵀ in ``calls``, and A Aᵀ as two.

    Transforms of its spectrum are not counted: one application is worth two of them.
    """

    def __init__(self, operator: LinearOperator) -> None:
        self.operator = operator
        self.shape_in, self.shape_out = operator.shape_in, operator.shape_out
        self.gram = operator.gram
        self.calls = 0

    def _apply(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.operator.apply(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        self.calls += 1
        return self.operator.adjoint(y)

    def apply_gram(self, y: Tensor) -> Tensor:
        self.calls += 2
        return self.operator.apply_gram(y)

    @property
    def has_spectrum(self) -> bool:
        return self.operator.has_spectrum

    def spectrum(self) -> Spectrum:
        return self.operator.spectrum()

    def norm(self) -> float:
        return self.operator.norm()


class MeteredPrior(Prior):
    """A prior that counts network evaluations per image in ``calls``.

    Args:
        prior: any prior.
        batch: images being recovered; evaluating ``S · batch`` images counts S times.
    """

    def __init__(self, prior: Prior, batch: int) -> None:
        self.prior = prior
        self.batch = batch
        self.shape, self.mean_square, self.bounds = prior.shape, prior.mean_square, prior.bounds
        self.sigma_min, self.sigma_max = prior.sigma_min, prior.sigma_max
        self.calls = 0

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls += len(x) // self.batch
        return self.prior.denoise(x, sigma)

    def error(self, sigma: float | Tensor) -> Tensor | None:
        return self.prior.error(sigma)

    @property
    def device(self) -> torch.device:
        return self.prior.device
