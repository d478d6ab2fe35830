"""Operators to and from plain JSON values, as a measurement file stores them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from diffsplit.errors import InputError
from diffsplit.operators.algebra import Composed, Scaled, Stacked
from diffsplit.operators.base import LinearOperator
from diffsplit.operators.blur import Blur
from diffsplit.operators.blur_kernels import decoded_kernel
from diffsplit.operators.checks import MAX_SIZE, brief, integer, shape_of
from diffsplit.operators.color import ChannelMix, Grayscale
from diffsplit.operators.downsample import Downsample
from diffsplit.operators.gaussian import MAX_ENTRIES, GaussianMatrix
from diffsplit.operators.identity import Identity
from diffsplit.operators.mask import PixelMask
from diffsplit.operators.randomized import RandomizedTransform

__all__ = ["from_config"]

_DTYPES = {str(t).removeprefix("torch."): t for t in (torch.float16, torch.bfloat16, torch.float32)}
_DTYPES["float64"] = torch.float64


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
        InputError: an unknown kind, a missing or unknown entry, or a value out of bounds.
    """
    return _build(config, torch.device(device), _Budget())


def _build(config: Any, device: torch.device, budget: _Budget) -> LinearOperator:
    if not isinstance(config, dict) or not isinstance(config.get("kind"), str):
        raise InputError('an operator is described by an object with a "kind"; this is none.')
    budget.spend(parts=1)
    kind = config["kind"]
    if kind not in _KINDS:
        raise InputError(f"{brief(kind)} is no kind of operator; known are {', '.join(_KINDS)}.")
    return _KINDS[kind](config, device, budget)


def _entries(
    config: dict[str, Any], budget: _Budget, required: str, optional: str = ""
) -> dict[str, Any]:
    """All entries but the kind, when the required ones and no unknown ones are there."""
    names, needed = set(config) - {"kind"}, set(required.split())
    if not needed <= names <= needed | set(optional.split()):
        raise InputError(
            f"a {config['kind']} operator is described by {required.replace(' ', ', ')}"
            + (f" and optionally {optional.replace(' ', ', ')}" if optional else "")
            + f", not by {', '.join(sorted(str(name)[:20] for name in names)[:8]) or 'nothing'}."
        )
    entries = {name: config[name] for name in names}
    if "shape" in entries:
        budget.spend(pixels=math.prod(shape_of(entries["shape"])))
    return entries


def _gaussian(config: dict[str, Any], device: torch.device, budget: _Budget) -> LinearOperator:
    entries = _entries(config, budget, "shape rows seed", "dtype")
    dtype = entries.pop("dtype", "float32")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise InputError(f"a Gaussian matrix is stored in {', '.join(_DTYPES)}; this is no such.")
    rows = integer(entries["rows"], "the number of rows", 1, MAX_ENTRIES)
    budget.spend(entries=rows * math.prod(entries["shape"]))
    return GaussianMatrix(**entries, dtype=_DTYPES[dtype], device=device)


def _randomized(config: dict[str, Any], device: torch.device, budget: _Budget) -> LinearOperator:
    return RandomizedTransform(**_entries(config, budget, "shape rows seed", "transform")).to(
        device
    )


def _mask(config: dict[str, Any], device: torch.device, budget: _Budget) -> LinearOperator:
    if "box" in config:
        entries = _entries(config, budget, "shape box")
        if not isinstance(entries["box"], list) or len(entries["box"]) != 4:
            raise InputError("the box of a mask is the list [top, left, height, width].")
        return PixelMask.box(entries["shape"], *entries["box"]).to(device)
    if "bits" in config:
        return PixelMask.from_bits(**_entries(config, budget, "shape bits channels_apart")).to(
            device
        )
    return PixelMask(**_entries(config, budget, "shape fraction seed", "channels_apart")).to(device)


def _identity(config: dict[str, Any], device: torch.device, budget: _Budget) -> LinearOperator:
    return Identity(**_entries(config, budget, "shape")).to(device)


def _downsample(config: dict[str, Any], device: torch.device, budget: _Budget) -> LinearOperator:
    return Downsample(**_entries(config, budget, "shape factor", "kernel")).to(device)


def _blur(config: dict[str, Any], device: torch.device, budget: _Budget) -> LinearOperator:
    if "std" in config:
        blur = Blur.gaussian(**_entries(config, budget, "shape size std", "boundary"))
    elif "seed" in config:
        blur = Blur.motion(**_entries(config, budget, "shape size intensity seed", "boundary"))
    else:
        entries = _entries(config, budget, "shape kernel kernel_shape", "boundary")
        shape = shape_of(entries["shape"], ndim=3)
        entries["kernel"] = decoded_kernel(entries["kernel"], entries.pop("kernel_shape"), shape)
        blur = Blur(**entries)
    return blur.to(device)


def _grayscale(config: dict[str, Any], device: torch.device, budget: _Budget) -> LinearOperator:
    return Grayscale(**_entries(config, budget, "shape")).to(device)


def _channel_mix(config: dict[str, Any], device: torch.device, budget: _Budget) -> LinearOperator:
    return ChannelMix(**_entries(config, budget, "shape matrix")).to(device)


def _composed(config: dict[str, Any], device: torch.device, budget: _Budget) -> LinearOperator:
    entries = _entries(config, budget, "outer inner")
    inner = _build(entries["inner"], device, budget)
    return Composed(_build(entries["outer"], device, budget), inner)


def _scaled(config: dict[str, Any], device: torch.device, budget: _Budget) -> LinearOperator:
    entries = _entries(config, budget, "operator factor")
    return Scaled(_build(entries["operator"], device, budget), entries["factor"])


def _stacked(config: dict[str, Any], device: torch.device, budget: _Budget) -> LinearOperator:
    operators = _entries(config, budget, "operators")["operators"]
    if not isinstance(operators, list):
        raise InputError("the operators of a stack are a list.")
    return Stacked(*(_build(part, device, budget) for part in operators))


_KINDS: dict[str, Callable[[dict[str, Any], torch.device, _Budget], LinearOperator]] = {
    "gaussian": _gaussian,
    "randomized": _randomized,
    "mask": _mask,
    "identity": _identity,
    "downsample": _downsample,
    "blur": _blur,
    "grayscale": _grayscale,
    "channel_mix": _channel_mix,
    "composed": _composed,
    "scaled": _scaled,
    "stacked": _stacked,
}
