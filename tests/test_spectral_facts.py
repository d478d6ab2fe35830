"""What DDRM, DDNM+ and consistency editing keep, cost, refuse and say."""

from __future__ import annotations

import gc
import math

import pytest
import torch
from spectral_cases import OPERATORS, SHAPE, SIZE, SMOOTH, measured, seed
from torch import Tensor

from diffsplit import Problem
from diffsplit.channels import GaussianNoise, OneBit
from diffsplit.errors import InputError
from diffsplit.operators import (
    Blur,
    GaussianMatrix,
)
from diffsplit.priors import GaussianConsistency, GaussianPrior, from_callable
from diffsplit.schedules import ddpm_sigmas
from diffsplit.solvers import (
    DDRM,
    ConsistencyEditing,
    DDNMPlus,
    Solver,
    read_as_linear,
    recovery,
)

SOLVERS: dict[str, Solver] = {
    "DDRM": DDRM(steps=8),
    "DDNMPlus": DDNMPlus(steps=8),
    "ConsistencyEditing": ConsistencyEditing(levels=9),
}


def prior_of(solver: Solver, exact: GaussianPrior) -> GaussianPrior | GaussianConsistency:
    return GaussianConsistency(exact) if isinstance(solver, ConsistencyEditing) else exact


@pytest.mark.parametrize("solver", [DDNMPlus(steps=10), ConsistencyEditing(levels=10)])
@pytest.mark.parametrize("name", OPERATORS)
def test_what_is_measured_without_noise_is_kept_exactly(name: str, solver: Solver) -> None:
    problem = Problem(OPERATORS[name], GaussianNoise(0.0))
    y = measured(problem)
    result = solver(problem, y, prior_of(solver, SMOOTH), generator=seed(3))
    torch.testing.assert_close(problem.operator.apply(result.image), y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", OPERATORS)
def test_ddrm_without_noise_ends_with_what_the_denoiser_leaves_at_its_last_level(name: str) -> None:
    problem = Problem(OPERATORS[name], GaussianNoise(0.0))
    y = measured(problem)
    image = DDRM(steps=10)(problem, y, SMOOTH, generator=seed(3)).image
    off = (problem.operator.apply(image) - y).square().mean().sqrt()
    last = ddpm_sigmas()[0]
    assert 0 < off < 2 * last * math.sqrt(float(problem.operator.norm() ** 2))


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_directions_that_rounding_drowns_count_as_noisy(solver: Solver) -> None:
    """Singular values down to 1e-12 of the largest, in float32: divided by, they would explode."""
    shape = (1, 32, 32)
    problem = Problem(Blur.gaussian(shape, 31, 3.0), GaussianNoise(0.0))
    s = problem.operator.spectrum().singular_values
    assert s[s > 0].min() < 1e-11 * s.max()
    prior = GaussianPrior(shape, 0.0, 0.3)
    x = prior.sample(4, seed(1))
    y = problem.measure(x, generator=seed(2))
    image = solver(problem, y, prior_of(solver, prior), generator=seed(3)).image
    assert image.dtype == torch.float32
    assert (image - x).square().mean() < 2 * 0.3


@pytest.mark.parametrize(
    ("solver", "evaluations"),
    [(DDRM(), 20), (DDNMPlus(), 100), (ConsistencyEditing(), 39)],
)
def test_defaults_cost_what_their_papers_say_and_never_apply_the_operator(
    solver: Solver, evaluations: int
) -> None:
    problem = Problem(OPERATORS["blur"], GaussianNoise(0.1))
    result = solver(problem, measured(problem), prior_of(solver, SMOOTH), generator=seed(3))
    assert result.nfe == len(result.trace) == solver.steps_at_most(problem) == evaluations
    assert result.operator_calls == 0


@pytest.mark.parametrize("solver", [DDRM(steps=7), DDNMPlus(steps=7)])
def test_the_denoiser_runs_once_a_step_at_the_levels_of_the_public_code(solver: Solver) -> None:
    seen: list[float] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(float(sigma[0]))
        return SMOOTH.denoise(x, sigma)

    problem = Problem(OPERATORS["blur"], GaussianNoise(0.1))
    prior = from_callable(denoise, SHAPE, sigma_min=1e-3, sigma_max=1e3, bounds=None)
    seen.clear()
    solver(problem, measured(problem), prior, generator=seed(3))
    assert seen == pytest.approx([ddpm_sigmas()[142 * k] for k in range(6, -1, -1)])


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_memory_does_not_grow_with_the_steps(
    solver: Solver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "KEPT_BYTES", 0)  # the trace keeps images for later up to this
    problem = Problem(OPERATORS["blur"], GaussianNoise(0.1))
    prior, held = prior_of(solver, SMOOTH), []

    def count(step: object) -> None:
        gc.collect()
        tensors = [o for o in gc.get_objects() if issubclass(type(o), Tensor)]
        held.append(sum(t.numel() >= 2 * SIZE for t in tensors))

    solver(problem, measured(problem), prior, generator=seed(3), callback=count)
    assert max(held[2:]) <= held[2]


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_an_operator_without_a_spectrum_is_refused_with_one_that_does(solver: Solver) -> None:
    problem = Problem(GaussianMatrix(SHAPE, rows=90, seed=1), GaussianNoise(0.1))
    with pytest.raises(InputError, match=r"does not offer; use a RandomizedTransform.*DiffEP"):
        solver(problem, measured(problem), prior_of(solver, SMOOTH))


def test_other_channels_are_read_as_linear_and_the_result_says_so() -> None:
    problem = Problem(OPERATORS["transform"], OneBit(0.5))
    y = measured(problem)
    result = DDRM(steps=4)(problem, y, SMOOTH)
    assert "read as A x plus Gaussian noise" in result.note
    assert (
        DDRM(steps=4)(Problem(problem.operator, GaussianNoise(0.1)), y.double(), SMOOTH).note == ""
    )
    scaled = read_as_linear(problem, y, "bussgang")
    literal = read_as_linear(problem, y)
    torch.testing.assert_close(literal.y, y.to(literal.y))
    # Bussgang's scale leaves an error that is uncorrelated with s ~ N(0, c/4).
    s = 0.5 * math.sqrt(problem.operator.gram.mean) * torch.randn(1, 200_000, generator=seed(7))
    factor = float(scaled.y.flatten()[0] / literal.y.flatten()[0])
    error = factor * problem.channel.value(problem.channel.sample(s, seed(8))) - s
    assert abs(float((error * s).mean())) < 0.02 * float(s.square().mean())
    assert scaled.problem.channel.gaussian_sigma == pytest.approx(float(error.std()), rel=0.02)


def test_presets_and_wrong_settings() -> None:
    problem = Problem(OPERATORS["mask"], OneBit(0.5))
    assert DDNMPlus.for_problem(problem, "onebit-inpainting").steps == 20
    assert DDNMPlus.for_problem(problem, "onebit-inpainting", steps=7).steps == 7
    assert DDNMPlus.for_problem(problem, "inpaint-box").steps == 100
    for kind, settings in (
        (DDRM, {"eta": 1.1}),
        (DDRM, {"eta_b": -0.1}),
        (DDRM, {"steps": 0}),
        (DDNMPlus, {"eta": math.nan}),
        (DDNMPlus, {"steps": 1001}),
        (ConsistencyEditing, {"levels": 1}),
    ):
        with pytest.raises(InputError):
            kind(**settings)
