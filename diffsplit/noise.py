"""White noise from explicit generators: the same bits on every device, alone or in a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from diffsplit.errors import InputError

__all__ = ["Generators", "check_generators", "default_generator", "randn_like", "seeded"]

Generators = torch.Generator | Sequence[torch.Generator]
"""One generator for the batch, or one per image: then a batch of B repeats B single runs."""


def seeded(seed: int, purpose: str) -> torch.Generator:
    """A generator on the CPU for one purpose: equal seeds of two purposes draw unrelated numbers.

    An operator drawn from the same stream as the noise that a solver starts from would make its
    results too good. So the seed of the stream is ``seed`` xor 32 bits of a hash of ``purpose``,
    all that torch keeps of a seed: two seeds of one purpose never share a stream, and a small
    one never has that of a plain ``torch.Generator().manual_seed`` with a small number.

    Args:
        seed: from 0 to 2³² − 1.
        purpose: what is drawn, such as the name of an operator's class.

    Raises:
        InputError: the seed is out of range.
    """
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise InputError(f"a seed is an integer from 0 to {2**32 - 1}, not {seed}.")
    salt = hashlib.blake2b(purpose.encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(seed ^ int.from_bytes(salt, "big"))


def default_generator() -> torch.Generator:
    """A fresh generator, always the same, for callers who gave none: repeatable, never global."""
    return seeded(0, "default_generator")


def check_generators(generator: object, batch: int) -> None:
    """Raise InputError unless these are `Generators` for a batch, one or as many as its images."""
    parts: Sequence[object] = [generator]
    if isinstance(generator, Sequence) and not isinstance(generator, str):
        parts = generator
    wrong = [part for part in parts if not isinstance(part, torch.Generator)]
    if wrong:
        raise InputError(
            "a generator is a torch.Generator, or a sequence of them, one per image; give "
            f"torch.Generator().manual_seed(0), not {wrong[0]!r:.40}."
        )
    if parts is generator and len(parts) != batch:
        raise InputError(
            f"{len(parts)} generators for a batch of {batch}; give one, or one per image."
        )


def randn_like(x: Tensor, generator: Generators) -> Tensor:
    """Standard normal noise shaped like ``x``, drawn where each generator lives, then moved.

    Args:
        x: ``(B, …)``.
        generator: one, or a sequence of B; anything else is an InputError.
    """
    check_generators(generator, len(x))
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32

    def draw(shape: torch.Size, g: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=g, device=g.device, dtype=dtype).to(x)

    if isinstance(generator, torch.Generator):
        return draw(x.shape, generator)
    return torch.stack([draw(x.shape[1:], g) for g in generator])
