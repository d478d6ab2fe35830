"""What every solver has to do. A new one passes by being listed in `CASES`."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from diffsplit import ConsistencyModel, Denoiser, LatentModel, Prior, Problem, solvers
from diffsplit.channels import GaussianNoise, Logistic, OneBit, Quantized
from diffsplit.counting import counting
from diffsplit.errors import DivergenceError, InputError
from diffsplit.operators import (
    Blur,
    Downsample,
    GaussianMatrix,
    PixelMask,
    RandomizedTransform,
    from_function,
)
from diffsplit.priors import GaussianConsistency, GaussianPrior, from_callable, linear_latent
from diffsplit.solvers import (
    DCDP,
    DDRM,
    PSLD,
    QCSSGM,
    SIMDMIS,
    SOLVERS,
    BackProjection,
    Bicubic,
    ConsistencyEditing,
    DDNMPlus,
    DiffEP,
    DiffOneBit,
    LatentDCDP,
    LatentDPS,
    MeanFill,
    MessagePassing,
    Renoising,
    ReSample,
    Solver,
    Wiener,
)

SHAPE = (3, 8, 8)
SIZE = math.prod(SHAPE)


def own(x: Tensor) -> Tensor:
    """A user's function: neighbors summed, with weights that grow from left to right."""
    return (x + x.roll(1, -1) + 0.5 * x.roll(1, -2)) * torch.linspace(0.2, 1, SHAPE[-1])


PROBLEMS = {
    "hadamard, 1 bit": Problem(RandomizedTransform(SHAPE, rows=90, seed=1), OneBit(0.5)),
    "gaussian, 1 bit": Problem(GaussianMatrix(SHAPE, rows=90, seed=1), OneBit(0.5)),
    "gaussian, logistic": Problem(GaussianMatrix(SHAPE, rows=90, seed=1), Logistic()),
    "hadamard, 4 bits": Problem(
        RandomizedTransform(SHAPE, rows=SIZE, seed=1), Quantized(bits=4, sigma=0.1, limit=2.0)
    ),
    "mask, 2 bits": Problem(PixelMask(SHAPE, 0.5, 1), Quantized(bits=2, sigma=0.3)),
    "mask, noise": Problem(PixelMask(SHAPE, 0.5, 1), GaussianNoise(0.1)),
    "blur, noise": Problem(Blur.gaussian(SHAPE, 3, 0.6), GaussianNoise(0.1)),
    "blur, exact": Problem(Blur.gaussian(SHAPE, 3, 0.6), GaussianNoise(0.0)),
    "bicubic, noise": Problem(Downsample(SHAPE, 2, "bicubic"), GaussianNoise(0.1)),
    "own, noise": Problem(from_function(own, SHAPE), GaussianNoise(0.1)),
    "own, 2 bits": Problem(from_function(own, SHAPE), Quantized(bits=2, sigma=0.3)),
}


def smooth() -> GaussianPrior:
    """A Gaussian whose variances fall: compressible, as images are."""
    return GaussianPrior(SHAPE, 0.1, torch.logspace(0, -2, SIZE).view(SHAPE))


def blind() -> Denoiser:
    """The same without an error curve, as every loaded checkpoint is."""
    exact = smooth()
    return from_callable(exact.denoise, SHAPE, mean_square=exact.mean_square, bounds=None)


@dataclass(frozen=True)
class Case:
    """A solver, a prior for it, a problem that it accepts, and whether it draws noise."""

    solver: Solver
    problem: str
    prior: Callable[[], Prior | None] = smooth
    random: bool = True


def consistency() -> ConsistencyModel:
    return GaussianConsistency(smooth())


def latent() -> LatentModel:
    return linear_latent(smooth(), 60)


