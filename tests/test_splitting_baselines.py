"""DiffPIR, PnP-ADMM, DAPS and RED-diff: closed forms of Gaussian priors, and plain loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from diffsplit import InputError, Problem, channels, operators
from diffsplit.errors import DivergenceError
from diffsplit.priors import GaussianMixturePrior, GaussianPrior
from diffsplit.schedules import ddpm_grid, ddpm_sigmas
from diffsplit.solvers import DAPS, DiffPIR, PnPADMM, RedDiff
from diffsplit.solvers.splitting.daps import langevin_at_once

SHAPE = (3, 8, 8)
SIZE = math.prod(SHAPE)
NOISE = channels.GaussianNoise(0.1)
BLUR = operators.Blur.gaussian(SHAPE, 3, 0.6)
MASK = operators.PixelMask(SHAPE, 0.5, 1)
EYE = torch.eye(SIZE, dtype=torch.float64)


def _seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=_seed(seed), dtype=torch.float64)


def _mixture(bounds: tuple[float, float] | None = (-1.0, 1.0)) -> GaussianMixturePrior:
    prior = GaussianMixturePrior(_randn(3, *SHAPE, seed=7), [0.05, 0.1, 0.2])
    prior.bounds = bounds
    return prior


def _colored() -> GaussianPrior:
    root = _randn(SIZE, SIZE, seed=5) / SIZE**0.5
    return GaussianPrior(SHAPE, 0.1, 0.3 * root @ root.T + 0.02 * EYE)


def _matrix(operator: operators.LinearOperator) -> Tensor:
    return operator.apply(EYE.view(SIZE, *SHAPE)).flatten(1).T


def _measured(
    operator: operators.LinearOperator, channel: channels.Channel = NOISE, batch: int = 1
):
    problem = Problem(operator, channel)
    x = _randn(batch, *SHAPE, seed=3).clamp(-1, 1)
    return problem, problem.measure(x, generator=_seed(4))


def test_late_levels_are_those_of_diffpirs_code():
    for count, times in ((5, [999, 499, 292, 133, 0]), (20, [999, 770, 675, 602, 541])):
        grid = ddpm_grid(count, spacing="late")
        assert grid[: len(times)] == [ddpm_sigmas()[t] for t in times]
        assert len(grid) == count + 1
        assert grid[-2:] == [ddpm_sigmas()[0], 0.0]
    for count, top in ((1000, 1000), (37, 40), (2, 2), (1, 5)):
        grid = ddpm_grid(count, top, "late")
        assert grid[0] == ddpm_sigmas()[top - 1]
        assert all(a > b for a, b in itertools.pairwise(grid))


@pytest.mark.parametrize("operator", [BLUR, MASK], ids=["spectrum", "orthogonal rows"])
def test_diffpir_is_the_codes_loop_on_a_variance_preserving_model_with_its_mixed_units(operator):
    """y and the data step on [0, 1], the network on [-1, 1], λ in the code's units."""
    steps, code_lam, zeta, noise = 12, 3.0, 0.3, 0.1
    problem, y = _measured(operator, channels.GaussianNoise(noise))
    a, prior, g = _matrix(operator), _mixture(), _seed(9)
    bar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    times = [999 - min(int(math.sqrt(1e6 * k / (steps - 1))), 999) for k in range(steps)]
    ones = a.sum(1)
    y_unit = (y.flatten() + ones) / 2  # A (x/2 + 1/2) = (A x + A 1)/2
    x_t = torch.randn(1, *SHAPE, generator=g, dtype=torch.float64)
    for i, t in enumerate(times):
        alpha, s = math.sqrt(bar[t]), math.sqrt(1 - bar[t])
        clean = prior.denoise(x_t / alpha, s / alpha).clamp(-1, 1)
        rho = code_lam * (noise / 2) ** 2 / (s / alpha) ** 2
        z = clean.flatten() / 2 + 0.5
        z = torch.linalg.solve(a.T @ a + rho * EYE, a.T @ y_unit + rho * z)
        clean = (2 * z - 1).view_as(x_t)
        after = bar[times[i + 1]] if i + 1 < steps else torch.tensor(1.0)
        epsilon = (x_t - alpha * clean) / s
        fresh = torch.randn(1, *SHAPE, generator=g, dtype=torch.float64)
        x_t = after.sqrt() * clean
        x_t = x_t + (1 - after).sqrt() * (math.sqrt(1 - zeta) * epsilon + math.sqrt(zeta) * fresh)
    solver = DiffPIR(steps=steps, lam=code_lam / 4, zeta=zeta)
    answer = solver(problem, y, prior, generator=_seed(9)).image
    torch.testing.assert_close(answer, x_t.clamp(-1, 1), rtol=0, atol=1e-4)


