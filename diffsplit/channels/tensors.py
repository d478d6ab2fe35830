"""Small tensors made where the big ones live, without a copy that waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplit.noise import Generators, check_generators

__all__ = ["broadcast", "like", "uniform_like"]


def like(value: float | Tensor, x: Tensor) -> Tensor:
    """``value`` in the dtype and on the device of ``x``."""
    return (
        value.to(x)
        if isinstance(value, Tensor)
        else torch.full((), value, dtype=x.dtype, device=x.device)
    )


def broadcast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors, expanded to their common shape."""
    expanded: tuple[Tensor, ...] = torch.broadcast_tensors(*tensors)  # type: ignore[no-untyped-call]
    return tuple(expanded)


def uniform_like(x: Tensor, generator: Generators) -> Tensor:
    """Uniform numbers on [0, 1) shaped like ``x``, drawn on the generator's device.

    Args:
        x: gives shape, dtype and device.
        generator: one, or a sequence of one per entry of the batch.

    Raises:
        InputError: neither one generator nor as many as images.
    """
    check_generators(generator, len(x) if x.ndim else 1)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if isinstance(generator, torch.Generator):
        return torch.rand(x.shape, generator=generator, device=generator.device, dtype=dtype).to(x)
    return torch.stack([uniform_like(part, g) for part, g in zip(x, generator, strict=True)])
