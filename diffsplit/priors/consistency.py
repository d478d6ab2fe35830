"""Consistency models: one evaluation leads from any noise level to a clean image.

    f(x, σ) = c_skip x + c_out F(c_in x, 250 ln σ)         (Song et al. 2023, Eq. 5, App. C)
    c_skip = σ_d²/((σ − ε)² + σ_d²),  c_out = σ_d (σ − ε)/√(σ² + σ_d²),  c_in = 1/√(σ² + σ_d²)

so that f(x, ε) = x at ε = σ_min. f maps a whole trajectory of the probability-flow ODE to where it
starts: it answers with one likely image, and not, as a denoiser does, with the mean of all of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from diffsplit.errors import InputError
from diffsplit.priors.base import Prior, check_levels
from diffsplit.priors.class_label import with_label
from diffsplit.priors.edm import NOISE_SCALE, image_shape
from diffsplit.priors.folder import described, write_folder
from diffsplit.priors.pretrained import components, load_part, part_config, save_part

if TYPE_CHECKING:
    from diffusers import UNet2DModel

__all__ = ["FORMAT", "SCHEDULER", "ConsistencyFunction", "ConsistencyPrior"]

FORMAT = "diffsplit-consistency"
SCHEDULER = "CMStochasticIterativeScheduler"


class ConsistencyFunction(Prior):
    """A prior whose `denoise` is a consistency function: a draw, and not a posterior mean.

    It answers at a noise level of x = x0 + σ n with one image on the data's manifold. Solvers that
    live from posterior means (DiffEP, DiffOneBit) do worse with it than with a denoiser; DCDP takes
    it with ``purifier="consistency"``. `error` is None: a draw has none to report.
    """


class ConsistencyPrior(ConsistencyFunction):
    """A U-Net with the boundary scaling of consistency models.

    Args:
        unet: the network F, on ``patch``×``patch`` blocks of pixels as channels.
        sigma_data: σ_d.
        patch: side of the blocks; 1 for published models.
        sigma_min, sigma_max: the noise levels it was trained on; ε is ``sigma_min``.
        mean_square: E[x0²] per entry.
        facts: what the model card says, kept when saved.

    Raises:
        InputError: the network does not fit the patches, or a number is out of range.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        sigma_data: float = 0.5,
        patch: int = 1,
        sigma_min: float = 0.002,
        sigma_max: float = 80.0,
        mean_square: float = 0.25,
        facts: dict[str, Any] | None = None,
    ) -> None:
        check_levels(sigma_min, sigma_max, sigma_data=sigma_data, mean_square=mean_square)
        self.shape = image_shape(unet, patch)
        self.unet, self.sigma_data, self.patch = unet, sigma_data, patch
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.mean_square = mean_square
        self.facts = facts or {}

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        s, d = sigma.view(-1, 1, 1, 1), self.sigma_data
        norm, above = (s.square() + d**2).sqrt(), s - self.sigma_min
        c_skip, c_out, c_in = d**2 / (above.square() + d**2), d * above / norm, 1 / norm
        patches = pixel_unshuffle(c_in * x, self.patch).to(self.unet.dtype)
        f = self.unet(patches, NOISE_SCALE * sigma.log(), return_dict=False)[0]
        return c_skip * x + c_out * pixel_shuffle(f.to(x.dtype), self.patch)

    @property
    def device(self) -> torch.device:
        return torch.device(self.unet.device)

    def to(self, device: str | torch.device) -> ConsistencyPrior:
        self.unet.to(device=torch.device(device))
        return self

    def describe(self) -> dict[str, object]:
        parameters = sum(p.numel() for p in self.unet.parameters())
        return {**super().describe(), "parameters": parameters, **self.facts}

    def save(self, folder: Path, half: bool = True) -> None:
        """Write ``unet/`` and ``scheduler/`` (diffusers layout) and ``prior.json``.

        Args:
            half: store the weights in float16, at half the size.
        """
        from diffusers import CMStochasticIterativeScheduler

        config = {
            "sigma_data": self.sigma_data,
            "patch": self.patch,
            "sigma_min": self.sigma_min,
            "sigma_max": self.sigma_max,
            "mean_square": self.mean_square,
            "facts": self.facts,
        }
        scheduler = CMStochasticIterativeScheduler(
            sigma_min=self.sigma_min, sigma_max=self.sigma_max, sigma_data=self.sigma_data
        )
        with write_folder(folder, FORMAT, config) as temporary:
            save_part(self.unet, temporary / "unet", half)
            scheduler.save_pretrained(temporary / "scheduler")

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> ConsistencyPrior:
        """Read a folder that `save` wrote.

        Raises:
            InputError: a file is missing, unreadable, or of another format version.
        """
        with described(folder, FORMAT) as config:
            return cls(
                load_part("UNet2DModel", str(folder), "unet", device),
                sigma_data=float(config["sigma_data"]),
                patch=int(config["patch"]),
                sigma_min=float(config["sigma_min"]),
                sigma_max=float(config["sigma_max"]),
                mean_square=float(config["mean_square"]),
                facts=dict(config["facts"]),
            )

    @classmethod
    def from_pretrained(
        cls, name_or_path: str, device: str | torch.device = "cpu", class_label: int | None = None
    ) -> ConsistencyPrior:
        """Load a `ConsistencyModelPipeline`: a folder (``unet/``, ``scheduler/``) or a hub id.

        Args:
            class_label: the class of a class-conditional model.

        Raises:
            InputError: nothing there, no consistency model, unreadable weights, or a class is
                missing or unknown.
        """
        if components(name_or_path).get("scheduler") != SCHEDULER:
            raise InputError(
                f"{name_or_path}: there is no {SCHEDULER}, so it is no consistency model, or the "
                "hub did not give it; check the name and the network, or use load_prior."
            )
        unet = with_label(load_part("UNet2DModel", name_or_path, "unet", device), class_label)
        config = part_config(name_or_path, "scheduler")
        try:
            return cls(
                unet,
                sigma_data=float(config.get("sigma_data", 0.5)),
                sigma_min=float(config.get("sigma_min", 0.002)),
                sigma_max=float(config.get("sigma_max", 80.0)),
            )
        except (TypeError, ValueError, ArithmeticError) as error:
            raise InputError(
                f"{name_or_path}: its configuration makes no sense ({str(error).rstrip('.')}); "
                "download it again."
            ) from error
