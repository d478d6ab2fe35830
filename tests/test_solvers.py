"""Solvers against posteriors that are known exactly, plain reimplementations, and themselves."""

import inspect
import math

import numpy as np
import pytest
import torch

from diffsplit import Problem, channels, operators
from diffsplit.counting import counting
from diffsplit.errors import DivergenceError, InputError
from diffsplit.noise import randn_like
from diffsplit.priors import (
    GaussianConsistency,
    GaussianMixturePrior,
    GaussianPrior,
    from_callable,
)
from diffsplit.solvers import DiffEP, DiffOneBit, Renoising, State, Trace

SHAPE = (3, 16, 16)
SIZE = math.prod(SHAPE)


def _seed(value=0):
    return torch.Generator().manual_seed(value)


def _operators(rows):
    return {
        "hadamard": operators.RandomizedTransform(SHAPE, rows=rows, seed=1),
        "dct": operators.RandomizedTransform(SHAPE, rows=rows, seed=1, transform="dct"),
        "gaussian": operators.GaussianMatrix(SHAPE, rows=rows, seed=1),
    }


def _smooth_prior():
    """A Gaussian whose variances fall by a factor of a thousand: compressible, as images are."""
    return GaussianPrior(SHAPE, 0.1, torch.logspace(0, -3, SIZE).view(SHAPE))


def _exact_posterior(prior, operator, sigma, y):
    """Mean and mean variance of x0 given y = A x0 + σ n, by linear algebra in float64."""
    a = operator.apply(torch.eye(SIZE).view(SIZE, *SHAPE)).double().T
    cov = torch.diag(prior.eigenvalues)
    mean = prior.mean.view(SIZE)
    gain = cov @ a.T @ torch.linalg.inv(a @ cov @ a.T + sigma**2 * torch.eye(len(a)))
    x = mean + (y.double().flatten(1) - mean @ a.T) @ gain.T
    return x.view(-1, *SHAPE), torch.trace(cov - gain @ a @ cov).item() / SIZE


@pytest.mark.parametrize("kind", ["hadamard", "dct", "gaussian"])
def test_diffep_finds_the_posterior_mean_and_variance_of_a_gaussian(kind):
    prior, operator = _smooth_prior(), _operators(300)[kind]
    problem = Problem(operator, channels.GaussianNoise(sigma=0.1))
    x = prior.sample(8, _seed())
    y = problem.measure(x, generator=_seed(1))
    mean, variance = _exact_posterior(prior, operator, 0.1, y)
    result = DiffEP(iterations=30, tolerance=1e-5)(problem, y, prior)
    # the fixed point is exact as N → ∞; at N = 768 a tenth of the posterior's own spread is left
    assert (result.image - mean).square().mean() < 0.02 * variance
    # 300 measurements tell the level of one image to 8 %, and so the mean of eight to 3 %
    assert result.predicted_error.mean().item() == pytest.approx(variance, rel=0.08)
    assert result.converged.all()
    assert result.reason == ""


@pytest.mark.parametrize("kind", ["hadamard", "dct", "gaussian"])
def test_diffep_is_nearly_exact_in_one_exchange_for_white_signals(kind):
    prior, operator = GaussianPrior(SHAPE, 0.0, 0.3), _operators(400)[kind]
    problem = Problem(operator, channels.GaussianNoise(sigma=0.2))
    x = prior.sample(4, _seed())
    y = problem.measure(x, generator=_seed(1))
    mean, variance = _exact_posterior(prior, operator, 0.2, y)
    result = DiffEP(iterations=40, tolerance=1e-6)(problem, y, prior)
    # the level that is measured per image differs a little from the true one
    bound = 1e-3 if kind != "gaussian" else 0.01
    assert (result.image - mean).square().mean() < bound * variance


@pytest.mark.parametrize("kind", ["hadamard", "gaussian"])
@pytest.mark.parametrize(
    "channel",
    [channels.OneBit(sigma=0.3), channels.OneBit(sigma=0.0), channels.Logistic()],
    ids=["probit", "noiseless", "logistic"],
)
def test_the_noise_that_diffep_predicts_is_the_noise_there_is(kind, channel):
    prior, operator = _smooth_prior(), _operators(500)[kind]
    problem = Problem(operator, channel)
    x = prior.sample(16, _seed())
    y = problem.measure(x, generator=_seed(1))
    result = DiffEP(iterations=25, tolerance=1e-4)(problem, y, prior)
    true = (result.image - x).square().mean()
    assert result.trace["predicted_error"][-1].mean().item() == pytest.approx(true.item(), rel=0.1)


