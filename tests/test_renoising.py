"""DiffEP on operators with a known spectrum, against Gaussian posteriors in closed form."""

import pytest
import torch

from diffsplit import InputError, Problem, channels, operators
from diffsplit.priors import GaussianPrior, GaussianSpectrum, from_callable
from diffsplit.solvers import DiffEP, MessagePassing, Renoising

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


def _colored():
    return GaussianPrior(SHAPE, 0.0, torch.logspace(0, -2, SIZE).view(SHAPE))


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("make", [lambda: GaussianPrior(SHAPE, 0.1, 0.3), _colored])
def test_the_mean_of_a_gaussian_is_exact_to_a_percent_of_its_posterior_variance(make, name, sigma):
    prior, operator = make(), OPERATORS[name]
    problem = Problem(operator, channels.GaussianNoise(sigma))
    y = problem.measure(prior.sample(2, _seed()), generator=_seed(1))
    mean, variance = _posterior(prior, operator, sigma, y)
    result = DiffEP()(problem, y, prior, generator=_seed(2))
    assert (result.image - mean).square().mean() < 0.01 * variance
    assert result.nfe == len(result.trace) == 20


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("name", ["blur", "bicubic", "average", "mask"])
def test_samples_of_a_gaussian_vary_as_its_posterior_does(name, sigma):
    for prior, room in ((GaussianPrior(SHAPE, 0.1, 0.3), 0.03), (_colored(), 0.1)):
        operator = OPERATORS[name]
        problem = Problem(operator, channels.GaussianNoise(sigma))
        y = problem.measure(prior.sample(2, _seed()), generator=_seed(1))
        mean, variance = _posterior(prior, operator, sigma, y)
        result = DiffEP(samples=24, output="sample")(problem, y, prior, generator=_seed(2))
        assert result.samples.var(0).mean().item() == pytest.approx(variance, rel=room)
        # independent draws leave a share 1/24 of the posterior variance in their mean
        assert (result.samples.mean(0) - mean).square().mean() < 2.5 / 24 * variance
        assert result.nfe == 24 * 24
        assert result.samples.shape == (24, 2, *SHAPE)
        assert [len(trace) for trace in result.sample_traces] == [24] * 24


def test_a_renoised_sample_takes_as_many_evaluations_as_it_is_told_and_the_mean_its_own():
    problem = Problem(OPERATORS["mask"], channels.GaussianNoise(0.1))
    y = problem.measure(_colored().sample(1, _seed()), generator=_seed(1))
    solver = DiffEP(levels=6, samples=3, sample_steps=4)
    result = solver(problem, y, _colored(), generator=_seed(2))
    assert len(result.trace) == 6
    assert [len(trace) for trace in result.sample_traces] == [4] * 3
    assert result.nfe == 6 + 3 * 4 == solver.steps_at_most(problem)


@pytest.mark.parametrize(
    ("name", "sigma"),
    [("mask", 0.1), ("mask", 0.5), ("box", 0.1), ("bicubic", 0.1), ("blur", 0.02), ("blur", 0.5)],
)
def test_samples_vary_as_the_posterior_does_where_what_is_seen_tells_of_what_is_hidden(name, sigma):
    """Pixels that depend on each other, as those of pictures do; samples predict the error."""
    frequency = torch.arange(16.0).square()
    falling = (1 + frequency[:, None] + frequency).pow(-1.2)
    variances = torch.stack([falling, falling / 5, falling / 15])
    prior = GaussianSpectrum(0.25 * variances / variances.mean(), bounds=None)
    unit = torch.eye(SIZE).view(SIZE, *SHAPE)
    blurred = prior.denoise(unit, 1.0).flatten(1).double()
    cov = torch.linalg.inv(torch.linalg.inv(blurred) - torch.eye(SIZE))
    operator = OPERATORS[name]
    problem = Problem(operator, channels.GaussianNoise(sigma))
    a = operator.apply(unit).flatten(1).double().T
    gain = cov @ a.T @ torch.linalg.inv(a @ cov @ a.T + sigma**2 * torch.eye(len(a)))
    variance = torch.trace(cov - gain @ a @ cov).item() / SIZE
    y = problem.measure(prior.sample(4, _seed()), generator=_seed(1))
    result = DiffEP(samples=48)(problem, y, prior, generator=_seed(2))
    mean = (y.double().flatten(1) @ gain.T).view(-1, *SHAPE)
    assert (result.image - mean).square().mean() < 0.1 * variance
    # 5 %, and 1 % for there being 48 samples
    assert result.predicted_error.mean().item() == pytest.approx(variance, rel=0.06)


