"""Pixels that are measured one by one: all of them, or those that are not missing."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffsplit.arguments import TINY, brief
from diffsplit.errors import InputError
from diffsplit.noise import seeded
from diffsplit.operators.base import LinearOperator, PortableOperator
from diffsplit.operators.checks import decoded, integer, real, seed_of, shape_of
from diffsplit.operators.gram import ScaledIdentity

__all__ = ["Identity", "PixelMask"]


class Identity(PortableOperator):
    """A = I: with a Gaussian channel, denoising.

    Args:
        shape: shape of one image.

    Raises:
        InputError: no shape.
    """

    _kind = "identity"

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape_in = self.shape_out = shape_of(shape)
        self.gram = ScaledIdentity(1.0)
        self.stride = 1 if len(self.shape_in) == 3 else None

    def _apply(self, x: Tensor) -> Tensor:
        return x.clone()

    def _adjoint(self, y: Tensor) -> Tensor:
        return y.clone()

    @property
    def pixels(self) -> Tensor:
        return torch.ones(self.shape_in, dtype=torch.bool, device=self.device)


class PixelMask(LinearOperator):
    """A keeps some entries of the image, in their order, and drops the others: A Aᵀ = I.

    The constructor keeps round(fraction · H · W) random pixels with all of their channels; `box`
    drops a rectangle, and `from_mask` takes any mask.

    Args:
        shape: ``(C, H, W)``.
        fraction: share that is measured, in (0, 1].
        seed: from 0 to 2³² − 1. With the same seed, a smaller fraction is a subset of a larger.
        channels_apart: draw among the C·H·W entries instead of the H·W pixels.

    Attributes:
        mask: bool ``(C, H, W)``, True where the image is measured.

    Raises:
        InputError: bad arguments, or a mask that keeps nothing.
    """

    mask: Tensor
    _kind = "mask"

    def __init__(
        self, shape: Sequence[int], fraction: float, seed: int, channels_apart: bool = False
    ) -> None:
        shape = shape_of(shape, ndim=3)
        fraction = real(fraction, "the fraction of pixels that are measured", TINY, 1)
        mask, seed = torch.zeros(_layout(shape, channels_apart), dtype=torch.bool), seed_of(seed)
        order = torch.randperm(mask.numel(), generator=seeded(seed, "PixelMask"))
        mask.view(-1)[order[: round(fraction * mask.numel())]] = True
        given = {"fraction": fraction, "seed": seed, "channels_apart": channels_apart}
        self._keep(mask, shape, given)

    @classmethod
    def box(cls, shape: Sequence[int], top: int, left: int, height: int, width: int) -> PixelMask:
        """Everything but a rectangle of ``height`` × ``width`` pixels is measured.

        Args:
            shape: ``(C, H, W)``.
            top: first missing row.
            left: first missing column.
            height: missing rows, at least 1.
            width: missing columns, at least 1.

        Raises:
            InputError: the box is not inside the image, or covers all of it.
        """
        shape = shape_of(shape, ndim=3)
        top = integer(top, "the top of the box", 0, shape[1] - 1)
        left = integer(left, "the left of the box", 0, shape[2] - 1)
        height = integer(height, f"the height of a box at row {top}", 1, shape[1] - top)
        width = integer(width, f"the width of a box at column {left}", 1, shape[2] - left)
        mask = torch.ones(shape[1:], dtype=torch.bool)
        mask[top : top + height, left : left + width] = False
        return cls.__new__(cls)._keep(mask, shape, {"box": [top, left, height, width]})

    @classmethod
    def from_mask(cls, mask: Any, shape: Sequence[int] | None = None) -> PixelMask:
        """Measure where ``mask`` is True.

        Args:
            mask: bool ``(H, W)`` for all channels or ``(C, H, W)``, a tensor or a NumPy array.
            shape: ``(C, H, W)``; by default the mask's own, one channel for ``(H, W)``.

        Raises:
            InputError: the mask is not of bools, does not fit ``shape``, or keeps nothing.
        """
        if isinstance(mask, np.ndarray) and mask.dtype == bool:
            mask = torch.from_numpy(mask.copy())
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.ndim not in (2, 3):
            raise InputError(
                "a mask is a bool tensor (H, W) or (C, H, W), True where the image is measured; "
                "compare yours with a threshold."
            )
        own = tuple(mask.shape) if mask.ndim == 3 else (1, *mask.shape)
        shape = shape_of(own if shape is None else shape, ndim=3)
        if tuple(mask.shape) != shape[-mask.ndim :]:
            raise InputError(f"a mask {tuple(mask.shape)} does not fit images of shape {shape}.")
        packed = np.packbits(mask.cpu().numpy()).tobytes()
        bits = {"bits": base64.b64encode(packed).decode(), "channels_apart": mask.ndim == 3}
        return cls.__new__(cls)._keep(mask, shape, bits)

    @classmethod
    def from_bits(cls, shape: Sequence[int], bits: str, channels_apart: bool) -> PixelMask:
        """The mask of a `config`: one bit for each pixel or entry, packed, in base64.

        Raises:
            InputError: the text is no base64, or of another length than ``shape`` needs.
        """
        shape = shape_of(shape, ndim=3)
        layout = _layout(shape, channels_apart)
        count = math.prod(layout)
        packed = decoded(bits, math.ceil(count / 8), f"the bits of a mask for {shape}")
        values = np.unpackbits(np.frombuffer(packed, np.uint8), count=count).astype(bool)
        return cls.from_mask(torch.from_numpy(values).reshape(layout), shape)

    def _keep(self, mask: Tensor, shape: tuple[int, ...], given: dict[str, Any]) -> PixelMask:
        self.mask = mask.expand(shape).contiguous()
        self._index = self.mask.flatten().nonzero().squeeze(1)
        if len(self._index) == 0:
            raise InputError("the mask keeps no pixel at all; measure at least one.")
        self.shape_in, self.shape_out = shape, (len(self._index),)
        self.gram = ScaledIdentity(1.0)
        self._given = given
        return self

    def _apply(self, x: Tensor) -> Tensor:
        return x.flatten(1).index_select(1, self._index)

    def _adjoint(self, y: Tensor) -> Tensor:
        image = y.new_zeros(len(y), self.size_in)
        return image.index_copy(1, self._index, y).reshape(-1, *self.shape_in)

    @property
    def pixels(self) -> Tensor:
        return self.mask


def _layout(shape: tuple[int, ...], channels_apart: bool) -> tuple[int, ...]:
    """What a mask is drawn on: the entries of an image, or its pixels."""
    if not isinstance(channels_apart, bool):
        raise InputError(f"channels_apart is true or false, not {brief(channels_apart)}.")
    return shape if channels_apart else shape[1:]
