"""Operators with a spectrum, a prior, and A = U diag(s) Vᵀ as matrices."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from diffsplit import Problem
from diffsplit.operators import Blur, Downsample, LinearOperator, PixelMask, RandomizedTransform
from diffsplit.priors import GaussianPrior

SHAPE = (3, 8, 8)
SIZE = math.prod(SHAPE)
SMOOTH = GaussianPrior(SHAPE, 0.1, torch.logspace(0, -2, SIZE, dtype=torch.float64).view(SHAPE))
OPERATORS: dict[str, LinearOperator] = {
    "blur": Blur.gaussian(SHAPE, 3, 0.6),
    "bicubic": Downsample(SHAPE, 2, "bicubic"),
    "mask": PixelMask(SHAPE, 0.5, 1),
    "transform": -2.0 * RandomizedTransform(SHAPE, rows=90, seed=1),
}


def seed(value: int) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def measured(problem: Problem, count: int = 2) -> Tensor:
    return problem.measure(SMOOTH.sample(count, seed(1)).double(), generator=seed(2))


class Dense(NamedTuple):
    """A = U diag(s) Vᵀ as matrices: A (M, N), Uᵀ (N, M) with zero rows where s = 0, s (N), V."""

    a: Tensor
    u_t: Tensor
    s: Tensor
    v: Tensor


def dense(operator: LinearOperator) -> Dense:
    spectrum = operator.spectrum()
    unit_in = torch.eye(operator.size_in, dtype=torch.float64).view(-1, *spectrum.shape)
    unit_out = torch.eye(operator.size_out, dtype=torch.float64).view(-1, *operator.shape_out)
    v = spectrum.synthesize(unit_in).flatten(1).T
    u_t = spectrum.analyze_measurement(unit_out).flatten(1).T
    s = spectrum.singular_values.expand(spectrum.shape).flatten()
    a = operator.apply(unit_in.view(-1, *operator.shape_in)).flatten(1).T
    torch.testing.assert_close(v.T @ v, torch.eye(len(v)).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(u_t.T @ torch.diag(s) @ v.T, a, rtol=0, atol=1e-6)
    return Dense(a, u_t, s, v)
