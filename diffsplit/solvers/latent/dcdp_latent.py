"""DCDP with a latent diffusion model: Algorithm 2 of the DCDP paper.

With an encoder E and a decoder D, for k = 1 … K:

    Approach I    z = τ steps on ½‖A D(z) − y‖² from v̂,  z ← E(D(z))      Eq. (18), (19)
    Approach II   x = τ steps on ½‖A x − y‖² from D(v̂),  z = E(x)         Eq. (20)
    v̂ = purification of z at strength T_k

I starts at v̂_0 ~ N(0, I), II at D(v̂_0) = 0. Re-encoding in I moves z to where the diffusion model
was trained, since many z decode to the same picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffsplit.data_steps.momentum import check_gradient, descend, misfit_grad
from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import LatentModel
from diffsplit.problem import Problem
from diffsplit.solvers.base import Algorithm, zeros_for
from diffsplit.solvers.purify import purify
from diffsplit.solvers.recovery import Answer, State
from diffsplit.solvers.splitting.dcdp_presets import Family
from diffsplit.solvers.splitting.decoupled import DecoupledSolver

__all__ = ["LatentDCDP"]


@dataclass(frozen=True)
class LatentDCDP(DecoupledSolver):
    """DCDP with a `LatentModel`; all parameters but ``consistency`` are those of `DCDP`.

    T counts the timesteps of 1000 linear betas, and noise levels are in units of the scaled
    latents. The trace is in pixels: ``misfit`` of D(v̂_k), ``misfit_consistent`` of D(z_k) before
    re-encoding, or of x_k. Network evaluations are those of the denoiser in latents.

    Attributes:
        consistency: "latent", Approach I, which backpropagates through the decoder (paper: for
            super-resolution and inpainting), or "pixel", Approach II, faster (paper: for blur). I
            needs a ``step_size``; whether it is stable depends on the decoder as well, and is
            not known before.
    """

    consistency: Literal["latent", "pixel"] = "pixel"

    family: ClassVar[Family] = "latent"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.consistency not in ("latent", "pixel"):
            raise InputError(f"consistency is 'latent' or 'pixel', not {self.consistency!r}.")
        if self.purifier == "consistency":
            raise InputError(
                "latents are purified by a denoiser: the purifier of LatentDCDP is 'ddim' or "
                "'tweedie', not 'consistency'; use DCDP with a consistency model."
            )
        if self.consistency == "latent" and self.step_size is None:
            raise InputError(
                "steps on latents need a step_size, since no bound on the decoder's gain is known; "
                "the preset of the task has the paper's."
            )

    @property
    def requires(self) -> type[LatentModel]:
        return LatentModel

    def check(self, problem: Problem, prior: LatentModel) -> None:
        check_gradient(problem.channel)
        if self.consistency == "pixel":
            self._check_pixel_step(problem)

    def _solve(
        self, problem: Problem, y: Tensor, prior: LatentModel, generator: Generators
    ) -> Algorithm:
        x = image = zeros_for(problem, y)
        v = randn_like(x.new_empty((len(y), *prior.latent.shape)), generator)
        pixel_step = self._pixel_step(problem, y) if self.consistency == "pixel" else None
        for level in self.levels:
            grid = self._grid(level, prior.latent)
            if pixel_step is None:
                x = prior.decode(self._latent_step(problem, y, v, prior))
            else:
                x = pixel_step(image, math.inf)  # σ of latents limits nothing in pixels
            v = purify(prior.latent, prior.encode(x), grid, generator)
            image = prior.decode(v)
            yield State(grid[0], image, consistent=x)
        return Answer(prior.clip(image if self.return_ == "purified" else x))

    def _latent_step(self, problem: Problem, y: Tensor, v: Tensor, prior: LatentModel) -> Tensor:
        """Momentum steps on z; automatic differentiation goes through the decoder alone."""

        def gradient(z: Tensor) -> Tensor:
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                x = prior.decode(z)
                (slope,) = torch.autograd.grad(x, z, misfit_grad(problem, x.detach(), y))
            return slope

        assert self.step_size is not None  # for latents __post_init__ asks for one
        return descend(gradient, v, self.tau, self.step_size, self.momentum)
