"""Any callable as a prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from diffsplit.devices import checked_device
from diffsplit.errors import InputError
from diffsplit.priors.base import Denoiser
from diffsplit.priors.checks import check_levels, check_shape, checked_number
from diffsplit.priors.error_curve import ErrorCurve

__all__ = ["CallablePrior", "from_callable"]


class CallablePrior(Denoiser):
    """Use your own denoiser as a prior.

    Args:
        denoiser: ``denoiser(x, sigma)`` with ``x`` of shape ``(B, *shape)``, float32 or float64,
            and ``sigma`` of shape ``(B,)`` in [sigma_min, sigma_max]; returns the clean image
            E[x0 | x] for x = x0 + σ n. Where a network predicts the noise n, that is
            ``lambda x, sigma: x - sigma.view(-1, 1, 1, 1) * network(x, sigma)``.
        shape: of one image, ``(C, H, W)``.
        sigma_min, sigma_max: the noise levels that it knows; others are moved to the nearer end.
        mean_square: E[x0²] per entry; 0.25 suits natural images on [-1, 1].
        error: v(σ), the denoiser's mean squared error per entry, if you measured it (see
            `measure_error`); without it message passing spends a second evaluation per step.
        bounds: range of a clean image's entries, or None.
        device: where a plain function computes; a `torch.nn.Module` knows it itself.

    Raises:
        InputError: an argument of the wrong kind or out of range, swapped arguments, or, when the
            denoiser is called, an answer of another shape than ``x``.
    """

    def __init__(
        self,
        denoiser: Callable[[Tensor, Tensor], Tensor],
        shape: Sequence[int],
        *,
        sigma_min: float = 1e-3,
        sigma_max: float = 160.0,
        mean_square: float = 0.25,
        error: ErrorCurve | Callable[[float | Tensor], Tensor] | None = None,
        bounds: tuple[float, float] | None = (-1.0, 1.0),
        device: str | torch.device = "cpu",
    ) -> None:
        if not callable(denoiser):
            raise InputError(
                f"the denoiser is of type {type(denoiser).__name__}, which cannot be called; write "
                "from_callable(denoiser, shape), with the denoiser first."
            )
        if error is not None and not callable(error):
            raise InputError(f"error is a function of sigma, or None, not {error!r:.40}.")
        check_levels(sigma_min, sigma_max, mean_square=mean_square)
        self.denoiser, self.curve = denoiser, error
        self.shape = check_shape(shape)
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)
        self.mean_square, self.bounds = float(mean_square), _checked_bounds(bounds)
        self._device = checked_device(device)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        answer = self.denoiser(x, sigma)
        if not isinstance(answer, Tensor) or answer.shape != x.shape:
            got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise InputError(
                f"the denoiser has to answer a batch of shape {tuple(x.shape)} with a tensor of "
                f"that shape, not {got}; sigma has shape (B,), so write sigma.view(-1, 1, 1, 1)."
            )
        return answer

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.denoiser,) if isinstance(self.denoiser, nn.Module) else ()

    @property
    def device(self) -> torch.device:
        return super().device if self.networks else self._device


def _checked_bounds(bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    if bounds is None:
        return None
    try:
        low, high = (checked_number("a bound", value) for value in bounds)
    except (TypeError, ValueError):  # InputError among them
        low = high = 0.0
    if low >= high:
        raise InputError(f"bounds are (low, high) with low < high, or None, not {bounds!r:.40}.")
    return low, high


from_callable = CallablePrior
"""The name that reads well: ``ds.priors.from_callable(denoiser, shape)``."""
