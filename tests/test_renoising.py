"""DiffEP on operators with a known spectrum, against Gaussian posteriors in closed form."""

import pytest
import torch

from diffsplit import Problem, channels, operators
from diffsplit.priors import GaussianPrior, from_callable
from diffsplit.solvers import DiffEP

SHAPE = (3, 16, 16)
SIZE = 3 * 16 * 16

OPERATORS = {
    "blur": operators.Blur.gaussian(SHAPE, size=5, std=1.0),
    "motion": operators.Blur.motion(SHAPE, size=7, intensity=0.5, seed=0),
    "average": operators.Downsample(SHAPE, factor=2, kernel="average"),
    "bicubic": operators.Downsample(SHAPE, factor=2, kernel="bicubic"),
    "box": operators.PixelMask.box(SHAPE, top=4, left=4, height=6, width=6),
    "mask": operators.PixelMask(SHAPE, fraction=0.5, seed=1),
}


def _seed(value=0):
    return torch.Generator().manual_seed(value)


def _posterior(prior, operator, sigma, y):
    a = operator.apply(torch.eye(SIZE).view(SIZE, *SHAPE)).flatten(1).double().T
    cov = torch.diag(prior.eigenvalues)
    gain = cov @ a.T @ torch.linalg.inv(a @ cov @ a.T + sigma**2 * torch.eye(len(a)))
    x = prior.mean + (y.double().flatten(1) - prior.mean @ a.T) @ gain.T
    return x.view(-1, *SHAPE), torch.trace(cov - gain @ a @ cov).item() / SIZE


@pytest.mark.parametrize("name", OPERATORS)
def test_walks_of_a_white_gaussian_give_its_posterior_mean_and_samples_of_its_spread(name):
    """There the denoiser's error is white, as the method takes it to be, so the law is exact."""
    prior, operator = GaussianPrior(SHAPE, 0.1, 0.3), OPERATORS[name]
    problem = Problem(operator, channels.GaussianNoise(sigma=0.2))
    y = problem.measure(prior.sample(2, _seed()), generator=_seed(1))
    mean, variance = _posterior(prior, operator, 0.2, y)
    result = DiffEP(samples=16)(problem, y, prior, generator=_seed(2))
    assert (result.image - mean).square().mean() < 0.35 * variance
    # sixteen independent draws leave a sixteenth of the posterior variance
    assert (result.samples.mean(0) - mean).square().mean() < 2.5 / 16 * variance
    assert result.samples.var(0).mean().item() == pytest.approx(variance, rel=0.2)
    assert result.nfe == 17 * 20
    assert result.samples.shape == (16, 2, *SHAPE)


@pytest.mark.parametrize("name", ["blur", "motion", "bicubic", "mask"])
def test_noiseless_measurements_are_reproduced(name):
    prior = GaussianPrior(SHAPE, 0.0, torch.logspace(0, -2, SIZE).view(SHAPE))
    problem = Problem(OPERATORS[name], channels.GaussianNoise(sigma=0.0))
    x = prior.sample(2, _seed())
    y = problem.measure(x, generator=_seed(1))
    result = DiffEP()(problem, y, prior, generator=_seed(2))
    assert (problem.operator.apply(result.image) - y).square().mean() < 1e-5
    assert (result.image - x).square().mean() < x.square().mean()


def test_a_prior_without_an_error_curve_walks_too():
    exact = GaussianPrior(SHAPE, 0.0, torch.logspace(0, -2, SIZE).view(SHAPE))
    blind = from_callable(exact.denoise, SHAPE, mean_square=exact.mean_square, bounds=None)
    problem = Problem(OPERATORS["blur"], channels.GaussianNoise(sigma=0.05))
    x = exact.sample(2, _seed())
    y = problem.measure(x, generator=_seed(1))
    known, blind_result = DiffEP()(problem, y, exact), DiffEP()(problem, y, blind)
    errors = [(r.image - x).square().mean() for r in (known, blind_result)]
    assert errors[1] < 1.1 * errors[0]
    assert blind_result.nfe == 40


def test_denoising_is_the_denoiser_itself():
    prior = GaussianPrior(SHAPE, 0.0, torch.logspace(0, -2, SIZE).view(SHAPE))
    problem = Problem(operators.Identity(SHAPE), channels.GaussianNoise(sigma=0.2))
    y = problem.measure(prior.sample(2, _seed()), generator=_seed(1))
    result = DiffEP(damping=0.0)(problem, y, prior)
    # its level is measured per image, and differs a little from the mean one
    assert (result.image - prior.denoise(y, 0.2)).square().mean() < 0.01 * prior.error(0.2)


def test_random_transforms_and_quantized_masks_keep_passing_messages():
    prior = GaussianPrior(SHAPE)
    noise = channels.GaussianNoise(sigma=0.2)
    random = Problem(operators.RandomizedTransform(SHAPE, rows=300, seed=0), noise)
    one_bit = Problem(OPERATORS["mask"], channels.OneBit(sigma=0.5))
    for problem in (random, one_bit):
        y = problem.measure(prior.sample(1, _seed()), generator=_seed(1))
        assert "predicted_error" in DiffEP()(problem, y, prior).trace
