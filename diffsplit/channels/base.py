"""p(y | s): how a number becomes a measurement. A channel never knows of images."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffsplit.arguments import TINY, brief, is_number
from diffsplit.errors import InputError
from diffsplit.noise import Generators

__all__ = [
    "Channel",
    "Moments",
    "broadcast",
    "check_measurements",
    "check_signal",
    "like",
    "number",
]


class Moments(NamedTuple):
    """Mean and variance of s given y, elementwise."""

    mean: Tensor
    variance: Tensor


class Channel(ABC):
    """The likelihood of one measurement, applied elementwise: ℓ(s) = −log p(y | s).

    Every method takes float32 or float64 tensors of any shape that broadcast; ``s`` is in the units
    of A x, with x on [-1, 1], and so is a noise level. All are finite and right far into the tails.
    Autograd differentiates `nll`, `grad`, `misfit` and `prox` with respect to ``s`` or ``z``, but
    not the evidence and the posterior moments. Values of ``y`` are checked by `check` alone.

    A subclass defines `sample`, `evidence` and `evidence_score`. Where these also take τ = 0, the
    likelihood, its derivatives and the posterior moments follow from them, and a subclass redefines
    what has a form that is more accurate in the tails. `prox` and `config` have no such default;
    DiffEP needs neither.

    Every method raises InputError for arguments of a wrong type, shape or device.

    Attributes:
        smooth: whether ℓ has a useful gradient (a noiseless quantizer's is 0 or undefined).
        convex: whether ℓ is convex in s, as the exact data step by Newton's method needs.
        outcomes: number of values that y can take, or None for a continuum.
        gaussian_sigma: σ where y = s + σ n, n ~ N(0, 1) (0 for noiseless real numbers); None for
            every other channel.
    """

    smooth: bool = True
    convex: bool = True
    outcomes: int | None = None
    gaussian_sigma: float | None = None

    @abstractmethod
    def sample(self, s: Tensor, generator: Generators) -> Tensor:
        """y ~ p(y | s), shaped like ``s``. Noise is drawn on the generator's device.

        Args:
            s: ``(B, …)``.
            generator: one, or a sequence of B.

        Raises:
            InputError: the generators do not fit, or NaN would become one of finitely many values.
        """

    def nll(self, s: Tensor, y: Tensor) -> Tensor:
        """ℓ(s) = −log p(y | s), elementwise."""
        return -self.evidence(s, y, 0.0)

    def grad(self, s: Tensor, y: Tensor) -> Tensor:
        """ℓ'(s), elementwise."""
        return -self.evidence_score(s, y, 0.0)[0]

    def curvature(self, s: Tensor, y: Tensor) -> Tensor:
        """ℓ''(s), elementwise."""
        return self.evidence_score(s, y, 0.0)[1]

    def prox(self, z: Tensor, y: Tensor, mu: float | Tensor) -> Tensor:
        """argmin_s ℓ(s) + μ/2 (s − z)², elementwise, to the precision of the dtype."""
        raise InputError(
            f"{type(self).__name__} defines no proximal map, which this method needs; define prox, "
            "or use DiffEP."
        )

    @abstractmethod
    def evidence(self, p: Tensor, y: Tensor, tau: float | Tensor) -> Tensor:
        """log ∫ p(y | s) N(s; p, τ) ds, elementwise; its derivative in τ is ½ (g² − h)."""

    @abstractmethod
    def evidence_score(self, p: Tensor, y: Tensor, tau: float | Tensor) -> tuple[Tensor, Tensor]:
        """First and negative second derivative in p of `evidence`.

        Returns:
            ``(g, h)``; message passing lives from them, and they give the posterior moments
            without cancellation: E[s | y] = p + τ g, Var[s | y] = τ (1 − τ h).
        """

    def moments(self, p: Tensor, y: Tensor, tau: float | Tensor) -> Moments:
        """Mean and variance of s given y, for the prior s ~ N(p, τ).

        Args:
            p: prior means.
            y: measurements.
            tau: prior variance, positive.
        """
        g, h = self.evidence_score(p, y, tau)
        return Moments(p + tau * g, tau * (1 - tau * h))

    def value(self, y: Tensor) -> Tensor:
        """A number in the units of s that y stands for, for Aᵀy (the sign, a bin's middle)."""
        check_measurements(y)
        return y

    def config(self) -> dict[str, Any]:
        """What `channels.from_config` needs to build this channel again: plain JSON values."""
        raise InputError(
            f"{type(self).__name__} is a channel of your own, which a file cannot describe; save "
            "the measurements as a tensor."
        )

    def _set(self, **values: Any) -> None:
        """Set attributes of a frozen dataclass, when it is built."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def misfit(self, s: Tensor, y: Tensor) -> Tensor:
        """What a descent on the data minimizes: ℓ(s) where it is finite for every s.

        Where ℓ can be infinite, half the squared distance from s to the nearest number that is
        measured as y, the limit of σ² ℓ for a noise level σ → 0: ½ (s − y)² for real numbers.
        """
        return self.nll(s, y) if self.smooth else 0.5 * (s - self.prox(s, y, 1.0)).square()

    def sign_agreement(self, s: Tensor, y: Tensor) -> Tensor | None:
        """1 where the noiseless measurement of s would be y, else 0 (NaN for a NaN in s).

        None for a continuum.
        """
        return None

    def check(self, y: Tensor) -> None:  # noqa: B027
        """Raise InputError unless ``y`` are values that this channel can produce.

        This waits for the device: call it once, where measurements come in.
        """


def number(name: str, value: Any, low: float = -math.inf) -> float:
    """``value`` as a finite float, at least ``low``: 0, or `TINY` for a positive one."""
    if not is_number(value, low):
        limit = {0: ", 0 or more", TINY: " above 0"}.get(low, "")
        raise InputError(f"{name} is {brief(value)}; give a finite number{limit}.")
    return float(value)


def like(value: float | Tensor, x: Tensor) -> Tensor:
    """``value`` in the dtype and on the device of ``x``."""
    if isinstance(value, Tensor):
        return value.to(x)
    return torch.full((), value, dtype=x.dtype, device=x.device)


def check_signal(s: object, batched: bool = False) -> None:
    """Raise InputError unless ``s`` is a tensor of float32 or float64, with a batch dimension."""
    if not isinstance(s, Tensor) or s.dtype not in (torch.float32, torch.float64):
        kind = s.dtype if isinstance(s, Tensor) else type(s).__name__
        raise InputError(
            f"s = A x is a tensor of float32 or float64, not {kind}; the order of arguments is "
            "s, then the measurements y."
        )
    if batched and not s.ndim:
        raise InputError("s is a single number; give a batch (B, …), for example s[None].")


def check_measurements(y: object) -> None:
    """Raise InputError unless ``y`` is a tensor of real numbers."""
    if not isinstance(y, Tensor) or y.dtype == torch.bool or y.is_complex():
        kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise InputError(f"measurements are a tensor of numbers, not {kind}.")


def broadcast(s: Tensor, y: Tensor, level: float | Tensor = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """``s`` and ``y`` in the common shape of the three, and ``level`` as a tensor.

    ``s`` is of float32 or float64, ``y`` of real numbers or integers on its device, and ``level`` a
    positive weight μ or variance τ.
    """
    check_signal(s)
    check_measurements(y)
    if y.device != s.device and y.ndim:
        raise InputError(f"s is on {s.device} and y on {y.device}; move one with .to(device).")
    if not isinstance(level, Tensor):
        level = number("a weight or a variance", level, TINY)
    try:
        level = like(level, s)
        parts = torch.broadcast_tensors(s, y, level)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise InputError(
            f"the shapes of s {tuple(s.shape)} and y {tuple(y.shape)} do not fit together, "
            "or that of the weight or variance does not."
        ) from error
    return parts[0], parts[1], level
