"""QCS-SGM and SIM-DMIS against plain loops in their letters, and against what theory says."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from diffsplit import Problem
from diffsplit.channels import Channel, GaussianNoise, Logistic, OneBit, Quantized
from diffsplit.errors import InputError
from diffsplit.noise import randn_like
from diffsplit.operators import (
    Blur,
    GaussianMatrix,
    Identity,
    LinearOperator,
    PixelMask,
    RandomizedTransform,
)
from diffsplit.priors import GaussianConsistency, GaussianPrior, from_callable
from diffsplit.schedules import ddpm_sigmas
from diffsplit.solvers import QCSSGM, SIMDMIS, Solver, recovery

SHAPE = (3, 8, 8)
SIZE = math.prod(SHAPE)
SMOOTH = GaussianPrior(SHAPE, 0.1, torch.logspace(0, -2, SIZE, dtype=torch.float64).view(SHAPE))
MATRIX = GaussianMatrix(SHAPE, rows=90, seed=1)


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


@pytest.fixture
def double() -> Iterator[None]:
    """Bits carry no dtype of floats: the default one is that of the images."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def measured(problem: Problem, count: int = 2) -> Tensor:
    y = problem.measure(SMOOTH.sample(count, seed(1)).double(), generator=seed(2))
    return y.double() if y.is_floating_point() else y


def matrix_of(operator: LinearOperator) -> Tensor:
    unit = torch.eye(operator.size_in, dtype=torch.float64).view(-1, *operator.shape_in)
    return operator.apply(unit).flatten(1).T


