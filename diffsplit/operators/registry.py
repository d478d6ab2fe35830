"""Operators to and from plain JSON values, as a measurement file stores them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from diffsplit.arguments import brief
from diffsplit.devices import checked_device
from diffsplit.errors import InputError
from diffsplit.operators.base import Composed, LinearOperator, Scaled, Stacked
from diffsplit.operators.blur import Blur
from diffsplit.operators.checks import MAX_SIZE, choice, integer, shape_of
from diffsplit.operators.color import ChannelMix, Grayscale
from diffsplit.operators.dense import MAX_ENTRIES, GaussianMatrix
from diffsplit.operators.downsample import Downsample
from diffsplit.operators.kernels import decoded_kernel
from diffsplit.operators.masks import Identity, PixelMask
from diffsplit.operators.randomized import RandomizedTransform

__all__ = ["from_config"]


@dataclass
class _Budget:
    """What the description of one operator may still ask for, on all of its levels together."""

    parts: int = 16
    pixels: int = MAX_SIZE
    entries: int = MAX_ENTRIES

    def spend(self, parts: int = 0, pixels: int = 0, entries: int = 0) -> None:
        self.parts -= parts
        self.pixels -= pixels
        self.entries -= entries
        if min(self.parts, self.pixels, self.entries) < 0:
            raise InputError(
                f"the operator is too large: at most {_Budget.parts} parts, {MAX_SIZE:,} pixels "
                f"and {MAX_ENTRIES:,} entries of Gaussian matrices in all are built from a file."
            )


def from_config(config: dict[str, Any], device: str | torch.device = "cpu") -> LinearOperator:
    """The operator whose `LinearOperator.config` this is.

    The values may come from a file that nobody vouches for: every one is checked, and neither
    their size nor their depth can exhaust the memory.

    Args:
        config: ``{"kind": "gaussian", "shape": [3, 64, 64], "rows": 4096, "seed": 0, …}``.
        device: where the operator is built.

    Raises:
        InputError: an unknown kind, a missing or unknown entry, a value out of bounds, or no such
            device.
    """
    return _build(config, checked_device(device), _Budget())


def _build(config: Any, device: torch.device, budget: _Budget) -> LinearOperator:
    if not isinstance(config, dict) or not isinstance(config.get("kind"), str):
        raise InputError('an operator is described by an object with a "kind"; this is none.')
    budget.spend(parts=1)
    kind = config["kind"]
    if kind not in _KINDS:
        raise InputError(f"{brief(kind)} is no kind of operator; known are {', '.join(_KINDS)}.")
    entries = {name: value for name, value in config.items() if name != "kind"}
    # A kind that is described in several ways: the first that the entries are enough for.
    forms = [(build, *_entries_of(build)) for build in _KINDS[kind]]
    form = next((form for form in forms if form[1] <= set(entries)), forms[-1])
    build, required, optional = form
    if not required <= set(entries) <= required | optional:
        needed, more = (", ".join(sorted(part)) for part in (required, optional))
        raise InputError(
            f"a {kind} operator is described by {needed}"
            + (f" and optionally {more}" if more else "")
            + f", not by {', '.join(sorted(str(name)[:20] for name in entries)[:8]) or 'nothing'}."
        )
    if "shape" in entries:
        budget.spend(pixels=math.prod(shape_of(entries["shape"])))
    if kind == "gaussian":
        rows = integer(entries["rows"], "the number of rows", 1, MAX_ENTRIES)
        budget.spend(entries=rows * math.prod(entries["shape"]))
        entries["device"] = device
    for name in ("outer", "inner", "operator"):
        if name in entries:
            entries[name] = _build(entries[name], device, budget)
    if "operators" in entries:
        if not isinstance(entries["operators"], list):
            raise InputError("the operators of a stack are a list.")
        entries["operators"] = [_build(part, device, budget) for part in entries["operators"]]
    return build(**entries).to(device)


def _entries_of(build: Callable[..., LinearOperator]) -> tuple[set[str], set[str]]:
    """The entries that a description must and may have: what ``build`` takes from it by name."""
    parameters = inspect.signature(build).parameters.values()
    named = [p for p in parameters if p.name != "device"]
    required = {p.name for p in named if p.default is p.empty}
    return required, {p.name for p in named} - required


def _gaussian(
    shape: Any, rows: Any, seed: Any, device: torch.device, dtype: Any = "float32"
) -> LinearOperator:
    names = ("float32", "float16", "bfloat16", "float64")
    dtype = choice(dtype, "the dtype of a Gaussian matrix", names)
    return GaussianMatrix(shape, rows, seed, getattr(torch, dtype), device)


def _box(shape: Any, box: Any) -> LinearOperator:
    if not isinstance(box, list) or len(box) != 4:
        raise InputError("the box of a mask is the list [top, left, height, width].")
    return PixelMask.box(shape, *box)


def _blur(shape: Any, kernel: Any, kernel_shape: Any, boundary: Any = "circular") -> LinearOperator:
    return Blur(shape, decoded_kernel(kernel, kernel_shape, shape_of(shape, ndim=3)), boundary)


_KINDS: dict[str, list[Callable[..., LinearOperator]]] = {
    "gaussian": [_gaussian],
    "randomized": [RandomizedTransform],
    "mask": [_box, PixelMask.from_bits, PixelMask],
    "identity": [Identity],
    "downsample": [Downsample],
    "blur": [Blur.gaussian, Blur.motion, _blur],
    "grayscale": [Grayscale],
    "channel_mix": [ChannelMix],
    "composed": [Composed],
    "scaled": [Scaled],
    "stacked": [lambda operators: Stacked(*operators)],
}
"""What builds each kind, from the entries of its description by name."""
