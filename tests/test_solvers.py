"""Solvers against posteriors that are known exactly, plain reimplementations, and themselves."""

import copy
import inspect
import math
import pickle

import pytest
import torch

from diffsplit import Problem, channels, operators
from diffsplit.errors import DivergenceError, InputError
from diffsplit.noise import randn_like
from diffsplit.priors import GaussianMixturePrior, GaussianPrior, from_callable
from diffsplit.solvers import DCDP, DiffEP, DiffOneBit, LatentDCDP
from diffsplit.solvers.metered import MeteredOperator
from diffsplit.solvers.recovery import Trace

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
    assert result.trace["predicted_error"][-1].mean().item() == pytest.approx(variance, rel=0.05)


@pytest.mark.parametrize("kind", ["hadamard", "dct", "gaussian"])
def test_diffep_is_exact_in_one_exchange_for_white_signals_and_orthogonal_rows(kind):
    prior, operator = GaussianPrior(SHAPE, 0.0, 0.3), _operators(400)[kind]
    problem = Problem(operator, channels.GaussianNoise(sigma=0.2))
    x = prior.sample(4, _seed())
    y = problem.measure(x, generator=_seed(1))
    mean, variance = _exact_posterior(prior, operator, 0.2, y)
    result = DiffEP(iterations=40, tolerance=1e-6)(problem, y, prior)
    bound = 1e-9 if kind != "gaussian" else 0.01
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
    assert result.std.square().mean().item() == pytest.approx(variance, rel=0.1)


def test_a_prior_without_an_error_curve_is_measured_by_its_divergence():
    exact, problem = _smooth_prior(), Problem(_operators(300)["hadamard"], channels.OneBit(0.3))
    blind = from_callable(exact.denoise, SHAPE, mean_square=exact.mean_square, bounds=None)
    y = problem.measure(exact.sample(4, _seed()), generator=_seed(1))
    solver = DiffEP(iterations=12, tolerance=1e-3)
    known, estimated = solver(problem, y, exact), solver(problem, y, blind)
    torch.testing.assert_close(
        estimated.trace["predicted_error"][-1], known.trace["predicted_error"][-1], rtol=0.1, atol=0
    )
    assert estimated.nfe == 2 * len(estimated.trace)


@pytest.mark.parametrize("zeta", [0.0, 0.3])
def test_diff_onebit_is_algorithm_1_and_2_as_the_paper_writes_them(zeta):
    """A plain loop in the paper's letters: variance preserving, ε_θ, autograd and torch's Adam."""
    prior = GaussianPrior((3, 4, 4), 0.0, 0.3)
    operator = operators.GaussianMatrix((3, 4, 4), rows=30, seed=0)
    problem, lam, noise_std = Problem(operator, channels.OneBit(sigma=0.5)), 0.05, 0.5
    y = problem.measure(prior.sample(2, _seed()), generator=_seed(1))
    matrix = operator.matrix

    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = (1 - betas).cumprod(0)
    timesteps = [50 * k - 1 for k in range(1, 21)]
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

    result = DiffOneBit(lam=lam, zeta=zeta)(problem, y, prior, generator=_seed(7))
    torch.testing.assert_close(result.image, x, rtol=5e-3, atol=5e-3)
    assert result.nfe == 20


