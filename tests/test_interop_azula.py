"""azula: denoisers both ways and posterior samples, against Gaussians where all is exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optional_libraries import library
from torch import Tensor

from diffsplit import Problem, operators, solvers
from diffsplit.channels import GaussianNoise
from diffsplit.errors import InputError
from diffsplit.operators import LinearOperator
from diffsplit.priors import GaussianPrior, from_callable

azula = library("azula")
from azula.denoise import DiracPosterior, GaussianDenoiser, KarrasDenoiser  # noqa: E402
from azula.linalg.covariance import DiagonalCovariance  # noqa: E402
from azula.noise import CosineSchedule, RectifiedSchedule, VESchedule, VPSchedule  # noqa: E402
from azula.sample import DDIMSampler, DDPMSampler, HeunSampler  # noqa: E402

from diffsplit.interop import (  # noqa: E402
    conditioned_to_azula,
    denoiser_to_azula,
    prior_from_azula,
)

SHAPE = (1, 4, 4)
SIZE = 16
SCHEDULES = [VESchedule(), VPSchedule(), CosineSchedule(), RectifiedSchedule()]


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def variances() -> Tensor:
    return torch.logspace(0, -2, SIZE).view(SHAPE)


def prior() -> GaussianPrior:
    return GaussianPrior(SHAPE, 0.3, variances(), sigma_min=1e-3, sigma_max=100.0)


def theirs(schedule: Any) -> Any:
    return GaussianDenoiser(torch.full(SHAPE, 0.3), DiagonalCovariance(variances()), schedule)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_a_gaussian_of_azula_is_the_gaussian_prior_at_every_level(schedule: Any) -> None:
    found, exact = prior_from_azula(theirs(schedule), SHAPE, bounds=None), prior()
    levels = torch.tensor([0.02, 0.1, 0.5, 3.0, 50.0])
    x = 0.3 + (1 + levels.view(-1, 1, 1, 1)) * torch.randn(5, *SHAPE, generator=seed())
    torch.testing.assert_close(
        found.denoise(x, levels), exact.denoise(x, levels), rtol=2e-3, atol=2e-3
    )
    wide = found.denoise(x.double(), levels.double())
    torch.testing.assert_close(
        wide, exact.denoise(x.double(), levels.double()), rtol=1e-5, atol=1e-5
    )


def test_a_prior_of_azula_knows_the_levels_of_its_schedule() -> None:
    found = prior_from_azula(theirs(VESchedule(0.01, 20.0)), SHAPE)
    assert (found.sigma_min, found.sigma_max) == pytest.approx((0.01, 20.0))


def test_a_network_of_azula_gets_one_time_for_each_image() -> None:
    class Half(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x * t.view(-1, 1, 1, 1)

    denoiser = KarrasDenoiser(Half(), VPSchedule())
    found = prior_from_azula(denoiser, SHAPE, bounds=None)
    x, levels = torch.randn(3, *SHAPE, generator=seed()), torch.tensor([0.1, 1.0, 9.0])
    alone = torch.cat([found.denoise(x[i : i + 1], levels[i]) for i in range(3)])
    torch.testing.assert_close(found.denoise(x, levels), alone)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_our_gaussian_is_the_gaussian_of_azula_at_every_time(schedule: Any) -> None:
    ours, exact = denoiser_to_azula(prior(), schedule), theirs(schedule)
    x = torch.randn(2, *SHAPE, generator=seed())
    for t in (0.2, 0.5, 0.8):
        time = torch.tensor(t)
        posterior = ours(x, time)
        torch.testing.assert_close(posterior.mean, exact(x, time).mean, rtol=1e-3, atol=1e-3)
        alpha, sigma = schedule(time)
        torch.testing.assert_close(
            posterior.var.mean(), prior().error(sigma / alpha).float(), rtol=1e-4, atol=1e-6
        )
    both = ours(x, torch.tensor([0.2, 0.8])).mean
    torch.testing.assert_close(both[1:], ours(x[1:], torch.tensor(0.8)).mean)


def test_there_and_back_is_the_same_denoiser() -> None:
    given = prior()
    back = prior_from_azula(denoiser_to_azula(given, VPSchedule()), SHAPE, bounds=None)
    x, levels = torch.randn(2, *SHAPE, generator=seed()), torch.tensor([0.2, 5.0])
    torch.testing.assert_close(
        back.denoise(x, levels), given.denoise(x, levels), rtol=1e-3, atol=1e-4
    )


def dense(operator: LinearOperator) -> Tensor:
    return operator.apply(torch.eye(SIZE).view(SIZE, *SHAPE)).flatten(1).double().T


def posterior(operator: LinearOperator, sigma: float, y: Tensor) -> tuple[Tensor, Tensor]:
    """Exact mean ``(B, *SHAPE)`` and covariance of x given y."""
    a, cov = dense(operator), torch.diag(variances().flatten().double())
    mean = torch.full((SIZE,), 0.3, dtype=torch.float64)
    gain = cov @ a.T @ torch.linalg.inv(a @ cov @ a.T + sigma**2 * torch.eye(len(a)))
    x = mean + (y.double().flatten(1) - mean @ a.T) @ gain.T
    return x.view(-1, *SHAPE), cov - gain @ a @ cov


def conditioned_mean(
    operator: LinearOperator, sigma: float, y: Tensor, x: Tensor, level: float
) -> Tensor:
    """Exact E[x0 | x_σ, y]: x_σ is a second measurement."""
    mean, cov = posterior(operator, sigma, y)
    gain = cov @ torch.linalg.inv(cov + level**2 * torch.eye(SIZE))
    return mean + ((x.double() - mean).flatten(1) @ gain.T).view_as(x)


OPERATORS: dict[str, LinearOperator] = {
    "mask": operators.PixelMask(SHAPE, fraction=0.5, seed=1),
    "blur": operators.Blur.gaussian(SHAPE, size=3, std=0.8),
    "own": operators.from_function(lambda x: x[..., :3] * torch.tensor([1.0, 0.3, 0.1]), SHAPE),
}


@pytest.mark.parametrize("level", [0.1, 1.0])
@pytest.mark.parametrize("name", OPERATORS)
def test_the_conditioned_denoiser_converges_to_the_exact_mean(name: str, level: float) -> None:
    problem = Problem(OPERATORS[name], GaussianNoise(0.2))
    y = problem.measure(prior().sample(2, seed()), generator=seed(1))
    x = prior().sample(2, seed(2)) + level * torch.randn(2, *SHAPE, generator=seed(3))
    schedule = VESchedule(1e-3, 100.0)
    denoiser = conditioned_to_azula(problem, y, prior(), schedule)
    time = torch.log(torch.tensor(level) / 1e-3) / torch.log(torch.tensor(100.0 / 1e-3))
    denoiser(x, time + 1e-3)
    for _ in range(200):
        found = denoiser(x, time).mean
    exact = conditioned_mean(problem.operator, 0.2, y, x, level)
    torch.testing.assert_close(found.double(), exact, rtol=2e-3, atol=2e-3)


class ExactConditioned(azula.denoise.Denoiser):  # type: ignore[misc, name-defined]
    """E[x0 | x_t, y] in closed form."""

    def __init__(self, operator: LinearOperator, sigma: float, y: Tensor, schedule: Any) -> None:
        super().__init__()
        self.schedule, self.given = schedule, (operator, sigma, y)

    def forward(self, x_t: Tensor, t: Tensor, **kwargs: object) -> Any:
        alpha, sigma = self.schedule(t)
        mean = conditioned_mean(*self.given, x_t / alpha, float(sigma / alpha))
        return DiracPosterior(mean.to(x_t.dtype))


SAMPLERS = {"DDPM": DDPMSampler, "DDIM": DDIMSampler, "Heun": HeunSampler}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("schedule", [VESchedule(0.01, 20.0), VPSchedule(0.05, 0.01)])
@pytest.mark.parametrize("name", OPERATORS)
def test_samplers_of_azula_draw_as_with_the_exact_denoiser(
    name: str, schedule: Any, sampler: str
) -> None:
    """And what Heun's method draws has the exact mean and variance."""
    count, sigma, operator = 1000, 0.2, OPERATORS[name]
    problem = Problem(operator, GaussianNoise(sigma))
    y = problem.measure(prior().sample(1, seed()), generator=seed(1))
    mean, cov = posterior(operator, sigma, y)
    draws = []
    for denoiser in (
        conditioned_to_azula(problem, y.expand(count, *y.shape[1:]), prior(), schedule),
        ExactConditioned(operator, sigma, y, schedule),
    ):
        walk = SAMPLERS[sampler](denoiser, steps=60, silent=True)
        torch.manual_seed(0)
        draws.append(walk(walk.init((count, *SHAPE))).double())
    ours, exact = draws
    spread = cov.diagonal().sqrt().view(SHAPE)
    assert ((ours.mean(0) - exact.mean(0)).abs() / spread).max() < 0.25
    assert ours.var(0).sum() == pytest.approx(float(exact.var(0).sum()), rel=0.05)
    if sampler == "Heun":
        assert ((ours.mean(0) - mean[0]).abs() / spread).max() < 0.25
        assert ours.var(0).sum() == pytest.approx(float(cov.trace()), rel=0.05)


