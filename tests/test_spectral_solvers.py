"""DDRM, DDNM+, consistency editing, QCS-SGM, SIM-DMIS against plain loops in their letters."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from diffsplit import Problem
from diffsplit.channels import GaussianNoise, Logistic, OneBit, Quantized
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
from diffsplit.priors import GaussianConsistency, GaussianPrior
from diffsplit.schedules import ddpm_sigmas, karras_grid
from diffsplit.solvers import (
    DDRM,
    QCSSGM,
    SIMDMIS,
    ConsistencyEditing,
    DDNMPlus,
    Solver,
    read_as_linear,
)

SHAPE = (3, 8, 8)
SIZE = math.prod(SHAPE)
PRIOR = GaussianPrior(SHAPE, 0.1, torch.logspace(0, -2, SIZE, dtype=torch.float64).view(SHAPE))
PRIOR.bounds = None
OPERATORS: dict[str, LinearOperator] = {
    "blur": Blur.gaussian(SHAPE, 3, 0.6),
    "reduction": Downsample(SHAPE, 2, "bicubic"),
    "mask": PixelMask(SHAPE, 0.5, 1),
    "transform": RandomizedTransform(SHAPE, rows=90, seed=1),
}


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def measured(problem: Problem, count: int = 2) -> Tensor:
    return problem.measure(PRIOR.sample(count, seed(1)).double(), generator=seed(2))


def ddrm_in_its_letters(
    operator: LinearOperator, y: Tensor, sigma_y: float, steps: int, eta: float, eta_b: float
) -> Tensor:
    """Kawar et al. 2022, Eq. 7 and 8, entry by entry, x̄_t variance exploding."""
    spectrum, generator = operator.spectrum(), seed(3)
    s = spectrum.singular_values.expand(spectrum.shape)
    y_bar = torch.where(s > 0, spectrum.analyze_measurement(y) / s, 0)
    levels = [ddpm_sigmas()[t] for t in range(0, 1000, 1000 // steps)][::-1]
    top = levels[0]
    z = randn_like(y_bar, generator)
    seen = (s > 0) & (top >= sigma_y / s)
    x_bar = torch.where(
        seen, y_bar + (top**2 - (sigma_y / s) ** 2).clamp(min=0).sqrt() * z, top * z
    )
    for t, sigma_t in enumerate(levels):
        sigma = levels[t + 1] if t + 1 < len(levels) else 0.0
        x = spectrum.synthesize(x_bar)
        x0 = spectrum.analyze(PRIOR.denoise(x, sigma_t))
        z = randn_like(y_bar, generator)
        new = torch.empty_like(x_bar)
        for i in itertools.product(*(range(n) for n in x_bar.shape)):
            si = float(s[i[1:]])
            if si == 0:
                kept = math.sqrt(1 - eta**2) * sigma * (x_bar[i] - x0[i]) / sigma_t
                new[i] = x0[i] + kept + eta * sigma * z[i]
            elif sigma < sigma_y / si:
                kept = math.sqrt(1 - eta**2) * sigma * (y_bar[i] - x0[i]) / (sigma_y / si)
                new[i] = x0[i] + kept + eta * sigma * z[i]
            else:
                width = math.sqrt(sigma**2 - (sigma_y / si * eta_b) ** 2)
                new[i] = (1 - eta_b) * x0[i] + eta_b * y_bar[i] + width * z[i]
        x_bar = new
    return spectrum.synthesize(x_bar)


@pytest.mark.parametrize("eta_b", [1.0, 0.7])
@pytest.mark.parametrize("name", OPERATORS)
def test_ddrm_is_that_of_its_paper(name: str, eta_b: float) -> None:
    problem = Problem(OPERATORS[name], GaussianNoise(0.2))
    y = measured(problem)
    result = DDRM(steps=5, eta_b=eta_b)(problem, y, PRIOR, generator=seed(3))
    expected = ddrm_in_its_letters(problem.operator, y, 0.2, 5, 0.85, eta_b)
    torch.testing.assert_close(result.image, expected, rtol=1e-4, atol=1e-4)
    assert result.nfe == 5


def ddnm_in_its_letters(operator: LinearOperator, y: Tensor, sigma_y: float, steps: int) -> Tensor:
    """Wang et al. 2023, Eq. 17 to 19, variance preserving, entry by entry."""
    spectrum, generator, eta = operator.spectrum(), seed(3), 0.85
    s = spectrum.singular_values.expand(spectrum.shape)
    times = list(range(0, 1000, 1000 // steps))[::-1]
    alpha_bar = [1 / (1 + ddpm_sigmas()[t] ** 2) for t in times] + [1.0]
    x_t = randn_like(torch.empty(len(y), *SHAPE, dtype=y.dtype), generator)
    for i in range(steps):
        a, a_next = math.sqrt(alpha_bar[i]), math.sqrt(alpha_bar[i + 1])
        noise, noise_next = math.sqrt(1 - a**2), math.sqrt(1 - a_next**2)
        x0 = PRIOR.denoise(x_t / a, noise / a)
        e = spectrum.analyze((x_t - a * x0) / noise)
        c = spectrum.analyze(x0)
        off = torch.where(s > 0, spectrum.analyze_measurement(y) / s - c, 0)
        z = randn_like(c, generator)
        new = torch.empty_like(c)
        for k in itertools.product(*(range(n) for n in c.shape)):
            sk = float(s[k[1:]])
            if sk == 0:
                extra = eta * noise_next * z[k] + math.sqrt(1 - eta**2) * noise_next * e[k]
                new[k] = a_next * c[k] + extra
            elif noise_next >= a_next * sigma_y / sk:
                width = math.sqrt(noise_next**2 - (a_next * sigma_y / sk) ** 2)
                new[k] = a_next * (c[k] + off[k]) + width * z[k]
            else:
                share = sk * noise_next * math.sqrt(1 - eta**2) / (a_next * sigma_y)
                new[k] = a_next * (c[k] + share * off[k]) + eta * noise_next * z[k]
        x_t = spectrum.synthesize(new)
    return x_t


@pytest.mark.parametrize("name", OPERATORS)
def test_ddnm_is_that_of_its_paper(name: str) -> None:
    problem = Problem(OPERATORS[name], GaussianNoise(0.2))
    y = measured(problem)
    result = DDNMPlus(steps=5)(problem, y, PRIOR, generator=seed(3))
    expected = ddnm_in_its_letters(problem.operator, y, 0.2, 5)
    torch.testing.assert_close(result.image, expected, rtol=1e-4, atol=1e-4)
    assert result.nfe == 5


@pytest.mark.parametrize("solver", [DDRM(), DDNMPlus(steps=20), ConsistencyEditing(levels=10)])
@pytest.mark.parametrize("name", OPERATORS)
def test_what_is_measured_without_noise_is_kept_exactly(name: str, solver: Solver) -> None:
    problem = Problem(OPERATORS[name], GaussianNoise(0.0))
    y = measured(problem)
    editing = isinstance(solver, ConsistencyEditing)
    prior = GaussianConsistency(PRIOR) if editing else PRIOR
    result = solver(problem, y, prior, generator=seed(3))
    misfit = (problem.operator.apply(result.image) - y).square().mean()
    assert misfit < 1e-8 * y.square().mean()


def test_consistency_editing_is_that_of_its_paper_on_a_mask() -> None:
    problem, model = Problem(OPERATORS["mask"], GaussianNoise(0.0)), GaussianConsistency(PRIOR)
    y, generator = measured(problem), seed(3)
    known = problem.operator.pixels
    assert known is not None
    grid = karras_grid(8, min(80.0, model.sigma_max), max(0.002, model.sigma_min))[:-1]
    x = grid[0] * randn_like(torch.empty(2, *SHAPE, dtype=y.dtype), generator)
    for now, after in itertools.pairwise(grid):
        x0 = model.clip(model.consistency(x, now))
        x0 = torch.where(known, problem.operator.adjoint(y), x0)
        noise = randn_like(x0, generator)
        x = x0 + math.sqrt(after**2 - grid[-1] ** 2) * noise
    result = ConsistencyEditing(levels=8)(problem, y, model, generator=seed(3))
    torch.testing.assert_close(result.image, x, rtol=1e-5, atol=1e-5)
    assert result.nfe == 7


def test_qcs_sgm_at_one_level_draws_from_the_posterior_at_that_level() -> None:
    sigma, sigma_y, count = 0.5, 0.4, 4000
    prior = GaussianPrior((4,), 0.3, torch.tensor([1.0, 0.5, 0.2, 0.1], dtype=torch.float64))
    problem = Problem(Identity((4,)), GaussianNoise(sigma_y))
    y = torch.tensor([[1.0, -0.5, 0.2, 0.4]], dtype=torch.float64).expand(count, 4)
    solver = QCSSGM(levels=1, inner=300, step=0.04, sigma_max=sigma, sigma_min=sigma)
    result = solver(problem, y, prior, generator=seed(0))
    assert result.nfe == 301
    variance = torch.tensor([1.0, 0.5, 0.2, 0.1], dtype=torch.float64)
    precision = 1 / (variance + sigma**2) + 1 / (sigma_y**2 + sigma**2)
    mean = (0.3 / (variance + sigma**2) + y[0] / (sigma_y**2 + sigma**2)) / precision
    gain = variance / (variance + sigma**2)  # the answer is D of the last x
    expected = 0.3 + gain * (mean - 0.3)
    torch.testing.assert_close(result.image.mean(0), expected, rtol=0, atol=0.02)
    torch.testing.assert_close(result.image.var(0), gain.square() / precision, rtol=0.1, atol=0)


@pytest.mark.parametrize("channel", [OneBit(0.5), Logistic(), Quantized(bits=2, sigma=0.3)])
def test_the_score_of_qcs_sgm_is_the_slope_of_the_evidence_at_each_row(channel: object) -> None:
    operator = GaussianMatrix(SHAPE, rows=90, seed=1)
    rows = operator.row_square_norms()
    torch.testing.assert_close(rows, operator.matrix.square().sum(1))
    problem = Problem(operator, channel)  # type: ignore[arg-type]
    y, sigma = measured(problem), 0.7
    x = PRIOR.sample(2, seed(5)).double().requires_grad_()
    p = operator.apply(x)
    tau = (sigma**2 * rows.to(p)).expand_as(p)
    g, _ = problem.channel.evidence_score(p.detach(), y, tau)
    step = 1e-5 * randn_like(p.detach(), seed(6))
    rise = problem.channel.evidence(p.detach() + step, y, tau)
    fall = problem.channel.evidence(p.detach() - step, y, tau)
    torch.testing.assert_close((rise - fall) / 2, g * step, rtol=1e-3, atol=1e-9)


def test_sim_dmis_inverts_and_samples_as_plain_ddim_does() -> None:
    problem = Problem(GaussianMatrix(SHAPE, rows=90, seed=1), OneBit(0.5))
    y, solver = measured(problem), SIMDMIS(steps=10, inversion_steps=5)
    first = solver.start(problem)
    image = problem.operator.adjoint(y.double())
    norm = image.flatten(1).square().mean(1).sqrt().view(-1, 1, 1, 1)
    level = ddpm_sigmas()[first]
    assert level == pytest.approx(135 * math.sqrt(SIZE / 196608) / math.sqrt(90), rel=0.02)
    up = [first + round((999 - first) * k / 5) for k in range(6)]
    down = [round(1000 * k / 10) - 1 for k in range(10, 0, -1)]
    alphas = [1 / math.sqrt(1 + ddpm_sigmas()[t] ** 2) for t in [*up, *down[1:]]] + [1.0]
    x_t = alphas[0] * 0.5 * image / norm
    for a, a_next in itertools.pairwise(alphas):
        x0 = PRIOR.denoise(x_t / a, math.sqrt(1 - a**2) / a)
        e = (x_t - a * x0) / math.sqrt(1 - a**2)
        x_t = a_next * x0 + math.sqrt(1 - a_next**2) * e
    result = solver(problem, y, PRIOR)
    torch.testing.assert_close(result.image, x_t.to(result.image), rtol=1e-3, atol=1e-3)
    assert result.nfe == 15


def test_other_channels_are_read_as_linear_and_the_result_says_so() -> None:
    problem = Problem(OPERATORS["transform"], OneBit(0.5))
    y = measured(problem)
    result = DDRM(steps=4)(problem, y, PRIOR)
    assert "read as A x plus Gaussian noise" in result.note
    assert (
        DDRM(steps=4)(Problem(problem.operator, GaussianNoise(0.1)), y.double(), PRIOR).note == ""
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


def test_an_operator_without_a_spectrum_is_refused_in_a_sentence() -> None:
    problem = Problem(GaussianMatrix(SHAPE, rows=90, seed=1), GaussianNoise(0.1))
    with pytest.raises(InputError, match="needs the singular value decomposition"):
        DDRM()(problem, measured(problem), PRIOR)
