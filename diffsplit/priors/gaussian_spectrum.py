"""A Gaussian prior of natural images that is diagonal in the cosine transform, for any size.

For images x0 = m + Cᵀ z with independent z ~ N(0, λ) and x = x0 + σ n,

    D(x, σ) = m + Cᵀ diag(λ/(λ + σ²)) C (x − m)                    (the Wiener filter)
    v(σ) = mean of λσ²/(λ + σ²)
    x0 | x ~ N(D(x, σ), Cᵀ diag(λσ²/(λ + σ²)) C)

C is orthonormal: the colors are rotated into uncorrelated ones (for RGB gray and two differences,
about), and each of these gets a two-dimensional DCT-II, whose coefficients are nearly uncorrelated
for natural images (Ahmed, Natarajan, Rao 1974).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from diffsplit.devices import checked_device
from diffsplit.errors import InputError
from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import Denoiser
from diffsplit.priors.checks import (
    as_levels,
    check_levels,
    checked_count,
    checked_numbers,
    per_image,
)
from diffsplit.priors.cosine import cosine_matrix, dct2, idct2, moments, rotated
from diffsplit.priors.storage import described, read_tensors, save_tensors, write_folder

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["GaussianSpectrum"]

LEAST_STORED = 1e-20
"""Variances are stored as logarithms; a smaller one is read back as this."""
FILE = "spectrum.safetensors"


class GaussianSpectrum(Denoiser):
    """Images whose cosine coefficients, in uncorrelated colors, are independent Gaussians.

    Args:
        variances: λ of each coefficient ``(C, H, W)``, of images on [-1, 1].
        mean: m, the mean image, broadcast to ``(C, H, W)``.
        colors: orthonormal ``(C, C)``; its rows are the uncorrelated colors. The identity if None.
        sigma_min, sigma_max: the range that `denoise` moves σ into.
        bounds: range of a clean image's entries, or None. The closed form knows of no bounds.
        facts: what the model card says (data, license), kept when saved.

    Attributes:
        variances, mean, colors: see above, float64 on the CPU.

    Raises:
        InputError: a shape does not fit, a number is not finite, a variance is negative, or the
            colors are not orthonormal.
    """

    format = "diffsplit-gaussian-spectrum"
    shape: tuple[int, int, int]

    def __init__(
        self,
        variances: Tensor,
        mean: float | Tensor = 0.0,
        colors: Tensor | None = None,
        *,
        sigma_min: float = 1e-3,
        sigma_max: float = 160.0,
        bounds: tuple[float, float] | None = (-1.0, 1.0),
        facts: dict[str, Any] | None = None,
    ) -> None:
        check_levels(sigma_min, sigma_max)
        self.variances = checked_numbers("variances", variances).cpu()
        if self.variances.ndim != 3 or self.variances.numel() == 0:
            raise InputError(
                "the variances are one per coefficient of an image, (C, H, W), not "
                f"{tuple(self.variances.shape)}."
            )
        if not bool((self.variances >= 0).all()) or not bool(self.variances.any()):
            raise InputError("variances are not negative, and not all 0; give others.")
        channels, height, width = self.variances.shape
        self.shape = channels, height, width
        self.mean = checked_numbers("mean", mean, self.shape).view(channels, height, width).cpu()
        eye = torch.eye(channels, dtype=torch.float64)
        self.colors = eye if colors is None else checked_numbers("colors", colors).cpu()
        if self.colors.shape != eye.shape or not torch.allclose(
            self.colors @ self.colors.T, eye, atol=1e-5
        ):
            raise InputError(f"the colors are an orthonormal {channels}×{channels} matrix.")
        self.sigma_min, self.sigma_max = float(sigma_min), float(sigma_max)
        self.bounds, self.facts = bounds, facts or {}
        self.mean_square = float(self.mean.square().mean() + self.variances.mean())
        self._device = torch.device("cpu")
        self._copies: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def device(self) -> torch.device:
        return self._device

    def to(self, device: str | torch.device) -> Self:
        self._device = checked_device(device)
        return self

    def _tensors(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """λ, m and the colors where they are needed, copied there once."""
        key = dtype, device
        if key not in self._copies:
            with torch.inference_mode(False):
                self._copies[key] = (
                    self.variances.to(device, dtype),
                    self.mean.to(device, dtype),
                    self.colors.to(device, dtype),
                )
        return self._copies[key]

    def to_spectrum(self, x: Tensor) -> Tensor:
        """C x, the coefficients ``(B, C, H, W)`` of images; the mean is not subtracted."""
        return dct2(rotated(x, self._tensors(x.dtype, x.device)[2]))

    def from_spectrum(self, z: Tensor) -> Tensor:
        """Cᵀ z, the inverse of `to_spectrum`."""
        return rotated(idct2(z), self._tensors(z.dtype, z.device)[2].T)

    def scale(self, x: Tensor, power: float, sigma: Tensor) -> Tensor:
        """m + Cᵀ diag(λ/(λ + σ²))^power C (x − m) for x ``(B, C, H, W)`` and σ ``(B,)``."""
        variances, mean, _ = self._tensors(x.dtype, x.device)
        gain = variances / (variances + sigma.square().view(-1, 1, 1, 1))
        gain = gain if power == 1 else gain.pow(power)
        return mean + self.from_spectrum(gain * self.to_spectrum(x - mean))

    def _denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.scale(x, 1.0, sigma)

    def error(self, sigma: float | Tensor) -> Tensor:
        """v(σ), the mean over the coefficients of λσ²/(λ + σ²), shaped like ``sigma``.

        It is the error on images that follow the prior, without clipping.
        """
        levels = as_levels(sigma)
        variances = self._tensors(levels.dtype, levels.device)[0].flatten()
        return _posterior(variances, levels.unsqueeze(-1)).mean(-1)

    def sample(self, count: int, generator: Generators) -> Tensor:
        """``(count, C, H, W)`` draws of x0, float32 on the CPU, not clipped."""
        white = torch.empty(checked_count("count", count), *self.shape, dtype=torch.float64)
        colored = self.variances.sqrt() * randn_like(white, generator)
        return (self.mean + self.from_spectrum(colored)).float()

    def posterior_sample(self, x: Tensor, sigma: float | Tensor, generator: Generators) -> Tensor:
        """One exact draw of x0 | x for each noisy image, not clipped.

        Args:
            x: noisy images ``(B, C, H, W)``.
            sigma: their noise level, one or one per image.
            generator: of the draw.

        Returns:
            ``(B, C, H, W)``, with mean `denoise` and mean variance `error`.
        """
        mean = self.denoise(x, sigma)
        levels = per_image(sigma, len(x), x).clamp(self.sigma_min, self.sigma_max)
        variances = self._tensors(x.dtype, x.device)[0]
        spread = _posterior(variances, levels.view(-1, 1, 1, 1)).sqrt()
        return mean + self.from_spectrum(spread * randn_like(x, generator))

    def posterior_variance(self, sigma: float | Tensor) -> Tensor:
        """The variance of each entry of x0 | x, which does not depend on x.

        Args:
            sigma: one noise level, or ``(B,)``.

        Returns:
            ``(C, H, W)``, or ``(B, C, H, W)``.
        """
        levels = as_levels(sigma)
        variances, _, colors = self._tensors(levels.dtype, levels.device)
        spread = _posterior(variances, levels.view(*levels.shape, 1, 1, 1))
        # An entry of Cᵀ z has the variance Σ c² Var z; c is a product of three factors.
        down, across = (cosine_matrix(n, levels.dtype, levels.device) for n in self.shape[1:])
        return rotated(down.square().T @ spread @ across.square(), colors.square().T)

    @classmethod
    def fit(
        cls,
        images: Tensor | Iterable[Tensor],
        *,
        facts: dict[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """The prior with the mean and variances of some images and their mirror images.

        The colors are the eigenvectors of the covariance of the color channels, that of the
        largest variance first.

        Args:
            images: ``(n, C, H, W)`` on [-1, 1], or an iterable of such batches, which is read once,
                one batch at a time.
            facts, options: ``sigma_min``, ``sigma_max`` and ``bounds``; see the class.

        Raises:
            InputError: fewer than two images, of different shapes, not floating-point, not
                finite, or all alike.
        """
        mean, covariance = moments(images)
        channels = covariance.mean((2, 3))
        if not bool(channels.isfinite().all()) or float(channels.trace()) <= 1e-12:
            raise InputError("the images are not finite, or all alike; give other images.")
        colors = torch.linalg.eigh(channels)[1].T.flip(0)
        colors = colors * torch.where(colors.sum(1, keepdim=True) < 0, -1.0, 1.0)
        variances = torch.einsum("ki,ijhw,kj->khw", colors, covariance, colors).clamp(min=0)
        return cls(variances, idct2(mean), colors, facts=facts, **options)

    def describe(self) -> dict[str, object]:
        return {**super().describe(), **self.facts}

    def save(self, folder: Path, half: bool = True) -> None:
        """Write the tensors, as ``spectrum.safetensors``, and ``prior.json``.

        Args:
            half: store ln λ and m in float16, at a quarter of the size. ln λ is then off by at
                most 0.008, which raises the denoiser's error by less than 2e-5 of itself.
        """
        tensors = {"variances": self.variances, "mean": self.mean, "colors": self.colors}
        if half:
            logs = tensors.pop("variances").clamp(min=LEAST_STORED).log()
            tensors |= {"log_variances": logs.half(), "mean": self.mean.half()}
        config = {
            "shape": list(self.shape),
            "sigma_min": self.sigma_min,
            "sigma_max": self.sigma_max,
            "bounds": self.bounds,
            "facts": self.facts,
        }
        with write_folder(folder, self.format, config) as temporary:
            save_tensors(tensors, temporary / FILE)

    @classmethod
    def load(cls, folder: Path, device: str | torch.device = "cpu") -> Self:
        """Read a folder that `save` wrote.

        Raises:
            InputError: a file is missing, unreadable, malformed, or of another format version.
        """
        with described(folder, cls.format) as config:
            tensors = read_tensors(folder / FILE)
            if "log_variances" in tensors:
                tensors["variances"] = tensors["log_variances"].double().exp()
            bounds = config["bounds"]
            prior = cls(
                tensors["variances"],
                tensors["mean"],
                tensors["colors"],
                sigma_min=float(config["sigma_min"]),
                sigma_max=float(config["sigma_max"]),
                bounds=None if bounds is None else (float(bounds[0]), float(bounds[1])),
                facts=dict(config["facts"]),
            )
            return prior.to(device)


def _posterior(variances: Tensor, sigma: Tensor) -> Tensor:
    """λσ²/(λ + σ²), the variance of a coefficient that was seen in noise of level σ."""
    noise = sigma.square()
    return variances * (noise / (variances + noise).clamp(min=torch.finfo(noise.dtype).tiny))
