"""The measurement half of expectation propagation: what A and the channel tell the denoiser.

A module takes the denoiser's answer (x̂, t), a mean and the variance of its error, and returns an
extrinsic message (r, v1): r = x0 + N(0, v1 I), an image in white noise of known level, whose noise
does not depend on what the denoiser said before. Scalar variances, one per image.

Sources: vector AMP (Rangan, Schniter, Fletcher 2017) and its generalized form (Schniter et al.
2016) for orthogonal rows; generalized AMP (Rangan 2011) for i.i.d. entries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffsplit.operators.gram import IIDRows, ScaledIdentity
from diffsplit.problem import Problem

__all__ = ["IIDModule", "MeasurementModule", "OrthogonalModule", "module_for"]


def _column(v: Tensor, like: Tensor) -> Tensor:
    return v.view(-1, *(1,) * (like.ndim - 1))


class MeasurementModule(ABC):
    """One half of the exchange; keeps what its next message has to exclude."""

    def __init__(self, problem: Problem, y: Tensor) -> None:
        self.problem, self.y = problem, y
        self.operator, self.channel = problem.operator, problem.channel
        self.ratio = self.operator.size_out / self.operator.size_in
        self.mean_row = self.operator.gram.mean

    @abstractmethod
    def message(self, x_hat: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """(r, v1) from the denoiser's (x̂, t): ``(B, *shape)`` and ``(B,)`` each."""

    def _score(self, p: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """The channel's g, and its h averaged over the measurements of each image."""
        g, h = self.channel.evidence_score(p, self.y, _column(tau, p))
        tiny = torch.finfo(p.dtype).eps
        return g, h.flatten(1).mean(1).clamp(min=tiny).clamp(max=(1 - tiny) / tau)


class OrthogonalModule(MeasurementModule):
    """A Aᵀ = c I, δ = M/N. From (x2, v2), extrinsic of the denoiser:

    p = A x2,  τ = c v2,  g, h = moments of the channel
    posterior after the data:  x2 + v2 Aᵀg, with variance v2 (1 − δ τ h̄)
    r = x2 + (v2/a) Aᵀg,  v1 = v2 (1 − a)/a,  a = δ τ h̄
    """

    def __init__(self, problem: Problem, y: Tensor) -> None:
        super().__init__(problem, y)
        self.last: tuple[Tensor, Tensor, Tensor] | None = None

    def message(self, x_hat: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        x2, p, v2 = self._extrinsic(x_hat, t)
        tau = self.mean_row * v2
        g, h = self._score(p, tau)
        a = self.ratio * tau * h
        gain = v2 / a
        r = x2 + _column(gain, x2) * self.operator.adjoint(g)
        v1 = v2 * (1 - a) / a
        # A Aᵀ = c I gives A r without an operator call, and so the next p
        self.last = r, p + _column(self.mean_row * gain, p) * g, v1
        return r, v1

    def _extrinsic(self, x_hat: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x2, A x2 and v2 from 1/v2 = 1/t − 1/v1, x2 = v2 (x̂/t − r/v1)."""
        observed = self.operator.apply(x_hat)
        if self.last is None:
            return x_hat, observed, t
        r, observed_r, v1 = self.last
        share = (t / v1).clamp(max=0.99)
        rest = 1 - share

        def without(new: Tensor, old: Tensor) -> Tensor:
            return (new - _column(share, new) * old) / _column(rest, new)

        return without(x_hat, r), without(observed, observed_r), share * v1 / rest


class IIDModule(MeasurementModule):
    """Entries i.i.d. with variance γ/M, c̄ = γ N/M:

    τ = c̄ t,  p = A x̂ − τ g_before,  g, h = moments of the channel
    v1 = 1/(γ h̄),  r = x̂ + v1 Aᵀg
    """

    def __init__(self, problem: Problem, y: Tensor) -> None:
        super().__init__(problem, y)
        self.g: Tensor | None = None

    def message(self, x_hat: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        tau = self.mean_row * t
        p = self.operator.apply(x_hat)
        if self.g is not None:
            p = p - _column(tau, p) * self.g
        self.g, h = self._score(p, tau)
        v1 = 1 / (self.ratio * self.mean_row * h)
        return x_hat + _column(v1, x_hat) * self.operator.adjoint(self.g), v1


def module_for(problem: Problem, y: Tensor) -> MeasurementModule | None:
    """The module for the structure of the problem's operator, or None where there is none."""
    gram = problem.operator.gram
    if isinstance(gram, ScaledIdentity):
        return OrthogonalModule(problem, y)
    if isinstance(gram, IIDRows):
        return IIDModule(problem, y)
    return None
