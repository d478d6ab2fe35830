"""What DDRM, DDNM+ and consistency editing share: measurements as noisy coefficients of the image.

With A = U diag(s) Vᵀ each direction with s > 0 is measured by itself: c̄ = Uᵀy/s is the coefficient
in noise of its own level ℓ = σ_y/s; elsewhere ℓ = ∞. From x at level σ, with ĉ = Vᵀx̂ of the
denoiser and n̂ = (Vᵀx − ĉ)/σ, a step to the level σ' is, direction by direction,

    ℓ = ∞      ĉ + σ' (√(1 − η²) n̂ + η ξ)
    σ' < ℓ     ĉ + σ' (√(1 − η²) (c̄ − ĉ)/ℓ + η ξ)
    σ' ≥ ℓ     ĉ + η_B (c̄ − ĉ) + √(σ'² − η_B² ℓ²) ξ

Source: Kawar et al. 2022 (DDRM), Eq. 8, in σ-space. DDNM+ (Wang et al. 2023, Eq. 17 to 19) is the
same with η_B = 1, from pure noise and over more levels.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.problem import Problem
from diffsplit.solvers.linear_model import LinearModelSolver
from diffsplit.solvers.recovery import State
from diffsplit.solvers.reverse import Denoise

__all__ = ["MeasuredCoefficients", "SpectralSolver"]

ROUNDING = 1e-6
"""Of measurements without noise in float32, relative to the largest singular value."""
EXACT = 1e-3
"""Coefficients that are known better than by a quarter of a gray level are known."""


class MeasuredCoefficients:
    """The measurements of a problem with Gaussian noise, as coefficients of the image.

    Args:
        problem: an operator with a spectrum, and Gaussian noise or none.
        y: ``(B, *shape_out)``.

    Attributes:
        values: c̄ ``(B, *spectrum.shape)``, 0 where nothing is measured.
        level: ℓ, broadcastable to it; infinite where nothing is measured.
    """

    def __init__(self, problem: Problem, y: Tensor) -> None:
        self.spectrum = problem.operator.spectrum()
        sigma = problem.channel.gaussian_sigma or 0.0
        s = self.spectrum.singular_values.to(y)
        self.level = torch.where(s > 0, max(sigma, ROUNDING * float(s.max())) / s, torch.inf)
        if sigma == 0:
            self.level = torch.where(self.level < EXACT, 0, self.level)
        self.values = torch.where(s > 0, self.spectrum.analyze_measurement(y) / s, 0)

    def start(self, sigma: float, generator: Generators) -> Tensor:
        """DDRM's first image ``(B, *shape_in)``: measurements in noise of level σ, or noise."""
        known = self.level <= sigma
        width = (sigma**2 - torch.where(known, self.level, 0).square()).sqrt()
        noise = width * randn_like(self.values, generator)
        return self.spectrum.synthesize(torch.where(known, self.values, 0) + noise)

    def step(
        self,
        x: Tensor,
        clean: Tensor,
        now: float,
        after: float,
        generator: Generators,
        eta: float,
        eta_b: float,
    ) -> Tensor:
        """From ``x`` at the level σ = ``now`` to σ' = ``after``, as above: ``(B, *shape_in)``."""
        seen, c = self.level, self.spectrum.analyze(clean)
        off = self.values - c
        fresh = randn_like(c, generator)
        kept = after * math.sqrt(1 - eta**2)
        hidden = kept / now * (self.spectrum.analyze(x) - c) if kept else torch.zeros_like(c)
        pulled = torch.where(seen.isinf(), hidden, kept * off / seen.clamp(min=EXACT * ROUNDING))
        pulled = torch.where(seen <= after, eta_b * off, pulled)
        width = (after**2 - (eta_b * seen).square()).clamp(min=0).sqrt()
        width = torch.where(seen <= after, width, eta * after)
        return self.spectrum.synthesize(c + pulled + width * fresh)

    def walk(
        self,
        denoise: Denoise,
        x: Tensor,
        levels: Sequence[tuple[float, float]],
        generator: Generators,
        eta: float,
        eta_b: float = 1.0,
    ) -> Generator[State, None, Tensor]:
        """Walk ``x`` down through pairs (σ, σ'); yields the state after each evaluation.

        Returns:
            the end, a clean image ``(B, *shape_in)`` when the last σ' is 0.
        """
        for now, after in levels:
            clean = denoise(x, x.new_full((len(x),), now))
            yield State(now, clean)
            x = self.step(x, clean, now, after, generator, eta, eta_b)
        return x


class SpectralSolver(LinearModelSolver):
    """A method that works on the coefficients of an operator with a spectrum, in Gaussian noise."""

    accepts = "any operator with a spectrum; Gaussian noise, other channels read as linear"

    def check(self, problem: Problem, prior: object) -> None:
        if not problem.operator.has_spectrum:
            name = type(self).__name__
            raise InputError(
                f"{name} needs the singular value decomposition of the operator, which "
                f"{problem.operator} does not offer; use a RandomizedTransform in its place, or "
                "DiffEP or DiffPIR, which do without."
            )
