"""The settings of the DCDP paper: Tables 6, 7 and 8, and Appendix A.3 for noisy measurements.

The paper descends on PyTorch's MSE, a mean over the m entries of a measurement, with learning rate
α: its step on Aᵀ(A x − y) is η = 2α/m. m belongs to the paper's 256×256 RGB images (its masked
images keep their full size); η is what carries over to other sizes, as ‖A‖ does.

Appendix A.3 ends super-resolution and motion blur at T_K = 250 and 300 for noisy measurements,
chosen for σ_y = 0.1, and advises less for less noise. The noise level that these stand for is taken
in proportion to σ_y, and to the side of the image, since a smaller picture has less of what
survives a noise: at 64×64 and σ_y = 0.1 that is worth 0.7 to 2.2 dB. Where the paper takes smaller
steps for noisy measurements, the blurs, they shrink with the side of the image too: at 64×64 and
σ_y = 0.05 that keeps the data steps from fitting the noise and is worth 0.7 dB (Gaussian blur of
std 1.5) to 4.6 dB (std 0.75).

Not in the paper, and chosen here: "inpaint-random" is set like "inpaint-box"; noisy Gaussian blur
like noisy motion blur; noisy inpainting and "denoise" end where the purification's noise is that
of the measurements; "denoise" starts at four times that, with steps so small that a round does not
quite reach the measurements. In a consistency model's range the noisy ends keep their ratio to
the start, in σ.
"""

from __future__ import annotations

import bisect
from typing import Any, Literal, NamedTuple

from diffsplit.errors import InputError
from diffsplit.schedules import ddpm_sigmas

__all__ = ["TASKS", "Family", "preset_for", "step_size_from_alpha"]

Family = Literal["pixel", "latent", "consistency"]

GRADIENT_STEPS = 1000
"""In all rounds together."""

PAPER_SIZE = 256
PAPER_NOISE = 0.1


def step_size_from_alpha(alpha: float, size: int) -> float:
    """η = 2α/m, from the paper's learning rate and the size of one image's measurement."""
    return 2 * alpha / size


class _Task(NamedTuple):
    alpha: float
    size: int  # m of the paper
    rounds: int
    start: float
    latent_rounds: tuple[int, int]  # on LSUN-Bedrooms and on FFHQ: Table 7
    latent_start: float
    sigma: float  # where consistency models start: Table 8
    noisy_alpha: float
    noisy_end: float | None  # for σ_y = 0.1 at 256×256; None: where σ is σ_y
    in_pixels: bool  # which approach the paper takes in latents


_FULL = 3 * 256 * 256
_BOX = _Task(1e3, _FULL, 20, 700, (20, 20), 500, 5, 1e3, None, False)
TASKS = {
    "super-resolution": _Task(1e3, 3 * 64 * 64, 10, 400, (10, 10), 400, 1, 1e3, 250, False),
    "gaussian-deblur": _Task(1e5, _FULL, 10, 400, (10, 10), 400, 1, 1e4, 300, True),
    "motion-deblur": _Task(1e5, _FULL, 20, 400, (10, 4), 400, 1, 1e4, 300, True),
    "inpaint-box": _BOX,
    "inpaint-random": _BOX,
    "denoise": _Task(200, _FULL, 10, 400, (10, 10), 400, 1, 200, None, True),
}


def _timestep(sigma: float) -> float:
    """The DDPM timestep, from 1, whose noise level is the nearest from above."""
    return min(bisect.bisect_left(ddpm_sigmas(), sigma) + 1, 1000)


def preset_for(
    task: str, family: Family, image_size: int, data: str, noise: float, overrides: dict[str, Any]
) -> dict[str, Any]:
    """Parameters for `DCDP` or `LatentDCDP`; arguments as in `DCDP.preset`."""
    if task not in TASKS:
        raise InputError(f"there is no preset for {task!r}; there is one for {', '.join(TASKS)}.")
    if data not in ("ffhq", "lsun-bedrooms"):
        raise InputError(f"the paper's data are 'ffhq' and 'lsun-bedrooms', not {data!r}.")
    if image_size < 1 or not 0 <= noise < float("inf"):
        raise InputError(
            f"image_size is at least 1 and noise at least 0, not {image_size} and {noise}."
        )
    if task == "denoise" and noise == 0:
        raise InputError("denoising needs the noise level of the measurements; give noise > 0.")
    row = TASKS[task]
    rounds, start, end = row.rounds, row.start, 0.0
    if family == "latent":
        rounds, start = row.latent_rounds[data == "ffhq"], row.latent_start
    if task == "denoise":
        start = _timestep(4 * noise)
    if noise > 0:
        severity = noise / PAPER_NOISE * image_size / PAPER_SIZE
        sigma = noise if row.noisy_end is None else severity * _sigma(row.noisy_end)
        end = min(_timestep(sigma), start)
    if family == "consistency":
        rounds = 20
        share = _sigma(end) / _sigma(start) if noise > 0 else 0.0
        start = _sigma(start) if task == "denoise" else row.sigma
        end = share * start
    alpha = row.alpha
    if noise > 0:
        shrink = image_size / PAPER_SIZE if row.noisy_alpha < row.alpha else 1.0
        alpha = shrink * row.noisy_alpha
    settings: dict[str, Any] = {
        "rounds": rounds,
        "step_size": step_size_from_alpha(alpha, row.size),
        "momentum": 0.9,
        "start": start,
        "end": end,
    }
    if family == "latent":
        settings["consistency"] = "pixel" if row.in_pixels else "latent"
    settings.update(overrides)
    settings.setdefault("tau", max(GRADIENT_STEPS // max(settings["rounds"], 1), 1))
    return settings


def _sigma(timestep: float) -> float:
    return ddpm_sigmas()[max(round(timestep), 1) - 1]
