"""Measurements in Gaussian noise as noisy coefficients of the image, one by one.

With A = U diag(s) Vᵀ, the coefficient c = Vᵀx of each direction with s > 0 is measured by itself:

    c̄ = (Uᵀy)/s = c + ℓ n,   ℓ = σ_y/s

and ℓ = ∞ where s = 0. DDRM, DDNM+ and consistency editing are all written in c, c̄ and ℓ. A step to
the noise level σ' replaces c by c̄ where ℓ ≤ σ', with noise √(σ'² − ℓ²) to fill up to σ'. Where c̄ is
noisier than that, DDRM and DDNM+ (Kawar et al. 2022, Eq. 8; Wang et al. 2023, Eq. 17 to 19) take

    c + σ' (√(1 − η²) (c̄ − c)/ℓ + η ξ)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.problem import Problem
from diffsplit.solvers.linear_model import LinearModelSolver
from diffsplit.solvers.problem_facts import NOISE_FLOOR

__all__ = ["MeasuredCoefficients", "SpectralSolver"]

ROUNDING = 1e-6
"""Error of measurements without noise, relative to the largest singular value."""


class MeasuredCoefficients:
    """What the measurements say of each coefficient of the image.

    Measurements without noise have rounding errors, which 1/s makes large where s is small; there
    the coefficient counts as noisy, and with less than `NOISE_FLOOR` as exact.

    Args:
        problem: an operator with a spectrum, and Gaussian noise or none.
        y: ``(B, *shape_out)``.

    Attributes:
        values: c̄ ``(B, *spectrum.shape)``, 0 where nothing is measured.
        noise: ℓ, broadcastable to it, infinite where nothing is measured.
    """

    def __init__(self, problem: Problem, y: Tensor) -> None:
        self.spectrum = spectrum = problem.operator.spectrum()
        s, sigma = spectrum.singular_values, problem.channel.gaussian_sigma or 0.0
        noise = max(sigma, ROUNDING * float(s.max())) / s
        if sigma == 0:
            noise = torch.where(noise < NOISE_FLOOR, 0, noise)
        inverse = torch.where(s > 0, 1 / s, 0)
        self.noise = noise.to(y)
        self.values = spectrum.analyze_measurement(y) * inverse.to(y)

    def analyze(self, x: Tensor) -> Tensor:
        """c = Vᵀx, from ``(B, *shape_in)`` to ``(B, *spectrum.shape)``."""
        return self.spectrum.analyze(x)

    def synthesize(self, c: Tensor) -> Tensor:
        """V c, the inverse of `analyze`."""
        return self.spectrum.synthesize(c)

    def known_at(self, level: float) -> Tensor:
        """Which coefficients are measured with no more noise than ``level``."""
        return self.noise <= level

    def pull(self, c: Tensor, level: float, eta: float) -> Tensor:
        """σ' √(1 − η²) (c̄ − c)/ℓ at σ' = ``level``, where ℓ is larger; else 0."""
        noisier = self.noise > level
        gain = torch.where(noisier, level * math.sqrt(1 - eta**2) / self.noise, 0)
        return gain * (self.values - c)

    def missing_noise(self, level: float, share: float = 1.0) -> Tensor:
        """√(σ'² − (share ℓ)²) at σ' = ``level``, 0 where ℓ is larger."""
        covered = torch.where(self.known_at(level), share * self.noise, level)
        return (level**2 - covered.square()).clamp(min=0).sqrt()


class SpectralSolver(LinearModelSolver):
    """A method that works on `MeasuredCoefficients`."""

    accepts = "any operator with a spectrum; Gaussian noise, other channels read as linear"

    def check(self, problem: Problem, prior: object) -> None:
        if not problem.operator.has_spectrum:
            raise InputError(
                f"{type(self).__name__} needs the singular value decomposition of the operator, "
                f"which {problem.operator} does not offer; use a RandomizedTransform in its place, "
                "or the solver DiffEP, which takes any operator."
            )