@pytest.mark.parametrize("name", ["mask", "box", "average", "blur", "bicubic"])
def test_four_bits_behind_an_uneven_operator_are_worth_nearly_all_of_it(name):
    """The error is near that of the exact posterior for noise as large as the rounding."""
    prior, operator = _colored(), OPERATORS[name]
    problem = Problem(operator, channels.Quantized(bits=4, sigma=0.0, limit=3.0))
    x = prior.sample(8, _seed())
    image = DiffEP()(problem, problem.measure(x, generator=_seed(1)), prior).image
    noise = Problem(operator, channels.GaussianNoise(6.0 / 16 / 12**0.5))
    y = noise.measure(x, generator=_seed(1))
    exact, _ = _posterior(prior, operator, noise.channel.sigma, y)
    assert (image - x).square().mean() < 1.15 * (exact - x).square().mean()


def test_four_bits_of_a_pixel_are_nearly_what_the_pixel_is():
    """The error tends to that of noise as large as the rounding of the quantizer."""
    prior, operator = _colored(), OPERATORS["mask"]
    x = prior.sample(8, _seed())
    errors = []
    for channel in (
        channels.Quantized(bits=6, sigma=0.0, limit=4.0),
        channels.GaussianNoise(8.0 / 64 / 12**0.5),
    ):
        problem = Problem(operator, channel)
        y = problem.measure(x, generator=_seed(1))
        image = DiffEP()(problem, y, prior, generator=_seed(2)).image
        errors.append((image - x).square().mean().item())
    assert errors[0] == pytest.approx(errors[1], rel=0.05)


def test_a_hole_keeps_its_share_of_a_large_image_and_is_filled_as_well_as_in_a_small_one():
    """The level where the walk starts grows with the side; with the same level it is 32 % worse."""
    excess = []
    for side in (64, 256):
        frequency = torch.arange(float(side)).square()
        falling = (1 + frequency[:, None] + frequency).pow(-1.2)[None]
        prior = GaussianSpectrum(0.25 * falling / falling.mean(), bounds=None)
        start, hole = 19 * side // 64, 25 * side // 64
        problem = Problem(
            operators.PixelMask.box((1, side, side), start, start, hole, hole),
            channels.GaussianNoise(0.05),
        )
        hidden = torch.zeros(1, side, side)
        hidden[:, start : start + hole, start : start + hole] = 1
        x = prior.sample(6, _seed())
        image = DiffEP()(problem, problem.measure(x, generator=_seed(1)), prior).image
        excess.append(((image - x) * hidden).square().sum() / (x * hidden).square().sum())
    assert excess[1] < 1.15 * excess[0]


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
    assert blind_result.nfe == 20  # the fresh noise measures the divergence


def test_denoising_is_the_denoiser_itself():
    prior = GaussianPrior(SHAPE, 0.0, torch.logspace(0, -2, SIZE).view(SHAPE))
    problem = Problem(operators.Identity(SHAPE), channels.GaussianNoise(sigma=0.2))
    y = problem.measure(prior.sample(2, _seed()), generator=_seed(1))
    result = DiffEP(damping=0.0)(problem, y, prior)
    # its level is measured per image, and differs a little from the mean one
    assert (result.image - prior.denoise(y, 0.2)).square().mean() < 0.01 * prior.error(0.2)


def test_each_problem_gets_the_algorithm_that_suits_it():
    noise, bit = channels.GaussianNoise(0.2), channels.OneBit(0.5)
    few, sharp = channels.Quantized(bits=4, sigma=0.0), channels.OneBit(0.05)
    mask, blur = OPERATORS["mask"], OPERATORS["blur"]
    random = operators.RandomizedTransform(SHAPE, rows=300, seed=0)
    iid = operators.GaussianMatrix(SHAPE, rows=300, seed=0)
    passing = [(random, noise), (random, few), (iid, bit), (iid, few), (mask, bit)]
    passing += [(3.0 * mask, channels.OneBit(1.5)), (operators.Identity(SHAPE), noise)]
    renoising = [(mask, noise), (mask, few), (mask, sharp), (blur, noise), (blur, bit), (blur, few)]
    for operator, channel in passing:
        assert isinstance(DiffEP().algorithm(Problem(operator, channel)), MessagePassing)
    for operator, channel in renoising:
        assert isinstance(DiffEP().algorithm(Problem(operator, channel)), Renoising)


def test_a_prior_that_knows_little_noise_only_is_refused():
    prior = from_callable(lambda x, sigma: x, SHAPE, sigma_max=0.02)
    problem = Problem(OPERATORS["blur"], channels.GaussianNoise(0.1))
    with pytest.raises(InputError, match="more noise"):
        DiffEP()(problem, torch.zeros(1, *SHAPE), prior)
