"""DDRM, DDNM+ and consistency editing against plain loops in their letters, and exact marginals."""

from __future__ import annotations

import gc
import itertools
import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from diffsplit import Problem
from diffsplit.channels import GaussianNoise, OneBit
from diffsplit.errors import InputError
from diffsplit.noise import randn_like
from diffsplit.operators import (
    Blur,
    Downsample,
    GaussianMatrix,
    Identity,
    LinearOperator,
    PixelMask,
    RandomizedTransform,
)
from diffsplit.priors import GaussianConsistency, GaussianPrior, from_callable
from diffsplit.schedules import ddpm_grid, ddpm_sigmas, karras_grid
from diffsplit.solvers import (
    DDRM,
    ConsistencyEditing,
    DDNMPlus,
    Solver,
    read_as_linear,
    recovery,
)

SHAPE = (3, 8, 8)
SIZE = math.prod(SHAPE)
ETA = 0.85
SMOOTH = GaussianPrior(SHAPE, 0.1, torch.logspace(0, -2, SIZE, dtype=torch.float64).view(SHAPE))
OPERATORS: dict[str, LinearOperator] = {
    "blur": Blur.gaussian(SHAPE, 3, 0.6),
    "bicubic": Downsample(SHAPE, 2, "bicubic"),
    "mask": PixelMask(SHAPE, 0.5, 1),
    "transform": -2.0 * RandomizedTransform(SHAPE, rows=90, seed=1),
}
SOLVERS: dict[str, Solver] = {
    "DDRM": DDRM(steps=8),
    "DDNMPlus": DDNMPlus(steps=8),
    "ConsistencyEditing": ConsistencyEditing(levels=9),
}


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def prior_of(solver: Solver, exact: GaussianPrior) -> GaussianPrior | GaussianConsistency:
    return GaussianConsistency(exact) if isinstance(solver, ConsistencyEditing) else exact


def measured(problem: Problem, count: int = 2) -> Tensor:
    return problem.measure(SMOOTH.sample(count, seed(1)).double(), generator=seed(2))


class Dense(NamedTuple):
    """A = U diag(s) Vᵀ as matrices: A (M, N), Uᵀ (N, M) with zero rows where s = 0, s (N), V."""

    a: Tensor
    u_t: Tensor
    s: Tensor
    v: Tensor


