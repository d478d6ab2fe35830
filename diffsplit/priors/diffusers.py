"""A variance-preserving diffusers model, seen in σ-space.

With x_t = α_t x0 + s_t n, x = x_t/α_t and σ = s_t/α_t:   α = 1/√(1 + σ²), s = σ α, and

    epsilon:       D = x − σ ε(x_t, t)
    v_prediction:  D = α x_t − s v(x_t, t)
    sample:        D = the output itself

t is the position of σ on the grid of the model's own betas, interpolated in log σ between
integer timesteps. A learned variance (twice as many output channels) is dropped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors.base import Denoiser
from diffsplit.priors.error_curve import ErrorCurve
from diffsplit.priors.pretrained import LOADING, diffusers_class, image_sides

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["DiffusersPrior"]

PREDICTIONS = ("epsilon", "v_prediction", "sample")


class DiffusersPrior(Denoiser):
    """A `UNet2DModel` with the noise schedule that it was trained on.

    Args:
        unet: the network; its output has as many channels as its input, or twice as many.
        alphas_cumprod: ᾱ_t for t = 0 … T − 1 ``(T,)``, falling.
        prediction: ``"epsilon"``, ``"v_prediction"`` or ``"sample"``.
        curve: the measured error v(σ), see `measure_error`.

    Raises:
        InputError: another kind of prediction, a schedule that does not fall inside (0, 1), or a
            network that does not name the size of its images.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        alphas_cumprod: Tensor,
        prediction: str = "epsilon",
        curve: ErrorCurve | None = None,
    ) -> None:
        if prediction not in PREDICTIONS:
            raise InputError(
                f"prediction type {prediction!r} is not supported; one of {PREDICTIONS} is."
            )
        alphas = alphas_cumprod.double().cpu()
        inside = len(alphas) > 1 and bool(alphas[-1] > 0) and bool(alphas[0] < 1)
        if not inside or not bool((alphas.diff() < 0).all()):
            raise InputError(
                "the noise schedule does not fall from below 1 to above 0; give the one that the "
                "model was trained with."
            )
        self.unet, self.prediction, self.curve = unet, prediction, curve
        self.shape = (unet.config.in_channels, *image_sides(unet))
        self._log_sigmas = (((1 - alphas) / alphas).sqrt().log()).to(unet.device)
        self.sigma_min = float(self._log_sigmas[0].exp())
        self.sigma_max = float(self._log_sigmas[-1].exp())

    def timestep(self, sigma: Tensor) -> Tensor:
        """The (fractional) timestep whose noise level is σ, float32, shaped like ``sigma``."""
        knots = self._log_sigmas
        x = sigma.to(knots).log().clamp(knots[0], knots[-1]).contiguous()
        right = torch.searchsorted(knots, x).clamp(1, len(knots) - 1)
        low, high = knots[right - 1], knots[right]
        return ((right - 1) + (x - low) / (high - low)).to(torch.float32)

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.view(-1, 1, 1, 1)
        alpha = (1 + level.square()).rsqrt()
        scaled = (alpha * x).to(self.unet.dtype)
        full = self.unet(scaled, self.timestep(sigma), return_dict=False)[0]
        output: Tensor = full[:, : self.shape[0]].to(x.dtype)
        if self.prediction == "epsilon":
            return x - level * output
        if self.prediction == "v_prediction":
            return alpha.square() * x - level * alpha * output
        return output

    def error(self, sigma: float | Tensor) -> Tensor | None:
        return None if self.curve is None else self.curve(sigma)

    @property
    def device(self) -> torch.device:
        return torch.device(self.unet.device)

    def to(self, device: str | torch.device) -> DiffusersPrior:
        self.unet.to(device=torch.device(device))
        self._log_sigmas = self._log_sigmas.to(device)
        return self

    def describe(self) -> dict[str, object]:
        parameters = sum(p.numel() for p in self.unet.parameters())
        return {**super().describe(), "parameters": parameters, "prediction": self.prediction}

    @classmethod
    def load(cls, name_or_path: str, device: str | torch.device = "cpu") -> DiffusersPrior:
        """Load a pipeline folder (``unet/``, ``scheduler/``), a model folder, or a hub id.

        A model folder without a scheduler is taken to be trained on 1000 linear betas.

        Raises:
            InputError: nothing there, the hub cannot be reached, no `UNet2DModel`, unreadable
                weights, or a scheduler without betas.
        """
        from diffusers import DDPMScheduler

        unet_class = diffusers_class("UNet2DModel")
        is_pipeline = _is_pipeline(name_or_path)
        try:
            unet = unet_class.from_pretrained(
                name_or_path,
                subfolder="unet" if is_pipeline else None,
                **LOADING,
            )
            scheduler = _scheduler_config(name_or_path, is_pipeline)
            betas = DDPMScheduler.from_config(scheduler) if scheduler else DDPMScheduler()
        except Exception as error:  # a stranger's config may break a constructor in any way
            raise InputError(_explain(name_or_path, error)) from error
        if scheduler and "beta_start" not in scheduler and "trained_betas" not in scheduler:
            raise InputError(
                f"{name_or_path}: its scheduler ({scheduler.get('_class_name')}) has no betas; "
                "only variance-preserving models are supported, or wrap it with from_callable."
            )
        unet = unet.eval().requires_grad_(False).to(torch.device(device))
        try:
            return cls(unet, betas.alphas_cumprod, betas.config.prediction_type)
        except InputError as error:
            raise InputError(f"{name_or_path}: {error}") from error


def _is_pipeline(name_or_path: str) -> bool:
    folder = Path(name_or_path)
    if folder.is_dir():
        return (folder / "unet").is_dir()
    from huggingface_hub import file_exists

    try:
        return file_exists(name_or_path, "unet/config.json")
    except Exception:  # any failure here comes back, explained, when the weights are asked for
        return False


def _scheduler_config(name_or_path: str, is_pipeline: bool) -> dict[str, object] | None:
    folder = Path(name_or_path)
    if not folder.is_dir():
        from diffusers import DDPMScheduler

        subfolder = "scheduler" if is_pipeline else None
        return dict(DDPMScheduler.load_config(name_or_path, subfolder=subfolder))
    inner = folder / "scheduler" if is_pipeline else folder
    file = inner / "scheduler_config.json"
    return dict(json.loads(file.read_text("utf-8"))) if file.is_file() else None


def _explain(name_or_path: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(name_or_path).is_dir():
        return (
            f"{name_or_path}: no readable diffusers model ({reason}); give a folder with a "
            "UNet2DModel's config.json and safetensors weights, or a pipeline that has one."
        )
    return (
        f"{name_or_path}: neither a bundled prior nor an existing folder, and the model hub did "
        f"not give it ({reason}); check the name and the network, or give a downloaded folder."
    )
