"""The level of a message, from the measurements themselves.

Of the measurements of one image let s = A x be near b p, with s ~ N(b p, τ). The evidence
Z = ∫ p(y | s) N(s; b p, τ) ds obeys, with g and h as in `Channel.evidence_score`,

    ∂ log Z/∂ log τ = ½ (g² − h) τ,     ∂ log Z/∂ log b = g b p.

A level that a model predicts is right on average and not for every image, so it is taken as the
center of a prior of (log τ, log b) and corrected by a few Newton steps, sums over the measurements.
The amplitude b is needed beside τ: p can be right in shape and wrong in scale by a tenth, and the
evidence would take that for a level. One bit knows b and τ by b/√(σ² + τ) alone; b is fitted where
noise of known size anchors the scale, which the correlation of the two scores shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from diffsplit.channels.base import Channel

__all__ = ["Level", "column", "level_by_evidence", "newton_in_log", "total"]

NEWTON_STEPS = 6
LONGEST_STEP = 1.2
"""Of log τ in one Newton step; of log b a twelfth."""
GAIN_SPREAD = 0.1
LEAST = 1e-7
"""Keeps a division away from zero."""
FLOOR = 1e-30
"""Of a variance, which has a logarithm."""


class Level(NamedTuple):
    """What the evidence says of each image.

    Attributes:
        tau: τ ``(B,)``.
        gain: b ``(B,)``.
        confounded: share of log b in [0, 1] that a change of log τ cannot be told from, 2/|κ|
            ``(B,)``: τ/(σ² + τ) for one bit.
    """

    tau: Tensor
    gain: Tensor
    confounded: Tensor


def column(v: Tensor, like: Tensor) -> Tensor:
    """``(B,)`` shaped to multiply ``(B, …)``."""
    return v.view(-1, *(1,) * (like.ndim - 1))


def total(q: Tensor) -> Tensor:
    """Sum over the entries of each image: ``(B,)``."""
    return q.flatten(1).sum(1)


def newton_in_log(
    predicted: Tensor, spread: float, score: Callable[[Tensor], tuple[Tensor, Tensor]]
) -> Tensor:
    """The level that maximizes an evidence times a prior of its logarithm, for each image.

    Args:
        predicted: center of the prior ``(B,)``.
        spread: its standard deviation.
        score: of a level, the slope and negative curvature of the log evidence in its logarithm,
            ``(B,)`` each.
    """
    center = predicted.clamp(min=FLOOR).log()
    log = center
    for _ in range(NEWTON_STEPS):
        slope, information = score(log.exp())
        slope, information = slope - (log - center) / spread**2, information + 1 / spread**2
        log = log + (slope / information).clamp(-LONGEST_STEP, LONGEST_STEP)
    return log.exp()


def level_by_evidence(
    channel: Channel,
    p: Tensor,
    y: Tensor,
    predicted: Tensor,
    spread: float,
    steps: int = NEWTON_STEPS,
) -> Level:
    """(τ, b) that maximize the evidence times the prior of (log τ, log b), for each image.

    Args:
        p: what the measurements are expected to be ``(B, *shape_out)``.
        y: measurements.
        predicted: the level that a model predicts ``(B,)``.
        spread: standard deviation of log τ around the prediction.
        steps: of Newton's method.
    """
    log_predicted = predicted.clamp(min=FLOOR).log()
    log_tau, log_gain = log_predicted, predicted.new_zeros(predicted.shape)
    width = confounded = log_gain
    for step in range(steps):
        tau, q = log_tau.exp(), column(log_gain.exp(), p) * p
        g, h = channel.evidence_score(q, y, column(tau, p))
        score_tau, score_gain = 0.5 * (g.square() - h) * column(tau, p), g * q
        cross = total(score_tau * score_gain)
        if step == 0:
            confounded = _confounded(cross, total(score_tau.square()))
            width = GAIN_SPREAD * (1 - confounded).clamp(min=1e-3)
        info_tau, info_gain = 0.5 * total((h * column(tau, h)).square()), total(h * q.square())
        bound = 0.9 * (info_tau * info_gain).sqrt()
        cross = cross.minimum(bound).maximum(-bound)
        slope_tau = total(score_tau) - (log_tau - log_predicted) / spread**2
        slope_gain = total(score_gain) - log_gain / width.square()
        d, k = info_tau + 1 / spread**2, info_gain + 1 / width.square()
        determinant = d * k - cross.square()
        move_tau = (k * slope_tau - cross * slope_gain) / determinant
        move_gain = (d * slope_gain - cross * slope_tau) / determinant
        log_tau = log_tau + move_tau.clamp(-LONGEST_STEP, LONGEST_STEP)
        log_gain = log_gain + move_gain.clamp(-LONGEST_STEP / 12, LONGEST_STEP / 12)
    return Level(log_tau.exp(), log_gain.exp(), confounded)


def _confounded(cross: Tensor, square: Tensor) -> Tensor:
    """2/|κ|, at most 1, for κ = Σ s_τ s_b / Σ s_τ²; the prior of log b is narrower by it.

    For one bit κ = −2 (σ² + τ)/τ: without noise b is left alone. For real numbers, of which τ and b
    are read apart, κ is near 0, and b is left alone as well.
    """
    kappa = cross.abs() / square.clamp(min=LEAST)
    return (2 / kappa.clamp(min=LEAST)).clamp(max=1)
