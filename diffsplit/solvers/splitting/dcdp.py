"""DCDP: decoupled data consistency and diffusion purification.

Source: Li et al., "Decoupled Data Consistency with Diffusion Purification for Image Restoration",
Algorithm 1. From v_0 = 0, for k = 1 … K:

    x_k = τ gradient steps with momentum on the misfit, from v_{k−1}      line 2, Eq. (10)
    v_k = purification of x_k at strength T_k                             line 3, Eq. (13)

The strength falls from round to round, and with it how much a round may change.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diffsplit.data_steps.momentum import check_gradient
from diffsplit.noise import Generators
from diffsplit.priors.base import ConsistencyModel, Denoiser
from diffsplit.problem import Problem
from diffsplit.solvers.base import Algorithm, zeros_for
from diffsplit.solvers.purify import check_purifier, purify
from diffsplit.solvers.recovery import Answer, State
from diffsplit.solvers.splitting.decoupled import DecoupledSolver

__all__ = ["DCDP"]


@dataclass(frozen=True)
class DCDP(DecoupledSolver):
    """DCDP in pixels, for any channel with a gradient.

    With Gaussian noise of whatever level the misfit is ½‖A x − y‖², and the τ steps are taken at
    once where the operator has a spectrum or orthogonal rows; a ``step_size`` that diverges is
    refused. With other channels the misfit is −log p(y | A x). A ``step_size`` of None, the
    default, takes 1/(‖A‖² · largest curvature), but where measurements are noisy in each round at
    most the η with which τ steps go as far as a prior N(v, σ_k² I) would let them, σ_k the strength
    of the round's purification. Longer steps overfit the noise, and much shorter ones lose to
    purification what they gain; so any τ from 5 up and an end of 0 will do for your own operator.
    `preset` has the paper's settings for its tasks.

    The trace has columns ``misfit`` of v_k and ``misfit_consistent`` of x_k; a step's image is v_k.

    Attributes:
        rounds: K (paper: 10 or 20).
        tau: τ, gradient steps a round (paper: 1000/K).
        step_size: η, on Aᵀ(A x − y) and per image; the paper's learning rate is α = η m/2, with m
            the size of one image's measurement. None for 1/‖A‖², or as above.
        momentum: β in [0, 1) (paper: 0.9).
        start, end: T_1 ≥ T_K, DDPM timesteps from 0 to 1000, read as rounded and at least 1;
            noise levels σ with ``purifier="consistency"``. A start of None is 400, or σ = 1. With
            a ``step_size`` of your own, noisy measurements want an end above 0, such as 100.
        purifier: "ddim", the paper's Version 1, sharp; "tweedie", its Version 2, one evaluation a
            round and the highest PSNR; "consistency", one evaluation of a consistency model.
        purifier_steps: the most evaluations a round of "ddim" (paper: 20).
        schedule: from start to end; "linear", the paper's, "constant", "cosine", "biased-high" or
            "biased-low", see `diffsplit.schedules.decay`.
        return_: "purified", v_K, or "consistent", x_K, which agrees with the measurements best;
            the authors advise it where these are noiseless.

    Raises:
        InputError: parameters out of range; when called, a step size that diverges, a channel
            without a gradient, or a prior that does not fit the purifier.
        DivergenceError: a round left the finite numbers; the message says which, and why.
    """

    @property
    def requires(self) -> type[Denoiser] | type[ConsistencyModel]:
        return ConsistencyModel if self.purifier == "consistency" else Denoiser

    def check(self, problem: Problem, prior: Denoiser | ConsistencyModel) -> None:
        check_gradient(problem.channel)
        self._check_pixel_step(problem)
        check_purifier(self.purifier, prior, self.levels)

    def _solve(
        self,
        problem: Problem,
        y: Tensor,
        prior: Denoiser | ConsistencyModel,
        generator: Generators,
    ) -> Algorithm:
        data_step = self._pixel_step(problem, y)
        x = v = zeros_for(problem, y)
        for level in self.levels:
            grid = self._grid(level, prior)
            x = data_step(v, grid[0])
            v = purify(prior, x, grid, generator)
            yield State(grid[0], v, consistent=x)
        return Answer(v if self.return_ == "purified" else prior.clip(x))