SOLVERS = {
    "DiffEP": DiffEP(),
    "DiffEP samples": DiffEP(output="sample", samples=2, sample_steps=4),
    "DiffOneBit adam": DiffOneBit(steps=6, adam_steps=10),
    "DiffOneBit exact": DiffOneBit(steps=6, data_step="exact", zeta=0.2),
}


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("kind", ["hadamard", "gaussian"])
def test_a_batch_recovers_what_its_images_recover_alone(name, kind):
    prior = _smooth_prior()
    problem = Problem(_operators(200)[kind], channels.OneBit(sigma=0.5))
    y = problem.measure(prior.sample(3, _seed()), generator=_seed(1))
    together = SOLVERS[name](problem, y, prior, generator=[_seed(i) for i in range(3)])
    for i in range(3):
        alone = SOLVERS[name](problem, y[i : i + 1], prior, generator=[_seed(i)])
        torch.testing.assert_close(together.image[i : i + 1], alone.image, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_seed_gives_the_same_bits_twice_and_no_global_generator_is_touched(name):
    prior = _smooth_prior()
    problem = Problem(_operators(200)["hadamard"], channels.OneBit(sigma=0.5))
    y = problem.measure(prior.sample(2, _seed()), generator=_seed(1))
    state = torch.get_rng_state()
    first = SOLVERS[name](problem, y, prior, generator=_seed(5))
    second = SOLVERS[name](problem, y, prior, generator=_seed(5))
    assert torch.equal(first.image, second.image)
    assert torch.equal(state, torch.get_rng_state())
    if name != "DiffEP":
        other = SOLVERS[name](problem, y, prior, generator=_seed(6))
        assert not torch.equal(first.image, other.image)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_trace_the_count_and_the_callback_tell_the_same_story(name):
    prior = _smooth_prior()
    problem = Problem(_operators(200)["hadamard"], channels.OneBit(sigma=0.5))
    x = prior.sample(2, _seed())
    y = problem.measure(x, generator=_seed(1))
    seen = []
    result = SOLVERS[name](problem, y, prior, callback=seen.append)
    assert [step.index for step in seen] == list(range(len(result.trace)))
    assert result.trace["sigma"].shape == (len(seen), 2)
    last = seen[-1].image
    torch.testing.assert_close(result.trace["misfit"][-1], problem.nll(last, y))
    torch.testing.assert_close(
        result.trace["sign_consistency"][-1], problem.sign_consistency(last, y)
    )
    sampling = result.samples.shape[0] * 4 if result.samples is not None else 0
    assert result.nfe == len(seen) + sampling
    assert not result.image.requires_grad
    assert result.seconds > 0


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
    metered = MeteredOperator(problem.operator)
    metered.apply_gram(torch.ones(1, 100))
    assert metered.calls == 2


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
    unknown = operators.from_matrix(torch.ones(5, SIZE) + torch.eye(5, SIZE), SHAPE)
    with pytest.raises(InputError, match="DiffEP needs an operator"):
        DiffEP()(Problem(unknown, channels.OneBit(sigma=0.5)), torch.ones(1, 5), prior)
    problem = Problem(_operators(200)["hadamard"], channels.OneBit(sigma=0.5))
    with pytest.raises(InputError, match=r"\(B, 200\) were expected"):
        DiffEP()(problem, torch.ones(1, 201), prior)
    with pytest.raises(InputError, match="NaN"):
        DiffEP()(problem, torch.full((1, 200), math.nan), prior)
    with pytest.raises(InputError, match=r"load it with ds\.load_prior\('cats-64'\)"):
        DiffEP()(problem, y, "cats-64")
    with pytest.raises(InputError, match="prior knows images of shape"):
        DiffEP()(problem, y, GaussianPrior((3, 8, 8)))
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


def test_a_result_that_is_not_finite_is_an_error_and_not_an_image():
    problem = Problem(_operators(200)["hadamard"], channels.OneBit(sigma=0.5))
    broken = from_callable(lambda x, s: x * math.nan, SHAPE)
    with pytest.raises(DivergenceError, match="finite"):
        DiffOneBit(steps=2)(problem, torch.ones(1, 200), broken)


@pytest.mark.parametrize("solver", [DiffEP, DiffOneBit, DCDP, LatentDCDP])
def test_a_solver_made_of_its_problem_asks_for_the_forgotten_parentheses(solver):
    problem = Problem(_operators(20)["hadamard"], channels.OneBit(sigma=0.5))
    sentence = rf"build the solver first: {solver.__name__}\(\)\(problem, y, prior\)\."
    with pytest.raises(InputError, match=f"^{sentence}$"):
        solver(problem, torch.ones(1, 20), _smooth_prior())


def test_solvers_survive_copying_and_keep_the_signature_of_their_parameters():
    solver = DiffEP(iterations=3)
    assert pickle.loads(pickle.dumps(solver)) == copy.deepcopy(solver) == solver
    assert list(inspect.signature(DiffEP).parameters)[:2] == ["levels", "iterations"]


@pytest.mark.parametrize("generator", [0, False, [0, 1]])
def test_a_seed_where_a_generator_belongs_is_refused_and_not_taken_for_none(generator):
    problem = Problem(_operators(20)["hadamard"], channels.OneBit(sigma=0.5))
    with pytest.raises(InputError, match="manual_seed"):
        DiffEP()(problem, torch.ones(2, 20), _smooth_prior(), generator=generator)


def test_a_recovery_shows_shapes_and_costs_and_no_tensors():
    problem = Problem(_operators(20)["hadamard"], channels.OneBit(sigma=0.5))
    solver = DiffEP(iterations=2, samples=2, sample_steps=2)
    result = solver(problem, torch.ones(1, 20), _smooth_prior())
    assert repr(result) == (
        f"Recovery(image=(1, 3, 16, 16), nfe={result.nfe}, seconds={result.seconds:.1f}, "
        f"samples=(2, 1, 3, 16, 16), trace={result.trace.columns})"
    )


def test_a_trace_gives_its_columns_as_a_dict_does_and_names_them_when_asked_for_another():
    trace = Trace([{"sigma": torch.ones(2), "misfit": torch.zeros(2)}] * 3)
    assert len(trace) == 3
    assert list(trace.keys()) == ["sigma", "misfit"]
    assert [(name, column.shape) for name, column in trace.items()] == [
        ("sigma", (3, 2)),
        ("misfit", (3, 2)),
    ]
    assert dict(trace).keys() == {"sigma", "misfit"}
    assert repr(trace) == "Trace(3 steps, columns=['sigma', 'misfit'])"
    with pytest.raises(InputError, match="no column 'psnr'; there are sigma, misfit"):
        trace["psnr"]
    with pytest.raises(InputError, match="no step"):
        Trace()["sigma"]
