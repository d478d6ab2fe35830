"""DCDP against closed forms, a plain loop in the paper's letters, and itself."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from diffsplit import Problem, channels, operators
from diffsplit.data_steps import collapsed_momentum
from diffsplit.data_steps.momentum import default_step_size, matched_step_size
from diffsplit.errors import DivergenceError, InputError
from diffsplit.noise import randn_like
from diffsplit.priors import (
    GaussianConsistency,
    GaussianMixturePrior,
    GaussianPrior,
    from_callable,
    linear_latent,
)
from diffsplit.schedules import DECAYS, ddpm_sigmas, decay
from diffsplit.solvers import DCDP, LatentDCDP, purification_grid, purify
from diffsplit.solvers.splitting.dcdp_presets import TASKS, step_size_from_alpha

SHAPE = (3, 8, 8)
SIZE = math.prod(SHAPE)
BLUR = operators.Blur.gaussian(SHAPE, size=3, std=0.6)
EXACT = channels.GaussianNoise(0.0)


def _seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=_seed(seed), dtype=torch.float64)


def _prior(**options) -> GaussianPrior:
    root = _randn(SIZE, SIZE, seed=5) / SIZE**0.5
    return GaussianPrior(SHAPE, 0.1, 0.3 * root @ root.T, **options)


def _measured(operator, channel=EXACT, prior=None, batch: int = 2) -> tuple[Problem, Tensor]:
    problem = Problem(operator, channel)
    x = (prior or _prior()).sample(batch, _seed(1)).double()
    return problem, problem.measure(x, generator=_seed(2))


@pytest.mark.parametrize("kind", ["linear", "constant", "cosine", "biased-high", "biased-low"])
def test_schedules_run_monotonically_between_their_ends(kind):
    values = decay(700.0, 100.0, 13, kind)
    assert values[0] == 700
    assert values[-1] == pytest.approx(700 if kind == "constant" else 100)
    assert all(a >= b for a, b in itertools.pairwise(values))
    assert decay(5.0, 1.0, 1, kind) == [5.0]
    middle = {"linear": 400, "constant": 700, "cosine": 400, "biased-high": 550, "biased-low": 250}
    assert values[6] == pytest.approx(middle[kind])
    assert set(middle) == set(DECAYS)


def test_an_unknown_schedule_is_refused_by_name():
    with pytest.raises(InputError, match="'square' is not known; one of linear"):
        DCDP(schedule="square")


@pytest.mark.parametrize(
    ("level", "index"), [(400, 399), (400.4, 399), (1, 0), (0, 0), (1000, 999)]
)
def test_timestep_t_is_index_t_minus_1_for_the_noise_and_the_first_step(level, index):
    seen: list[float] = []

    def watch(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(sigma[0].item())
        return torch.zeros_like(x)

    prior, zero = from_callable(watch, SHAPE), torch.zeros(1, *SHAPE, dtype=torch.float64)
    grid = purification_grid("ddim", level, 20, prior)
    assert grid[0] == ddpm_sigmas()[index]
    assert len(grid) - 1 == min(20, index + 1)
    noisy: list[Tensor] = []
    spy = from_callable(lambda x, s: noisy.append(x) or watch(x, s), SHAPE)
    purify(spy, zero, grid, _seed())
    torch.testing.assert_close(noisy[0], grid[0] * randn_like(zero, _seed()))
    assert seen == pytest.approx(grid[:-1])
    assert purification_grid("tweedie", level, 20, prior) == [grid[0], 0.0]


def test_ddim_is_evenly_spaced_in_time_and_ends_at_timestep_0():
    sigmas, prior = ddpm_sigmas(), _prior()
    grid = purification_grid("ddim", 400, 20, prior)
    assert grid == [sigmas[21 * k] for k in range(19, -1, -1)] + [0.0]
    assert purification_grid("ddim", 3, 20, prior) == [sigmas[2], sigmas[1], sigmas[0], 0.0]
    assert purification_grid("ddim", 1, 20, prior) == [sigmas[0], 0.0]
    assert purification_grid("ddim", 700, 1, prior) == [sigmas[699], 0.0]


@pytest.mark.parametrize("version", ["ddim", "tweedie"])
@pytest.mark.parametrize("known", [True, False], ids=["collapsed", "loop"])
def test_dcdp_is_algorithm_1_as_the_paper_writes_and_runs_it(version, known):
    """MSELoss and SGD with the paper's α; a variance-preserving network and integer timesteps."""
    prior = GaussianMixturePrior(_randn(3, *SHAPE, seed=7).clamp(-1, 1), [0.05, 0.1, 0.2])
    prior.bounds = (-1.0, 1.0)
    operator = operators.Blur.gaussian(SHAPE, size=3, std=0.6)
    if not known:
        operator = operators.from_function(operator.apply, SHAPE)
        assert not operator.has_spectrum
    problem = Problem(operator, EXACT)
    y = problem.measure(_randn(1, *SHAPE, seed=3), generator=_seed())
    alpha, tau, times = 60.0, 15, [30, 20, 10, 1]

    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bar = (1 - betas).cumprod(0)

    def epsilon(x_t: Tensor, t: int) -> Tensor:
        a, s = bar[t].sqrt(), (1 - bar[t]).sqrt()
        return (x_t - a * prior.denoise(x_t / a, s / a)) / s

    g, v = _seed(4), torch.zeros(1, *SHAPE, dtype=torch.float64)
    for T in times:
        x = v.clone().requires_grad_()
        optimizer = torch.optim.SGD([x], lr=alpha, momentum=0.9)
        for _ in range(tau):
            optimizer.zero_grad()
            torch.nn.MSELoss()(operator(x), y).backward()
            optimizer.step()
        x = x.detach()
        x_t = bar[T - 1].sqrt() * x + (1 - bar[T - 1]).sqrt() * randn_like(x, g)
        count = min(7, T) if version == "ddim" else 1
        steps = [round(t) for t in np.linspace(T - 1, 0, count)] if count > 1 else [T - 1]
        for t, after in zip(steps, [*steps[1:], None], strict=True):
            e = epsilon(x_t, t)
            clean = (x_t - (1 - bar[t]).sqrt() * e) / bar[t].sqrt()
            clean = clean.clamp(-1, 1)
            e = (x_t - bar[t].sqrt() * clean) / (1 - bar[t]).sqrt()
            x_t = clean
            if after is not None:
                x_t = bar[after].sqrt() * clean + (1 - bar[after]).sqrt() * e
        v = x_t

    solver = DCDP(
        rounds=4,
        tau=tau,
        step_size=step_size_from_alpha(alpha, SIZE),
        start=30,
        purifier=version,
        purifier_steps=7,
    )
    assert [max(round(level), 1) for level in solver.levels] == times
    result = solver(problem, y, prior, generator=_seed(4))
    torch.testing.assert_close(result.image, v, rtol=1e-8, atol=1e-8)
    assert result.nfe == sum(min(7, T) if version == "ddim" else 1 for T in times)
    consistent = DCDP(**{**vars(solver), "return_": "consistent"})
    image = consistent(problem, y, prior, generator=_seed(4)).image
    torch.testing.assert_close(image, x.clamp(-1, 1), rtol=1e-8, atol=1e-8)