def test_a_first_answer_that_promises_too_much_is_not_kept_over_later_ones():
    """The curve is 20 times too good; the divergence, measured from then on, is not."""

    class Boastful(GaussianPrior):
        def error(self, sigma):
            return super().error(sigma) / 20

    honest, operator = _smooth_prior(), _operators(500)["hadamard"]
    boastful = Boastful(SHAPE, 0.1, torch.logspace(0, -3, SIZE).view(SHAPE))
    problem = Problem(operator, channels.OneBit(sigma=0.3))
    x = honest.sample(8, _seed())
    y = problem.measure(x, generator=_seed(1))
    errors = [
        (DiffEP()(problem, y, prior, generator=_seed(2)).image - x).square().mean()
        for prior in (honest, boastful)
    ]
    assert errors[1] < 1.1 * errors[0]


def test_one_bit_recovery_of_a_mixture_finds_the_right_component():
    means = torch.where(torch.rand((5, *SHAPE), generator=_seed(3)) < 0.5, -0.5, 0.5)
    prior = GaussianMixturePrior(means, [0.01] * 5)
    problem = Problem(_operators(200)["gaussian"], channels.OneBit(sigma=0.5))
    x = prior.sample(10, _seed())
    y = problem.measure(x, generator=_seed(1))
    nearest = torch.cdist(x.flatten(1), means.flatten(1)).argmin(1)
    found = DiffEP()(problem, y, prior).image
    assert (torch.cdist(found.flatten(1), means.flatten(1)).argmin(1) == nearest).all()


def test_posterior_samples_have_the_exact_mean_and_spread():
    prior, operator = _smooth_prior(), _operators(300)["hadamard"]
    problem = Problem(operator, channels.GaussianNoise(sigma=0.1))
    y = problem.measure(prior.sample(2, _seed()), generator=_seed(1))
    mean, variance = _exact_posterior(prior, operator, 0.1, y)
    # ancestral steps are too tight by about 2/steps: 60 of them leave a few percent
    solver = DiffEP(iterations=30, tolerance=1e-5, samples=60, sample_steps=60)
    result = solver(problem, y, prior, generator=_seed(2))
    assert result.samples.shape == (60, 2, *SHAPE)
    assert (result.samples.mean(0) - mean).square().mean() < 0.1 * variance
    assert result.samples.var(0).mean().item() == pytest.approx(variance, rel=0.1)


def test_a_prior_without_an_error_curve_is_measured_by_its_divergence():
    exact, problem = _smooth_prior(), Problem(_operators(300)["hadamard"], channels.OneBit(0.3))
    blind = from_callable(exact.denoise, SHAPE, mean_square=exact.mean_square, bounds=None)
    y = problem.measure(exact.sample(4, _seed()), generator=_seed(1))
    solver = DiffEP(iterations=12, tolerance=1e-3)
    known, estimated = solver(problem, y, exact), solver(problem, y, blind)
    torch.testing.assert_close(
        estimated.trace["predicted_error"][-1], known.trace["predicted_error"][-1], rtol=0.1, atol=0
    )
    assert known.nfe == len(known.trace) + 2
    assert estimated.nfe == len(estimated.trace) + 3


