"""DiffEP on operators of which only A and its adjoint are known, against exact posteriors."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffsplit import Problem, channels, operators
from diffsplit.operators import LinearOperator
from diffsplit.priors import GaussianPrior
from diffsplit.solvers import DiffEP, Renoising
from diffsplit.solvers.spectral.conjugate_gradients import (
    filtered,
)

SHAPE = (3, 16, 16)
SIZE = 3 * 16 * 16


def hidden(operator: LinearOperator) -> LinearOperator:
    """The same map as a user's function, with nothing known of it."""
    return operators.from_function(operator.apply, operator.shape_in, adjoint=operator.adjoint)


def varying_blur(shape: tuple[int, ...] = SHAPE, std: float = 1.0) -> LinearOperator:
    """Sharp on the left, blurred on the right."""
    blur = operators.Blur.gaussian(shape, size=5, std=std)
    ramp = torch.linspace(0, 1, shape[-1])
    return operators.from_function(lambda x: x * (1 - ramp) + blur.apply(x) * ramp, shape)


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def dense(operator: LinearOperator, size: int = SIZE) -> Tensor:
    """A as a matrix in float64."""
    unit = torch.eye(size).view(size, *operator.shape_in)
    return operator.apply(unit).flatten(1).double().T


def posterior(
    prior: GaussianPrior, operator: LinearOperator, sigma: float, y: Tensor
) -> tuple[Tensor, float]:
    """The exact mean, and the variance per entry."""
    a, cov = dense(operator), torch.diag(prior.eigenvalues)
    gain = cov @ a.T @ torch.linalg.inv(a @ cov @ a.T + sigma**2 * torch.eye(len(a)))
    x = prior.mean + (y.double().flatten(1) - prior.mean @ a.T) @ gain.T
    return x.view(-1, *SHAPE), torch.trace(cov - gain @ a @ cov).item() / SIZE


def white() -> GaussianPrior:
    return GaussianPrior(SHAPE, 0.1, 0.3)


def colored() -> GaussianPrior:
    return GaussianPrior(SHAPE, 0.0, torch.logspace(0, -2, SIZE).view(SHAPE))


OWN: dict[str, Callable[[], LinearOperator]] = {
    "varying blur": varying_blur,
    "blur": lambda: hidden(operators.Blur.gaussian(SHAPE, size=5, std=1.0)),
    "bicubic": lambda: hidden(operators.Downsample(SHAPE, factor=2, kernel="bicubic")),
    "mask": lambda: hidden(operators.PixelMask(SHAPE, fraction=0.5, seed=1)),
}