def test_a_callback_sees_both_iterates_of_every_round():
    prior, steps = _prior(), []
    problem, y = _measured(BLUR)
    solver = DCDP(rounds=3, tau=5, start=100, purifier="tweedie")
    solver(problem, y, prior, generator=_seed(4), callback=steps.append)
    generator, v = _seed(4), torch.zeros(2, *SHAPE, dtype=torch.float64)
    for step, level in zip(steps, solver.levels, strict=True):
        x = collapsed_momentum(problem, y, v, 5, default_step_size(problem, y))
        v = purify(prior, x, purification_grid("tweedie", level, 20, prior), generator)
        torch.testing.assert_close(step.consistent, x)
        torch.testing.assert_close(step.image, v)


@pytest.mark.parametrize("purifier", ["tweedie", "consistency"])
@pytest.mark.parametrize(
    "operator",
    [operators.Downsample(SHAPE, 2, "bicubic"), operators.PixelMask(SHAPE, 0.5, 0)],
    ids=["spectrum", "orthogonal"],
)
def test_one_round_of_endless_steps_is_the_purified_least_squares_solution(purifier, operator):
    prior = _prior()
    problem, y = _measured(operator)
    inverse = torch.linalg.pinv(operator(torch.eye(SIZE).double().view(-1, *SHAPE)).flatten(1).T)
    least = (y.flatten(1) @ inverse.T).view(-1, *SHAPE)
    level, sigma = (0.7, 0.7) if purifier == "consistency" else (300, ddpm_sigmas()[299])
    noisy = (least + sigma * randn_like(least, _seed(3))).flatten(1) - prior.mean
    covariance = prior.basis @ torch.diag(prior.eigenvalues) @ prior.basis.T
    gain = covariance @ torch.linalg.inv(covariance + sigma**2 * torch.eye(SIZE))
    if purifier == "consistency":
        values, vectors = torch.linalg.eigh(gain)
        gain = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    expected = (prior.mean + noisy @ gain.T).view(-1, *SHAPE)
    solver = DCDP(rounds=1, tau=10_000, start=level, purifier=purifier)
    model = GaussianConsistency(prior) if purifier == "consistency" else prior
    result = solver(problem, y, model, generator=_seed(3))
    torch.testing.assert_close(result.image, expected, rtol=1e-6, atol=1e-6)
    assert result.nfe == 1