CASES = {
    "DiffEP": Case(DiffEP(), "hadamard, 1 bit", random=False),
    "DiffEP, iid": Case(DiffEP(), "gaussian, 1 bit", random=False),
    "MessagePassing": Case(MessagePassing(iterations=4), "hadamard, 1 bit", random=False),
    "Renoising": Case(Renoising(levels=5), "mask, 2 bits"),
    "DiffEP, blind": Case(DiffEP(), "hadamard, 1 bit", blind),
    "DiffEP, iid, blind": Case(DiffEP(), "gaussian, logistic", blind),
    "DiffEP, samples": Case(DiffEP(samples=3, sample_steps=4), "gaussian, 1 bit"),
    "DiffEP, sampler": Case(DiffEP(samples=2, sampler=consistency()), "hadamard, 1 bit"),
    "DiffEP, renoising": Case(DiffEP(levels=5), "bicubic, noise"),
    "DiffEP, renoising, blind": Case(DiffEP(levels=5), "mask, noise", blind),
    "DiffEP, renoised samples": Case(DiffEP(levels=5, samples=2), "blur, noise"),
    "Renoising, own operator": Case(Renoising(levels=5), "own, 2 bits"),
    "DiffEP, own operator": Case(DiffEP(levels=5, samples=2), "own, noise"),
    "DiffEP, own operator, blind": Case(DiffEP(levels=5), "own, noise", blind),
    "DiffOneBit, Adam": Case(
        DiffOneBit(steps=10, adam_steps=15, adam_lr=0.03, lam=10.0), "gaussian, 1 bit"
    ),
    "DiffOneBit, exact": Case(
        DiffOneBit(steps=5, data_step="exact", zeta=0.2, lam=4.0), "mask, 2 bits"
    ),
    "DiffOneBit, blur": Case(DiffOneBit(steps=5, spacing="even"), "blur, noise"),
    "DCDP, ddim": Case(DCDP(rounds=3, tau=20), "blur, exact"),
    "DCDP, tweedie": Case(DCDP(rounds=3, tau=9, purifier="tweedie"), "mask, 2 bits"),
    "DCDP, consistency": Case(
        DCDP(rounds=3, tau=20, purifier="consistency"), "blur, noise", consistency
    ),
    "LatentDCDP, pixel": Case(LatentDCDP(rounds=3, tau=20), "blur, exact", latent),
    "LatentDCDP, latent": Case(
        LatentDCDP(rounds=3, tau=9, step_size=0.3, consistency="latent"), "blur, noise", latent
    ),
    "DDRM": Case(DDRM(steps=6), "blur, noise"),
    "DDRM, bits": Case(DDRM(steps=6, reading="bussgang"), "hadamard, 4 bits"),
    "DDNMPlus": Case(DDNMPlus(steps=10), "blur, noise"),
    "DDNMPlus, exact": Case(DDNMPlus(steps=10), "blur, exact", random=False),
    "ConsistencyEditing": Case(ConsistencyEditing(levels=6), "blur, noise", consistency),
    "QCSSGM": Case(QCSSGM(levels=30, inner=3, step=0.3, sigma_max=3.0), "hadamard, 4 bits"),
    "SIMDMIS": Case(SIMDMIS(steps=5, inversion_steps=4), "gaussian, 1 bit", random=False),
    "LatentDPS": Case(LatentDPS(steps=60), "blur, noise", latent),
    "PSLD": Case(PSLD(steps=60), "blur, noise", latent),
    "ReSample": Case(ReSample(steps=60, latent_steps=20), "blur, noise", latent),
    "ReSample, own operator": Case(
        ReSample(steps=30, step_size=0.1, latent_steps=20), "own, noise", latent
    ),
    "DPS": Case(solvers.DPS(steps=40, zeta=0.04), "blur, noise"),
    "MCG": Case(solvers.MCG(steps=40, cutoff=0.2), "blur, exact"),
    "PiGDM": Case(solvers.PiGDM(steps=20), "mask, noise"),
    "DiffPIR": Case(solvers.DiffPIR(15, 4.0, 1.0, "quadratic"), "mask, 2 bits"),
    "DAPS": Case(solvers.DAPS(levels=10, langevin_steps=20), "blur, noise"),
    "PnPADMM": Case(solvers.PnPADMM(rho=1.0), "gaussian, 1 bit", random=False),
    "RedDiff": Case(solvers.RedDiff(steps=60, lam=4.0), "own, 2 bits"),
    "Wiener": Case(Wiener(), "blur, noise", lambda: None, random=False),
    "Bicubic": Case(Bicubic(), "bicubic, noise", lambda: None, random=False),
    "MeanFill": Case(MeanFill(), "mask, 2 bits", lambda: None, random=False),
    "BackProjection": Case(BackProjection(), "gaussian, 1 bit", lambda: None, random=False),
}
NAMES = pytest.mark.parametrize("name", CASES)


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def measured(problem: Problem, batch: int) -> Tensor:
    return problem.measure(smooth().sample(batch, seed(1)), generator=seed(2))


