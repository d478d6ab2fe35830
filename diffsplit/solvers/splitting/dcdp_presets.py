"""The settings of the DCDP paper: Tables 6, 7 and 8, and Appendix A.3 for noisy measurements.

The paper descends on PyTorch's MSE, a mean over the m entries of a measurement, with learning rate
α: its step on Aᵀ(A x − y) is η = 2α/m. m belongs to the paper's 256×256 RGB images (its masked
images keep their full size); η is what carries over to other sizes, as ‖A‖ does.

For noisy measurements Appendix A.3 lowers α for motion blur to 1e4 and ends super-resolution at
T_K = 250 and motion blur at 300, at every noise level of its Table 4.

`adapted` is ours. It takes the noise level that the ends 250 and 300 stand for in proportion to
σ_y, and to the side of the image, since a smaller picture has less of what survives a noise; and
the smaller steps of noisy blurs shrink with the side, too, which keeps the data steps from fitting
the noise. In a consistency model's range noisy ends keep their ratio to the start, in σ.

Not in the paper, and chosen here: "inpaint-random" is set like "inpaint-box"; noisy Gaussian blur
like noisy motion blur; noisy inpainting and "denoise" end where the purification's noise is that
of the measurements; "denoise" starts at four times that, with steps so small that a round does not
quite reach the measurements.
"""

from __future__ import annotations

import bisect
from typing import Any, Literal, NamedTuple

from diffsplit.errors import InputError
from diffsplit.schedules import ddpm_sigmas
from diffsplit.solvers.base import are_counts, is_number

__all__ = ["TASKS", "Family", "preset_for", "step_size_from_alpha"]

Family = Literal["pixel", "latent", "consistency"]

GRADIENT_STEPS = 1000
"""In all rounds together."""

PAPER_SIZE = 256
PAPER_NOISE = 0.1
"""σ_y for which the paper's ends were chosen; its Table 4 also has less noise."""


def step_size_from_alpha(alpha: float, size: int) -> float:
    """η = 2α/m, from the paper's learning rate and the size of one image's measurement."""
    return 2 * alpha / size


class _Task(NamedTuple):
    """One task's row of the tables.

    Attributes:
        alpha, size: α, and m of the paper's measurement.
        rounds, start: K and T_1 in pixels (Table 6).
        latent_rounds, latent_start: on LSUN-Bedrooms and on FFHQ (Table 7).
        sigma: where consistency models start (Table 8).
        noisy_alpha, noisy_end: α and T_K for noisy measurements; an end of None is where the
            purification's σ is σ_y.
        in_pixels: whether the paper's data step in latents is on pixels (Approach II).
    """

    alpha: float
    size: int
    rounds: int
    start: float
    latent_rounds: tuple[int, int]
    latent_start: float
    sigma: float
    noisy_alpha: float
    noisy_end: float | None
    in_pixels: bool


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


def preset_for(
    task: str,
    family: Family,
    image_size: int,
    data: str,
    noise: float,
    adapted: bool,
    overrides: dict[str, Any],
) -> dict[str, Any]:
    """Parameters for `DCDP` or `LatentDCDP`; arguments as in `DCDP.preset`."""
    _check(task, image_size, data, noise)
    row, noisy = TASKS[task], noise > 0
    rounds, start = row.rounds, row.start
    if family == "latent":
        rounds, start = row.latent_rounds[data == "ffhq"], row.latent_start
    if task == "denoise":
        start = _timestep(4 * noise)
    side = image_size / PAPER_SIZE if adapted else 1.0
    end = min(_noisy_end(row.noisy_end, noise, side, adapted), start) if noisy else 0.0
    alpha = row.noisy_alpha if noisy else row.alpha
    if noisy and row.noisy_alpha < row.alpha:
        alpha *= side
    if family == "consistency":
        ratio = _sigma(end) / _sigma(start) if noisy else 0.0
        rounds, start = 20, _sigma(start) if task == "denoise" else row.sigma
        end = ratio * start
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
    if are_counts(settings["rounds"]):  # else the solver says so
        settings.setdefault("tau", max(GRADIENT_STEPS // settings["rounds"], 1))
    return settings


def _check(task: str, image_size: int, data: str, noise: float) -> None:
    if not isinstance(task, str) or task not in TASKS:
        raise InputError(f"there is no preset for {task!r}; there is one for {', '.join(TASKS)}.")
    if not isinstance(data, str) or data not in ("ffhq", "lsun-bedrooms"):
        raise InputError(f"the paper's data are 'ffhq' and 'lsun-bedrooms', not {data!r}.")
    if not are_counts(image_size) or not is_number(noise, 0):
        raise InputError(
            f"image_size is at least 1 and noise at least 0, not {image_size} and {noise}."
        )
    if task == "denoise" and noise == 0:
        raise InputError("denoising needs the noise level of the measurements; give noise > 0.")


def _noisy_end(end: float | None, noise: float, side: float, adapted: bool) -> float:
    """T_K for noisy measurements."""
    if end is None:
        return _timestep(noise)
    return _timestep(noise / PAPER_NOISE * side * _sigma(end)) if adapted else end


def _timestep(sigma: float) -> float:
    """The DDPM timestep, from 1, whose noise level is the nearest from above."""
    return min(bisect.bisect_left(ddpm_sigmas(), sigma) + 1, 1000)


def _sigma(timestep: float) -> float:
    return ddpm_sigmas()[max(round(timestep), 1) - 1]
