"""A prior is a denoiser: `D(x, σ) ≈ E[x0 | x]` for a noisy image `x = x0 + σ n`, `n ~ N(0, I)`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from diffsplit.errors import InputError

__all__ = ["Prior", "check_levels", "check_shape", "per_image"]


def per_image(sigma: float | Tensor, batch: int, like: Tensor) -> Tensor:
    """A noise level, given once or one per image, as ``(batch,)`` on the device of ``like``."""
    if isinstance(sigma, Tensor):
        sigma = sigma.to(dtype=like.dtype, device=like.device)
    else:  # filled in where it is needed: a copy would wait for the device
        sigma = torch.full((), float(sigma), dtype=like.dtype, device=like.device)
    if sigma.ndim > 1 or (sigma.ndim == 1 and len(sigma) not in (1, batch)):
        raise InputError(
            f"sigma has shape {tuple(sigma.shape)}; give one number, or one per image ({batch},)."
        )
    return sigma.expand(batch)


class Prior(ABC):
    """Any diffusion model, seen in σ-space.

    Attributes:
        shape: shape of one image (or signal), ``(C, H, W)`` for images.
        sigma_min, sigma_max: the noise levels, on images in [-1, 1], that the model knows.
        mean_square: E[x0²] per entry: the error of knowing nothing but a zero mean.
        bounds: the range that every entry of a clean image lies in, or None.
    """

    shape: tuple[int, ...]
    sigma_min: float
    sigma_max: float
    mean_square: float = 0.25
    bounds: tuple[float, float] | None = (-1.0, 1.0)

    @abstractmethod
    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """`denoise` with ``x`` checked and ``sigma`` of shape ``(B,)`` inside the range."""

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """The posterior mean E[x0 | x0 + σ n = x].

        Args:
            x: noisy images ``(B, *shape)``; the clean ones are on [-1, 1].
            sigma: noise level: a float, a 0-d tensor, or one per image ``(B,)``. Levels outside
                ``[sigma_min, sigma_max]`` are moved to the nearer end.

        Returns:
            Denoised images ``(B, *shape)``, not clipped.

        Raises:
            InputError: ``x`` or ``sigma`` has another shape.
        """
        if tuple(x.shape[1:]) != tuple(self.shape):
            raise InputError(
                f"the prior denoises batches of shape (B, {', '.join(map(str, self.shape))}), "
                f"but the input has shape {tuple(x.shape)}; resize it or load another prior."
            )
        sigma = per_image(sigma, len(x), x).clamp(self.sigma_min, self.sigma_max)
        return self._denoise(x, sigma)

    def error(self, sigma: float | Tensor) -> Tensor | None:
        """v(σ), the mean squared error per entry of `denoise` at noise level σ.

        Returns:
            A tensor shaped like ``sigma``, or None where it was never measured (see
            `diffsplit.priors.measure_error`).
        """
        return None

    def clip(self, x: Tensor) -> Tensor:
        """``x`` moved into `bounds`, where the prior has any."""
        return x if self.bounds is None else x.clamp(*self.bounds)

    @property
    def device(self) -> torch.device:
        """Where `denoise` computes."""
        return torch.device("cpu")

    def to(self, device: str | torch.device) -> Prior:
        """Move the prior's tensors to a device, in place, and return it."""
        return self

    def __repr__(self) -> str:
        levels = f"σ {self.sigma_min:.3g} … {self.sigma_max:.3g}"
        return f"{type(self).__name__}({tuple(self.shape)}, {levels})"

    def describe(self) -> dict[str, object]:
        """Facts for people: what `diffsplit info` prints."""
        return {
            "kind": type(self).__name__,
            "shape": list(self.shape),
            "sigma_range": [self.sigma_min, self.sigma_max],
            "mean_square": self.mean_square,
        }


def check_levels(sigma_min: float, sigma_max: float, **scales: float) -> None:
    """Raise InputError unless 0 < sigma_min < sigma_max < ∞ and ``scales`` are positive numbers."""
    if not 0 < sigma_min < sigma_max < math.inf:
        raise InputError(
            f"the noise levels of a prior are 0 < sigma_min < sigma_max, not {sigma_min} and "
            f"{sigma_max}."
        )
    for name, value in scales.items():
        if not 0 < value < math.inf:
            raise InputError(f"the {name} of a prior is a positive number, not {value}.")


def check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape as a tuple of positive integers."""
    result = tuple(int(n) for n in shape)
    if not result or min(result) < 1:
        raise InputError(f"shape {tuple(shape)} is not made of positive sizes; give (C, H, W).")
    return result