def test_every_solver_is_listed_here() -> None:
    public = [getattr(solvers, name) for name in solvers.__all__]
    kinds = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Solver)}
    assert kinds - {Solver} | set(SOLVERS.values()) <= {type(c.solver) for c in CASES.values()}


@NAMES
def test_a_batch_recovers_what_its_images_recover_alone(name: str) -> None:
    case = CASES[name]
    problem, prior = PROBLEMS[case.problem], case.prior()
    y = measured(problem, 3)
    together = case.solver(problem, y, prior, generator=[seed(i) for i in range(3)])
    for i in range(3):
        alone = case.solver(problem, y[i : i + 1], prior, generator=[seed(i)])
        torch.testing.assert_close(together.image[i : i + 1], alone.image, rtol=1e-3, atol=1e-3)
        if together.samples is not None:
            assert alone.samples is not None
            torch.testing.assert_close(
                together.samples[:, i : i + 1], alone.samples, rtol=1e-3, atol=1e-3
            )


def strided(x: Tensor) -> Tensor:
    """The same numbers with the channels first in memory, as the products of some layers are."""
    return x.transpose(0, 1).contiguous().transpose(0, 1)


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.prior in (smooth, blind)])
def test_the_order_of_a_prior_s_and_an_operator_s_answers_in_memory_changes_nothing(
    name: str,
) -> None:
    case, exact = CASES[name], smooth()
    problem = PROBLEMS[case.problem]
    if case.problem.startswith("own"):
        a = problem.operator
        other_a = from_function(
            lambda x: strided(own(x)), SHAPE, adjoint=lambda y: strided(a.adjoint(y))
        )
        problem = Problem(other_a, problem.channel)
    other = from_callable(
        lambda x, sigma: strided(exact.denoise(x, sigma)),
        SHAPE,
        mean_square=exact.mean_square,
        bounds=None,
    )
    y = measured(problem, 3)
    plain = case.solver(PROBLEMS[case.problem], y, blind(), generator=seed(5)).image
    image = case.solver(problem, y, other, generator=seed(5)).image
    torch.testing.assert_close(image, plain, rtol=1e-3, atol=1e-3)


@NAMES
def test_a_seed_gives_the_same_bits_twice_and_no_global_generator_is_touched(name: str) -> None:
    case = CASES[name]
    problem, prior = PROBLEMS[case.problem], case.prior()
    y = measured(problem, 2)
    state = torch.get_rng_state()
    first = case.solver(problem, y, prior, generator=seed(5)).image
    assert torch.equal(first, case.solver(problem, y, prior, generator=seed(5)).image)
    assert torch.equal(state, torch.get_rng_state())
    if case.random and name != "DiffEP, samples" and name != "DiffEP, sampler":
        assert not torch.equal(first, case.solver(problem, y, prior, generator=seed(6)).image)