def test_diffpirs_gradient_steps_are_those_of_adam_on_the_sum_of_both_terms():
    problem, y = _measured(BLUR)
    prior, sigma = _mixture(), ddpm_sigmas()[999]
    solver = DiffPIR(steps=1, lam=7.0, data_step="gradient", spacing="even")
    answer = solver(problem, y, prior, generator=_seed(9)).image
    start = math.sqrt(1 + sigma**2) * torch.randn(
        1, *SHAPE, generator=_seed(9), dtype=torch.float64
    )
    z = prior.denoise(start, sigma).clamp(-1, 1)
    x = z.clone().requires_grad_()
    adam = torch.optim.Adam([x], lr=0.1)
    for _ in range(50):
        adam.zero_grad()
        loss = (BLUR.apply(x) - y).square().sum() / (2 * 0.1**2)
        (loss + 7.0 / (2 * sigma**2) * (x - z).square().sum()).backward()
        adam.step()
    torch.testing.assert_close(answer, x.detach().clamp(-1, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("solver", [DiffPIR(steps=20), PnPADMM()], ids=["DiffPIR", "PnPADMM"])
@pytest.mark.parametrize("operator", [BLUR, MASK], ids=["spectrum", "orthogonal rows"])
def test_noiseless_measurements_are_reproduced_to_the_noise_that_stands_for_none(solver, operator):
    prior = GaussianPrior(SHAPE, 0.1, 0.1)
    problem = Problem(operator, channels.GaussianNoise(0.0))
    y = problem.measure(prior.sample(2, _seed()).double(), generator=_seed(1))
    image = solver(problem, y, prior, generator=_seed(2)).image
    assert (operator.apply(image) - y).abs().max() < 0.02


@pytest.mark.parametrize("rho", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("operator", [BLUR, MASK], ids=["spectrum", "orthogonal rows"])
def test_pnp_admm_ends_at_the_minimiser_for_a_gaussian_prior(operator, rho):
    """−log p(y | A x) − ρ log p(x); with ρ = 1 that is the posterior mean. Whatever the levels."""
    problem, y = _measured(operator)
    prior, a = _colored(), _matrix(operator)
    basis, values = prior.basis, prior.eigenvalues
    assert basis is not None
    inverse = basis @ torch.diag(1 / values) @ basis.T
    hessian = a.T @ a / 0.1**2 + rho * inverse
    pull = a.T @ y.flatten() / 0.1**2 + rho * inverse @ prior.mean
    expected = torch.linalg.solve(hessian, pull).view(1, *SHAPE)
    for start in (0.2, 2.0):
        solver = PnPADMM(iterations=600, rho=rho, start=start, end=0.2)
        image = solver(problem, y, prior).image
        torch.testing.assert_close(image, expected, rtol=0, atol=1e-3)


def test_pnp_admm_of_bits_ends_where_the_gradients_of_both_terms_cancel():
    problem, y = _measured(MASK, channels.OneBit(0.5))
    prior = GaussianPrior(SHAPE, 0.1, 0.3)
    x = PnPADMM(iterations=400, rho=1.0, start=0.5, end=0.5)(problem, y.double(), prior).image
    gradient = problem.grad(x, y) + (x - 0.1) / 0.3
    assert gradient.abs().max() < 1e-3


def test_daps_is_the_codes_loop():
    levels, ode, langevin, eta, tau = 6, 3, 4, 2e-4, 0.05
    problem, y = _measured(operators.from_function(BLUR.apply, SHAPE))  # no spectrum: step by step
    prior, g = _mixture(bounds=None), _seed(9)

    def randn() -> Tensor:
        return torch.randn(1, *SHAPE, generator=g, dtype=torch.float64)

    def grid(high: float, low: float, count: int) -> list[float]:
        share = [i / (count - 1) for i in range(count)]
        return [(high ** (1 / 7) + r * (low ** (1 / 7) - high ** (1 / 7))) ** 7 for r in share]

    sigmas = [*grid(100.0, 0.1, levels + 1)[:-1], 0.0]
    x = 100.0 * randn()
    for k in range(levels):
        clean, times = x, grid(sigmas[k], 0.01, ode + 1)
        for now, after in itertools.pairwise(times):
            slope = (clean - prior.denoise(clean, now)) / now
            clean = clean + (after - now) * slope
        rate = eta * (1 + k / (levels + 1) * (0.01 - 1))
        z = clean
        for _ in range(langevin):
            z = z.detach().requires_grad_()
            misfit = (BLUR.apply(z) - y).square().sum()
            (gradient,) = torch.autograd.grad(misfit, z)
            score = -gradient / tau**2 - (z - clean) / sigmas[k] ** 2
            z = (z + rate * score + math.sqrt(2 * rate) * randn()).detach()
        x = z + sigmas[k + 1] * randn() if k + 1 < levels else z
    solver = DAPS(levels, ode, langevin, eta, tau)
    answer = solver(problem, y, prior, generator=_seed(9)).image
    torch.testing.assert_close(answer, x, rtol=0, atol=1e-4)


def test_langevin_steps_of_daps_settle_at_their_gaussian():
    """y = x + noise of σ_y, at one level where the prior says nothing: N(y, σ_y²), but that steps
    of size η widen it to σ_y²/(1 − η/(2σ_y²))."""
    sigma, eta = 0.1, 0.002
    problem, y = _measured(operators.Identity(SHAPE), channels.GaussianNoise(sigma), batch=30)
    solver = DAPS(levels=1, langevin_steps=200, step_size=eta, tau=None)
    rest = solver(problem, y, _mixture(bounds=None), generator=_seed()).image - y
    assert rest.var().item() == pytest.approx(sigma**2 / (1 - eta / (2 * sigma**2)), rel=0.04)
    assert abs(rest.mean().item()) < 0.005


@pytest.mark.parametrize("operator", [BLUR, MASK], ids=["blur", "mask"])
def test_langevin_steps_at_once_have_the_mean_and_variance_of_steps_one_by_one(operator):
    problem, y = _measured(operator)
    weight, sigma, eta, steps, count = 40.0, 0.5, 0.01, 7, 4000
    clean = _randn(1, *SHAPE, seed=8)
    repeated = y.expand(count, *y.shape[1:])
    at_once = langevin_at_once(
        problem, repeated, clean.expand(count, *SHAPE), weight, sigma, eta, steps, _seed()
    )
    z, hessian = clean.flatten(), weight * _matrix(operator).T @ _matrix(operator)
    covariance, step = torch.zeros(SIZE, SIZE).double(), EYE - eta * (hessian + EYE / sigma**2)
    pull = weight * operator.adjoint(y).flatten() + clean.flatten() / sigma**2
    for _ in range(steps):
        z = step @ z + eta * pull
        covariance = step @ covariance @ step.T + 2 * eta * EYE
    room = 5 * (covariance.diagonal() / count).sqrt()
    assert ((at_once.flatten(1).mean(0) - z).abs() < room).all()
    spread = at_once.flatten(1).var(0) / covariance.diagonal()
    assert ((spread - 1).abs() < 5 * math.sqrt(2 / count)).all()


def test_daps_is_near_the_posterior_of_a_white_gaussian_where_it_sees():
    v, noise = 0.3, 0.1
    prior = GaussianPrior(SHAPE, 0.0, v)
    problem = Problem(MASK, channels.GaussianNoise(noise))
    x = prior.sample(8, _seed()).double()
    y = problem.measure(x, generator=_seed(1))
    solver = DAPS(levels=50, tau=None, step_size=noise**2 / 2)
    image = solver(problem, y, prior, generator=_seed(2)).image
    keep = MASK.pixels
    gain = v / (v + noise**2)
    seen = image[:, keep] - gain * y
    assert seen.mean().abs() < 0.01
    assert seen.square().mean().item() == pytest.approx(gain * noise**2, rel=0.3)
    assert v < image[:, ~keep].square().mean() < 2 * v  # hidden pixels vary too much


def test_daps_limits_its_step_size_and_a_size_that_diverges_raises():
    """With the code's 1e-4 a matrix of norm 5 gives NaN; the code returns zeros for it."""
    problem, y = _measured(operators.GaussianMatrix(SHAPE, rows=12, seed=1))
    assert problem.operator.norm() > 4
    prior = _mixture()
    safe = DAPS(levels=5, langevin_steps=100)
    assert safe(problem, y, prior).image.isfinite().all()
    with pytest.raises(DivergenceError, match="use smaller steps"):
        DAPS(levels=5, step_size=1e-4)(problem, y.float(), prior)


@pytest.mark.parametrize("channel", [NOISE, channels.OneBit(0.5)], ids=["noise", "bits"])
@pytest.mark.parametrize("power", [1.0, 0.5])
def test_red_diff_is_the_codes_loop_on_a_variance_preserving_model(channel, power):
    steps, lam = 15, 0.4
    problem, y = _measured(MASK, channel)
    y = y.double()
    prior, g = _mixture(), _seed(9)
    bar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
    mu = MASK.adjoint(y).requires_grad_()
    adam = torch.optim.Adam([mu], lr=0.1, betas=(0.9, 0.99))
    for k in range(steps, 0, -1):
        b = float(bar[round(1000 * k / steps) - 1])
        fresh = torch.randn(1, *SHAPE, generator=g, dtype=torch.float64)
        x_t = math.sqrt(b) * mu.detach() + math.sqrt(1 - b) * fresh
        sigma = math.sqrt((1 - b) / b)
        clean = prior.denoise(x_t / math.sqrt(b), sigma)
        predicted = (x_t - math.sqrt(b) * clean) / math.sqrt(1 - b)
        s = MASK.apply(mu)
        data = (s - y).square().mean() / 2 if channel is NOISE else channel.nll(s, y).mean()
        regularizer = ((predicted - fresh).detach() * mu).mean()
        adam.zero_grad()
        (data + lam * sigma**power * regularizer).backward()
        adam.step()
    solver = RedDiff(steps=steps, lam=lam, power=power)
    answer = solver(problem, y, prior, generator=_seed(9)).image
    torch.testing.assert_close(answer, mu.detach().clamp(-1, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("solver", "nfe", "calls"),
    [
        (DiffPIR(steps=7), 7, 14),
        (DiffPIR(steps=7, data_step="gradient", gradient_steps=5), 7, 70),
        (PnPADMM(), 12, 24),
        (DAPS(levels=4, ode_steps=3, langevin_steps=5), 12, 0),
        (RedDiff(steps=7), 7, 15),
    ],
    ids=["DiffPIR", "DiffPIR, gradient", "PnPADMM", "DAPS", "RedDiff"],
)
def test_evaluations_and_operator_calls_are_those_that_are_stated(solver, nfe, calls):
    problem, y = _measured(MASK)
    result = solver(problem, y, _mixture(), generator=_seed())
    assert (result.nfe, result.operator_calls) == (nfe, calls)


def test_daps_without_a_spectrum_takes_its_steps_one_by_one():
    problem, y = _measured(MASK, channels.OneBit(0.5))
    result = DAPS(levels=4, ode_steps=3, langevin_steps=5)(problem, y, _mixture())
    assert (result.nfe, result.operator_calls) == (12, 40)


def test_daps_of_bits_is_nearer_than_the_prior_by_far():
    problem = Problem(operators.Identity(SHAPE), channels.Quantized(4, sigma=0.1))
    x = _randn(4, *SHAPE, seed=3).clamp(-1, 1)
    y = problem.measure(x, generator=_seed(4))
    solver = DAPS(levels=10, langevin_steps=20, step_size=1e-3)
    image = solver(problem, y, GaussianPrior(SHAPE, 0.0, 0.5), generator=_seed()).image
    assert (image - x).square().mean() < 0.3 * x.square().mean()


def test_settings_go_with_the_problem():
    noise, bits = Problem(BLUR, NOISE), Problem(MASK, channels.OneBit(0.5))
    small = Problem(operators.Downsample(SHAPE, 2, "bicubic"), NOISE)
    assert DiffPIR.for_problem(noise) == DiffPIR()
    assert DiffPIR.for_problem(bits) == DiffPIR(lam=0.25, zeta=1.0)
    assert DiffPIR.for_problem(small) == DiffPIR(zeta=0.25)
    table = DiffPIR.for_problem(bits, reading="literal")
    assert (table.lam, table.zeta, table.data_step) == (7.0, 1.0, "gradient")
    assert DAPS.for_problem(noise, "motion-deblur").step_size == 5e-5
    assert DAPS.for_problem(noise, "gaussian-deblur") == DAPS()


def test_settings_out_of_range_are_one_sentence():
    for make in (
        lambda: DiffPIR(lam=0),
        lambda: DiffPIR(zeta=2),
        lambda: DiffPIR(data_step="adam"),
        lambda: DiffPIR(spacing="odd"),
        lambda: PnPADMM(rho=0),
        lambda: PnPADMM(start=0.1, end=0.2),
        lambda: DAPS(levels=0),
        lambda: DAPS(tau=-1.0),
        lambda: DAPS(step_size=0.0),
        lambda: RedDiff(lr=0.0),
        lambda: RedDiff(reading="other"),
    ):
        with pytest.raises(InputError):
            make()
    exact = Problem(BLUR, channels.GaussianNoise(0.0))
    with pytest.raises(InputError, match="leave tau at"):
        DAPS(tau=None)(exact, _randn(1, *SHAPE), _mixture())
