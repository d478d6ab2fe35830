"""The level of a message, and what the evidence cannot tell it from."""

from __future__ import annotations

import pytest
import torch

from diffsplit.channels import OneBit
from diffsplit.operators import PixelMask, RandomizedTransform
from diffsplit.problem import Problem
from diffsplit.solvers.message_passing.evidence import level_by_evidence
from diffsplit.solvers.message_passing.modules import OrthogonalRows


@pytest.mark.parametrize("sigma", [0.0, 0.3, 1.5])
def test_one_bit_cannot_tell_the_scale_from_the_level_by_the_share_of_the_level(
    sigma: float,
) -> None:
    """The probit of b p/√(σ² + τ): a change of log τ acts like one of log b, so much smaller."""
    generator, tau = torch.Generator().manual_seed(0), 0.2
    p = torch.randn(2, 100_000, dtype=torch.float64, generator=generator)
    s = p + tau**0.5 * torch.randn(p.shape, dtype=torch.float64, generator=generator)
    channel = OneBit(sigma)
    y = channel.sample(s, generator)
    level = level_by_evidence(channel, p, y, torch.full((2,), tau, dtype=torch.float64), 0.2)
    assert level.confounded.tolist() == pytest.approx([tau / (sigma**2 + tau)] * 2, rel=0.05)


def test_bits_of_pixels_leave_noise_that_is_uneven_and_bits_of_random_sums_do_not() -> None:
    """A gray pixel's bit says more than a white one's, whose sign is known beforehand."""
    shape, generator = (1, 16, 16), torch.Generator().manual_seed(0)
    x = torch.zeros(2, *shape)
    x[:, :, :8] = 1.0
    for operator, uneven in (
        (PixelMask(shape, fraction=0.5, seed=0), True),
        (RandomizedTransform(shape, rows=128, seed=0), False),
    ):
        problem = Problem(operator, OneBit(0.5))
        y = problem.measure(x, generator=generator)
        module = OrthogonalRows(problem, y, x, torch.full((2,), 0.01), 0.2)
        module.send()
        s, tau = module.message.p, module.c * module.message.v
        _, h = problem.channel.evidence_score(s, y, tau.view(2, *[1] * (s.ndim - 1)))
        h = h.flatten(1)
        expected = h.square().mean(1) / h.mean(1).square() if uneven else torch.ones(2)
        torch.testing.assert_close(module.unevenness, expected)
        assert bool((module.unevenness > 1.3).all()) is uneven