@NAMES
def test_trace_callback_and_counts_tell_the_same_story(name: str) -> None:
    case = CASES[name]
    problem, prior, steps = PROBLEMS[case.problem], case.prior(), []
    y = measured(problem, 2)
    with counting() as outside:
        result = case.solver(problem, y, prior, generator=seed(5), callback=steps.append)
    assert outside.network == outside.operator == 0  # counted by the run itself
    assert [step.index for step in steps] == list(range(len(steps)))
    assert len(steps) <= case.solver.steps_at_most(problem) == steps[0].total
    traced = len(result.trace) + sum(map(len, result.sample_traces))
    assert len(steps) == traced
    own = [step for step in steps if step.trace is result.trace]
    assert result.trace["sigma"].shape == (len(own), 2)
    torch.testing.assert_close(result.trace["misfit"][-1], problem.misfit(own[-1].image, y))
    assert own[-1].numbers.keys() == set(result.trace)
    if problem.channel.outcomes is not None:
        torch.testing.assert_close(
            result.trace["sign_consistency"][-1], problem.sign_consistency(own[-1].image, y)
        )
    assert result.nfe == 0 if prior is None else result.nfe >= len(own)
    assert result.image.shape == (2, *SHAPE)
    assert not result.image.requires_grad
    assert result.seconds > 0


@NAMES
def test_the_answer_is_better_than_nothing(name: str) -> None:
    case = CASES[name]
    if name == "BackProjection":
        pytest.skip("its scale is made up")
    problem = PROBLEMS[case.problem]
    x = smooth().sample(8, seed(1))
    y = problem.measure(x, generator=seed(2))
    image = case.solver(problem, y, case.prior(), generator=seed(3)).image
    assert (image - x).square().mean() < (x - 0.1).square().mean()


@NAMES
def test_copies_and_pickles_are_equal(name: str) -> None:
    solver = CASES[name].solver
    if name != "DiffEP, sampler":  # a sampler is a model, and equal to nothing but itself
        assert pickle.loads(pickle.dumps(solver)) == copy.deepcopy(solver) == solver


@NAMES
def test_a_prior_of_another_kind_is_refused_with_one_of_the_right_kind(name: str) -> None:
    case = CASES[name]
    needed = case.solver.requires
    if needed is None:
        return
    problem = PROBLEMS[case.problem]
    for prior in (smooth(), consistency(), latent()):
        if not isinstance(prior, needed):
            with pytest.raises(InputError, match=rf"load_prior\('{needed.example}'\)"):
                case.solver(problem, measured(problem, 1), prior)
    with pytest.raises(InputError, match="takes a prior, not NoneType; load it with"):
        case.solver(problem, measured(problem, 1))
    with pytest.raises(InputError, match="load a prior of that size"):
        case.solver(problem, measured(problem, 1), _resized(needed))


def _resized(kind: type[Prior]) -> Prior:
    other = GaussianPrior((3, 4, 4))
    if kind is ConsistencyModel:
        return GaussianConsistency(other)
    return linear_latent(other, 5) if kind is LatentModel else other


@NAMES
def test_a_call_in_the_wrong_order_or_with_a_seed_is_one_sentence(name: str) -> None:
    case = CASES[name]
    problem, prior = PROBLEMS[case.problem], case.prior()
    y, kind = measured(problem, 2), type(case.solver)
    with pytest.raises(InputError, match=rf"build the solver first: {kind.__name__}\(\)"):
        kind(problem, y, prior)
    with pytest.raises(InputError, match="takes a Problem"):
        case.solver(y, problem, prior)  # type: ignore[arg-type]
    for generator in (0, False, [0, 1]):
        with pytest.raises(InputError, match="manual_seed"):
            case.solver(problem, y, prior, generator=generator)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="hold NaN"):
        case.solver(problem, torch.full_like(y.float(), math.nan), prior)


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.prior is smooth])
def test_a_prior_that_answers_nan_stops_the_run_at_its_step(name: str) -> None:
    case, calls = CASES[name], []
    exact = smooth()

    def broken(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(1)
        return exact.denoise(x, sigma) * (math.nan if len(calls) == 2 else 1.0)

    prior = from_callable(broken, SHAPE, error=exact.error, bounds=None)
    problem = PROBLEMS[case.problem]
    with pytest.raises(DivergenceError, match=r"gave NaN or infinity at (step|its answer)"):
        case.solver(problem, measured(problem, 1), prior)
