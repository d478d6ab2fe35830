"""Batches that fit the memory: many images go through a network a few at a time.

The rule: a forward pass of one image is observed, and as many images are evaluated at once as may
each take that much of a quarter of the memory of the device. Batches whose images are small beside
that are evaluated at once, unobserved. Every image is evaluated by itself in any case, so that the
results agree to rounding; and the rule asks for all of the memory, not for what happens to be free,
so that a machine splits a batch in the same way every time.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffsplit.devices import memory_of

__all__ = ["SHARE", "SURELY", "bytes_of_forward_pass", "in_batches"]

SHARE = 0.25
"""Of the device's memory, for what a network computes on its way."""
SURELY = 1000
"""A network on its way takes fewer bytes than this for each byte of an image."""

Evaluate = Callable[[Tensor, Tensor], Tensor]


def in_batches(
    evaluate: Evaluate, x: Tensor, sigma: Tensor, known: dict[torch.device, int]
) -> Tensor:
    """``evaluate(x, sigma)``, in parts if it might not fit the memory.

    Args:
        evaluate: of a network, for any batch.
        x: images ``(B, *shape)``.
        sigma: ``(B,)``.
        known: bytes of a forward pass of one image by device; what is missing is added.
    """
    room = SHARE * memory_of(x.device)
    # Autograd keeps everything until the backward pass, in parts as in one piece.
    if len(x) < 2 or torch.is_grad_enabled() or x.nbytes * SURELY <= room:
        return evaluate(x, sigma)
    if x.device not in known:
        known[x.device] = bytes_of_forward_pass(evaluate, x[:1], sigma[:1])
    at_once = max(1, int(room / max(known[x.device], 1)))
    parts = -(-len(x) // at_once)
    pairs = zip(x.tensor_split(parts), sigma.tensor_split(parts), strict=True)
    return torch.cat([evaluate(*pair) for pair in pairs])


def bytes_of_forward_pass(evaluate: Evaluate, x: Tensor, sigma: Tensor) -> int:
    """The most bytes that tensors which ``evaluate(x, sigma)`` makes take at one time.

    A compiled network is observed uncompiled.
    """
    meter = _Meter()
    with torch.compiler.set_stance("force_eager"), meter:
        evaluate(x, sigma)
    return meter.peak


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages that some tensor, made while it watches, still uses."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.users: Counter[int] = Counter()
        self.live = self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor):
                storage = made.untyped_storage()
                place, size = storage.data_ptr(), storage.nbytes()
                self.live += size if self.users[place] == 0 else 0
                self.users[place] += 1
                weakref.finalize(made, self._forget, place, size)
        self.peak = max(self.peak, self.live)
        return result

    def _forget(self, place: int, size: int) -> None:
        self.users[place] -= 1
        self.live -= size if self.users[place] == 0 else 0
