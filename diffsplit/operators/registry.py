"""Operators to and from plain JSON values, as a measurement file stores them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from diffsplit.devices import checked_device
from diffsplit.errors import InputError
from diffsplit.operators.base import Composed, LinearOperator, Scaled, Stacked
from diffsplit.operators.blur import Blur
from diffsplit.operators.checks import MAX_SIZE, brief, choice, integer, shape_of
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
    names = set(config) - {"kind"}
    # A kind that is described in several ways: the first that the entries are enough for.
    form = next((form for form in _KINDS[kind] if form.required <= names), _KINDS[kind][-1])
    if not form.required <= names <= form.required | form.optional:
        needed, optional = (", ".join(sorted(part)) for part in (form.required, form.optional))
        raise InputError(
            f"a {kind} operator is described by {needed}"
            + (f" and optionally {optional}" if optional else "")
            + f", not by {', '.join(sorted(str(name)[:20] for name in names)[:8]) or 'nothing'}."
        )
    entries = {name: config[name] for name in names}
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
    return form.build(**entries).to(device)


def _gaussian(dtype: Any = "float32", **entries: Any) -> LinearOperator:
    names = ("float32", "float16", "bfloat16", "float64")
    dtype = choice(dtype, "the dtype of a Gaussian matrix", names)
    return GaussianMatrix(**entries, dtype=getattr(torch, dtype))


def _box(shape: Any, box: Any) -> LinearOperator:
    if not isinstance(box, list) or len(box) != 4:
        raise InputError("the box of a mask is the list [top, left, height, width].")
    return PixelMask.box(shape, *box)


def _blur(kernel: Any, kernel_shape: Any, **entries: Any) -> LinearOperator:
    kernel = decoded_kernel(kernel, kernel_shape, shape_of(entries["shape"], ndim=3))
    return Blur(kernel=kernel, **entries)


class _Form(NamedTuple):
    """One way to describe an operator: what builds it, and the names of its entries."""

    build: Callable[..., LinearOperator]
    required: set[str]
    optional: set[str]


def _form(build: Callable[..., LinearOperator], required: str, optional: str = "") -> _Form:
    return _Form(build, set(required.split()), set(optional.split()))


_KINDS = {
    "gaussian": [_form(_gaussian, "shape rows seed", "dtype")],
    "randomized": [_form(RandomizedTransform, "shape rows seed", "transform")],
    "mask": [
        _form(_box, "shape box"),
        _form(PixelMask.from_bits, "shape bits channels_apart"),
        _form(PixelMask, "shape fraction seed", "channels_apart"),
    ],
    "identity": [_form(Identity, "shape")],
    "downsample": [_form(Downsample, "shape factor", "kernel")],
    "blur": [
        _form(Blur.gaussian, "shape size std", "boundary"),
        _form(Blur.motion, "shape size intensity seed", "boundary"),
        _form(_blur, "shape kernel kernel_shape", "boundary"),
    ],
    "grayscale": [_form(Grayscale, "shape")],
    "channel_mix": [_form(ChannelMix, "shape matrix")],
    "composed": [_form(Composed, "outer inner")],
    "scaled": [_form(Scaled, "operator factor")],
    "stacked": [_form(lambda operators: Stacked(*operators), "operators")],
}
