"""Momentum steps on the misfit, and the same steps at once."""

from __future__ import annotations

import pytest
import torch
from test_spectra import CASES
from torch import Tensor

from diffsplit import Problem, channels, operators
from diffsplit.counting import counting
from diffsplit.data_steps import CollapsedMomentum, collapsed_momentum, collapses, momentum_steps
from diffsplit.data_steps.momentum import (
    check_step_size,
    default_step_size,
    descend,
    matched_step_size,
)
from diffsplit.data_steps.recurrence import recurrence
from diffsplit.errors import InputError
from diffsplit.operators.gram import Gram

SHAPE = (3, 8, 8)


def _randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(
        shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


def _instance(operator, dtype=torch.float64):
    y = _randn(2, *operator.shape_out, seed=1, dtype=dtype)
    return y, _randn(2, *operator.shape_in, seed=2, dtype=dtype)


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.0])
def test_with_gaussian_noise_the_steps_are_torchs_sgd_on_half_the_squared_misfit(sigma):
    operator = operators.Blur.gaussian(SHAPE, size=5, std=1.0)
    problem = Problem(operator, channels.GaussianNoise(sigma))
    y, start = _instance(operator)
    x = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([x], lr=0.7, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        (0.5 * (operator(x) - y).square().sum()).backward()
        optimizer.step()
    torch.testing.assert_close(momentum_steps(problem, y, start, 20, 0.7), x.detach())


@pytest.mark.parametrize(
    "channel",
    [channels.OneBit(0.4), channels.Logistic(), channels.Quantized(bits=3, sigma=0.2)],
    ids=["one-bit", "logistic", "quantized"],
)
def test_with_other_channels_the_steps_are_torchs_sgd_on_the_negative_log_likelihood(channel):
    operator = operators.GaussianMatrix(SHAPE, rows=40, seed=0, dtype=torch.float64)
    problem, start = Problem(operator, channel), _randn(2, *SHAPE, seed=2)
    y = problem.measure(_randn(2, *SHAPE, seed=3), generator=torch.Generator().manual_seed(0))
    step_size = default_step_size(problem, y)
    x = start.clone().requires_grad_()
    optimizer = torch.optim.SGD([x], lr=step_size, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        problem.nll(x, y).sum().backward()
        optimizer.step()
    walked = momentum_steps(problem, y, start, 20, step_size)
    torch.testing.assert_close(walked, x.detach())
    assert (problem.nll(walked, y) < problem.nll(start, y)).all()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("steps", [1, 100])
def test_collapsed_steps_equal_the_loop_for_every_spectral_operator(case, steps):
    operator = CASES[case]()
    problem = Problem(operator, channels.GaussianNoise(0.0))
    assert collapses(problem)
    step_size = 1.5 / operator.norm() ** 2
    for dtype, bound in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        y, x = _instance(operator, dtype)
        loop = momentum_steps(problem, y, x, steps, step_size)
        once = collapsed_momentum(problem, y, x, steps, step_size)
        assert once.dtype == dtype
        assert (once - loop).norm() <= bound * loop.norm()


def test_orthogonal_rows_collapse_the_same_by_their_gram_and_by_their_spectrum():
    operator = operators.PixelMask(SHAPE, 0.4, 0)
    problem = Problem(operator, channels.GaussianNoise(0.1))
    y, x = _instance(operator)
    by_gram = collapsed_momentum(problem, y, x, 30, 0.3)
    operator.gram = Gram(1.0)
    torch.testing.assert_close(collapsed_momentum(problem, y, x, 30, 0.3), by_gram)
    torch.testing.assert_close(momentum_steps(problem, y, x, 30, 0.3), by_gram)


def test_what_is_kept_between_rounds_is_right_for_another_start():
    operator = operators.Blur.motion(SHAPE, size=5, intensity=0.5, seed=0)
    problem = Problem(operator, channels.GaussianNoise(0.1))
    y, x = _instance(operator)
    step = CollapsedMomentum(problem, y, 25, 1.0)
    for start in (x, 3 - x, torch.zeros_like(x)):
        torch.testing.assert_close(step(start), momentum_steps(problem, y, start, 25, 1.0))


def test_the_recurrence_never_loses_small_singular_values_to_cancellation():
    q = recurrence(torch.tensor([0.0, 1e-30, 1.0]), 50, 0.5, 0.0)
    torch.testing.assert_close(q, torch.tensor([25.0, 25.0, 1 - 0.5**50], dtype=torch.float64))


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 64, 100, 1000])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_squaring_the_step_gives_what_stepping_gives(steps, momentum):
    squares = torch.cat([torch.zeros(1), torch.logspace(-12, 0, 49)]).double()
    step_size = 1.9 * (1 + momentum)  # close to where it diverges
    u, w = torch.zeros_like(squares), torch.zeros_like(squares)
    for _ in range(steps):
        w = momentum * w + 1 - squares * u
        u = u + step_size * w
    q = recurrence(squares, steps, step_size, momentum)
    torch.testing.assert_close(q, u, rtol=1e-11, atol=0)