@pytest.mark.parametrize("spacing", ["even", "quadratic"])
@pytest.mark.parametrize("zeta", [0.0, 0.3])
def test_diff_onebit_is_algorithm_1_and_2_as_the_paper_writes_them(zeta, spacing):
    """A plain loop in the paper's letters: variance preserving, ε_θ, autograd and torch's Adam."""
    prior = GaussianPrior((3, 4, 4), 0.0, 0.3)
    operator = operators.GaussianMatrix((3, 4, 4), rows=30, seed=0)
    problem, lam, noise_std = Problem(operator, channels.OneBit(sigma=0.5)), 0.05, 0.5
    y = problem.measure(prior.sample(2, _seed()), generator=_seed(1))
    matrix = operator.matrix

    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = (1 - betas).cumprod(0)
    timesteps = [50 * k - 1 for k in range(1, 21)]
    if spacing == "quadratic":
        timesteps = [int(t) for t in np.sqrt(np.linspace(0, 1000**2, 20))]
        timesteps[-1] -= 1
    alpha = [1.0] + [math.sqrt(alpha_bar[t]) for t in timesteps]
    sigma = [0.0] + [math.sqrt(1 - alpha_bar[t]) for t in timesteps]

    def eps_theta(x_t, k):
        scaled = x_t / alpha[k]
        level = sigma[k] / alpha[k]
        return (scaled - 0.3 / (0.3 + level**2) * scaled) / level

    generator = _seed(7)
    x = randn_like(torch.zeros(2, 3, 4, 4), generator)
    for k in range(20, 0, -1):
        z = (x - sigma[k] * eps_theta(x, k)) / alpha[k]
        mu = lam * alpha[k] ** 2 / sigma[k] ** 2
        guess = z.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([guess], lr=0.25)
        for _ in range(100):
            optimizer.zero_grad()
            margin = y * (guess.flatten(1) @ matrix.T) / noise_std
            loss = -torch.special.log_ndtr(margin).sum() + mu / 2 * (guess - z).square().sum()
            loss.backward()
            optimizer.step()
        x_hat = guess.detach()
        eps_hat = (x - alpha[k] * x_hat) / sigma[k]
        noise = math.sqrt(1 - zeta) * eps_hat
        if zeta:
            noise = noise + math.sqrt(zeta) * randn_like(x, generator)
        x = alpha[k - 1] * x_hat + sigma[k - 1] * noise

    result = DiffOneBit(lam=lam, zeta=zeta, spacing=spacing)(problem, y, prior, generator=_seed(7))
    torch.testing.assert_close(result.image, x, rtol=5e-3, atol=5e-3)
    assert result.nfe == 20


def test_diffep_stops_at_its_fixed_point():
    prior = _smooth_prior()
    problem = Problem(_operators(200)["hadamard"], channels.OneBit(sigma=0.5))
    y = problem.measure(prior.sample(4, _seed()), generator=_seed(1))
    short = DiffEP(iterations=40)(problem, y, prior)
    long = DiffEP(iterations=40, tolerance=0.0)(problem, y, prior)
    assert short.nfe < 20
    assert short.nfe < long.nfe
    gap = (short.image - long.image).square().mean() / long.trace["predicted_error"][-1].mean()
    assert gap < 0.02


def test_a_users_random_matrix_is_as_good_as_ours():
    prior, ours = _smooth_prior(), _operators(300)["gaussian"]
    theirs = operators.from_matrix(3 * ours.matrix, SHAPE, rows="iid")
    x = prior.sample(4, _seed())
    for operator, sigma in ((ours, 0.5), (theirs, 1.5)):
        problem = Problem(operator, channels.OneBit(sigma=sigma))
        image = DiffEP()(problem, problem.measure(x, generator=_seed(1)), prior).image
        if operator is ours:
            expected = image
    torch.testing.assert_close(image, expected, rtol=1e-3, atol=1e-3)


def test_message_passing_costs_one_application_and_one_adjoint_per_evaluation():
    prior = _smooth_prior()
    for kind in ("hadamard", "gaussian"):
        problem = Problem(_operators(200)[kind], channels.OneBit(sigma=0.5))
        y = problem.measure(prior.sample(2, _seed()), generator=_seed(1))
        result = DiffEP(iterations=5, tolerance=0.0)(problem, y, prior)
        assert result.operator_calls <= 2 * result.nfe + 1


def test_exact_steps_apply_a_stored_matrix_only_at_their_ends():
    prior, counts = _smooth_prior(), []

    class Counting(operators.GaussianMatrix):
        def _apply(self, x):
            counts.append(1)
            return super()._apply(x)

    problem = Problem(Counting(SHAPE, 100, 0), channels.OneBit(sigma=0.5))
    y = problem.measure(prior.sample(2, _seed()), generator=_seed(1))
    counts.clear()
    result = DiffOneBit(steps=4, data_step="exact")(problem, y, prior)
    assert len(counts) <= 2 * 4
    assert result.operator_calls > 10 * len(counts)