def test_a_consistency_model_is_asked_once_a_round_at_the_noise_that_was_added():
    prior = _prior(sigma_min=0.002, sigma_max=80.0)
    problem, y = _measured(BLUR)
    solver = DCDP(rounds=20, start=5.0, purifier="consistency")
    result = solver(problem, y, GaussianConsistency(prior))
    assert result.nfe == 20
    expected = torch.linspace(5, 0, 20, dtype=torch.float64).clamp(min=0.002)
    torch.testing.assert_close(result.trace["sigma"][:, 0], expected)


@pytest.mark.parametrize(
    ("channel", "remains"),
    [
        (channels.OneBit(0.5), 0.5),
        (channels.Logistic(), 0.8),
        (channels.Quantized(bits=2, sigma=0.5), 0.4),
    ],
    ids=["one-bit", "logistic", "quantized"],
)
@pytest.mark.parametrize("tau", [5, 20, 100])
def test_dcdp_recovers_from_quantized_measurements_through_their_likelihood(channel, remains, tau):
    prior = GaussianPrior(SHAPE, 0.0, torch.logspace(0, -3, SIZE).view(SHAPE))
    shares = []
    for draw in range(3):
        problem = Problem(4 * operators.GaussianMatrix(SHAPE, rows=400, seed=draw), channel)
        x = prior.sample(8, _seed(100 + draw))
        y = problem.measure(x, generator=_seed(200 + draw))
        solver = DCDP(purifier="tweedie", tau=tau)
        result = solver(problem, y, prior, generator=_seed(300 + draw))
        shares.append(float((result.image - x).square().sum() / x.square().sum()))
        assert result.trace["misfit"][-1].mean() < problem.nll(torch.zeros_like(x), y).mean()
    assert sum(shares) / 3 < remains


@pytest.mark.parametrize(("end", "limited"), [(200, False), (10, True)])
def test_a_step_size_of_none_is_the_inverse_curvature_or_what_purification_allows(end, limited):
    problem, y = _measured(4 * operators.GaussianMatrix(SHAPE, 40, 0), channels.OneBit(0.5))
    solver = DCDP(rounds=2, tau=3, purifier="tweedie", start=end, end=end)
    step_size = default_step_size(problem, y)
    if limited:
        most = matched_step_size(ddpm_sigmas()[end - 1], 3)
        assert most < step_size
        step_size = most
    given = DCDP(**{**vars(solver), "step_size": step_size})
    twice = DCDP(**{**vars(solver), "step_size": 2 * step_size})
    image = solver(problem, y, _prior()).image
    assert torch.equal(given(problem, y, _prior()).image, image)
    assert not torch.equal(twice(problem, y, _prior()).image, image)


