"""DiffEP: expectation propagation between the measurements and a diffusion model.

Splitting hands the denoiser an estimate that is biased towards its own last output, at a noise
level that nobody checked. Here the two halves exchange extrinsic messages: the measurements send
r = x0 + N(0, v1 I), an image in white noise of known level, which is what the model was trained
on; the denoiser answers with x̂ = D(r, √v1) and the variance t = v(√v1) of its error.

    x̂ = 0, t = E[x0²];   repeat:  r, v1 = message(x̂, t);   x̂ = D(r, √v1);   t = v(√v1)

At the fixed point x̂ is the posterior mean, and since r is a noisy image at a known level, plain
reverse diffusion from r at √v1 draws posterior samples. See `message_passing` for the messages and
their sources; denoising-based AMP (Metzler et al. 2016) for the use of a denoiser's error.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators
from diffsplit.priors.base import ConsistencyModel, Denoiser
from diffsplit.problem import Problem
from diffsplit.solvers.base import Algorithm, Solver, are_counts, is_number, zeros_for
from diffsplit.solvers.message_passing.divergence import denoiser_error
from diffsplit.solvers.message_passing.modules import module_for
from diffsplit.solvers.posterior import batches_of_samples, posterior_samples
from diffsplit.solvers.recovery import Answer, State
from diffsplit.solvers.spectral.renoising import renoised, renoised_sample, renoises

__all__ = ["DiffEP"]


@dataclass(frozen=True)
class DiffEP(Solver):
    """Message passing for operators with orthogonal rows or i.i.d. entries and any channel, and
    renoising (see `renoising`) for Gaussian noise on a blur, a mask, a down-sampling: any operator
    with a spectrum.

    Attributes:
        levels: denoiser evaluations of a renoising walk; the next three do not apply to it.
        iterations: the most denoiser evaluations before the fixed point is taken as reached.
        damping: share in [0, 1) of the last answer (x̂, t) that an image keeps after an iteration
            at which its predicted noise grew. With noisy measurements it never does; with little
            noise the bare exchange can oscillate.
        tolerance: an image stops when √v1, the predicted noise of r, moved by less than this share.
        output: ``"mean"``, the posterior mean (of a renoising walk the last estimate), or
            ``"sample"``, a sharp posterior sample.
        samples: how many posterior samples to draw. One is drawn only for ``output="sample"``;
            two or more are drawn in any case and give the standard-deviation map.
        sample_steps: network evaluations per sample; 10 unless told otherwise, with a `sampler` 2.
        sampler: a consistency model that draws the samples in one or two evaluations, where
            messages pass; a sample of a renoising problem takes ``levels`` of the prior's.
    """

    levels: int = 20
    iterations: int = 8
    damping: float = 0.5
    tolerance: float = 0.003
    output: Literal["mean", "sample"] = "mean"
    samples: int = 1
    sample_steps: int | None = None
    sampler: ConsistencyModel | None = None

    step_fields: ClassVar[tuple[str, ...]] = ("iterations", "levels")

    def __post_init__(self) -> None:
        counts = are_counts(self.levels, self.iterations, self.samples, self.steps_per_sample)
        shares = is_number(self.damping, 0) and self.damping < 1 and is_number(self.tolerance, 0)
        if not (counts and shares):
            raise InputError(
                "DiffEP needs whole levels, iterations, samples and sample_steps ≥ 1, "
                f"0 ≤ damping < 1 and tolerance ≥ 0, not {self}."
            )
        if self.sampler is not None and self.steps_per_sample > 2:
            raise InputError(
                f"a sampler takes one or two evaluations, not {self.steps_per_sample}; give "
                "sample_steps=1 or 2."
            )
        if self.output not in ("mean", "sample"):
            raise InputError(f"output is 'mean' or 'sample', not {self.output!r}.")

    @property
    def steps_per_sample(self) -> int:
        """Network evaluations of one posterior sample."""
        if self.sample_steps is not None:
            return self.sample_steps
        return 10 if self.sampler is None else 2

    @property
    def _draws(self) -> int:
        return self.samples if self.samples > 1 or self.output == "sample" else 0

    def steps_at_most(self, problem: Problem) -> int:
        if renoises(problem):
            return self.levels * (self._draws + (self.output == "mean"))
        steps = 1 if self.sampler is not None else self.steps_per_sample
        return self.iterations + steps * batches_of_samples(self._draws)

    def check(self, problem: Problem, prior: Denoiser) -> None:
        renoised = renoises(problem)
        if not renoised and module_for(problem, torch.empty(0)) is None:
            raise InputError(
                "DiffEP needs an operator with orthogonal rows of equal length (a "
                "RandomizedTransform, a PixelMask) or with i.i.d. entries (a GaussianMatrix), or "
                "Gaussian noise and an operator with a spectrum; from_matrix can be told of such "
                "rows, and for another operator use DiffOneBit or DCDP."
            )
        if self.sampler is None:
            return
        if not isinstance(self.sampler, ConsistencyModel):
            raise InputError(
                "the sampler is a consistency model, such as load_prior('cats-64-consistency'), "
                f"not {type(self.sampler).__name__}; leave it out to draw from the prior."
            )
        if tuple(self.sampler.shape) != tuple(prior.shape):
            raise InputError(
                f"the sampler's images have shape {tuple(self.sampler.shape)} and the prior's "
                f"{tuple(prior.shape)}; give a consistency model of the same size."
            )
        if renoised:
            raise InputError(
                "a sampler serves measurements in bits and orthogonal or random operators; here "
                "samples need the diffusion model itself, so leave out the sampler."
            )
        if self._draws == 0:
            raise InputError(
                "a sampler draws posterior samples, and none are asked for; add samples=8 or "
                "output='sample', or leave it out."
            )

    def _solve(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        if renoises(problem):
            return (yield from self._walks(problem, y, prior, generator))
        module = module_for(problem, y)
        assert module is not None  # `check` saw to it
        x_hat = zeros_for(problem, y)
        t = x_hat.new_full((len(y),), prior.mean_square)
        r, v1 = x_hat, torch.full_like(t, torch.inf)
        done = torch.zeros_like(t, dtype=torch.bool)
        for _ in range(self.iterations):
            r_new, v1_new = module.message(x_hat, t)
            settled = (v1_new / v1 - 1).abs() <= 2 * self.tolerance
            keep = torch.where(v1_new > v1, self.damping, 0.0)
            r, v1 = _keep(done, r, r_new), _keep(done, v1, v1_new)
            x_new = prior.clip(prior.denoise(r, v1.sqrt()))
            t_new = prior.error(v1.sqrt())
            if t_new is None:
                t_new = denoiser_error(prior, r, v1.sqrt(), x_new, generator)
            damped = x_new + keep.view(-1, *(1,) * (r.ndim - 1)) * (x_hat - x_new)
            x_hat = _keep(done, x_hat, damped)
            t = _keep(done, t, t_new + keep * (t - t_new))
            yield State(v1.sqrt(), x_hat, {"predicted_error": t})
            done = done | settled
            if bool(done.all()):
                break
        if not self._draws:
            return Answer(x_hat, predicted_error=t)
        samples = yield from posterior_samples(
            self.sampler or prior, r, v1.sqrt(), self.samples, self.steps_per_sample, generator
        )
        return Answer(x_hat if self.output == "mean" else samples[0], samples)

    def _walks(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        mean = None
        if self.output == "mean":
            mean = yield from renoised(problem, y, prior, generator, self.levels)
        draws = []
        for number in range(1, self._draws + 1):
            draw = yield from renoised_sample(problem, y, prior, generator, self.levels, number)
            draws.append(draw)
        samples = torch.stack(draws) if draws else None
        if mean is not None:
            return Answer(mean, samples)
        assert samples is not None  # at least one was drawn
        return Answer(samples[0], samples)


def _keep(done: Tensor, old: Tensor, new: Tensor) -> Tensor:
    """``old`` for the images that are done, ``new`` for the others."""
    return torch.where(done.view(-1, *(1,) * (old.ndim - 1)), old, new)