def test_nearly_noiseless_measurements_still_give_finite_samples():
    prior = _smooth_prior()
    problem = Problem(
        operators.PixelMask(SHAPE, fraction=1.0, seed=0), channels.GaussianNoise(0.005)
    )
    x = prior.sample(2, _seed())
    y = problem.measure(x, generator=_seed(1))
    result = DiffEP(samples=3)(problem, y, prior)
    assert torch.isfinite(result.samples).all()
    assert (result.image - x).abs().max() < 0.05


def test_bounded_priors_give_images_inside_their_bounds():
    prior = from_callable(lambda x, s: 3 * x / (1 + s.view(-1, 1, 1, 1)), SHAPE)
    problem = Problem(_operators(200)["hadamard"], channels.OneBit(sigma=0.5))
    for solver in (DiffOneBit(steps=3), DiffEP(samples=2, sample_steps=2)):
        result = solver(problem, torch.ones(1, 200), prior)
        assert result.image.abs().max() <= 1


def test_what_a_solver_cannot_do_it_refuses_with_a_reason():
    prior = _smooth_prior()
    noiseless = channels.OneBit(sigma=0.0)
    y = torch.ones(1, 200)
    with pytest.raises(InputError, match="gradient of the likelihood"):
        DiffOneBit()(Problem(_operators(200)["gaussian"], noiseless), y, prior)
    with pytest.raises(InputError, match="orthogonal rows"):
        DiffOneBit(data_step="exact")(Problem(_operators(200)["gaussian"], noiseless), y, prior)
    with pytest.raises(InputError, match="random rows leave a white one; DiffEP chooses"):
        Renoising()(Problem(_operators(200)["gaussian"], channels.OneBit(sigma=0.5)), y, prior)
    problem = Problem(_operators(200)["hadamard"], channels.OneBit(sigma=0.5))
    with pytest.raises(InputError, match=r"\(B, 200\) were expected"):
        DiffEP()(problem, torch.ones(1, 201), prior)
    with pytest.raises(InputError, match="sampler is a consistency model"):
        DiffEP(sampler=prior)(problem, y, prior)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DiffEP(iterations=0),
        lambda: DiffEP(damping=1.0),
        lambda: DiffEP(output="both"),
        lambda: DiffEP(iterations=2.0),
        lambda: DiffOneBit(steps=20.0),
        lambda: DiffOneBit(lam=math.inf),
        lambda: DiffOneBit(lam=0.0),
        lambda: DiffOneBit(zeta=1.5),
        lambda: DiffOneBit(steps=0),
        lambda: DiffOneBit(data_step="magic"),
    ],
)
def test_impossible_parameters_are_refused(make):
    with pytest.raises(InputError):
        make()


def test_solvers_keep_the_order_of_their_parameters():
    assert list(inspect.signature(DiffEP).parameters)[:2] == ["levels", "iterations"]


def test_a_run_that_diverges_is_stopped_at_the_step_that_did():
    calls = []

    def broken(x, sigma):
        calls.append(1)
        return x * math.nan if len(calls) == 3 else x

    problem = Problem(_operators(200)["hadamard"], channels.OneBit(sigma=0.5))
    with pytest.raises(DivergenceError, match="DiffOneBit gave NaN or infinity at step 3"):
        DiffOneBit(steps=9)(problem, torch.ones(1, 200), from_callable(broken, SHAPE))
    assert len(calls) == 3


def test_the_weight_of_diff_onebit_goes_with_the_problem():
    mask = operators.PixelMask(SHAPE, 0.5, 0)
    bit, noise = channels.OneBit(0.5), channels.GaussianNoise(0.1)
    expected = {
        1.0: [(mask, bit), (2.0 * mask, bit), (operators.Blur.gaussian(SHAPE, 3, 1.0), noise)],
        0.02: [(_operators(20)["gaussian"], bit), (_operators(20)["dct"], channels.Logistic())],
    }
    for weight, problems in expected.items():
        for operator, channel in problems:
            assert DiffOneBit().weight(Problem(operator, channel)) == weight
            assert DiffOneBit(lam=3.0).weight(Problem(operator, channel)) == 3.0