@pytest.mark.parametrize("known", [True, False], ids=["collapsed", "loop"])
def test_the_defaults_do_not_fit_the_noise_of_a_users_blur(known):
    blur = BLUR if known else operators.from_function(BLUR.apply, SHAPE)
    prior = GaussianPrior(SHAPE, 0.0, torch.logspace(0, -4, SIZE).view(SHAPE))
    x = prior.sample(8, _seed(1)).double()
    for sigma in (0.1, 0.3):
        problem = Problem(blur, channels.GaussianNoise(sigma))
        y = problem.measure(x, generator=_seed(2))
        matrix = blur.apply(torch.eye(SIZE, dtype=torch.float64).view(-1, *SHAPE)).flatten(1).T
        cov = torch.diag(torch.logspace(0, -4, SIZE, dtype=torch.float64))
        spread = matrix @ cov @ matrix.T + sigma**2 * torch.eye(SIZE)
        gain = cov @ matrix.T @ torch.linalg.inv(spread)
        best = (y.flatten(1) @ gain.T - x.flatten(1)).square().mean()
        for return_ in ("purified", "consistent"):
            solver = DCDP(purifier="tweedie", return_=return_)
            error = (solver(problem, y, prior, generator=_seed(3)).image - x).square().mean()
            fitted = DCDP(purifier="tweedie", step_size=1 / blur.norm() ** 2, return_=return_)
            worse = (fitted(problem, y, prior, generator=_seed(3)).image - x).square().mean()
            assert error < 2 * best
            assert error < worse / 2


def test_the_trace_and_the_callback_tell_both_misfits_of_every_round():
    problem, y = _measured(BLUR)
    for solver, prior in (
        (DCDP(rounds=3, tau=20), _prior()),
        (LatentDCDP(rounds=3, tau=20), linear_latent(_prior(), 60)),
    ):
        steps = []
        result = solver(problem, y, prior, callback=steps.append)
        half = 0.5 * (BLUR(result.image) - y).square().flatten(1).sum(1)
        torch.testing.assert_close(result.trace["misfit"][-1], half)
        torch.testing.assert_close(steps[-1].image, result.image)
        assert (result.trace["misfit_consistent"][-1] < result.trace["misfit"][0]).all()
        last = replace(solver, return_="consistent")(problem, y, prior)
        half = 0.5 * (BLUR(last.image) - y).square().flatten(1).sum(1)
        torch.testing.assert_close(last.trace["misfit_consistent"][-1], half)


def test_latent_approach_2_is_closed_form_in_a_linear_autoencoder():
    prior, size, sigma = _prior(), 50, ddpm_sigmas()[99]
    model = linear_latent(prior, size, scaling=1.7)
    operator = operators.PixelMask(SHAPE, 0.5, 0)
    problem, y = _measured(operator)
    x = operator.adjoint(y)  # from D(v̂_0) = 0, endless steps fill in what was measured
    v = prior.basis[:, prior.eigenvalues.argsort(descending=True)[:size]]
    z = 1.7 * (x.flatten(1) - prior.mean) @ v
    g = _seed(6)
    randn_like(z, g)  # v̂_0, which Approach II does not look at
    variances = 1.7**2 * prior.eigenvalues.sort(descending=True).values[:size]
    z = variances / (variances + sigma**2) * (z + sigma * randn_like(z, g))
    expected = (prior.mean + z / 1.7 @ v.T).view(-1, *SHAPE)
    solver = LatentDCDP(rounds=1, tau=3000, start=100, purifier="tweedie", consistency="pixel")
    result = solver(problem, y, model, generator=_seed(6))
    torch.testing.assert_close(result.image, expected)
    assert result.nfe == 1


def test_latent_approach_1_is_closed_form_in_a_linear_autoencoder():
    prior, size, sigma, scaling = _prior(), 20, ddpm_sigmas()[99], 0.8
    model = linear_latent(prior, size, scaling=scaling)
    problem, y = _measured(BLUR)
    v = prior.basis[:, prior.eigenvalues.argsort(descending=True)[:size]]
    matrix = BLUR((v / scaling).T.reshape(size, *SHAPE)).flatten(1).T
    offset = BLUR(prior.mean.view(1, *SHAPE)).flatten(1)
    z = (y.flatten(1) - offset) @ torch.linalg.pinv(matrix).T
    g = _seed(6)
    randn_like(z, g)  # v̂_0, which endless steps forget
    variances = scaling**2 * prior.eigenvalues.sort(descending=True).values[:size]
    z = variances / (variances + sigma**2) * (z + sigma * randn_like(z, g))
    expected = (prior.mean + z / scaling @ v.T).view(-1, *SHAPE)
    solver = LatentDCDP(
        rounds=1, tau=1500, step_size=0.9, start=100, purifier="tweedie", consistency="latent"
    )
    result = solver(problem, y, model, generator=_seed(6))
    torch.testing.assert_close(result.image, expected, rtol=1e-6, atol=1e-6)


