"""Two thousand random calls of the public API: an InputError in one sentence, or a right answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import diffsplit as ds
from diffsplit.channels import Channel
from diffsplit.operators import LinearOperator
from diffsplit.priors import GaussianConsistency, GaussianPrior, from_callable, linear_latent
from diffsplit.solvers import Recovery, Solver

SHAPE = (3, 8, 8)


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def tensor(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.rand(shape, generator=seed(1)) * 2 - 1).to(dtype)


IMAGES = tensor(2, *SHAPE)
PRIOR = GaussianPrior(SHAPE, 0.0, torch.logspace(0, -2, 192).view(SHAPE))
JUNK: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3, 7, 2.5, 1e30, -0.5, math.nan, math.inf, 10**12),
    *("", "cats", "cuda", "cpu", b"bytes", [], [1, 2], (3, 8, 8), (1, 8, 8), (3, 0, 8), (3, -1, 8)),
    *((8, 8), ("3", 8, 8), (3.0, 8, 8), {"a": 1}, object(), np.float64(0.5), np.int64(4), int),
    *(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)), np.zeros(0), Path("nowhere.png")),
    *(IMAGES, IMAGES[0], IMAGES.double(), IMAGES.half(), IMAGES.to(torch.complex64)),
    *(IMAGES * 255, IMAGES * math.nan, IMAGES[:0], IMAGES > 0, IMAGES.sign(), IMAGES.int()),
    *(tensor(2, 3, 8, 4), tensor(4, 192), tensor(192), torch.tensor(0.5), torch.eye(8).to_sparse()),
    *(PRIOR, GaussianConsistency(PRIOR), linear_latent(PRIOR, 20), seed(), [seed(0), seed(1)]),
    *(lambda x: x, lambda x, sigma: x, ds.operators.Identity(SHAPE), ds.channels.OneBit(0.5)),
    ds.Problem(ds.operators.PixelMask(SHAPE, 0.5, 0), ds.channels.GaussianNoise(0.1)),
]
GOOD: dict[str, list[Any]] = {
    "shape": [SHAPE, (1, 8, 8), [3, 16, 8]],
    "rows": [1, 20],
    "seed": [0, 3],
    "fraction": [0.5, 1],
    "sigma": [0.0, 0.3, 1],
    "operator": [
        ds.operators.PixelMask(SHAPE, 0.5, 0),
        ds.operators.GaussianMatrix(SHAPE, 20, 0),
        ds.operators.Blur.gaussian(SHAPE, 3, 0.7),
    ],
    "channel": [ds.channels.OneBit(0.5), ds.channels.GaussianNoise(0.1), ds.channels.Logistic()],
    "problem": [
        ds.Problem(ds.operators.PixelMask(SHAPE, 0.5, 0), ds.channels.OneBit(0.5)),
        ds.Problem(ds.operators.Blur.gaussian(SHAPE, 3, 0.7), ds.channels.GaussianNoise(0.1)),
    ],
    "x": [IMAGES],
    "y": [tensor(2, 96).sign(), IMAGES],
    "prior": [PRIOR],
    "generator": [seed()],
    "count": [1, 2],
    "size": [3, 5],
    "matrix": [tensor(6, 192), tensor(6, 192).double().numpy()],
    "path": ["/tmp/nowhere/at-all.png"],
    "bits": [1, 3],
    "factor": [2.0, -1],
    "function": [lambda x: 2 * x],
    "denoiser": [lambda x, sigma: x / (1 + sigma.view(-1, 1, 1, 1))],
    "device": ["cpu"],
    "array": [np.zeros((8, 8, 3), np.uint8)],
    "bytes": [torch.zeros(1, 3, 8, 8, dtype=torch.uint8)],
    "text": ["even", "linear", "ddim"],
    "task": ["super-resolution", "motion-deblur", "onebit-cs"],
}
solvers = ds.solvers
RECOVERY = solvers.DiffEP(iterations=2, samples=2, sample_steps=2)(
    GOOD["problem"][0], GOOD["y"][0], PRIOR, generator=seed()
)


def _steps(kind: type[Solver]) -> Callable[..., Any]:
    return lambda problem, y, prior, generator: kind()(problem, y, prior, generator=generator)


TARGETS: dict[str, tuple[Callable[..., Any], str]] = {
    "GaussianMatrix": (ds.operators.GaussianMatrix, "shape rows seed"),
    "RandomizedTransform": (ds.operators.RandomizedTransform, "shape rows seed"),
    "PixelMask": (ds.operators.PixelMask, "shape fraction seed"),
    "box": (ds.operators.PixelMask.box, "shape count count count count"),
    "Blur.gaussian": (ds.operators.Blur.gaussian, "shape size sigma"),
    "Blur.motion": (ds.operators.Blur.motion, "shape size fraction seed"),
    "Downsample": (ds.operators.Downsample, "shape count"),
    "Identity": (ds.operators.Identity, "shape"),
    "Grayscale": (ds.operators.Grayscale, "shape"),
    "from_matrix": (ds.operators.from_matrix, "matrix shape"),
    "from_function": (ds.operators.from_function, "function shape"),
    "multiple": (lambda factor, operator: factor * operator, "factor operator!"),
    "product": (lambda a, b: ds.operators.Composed(a, b), "operator operator"),
    "stack": (ds.operators.Stacked, "operator operator"),
    "apply": (lambda operator, x: operator.apply(x), "operator! x"),
    "move": (lambda device: ds.operators.GaussianMatrix(SHAPE, 5, 0).to(device), "device"),
    "OneBit": (ds.channels.OneBit, "sigma sigma fraction"),
    "Quantized": (lambda b, s, limit: ds.channels.Quantized(b, None, s, limit), "bits sigma sigma"),
    "GaussianNoise": (ds.channels.GaussianNoise, "sigma"),
    "channel from config": (ds.channels.from_config, "text"),
    "operator from config": (ds.operators.from_config, "text"),
    "Problem": (ds.Problem, "operator channel"),
    "measure": (lambda p, x, g: p.measure(x, generator=g), "problem! x generator"),
    "check": (lambda p, y: p.check(y), "problem! y"),
    "psnr": (ds.metrics.psnr, "x x"),
    "ssim": (ds.metrics.ssim, "x x"),
    "cosine": (ds.metrics.cosine_similarity, "x x"),
    "norm error": (ds.metrics.norm_error, "x x"),
    "load_image": (ds.load_image, "path size"),
    "save_image": (ds.save_image, "x path"),
    "from_uint8": (ds.images.from_uint8, "bytes"),
    "from_numpy": (ds.images.from_numpy, "array"),
    "load_prior": (ds.load_prior, "text"),
    "from_callable": (from_callable, "denoiser shape"),
    "denoise": (lambda prior, x, sigma: prior.denoise(x, sigma), "prior! x sigma"),
    "DiffEP": (
        lambda n, m, d: solvers.DiffEP(levels=n, iterations=m, damping=d),
        "count count sigma",
    ),
    "DiffOneBit": (
        lambda n, lam, s: solvers.DiffOneBit(steps=n, lam=lam, spacing=s),
        "count sigma text",
    ),
    "DCDP": (
        lambda n, tau, s, p: solvers.DCDP(rounds=n, tau=tau, step_size=s, purifier=p),
        "count count sigma text",
    ),
    "preset": (solvers.DCDP.preset, "task size text sigma"),
    "task": (ds.tasks.problem, "task shape"),
    "task of rows": (
        lambda r, s, x: ds.tasks.problem("quantized", SHAPE, rows=r, sigma=s, images=x),
        "rows sigma x",
    ),
    "coverage": (lambda x, level: ds.uncertainty.coverage(RECOVERY, x, level), "x fraction"),
    "interval": (lambda level: RECOVERY.interval(level)[0], "fraction"),
    "for problem": (lambda task: solvers.DCDP.for_problem(GOOD["problem"][1], task), "task"),
    "LatentDCDP": (lambda n, s: solvers.LatentDCDP(rounds=n, step_size=s), "count sigma"),
    "Renoising": (lambda n, k: solvers.Renoising(levels=n, noise=k), "count sigma"),
    "Wiener": (lambda power: solvers.Wiener(power), "x"),
    "grid": (ds.schedules.ddpm_grid, "count rows text"),
    "solve DiffEP": (_steps(solvers.DiffEP), "problem y prior generator"),
    "solve Wiener": (_steps(solvers.Wiener), "problem y prior generator"),
    "solve DCDP": (
        lambda problem, y, prior: solvers.DCDP(rounds=2, tau=3)(problem, y, prior),
        "problem y prior",
    ),
}


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, list[Any]]:
    """A target and its arguments: mostly good ones, one or two of them replaced by anything."""
    name = draw(st.sampled_from(sorted(TARGETS)))
    kinds = TARGETS[name][1].split()
    arguments = [draw(st.sampled_from(GOOD[kind.rstrip("!")])) for kind in kinds]
    free = [i for i, kind in enumerate(kinds) if not kind.endswith("!")]  # else Python refuses
    for _ in range(draw(st.integers(0, 2))):
        arguments[draw(st.sampled_from(free))] = draw(st.sampled_from(JUNK))
    return name, arguments


def is_right(result: Any) -> bool:
    """What can be said of an answer without knowing the question."""
    if isinstance(result, LinearOperator):
        x = tensor(1, *result.shape_in, dtype=torch.float64)
        y = tensor(1, *result.shape_out, dtype=torch.float64)
        left, right = (result.apply(x) * y).sum(), (x * result.adjoint(y)).sum()
        scale = result.apply(x).norm() * y.norm() + 1e-300
        return bool((left - right).abs() <= 1e-5 * scale)
    if isinstance(result, Channel):
        s = tensor(1, 5)
        y = result.sample(s, seed())
        return y.shape == s.shape and bool(torch.isfinite(result.misfit(s, y)).all())
    if isinstance(result, Recovery):
        return bool(torch.isfinite(result.image).all()) and result.image.shape[1:] == SHAPE
    if isinstance(result, Tensor) and result.is_floating_point():
        return not bool(result.isnan().any())
    return True


@settings(
    max_examples=2000,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(calls())
def test_a_call_with_anything_is_an_input_error_or_right(call: tuple[str, list[Any]]) -> None:
    name, arguments = call
    try:
        result = TARGETS[name][0](*arguments)
    except ds.InputError as error:
        sentence = str(error)
        assert len(sentence) > 20
        assert "\n" not in sentence.strip()
        return
    except ds.DivergenceError:
        return  # a prior of infinite numbers, said in a sentence
    of_nan = name in ("psnr", "ssim", "cosine", "norm error", "apply", "denoise")  # NaN is right
    assert of_nan or is_right(result), (name, arguments)


@pytest.mark.parametrize("name", TARGETS)
def test_good_arguments_are_accepted(name: str) -> None:
    function, kinds = TARGETS[name]
    refused = {"channel from config", "operator from config", "load_image", "save_image"}
    refused |= {
        "load_prior",
        "preset",
        "from_matrix",
        "product",
        "OneBit",
        "ssim",
        "DiffEP",
        "DCDP",
        "Wiener",
    }
    if name not in refused:
        arguments = [GOOD[kind.rstrip("!")][-1 if kind == "sigma" else 0] for kind in kinds.split()]
        if name == "solve Wiener":
            arguments[:2] = GOOD["problem"][1], IMAGES
        assert is_right(function(*arguments))
