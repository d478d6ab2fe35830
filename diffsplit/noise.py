"""White noise from explicit generators: the same bits on every device, alone or in a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffsplit.errors import InputError

__all__ = ["Generators", "default_generator", "randn_like"]

Generators = torch.Generator | Sequence[torch.Generator]
"""One generator for the batch, or one per image: then a batch of B repeats B single runs."""


def default_generator() -> torch.Generator:
    """A fresh generator with seed 0, for callers who gave none: repeatable, never global."""
    return torch.Generator().manual_seed(0)


def randn_like(x: Tensor, generator: Generators) -> Tensor:
    """Standard normal noise shaped like ``x``, drawn where each generator lives, then moved.

    Args:
        x: ``(B, …)``.
        generator: one, or a sequence of B.
    """
    if isinstance(generator, torch.Generator):
        noise = torch.randn(
            x.shape, generator=generator, device=generator.device, dtype=_drawn(x.dtype)
        )
        return noise.to(x)
    if len(generator) != len(x):
        raise InputError(
            f"{len(generator)} generators for a batch of {len(x)}; give one, or one per image."
        )
    parts = [
        torch.randn(x.shape[1:], generator=g, device=g.device, dtype=_drawn(x.dtype)).to(x)
        for g in generator
    ]
    return torch.stack(parts)


def _drawn(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32