def test_a_second_run_starts_anew() -> None:
    problem = Problem(OPERATORS["blur"], GaussianNoise(0.2))
    y = problem.measure(prior().sample(2, seed()), generator=seed(1))
    denoiser = conditioned_to_azula(problem, y, prior(), VESchedule(0.01, 20.0))
    walk = DDIMSampler(denoiser, steps=20, silent=True)
    x = 20 * torch.randn(2, *SHAPE, generator=seed())
    torch.testing.assert_close(walk(x), walk(x), rtol=0, atol=0)


def test_wrong_calls_are_refused_in_a_sentence() -> None:
    problem = Problem(OPERATORS["blur"], GaussianNoise(0.2))
    y = problem.measure(prior().sample(2, seed()), generator=seed(1))
    with pytest.raises(InputError, match=r"azula\.denoise\.Denoiser was expected"):
        prior_from_azula(torch.nn.Identity(), SHAPE)
    with pytest.raises(InputError, match="diffusion model is needed"):
        denoiser_to_azula(solvers.DiffEP())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="schedule is one of azula"):
        denoiser_to_azula(prior(), "cosine")
    with pytest.raises(InputError, match="of shape"):
        conditioned_to_azula(problem, y[..., :2], prior())
    with pytest.raises(InputError, match="load a prior of that size"):
        conditioned_to_azula(problem, y, GaussianPrior((1, 8, 8)))
    with pytest.raises(InputError, match="3 images for measurements of 2"):
        conditioned_to_azula(problem, y, prior())(torch.zeros(3, *SHAPE), torch.tensor(0.5))


def test_a_prior_without_a_measured_error_gives_a_point() -> None:
    plain = from_callable(prior().denoise, SHAPE)
    found = denoiser_to_azula(plain)(torch.zeros(1, *SHAPE), torch.tensor(0.5))
    assert not hasattr(found, "var")
