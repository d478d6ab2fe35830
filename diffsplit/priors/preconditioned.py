"""A published network with the preconditioning of EDM, as diffusers writes it.

    D(x, σ) = c_skip x + c_out F(c_in x, ¼ ln σ)            (Karras et al. 2022, Eq. 7, Table 1)
    c_skip = σ_d²/(σ² + σ_d²),  c_out = ±σ σ_d/√(σ² + σ_d²),  c_in = 1/√(σ² + σ_d²)

The sign of c_out is − where the prediction is called ``"v_prediction"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors.checks import check_levels
from diffsplit.priors.error_curve import ErrorCurve
from diffsplit.priors.network import NetworkPrior

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["PreconditionedPrior"]

SIGNS = {"epsilon": 1.0, "v_prediction": -1.0}


class PreconditionedPrior(NetworkPrior):
    """A network in the form of EDM, of an `EDMEulerScheduler`.

    Args:
        sigma_data: σ_d, the standard deviation of the training images' entries.
        sigma_min, sigma_max: the noise levels of its training.
        prediction: ``"epsilon"`` or ``"v_prediction"``.
        others: see `NetworkPrior`.

    Raises:
        InputError: see `NetworkPrior`, a number out of range, or another prediction.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        sigma_data: float = 0.5,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        prediction: str = "epsilon",
        curve: ErrorCurve | None = None,
    ) -> None:
        check_levels(sigma_min, sigma_max, sigma_data=sigma_data)
        if prediction not in SIGNS:
            raise InputError(
                f"prediction type {prediction!r:.40} is not supported; one of {tuple(SIGNS)} is."
            )
        super().__init__(unet, curve)
        self.sigma_data, self.prediction = float(sigma_data), prediction
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        s, d = sigma.view(-1, 1, 1, 1), self.sigma_data
        norm = (s.square() + d**2).sqrt()
        c_skip, c_out = (d / norm) ** 2, SIGNS[self.prediction] * s * d / norm
        return c_skip * x + c_out * self._output(x / norm, sigma.log() / 4)

    def describe(self) -> dict[str, object]:
        return {**super().describe(), "prediction": self.prediction}