def test_no_operator_call_is_left_where_a_spectrum_is_known():
    operator = operators.Blur.gaussian(SHAPE, size=5, std=1.0)
    y, x = _instance(operator)
    with counting() as count:
        collapsed_momentum(Problem(operator, channels.GaussianNoise(0.0)), y, x, 100, 1.0)
    assert count.operator == 0


def test_only_gaussian_noise_on_known_structure_collapses():
    blur, matrix = operators.Blur.gaussian(SHAPE, size=5, std=1.0), operators.GaussianMatrix
    assert collapses(Problem(blur, channels.GaussianNoise(0.1)))
    assert not collapses(Problem(blur, channels.OneBit(0.1)))
    assert not collapses(Problem(matrix(SHAPE, rows=9, seed=0), channels.GaussianNoise(0.1)))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_largest_stable_step_is_where_the_iteration_stops_converging(momentum):
    operator = 2.0 * operators.Identity(SHAPE)
    problem = Problem(operator, channels.GaussianNoise(0.0))
    y, x = _instance(operator)
    largest = 2 * (1 + momentum) / 4
    good, bad = 0.97 * largest, 1.03 * largest
    check_step_size(operator, good, momentum)
    with pytest.raises(InputError, match=f"below {largest:.4g}"):
        check_step_size(operator, bad, momentum)
    torch.testing.assert_close(momentum_steps(problem, y, x, 2000, good, momentum), y / 2)
    assert momentum_steps(problem, y, x, 2000, bad, momentum).abs().max() > 1e6


@pytest.mark.parametrize(
    ("channel", "curvature"),
    [
        (channels.GaussianNoise(0.1), 1.0),
        (channels.OneBit(0.5), 4.0),
        (channels.Quantized(bits=2, sigma=0.5), 4.0),
        (channels.Logistic(), 0.25),
    ],
    ids=["gaussian", "one-bit", "quantized", "logistic"],
)
def test_the_default_step_is_the_inverse_of_the_largest_curvature(channel, curvature):
    operator = operators.GaussianMatrix(SHAPE, rows=20, seed=0, dtype=torch.float64)
    problem = Problem(operator, channel)
    y = problem.measure(_randn(4, *SHAPE), generator=torch.Generator().manual_seed(0))
    expected = 1 / (curvature * operator.norm() ** 2)
    assert default_step_size(problem, y) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_matched_steps_along_one_gradient_go_where_a_prior_would_stop_them(momentum):
    gradient, start = _randn(2, *SHAPE), _randn(2, *SHAPE, seed=1)
    step_size = matched_step_size(0.7, 13, momentum)
    x = descend(lambda x: gradient, start, 13, step_size, momentum)
    # the minimum of ⟨gradient, x⟩ + ‖x − start‖²/(2 · 0.7²)
    torch.testing.assert_close(x, start - 0.49 * gradient)


def test_a_thousand_steps_of_a_blurred_picture_collapse_to_rounding():
    operator = operators.Blur.gaussian((3, 32, 32), size=15, std=1.5)
    problem = Problem(operator, channels.GaussianNoise(0.0))
    y, x = _instance(operator, torch.float32)
    loop = momentum_steps(problem, y, x, 1000, 1.0)
    once = collapsed_momentum(problem, y, x, 1000, 1.0)
    assert (once - loop).norm() <= 1e-5 * loop.norm()
