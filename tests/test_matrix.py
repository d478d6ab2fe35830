"""DiffEP on every operator, channel and noise level, on real pictures with the bundled prior.

Never below a linear estimate, and the predicted error near the true one, or said not to be known.
DCDP is tried on a few: a linear filter beats it where there is next to no noise.

A part runs always, the whole with ``-m slow``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

import diffsplit as ds
from diffsplit.channels import Channel, GaussianNoise, Logistic, OneBit, Quantized
from diffsplit.io.images import example_cats
from diffsplit.metrics import psnr
from diffsplit.operators import (
    Blur,
    Downsample,
    GaussianMatrix,
    Identity,
    LinearOperator,
    PixelMask,
    RandomizedTransform,
    from_function,
)
from diffsplit.solvers import DCDP, DiffEP, Solver, linear_baseline

SHAPE = (3, 64, 64)


def own() -> LinearOperator:
    """A user's function: sharp on the left, blurred on the right; nothing is known of it."""
    blur, ramp = Blur.gaussian(SHAPE, 15, 2.0), torch.linspace(0, 1, SHAPE[-1])
    return from_function(lambda x: x * (1 - ramp) + blur.apply(x) * ramp, SHAPE)


OPERATORS: dict[str, Callable[[], LinearOperator]] = {
    "hadamard": lambda: RandomizedTransform(SHAPE, 768, 0),
    "gaussian": lambda: GaussianMatrix(SHAPE, 768, 0),
    "mask": lambda: PixelMask(SHAPE, 0.5, 0),
    "box": lambda: PixelMask.box(SHAPE, 19, 19, 25, 25),
    "blur": lambda: Blur.gaussian(SHAPE, 15, 1.5),
    "motion": lambda: Blur.motion(SHAPE, 15, 0.5, 0),
    "bicubic": lambda: Downsample(SHAPE, 4, "bicubic"),
    "average": lambda: Downsample(SHAPE, 2, "average"),
    "identity": lambda: Identity(SHAPE),
    "own": own,
}
CHANNELS: dict[str, Channel] = {
    "exact": GaussianNoise(0.0),
    "noise 0.05": GaussianNoise(0.05),
    "noise 0.5": GaussianNoise(0.5),
    "1 bit, exact": OneBit(0.0),
    "1 bit, 0.05": OneBit(0.05),
    "1 bit, 0.5": OneBit(0.5),
    "2 bits": Quantized(bits=2, sigma=0.0),
    "4 bits": Quantized(bits=4, sigma=0.0),
    "4 bits, 0.05": Quantized(bits=4, sigma=0.05),
    "logistic": Logistic(),
}
SOLVERS: dict[str, Solver] = {
    "DiffEP": DiffEP(),
    "DCDP": DCDP(purifier="tweedie", tau=20),
}
SOME = {
    ("DiffEP", "hadamard", "4 bits"),
    ("DiffEP", "gaussian", "1 bit, 0.5"),
    ("DiffEP", "mask", "4 bits, 0.05"),
    ("DiffEP", "box", "exact"),
    ("DiffEP", "blur", "noise 0.05"),
    ("DiffEP", "motion", "2 bits"),
    ("DiffEP", "bicubic", "exact"),
    ("DiffEP", "average", "1 bit, 0.5"),
    ("DiffEP", "own", "noise 0.05"),
    ("DCDP", "mask", "noise 0.05"),
    ("DCDP", "gaussian", "1 bit, 0.5"),
}
ALL = list(itertools.product(OPERATORS, CHANNELS))


@pytest.fixture(scope="module")
def prior() -> ds.Denoiser:
    loaded = ds.load_prior("cats-64")
    assert isinstance(loaded, ds.Denoiser)
    return loaded


def checked(solver: str, operator: str, channel: str, prior: ds.Denoiser) -> None:
    x = example_cats()[:4]
    problem = ds.Problem(OPERATORS[operator](), CHANNELS[channel])
    y = problem.measure(x, generator=torch.Generator().manual_seed(0))
    result = SOLVERS[solver](problem, y, prior, generator=torch.Generator().manual_seed(1))
    if result.converged is not None and not result.converged.any():
        assert result.reason
        return
    linear = psnr(linear_baseline(problem)(problem, y).image, x).mean()
    found = psnr(result.image, x).mean()
    # A linear filter inverts a mild blur without noise; and it may be the best there is.
    assert found > linear - 0.3 or found > 38, f"{found:.2f} dB, linear {linear:.2f} dB"
    if result.predicted_error is not None and result.converged is not None:
        true = (result.image - x).flatten(1).square().mean(1)
        ratio = (result.predicted_error / true)[result.converged].log().mean().exp()
        assert ratio.isnan() or 1 / 1.5 < ratio < 1.5, f"predicted over true error {ratio:.2f}"


@pytest.mark.parametrize(("solver", "operator", "channel"), sorted(SOME))
def test_some_problems_of_every_kind_are_solved(
    solver: str, operator: str, channel: str, prior: ds.Denoiser
) -> None:
    checked(solver, operator, channel, prior)


@pytest.mark.slow
@pytest.mark.parametrize(("operator", "channel"), ALL)
def test_diffep_solves_every_problem(operator: str, channel: str, prior: ds.Denoiser) -> None:
    checked("DiffEP", operator, channel, prior)