def dense(operator: LinearOperator) -> Dense:
    spectrum = operator.spectrum()
    unit_in = torch.eye(operator.size_in, dtype=torch.float64).view(-1, *spectrum.shape)
    unit_out = torch.eye(operator.size_out, dtype=torch.float64).view(-1, *operator.shape_out)
    v = spectrum.synthesize(unit_in).flatten(1).T
    u_t = spectrum.analyze_measurement(unit_out).flatten(1).T
    s = spectrum.singular_values.expand(spectrum.shape).flatten()
    a = operator.apply(unit_in.view(-1, *operator.shape_in)).flatten(1).T
    torch.testing.assert_close(v.T @ v, torch.eye(len(v)).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(u_t.T @ torch.diag(s) @ v.T, a, rtol=0, atol=1e-6)
    return Dense(a, u_t, s, v)


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


@pytest.mark.parametrize("solver", [DDNMPlus(steps=10), ConsistencyEditing(levels=10)])
@pytest.mark.parametrize("name", OPERATORS)
def test_what_is_measured_without_noise_is_kept_exactly(name: str, solver: Solver) -> None:
    problem = Problem(OPERATORS[name], GaussianNoise(0.0))
    y = measured(problem)
    result = solver(problem, y, prior_of(solver, SMOOTH), generator=seed(3))
    torch.testing.assert_close(problem.operator.apply(result.image), y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", OPERATORS)
def test_ddrm_without_noise_ends_with_what_the_denoiser_leaves_at_its_last_level(name: str) -> None:
    problem = Problem(OPERATORS[name], GaussianNoise(0.0))
    y = measured(problem)
    image = DDRM(steps=10)(problem, y, SMOOTH, generator=seed(3)).image
    off = (problem.operator.apply(image) - y).square().mean().sqrt()
    last = ddpm_sigmas()[0]
    assert 0 < off < 2 * last * math.sqrt(float(problem.operator.norm() ** 2))


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_directions_that_rounding_drowns_count_as_noisy(solver: Solver) -> None:
    """Singular values down to 1e-12 of the largest, in float32: divided by, they would explode."""
    shape = (1, 32, 32)
    problem = Problem(Blur.gaussian(shape, 31, 3.0), GaussianNoise(0.0))
    s = problem.operator.spectrum().singular_values
    assert s[s > 0].min() < 1e-11 * s.max()
    prior = GaussianPrior(shape, 0.0, 0.3)
    x = prior.sample(4, seed(1))
    y = problem.measure(x, generator=seed(2))
    image = solver(problem, y, prior_of(solver, prior), generator=seed(3)).image
    assert image.dtype == torch.float32
    assert (image - x).square().mean() < 2 * 0.3


@pytest.mark.parametrize(
    ("solver", "evaluations"),
    [(DDRM(), 20), (DDNMPlus(), 100), (ConsistencyEditing(), 39)],
)
def test_defaults_cost_what_their_papers_say_and_never_apply_the_operator(
    solver: Solver, evaluations: int
) -> None:
    problem = Problem(OPERATORS["blur"], GaussianNoise(0.1))
    result = solver(problem, measured(problem), prior_of(solver, SMOOTH), generator=seed(3))
    assert result.nfe == len(result.trace) == solver.steps_at_most(problem) == evaluations
    assert result.operator_calls == 0


@pytest.mark.parametrize("solver", [DDRM(steps=7), DDNMPlus(steps=7)])
def test_the_denoiser_runs_once_a_step_at_the_levels_of_the_public_code(solver: Solver) -> None:
    seen: list[float] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(float(sigma[0]))
        return SMOOTH.denoise(x, sigma)

    problem = Problem(OPERATORS["blur"], GaussianNoise(0.1))
    prior = from_callable(denoise, SHAPE, sigma_min=1e-3, sigma_max=1e3, bounds=None)
    seen.clear()
    solver(problem, measured(problem), prior, generator=seed(3))
    assert seen == pytest.approx([ddpm_sigmas()[142 * k] for k in range(6, -1, -1)])


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_memory_does_not_grow_with_the_steps(
    solver: Solver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "KEPT_BYTES", 0)  # the trace keeps images for later up to this
    problem = Problem(OPERATORS["blur"], GaussianNoise(0.1))
    prior, held = prior_of(solver, SMOOTH), []

    def count(step: object) -> None:
        gc.collect()
        tensors = [o for o in gc.get_objects() if issubclass(type(o), Tensor)]
        held.append(sum(t.numel() >= 2 * SIZE for t in tensors))

    solver(problem, measured(problem), prior, generator=seed(3), callback=count)
    assert max(held[2:]) <= held[2]


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_an_operator_without_a_spectrum_is_refused_with_one_that_does(solver: Solver) -> None:
    problem = Problem(GaussianMatrix(SHAPE, rows=90, seed=1), GaussianNoise(0.1))
    with pytest.raises(InputError, match=r"does not offer; use a RandomizedTransform.*DiffEP"):
        solver(problem, measured(problem), prior_of(solver, SMOOTH))


def test_other_channels_are_read_as_linear_and_the_result_says_so() -> None:
    problem = Problem(OPERATORS["transform"], OneBit(0.5))
    y = measured(problem)
    result = DDRM(steps=4)(problem, y, SMOOTH)
    assert "read as A x plus Gaussian noise" in result.note
    assert (
        DDRM(steps=4)(Problem(problem.operator, GaussianNoise(0.1)), y.double(), SMOOTH).note == ""
    )
    scaled = read_as_linear(problem, y, "bussgang")
    literal = read_as_linear(problem, y)
    torch.testing.assert_close(literal.y, y.to(literal.y))
    # Bussgang's scale leaves an error that is uncorrelated with s ~ N(0, c/4).
    s = 0.5 * math.sqrt(problem.operator.gram.mean) * torch.randn(1, 200_000, generator=seed(7))
    factor = float(scaled.y.flatten()[0] / literal.y.flatten()[0])
    error = factor * problem.channel.value(problem.channel.sample(s, seed(8))) - s
    assert abs(float((error * s).mean())) < 0.02 * float(s.square().mean())
    assert scaled.problem.channel.gaussian_sigma == pytest.approx(float(error.std()), rel=0.02)


def test_presets_and_wrong_settings() -> None:
    problem = Problem(OPERATORS["mask"], OneBit(0.5))
    assert DDNMPlus.for_problem(problem, "onebit-inpainting").steps == 20
    assert DDNMPlus.for_problem(problem, "onebit-inpainting", steps=7).steps == 7
    assert DDNMPlus.for_problem(problem, "inpaint-box").steps == 100
    for kind, settings in (
        (DDRM, {"eta": 1.1}),
        (DDRM, {"eta_b": -0.1}),
        (DDRM, {"steps": 0}),
        (DDNMPlus, {"eta": math.nan}),
        (DDNMPlus, {"steps": 1001}),
        (ConsistencyEditing, {"levels": 1}),
    ):
        with pytest.raises(InputError):
            kind(**settings)
