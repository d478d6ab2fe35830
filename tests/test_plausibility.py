"""The predictive check: pictures that made the measurements pass it, and others do not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffsplit import Problem
from diffsplit.channels import GaussianNoise, Logistic, OneBit, Quantized
from diffsplit.channels.base import Channel
from diffsplit.operators import GaussianMatrix
from diffsplit.plausibility import DOUBTFUL, contradiction

SHAPE = (1, 8, 8)
CHANNELS = [
    GaussianNoise(0.1),
    GaussianNoise(0.0),
    OneBit(0.3),
    OneBit(0.0),
    OneBit(0.0, flip=0.1),
    Quantized(bits=3, sigma=0.1),
    Quantized(bits=3),
    Logistic(scale=0.1),
]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def case(channel: Channel) -> tuple[Problem, Tensor, Tensor]:
    problem = Problem(GaussianMatrix(SHAPE, rows=2000, seed=0), channel)
    x = torch.rand((2, *SHAPE), generator=generator(0)) * 2 - 1
    return problem, x, problem.measure(x, generator=generator(1))


@pytest.mark.parametrize("channel", CHANNELS, ids=str)
def test_the_truth_explains_its_measurements_and_another_picture_does_not(channel: Channel) -> None:
    problem, x, y = case(channel)
    assert (contradiction(problem, x, y, generator(2)) < DOUBTFUL).all()
    scores = contradiction(problem, torch.stack([x[0], -x[1]]), y, generator(2))
    assert scores[0] < DOUBTFUL < scores[1]


def test_another_noise_level_contradicts_only_where_the_picture_keeps_to_the_wrong_one() -> None:
    problem, x, y = case(GaussianNoise(0.1))
    noisier = x + 0.5 * torch.randn(x.shape, generator=generator(3))
    assert (contradiction(problem, noisier, y, generator(2)) > DOUBTFUL).all()
    louder = Problem(problem.operator, GaussianNoise(10.0))
    assert (contradiction(louder, noisier, y, generator(2)) < DOUBTFUL).all()


@pytest.mark.parametrize("channel", [GaussianNoise(0.0), GaussianNoise(1e-4)], ids=str)
def test_a_small_disagreement_is_none_however_precise_the_measurements(channel: Channel) -> None:
    problem, x, y = case(channel)
    for share, doubtful in ((0.04, False), (0.06, True)):
        scores = contradiction(problem, (1 + share) * x, y, generator(2))
        assert (scores > DOUBTFUL).tolist() == [doubtful, doubtful]
