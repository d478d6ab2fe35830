"""A variance-preserving diffusers model, seen in σ-space.

With x_t = α_t x0 + s_t n, x = x_t/α_t and σ = s_t/α_t:   α = 1/√(1 + σ²), s = σ α, and

    epsilon:       D = x − σ ε(x_t, t)
    v_prediction:  D = α x_t − s v(x_t, t)
    sample:        D = the output itself

t is the position of σ on the grid of the model's own betas, interpolated in log σ between
integer timesteps. A learned variance (twice as many output channels) is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors.checks import checked_numbers
from diffsplit.priors.error_curve import ErrorCurve
from diffsplit.priors.network import NetworkPrior

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["DiffusersPrior"]

PREDICTIONS = ("epsilon", "v_prediction", "sample")


class DiffusersPrior(NetworkPrior):
    """A `UNet2DModel` with the noise schedule that it was trained on.

    Args:
        unet, curve: see `NetworkPrior`.
        alphas_cumprod: ᾱ_t for t = 0 … T − 1 ``(T,)``, falling.
        prediction: ``"epsilon"``, ``"v_prediction"`` or ``"sample"``.

    Raises:
        InputError: see `NetworkPrior`, another kind of prediction, or a schedule that does not fall
            inside (0, 1).
    """

    def __init__(
        self,
        unet: UNet2DModel,
        alphas_cumprod: Tensor,
        prediction: str = "epsilon",
        curve: ErrorCurve | None = None,
    ) -> None:
        super().__init__(unet, curve)
        if not isinstance(prediction, str) or prediction not in PREDICTIONS:
            raise InputError(
                f"prediction type {prediction!r} is not supported; one of {PREDICTIONS} is."
            )
        alphas = checked_numbers("noise schedule", alphas_cumprod).cpu()
        falls = alphas.ndim == 1 and len(alphas) > 1 and bool((alphas.diff() < 0).all())
        if not falls or not (alphas[-1] > 0 and alphas[0] < 1):
            raise InputError(
                "the noise schedule does not fall from below 1 to above 0; give the one that the "
                "model was trained with."
            )
        self.prediction = prediction
        self._log_sigmas = ((1 - alphas) / alphas).sqrt().log()
        self.sigma_min = float(self._log_sigmas[0].exp())
        self.sigma_max = float(self._log_sigmas[-1].exp())

    def timestep(self, sigma: Tensor) -> Tensor:
        """The (fractional) timestep whose noise level is σ, float32, shaped like ``sigma``."""
        if self._log_sigmas.device != sigma.device:  # copied once: a copy waits for the device
            with torch.inference_mode(False):
                self._log_sigmas = self._log_sigmas.to(sigma.device)
        knots = self._log_sigmas
        x = sigma.to(knots).log().clamp(knots[0], knots[-1]).contiguous()
        right = torch.searchsorted(knots, x).clamp(1, len(knots) - 1)
        low, high = knots[right - 1], knots[right]
        return ((right - 1) + (x - low) / (high - low)).to(torch.float32)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.view(-1, 1, 1, 1)
        alpha = (1 + level.square()).rsqrt()
        output = self._output(alpha * x, self.timestep(sigma))
        if self.prediction == "epsilon":
            return x - level * output
        if self.prediction == "v_prediction":
            return alpha.square() * x - level * alpha * output
        return output

    def describe(self) -> dict[str, object]:
        return {**super().describe(), "prediction": self.prediction}

    @classmethod
    def scheduled(cls, unet: UNet2DModel, scheduler: Mapping[str, Any]) -> DiffusersPrior:
        """A network with the betas and the prediction of its scheduler.

        Args:
            scheduler: its configuration; 1000 linear betas where it is empty. A last level that is
                noise alone (``rescale_betas_zero_snr``) is left out, since its σ is infinite.

        Raises:
            InputError: the scheduler has no betas, or see the class.
        """
        from diffusers import DDPMScheduler

        if scheduler and not {"beta_start", "trained_betas"} & set(scheduler):
            raise InputError(
                f"its scheduler ({scheduler.get('_class_name')}) has no betas and is of no other "
                "kind that is known; wrap the network with ds.priors.from_callable."
            )
        betas = DDPMScheduler.from_config(dict(scheduler)) if scheduler else DDPMScheduler()
        alphas = betas.alphas_cumprod
        alphas = alphas[:-1] if betas.config.rescale_betas_zero_snr else alphas
        return cls(unet, alphas, betas.config.prediction_type)
