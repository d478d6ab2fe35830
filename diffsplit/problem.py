"""A problem is an operator and a channel: y ~ p(y | s), s = A x."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffsplit.arguments import FAR_OUTSIDE, kind_of
from diffsplit.channels.base import Channel
from diffsplit.errors import InputError
from diffsplit.noise import Generators, check_generators
from diffsplit.operators.base import LinearOperator

__all__ = ["Problem"]

DTYPES = (
    *(torch.float32, torch.float64),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)
"""What measurements may be made of; half precision is too coarse for a likelihood."""


@dataclass(frozen=True)
class Problem:
    """What was done to the image: ``channel`` after ``operator``.

    Attributes:
        operator: A.
        channel: p(y | s); its noise level is in the units of s = A x, with x on [-1, 1].

    Raises:
        InputError: these are no operator and channel, or are in the other order.
    """

    operator: LinearOperator
    channel: Channel

    def __post_init__(self) -> None:
        if not isinstance(self.operator, LinearOperator) or not isinstance(self.channel, Channel):
            raise InputError(
                "a problem is made of an operator and a channel, in this order, not of "
                f"{type(self.operator).__name__} and {type(self.channel).__name__}; write for "
                "example Problem(operators.Identity((3, 64, 64)), channels.OneBit(sigma=0.5))."
            )

    @torch.no_grad()
    def measure(self, x: Tensor, *, generator: Generators | None = None) -> Tensor:
        """Measurements ``(B, *shape_out)`` of images ``(B, *shape_in)`` on [-1, 1].

        Args:
            generator: of the noise, always to be given; a sequence of B gives each image its own.

        Raises:
            InputError: ``x`` has another shape, holds NaN or infinity, or is an image far outside
                [-1, 1], or ``generator`` is none.
        """
        s = self.operator.apply(x)
        check_generators(generator, len(x))
        assert generator is not None  # the check saw to it
        largest = float(x.abs().amax()) if x.numel() else math.nan
        if not math.isfinite(largest):
            raise InputError(
                "the images hold NaN or infinity, or there are none; give images on [-1, 1]."
            )
        if x.ndim == 4 and largest > FAR_OUTSIDE:
            raise InputError(
                f"the images reach {largest:.3g}, and images are on [-1, 1]; convert 8-bit values "
                "with ds.images.from_uint8."
            )
        return self.channel.sample(s, generator)

    def nll(self, x: Tensor, y: Tensor) -> Tensor:
        """−log p(y | A x), summed over the measurements of each image: ``(B,)``."""
        return self.channel.nll(self.operator.apply(x), y).flatten(1).sum(1)

    def grad(self, x: Tensor, y: Tensor) -> Tensor:
        """∇_x −log p(y | A x) = Aᵀ ℓ'(A x), in closed form: ``(B, *shape_in)``."""
        return self.operator.adjoint(self.channel.grad(self.operator.apply(x), y))

    def misfit(self, x: Tensor, y: Tensor) -> Tensor:
        """`nll`, or ½‖A x − y‖² where measurements are noiseless real numbers: ``(B,)``, finite."""
        return self.channel.misfit(self.operator.apply(x), y).flatten(1).sum(1)

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """How A x misses the measurements, per measurement ``(B, *shape_out)``.

        A x − y in Gaussian noise of whatever level, so that Aᵀ of it is the gradient of
        ½‖A x − y‖²; ℓ'(A x) for every other channel.
        """
        s = self.operator.apply(x)
        return s - y if self.channel.gaussian_sigma is not None else self.channel.grad(s, y)

    def backprojection(self, y: Tensor) -> Tensor:
        """Aᵀ y, with y read as numbers: ``(B, *shape_in)``."""
        return self.operator.adjoint(self.channel.value(y))

    def sign_consistency(self, x: Tensor, y: Tensor) -> Tensor:
        """Share of the measurements that a noiseless look at ``x`` would reproduce: ``(B,)``.

        Raises:
            InputError: the channel's outcomes are no finite set.
        """
        agreement = self.channel.sign_agreement(self.operator.apply(x), y)
        if agreement is None:
            raise InputError(
                f"sign consistency needs a quantized channel; {type(self.channel).__name__} "
                "measures real numbers, so look at the negative log-likelihood instead."
            )
        return agreement.flatten(1).mean(1)

    def check(self, y: Tensor) -> None:
        """Raise InputError unless ``y`` is a finite batch of values that the channel can give.

        Args:
            y: ``(B, *shape_out)``, float32, float64 or integers, on the operator's device.
        """
        if not isinstance(y, Tensor) or y.dtype not in DTYPES:
            raise InputError(
                f"measurements are a tensor of float32, float64 or integers, not {kind_of(y)}; "
                "convert them, for example by .float()."
            )
        shape = self.operator.shape_out
        if tuple(y.shape[1:]) != tuple(shape) or len(y) == 0:
            raise InputError(
                f"measurements of shape (B, {', '.join(map(str, shape))}) were expected, "
                f"not {tuple(y.shape)}; check that the file and the operator belong together."
            )
        device = self.operator.device
        if device is not None and y.device.type != device.type:
            raise InputError(
                f"the measurements are on {y.device} and the operator is on {device}; move one of "
                "them with .to(device)."
            )
        if not bool(torch.isfinite(y).all()):
            raise InputError("the measurements hold NaN or infinity; measure again or mask them.")
        self.channel.check(y)
