"""Linear estimates against closed forms, and on problems of every kind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.fft import irfft2, rfft2

from diffsplit import Problem
from diffsplit.channels import GaussianNoise, OneBit, Quantized
from diffsplit.errors import InputError
from diffsplit.io.images import example_cats
from diffsplit.metrics import psnr
from diffsplit.operators import (
    Blur,
    Downsample,
    GaussianMatrix,
    Identity,
    LinearOperator,
    PixelMask,
)
from diffsplit.solvers import BackProjection, Bicubic, MeanFill, Wiener, linear_baseline
from diffsplit.solvers.linear.wiener import natural_power

SHAPE = (2, 5, 6)
SIZE = 60


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def randn(*shape: int, value: int = 0) -> Tensor:
    return 0.1 * torch.randn(shape, generator=seed(value), dtype=torch.float64)


def dense(operator: LinearOperator) -> Tensor:
    unit = torch.eye(SIZE, dtype=torch.float64).reshape(SIZE, *SHAPE)
    return operator.apply(unit).flatten(1).T


def covariance(power: Tensor) -> Tensor:
    """Of images whose orthonormal Fourier coefficients have variance ``power``, as a matrix."""
    unit = torch.eye(SIZE, dtype=torch.float64).reshape(SIZE, *SHAPE)
    return irfft2(power * rfft2(unit), SHAPE[1:]).flatten(1).T


@pytest.mark.parametrize("sigma", [0.3, 0.05])
@pytest.mark.parametrize(
    "operator",
    [
        Blur.gaussian(SHAPE, 3, 0.8),
        Blur(SHAPE, randn(2, 3, 4) + 0.1),
        Identity(SHAPE),
        -2.0 * Blur.gaussian(SHAPE, 3, 0.8),
        Blur.gaussian(SHAPE, 3, 0.8) @ Blur.motion(SHAPE, 3, 0.5, seed=2),
    ],
    ids=["Gaussian", "per channel", "identity", "scaled", "two blurs"],
)
def test_the_wiener_filter_is_the_posterior_mean_of_a_stationary_gaussian(
    operator: LinearOperator, sigma: float
) -> None:
    problem = Problem(operator, GaussianNoise(sigma))
    y = randn(3, *SHAPE, value=1)
    a = dense(operator)
    for power in (None, torch.stack([natural_power(5, 6), torch.full((5, 4), 0.1)])):
        prior = covariance(natural_power(5, 6) if power is None else power)
        gain = prior @ a.T @ torch.linalg.inv(a @ prior @ a.T + sigma**2 * torch.eye(SIZE))
        expected = (y.flatten(1) @ gain.T).reshape(3, *SHAPE)
        torch.testing.assert_close(Wiener(power)(problem, y).image, expected.clamp(-1, 1))


@pytest.mark.parametrize(("height", "width"), [(5, 6), (8, 8), (7, 3)])
def test_natural_images_have_mean_square_a_quarter_and_little_power_in_details(
    height: int, width: int
) -> None:
    power = natural_power(height, width)
    white = rfft2(10 * randn(20_000, height, width), norm="ortho")
    images = irfft2(power.sqrt() * white, (height, width), norm="ortho")
    assert images.square().mean().item() == pytest.approx(0.25, rel=0.02)
    assert power[0, 0] == power.max()
    assert power[height // 2, width // 2] == power.min()


def test_no_noise_is_little_noise_to_the_wiener_filter() -> None:
    operator = Blur.gaussian((3, 64, 64), 15, 0.75)
    x = example_cats()[:2]
    exact, tiny = (Problem(operator, GaussianNoise(s)) for s in (0.0, 1e-3))
    y = operator.apply(x)
    estimate = Wiener()(exact, y).image
    assert torch.equal(estimate, Wiener()(tiny, y).image)
    assert psnr(estimate, x).min() > 40


@pytest.mark.parametrize("factor", [1.0, -3.0])
@pytest.mark.parametrize("channels_apart", [False, True])
def test_mean_filling_keeps_the_known_pixels_and_the_mean(
    channels_apart: bool, factor: float
) -> None:
    mask = PixelMask(SHAPE, 0.4, seed=0, channels_apart=channels_apart)
    x = randn(3, *SHAPE)
    problem = Problem(factor * mask, GaussianNoise(0.0))
    filled = MeanFill()(problem, problem.operator.apply(x)).image
    torch.testing.assert_close(mask.apply(filled), mask.apply(x))
    for image, original in zip(filled, x, strict=True):
        for channel in range(SHAPE[0]):
            known = original[channel][mask.mask[channel]]
            missing = image[channel][~mask.mask[channel]]
            torch.testing.assert_close(missing, known.mean().expand_as(missing))


def test_a_channel_of_which_nothing_is_known_is_filled_with_gray() -> None:
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[0, 1, 1] = True
    problem = Problem(PixelMask.from_mask(mask), GaussianNoise(0.0))
    filled = MeanFill()(problem, torch.full((1, 1), 0.7)).image
    assert filled[:, 0].unique().tolist() == pytest.approx([0.7])
    assert filled[:, 1].unique().tolist() == [0.0]


@pytest.mark.parametrize("factor", [1.0, 0.5])
@pytest.mark.parametrize("kernel", ["average", "bicubic"])
def test_bicubic_enlargement_keeps_a_ramp_in_place_and_a_constant_as_it_is(
    kernel: str, factor: float
) -> None:
    ramp = torch.linspace(-0.9, 0.9, 32, dtype=torch.float64).expand(1, 1, 32, 32)
    problem = Problem(factor * Downsample((1, 32, 32), 4, kernel), GaussianNoise(0.0))
    back = Bicubic()(problem, problem.operator.apply(ramp)).image
    half_a_pixel = 0.9 / 31
    torch.testing.assert_close(
        back[..., 14:18, 14:18], ramp[..., 14:18, 14:18], rtol=0, atol=0.4 * half_a_pixel
    )
    flat = torch.full((1, 1, 8, 8), 0.3 * factor)
    torch.testing.assert_close(Bicubic()(problem, flat).image, torch.full((1, 1, 32, 32), 0.3))


def test_every_problem_gets_the_estimate_that_goes_with_it() -> None:
    shape, exact = (3, 8, 8), GaussianNoise(0.0)
    blur = Blur.gaussian(shape, 3, 1.0)
    expected = {
        Bicubic: [
            Problem(Downsample(shape, 2), exact),
            Problem(2.0 * Downsample(shape, 4), OneBit(1)),
        ],
        MeanFill: [
            Problem(PixelMask(shape, 0.5, 0), GaussianNoise(0.1)),
            Problem(1.0 * PixelMask.box(shape, 1, 2, 3, 4), Quantized(bits=2, sigma=0.0)),
        ],
        Wiener: [Problem(blur, exact), Problem(Identity(shape), GaussianNoise(0.2))],
        BackProjection: [
            Problem(GaussianMatrix(shape, 20, 0), OneBit(0.5)),
            Problem(Blur.gaussian(shape, 3, 1.0, "reflect"), exact),
            Problem(blur, OneBit(0.5)),
        ],
    }
    x = randn(2, *shape).float()
    for kind, problems in expected.items():
        for problem in problems:
            solver = linear_baseline(problem)
            assert type(solver) is kind
            image = solver(problem, problem.measure(x, generator=seed(3))).image
            assert image.shape == x.shape
            assert image.abs().max() <= 1


def test_back_projections_have_the_mean_square_of_images_whatever_the_scale_of_the_operator() -> (
    None
):
    for factor in (1.0, 1e4):
        problem = Problem(factor * GaussianMatrix(SHAPE, 20, 0), OneBit(0.5))
        y = problem.measure(randn(2, *SHAPE), generator=seed())
        image = BackProjection()(problem, y).image
        expected = problem.backprojection(y)
        expected = 0.5 * expected / expected.flatten(1).square().mean(1).sqrt().view(-1, 1, 1, 1)
        torch.testing.assert_close(image, expected.clamp(-1, 1), rtol=1e-4, atol=1e-4)


def test_bundled_cats_come_back_better_than_their_measurements() -> None:
    x = example_cats()
    for operator in (Identity((3, 64, 64)), Blur.motion((3, 64, 64), 15, 0.5, seed=0)):
        problem = Problem(operator, GaussianNoise(0.1))
        y = problem.measure(x, generator=seed(3))
        image = linear_baseline(problem)(problem, y).image
        assert (psnr(image, x) > psnr(y, x) + 1).all()


def test_an_estimate_that_does_not_suit_the_problem_is_refused() -> None:
    identity, bits = Problem(Identity(SHAPE), GaussianNoise(0.1)), OneBit(0.5)
    y = randn(1, *SHAPE)
    for solver, problem in (
        (Bicubic(), identity),
        (MeanFill(), identity),
        (Wiener(), Problem(Identity(SHAPE), bits)),
    ):
        with pytest.raises(InputError, match=r"does not suit .* use solvers\.linear_baseline"):
            solver(problem, y.sign())
    with pytest.raises(InputError, match="the power of 5×6 images has shape"):
        Wiener(torch.ones(3, 3))(identity, y)
