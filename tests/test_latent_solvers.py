"""Guidance in latents: against the papers' loops in variance-preserving terms, and its parts.

The loops below are written from the papers' formulas with automatic differentiation of the whole
loss and one image at a time; the autoencoder is linear, the prior Gaussian, all in float64.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffsplit import Problem
from diffsplit.channels import GaussianNoise, OneBit
from diffsplit.data_steps.hard import adamw_descent, has_nearest, nearest_consistent
from diffsplit.data_steps.momentum import momentum_steps
from diffsplit.errors import InputError
from diffsplit.operators import (
    Blur,
    Downsample,
    GaussianMatrix,
    LinearOperator,
    MatrixOperator,
    PixelMask,
    from_function,
)
from diffsplit.priors import GaussianPrior, LatentPrior, linear_latent
from diffsplit.schedules import ddpm_sigmas
from diffsplit.solvers import PSLD, LatentDPS, ReSample, Solver
from diffsplit.solvers.latent.decoded import decoded, unit
from diffsplit.solvers.recovery import Step

SHAPE = (3, 8, 8)
SIZE = math.prod(SHAPE)
LATENTS = 40
STEPS = 30
Noise = Callable[[], Tensor]


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def randn(*shape: int, value: int = 0) -> Tensor:
    return torch.randn(shape, generator=seed(value), dtype=torch.float64)


@pytest.fixture
def prior() -> LatentPrior:
    """Forty principal components of a Gaussian without any symmetry, of about unit variance."""
    root = randn(SIZE, SIZE, value=9) * torch.logspace(0, -1.5, SIZE, dtype=torch.float64)
    return linear_latent(GaussianPrior(SHAPE, 0.1, root @ root.T / SIZE), LATENTS, scaling=1.3)


def blurred(sigma: float = 0.1) -> Problem:
    return Problem(Blur.gaussian(SHAPE, 3, 0.8), GaussianNoise(sigma))


def measured(problem: Problem, batch: int = 2) -> Tensor:
    return problem.measure(0.5 * randn(batch, *SHAPE, value=1), generator=seed(2))


class VarianceKeeping:
    """The prior as the papers have it: ε(z_t, t) on timesteps of 1000 linear betas."""

    def __init__(self, prior: LatentPrior, steps: int) -> None:
        beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        bar = (1 - beta).cumprod(0)
        kept = [round(1000 * k / steps) - 1 for k in range(1, steps + 1)]
        self.bar = [1.0, *(float(bar[t]) for t in kept)]  # ᾱ of step 0, 1 … steps; 1 when clean
        self.prior = prior

    def noise(self, z: Tensor, t: int) -> Tensor:
        """ε_θ."""
        bar = self.bar[t]
        sigma = math.sqrt((1 - bar) / bar)
        clean = self.prior.latent.denoise(z / math.sqrt(bar), sigma)
        return (z - math.sqrt(bar) * clean) / math.sqrt(1 - bar)

    def clean(self, z: Tensor, t: int) -> Tensor:
        bar = self.bar[t]
        return (z - math.sqrt(1 - bar) * self.noise(z, t)) / math.sqrt(bar)

    def ddim(self, z: Tensor, t: int) -> Tensor:
        after = self.bar[t - 1]
        return math.sqrt(after) * self.clean(z, t) + math.sqrt(1 - after) * self.noise(z, t)

    def ancestral(self, z: Tensor, t: int, fresh: Tensor) -> Tensor:
        """The posterior of z_{t−1} given z_t and the clean latents, DDPM's Eq. (7)."""
        bar, after = self.bar[t], self.bar[t - 1]
        alpha = bar / after
        mean = math.sqrt(after) * (1 - alpha) / (1 - bar) * self.clean(z, t)
        mean = mean + math.sqrt(alpha) * (1 - after) / (1 - bar) * z
        return mean + math.sqrt((1 - after) / (1 - bar) * (1 - alpha)) * fresh


