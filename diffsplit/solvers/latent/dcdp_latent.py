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
from typing import Any, Literal

import torch
from torch import Tensor

from diffsplit.data_steps.momentum import check_gradient, descend, misfit_grad
from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Prior
from diffsplit.priors.latent import LatentPrior
from diffsplit.problem import Problem
from diffsplit.solvers.base import Answer, Watch, zeros_for
from diffsplit.solvers.splitting.dcdp_presets import preset_for
from diffsplit.solvers.splitting.decoupled import DecoupledSolver
from diffsplit.solvers.metered import MeteredPrior
from diffsplit.solvers.purify import check_purifier, purify

__all__ = ["LatentDCDP"]


@dataclass(frozen=True)
class LatentDCDP(DecoupledSolver):
    """DCDP with a `LatentPrior`; all parameters but ``consistency`` are those of `DCDP`.

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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.consistency not in ("latent", "pixel"):
            raise InputError(f"consistency is 'latent' or 'pixel', not {self.consistency!r}.")
        if self.consistency == "latent" and self.step_size is None:
            raise InputError(
                "steps on latents need a step_size, since no bound on the decoder's gain is known; "
                "the preset of the task has the paper's."
            )

    @classmethod
    def preset(
        cls,
        task: str,
        image_size: int = 256,
        data: str = "ffhq",
        noise: float = 0.0,
        **overrides: Any,
    ) -> LatentDCDP:
        """The paper's settings for latent diffusion: Table 7; arguments as in `DCDP.preset`."""
        return cls(**preset_for(task, "latent", image_size, data, noise, overrides))

    def check(self, problem: Problem, prior: Prior) -> None:
        if not isinstance(prior, LatentPrior):
            raise InputError(
                f"LatentDCDP needs a latent diffusion model, not {type(prior).__name__}; load one, "
                "or use DCDP."
            )
        check_gradient(problem.channel)
        if self.consistency == "pixel":
            self._check_pixel_step(problem)
        check_purifier(self.purifier, prior.latent, self.levels)

    def _solve(
        self, problem: Problem, y: Tensor, prior: Prior, generator: Generators, watch: Watch
    ) -> Answer:
        assert isinstance(prior, MeteredPrior)  # the caller of `_solve` wraps it
        model = prior.prior
        assert isinstance(model, LatentPrior)  # `check` saw to it
        latent = MeteredPrior(model.latent, len(y))
        x = image = zeros_for(y, prior)
        v = randn_like(x.new_empty((len(y), *latent.shape)), generator)
        pixel_step = self._pixel_step(problem, y) if self.consistency == "pixel" else None
        for level in self.levels:
            grid = self._grid(level, latent)
            if pixel_step is None:
                x = model.decode(self._latent_step(problem, y, v, model))
            else:
                x = pixel_step(image, math.inf)  # σ of latents limits nothing in pixels
            v = purify(latent, model.encode(x), grid, generator)
            image = model.decode(v)
            self._note(watch, grid[0], x, image)
        prior.calls += latent.calls
        return Answer(prior.clip(image if self.return_ == "purified" else x))

    def _latent_step(self, problem: Problem, y: Tensor, v: Tensor, model: LatentPrior) -> Tensor:
        """Momentum steps on z; automatic differentiation goes through the decoder alone."""

        def gradient(z: Tensor) -> Tensor:
            with torch.enable_grad():
                z = z.detach().requires_grad_()
                x = model.decode(z)
                (slope,) = torch.autograd.grad(x, z, misfit_grad(problem, x.detach(), y))
            return slope

        assert self.step_size is not None
        return descend(gradient, v, self.tau, self.step_size, self.momentum)
