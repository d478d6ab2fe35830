"""Guidance against plain loops in the papers' letters, and closed forms of Gaussian priors."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffsplit import InputError, Problem, channels, operators
from diffsplit.priors import GaussianMixturePrior, GaussianPrior, from_callable
from diffsplit.solvers import DPS, MCG, PiGDM
from diffsplit.solvers.guidance.gradient import root_misfit_grad

SHAPE = (3, 8, 8)
SIZE = math.prod(SHAPE)
NOISE = channels.GaussianNoise(0.1)
BLUR = operators.Blur.gaussian(SHAPE, 3, 0.6)
MASK = operators.PixelMask(SHAPE, 0.5, 1)


def _seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=_seed(seed), dtype=torch.float64)


def _mixture() -> GaussianMixturePrior:
    """A prior that is not Gaussian, with answers that the clip moves."""
    prior = GaussianMixturePrior(1.5 * _randn(3, *SHAPE, seed=7), [0.05, 0.1, 0.2])
    prior.bounds = (-1.0, 1.0)
    return prior


def _measured(
    operator: operators.LinearOperator, channel: channels.Channel = NOISE, batch: int = 2
):
    problem = Problem(operator, channel)
    x = _randn(batch, *SHAPE, seed=3).clamp(-1, 1)
    return problem, problem.measure(x, generator=_seed(4))


class _DDPM:
    """A variance-preserving model on a respaced grid, as the papers write it."""

    def __init__(self, prior: Any, steps: int) -> None:
        bar = (1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)).cumprod(0)
        self.times = [round(1000 * k / steps) - 1 for k in range(steps, 0, -1)]
        self.bars = [float(bar[t]) for t in self.times] + [1.0]
        self.prior = prior

    def clean(self, x_t: Tensor, i: int) -> Tensor:
        """x̂0 from x_t by the noise that a network would predict."""
        bar = self.bars[i]
        sigma = math.sqrt((1 - bar) / bar)
        scaled = x_t / math.sqrt(bar)
        epsilon = (scaled - self.prior.denoise(scaled, sigma)) / sigma
        return (x_t - math.sqrt(1 - bar) * epsilon) / math.sqrt(bar)

    def ancestral(self, x_t: Tensor, clean: Tensor, i: int, noise: Tensor) -> Tensor:
        bar, before = self.bars[i], self.bars[i + 1]
        beta = 1 - bar / before
        mean = math.sqrt(before) * beta / (1 - bar) * clean
        mean = mean + math.sqrt(1 - beta) * (1 - before) / (1 - bar) * x_t
        return mean + math.sqrt(beta * (1 - before) / (1 - bar)) * noise


@pytest.mark.parametrize("channel", [NOISE, channels.OneBit(0.5)], ids=["noise", "bits"])
def test_dps_is_the_papers_loop_on_a_variance_preserving_model(channel):
    steps, zeta = 25, 0.7
    problem, y = _measured(BLUR, channel, batch=1)
    y = y.double()
    model, g = _DDPM(_mixture(), steps), _seed(9)
    x_t = torch.randn(1, *SHAPE, generator=g, dtype=torch.float64)
    for i in range(steps):
        x_t = x_t.detach().requires_grad_()
        clean = model.clean(x_t, i).clamp(-1, 1)
        if channel is NOISE:
            distance = torch.linalg.norm(y - BLUR.apply(clean))
        else:
            distance = (-2 * torch.special.log_ndtr(y * BLUR.apply(clean) / 0.5).sum()).sqrt()
        (gradient,) = torch.autograd.grad(distance, x_t)
        noise = torch.randn(1, *SHAPE, generator=g, dtype=torch.float64)
        x_t = (model.ancestral(x_t, clean, i, noise) - zeta * gradient).detach()
    answer = DPS(steps=steps, zeta=zeta * steps / 1000)(
        problem, y, _mixture(), generator=_seed(9)
    ).image
    torch.testing.assert_close(answer, x_t.clamp(-1, 1), rtol=0, atol=1e-4)
    assert (answer.abs() < 1).float().mean() > 0.3  # else the clip would hide a difference


@pytest.mark.parametrize("level", ["left", "reached"])
def test_mcg_is_the_papers_loop_on_a_variance_preserving_model(level):
    steps, zeta = 25, 0.7
    problem, y = _measured(MASK, channels.GaussianNoise(0.0), batch=1)
    keep = MASK.pixels.double()
    image = MASK.adjoint(y)
    model, g = _DDPM(_mixture(), steps), _seed(9)
    x_t = torch.randn(1, *SHAPE, generator=g, dtype=torch.float64)
    for i in range(steps):
        x_t = x_t.detach().requires_grad_()
        clean = model.clean(x_t, i).clamp(-1, 1)
        distance = torch.linalg.norm(image * keep - clean * keep)
        (gradient,) = torch.autograd.grad(distance, x_t)
        noise = torch.randn(1, *SHAPE, generator=g, dtype=torch.float64)
        sample = model.ancestral(x_t, clean, i, noise) - zeta * gradient
        noise = torch.randn(1, *SHAPE, generator=g, dtype=torch.float64)
        bar = model.bars[i if level == "left" else i + 1]
        noisy = math.sqrt(bar) * image + math.sqrt(1 - bar) * noise
        x_t = (sample * (1 - keep) + noisy * keep).detach()
    solver = MCG(steps=steps, zeta=zeta, level=level)
    answer = solver(problem, y, _mixture(), generator=_seed(9)).image
    torch.testing.assert_close(answer, x_t.clamp(-1, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("operator", [BLUR, MASK], ids=["spectrum", "orthogonal rows"])
def test_mcg_reproduces_what_was_measured_but_for_the_noise_of_the_last_level(operator):
    problem = Problem(operator, channels.GaussianNoise(0.0))
    prior = GaussianPrior(SHAPE, 0.1, 0.1)
    y = problem.measure(prior.sample(4, _seed()).double(), generator=_seed(1))
    prior.bounds = None
    exact = MCG(steps=20, level="reached")(problem, y, prior, generator=_seed(2)).image
    torch.testing.assert_close(operator.apply(exact), y, rtol=0, atol=1e-6)
    left = MCG(steps=1000)(problem, y, prior, generator=_seed(2)).image
    miss = operator.adjoint(y - operator.apply(left)) if operator is MASK else None
    if miss is not None:
        assert miss[miss != 0].std().item() == pytest.approx(0.01, rel=0.1)


def _conditional_mean(operator, noise: float, v: float, mean: float, x: Tensor, sigma, y: Tensor):
    """E[x0 | x = x0 + σ n, y] for x0 ~ N(mean, v I)."""
    a = operator.apply(torch.eye(SIZE, dtype=torch.float64).view(SIZE, *SHAPE)).flatten(1).T
    precision = (1 / v + 1 / sigma**2) * torch.eye(SIZE) + a.T @ a / noise**2
    pull = mean / v + x.flatten(1) / sigma**2 + y.flatten(1) @ a / noise**2
    return torch.linalg.solve(precision, pull.T).T.view_as(x)


OPERATORS = {
    "mask": MASK,
    "blur": BLUR,
    "bicubic": operators.Downsample(SHAPE, 2, "bicubic"),
    "hadamard": operators.RandomizedTransform(SHAPE, rows=90, seed=1),
    "gaussian": operators.GaussianMatrix(SHAPE, rows=90, seed=1),
}


@pytest.mark.parametrize("noise", [0.003, 0.5])
@pytest.mark.parametrize("name", OPERATORS)
def test_pigdm_with_exact_weight_guides_a_white_gaussian_to_its_conditional_mean(name, noise):
    v, mean = 0.3, 0.2
    exact = GaussianPrior(SHAPE, mean, v)
    seen: list[tuple[Tensor, float]] = []

    def watch(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append((x.detach(), float(sigma[0])))
        return exact.denoise(x, sigma)

    problem, y = _measured(OPERATORS[name], channels.GaussianNoise(noise))
    prior = from_callable(watch, SHAPE, bounds=None, sigma_min=1e-6)
    steps: list[Any] = []
    solver = PiGDM(steps=10, weight="exact", variance=v)
    solver(problem, y, prior, generator=_seed(2), callback=steps.append)
    assert len(steps) == len(seen) == 10
    for step, (x, sigma) in zip(steps, seen, strict=True):
        expected = _conditional_mean(OPERATORS[name], noise, v, mean, x, sigma, y)
        torch.testing.assert_close(step.image, expected, rtol=1e-3, atol=1e-3)


def test_pigdm_with_exact_weight_draws_from_the_posterior_of_a_white_gaussian():
    v, noise = 0.3, 0.4
    prior = GaussianPrior(SHAPE, 0.0, v)
    problem = Problem(MASK, channels.GaussianNoise(noise))
    y = problem.measure(prior.sample(1, _seed()).double(), generator=_seed(1)).repeat(40, 1)
    solver = PiGDM(steps=1000, weight="exact", variance=v)  # fewer steps vary too little
    draws = solver(problem, y, prior, generator=_seed(2)).image
    keep, gain = MASK.pixels, v / (v + noise**2)
    mean, rest = draws.mean(0), draws - draws.mean(0)
    spread = rest.square().sum(0) / 39
    torch.testing.assert_close(mean[keep].mean(), gain * y[0].mean(), rtol=0, atol=0.02)
    assert spread[keep].mean().item() == pytest.approx(v * (1 - gain), rel=0.05)
    assert spread[~keep].mean().item() == pytest.approx(v, rel=0.05)


@pytest.mark.parametrize("weight", ["adaptive", "code"])
def test_pigdm_is_the_loop_of_its_paper_and_of_its_code(weight):
    steps, noise, eta = 20, 0.1, 0.6
    problem, y = _measured(MASK, batch=1)
    prior = GaussianMixturePrior(_randn(3, *SHAPE, seed=7), [0.05, 0.1, 0.2])
    model, g = _DDPM(prior, steps), _seed(9)
    x_t = torch.randn(1, *SHAPE, generator=g, dtype=torch.float64)
    a = MASK.apply(torch.eye(SIZE, dtype=torch.float64).view(SIZE, *SHAPE)).flatten(1).T
    for i in range(steps):
        bar, before = model.bars[i], model.bars[i + 1]
        x_t = x_t.detach().requires_grad_()
        clean = model.clean(x_t, i)
        gram = a @ a.T + noise**2 / (1 - bar) * torch.eye(len(a))  # r² = σ²/(1 + σ²) = 1 − ᾱ
        u = torch.linalg.solve(gram, (y - MASK.apply(clean)).detach().flatten()) @ a
        (gradient,) = torch.autograd.grad((u * clean.flatten()).sum(), x_t)
        c1 = eta * math.sqrt((1 - bar / before) * (1 - before) / (1 - bar))
        c2 = math.sqrt(max(1 - before - c1**2, 0))
        epsilon = (x_t - math.sqrt(bar) * clean) / math.sqrt(1 - bar)
        fresh = torch.randn(1, *SHAPE, generator=g, dtype=torch.float64)
        share = math.sqrt(bar * (before if weight == "code" else 1.0))
        x_t = math.sqrt(before) * clean + c1 * fresh + c2 * epsilon + share * gradient
        x_t = x_t.detach()
    solver = PiGDM(steps=steps, eta=eta, weight=weight)
    answer = solver(problem, y, prior, generator=_seed(9)).image
    torch.testing.assert_close(answer, x_t, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "channel", [NOISE, channels.OneBit(0.5), channels.Logistic(), channels.Quantized(2, sigma=0.3)]
)
def test_the_gradient_of_the_root_misfit_is_that_of_autograd_per_image(channel):
    problem, y = _measured(BLUR, channel)
    x = _randn(2, *SHAPE, seed=5).requires_grad_()
    s = BLUR.apply(x)
    twice = (s - y).square() if channel is NOISE else 2 * channel.nll(s, y)
    roots = twice.flatten(1).sum(1).sqrt()
    (expected,) = torch.autograd.grad(roots.sum(), x)
    torch.testing.assert_close(root_misfit_grad(problem, x.detach(), y), expected)


def test_a_misfit_of_zero_has_a_gradient_of_zero():
    problem = Problem(MASK, NOISE)
    x = _randn(1, *SHAPE)
    assert torch.equal(root_misfit_grad(problem, x, MASK.apply(x)), torch.zeros_like(x))


@pytest.mark.parametrize(
    ("solver", "calls"),
    [(DPS(steps=7), 14), (MCG(steps=7), 1 + 4 * 7), (PiGDM(steps=7), 14)],
    ids=["DPS", "MCG", "PiGDM"],
)
def test_a_step_is_one_evaluation_and_the_stated_operator_calls(solver, calls):
    problem, y = _measured(MASK)
    result = solver(problem, y, _mixture(), generator=_seed())
    assert (result.nfe, result.operator_calls) == (7, calls)
    assert len(result.trace) == 7


class _Kept:
    """What lives as long as the graph."""


class _Keeping(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: _Kept) -> Tensor:
        ctx.kept = kept
        return 0.5 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return 0.5 * gradient, None


@pytest.mark.parametrize("make", [DPS, MCG, PiGDM])
def test_the_graph_of_a_step_is_gone_before_the_next_evaluation(make: Callable[..., Any]):
    graphs: list[weakref.ref[_Kept]] = []
    alive: list[int] = []

    def watched(x: Tensor, sigma: Tensor) -> Tensor:
        alive.append(sum(graph() is not None for graph in graphs))
        kept = _Kept()
        graphs.append(weakref.ref(kept))
        return _Keeping.apply(x, kept).tanh()

    problem, y = _measured(MASK)
    make(steps=6)(problem, y, from_callable(watched, SHAPE), generator=_seed())
    assert alive == [0] * 6


def test_settings_go_with_the_problem():
    bits = Problem(operators.GaussianMatrix(SHAPE, 90, 1), channels.OneBit(0.5))
    assert DPS.for_problem(Problem(MASK, NOISE)).zeta == 0.5
    assert DPS.for_problem(Problem(BLUR, NOISE)).zeta == 0.3
    assert DPS.for_problem(bits).zeta == 0.3
    assert DPS.for_problem(bits, reading="literal") == DPS(zeta=0.1, reading="literal")
    assert DPS.for_problem(bits, reading="literal", zeta=0.2).zeta == 0.2


def test_bits_that_are_read_as_linear_are_numbers_in_gaussian_noise_and_a_note_says_so():
    bits = Problem(operators.GaussianMatrix(SHAPE, 90, 1), channels.OneBit(0.5))
    y = bits.measure(_randn(2, *SHAPE, seed=3).clamp(-1, 1), generator=_seed(4))
    read = DPS(steps=5, reading="literal")(bits, y, _mixture(), generator=_seed())
    linear = Problem(bits.operator, NOISE)
    plain = DPS(steps=5)(linear, y.to(read.image), _mixture(), generator=_seed())
    assert torch.equal(read.image, plain.image)
    assert "read as A x plus Gaussian noise" in read.note
    assert plain.note == DPS(steps=5)(bits, y, _mixture()).note == ""


def test_mcg_says_by_how_much_its_inverse_multiplies_the_noise_where_it_does():
    solver, noisy = MCG(steps=5, cutoff=0.05), Problem(BLUR, channels.GaussianNoise(0.1))
    y = noisy.measure(_randn(2, *SHAPE, seed=3), generator=_seed(4))
    s = BLUR.spectrum().singular_values
    seen = s > 0.05 * s.max()
    gain = float((1 / s[seen]).square().sum().div(s.numel()).sqrt())
    assert gain > 2
    assert f"noise of 0.1 into the image {gain:.1f} times" in solver(noisy, y, _mixture()).note
    exact = Problem(BLUR, channels.GaussianNoise(0.0))
    assert solver(exact, y, _mixture()).note == ""
    masked = Problem(MASK, channels.GaussianNoise(0.1))
    assert solver(masked, MASK.apply(y), _mixture()).note == ""
    bits = Problem(BLUR, channels.OneBit(0.5))
    note = solver(bits, bits.measure(y, generator=_seed()), _mixture()).note
    assert "read as A x plus Gaussian noise" in note
    assert "times as large" in note


def test_pigdm_takes_the_weight_of_its_code_unless_told_otherwise():
    problem = Problem(operators.PixelMask((1, 8, 8), 0.5, 0), NOISE)
    assert PiGDM.for_problem(problem).weight == "code"
    assert PiGDM.for_problem(problem, weight="exact").weight == "exact"


def test_what_a_method_cannot_treat_is_one_sentence():
    own = operators.from_function(BLUR.apply, SHAPE)
    problem, y = _measured(own)
    with pytest.raises(InputError, match="orthogonal rows or a spectrum"):
        MCG()(problem, y, _mixture())
    hard = Problem(BLUR, channels.OneBit(0.0))
    with pytest.raises(InputError, match="gradient of the likelihood"):
        DPS()(hard, hard.measure(_randn(1, *SHAPE), generator=_seed()), _mixture())
    for make in (
        lambda: DPS(steps=0),
        lambda: DPS(zeta=-1),
        lambda: DPS(reading="plain"),
        lambda: MCG(level="next"),
        lambda: MCG(cutoff=2),
        lambda: PiGDM(eta=2),
        lambda: PiGDM(variance=0),
        lambda: PiGDM(weight="none"),
    ):
        with pytest.raises(InputError):
            make()


def test_a_prior_without_a_gradient_is_named():
    prior = from_callable(lambda x, sigma: x.detach() * 0.5, SHAPE)
    problem, y = _measured(MASK)
    with pytest.raises(InputError, match="without a gradient"):
        DPS(steps=3)(problem, y, prior)