def test_latent_dcdp_counts_evaluations_in_latents():
    problem, y = _measured(BLUR)
    result = LatentDCDP(rounds=4, start=100)(problem, y, linear_latent(_prior(), 9))
    assert result.nfe == 3 * 20 + 1


def test_presets_carry_the_papers_tables():
    blur = DCDP.preset("gaussian-deblur")
    assert (blur.rounds, blur.tau, blur.start, blur.end) == (10, 100, 400, 0)
    assert blur.step_size == pytest.approx(1.017, rel=1e-3)
    motion = DCDP.preset("motion-deblur", data="lsun-bedrooms", purifier="tweedie")
    assert (motion.rounds, motion.tau, motion.purifier) == (20, 50, "tweedie")
    sr = DCDP.preset("super-resolution", image_size=64)
    assert sr.step_size == pytest.approx(0.1628, rel=1e-3)
    box = DCDP.preset("inpaint-box")
    assert (box.rounds, box.start) == (20, 700)
    assert box.step_size == pytest.approx(0.01017, rel=1e-3)
    latent = LatentDCDP.preset("motion-deblur")
    assert (latent.rounds, latent.tau, latent.consistency) == (4, 250, "pixel")
    latent = LatentDCDP.preset("inpaint-box", data="lsun-bedrooms")
    assert (latent.rounds, latent.start, latent.consistency) == (20, 500, "latent")
    model = DCDP.preset("inpaint-box", purifier="consistency")
    assert (model.rounds, model.start, model.end) == (20, 5, 0)
    assert DCDP.preset("motion-deblur", purifier="consistency").start == 1


@pytest.mark.parametrize("noise", [0.05, 0.075, 0.1])
@pytest.mark.parametrize("size", [64, 256])
def test_noisy_presets_are_appendix_a3_to_the_letter(noise, size):
    assert DCDP.preset("super-resolution", size, noise=noise).levels[-1] == 250
    motion = DCDP.preset("motion-deblur", size, noise=noise)
    assert (motion.levels[0], motion.levels[-1]) == (400, 300)
    assert motion.step_size == pytest.approx(2 * 1e4 / (3 * 256 * 256))
    sr = DCDP.preset("super-resolution", size, noise=noise)
    assert sr.step_size == pytest.approx(2 * 1e3 / (3 * 64 * 64))


def test_the_adapted_ending_goes_with_the_noise_and_the_size():
    sigmas = ddpm_sigmas()
    small = DCDP.preset("motion-deblur", image_size=64, noise=0.05, ending="adapted")
    assert sigmas[int(small.end) - 1] == pytest.approx(sigmas[299] / 8, rel=0.02)
    assert small.step_size == pytest.approx(2 * 1e4 / (3 * 256 * 256) / 4)
    large = DCDP.preset("motion-deblur", noise=0.1, ending="adapted")
    assert large == DCDP.preset("motion-deblur", noise=0.1)
    for ending in ("paper", "adapted"):
        box = DCDP.preset("inpaint-box", noise=0.2, ending=ending)
        assert sigmas[int(box.end) - 1] == pytest.approx(0.2, rel=0.1)
    model = DCDP.preset("super-resolution", noise=0.1, purifier="consistency")
    assert 0 < model.levels[-1] < model.levels[0] == 1


