"""p(y | s): how a number becomes a measurement. A channel never knows of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor

from diffsplit.channels.checks import check_measurements
from diffsplit.noise import Generators

__all__ = ["Channel", "Moments"]


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

    @abstractmethod
    def nll(self, s: Tensor, y: Tensor) -> Tensor:
        """ℓ(s) = −log p(y | s), elementwise."""

    @abstractmethod
    def grad(self, s: Tensor, y: Tensor) -> Tensor:
        """ℓ'(s), elementwise."""

    @abstractmethod
    def curvature(self, s: Tensor, y: Tensor) -> Tensor:
        """ℓ''(s), elementwise."""

    @abstractmethod
    def prox(self, z: Tensor, y: Tensor, mu: float | Tensor) -> Tensor:
        """argmin_s ℓ(s) + μ/2 (s − z)², elementwise, to the precision of the dtype."""

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

    @abstractmethod
    def moments(self, p: Tensor, y: Tensor, tau: float | Tensor) -> Moments:
        """Mean and variance of s given y, for the prior s ~ N(p, τ).

        Args:
            p: prior means.
            y: measurements.
            tau: prior variance, positive.
        """

    def value(self, y: Tensor) -> Tensor:
        """A number in the units of s that y stands for, for Aᵀy (the sign, a bin's middle)."""
        check_measurements(y)
        return y

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What `channels.from_config` needs to build this channel again: plain JSON values."""

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
