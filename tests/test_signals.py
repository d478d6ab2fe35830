"""Signals that are no images: shapes (N,) and (H, W), sparse priors, any scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

import diffsplit as ds
from diffsplit import Problem
from diffsplit.channels import GaussianNoise, OneBit
from diffsplit.errors import InputError
from diffsplit.noise import randn_like, seeded
from diffsplit.operators import GaussianMatrix, RandomizedTransform, from_matrix
from diffsplit.priors import GaussianPrior, IIDMixturePrior
from diffsplit.solvers import DiffEP, Recovery
from diffsplit.solvers.problem_facts import is_scattered

STUDIES = Path(__file__).parents[1] / "studies"


def mixture(shape: tuple[int, ...] = (4000,)) -> IIDMixturePrior:
    """A point, and two Gaussians of unlike widths."""
    return IIDMixturePrior(shape, [0.0, 1.0, -0.5], [0.0, 0.01, 0.5], [0.5, 0.2, 0.3])


def recovered(
    prior: IIDMixturePrior, rows: int, count: int = 4, **settings: float
) -> tuple[Recovery, Tensor]:
    """One noiseless bit a measurement; the answer and the truth."""
    x = prior.sample(count, seeded(0, "signals"))
    problem = Problem(GaussianMatrix(prior.shape, rows, seed=1), OneBit(sigma=0.0))
    y = problem.measure(x, generator=seeded(0, "measure"))
    return DiffEP(**settings)(problem, y, prior, generator=seeded(0, "recover")), x


@pytest.mark.parametrize("level", [0.02, 0.3, 2.0])
def test_the_denoiser_of_independent_entries_is_their_posterior_mean(level: float) -> None:
    """Bayes' rule on a fine grid of x0: a Riemann sum for the Gaussians, a term for the point."""
    prior = mixture((3,))
    x = torch.tensor([[-0.4, 0.06, 0.9]], dtype=torch.float64)
    grid = torch.linspace(-6, 7, 260_001, dtype=torch.float64)
    step = float(grid[1] - grid[0])

    def normal(z: Tensor, variance: float) -> Tensor:
        return torch.exp(-z.square() / (2 * variance)) / math.sqrt(2 * math.pi * variance)

    density = 0.2 * normal(grid - 1, 0.01) + 0.3 * normal(grid + 0.5, 0.5)
    for entry, answer in zip(x[0], prior.denoise(x, level)[0], strict=True):
        likelihood = normal(entry - grid, level**2)
        mass = step * (density * likelihood).sum() + 0.5 * normal(entry, level**2)
        expected = step * (density * likelihood * grid).sum() / mass
        torch.testing.assert_close(answer, expected, rtol=1e-8, atol=1e-12)


def test_the_error_of_independent_entries_is_what_their_samples_show() -> None:
    prior = mixture((200_000,))
    levels = torch.tensor([[0.01, 0.1], [0.5, 3.0]])
    curve = prior.error(levels)
    assert curve.shape == levels.shape
    x = prior.sample(1, seeded(0, "x")).double()
    noise = torch.randn(x.shape, generator=seeded(0, "n"), dtype=x.dtype)
    for level, expected in zip(levels.flatten().tolist(), curve.flatten().tolist(), strict=True):
        squares = (prior.denoise(x + level * noise, level) - x).square()
        deviation = float(squares.std()) / math.sqrt(x.numel())
        assert abs(float(squares.mean()) - expected) < 4 * deviation
    single = IIDMixturePrior((5,), [0.3], [0.25])
    exact = GaussianPrior((5,), 0.3, 0.25)
    for level in (1e-3, 0.4, 50.0):
        torch.testing.assert_close(single.error(level), exact.error(level), rtol=1e-6, atol=0)


def test_samples_of_independent_entries_have_the_shares_and_the_mean_square_of_the_prior() -> None:
    x = mixture((2, 30_000)).sample(3, seeded(0, "x"))
    assert x.shape == (3, 2, 30_000)
    assert float((x == 0).float().mean()) == pytest.approx(0.5, abs=0.005)
    assert float(x.square().mean()) == pytest.approx(mixture().mean_square, rel=0.02)
    norms = mixture((50,)).sample(4000, seeded(1, "x")).square().sum(1).sqrt()
    assert float(norms.std() / norms.mean()) == pytest.approx(mixture((50,)).scale_spread, rel=0.1)