def test_a_problem_gets_its_preset_or_the_general_settings():
    noisy = Problem(BLUR, channels.GaussianNoise(0.05))
    expected = DCDP.preset("gaussian-deblur", 8, noise=0.05, ending="adapted", purifier="tweedie")
    assert DCDP.for_problem(noisy, "gaussian-deblur") == expected
    assert DCDP.for_problem(noisy) == DCDP(purifier="tweedie")
    exact = Problem(BLUR, channels.GaussianNoise(0.0))
    assert DCDP.for_problem(noisy, "gaussian-deblur").return_ == "purified"
    for solver in (DCDP, LatentDCDP):  # what fits measurements without noise is x_K
        assert solver.for_problem(exact, "gaussian-deblur").return_ == "consistent"
        chosen = solver.for_problem(exact, "gaussian-deblur", return_="purified")
        assert chosen.return_ == "purified"
    bits = Problem(BLUR, channels.OneBit(0.5))
    assert DCDP.for_problem(bits, "onebit-cs", rounds=3) == DCDP(
        purifier="tweedie", tau=20, rounds=3
    )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("noise", [0.02, 0.1, 3.0])
@pytest.mark.parametrize("kind", [DCDP, LatentDCDP])
def test_every_preset_is_a_valid_solver_and_can_be_changed(task, noise, kind):
    solver = kind.preset(task, noise=noise, rounds=5, momentum=0.5)
    assert (solver.rounds, solver.tau, solver.momentum) == (5, 200, 0.5)
    if kind is DCDP:
        kind.preset(task, noise=noise, purifier="consistency", ending="adapted")


def test_what_dcdp_cannot_do_it_refuses_with_a_reason():
    prior = _prior()
    problem, y = _measured(BLUR)
    with pytest.raises(InputError, match=r"must stay below 3\.8"):
        DCDP(step_size=3.9)(problem, y, prior)
    with pytest.raises(InputError, match=r"must stay below 3\.8"):
        LatentDCDP(step_size=3.9)(problem, y, linear_latent(prior, 5))
    bits = Problem(BLUR, channels.OneBit(0.0))
    with pytest.raises(InputError, match="gradient of the likelihood"):
        DCDP()(
            bits, bits.measure(torch.randn(1, *SHAPE, generator=_seed()), generator=_seed()), prior
        )
    narrow = GaussianConsistency(_prior(sigma_max=80.0))
    with pytest.raises(InputError, match="start and end are noise levels"):
        DCDP(purifier="consistency", start=400)(problem, y, narrow)


def test_steps_on_latents_that_are_too_long_stop_at_their_round():
    problem, y = _measured(BLUR)
    unstable = LatentDCDP(rounds=5, tau=2000, step_size=50.0, consistency="latent")
    with pytest.raises(DivergenceError, match=r"at step 1; .*smaller steps"):
        unstable(problem, y, linear_latent(_prior(), 5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: DCDP(rounds=0),
        lambda: DCDP(tau=0),
        lambda: DCDP(momentum=1.0),
        lambda: DCDP(step_size=0.0),
        lambda: DCDP(step_size=math.nan),
        lambda: DCDP(start=1001),
        lambda: DCDP(start=100, end=200),
        lambda: DCDP(end=-1),
        lambda: DCDP(purifier="magic"),
        lambda: DCDP(return_="both"),
        lambda: LatentDCDP(consistency="both"),
        lambda: LatentDCDP(consistency="latent"),
        lambda: LatentDCDP(purifier="consistency"),
        lambda: DCDP.preset("inpaint-box", ending="late"),
        lambda: DCDP.preset("sharpen"),
        lambda: DCDP.preset("denoise"),
        lambda: DCDP.preset("inpaint-box", data="imagenet"),
        lambda: DCDP.preset("inpaint-box", noise=-0.1),
    ],
)
def test_impossible_parameters_are_refused(make):
    with pytest.raises(InputError):
        make()


def test_the_collapse_changes_no_answer_of_the_solver():
    operator = operators.PixelMask(SHAPE, 0.5, 0)
    problem, y = _measured(operator)
    by_gram = DCDP(rounds=3, step_size=0.05)(problem, y, _prior())
    looped = operators.from_function(operator.apply, SHAPE, adjoint=operator.adjoint)
    loop = DCDP(rounds=3, step_size=0.05)(Problem(looped, EXACT), y, _prior())
    torch.testing.assert_close(by_gram.image, loop.image)
    assert by_gram.operator_calls < loop.operator_calls / 10
