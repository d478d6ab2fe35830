"""Data steps: optimality, and agreement with a generic optimiser."""

import numpy as np
import pytest
import torch

from diffsplit import Problem, channels, operators
from diffsplit.data_steps import adam_step, exact_step, momentum_steps
from diffsplit.data_steps.exact import ExactStep
from diffsplit.errors import InputError
from diffsplit.operators.gram import ScaledIdentity

SHAPE = (3, 4, 4)
CHANNELS = {
    "gaussian": channels.GaussianNoise(sigma=0.3),
    "one-bit": channels.OneBit(sigma=0.5),
    "two bits": channels.Quantized(bits=2, sigma=0.2),
    "logistic": channels.Logistic(),
}
OPERATORS = {
    "gaussian matrix": operators.GaussianMatrix(SHAPE, rows=20, seed=1, dtype=torch.float64),
    "randomized transform": operators.RandomizedTransform(SHAPE, rows=20, seed=1),
    "mask": operators.PixelMask(SHAPE, fraction=0.5, seed=1),
    "stack": operators.Stacked(
        operators.PixelMask(SHAPE, fraction=0.5, seed=1),
        operators.GaussianMatrix(SHAPE, rows=12, seed=2, dtype=torch.float64),
    ),
}


def _instance(problem, batch=3):
    generator = torch.Generator().manual_seed(0)
    shape = (batch, *SHAPE)
    x = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    z = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    return problem.measure(x, generator=generator), z


def _objective(problem, y, z, mu, x):
    return problem.nll(x, y) + mu / 2 * (x - z).flatten(1).square().sum(1)


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("mu", [1e-3, 0.5, 200.0])
def test_the_exact_step_has_a_vanishing_gradient(operator, channel, mu):
    problem = Problem(OPERATORS[operator], CHANNELS[channel])
    y, z = _instance(problem)
    x = exact_step(problem, y, z, mu)
    slope = problem.grad(x, y) + mu * (x - z)
    scale = problem.grad(z, y).flatten(1).norm(dim=1)
    assert (slope.flatten(1).norm(dim=1) / scale).max() < 5e-5


@pytest.mark.parametrize("kind", ["blur", "mask", "gaussian matrix"])
def test_one_exact_step_serves_any_estimate_and_weight(kind):
    blur = operators.Blur.gaussian(SHAPE, 3, 0.8)  # in closed form; the others are not
    problem = Problem({**OPERATORS, "blur": blur}[kind], CHANNELS["gaussian"])
    y, z = _instance(problem)
    step = ExactStep(problem, y)
    for mu, scale in ((0.1, 1.0), (3.0, -1.0), (0.5, 0.2)):
        x = step(scale * z, mu)
        assert torch.equal(x, exact_step(problem, y, scale * z, mu))
        slope = problem.grad(x, y) + mu * (x - scale * z)
        least = problem.grad(scale * z, y).flatten(1).norm(dim=1)
        assert (slope.flatten(1).norm(dim=1) / least).max() < 5e-5


