"""The level of a message, and what the evidence cannot tell it from."""

from __future__ import annotations

import pytest
import torch

from diffsplit.channels import OneBit
from diffsplit.solvers.message_passing.evidence import level_by_evidence


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
