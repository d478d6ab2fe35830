"""DDRM, DDNM+ and consistency editing against plain loops in their letters, and exact marginals."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from spectral_cases import OPERATORS, SHAPE, SIZE, SMOOTH, dense, measured, seed
from torch import Tensor

from diffsplit import Problem
from diffsplit.channels import GaussianNoise
from diffsplit.noise import randn_like
from diffsplit.operators import (
    Identity,
    LinearOperator,
    PixelMask,
)
from diffsplit.priors import GaussianConsistency, GaussianPrior
from diffsplit.schedules import ddpm_grid, karras_grid
from diffsplit.solvers import (
    DDRM,
    ConsistencyEditing,
    DDNMPlus,
)

ETA = 0.85


def alpha_bars(steps: int) -> list[float]:
    """ᾱ at timesteps 1000 − 1000/K, …, 0, and before the first."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    all_of_them = (1 - betas).cumprod(0)
    times = range(0, 1000, 1000 // steps)
    return [float(all_of_them[t]) for t in reversed(times)] + [1.0]


def ddrm_in_letters(
    operator: LinearOperator, y: Tensor, sigma_y: float, steps: int, eta_b: float
) -> Tensor:
    """Eq. 7 and 8 and the authors' code, a coefficient at a time, in variance-preserving terms."""
    _, u_t, s, v = dense(operator)
    y_bar, generator = y.flatten(1) @ u_t.T, seed(3)
    a_bar = alpha_bars(steps)
    sigma = math.sqrt((1 - a_bar[0]) / a_bar[0])
    x_t = randn_like(torch.empty(len(y), SIZE, dtype=torch.float64), generator)
    for b, i in itertools.product(range(len(y)), range(SIZE)):
        if s[i] * sigma > sigma_y:
            spread = math.sqrt(sigma**2 - (sigma_y / s[i]) ** 2)
            x_t[b, i] = y_bar[b, i] / s[i] + spread * x_t[b, i]
        else:
            x_t[b, i] = sigma * x_t[b, i]
    x_t = math.sqrt(a_bar[0]) * x_t @ v.T
    for a, a_next in itertools.pairwise(a_bar):
        x_0 = SMOOTH.denoise((x_t / math.sqrt(a)).view(-1, *SHAPE), math.sqrt((1 - a) / a))
        x_0 = x_0.flatten(1)
        e_bar = (x_t - math.sqrt(a) * x_0) / math.sqrt(1 - a) @ v
        x_bar = x_0 @ v
        sigma = math.sqrt((1 - a_next) / a_next)
        xi = randn_like(torch.empty(len(y), SIZE, dtype=torch.float64), generator)
        new = torch.empty_like(x_bar)
        for b, i in itertools.product(range(len(y)), range(SIZE)):
            kept, fresh = math.sqrt(1 - ETA**2) * sigma, ETA * sigma * xi[b, i]
            if s[i] * sigma > sigma_y:
                spread = math.sqrt(sigma**2 - (eta_b * sigma_y / s[i]) ** 2)
                mean = (1 - eta_b) * x_bar[b, i] + eta_b * y_bar[b, i] / s[i]
                new[b, i] = mean + spread * xi[b, i]
            elif s[i] > 0 and s[i] * sigma < sigma_y:
                off = (y_bar[b, i] - s[i] * x_bar[b, i]) / sigma_y
                new[b, i] = x_bar[b, i] + kept * off + fresh
            else:
                new[b, i] = x_bar[b, i] + kept * e_bar[b, i] + fresh
        x_t = math.sqrt(a_next) * new @ v.T
    return x_t.view(-1, *SHAPE)


@pytest.mark.parametrize("eta_b", [1.0, 0.7])
@pytest.mark.parametrize("sigma", [0.0, 0.2])
@pytest.mark.parametrize("name", OPERATORS)
def test_ddrm_is_that_of_its_paper(name: str, sigma: float, eta_b: float) -> None:
    problem = Problem(OPERATORS[name], GaussianNoise(sigma))
    y = measured(problem)
    result = DDRM(steps=5, eta_b=eta_b)(problem, y, SMOOTH, generator=seed(3))
    expected = ddrm_in_letters(problem.operator, y, sigma, 5, eta_b)
    torch.testing.assert_close(result.image, expected, rtol=0, atol=1e-4)


def ddnm_in_letters(operator: LinearOperator, y: Tensor, sigma_y: float, steps: int) -> Tensor:
    """Eq. 17 and 51 with A, its pseudo-inverse, Λ and Φ as matrices, variance preserving."""
    a_matrix, _, s, v = dense(operator)
    pinv, generator = torch.linalg.pinv(a_matrix), seed(3)
    a_bar = alpha_bars(steps)
    x_t = randn_like(torch.empty(len(y), SIZE, dtype=torch.float64), generator) @ v.T
    for now, after in itertools.pairwise(a_bar):
        x_0 = SMOOTH.denoise((x_t / math.sqrt(now)).view(-1, *SHAPE), math.sqrt((1 - now) / now))
        x_0 = x_0.flatten(1)
        e = (x_t - math.sqrt(now) * x_0) / math.sqrt(1 - now)
        a, sigma = math.sqrt(after), math.sqrt(1 - after)
        lam, fresh, old = torch.ones(SIZE), ETA * torch.ones(SIZE), torch.ones(SIZE)
        lam, fresh, old = lam.double(), fresh.double() * sigma, old.double() * sigma
        old = old * math.sqrt(1 - ETA**2)
        for i in range(SIZE):
            if sigma_y == 0 or s[i] == 0:
                continue
            old[i] = 0
            if sigma < a * sigma_y / s[i]:
                lam[i] = s[i] * sigma * math.sqrt(1 - ETA**2) / (a * sigma_y)
            else:
                fresh[i] = math.sqrt(sigma**2 - (a * sigma_y / s[i]) ** 2)
        residual = (x_0 @ a_matrix.T - y.flatten(1)) @ pinv.T
        x_hat = x_0 - residual @ v @ torch.diag(lam) @ v.T
        xi = randn_like(torch.empty(len(y), SIZE, dtype=torch.float64), generator)
        x_t = a * x_hat + (xi @ torch.diag(fresh) + e @ v @ torch.diag(old)) @ v.T
    return x_t.view(-1, *SHAPE)


@pytest.mark.parametrize("sigma", [0.0, 0.2])
@pytest.mark.parametrize("name", OPERATORS)
def test_ddnm_is_that_of_its_paper(name: str, sigma: float) -> None:
    problem = Problem(OPERATORS[name], GaussianNoise(sigma))
    y = measured(problem)
    result = DDNMPlus(steps=5)(problem, y, SMOOTH, generator=seed(3))
    expected = ddnm_in_letters(problem.operator, y, sigma, 5)
    torch.testing.assert_close(result.image, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", OPERATORS)
def test_consistency_editing_is_algorithm_4_of_its_paper(name: str) -> None:
    """Without its last evaluation, which a consistency model makes the identity; Vᵀ is its A."""
    problem, levels = Problem(OPERATORS[name], GaussianNoise(0.0)), 6
    y, model = measured(problem), GaussianConsistency(SMOOTH)
    result = ConsistencyEditing(levels=levels)(problem, y, model, generator=seed(3))
    _, u_t, s, v = dense(problem.operator)
    omega = (s == 0).double()  # 1 where the coefficient is to be found
    reference = torch.where(s > 0, (y.flatten(1) @ u_t.T) / s, 0)
    generator, grid = seed(3), karras_grid(levels, 80.0, 0.002)[:-1]
    x = reference @ v.T
    for n, t in enumerate(grid[:-1]):
        width = t if n == 0 else math.sqrt(t**2 - grid[-1] ** 2)
        x = x + width * randn_like(x, generator) @ v.T
        x = model.consistency(x.view(-1, *SHAPE), t).flatten(1)
        x = ((1 - omega) * reference + omega * (x @ v)) @ v.T
    torch.testing.assert_close(result.image.flatten(1), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("solver", [DDRM(steps=20), DDNMPlus(steps=20)])
@pytest.mark.parametrize("sigma", [0.0, 0.05, 0.6])
def test_marginals_for_a_white_gaussian_are_those_of_its_scalar_recursion(
    solver: DDRM | DDNMPlus, sigma: float
) -> None:
    """Every coefficient is by itself; z = m + k (c̄ − m) + noise of variance q, in 20 steps."""
    shape, mean, var, count = (1, 4, 4), 0.3, 0.2, 3000
    operator = PixelMask(shape, 0.5, 1)
    problem = Problem(operator, GaussianNoise(sigma))
    y = problem.measure(torch.full((1, *shape), 0.9, dtype=torch.float64), generator=seed(2))
    draws = solver(
        problem,
        y.expand(count, -1).contiguous(),
        GaussianPrior(shape, mean, var),
        generator=seed(4),
    ).image.flatten(1)
    grid, kept = ddpm_grid(20, spacing="leading"), math.sqrt(1 - ETA**2)
    for seen in (True, False):
        ddrm = isinstance(solver, DDRM)
        k, q = (1.0, grid[0] ** 2 - sigma**2) if seen and ddrm else (0.0, grid[0] ** 2)
        if not ddrm:
            q = 1 + grid[0] ** 2
            offset = -mean  # x starts at 0, not at the mean
        else:
            offset = 0.0 if seen else -mean
        for now, after in itertools.pairwise(grid):
            gain = var / (var + now**2)
            if seen and sigma > 0 and after >= sigma:
                k, offset, q = 1.0, 0.0, after**2 - sigma**2
            elif seen and sigma > 0:
                pull = after * kept / sigma
                k, offset = gain * k * (1 - pull) + pull, gain * offset * (1 - pull)
                q = (gain * (1 - pull)) ** 2 * q + (ETA * after) ** 2
            elif seen and ddrm and after > 0:
                k, offset, q = 1.0, 0.0, after**2
            elif seen and not ddrm:
                old = kept * after / now * (1 - gain)
                k, offset, q = 1 + old * k, old * offset, old**2 * q + (ETA * after) ** 2
            else:
                share = gain + kept * after / now * (1 - gain)
                k, offset, q = share * k, share * offset, share**2 * q + (ETA * after) ** 2
        mask = operator.pixels if seen else ~operator.pixels
        part = draws[:, mask.flatten()]
        target = mean + offset + (k * (y[0].double() - mean) if seen else 0)
        error = 5 * math.sqrt(q / count) + 1e-6
        assert (part.mean(0) - target).abs().max() < error
        torch.testing.assert_close(
            part.var(0).mean(), torch.tensor(q).double(), rtol=0.05, atol=1e-9
        )


@pytest.mark.parametrize("name", ["blur", "bicubic", "mask", "transform"])
@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_consistency_editing_keeps_the_distribution_of_white_images(
    name: str, sigma: float
) -> None:
    """A known coefficient in its noise is distributed as a noisy image, which f makes an image."""
    prior = GaussianPrior(SHAPE, 0.2, 0.3)
    x = prior.sample(400, seed(1)).double()
    problem = Problem(OPERATORS[name], GaussianNoise(sigma))
    y = problem.measure(x, generator=seed(2))
    image = ConsistencyEditing(levels=20)(
        problem, y, GaussianConsistency(prior), generator=seed(3)
    ).image
    assert float(image.mean()) == pytest.approx(0.2, abs=0.01)
    assert float(image.var()) == pytest.approx(0.3, rel=0.02)


def test_consistency_editing_stays_near_what_was_measured_with_little_noise() -> None:
    prior = GaussianPrior(SHAPE, 0.2, 0.3)
    x = prior.sample(50, seed(1)).double()
    problem = Problem(Identity(SHAPE), GaussianNoise(0.05))
    y = problem.measure(x, generator=seed(2))
    image = ConsistencyEditing()(problem, y, GaussianConsistency(prior), generator=seed(3)).image
    assert 0.05**2 / 2 < (image - x).square().mean() < 9 * 0.05**2
