"""RED-diff: variational inference, with the denoising residual as the regularizer.

Source: Mardani et al. 2024, "A Variational Perspective on Solving Inverse Problems with Diffusion
Models", Algorithm 1, and the authors' code. Down the DDPM grid, one step of Adam on μ for each σ
with the gradient

    (1/M) Aᵀ(A μ − y) + (λ w(σ)/N) (ε_θ − ε),   ε_θ − ε = (μ − D(μ + σ ε, σ))/σ,   ε ~ N(0, I)

No gradient passes through the network. With the code's weight w = σ, the inverse root of the
signal-to-noise ratio, the second term is (λ/N)(μ − D). The paper writes the data term as a sum over
σ_y² and the code, which made the tables, as a mean over the M measurements and without σ_y: then λ
means the same at every size. Adam does not mind a common factor. For other channels than Gaussian
noise the first term is the gradient of −(1/M) log p(y | A μ); that is ours.

The code starts at A⁺y; here it is Aᵀy/‖A‖², the same for masks, and bounded for blurs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffsplit.data_steps.momentum import check_gradient, misfit_grad
from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Denoiser
from diffsplit.problem import Problem
from diffsplit.schedules import ddpm_grid
from diffsplit.solvers.any_channel import AnyChannelSolver
from diffsplit.solvers.base import TINY, Algorithm, is_number, zeros_for
from diffsplit.solvers.recovery import Answer, State

__all__ = ["RedDiff"]


@dataclass(frozen=True)
class RedDiff(AnyChannelSolver):
    """RED-diff, for any channel with a gradient; its answer is the mode of a narrow posterior.

    Each step is one evaluation of the network, one A and one Aᵀ.

    Attributes:
        steps: of the DDPM grid, evenly spaced (paper: 1000, and 100 for speed).
        lam: λ ≥ 0 (code: 0.25).
        power: p of w(σ) = σᵖ (code: 1, "linear"; 0.5, 2 and 0 are its "sqrt", "square" and
            "const").
        lr: of Adam, with momenta 0.9 and 0.99 (code: 0.1).
        reading: see `AnyChannelSolver`.
    """

    steps: int = 1000
    lam: float = 0.25
    power: float = 1.0
    lr: float = 0.1

    step_fields: ClassVar[tuple[str, ...]] = ("steps",)
    accepts: ClassVar[str] = "any operator; Gaussian noise, and channels with a gradient"
    cost: ClassVar[str] = "1000"

    def __post_init__(self) -> None:
        super().__post_init__()
        ddpm_grid(self.steps)
        numbers = is_number(self.lam, 0) and is_number(self.power, 0) and is_number(self.lr, TINY)
        if not numbers:
            raise InputError(f"RedDiff needs lam and power from 0 up and lr > 0, not {self}.")

    def steps_at_most(self, problem: Problem) -> int:
        return self.steps

    def _check_model(self, problem: Problem, prior: Denoiser) -> None:
        check_gradient(problem.channel)

    def _recover(
        self, problem: Problem, y: Tensor, prior: Denoiser, generator: Generators
    ) -> Algorithm:
        operator = problem.operator
        first = problem.backprojection(y) / operator.norm() ** 2
        mu = torch.nn.Parameter(first.to(zeros_for(problem, y)), requires_grad=False)
        adam = torch.optim.Adam([mu], lr=self.lr, betas=(0.9, 0.99), fused=True)
        for sigma in ddpm_grid(self.steps)[:-1]:
            clean = prior.denoise(mu + sigma * randn_like(mu, generator), sigma)
            weight = self.lam * sigma ** (self.power - 1) / operator.size_in
            data = misfit_grad(problem, mu, y) / operator.size_out
            mu.grad = torch.add(data, mu - clean, alpha=weight)
            adam.step()
            yield State(sigma, mu.detach().clone())
        return Answer(mu.detach().clone())