def one_by_one(
    prior: LatentPrior, y: Tensor, loop: Callable[[VarianceKeeping, Tensor, Noise], Tensor]
) -> Tensor:
    """The answers of a loop for one image, with the noise of seeds 0, 1, …"""
    images = []
    for i in range(len(y)):
        generator = seed(i)

        def noise(generator: torch.Generator = generator) -> Tensor:
            return torch.randn((LATENTS,), generator=generator, dtype=torch.float64)[None]

        z = loop(VarianceKeeping(prior, STEPS), y[i : i + 1], noise)
        images.append(prior.decode(z))
    return torch.cat(images)


def slope(z: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(z), z)
    return gradient


def solved(solver: Solver, problem: Problem, y: Tensor, prior: LatentPrior) -> Tensor:
    return solver(problem, y, prior, generator=[seed(i) for i in range(len(y))]).image


@pytest.mark.parametrize("eta", [1.0, 0.0])
def test_latent_dps_is_dps_of_the_composite_of_denoiser_and_decoder(
    prior: LatentPrior, eta: float
) -> None:
    problem = blurred()
    y = measured(problem)

    def loop(model: VarianceKeeping, y: Tensor, noise: Noise) -> Tensor:
        z = noise()
        for t in range(STEPS, 0, -1):
            gradient = slope(
                z,
                lambda z, t=t: (y - problem.operator.apply(prior.decode(model.clean(z, t)))).norm(),
            )
            z = model.ancestral(z, t, noise()) if eta == 1 else model.ddim(z, t)
            z = z - 0.4 * gradient
        return z

    ours = solved(LatentDPS(steps=STEPS, step_size=0.4 * STEPS / 1000, eta=eta), problem, y, prior)
    torch.testing.assert_close(ours, one_by_one(prior, y, loop), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "operator", [Blur.gaussian(SHAPE, 3, 0.8), Downsample(SHAPE, 2, "average")]
)
def test_psld_descends_on_the_misfit_and_on_the_gluing_of_the_paper(
    prior: LatentPrior, operator: LinearOperator
) -> None:
    problem = Problem(operator, GaussianNoise(0.1))
    y = measured(problem)
    square = operator.norm() ** 2

    def loop(model: VarianceKeeping, y: Tensor, noise: Noise) -> Tensor:
        z = noise()

        def loss(z: Tensor, t: int) -> Tensor:
            clean = model.clean(z, t)
            image = prior.decode(clean)
            inside = image - operator.adjoint(operator.apply(image)) / square
            glued = operator.adjoint(y) / square + inside
            gap = (prior.encode(glued) - clean).norm()
            return 0.7 * (y - operator.apply(image)).norm() + 0.2 * gap

        for t in range(STEPS, 0, -1):
            z = model.ddim(z, t) - slope(z, lambda z, t=t: loss(z, t))
        return z

    ours = solved(
        PSLD(steps=STEPS, omega=0.7 * STEPS / 1000, gamma=0.2 * STEPS / 1000), problem, y, prior
    )
    torch.testing.assert_close(ours, one_by_one(prior, y, loop), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("estimate", ["code", "tweedie"])
def test_resample_is_the_loop_of_its_code(prior: LatentPrior, estimate: str) -> None:
    problem, steps, every, ahead = blurred(0.05), STEPS, 3, 2
    operator = problem.operator
    y = measured(problem)
    # The nearest image with that misfit, by a Lagrange multiplier on the dense matrix.
    matrix = operator.apply(torch.eye(SIZE, dtype=torch.float64).view(-1, *SHAPE)).flatten(1).T

    def nearest(x: Tensor, y: Tensor) -> Tensor:
        low, high = 1e-9, 1e9
        for _ in range(200):
            ridge = math.sqrt(low * high)
            inner = matrix.T @ matrix + ridge * torch.eye(SIZE, dtype=torch.float64)
            right = matrix.T @ y.flatten() + ridge * x.flatten()
            best = torch.linalg.solve(inner, right)
            misfit = (matrix @ best - y.flatten()).square().mean()
            low, high = (ridge, high) if misfit < 0.05**2 else (low, ridge)
        return best.view(x.shape)

    def descend(z: Tensor, y: Tensor) -> Tensor:
        z = z.detach().clone().requires_grad_()
        optimizer = torch.optim.AdamW([z], lr=5e-3)
        for _ in range(40):
            with torch.enable_grad():
                misfit = torch.nn.functional.mse_loss(operator.apply(prior.decode(z)), y)
                optimizer.zero_grad()
                misfit.backward()
            optimizer.step()
            if misfit < 0.05**2:
                break
        return z.detach()

    def loop(model: VarianceKeeping, y: Tensor, noise: Noise) -> Tensor:
        def guess(z: Tensor, t: int) -> Tensor:
            bar = model.bar[t]
            amount = 1 - bar if estimate == "code" else math.sqrt(1 - bar)
            return (z - amount * model.noise(z, t)) / math.sqrt(bar)

        z = noise()
        for t in range(steps, 0, -1):
            gradient = slope(
                z, lambda z, t=t: (y - operator.apply(prior.decode(guess(z, t)))).norm()
            )
            z = model.ddim(z, t) - 0.5 * 500 / steps * model.bar[t] * gradient
            index = t - 1
            if 0 < index <= steps - steps // 3 and index % every == 0:
                further = z
                for later in range(index, max(index - ahead, 0), -1):
                    clean, further = guess(further, later), model.ddim(further, later)
                if index >= steps // 3:
                    clean = prior.encode(nearest(prior.decode(clean), y))
                else:
                    clean = descend(clean, y)
                bar, after = model.bar[t], model.bar[index]
                variance = 40 * (1 - after) / (1 - bar) * (1 - bar / after)
                mean = (variance * math.sqrt(after) * clean + (1 - after) * z) / (
                    variance + 1 - after
                )
                z = mean + noise() / math.sqrt(1 / variance + 1 / (1 - after))
        return descend(z, y)

    solver = ReSample(steps=steps, every=every, ahead=ahead, latent_steps=40, estimate=estimate)
    ours = solved(solver, problem, y, prior)
    torch.testing.assert_close(ours, one_by_one(prior, y, loop), rtol=1e-4, atol=1e-4)


def test_the_composite_of_denoiser_and_decoder_has_the_derivative_of_automatic_differentiation(
    prior: LatentPrior,
) -> None:
    z, u, w = randn(2, LATENTS), randn(2, LATENTS, value=3), randn(2, *SHAPE, value=4)
    ours = decoded(prior, z, 0.7, kept=0.3)
    leaf = z.clone().requires_grad_()
    clean = prior.latent.denoise(leaf, 0.7)
    estimate = clean + 0.3 * (leaf - clean)
    image = prior.decode(estimate)
    (expected,) = torch.autograd.grad((estimate * u).sum() + (image * w).sum(), leaf)
    torch.testing.assert_close(ours.pullback(w, u), expected)
    for value, truth in ((ours.clean, clean), (ours.estimate, estimate), (ours.image, image)):
        torch.testing.assert_close(value, truth.detach())


def test_directions_have_length_one_for_each_image_and_zero_stays_zero() -> None:
    v = randn(3, *SHAPE) * torch.tensor([1.0, 1e3, 0.0]).view(-1, 1, 1, 1)
    torch.testing.assert_close(unit(v).flatten(1).norm(dim=1).tolist(), [1.0, 1.0, 0.0])


OPERATORS = {
    "mask": PixelMask(SHAPE, 0.5, 1),
    "block average": Downsample(SHAPE, 2, "average"),
    "blur": Blur.gaussian(SHAPE, 3, 0.5),
    "bicubic": Downsample(SHAPE, 2, "bicubic"),
}
NAMES = pytest.mark.parametrize("name", OPERATORS)


@NAMES
def test_without_a_tolerance_the_nearest_image_is_the_limit_of_gradient_descent(name: str) -> None:
    problem = Problem(OPERATORS[name], GaussianNoise(0.0))
    y, x = measured(problem), randn(2, *SHAPE, value=5)
    limit = momentum_steps(problem, y, x, 4000, 0.5 / problem.operator.norm() ** 2)
    ours = nearest_consistent(problem, y, x, 0.0)
    torch.testing.assert_close(ours, limit, rtol=1e-6, atol=1e-6)
    assert problem.operator.apply(ours).sub(y).abs().max() < 1e-6


def test_on_single_pixels_the_loop_of_the_code_has_the_nearest_image_as_its_limit() -> None:
    operator = PixelMask(SHAPE, 0.5, 1)
    problem = Problem(operator, GaussianNoise(0.0))
    y, x = measured(problem), 0.5 * randn(2, *SHAPE, value=5)
    loop = adamw_descent(problem, y, x, 2000, 1e-2, 1e-3)
    ours = nearest_consistent(problem, y, x, 1e-3)
    seen = operator.pixels
    assert (loop - ours)[:, seen].square().mean().sqrt() < 2e-3  # both are within 1e-3 of y
    decay = (loop / ours)[:, ~seen]  # weight decay of 0.01 % a step, on all of them alike
    torch.testing.assert_close(decay, decay[:, :1].expand_as(decay))
    assert (decay > 0.999**200).all()
    assert (decay < 1).all()


@NAMES
def test_with_a_tolerance_the_misfit_is_just_that_and_no_nearer_image_has_it(name: str) -> None:
    problem = Problem(OPERATORS[name], GaussianNoise(0.1))
    operator = problem.operator
    y, x = measured(problem), randn(2, *SHAPE, value=5)
    ours = nearest_consistent(problem, y, x, 0.1)
    misfit = (operator.apply(ours) - y).flatten(1)
    torch.testing.assert_close(misfit.square().mean(1).sqrt(), torch.full((2,), 0.1).double())
    # Lagrange: x − x' is a negative multiple of the misfit's gradient.
    gradient, step = operator.adjoint(operator.apply(ours) - y).flatten(1), (ours - x).flatten(1)
    cosine = torch.nn.functional.cosine_similarity(gradient, step)
    torch.testing.assert_close(cosine, torch.full((2,), -1.0).double())
    torch.testing.assert_close(nearest_consistent(problem, y, ours, 0.11), ours)


def test_what_no_image_explains_does_not_count_as_what_may_be_left() -> None:
    twice = from_function(lambda x: torch.cat([x, x], -1), SHAPE)
    dense = torch.cat([torch.eye(SIZE), torch.eye(SIZE)]).double()

    problem = Problem(MatrixOperator(dense, SHAPE), GaussianNoise(0.0))
    assert has_nearest(problem)
    assert not has_nearest(Problem(twice, GaussianNoise(0.0)))
    x = randn(1, *SHAPE)
    y = torch.cat([x.flatten() + 1, x.flatten() - 1])[None]
    ours = nearest_consistent(problem, y, x + 0.5, 0.5)
    torch.testing.assert_close(ours, x)


def test_images_that_have_ended_stand_still_in_the_loop_of_the_code() -> None:
    problem = Problem(OPERATORS["mask"], GaussianNoise(0.0))
    y = measured(problem)
    exact = nearest_consistent(problem, y, torch.zeros(2, *SHAPE).double(), 0.0)
    start = torch.stack([exact[0], exact[1] + 1])
    end = adamw_descent(problem, y, start, 50, 1e-2, 1e-3)
    assert (end[0] - start[0]).abs().max() < 1.1e-2  # one step, as in the code
    assert (end[1] - start[1]).abs().max() > 0.2
    torch.testing.assert_close(end[1:], adamw_descent(problem, y[1:], start[1:], 50, 1e-2, 1e-3))


@pytest.mark.parametrize(
    ("solver", "network", "operator"),
    [
        (LatentDPS(steps=7), 7, 2 * 7),
        (PSLD(steps=7), 7, 4 * 7),
        # Steps 8, 6, 4, 2 of 12; those from 4 up in pixels; at the end and once in latents.
        (ReSample(steps=12, every=2, ahead=3, latent_steps=5), 12 + 3 * 3 + 2, 12 * 2 + 3 * 2 + 20),
    ],
    ids=["LatentDPS", "PSLD", "ReSample"],
)
def test_each_evaluation_and_each_application_is_counted_once(
    prior: LatentPrior, solver: Solver, network: int, operator: int
) -> None:
    problem = Problem(PixelMask(SHAPE, 0.5, 1), GaussianNoise(0.0))
    result = solver(problem, measured(problem), prior, generator=seed())
    assert (result.nfe, result.operator_calls) == (network, operator)


def test_the_gradient_is_that_of_each_image_whatever_the_batch(prior: LatentPrior) -> None:
    problem = blurred()
    y = measured(problem)
    y = torch.stack([y[0], 30 * y[1]])  # a norm over the batch would see the second alone
    for solver in (LatentDPS(steps=9), PSLD(steps=9), ReSample(steps=12, every=2, latent_steps=5)):
        together = solved(solver, problem, y, prior)
        alone = solved(solver, problem, y[:1], prior)
        torch.testing.assert_close(together[:1], alone)


@pytest.mark.parametrize(
    "solver",
    [LatentDPS(steps=40), PSLD(steps=40), ReSample(steps=40, latent_steps=5)],
    ids=lambda solver: type(solver).__name__,
)
def test_no_graph_outlives_its_step(prior: LatentPrior, solver: Solver) -> None:
    problem, y = blurred(), measured(blurred())
    alive: dict[int, int] = {}

    def count(step: Step) -> None:
        if step.index in (2, 39):
            tensors = [o for o in gc.get_objects() if type(o) is Tensor]
            alive[step.index] = sum(tensor.grad_fn is not None for tensor in tensors)

    gc.collect()
    gc.disable()
    try:
        solver(problem, y, prior, generator=seed(), callback=count)
    finally:
        gc.enable()
    assert alive[39] <= alive[2]


def test_settings_go_with_the_operator() -> None:
    mask = Problem(PixelMask(SHAPE, 0.5, 1), GaussianNoise(0.0))
    reduced = Problem(Downsample(SHAPE, 2, "bicubic"), GaussianNoise(0.0))
    assert LatentDPS.for_problem(mask) == LatentDPS(step_size=0.5)
    assert LatentDPS.for_problem(reduced, steps=10) == LatentDPS(steps=10, step_size=0.3)
    assert PSLD.for_problem(reduced) == PSLD(omega=0.9)
    assert PSLD.for_problem(mask) == PSLD(omega=0.1, gamma=0.1)
    assert PSLD.for_problem(reduced, omega=0.2) == PSLD(omega=0.2)
    assert ReSample.for_problem(mask) == ReSample(latent_steps=200)
    assert ReSample.for_problem(reduced) == ReSample()


def test_bits_are_read_as_numbers_and_the_result_says_so(prior: LatentPrior) -> None:
    problem = Problem(GaussianMatrix(SHAPE, rows=60, seed=1), OneBit(0.5))
    for solver in (LatentDPS(steps=5), PSLD(steps=5), ReSample(steps=5, every=1, latent_steps=5)):
        y = problem.measure(torch.zeros(1, *SHAPE), generator=seed())
        assert "were read as A x plus Gaussian noise" in solver(problem, y, prior).note


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        (LatentDPS, {"steps": 0}, "1 to 1000 steps"),
        (LatentDPS, {"steps": 1001}, "1 to 1000 steps"),
        (LatentDPS, {"step_size": -1.0}, "step_size ≥ 0"),
        (LatentDPS, {"eta": 1.5}, "eta from 0 to 1"),
        (PSLD, {"omega": math.nan}, "omega and gamma ≥ 0"),
        (PSLD, {"gamma": -1}, "omega and gamma ≥ 0"),
        (ReSample, {"every": 0}, "whole every"),
        (ReSample, {"tolerance": -1e-3}, "tolerance ≥ 0"),
        (ReSample, {"pixels": "lbfgs"}, "'nearest' or 'adamw'"),
        (ReSample, {"estimate": "paper"}, "'code' or 'tweedie'"),
        (PSLD, {"reading": "bits"}, "'literal' or 'bussgang'"),
    ],
)
def test_settings_out_of_range_are_one_sentence(
    kind: type[Solver], settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        kind(**settings)


def test_the_grid_of_the_loops_above_is_that_of_the_library() -> None:
    sigmas = ddpm_sigmas()
    for bar, t in zip(
        VarianceKeeping(linear_latent(GaussianPrior(SHAPE), 5), 4).bar[1:],
        (249, 499, 749, 999),
        strict=True,
    ):
        assert math.isclose(math.sqrt((1 - bar) / bar), sigmas[t], rel_tol=1e-9)
