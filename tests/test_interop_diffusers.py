"""The pipeline with diffusers' habits, and diffusers' schedulers as posterior samplers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
)
from torch import Tensor

from diffsplit import Problem, operators, solvers
from diffsplit.channels import GaussianNoise
from diffsplit.errors import InputError
from diffsplit.interop import RecoveryPipeline
from diffsplit.interop.diffusers import ScheduledSampling
from diffsplit.io.images import to_uint8
from diffsplit.priors import GaussianPrior
from diffsplit.solvers import SOLVERS

SHAPE = (1, 4, 4)
SIZE = 16
SIGMA = 0.2


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def gaussian() -> GaussianPrior:
    return GaussianPrior(SHAPE, 0.3, torch.logspace(-1, -3, SIZE).view(SHAPE))


def problem_and_y(count: int = 1) -> tuple[Problem, Tensor]:
    problem = Problem(operators.PixelMask(SHAPE, fraction=0.5, seed=1), GaussianNoise(SIGMA))
    y = problem.measure(gaussian().sample(1, seed()), generator=seed(1))
    return problem, y.expand(count, -1)


def posterior(problem: Problem, y: Tensor) -> tuple[Tensor, Tensor]:
    """Exact mean and variance of each entry: pixels are independent."""
    prior = gaussian()
    seen = problem.operator.pixels
    assert seen is not None
    variance = prior.eigenvalues.view(SHAPE)
    gain = torch.where(seen, variance / (variance + SIGMA**2), 0)
    mean = 0.3 + gain * (problem.operator.adjoint(y.double())[0] - 0.3)
    return mean, variance * (1 - gain)


SCHEDULERS: dict[str, Callable[[], Any]] = {
    "DDIM": lambda: DDIMScheduler(clip_sample=False),
    "DDIM, image": lambda: DDIMScheduler(clip_sample=False, prediction_type="sample"),
    "DDIM, velocity": lambda: DDIMScheduler(clip_sample=False, prediction_type="v_prediction"),
    "DDPM": lambda: DDPMScheduler(clip_sample=False),
    "Euler": lambda: EulerDiscreteScheduler(),
    "Euler, Karras": lambda: EulerDiscreteScheduler(use_karras_sigmas=True),
    "Euler ancestral": lambda: EulerAncestralDiscreteScheduler(),
    "DPM++": lambda: DPMSolverMultistepScheduler(),
    "Heun": lambda: HeunDiscreteScheduler(),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_of_diffusers_draws_from_the_posterior(name: str) -> None:
    problem, y = problem_and_y(1000)
    mean, variance = posterior(problem, y[:1])
    # Steps with fresh noise are of the first order, and take more of them for the variance.
    steps = 600 if name in ("DDPM", "Euler ancestral") else 100
    solver = ScheduledSampling(SCHEDULERS[name](), steps)
    drawn = solver(problem, y, gaussian(), generator=seed(2)).image.double()
    assert ((drawn.mean(0) - mean).abs() / variance.sqrt()).max() < 0.25
    assert drawn.var(0).sum() == pytest.approx(float(variance.sum()), rel=0.15)


def test_the_scheduler_of_the_caller_is_left_as_it_was_and_repeats_itself() -> None:
    problem, y = problem_and_y(2)
    scheduler = DDPMScheduler(clip_sample=False)
    before = scheduler.timesteps.clone()
    solver = ScheduledSampling(scheduler, steps=10)
    first, second = (solver(problem, y, gaussian(), generator=seed()).image for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(scheduler.timesteps, before)


def test_one_generator_per_image_gives_what_single_runs_give() -> None:
    problem, y = problem_and_y(2)
    solver = ScheduledSampling(DDPMScheduler(clip_sample=False), steps=10)
    both = solver(problem, y, gaussian(), generator=[seed(1), seed(2)])
    alone = solver(problem, y[1:], gaussian(), generator=seed(2))
    torch.testing.assert_close(both.image[1:], alone.image)
    assert both.nfe == 10


@pytest.fixture(scope="module")
def pipeline() -> RecoveryPipeline:
    made = RecoveryPipeline(GaussianPrior((3, 8, 8)))
    made.set_progress_bar_config(disable=True)
    return made


def cats_and_y() -> tuple[Problem, Tensor]:
    problem = Problem(operators.PixelMask((3, 8, 8), 0.5, seed=0), GaussianNoise(0.1))
    return problem, problem.measure(torch.zeros(2, 3, 8, 8), generator=seed())


def test_a_pipeline_gives_what_its_solver_gives(pipeline: RecoveryPipeline) -> None:
    problem, y = cats_and_y()
    found = pipeline(problem, y, num_inference_steps=5, generator=seed(), output_type="pt")
    expected = solvers.DiffEP(levels=5, iterations=5)(problem, y, pipeline.prior, generator=seed())
    assert torch.equal(found.recovery.image, expected.image)
    assert torch.equal(found.images, (expected.image + 1) / 2)


def test_output_types_are_those_of_diffusers(pipeline: RecoveryPipeline) -> None:
    problem, y = cats_and_y()
    pil = pipeline(problem, y, 3)
    assert [picture.size for picture in pil.images] == [(8, 8), (8, 8)]
    assert np.array_equal(
        np.asarray(pil.images[1]), to_uint8(pil.recovery.image[1]).movedim(0, -1).numpy()
    )
    array = pipeline(problem, y, 3, output_type="np").images
    assert array.shape == (2, 8, 8, 3)
    assert array == pytest.approx((pil.recovery.image.movedim(1, -1).numpy() + 1) / 2, abs=1e-6)
    gray = RecoveryPipeline(gaussian())
    gray.set_progress_bar_config(disable=True)
    assert gray(*problem_and_y()).images[0].mode == "L"


def test_the_progress_bar_and_the_callback_see_every_step(
    capsys: pytest.CaptureFixture[str],
) -> None:
    problem, y = cats_and_y()
    seen: list[int] = []
    shown = RecoveryPipeline(GaussianPrior((3, 8, 8)))
    shown(problem, y, 4, callback_on_step_end=lambda step: seen.append(step.index))
    assert seen == [0, 1, 2, 3]
    assert "4/4" in capsys.readouterr().err


def test_a_scheduler_takes_the_place_of_the_solver() -> None:
    problem, y = problem_and_y(2)
    made = RecoveryPipeline(gaussian(), scheduler=DDIMScheduler(clip_sample=False))
    made.set_progress_bar_config(disable=True)
    found = made(problem, y, num_inference_steps=7, generator=seed())
    expected = ScheduledSampling(made.scheduler, 7)(problem, y, gaussian(), generator=seed())
    assert torch.equal(found.recovery.image, expected.image)


def test_a_pipeline_is_loaded_as_a_prior_is(prior: str) -> None:
    made = RecoveryPipeline.from_pretrained(prior, solver=solvers.Wiener())
    assert made.to("cpu").device.type == "cpu"
    with pytest.raises(InputError, match="no such prior"):
        RecoveryPipeline.from_pretrained("no such model")


def test_wrong_calls_are_refused_in_a_sentence(pipeline: RecoveryPipeline) -> None:
    problem, y = cats_and_y()
    with pytest.raises(InputError, match="made of a prior"):
        RecoveryPipeline("cats-64")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one of the two"):
        RecoveryPipeline(gaussian(), solvers.DiffEP(), DDIMScheduler())
    with pytest.raises(InputError, match="output_type is one of"):
        pipeline(problem, y, output_type="jpeg")
    with pytest.raises(InputError, match="takes no number of steps"):
        RecoveryPipeline(gaussian(), SOLVERS["wiener"]())(*problem_and_y(), 5)
    with pytest.raises(InputError, match="takes a Problem"):
        pipeline(y, problem)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="scheduler with alphas_cumprod"):
        ScheduledSampling(FlowMatchEulerDiscreteScheduler())
    with pytest.raises(InputError, match="steps is a whole number"):
        ScheduledSampling(DDIMScheduler(), steps=0)