@pytest.mark.parametrize(
    "build",
    [
        lambda: IIDMixturePrior((0,), [0.0], [1.0]),
        lambda: IIDMixturePrior((4,), [0.0, 1.0], [1.0]),
        lambda: IIDMixturePrior((4,), [[0.0]], [[1.0]]),
        lambda: IIDMixturePrior((4,), [0.0], [-1.0]),
        lambda: IIDMixturePrior((4,), [0.0], [1.0], [0.0]),
        lambda: IIDMixturePrior((4,), [0.0], [0.0]),
        lambda: IIDMixturePrior.sparse((4,), 0.0),
        lambda: IIDMixturePrior.sparse((4,), 1.0),
        lambda: IIDMixturePrior.sparse((4,), 0.1, math.nan),
        lambda: IIDMixturePrior.sparse((4,), 0.1, 0.0),
    ],
)
def test_mixtures_that_are_none_are_refused(build: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        build()


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_sparse_signals_come_back_from_bits_as_well_as_state_evolution_says(
    alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of these signals has a standard error of 1 to 2 %."""
    monkeypatch.syspath_prepend(str(STUDIES))
    from sparse_signals import measured, state_evolution

    error, of_direction = state_evolution(alpha, 0.25)
    found, x, result = measured(alpha, 0.25, size=4000, count=8)
    assert float(found.mean()) == pytest.approx(of_direction, rel=0.05)
    squares = (result.image - x).square().mean(1)
    assert float(squares.mean()) == pytest.approx(error, rel=0.06)
    assert result.predicted_error is not None
    assert float(result.predicted_error.mean() / squares.mean()) == pytest.approx(1, abs=0.2)
    assert result.converged is not None
    assert bool(result.converged.all())


def generalized_amp(A: Tensor, y: Tensor, density: float, iterations: int = 40) -> Tensor:
    """Algorithm 1 of Rangan 2011 with scalar variances, for bits without noise, E[x0²] = 1."""
    (m, n), variance = A.shape, 1 / density
    x, t, g = y.new_zeros(len(y), n), y.new_ones(len(y), 1), torch.zeros_like(y)
    for _ in range(iterations):
        tau = t * n / m
        p = x @ A.T - tau * g
        u = y * p / tau.sqrt()
        ratio = torch.exp(-0.5 * u.square() - torch.special.log_ndtr(u)) / math.sqrt(2 * math.pi)
        g = y * ratio / tau.sqrt()
        v = 1 / (ratio * (u + ratio) / tau).mean(1, keepdim=True)
        r = x + v * (g @ A)
        gain = variance / (variance + v)
        odds = torch.log(density / (1 - density) * (1 - gain).sqrt()) + 0.5 * gain * r * r / v
        share = torch.sigmoid(odds)
        x = share * gain * r
        t = (share * (gain * v + (gain * r).square()) - x.square()).mean(1, keepdim=True)
    return x


def test_on_the_same_bits_the_answer_is_that_of_generalized_amp_with_the_true_prior() -> None:
    prior = IIDMixturePrior.sparse((2000,), 0.0625)
    x = prior.sample(4, seeded(0, "signals"))
    operator = GaussianMatrix((2000,), 2500, seed=1)
    problem = Problem(operator, OneBit(sigma=0.0))
    y = problem.measure(x, generator=seeded(0, "measure"))
    solver = DiffEP(iterations=60, tolerance=1e-4)
    ours = solver(problem, y, prior, generator=seeded(0, "recover")).image
    theirs = generalized_amp(operator.matrix, y, 0.0625)

    def error(answer: Tensor) -> Tensor:
        return 2 - 2 * torch.cosine_similarity(answer, x)

    assert float(error(theirs).max()) < 0.1
    assert float((ours - theirs).square().mean() / x.square().mean()) < 1e-3
    torch.testing.assert_close(error(ours), error(theirs), rtol=0.08, atol=0)


def test_state_evolution_ends_where_the_theory_of_one_bit_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Xu, Kabashima and Zdeborová 2014: with many bits a sparse signal is as well known as if the
    places of its nonzero entries were given, that is as a dense one of ρN entries, whose error
    falls as (M/N)⁻²."""
    monkeypatch.syspath_prepend(str(STUDIES))
    from sparse_signals import state_evolution

    dense = [alpha**2 * state_evolution(alpha, 0.99999)[1] for alpha in (100, 1000)]
    assert dense[0] == pytest.approx(dense[1], rel=0.01)
    excess = [
        state_evolution(alpha, 0.25)[1] / state_evolution(4 * alpha, 0.99999)[1]
        for alpha in (3, 30, 300)
    ]
    assert excess[0] > excess[1] > excess[2] > 1
    assert excess[2] < 1.1


@pytest.mark.parametrize("scale", [1e-5, 1e5])
def test_the_scale_of_signals_changes_nothing_but_the_scale_of_the_answer(scale: float) -> None:
    plain, x = recovered(IIDMixturePrior.sparse((400,), 0.25), 1200)
    scaled, _ = recovered(IIDMixturePrior.sparse((400,), 0.25, scale**2 / 0.25), 1200)
    torch.testing.assert_close(scaled.image / scale, plain.image, rtol=1e-3, atol=1e-3)
    assert plain.predicted_error is not None
    assert scaled.predicted_error is not None
    torch.testing.assert_close(
        scaled.predicted_error / scale**2, plain.predicted_error, rtol=1e-2, atol=0
    )
    assert float(torch.cosine_similarity(plain.image, x).min()) > 0.9


def test_a_signal_of_two_dimensions_is_recovered_as_the_same_numbers_in_one() -> None:
    """The same matrix, the same posterior; a prior with a covariance, so that places count."""
    root = torch.randn(24, 24, generator=seeded(0, "c"), dtype=torch.float64) / 5
    matrix = torch.randn(40, 24, generator=seeded(0, "m"), dtype=torch.float64) / math.sqrt(40)
    answers = []
    for shape in ((24,), (4, 6)):
        prior = GaussianPrior(shape, 0.0, root @ root.T + 0.01 * torch.eye(24))
        x = prior.sample(3, seeded(0, "x")).double()
        problem = Problem(from_matrix(matrix, shape, rows="iid"), OneBit(sigma=0.1))
        y = problem.measure(x, generator=seeded(0, "measure"))
        result = DiffEP(samples=4)(problem, y, prior, generator=seeded(0, "recover"))
        assert result.image.shape == (3, *shape)
        assert result.std is not None
        low, high = result.interval(0.9)
        assert low.shape == high.shape == (3, *shape)
        answers.append((result.image.flatten(1), result.std.flatten(1), result.predicted_error))
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("seen", "scattered"),
    [("1101101", True), ("1110001", False), ("1111111", True), ("0000000", False)],
)
def test_the_entries_of_a_signal_are_scattered_where_most_hidden_ones_have_a_seen_neighbor(
    seen: str, scattered: bool
) -> None:
    entries = torch.tensor([bit == "1" for bit in seen])
    assert is_scattered(entries) is scattered
    assert is_scattered(entries.view(1, 7)) is scattered


@dataclass(frozen=True)
class ThreeMethods(ds.channels.Channel):
    """Gaussian noise of variance 0.09, written with what a channel needs at least."""

    def sample(self, s, generator):
        return s + 0.3 * randn_like(s, generator)

    def evidence(self, p, y, tau):
        return -0.5 * ((y - p).square() / (0.09 + tau) + math.log(2 * math.pi * (0.09 + tau)))

    def evidence_score(self, p, y, tau):
        return (y - p) / (0.09 + tau), torch.ones_like(p) / (0.09 + tau)


def test_a_channel_of_three_methods_has_the_likelihood_and_the_moments_of_its_evidence() -> None:
    own, ours = ThreeMethods(), GaussianNoise(0.3)
    s, y = torch.randn(2, 50, generator=seeded(0, "s"), dtype=torch.float64)
    for method in ("nll", "grad", "curvature"):
        torch.testing.assert_close(getattr(own, method)(s, y), getattr(ours, method)(s, y))
    for one, other in zip(own.moments(s, y, 0.7), ours.moments(s, y, 0.7), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(InputError, match="proximal"):
        own.prox(s, y, 1.0)
    with pytest.raises(InputError, match="file"):
        own.config()


@pytest.mark.parametrize(
    ("operator", "channel"),
    [
        (GaussianMatrix((400,), 300, seed=1), GaussianNoise(0.1)),
        (RandomizedTransform((512,), 384, seed=1), OneBit(0.2)),
    ],
    ids=["matrix", "transform"],
)
def test_intervals_of_a_sparse_signal_hold_its_entries_as_often_as_they_say(
    operator: ds.operators.LinearOperator, channel: ds.channels.Channel
) -> None:
    prior = IIDMixturePrior.sparse(operator.shape_in, 0.5)
    x = prior.sample(6, seeded(0, "x"))
    problem = Problem(operator, channel)
    y = problem.measure(x, generator=seeded(0, "measure"))
    result = DiffEP(samples=16, sample_steps=20)(problem, y, prior, generator=seeded(0, "recover"))
    low, high = result.interval(0.9)
    covered = ((low <= x) & (x <= high)).float().mean()
    assert 0.85 < float(covered) <= 0.97
