"""A convolutional network at other sizes of image than that of its training."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, TypeVar

from diffsplit.errors import InputError
from diffsplit.priors.base import Denoiser, Prior
from diffsplit.priors.checks import check_shape
from diffsplit.priors.curve_store import attach_curve

__all__ = ["check_sides", "resized", "side_multiple"]

P = TypeVar("P", bound=Prior)


def side_multiple(network: Any) -> int:
    """What the sides of the input of a diffusers network have to be divisible by.

    Each level but the last halves them.
    """
    multiple: int = 2 ** (len(network.config.block_out_channels) - 1)
    return multiple


def check_sides(prior: Prior, shape: Sequence[int], multiple: int) -> tuple[int, int, int]:
    """``shape`` as a tuple, or an InputError if a model cannot be evaluated on such images.

    Args:
        multiple: what both sides have to be divisible by.
    """
    wanted = check_shape(shape)
    channels = prior.shape[0]
    if len(wanted) != 3 or wanted[0] != channels:
        raise InputError(
            f"the model knows images of {channels} channels, and {tuple(wanted)} is wanted; give "
            f"({channels}, height, width), or load a model of such images."
        )
    if any(side % multiple for side in wanted[1:]):
        high, wide = (-(-side // multiple) * multiple for side in wanted[1:])
        raise InputError(
            f"the network halves an image until {multiple} pixels are one, and {wanted[1]}×"
            f"{wanted[2]} is not divisible by {multiple}; pad or crop the images, to {high}×{wide} "
            "for example."
        )
    return wanted[0], wanted[1], wanted[2]


def resized(prior: P, shape: Sequence[int], multiple: int) -> P:
    """The same network as a prior for images of another size; see `Prior.at`.

    Args:
        multiple: see `check_sides`.
    """
    wanted = check_sides(prior, shape, multiple)
    if wanted == tuple(prior.shape):
        return prior
    other = copy(prior)
    other.shape, other._forward_bytes = wanted, None
    if isinstance(other, Denoiser):
        other.curve = None
        attach_curve(other)
    return other