def test_a_sampler_that_would_have_no_effect_is_refused():
    prior = _smooth_prior()
    sampler = GaussianConsistency(prior)
    bits = Problem(_operators(20)["hadamard"], channels.OneBit(0.5))
    blur = Problem(operators.Blur.gaussian(SHAPE, 3, 1.0), channels.GaussianNoise(0.1))
    y = bits.measure(torch.zeros(1, *SHAPE), generator=_seed())
    with pytest.raises(InputError, match="none are asked for; add samples=8"):
        DiffEP(sampler=sampler)(bits, y, prior)
    y = blur.measure(torch.zeros(1, *SHAPE), generator=_seed())
    with pytest.raises(InputError, match="leave out the sampler"):
        DiffEP(sampler=sampler, samples=2)(blur, y, prior)


def test_a_multiple_of_a_mask_is_recovered_as_the_mask_is():
    prior, mask = _smooth_prior(), operators.PixelMask(SHAPE, 0.5, 0)
    x = prior.sample(2, _seed())
    for channel, sigma in ((channels.OneBit, 0.4), (channels.GaussianNoise, 0.1)):
        images = []
        for factor in (1.0, 2.0):
            operator = mask if factor == 1.0 else factor * mask
            problem = Problem(operator, channel(factor * sigma))
            y = problem.measure(x, generator=_seed(1))
            images.append(DiffEP()(problem, y, prior, generator=_seed(2)).image)
            if channel is channels.OneBit:
                image = DiffOneBit(steps=4, data_step="exact")(problem, y, prior).image
                images.append(image)
        half = len(images) // 2
        for ours, theirs in zip(images[:half], images[half:], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_recovery_shows_shapes_and_costs_and_no_tensors():
    problem = Problem(_operators(20)["hadamard"], channels.OneBit(sigma=0.5))
    solver = DiffEP(iterations=2, samples=2, sample_steps=2)
    result = solver(problem, torch.ones(1, 20), _smooth_prior())
    assert repr(result) == (
        f"Recovery(image=(1, 3, 16, 16), nfe={result.nfe}, seconds={result.seconds:.1f}, "
        f"converged={result.converged.tolist()}, samples=(2, 1, 3, 16, 16), "
        f"trace={result.trace.columns})"
    )


def test_a_trace_gives_its_columns_as_a_dict_does_and_names_them_when_asked_for_another():
    trace = Trace()
    for _ in range(3):
        trace.add(State(1.0, torch.zeros(2, 1), {"error": torch.zeros(2)}))
    assert len(trace) == 3
    assert list(trace.keys()) == ["sigma", "error"]
    assert [(name, column.shape) for name, column in trace.items()] == [
        ("sigma", (3, 2)),
        ("error", (3, 2)),
    ]
    assert dict(trace).keys() == {"sigma", "error"}
    assert repr(trace) == "Trace(3 steps, columns=['sigma', 'error'])"
    with pytest.raises(InputError, match="no column 'psnr'; there are sigma, error"):
        trace["psnr"]
    with pytest.raises(InputError, match="no step"):
        Trace()["sigma"]


def test_a_trace_applies_the_operator_only_when_somebody_looks_or_memory_runs_out(monkeypatch):
    problem = Problem(operators.PixelMask(SHAPE, 0.5, 0), channels.GaussianNoise(0.1))
    x = _smooth_prior().sample(2, _seed())
    y = problem.measure(x, generator=_seed(1))
    trace = Trace(problem, y)
    with counting() as count:
        trace.add(State(1.0, x))
        assert count.operator == 0
        torch.testing.assert_close(trace["misfit"][0], problem.misfit(x, y))
    assert count.operator == 2  # of the line above
    monkeypatch.setattr("diffsplit.solvers.recovery.KEPT_BYTES", 2 * x.nbytes)
    trace = Trace(problem, y)
    with counting() as count:
        for _ in range(3):
            trace.add(State(1.0, x))
        assert count.operator == 0  # the misfits of a trace are not part of the method
        assert not trace._unseen