def phi(x: float) -> float:
    return math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def cdf(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


def likelihood_score(channel: Channel, y: float, z: float, spread: float) -> float:
    """Eq. 12 and 13 of the paper, and its linear case; spread² = σ_ε² + ‖a_i‖² σ_k²."""
    if isinstance(channel, OneBit):
        return y * phi(z / spread) / (spread * cdf(y * z / spread))
    if isinstance(channel, Quantized):
        edges = [-math.inf, *channel.inner_edges, math.inf]
        low, high = (edges[int(y)] - z) / spread, (edges[int(y) + 1] - z) / spread
        return (phi(low) - phi(high)) / (spread * (cdf(high) - cdf(low)))
    return (y - z) / spread**2


def qcs_sgm_in_letters(problem: Problem, y: Tensor, sigmas: list[float], steps: int) -> Tensor:
    """Algorithm 1: T = ``steps`` at each of the levels, from the largest, ε/σ_L² = 0.3."""
    a = matrix_of(problem.operator)
    diag = torch.diagonal(a @ a.T).tolist()
    generator, noise_var = seed(3), problem.channel.sigma**2
    x = randn_like(torch.empty(len(y), *SHAPE, dtype=torch.float64), generator) * sigmas[0]
    for beta in sigmas:
        alpha = 0.3 * sigmas[-1] ** 2 * (beta / sigmas[-1]) ** 2
        for _ in range(steps):
            prior_score = (SMOOTH.denoise(x, beta) - x) / beta**2
            z = x.flatten(1) @ a.T
            g = torch.empty_like(z)
            for b in range(len(y)):
                for i in range(len(a)):
                    spread = math.sqrt(noise_var + diag[i] * beta**2)
                    value = float(y.flatten(1)[b, i])
                    g[b, i] = likelihood_score(problem.channel, value, float(z[b, i]), spread)
            score = prior_score + (g @ a).view_as(x)
            x = x + alpha * score + math.sqrt(2 * alpha) * randn_like(x, generator)
    return x


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "channel",
    [OneBit(0.5), Quantized(bits=2, sigma=0.3), Quantized(bits=4, sigma=0.0), GaussianNoise(0.2)],
    ids=str,
)
@pytest.mark.parametrize(
    "operator", [MATRIX, RandomizedTransform(SHAPE, rows=90, seed=1)], ids=["matrix", "transform"]
)
def test_qcs_sgm_is_that_of_its_paper(operator: LinearOperator, channel: Channel) -> None:
    problem = Problem(operator, channel)
    y = measured(problem)
    solver = QCSSGM(levels=4, inner=3, step=0.3, sigma_max=2.0, sigma_min=0.25)
    result = solver(problem, y, SMOOTH, generator=seed(3))
    expected = qcs_sgm_in_letters(problem, y, [2.0, 1.0, 0.5, 0.25], 3)
    torch.testing.assert_close(result.image, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("sigma", [0.3])
def test_at_one_small_level_it_draws_from_the_posterior_of_a_gaussian(sigma: float) -> None:
    """Langevin steps of ε widen the variance 1/P of its target to 1/(P (1 − ε P/2))."""
    shape, mean, var, level, count = (1, 4, 4), 0.2, 0.3, 0.05, 800
    operator = 2.0 * PixelMask(shape, 0.5, 1)
    problem = Problem(operator, GaussianNoise(sigma))
    y = problem.measure(torch.full((1, *shape), 0.7, dtype=torch.float64), generator=seed(2))
    solver = QCSSGM(levels=1, inner=1500, step=0.5, sigma_max=level, sigma_min=level)
    batch = y.expand(count, -1).contiguous()
    draws = solver(problem, batch, GaussianPrior(shape, mean, var), generator=seed(3)).image
    seen = operator.pixels.flatten()
    for where, c in ((seen, 4.0), (~seen, 0.0)):
        part = draws.flatten(1)[:, where]
        precision = 1 / (var + level**2) + c / (sigma**2 + c * level**2)
        target = mean / (var + level**2) * torch.ones(int(where.sum())).double()
        if c:
            target = target + 2 * y[0] / (sigma**2 + c * level**2)
        variance = 1 / (precision * (1 - 0.5 * level**2 * precision / 2))
        error = 5 * math.sqrt(variance / count)
        assert (part.mean(0) - target / precision).abs().max() < error
        assert float(part.var(0).mean()) == pytest.approx(variance, rel=0.05)
        exact = 1 / (1 / var + c / sigma**2)  # of x0 given y, to which this goes as level → 0
        assert float(part.var(0).mean()) == pytest.approx(exact, rel=0.15)


def test_a_badly_wrong_sign_keeps_its_gradient() -> None:
    """An image at −1 whose signs say +1, 1000 standard deviations away: g is about −p/v²."""
    operator, level = Identity((1, 2, 2)), 1e-3
    problem = Problem(operator, OneBit(1e-6))
    prior = GaussianPrior((1, 2, 2), -1.0, 1e-12)
    y = torch.ones(1, 1, 2, 2, dtype=torch.int8)
    moved = []
    for inner in (1, 2):
        solver = QCSSGM(levels=1, inner=inner, step=0.5, sigma_max=level, sigma_min=level)
        moved.append(solver(problem, y, prior, generator=seed(3)).image.double())
    generator = seed(3)
    x = torch.zeros(1, 1, 2, 2)
    for _ in range(2):
        randn_like(x, generator)
    xi = randn_like(x, generator).double()
    p = moved[0]
    assert (p < -0.4).all()
    without = p + 0.5 * (-1 - p) + math.sqrt(0.5 * 2) * level * xi
    torch.testing.assert_close(moved[1] - without, -0.5 * p, rtol=1e-3, atol=1e-4)


def test_evaluations_and_operator_calls_are_those_of_the_paper() -> None:
    problem = Problem(MATRIX, OneBit(0.5))
    assert QCSSGM().levels * QCSSGM().inner == 11555
    solver = QCSSGM(levels=7, inner=5)
    result = solver(problem, measured(problem), SMOOTH, generator=seed(3))
    assert (result.nfe, result.operator_calls, len(result.trace)) == (35, 70, 7)
    small = QCSSGM.for_problem(problem)
    assert small.levels * small.inner == 500
    assert QCSSGM.for_problem(problem, levels=3).levels == 3
    assert SIMDMIS().inversion_steps + SIMDMIS().steps == 150
    result = SIMDMIS()(problem, measured(problem), SMOOTH, generator=seed(3))
    assert (result.nfe, result.operator_calls, len(result.trace)) == (150, 1, 150)


def test_rows_that_overlap_are_refused_and_so_is_a_step_that_diverges() -> None:
    blurred = Problem(Blur.motion(SHAPE, 5, 0.5, 0), GaussianNoise(0.1))
    with pytest.raises(InputError, match=r"overlap; use a PixelMask or random rows.*DiffEP"):
        QCSSGM()(blurred, measured(blurred), SMOOTH)
    problem = Problem(MATRIX, OneBit(0.5))
    with pytest.raises(InputError, match=r"a step of 1.5 diverges .* choose one below 0\.\d+"):
        QCSSGM(step=1.5)(problem, measured(problem), SMOOTH)
    with pytest.raises(InputError, match=r"SIMDMIS needs random rows.*RandomizedTransform.*DiffEP"):
        SIMDMIS()(blurred, measured(blurred), SMOOTH)


def sim_dmis_in_letters(x_bar: Tensor, level: float, up: int, down: int) -> Tensor:
    """α and σ of the variance-preserving diffusion, DPM-Solver++ 2M from t* to T, then DDIM."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alphas = (1 - betas).cumprod(0).sqrt().tolist()
    sigmas = [math.sqrt(1 - a**2) for a in alphas]

    def data(x: Tensor, t: int) -> Tensor:
        return SMOOTH.denoise(x / alphas[t], sigmas[t] / alphas[t])

    first = next(t for t in range(1000) if sigmas[t] / alphas[t] >= level)
    times = [round(first + (999 - first) * k / up) for k in range(up + 1)]
    lam = [math.log(alphas[t] / sigmas[t]) for t in times]
    x, before = alphas[first] * x_bar, None
    for i in range(1, up + 1):
        s, t, h = times[i - 1], times[i], lam[i] - lam[i - 1]
        now = data(x, s)
        d = now
        if before is not None and i < up:
            r = (lam[i - 1] - lam[i - 2]) / h
            d = (1 + 1 / (2 * r)) * now - 1 / (2 * r) * before
        x = sigmas[t] / sigmas[s] * x - alphas[t] * (math.exp(-h) - 1) * d
        before = now
    times = [1000 * k // down - 1 for k in range(down, 0, -1)]
    for i, t in enumerate(times):
        x0 = data(x, t)
        e = (x - alphas[t] * x0) / sigmas[t]
        last = i == len(times) - 1
        x = x0 if last else alphas[times[i + 1]] * x0 + sigmas[times[i + 1]] * e
    return x


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("channel", [OneBit(0.5), Logistic()], ids=str)
def test_sim_dmis_is_algorithm_1_of_its_paper(channel: Channel) -> None:
    problem = Problem(MATRIX, channel)
    y = measured(problem)
    a = matrix_of(MATRIX) * math.sqrt(90)  # entries of variance 1
    x_bar = (12.0 / 90 * y.double() @ a).view(-1, *SHAPE)
    result = SIMDMIS(inversion_steps=6, steps=10, constant=12.0)(problem, y, SMOOTH)
    expected = sim_dmis_in_letters(x_bar, 12.0 / math.sqrt(90), 6, 10)
    torch.testing.assert_close(result.image, expected, rtol=0, atol=1e-4)


def test_with_many_steps_sim_dmis_is_the_consistency_function_of_its_first_image() -> None:
    problem = Problem(MATRIX, GaussianNoise(0.1))
    y, solver = measured(problem), SIMDMIS(inversion_steps=300, steps=1000)
    x_bar, level = solver.noisy_image(problem, y)
    level = next(sigma for sigma in ddpm_sigmas() if sigma >= level)
    expected = GaussianConsistency(SMOOTH).consistency(x_bar, level)
    image = solver(problem, y, SMOOTH).image
    assert (image - expected).square().mean() < 1e-3 * expected.square().mean()


def test_its_first_image_is_the_truth_in_noise_of_its_level_whatever_the_scale_of_y() -> None:
    size = 4000
    operator = GaussianMatrix((1, 20, 20), rows=size, seed=1)
    x = torch.randn(3, 1, 20, 20, generator=seed(1), dtype=torch.float64)
    x = 0.5 * 20 * x / x.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    constant = 0.5 * 20 / math.sqrt(2 / math.pi)  # ‖x‖/μ, the best C_s'
    problem = Problem(operator, OneBit(0.0))
    solver = SIMDMIS(constant=constant)
    image, level = solver.noisy_image(problem, problem.measure(x, generator=seed(2)))
    assert level == constant / math.sqrt(size)
    assert float((image - x).square().mean().sqrt()) == pytest.approx(level, rel=0.1)
    linear = Problem(operator, GaussianNoise(0.0))
    y = linear.measure(x, generator=seed(2))
    for scaled in (solver.noisy_image(linear, y)[0], solver.noisy_image(linear, -3 * y)[0]):
        torch.testing.assert_close(scaled.abs(), solver.noisy_image(linear, y)[0].abs())


@pytest.mark.parametrize(
    "solver", [QCSSGM(levels=8, inner=2), SIMDMIS(steps=6, inversion_steps=4)], ids=["qcs", "sim"]
)
def test_memory_does_not_grow_with_the_steps(
    solver: Solver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "KEPT_BYTES", 0)  # the trace keeps images for later up to this
    problem, held = Problem(MATRIX, OneBit(0.5)), []

    def count(step: object) -> None:
        gc.collect()
        tensors = [o for o in gc.get_objects() if issubclass(type(o), Tensor)]
        held.append(sum(t.numel() >= 2 * SIZE for t in tensors))

    solver(problem, measured(problem), SMOOTH, generator=seed(3), callback=count)
    assert max(held[2:]) <= held[2]


def test_the_denoiser_is_asked_once_a_step_at_geometric_levels_of_its_range() -> None:
    asked: list[float] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append(float(sigma[0]))
        return SMOOTH.denoise(x, sigma)

    prior = from_callable(denoise, SHAPE, sigma_min=0.1, sigma_max=10.0, bounds=None)
    asked.clear()
    problem = Problem(MATRIX, OneBit(0.5))
    QCSSGM(levels=3, inner=2)(problem, measured(problem), prior, generator=seed(3))
    assert asked == pytest.approx([10, 10, 1, 1, 0.1, 0.1])