@pytest.mark.parametrize("channel", CHANNELS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_the_exact_step_is_the_minimum_that_a_generic_optimiser_finds(operator, channel):
    problem, mu = Problem(OPERATORS[operator], CHANNELS[channel]), 0.7
    y, z = _instance(problem, batch=1)

    def f(flat: np.ndarray) -> tuple[float, np.ndarray]:
        x = torch.from_numpy(flat).view(1, *SHAPE)
        slope = problem.grad(x, y) + mu * (x - z)
        return _objective(problem, y, z, mu, x).item(), slope.flatten().numpy()

    minimize = pytest.importorskip("scipy.optimize").minimize
    best = minimize(f, z.flatten().numpy(), jac=True, method="L-BFGS-B", options={"ftol": 1e-15})
    x = exact_step(problem, y, z, mu)
    # Newton leaves a residual of at most 1e-5 of ‖ℓ'(A z)‖, and a gradient g that is Aᵀ times it;
    # the objective is μ-strongly convex, so that it is at most ‖g‖²/(2μ) above its minimum.
    start = problem.channel.grad(problem.operator.apply(z), y).norm().item()
    newton = not isinstance(problem.operator.gram, ScaledIdentity)
    gap = (problem.operator.norm() * 1e-5 * start) ** 2 / (2 * mu) if newton else 1e-8
    assert _objective(problem, y, z, mu, x).item() <= best.fun + gap
    assert np.abs(x.flatten().numpy() - best.x).max() < 1e-3


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_batch_gets_what_its_images_get_alone(operator):
    problem = Problem(OPERATORS[operator], CHANNELS["one-bit"])
    y, z = _instance(problem)
    together = exact_step(problem, y, z, 0.1)
    for i in range(len(y)):
        alone = exact_step(problem, y[i : i + 1], z[i : i + 1], 0.1)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operator", ["randomized transform", "mask"])
def test_noiseless_bits_are_projected_on_where_rows_are_orthogonal(operator):
    problem = Problem(OPERATORS[operator], channels.OneBit(sigma=0.0))
    y, z = _instance(problem)
    x = exact_step(problem, y, z, 1.0)
    assert (problem.operator.apply(x) * y).min() > -1e-12
    agreeing = problem.operator.apply(z) * y > 0
    moved = problem.operator.apply(x - z)
    assert moved[agreeing].abs().max() < 1e-12


def test_noiseless_bits_through_a_gaussian_matrix_are_refused():
    problem = Problem(OPERATORS["gaussian matrix"], channels.OneBit(sigma=0.0))
    y, z = _instance(problem)
    with pytest.raises(InputError, match="orthogonal rows"):
        exact_step(problem, y, z, 1.0)


@pytest.mark.parametrize("channel", ["one-bit", "logistic"])
def test_adam_with_the_closed_form_gradient_walks_as_autograd_does(channel):
    problem = Problem(OPERATORS["gaussian matrix"], CHANNELS[channel])
    y, z = _instance(problem)
    x = z.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([x], lr=0.25)
    for _ in range(30):
        optimizer.zero_grad()
        _objective(problem, y, z, 0.4, x).sum().backward()
        optimizer.step()
    torch.testing.assert_close(adam_step(problem, y, z, 0.4, 30, 0.25), x.detach())


@pytest.mark.parametrize("strided", ["z", "adjoint", "both"])
def test_adam_does_not_depend_on_the_order_of_z_and_of_the_adjoint_in_memory(strided):
    """The fused step pairs the numbers by their places in memory."""

    def channels_first(x):
        return x.transpose(0, 1).contiguous().transpose(0, 1)

    plain = operators.from_function(lambda x: x + x.roll(1, -1), SHAPE)
    adjoint = plain.adjoint if strided == "z" else lambda y: channels_first(plain.adjoint(y))
    other = operators.from_function(lambda x: x + x.roll(1, -1), SHAPE, adjoint=adjoint)
    problem = Problem(plain, CHANNELS["one-bit"])
    y, z = _instance(problem)
    expected = adam_step(problem, y, z, 0.4, 5)
    z = z if strided == "adjoint" else channels_first(z)
    torch.testing.assert_close(adam_step(Problem(other, problem.channel), y, z, 0.4, 5), expected)


def test_adam_never_beats_the_exact_step():
    problem = Problem(OPERATORS["gaussian matrix"], CHANNELS["one-bit"])
    y, z = _instance(problem)
    for mu in (1e-3, 1.0, 50.0):
        exact = _objective(problem, y, z, mu, exact_step(problem, y, z, mu))
        adam = _objective(problem, y, z, mu, adam_step(problem, y, z, mu))
        assert (exact <= adam + 1e-9).all()


def test_momentum_steps_are_torchs_sgd_and_reach_the_least_squares_solution():
    problem = Problem(OPERATORS["gaussian matrix"], channels.GaussianNoise(sigma=1.0))
    y, z = _instance(problem)
    x = z.clone().requires_grad_(True)
    optimizer = torch.optim.SGD([x], lr=0.02, momentum=0.9)
    for _ in range(25):
        optimizer.zero_grad()
        problem.nll(x, y).sum().backward()
        optimizer.step()
    torch.testing.assert_close(momentum_steps(problem, y, z, 25, 0.02), x.detach())
    far = momentum_steps(problem, y, z, 5000, 0.02)
    torch.testing.assert_close(problem.operator.apply(far), y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mu", [1e-6, 0.02, 50.0])
@pytest.mark.parametrize("sigma", [0.0, 0.05])
def test_gaussian_noise_on_a_blur_is_solved_in_closed_form_in_float32(mu, sigma):
    shape = (3, 16, 16)
    problem = Problem(
        operators.Blur.gaussian(shape, size=7, std=1.0), channels.GaussianNoise(sigma)
    )
    x = torch.rand((2, *shape), generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = torch.zeros_like(x)
    y = problem.measure(x, generator=torch.Generator().manual_seed(1))
    found = exact_step(problem, y, z, mu)
    blur, ridge = problem.operator, mu * sigma**2
    slope = blur.adjoint(blur.apply(found) - y) + ridge * (found - z)
    assert slope.flatten(1).norm(dim=1).max() < 1e-4 * blur.adjoint(y).flatten(1).norm(dim=1).min()


def test_an_adjoint_that_returns_a_view_is_not_written_to():
    total = operators.from_function(lambda x: x.sum(1, keepdim=True), SHAPE)
    problem = Problem(total, CHANNELS["one-bit"])
    y, z = _instance(problem)
    assert torch.isfinite(adam_step(problem, y, z, 0.1, steps=3)).all()


def test_what_newton_leaves_undone_is_said():
    shape = (1, 16, 16)
    problem = Problem(operators.Blur.gaussian(shape, size=9, std=1.5), channels.OneBit(sigma=0.05))
    x = torch.rand((1, *shape), generator=torch.Generator().manual_seed(0)) * 2 - 1
    y = problem.measure(x, generator=torch.Generator().manual_seed(1))
    with pytest.warns(UserWarning, match="badly conditioned"):
        exact_step(problem, y, torch.zeros_like(x), 1e-7)