def test_the_filter_solves_its_linear_system() -> None:
    operator = varying_blur()
    rho = torch.randn(3, *operator.shape_out, generator=seed())
    factor = torch.tensor([0.0, 0.3, 50.0])
    u, left = filtered(operator, rho, factor)
    found = operator.adjoint(u).flatten(1).double()
    assert left.max() < 1e-3
    a, eye = dense(operator), torch.eye(SIZE).double()
    for i in range(3):
        exact = a.T @ torch.linalg.solve(factor[i] * a @ a.T + eye, rho[i].flatten().double())
        torch.testing.assert_close(found[i], exact, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("sigma", [0.05, 0.3])
@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("make", [white, colored])
def test_the_mean_of_a_gaussian_is_exact_to_a_tenth_of_its_posterior_variance(
    make: Callable[[], GaussianPrior], name: str, sigma: float
) -> None:
    prior, operator = make(), OWN[name]()
    problem = Problem(operator, channels.GaussianNoise(sigma))
    y = problem.measure(prior.sample(2, seed()), generator=seed(1))
    mean, variance = posterior(prior, operator, sigma, y)
    result = DiffEP()(problem, y, prior, generator=seed(2))
    assert (result.image - mean).square().mean() < 0.1 * variance
    assert result.nfe == 20


@pytest.mark.parametrize("sigma", [0.05, 0.3])
@pytest.mark.parametrize("name", ["varying blur", "bicubic"])
def test_samples_of_a_gaussian_vary_as_its_posterior_does(name: str, sigma: float) -> None:
    prior, operator = colored(), OWN[name]()
    problem = Problem(operator, channels.GaussianNoise(sigma))
    y = problem.measure(prior.sample(2, seed()), generator=seed(1))
    mean, variance = posterior(prior, operator, sigma, y)
    result = DiffEP(samples=12, output="sample")(problem, y, prior, generator=seed(2))
    assert result.samples is not None
    assert result.samples.var(0).mean().item() == pytest.approx(variance, rel=0.1)
    # independent draws leave a share 1/12 of the posterior variance in their mean
    assert (result.samples.mean(0) - mean).square().mean() < 2.5 / 12 * variance


@pytest.mark.parametrize("name", ["blur", "bicubic", "mask"])
def test_four_bits_lose_little_where_the_spectrum_is_hidden(name: str) -> None:
    channel = channels.Quantized(bits=4, sigma=0.0, limit=3.0)
    kinds = {
        "blur": operators.Blur.gaussian(SHAPE, size=5, std=1.0),
        "bicubic": operators.Downsample(SHAPE, factor=2, kernel="bicubic"),
        "mask": operators.PixelMask(SHAPE, fraction=0.5, seed=1),
    }
    prior, known = colored(), kinds[name]
    x = prior.sample(4, seed())
    y = Problem(known, channel).measure(x, generator=seed(1))
    errors = [
        (Renoising()(Problem(a, channel), y, prior).image - x).square().mean()
        for a in (known, hidden(known))
    ]
    assert errors[1] < 1.1 * errors[0]


def test_noiseless_measurements_of_any_scale_are_reproduced() -> None:
    prior = colored()
    x = prior.sample(2, seed())
    for scale in (1.0, 20.0):
        problem = Problem(scale * varying_blur(std=0.6), channels.GaussianNoise(0.0))
        y = problem.measure(x, generator=seed(1))
        image = DiffEP()(problem, y, prior, generator=seed(2)).image
        assert (problem.operator.apply(image) - y).square().mean() < 1e-5 * scale**2


@pytest.mark.parametrize(("sigma", "solved"), [(0.1, True), (0.0, False)])
def test_a_recovery_whose_linear_systems_were_not_solved_does_not_count_as_converged(
    sigma: float, solved: bool
) -> None:
    """Singular values that fall to 1e-4 take more than the iterations there are, without noise."""
    values = torch.logspace(0, -4, SIZE).view(SHAPE)
    mixed = operators.RandomizedTransform(SHAPE, rows=SIZE, seed=0)
    operator = hidden(
        operators.from_function(lambda x: mixed.adjoint(mixed.apply(x) * values.flatten()), SHAPE)
    )
    problem, prior = Problem(operator, channels.GaussianNoise(sigma)), white()
    y = problem.measure(prior.sample(2, seed()), generator=seed(1))
    result = DiffEP(samples=2)(problem, y, prior, generator=seed(2))
    assert result.converged is not None
    assert result.converged.tolist() == [solved, solved]
    assert ("conjugate gradients" in result.reason) is not solved


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("known", [True, False])
def test_the_unit_of_the_measurements_does_not_matter(known: bool, scale: float) -> None:
    prior, blur = white(), operators.Blur.gaussian(SHAPE, size=5, std=1.0)
    operator = blur if known else hidden(blur)
    x = prior.sample(2, seed())
    images = []
    for unit in (1.0, scale):
        for channel in (
            channels.GaussianNoise(0.1 * unit),
            channels.Quantized(bits=4, sigma=0.05 * unit, limit=2.0 * unit),
        ):
            problem = Problem(unit * operator, channel)
            y = problem.measure(x, generator=seed(1))
            images.append(DiffEP()(problem, y, prior, generator=seed(2)).image)
    for image, same in zip(images[:2], images[2:], strict=True):
        error = (image - x).square().mean()
        assert (image - same).square().mean() < 0.01 * error


def test_every_kind_of_own_operator_is_renoised() -> None:
    matrix = torch.randn(9, SIZE, generator=seed()).to_sparse()
    own = [varying_blur(), operators.from_matrix(matrix, SHAPE), 2.0 * varying_blur()]
    own.append(operators.GaussianMatrix(SHAPE, 9, 0) @ varying_blur())
    for operator in own:
        for channel in (channels.GaussianNoise(0.1), channels.OneBit(0.0), channels.Logistic()):
            assert isinstance(DiffEP().algorithm(Problem(operator, channel)), Renoising)
