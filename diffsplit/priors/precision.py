"""Half precision, where it is safe for a network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["HALF", "lowered"]

HALF = (torch.bfloat16, torch.float16)


def lowered(device: torch.device, precision: torch.dtype | None) -> AbstractContextManager[object]:
    """A ``with`` block in which networks compute in this precision, by autocast, or as they are."""
    return nullcontext() if precision is None else torch.autocast(device.type, precision)
