"""The measurement half of message passing: what A and the channel tell the denoiser.

A module holds a message x = x0 + error of variance v, with p = A x, and sends an extrinsic one:
r = x0 + N(0, v1 I), an image in white noise of known level, whose noise does not depend on what the
denoiser said before. It takes the denoiser's answer back, and asks the evidence for its level.
Scalar variances, one per image.

Sources: vector AMP (Rangan, Schniter, Fletcher 2017) and its generalized form (Schniter et al.
2016) for orthogonal rows; generalized AMP (Rangan 2011) for i.i.d. entries.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from diffsplit.operators.gram import IIDRows, RandomRows, ScaledIdentity
from diffsplit.problem import Problem
from diffsplit.solvers.message_passing.evidence import (
    LEAST,
    NEWTON_STEPS,
    column,
    level_by_evidence,
)

__all__ = ["IndependentRows", "MeasurementModule", "Message", "OrthogonalRows", "module_for"]

LATER_STEPS = 3
"""Of Newton's method, after the first two messages: then the prediction is close."""


class Message(NamedTuple):
    """From the denoiser.

    Attributes:
        x: x0 + error ``(B, *shape)``.
        p: A x ``(B, *shape_out)``, corrected for what i.i.d. rows have seen.
        v: variance of the error per entry ``(B,)``.
    """

    x: Tensor
    p: Tensor
    v: Tensor


class MeasurementModule(ABC):
    """One half of the exchange.

    Args:
        problem, y: what was measured.
        x, v: the message to start from: an image and the variance of its error ``(B,)``.
        spread: see `level_by_evidence`.

    Attributes:
        message: what the module works from, its level by the evidence.
        predicted: the level that the message came with ``(B,)``.
        unevenness: mean h² over (mean h)² where rows are not random ``(B,)``: there the noise of r
            is as uneven as h, and stronger than v1 where the channel says most.
        confounded: how far its scale and its level are not told apart, see `Level` ``(B,)``.
    """

    def __init__(self, problem: Problem, y: Tensor, x: Tensor, v: Tensor, spread: float) -> None:
        self.operator, self.channel, self.y = problem.operator, problem.channel, y
        self.c, self.spread = self.operator.gram.mean, spread
        self.delta = self.operator.size_out / self.operator.size_in
        self.predicted, self.unevenness = v, torch.ones_like(v)
        self.random = isinstance(self.operator.gram, IIDRows | RandomRows)
        self.steps = NEWTON_STEPS
        self.message = self._leveled(Message(x, self.operator.apply(x), v))

    @abstractmethod
    def send(self) -> tuple[Tensor, Tensor]:
        """(r, v1): ``(B, *shape)`` and ``(B,)``."""

    @abstractmethod
    def receive(self, x_hat: Tensor, alpha: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Take the denoiser's answer; return the best estimate of the image and its error ``(B,)``.

        Args:
            x_hat: D(r, √v1).
            alpha: the share of r in it, div D/N ``(B,)``.
            keep: share of the last message that stays, against oscillation ``(B,)``.
        """

    def _take(self, new: Message, keep: Tensor) -> None:
        """Damp a message (standard deviations are averaged), and ask the evidence for its level."""
        old = self.message
        x, p = (a + column(keep, a) * (b - a) for a, b in ((new.x, old.x), (new.p, old.p)))
        v = (new.v.sqrt() + keep * (old.v.sqrt() - new.v.sqrt())).square()
        self.predicted = v
        self.message = self._leveled(Message(x, p, v))
        self.steps = LATER_STEPS

    def _leveled(self, message: Message) -> Message:
        level = level_by_evidence(
            self.channel, message.p, self.y, self.c * message.v, self.spread, self.steps
        )
        self.confounded = level.confounded
        x, p = (column(level.gain, a) * a for a in (message.x, message.p))
        return Message(x, p, level.tau / self.c)

    def _score(self) -> tuple[Tensor, Tensor]:
        """The channel's g, and its h averaged over the measurements of each image."""
        tau = self.c * self.message.v
        g, h = self.channel.evidence_score(self.message.p, self.y, column(tau, self.message.p))
        mean = h.flatten(1).mean(1)
        if not self.random:
            square = h.flatten(1).square().mean(1)
            self.unevenness = square / mean.square().maximum((LEAST / tau).square())
        return g, (mean * tau).clamp(LEAST, 1 - LEAST) / tau


class OrthogonalRows(MeasurementModule):
    """A Aᵀ = c I, δ = M/N. With g, h̄ at (p, τ = c v):

    a = δ τ h̄,   r = x + (v/a) Aᵀg,   v1 = v (1 − a)/a
    back:   x ← (x̂ − α r)/(1 − α),   v ← α v1/(1 − α)
    answer: x and r, weighed by their variances, whose errors are independent
    """

    def send(self) -> tuple[Tensor, Tensor]:
        x, p, v = self.message
        g, h = self._score()
        a = self.delta * self.c * v * h
        step = v / a
        self.r = x + column(step, x) * self.operator.adjoint(g)
        self.p_r = p + column(self.c * step, p) * g  # A r, without an operator call
        self.v1 = v * (1 - a) / a
        return self.r, self.v1

    def receive(self, x_hat: Tensor, alpha: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        def extrinsic(new: Tensor, old: Tensor) -> Tensor:
            return (new - column(alpha, new) * old) / column(1 - alpha, new)

        x, p = extrinsic(x_hat, self.r), extrinsic(self.operator.apply(x_hat), self.p_r)
        self._take(Message(x, p, alpha * self.v1 / (1 - alpha)), keep)
        x, _, v = self.message
        share = v / (v + self.v1)
        return x + column(share, x) * (self.r - x), self.v1 * share


class IndependentRows(MeasurementModule):
    """Entries i.i.d. with A Aᵀ = c I on average, δ = M/N. With g, h̄ at (p, τ = c v):

    v1 = 1/(δ c h̄),   r = x + v1 Aᵀg
    back:   x ← x̂,   v ← α v1,   p ← A x̂ − c v g
    answer: x, whose error the evidence measures directly
    """

    def send(self) -> tuple[Tensor, Tensor]:
        self.g, h = self._score()
        self.v1 = 1 / (self.delta * self.c * h)
        x = self.message.x
        return x + column(self.v1, x) * self.operator.adjoint(self.g), self.v1

    def receive(self, x_hat: Tensor, alpha: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        v = alpha * self.v1
        p = self.operator.apply(x_hat)
        self._take(Message(x_hat, p - column(self.c * v, p) * self.g, v), keep)
        return self.message.x, self.message.v


def module_for(problem: Problem) -> type[OrthogonalRows] | type[IndependentRows] | None:
    """The module for the structure of the problem's operator, or None where there is none."""
    gram = problem.operator.gram
    if isinstance(gram, ScaledIdentity):
        return OrthogonalRows
    return IndependentRows if isinstance(gram, IIDRows) else None
