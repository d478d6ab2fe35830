"""Measuring the error v(σ) of a prior that came without one, and keeping it on this machine.

Message passing needs v(σ), the mean squared error of the denoiser at each noise level. Where it is
not known, a solver estimates it with a second evaluation a step. Measured once, it is stored by a
hash of the weights, and `load_prior` finds it from then on.

Measured on images that the model was not trained on, v(σ) is the error on images of that kind. If
there are none, samples of the model itself take their place. Then v(σ) is the error on what the
model itself generates, its own kind, as if the model were perfect. On real images the error is as a
rule larger, so that solvers trust the model more than they should. Of the bundled ``cats-64``, v(σ)
on 16 of its own samples was 8 to 19 % below that on photographs. So images are better; a few dozen
are enough.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors import (
    Denoiser,
    ErrorCurve,
    LatentModel,
    Prior,
    log_grid,
    measure_error,
    store_curve,
    stored_curve,
)
from diffsplit.solvers.reverse import sample

__all__ = ["calibrate_prior"]

LEVELS = 25
"""Noise levels of the table, evenly spaced in log σ over the range of the prior."""
SAMPLES = 32
"""The model's own samples, where no images are given."""
STEPS = 40
"""Evaluations that each of these takes."""
TOGETHER = 16
"""Images that are encoded at once."""


@torch.no_grad()
def calibrate_prior(
    prior: Prior, images: Tensor | None = None, *, generator: torch.Generator
) -> ErrorCurve:
    """Measure v(σ) of a prior, let the prior use it from now on, and store it on this machine.

    Args:
        prior: a denoiser, or a latent model, of which the denoiser of latents is measured.
        images: clean ones ``(n, *prior.shape)`` on [-1, 1] that the prior was not trained on; None
            for its own samples, see above.
        generator: of the noise, and of the samples.

    Raises:
        InputError: a prior that is no denoiser, that came with its error or that has no network;
            images of another shape; an error that is not finite; or a folder that cannot be written
            to.
    """
    denoiser = _checked(prior)
    own = images is None
    if images is None:
        clean = sample(denoiser, SAMPLES, STEPS, generator)
    elif isinstance(prior, LatentModel):
        parts = torch.split(images.to(prior.device), TOGETHER)
        clean = torch.cat([prior.encode(part) for part in parts])
    else:
        clean = images.to(denoiser.device)
    levels = log_grid(denoiser.sigma_min, denoiser.sigma_max, LEVELS)
    curve = measure_error(denoiser, clean, levels, generator, batch=TOGETHER)
    facts = {"measured_on": "samples of the model" if own else "images", "images": len(clean)}
    store_curve(denoiser, curve, facts)
    denoiser.curve = curve
    return curve


def _checked(prior: Prior) -> Denoiser:
    """The denoiser that is to be measured, or an InputError if there is none."""
    denoiser = prior.latent if isinstance(prior, LatentModel) else prior
    if not isinstance(denoiser, Denoiser):
        raise InputError(
            f"a {prior.kind} has no error v(σ) to be measured; give a diffusion model, such as "
            f"{Denoiser.example}."
        )
    found = stored_curve(denoiser)
    if denoiser.error(1.0) is not None and (found is None or denoiser.curve != found):
        raise InputError(
            "the prior comes with its error v(σ), and nothing has to be measured; to use another, "
            "set its curve to what ds.priors.measure_error returns."
        )
    if not denoiser.networks:
        raise InputError(
            f"a {type(denoiser).__name__} has no weights to be recognized by; set its curve to "
            "what ds.priors.measure_error returns."
        )
    return denoiser
