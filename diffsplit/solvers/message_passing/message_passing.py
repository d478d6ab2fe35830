"""Message passing between the measurements and a diffusion model.

Splitting gives the denoiser an estimate that is biased towards its own last output, at a noise
level that is not checked. Here the two halves exchange extrinsic messages: the measurements send
r = x0 + N(0, v1 I), an image in white noise of known level, which is what the model was trained on;
the denoiser answers with x̂ = D(r, √v1) and the share α of r in it. Neither the level nor the share
is taken on trust: the first is corrected by the evidence of the measurements (see `evidence`), the
second by the divergence (see `denoiser`), image by image.

    repeat:   r, v1 = measurements.send();   x̂, α = D(r, √v1);   measurements.receive(x̂, α)

At the fixed point the answer is the posterior mean, and since r is a noisy image at a known level,
plain reverse diffusion from r at √v1 draws posterior samples. Sources: see `modules`; and
Metzler et al. 2016 (denoising-based AMP) for the use of a denoiser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.solvers.base import TINY, Algorithm, are_counts, is_number, zeros_for
from diffsplit.solvers.message_passing.denoiser import DenoiserModule
from diffsplit.solvers.message_passing.evidence import column
from diffsplit.solvers.message_passing.modules import module_for
from diffsplit.solvers.problem_facts import (
    has_faint_scale,
    has_random_rows,
    is_scattered,
)
from diffsplit.solvers.recovery import State
from diffsplit.solvers.sampling import SamplingSolver

__all__ = ["MessagePassing"]

MUCH_WORSE = 1.5
"""A new answer replaces the last unless the evidence finds its error so many times larger. Keeping
the smallest expected error would choose the most overconfident answer."""
FIRST_MEASURED = 2
"""The iteration by which the divergence was measured; what was expected before is a guess."""
STEADY = 0.1
"""The most by which v1 may still move, relatively, where the exchange counts as converged."""
AGREEMENT = 0.7
"""The most by which log v of the evidence and of the model may differ there."""

CAUTION = 0.5
"""How far the denoiser's level is raised from that of the average noise of r (0) to that of its
average power where the noise is (1)."""
NEGLIGIBLE = 4e-6
"""The share of the prior's mean square below which v1 is nothing and the image exact: an eighth of
a gray level of an image of mean square ¼."""
UNSETTLED = (
    "the exchange did not settle, or its predictions and the measurements disagree: the picture "
    "may be unlike what the prior knows, or the noise level wrong"
)

NOT_RANDOM = (
    "the rows of the operator are not random: the error that they leave is uneven, and its size is "
    "not known"
)


@dataclass(frozen=True)
class MessagePassing(SamplingSolver):
    """Message passing for operators with orthogonal rows or i.i.d. entries, and any channel.

    Attributes:
        iterations: the most denoiser evaluations before the exchange ends; two or three more
            measure the divergence.
        damping: share in [0, 1) of the last message that stays after an iteration at which the
            predicted noise of an image grew.
        tolerance: an image stops when √v1, the predicted noise of r, moved by less than this share.
        spread: standard deviation of log τ that the model's predictions are trusted to.
        output, samples, sample_steps, sampler: see `SamplingSolver`.
    """

    iterations: int = 10
    damping: float = 0.3
    tolerance: float = 0.01
    spread: float = 0.2

    step_fields: ClassVar[tuple[str, ...]] = ("iterations",)

    def __post_init__(self) -> None:
        super().__post_init__()
        shares = is_number(self.damping, 0) and self.damping < 1 and is_number(self.tolerance, 0)
        if not (are_counts(self.iterations) and shares and is_number(self.spread, TINY)):
            raise InputError(
                "message passing needs whole iterations ≥ 1, 0 ≤ damping < 1, tolerance ≥ 0 and "
                f"spread > 0, not {self}."
            )

    def steps_at_most(self, problem: Problem) -> int:
        return self.iterations + self.steps_of_samples

    @staticmethod
    def suits(problem: Problem) -> bool:
        """Whether messages can pass: rows that are orthogonal or i.i.d."""
        return module_for(problem) is not None

    def check(self, problem: Problem, prior: Denoiser) -> None:
        super().check(problem, prior)
        if not self.suits(problem):
            raise InputError(
                "message passing needs an operator with orthogonal rows of equal length (a "
                "RandomizedTransform) or with i.i.d. entries (a GaussianMatrix); from_matrix can "
                "be told of such rows, and DiffEP treats operators of other kinds."
            )

    def _solve(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        kind = module_for(problem)
        assert kind is not None  # `check` saw to it
        zero = zeros_for(problem, y)
        # Drawn before anything else, so that no draw depends on how long the exchange runs.
        denoiser = DenoiserModule(prior, randn_like(zero, generator).sign())
        variance = zero.new_full((len(y),), prior.mean_square)
        measurements = kind(problem, y, zero, variance, self.spread)
        never = torch.full_like(variance, torch.inf)
        image, error, r_kept, v_kept, v1_before = zero, never, zero, never, never
        active = torch.ones_like(variance, dtype=torch.bool)
        good = ~active
        for iteration in range(1, self.iterations + 1):
            r, v1 = measurements.send()
            moved = (v1 / v1_before - 1).abs()
            exact = v1 <= NEGLIGIBLE * prior.mean_square
            settled = (moved <= 2 * self.tolerance) | exact
            keep = self.damping * ((v1 > v1_before) & ~settled)
            # Where the noise of r is uneven, what exceeds the level would be taken for detail.
            x_hat, alpha = denoiser(r, v1 * measurements.unevenness**CAUTION, iteration)
            answer, expected = measurements.receive(x_hat, alpha, keep)
            guessed = iteration <= FIRST_MEASURED
            better = active if guessed else active & ~(expected > MUCH_WORSE * error)
            image = _where(better, prior.clip(answer), image)
            r_kept, v_kept = _where(better, r, r_kept), _where(better, v1, v_kept)
            error = _where(better, expected, error)
            surprise = (measurements.message.v / measurements.predicted).log().abs()
            steady = (moved <= STEADY) & (surprise <= AGREEMENT) & better
            good = _where(active, steady | exact, good)
            v1_before = _where(active, v1, v1_before)
            yield State(v_kept.sqrt(), image, {"predicted_error": error})
            active = active & ~settled
            if not bool(active.any()):
                break
        samples = None
        if self.draws:
            samples = yield from self.drawn(prior, r_kept, v_kept.sqrt(), generator)
        reason = "" if bool(good.all()) else UNSETTLED
        if problem.channel.outcomes == 2:
            # The error of the scale is one number of an image; the evidence, an average, lacks it.
            spread = prior.scale_spread * measurements.confounded
            error = error + spread.square() * image.flatten(1).square().mean(1)
        uneven = has_faint_scale(problem) or not is_scattered(problem.operator.pixels)
        if uneven and not has_random_rows(problem):
            good, reason = torch.zeros_like(good), NOT_RANDOM
        return self.answer(image, samples, error, good, reason)


def _where(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """``new`` for the images of a mask ``(B,)``, ``old`` for the others."""
    return torch.where(column(mask, new), new, old)
