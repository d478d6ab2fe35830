"""The model cards that go with trained priors, and whether their samples are copies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffsplit.io.images import from_uint8
from diffsplit.priors.base import Denoiser
from diffsplit.priors.consistency import ConsistencyPrior
from diffsplit.priors.error_curve import ErrorCurve
from diffsplit.priors.gaussian_spectrum import GaussianSpectrum
from diffsplit.priors.latent import LatentPrior
from diffsplit.priors.patched import PatchedDenoiser
from diffsplit.priors.residual import ResidualPrior
from diffsplit.training.pictures import Pictures

__all__ = ["consistency_card", "denoiser_card", "gaussian_card", "latent_card", "nearest_images"]

CHUNK = 12_288_000
"""Entries of the training images that are compared with the pictures at once, as floats."""
NEAREST = (
    "above the training images nearest to them, mirror images included. Their root-mean-square "
    "distances on [-1, 1]"
)


def _what_changed(changes: list[dict[str, Any]]) -> str:
    """One line for each resumption with other options; empty if there was none."""
    rows = ""
    for change in changes:
        options = (f"{name} {old} → {new}" for name, (old, new) in change["options"].items())
        rows += f"- after {change['images_seen']} images: {', '.join(options)}\n"
    return f"\nChanged on the way:\n\n{rows}" if rows else ""


def _table(what: str, levels: Sequence[float], values: Sequence[float]) -> str:
    rows = [f"| {a:.3g} | {b:.4g} |" for a, b in zip(levels, values, strict=True)]
    return "\n".join([f"| σ | {what} |", "|---|---|", *rows])


def _curve_table(prior: Denoiser) -> str:
    curve = prior.curve if isinstance(prior.curve, ErrorCurve) else None
    return _table("v(σ)", curve.sigma if curve else (), curve.mse if curve else ())


def _card(facts: dict[str, Any], what: str, how: str, measured: str, samples: str) -> str:
    """Markdown with the header that model hubs read.

    Args:
        facts: of the prior; ``name``, ``license`` and the recipe find their places.
        what, how: what the prior is, and how it was trained.
        measured, samples: its quality, and what ``samples.png`` shows.
    """
    facts = dict(facts)
    license = str(facts.pop("license", "that of the training images"))
    recipes = {key: facts.pop(key) for key in list(facts) if key.endswith("recipe")}
    changes = _what_changed(facts.pop("recipe_changes", []))
    title = str(facts.pop("name", "diffsplit prior"))
    lines = _list({key.replace("_", " "): value for key, value in facts.items()})
    settings = "\n\n".join(map(_list, recipes.values()))
    return f"""---
license: {json.dumps(license, ensure_ascii=False)}
library_name: diffsplit
---
# {title}

{what}

```python
import diffsplit as ds

prior = ds.load_prior("path/to/this/folder")
```

## Data and license
License of the weights: {license}.

{lines}

## Recipe
{how}

{settings}
{changes}
## Measured quality
{measured}

## Samples
`samples.png`: {samples}
"""


def denoiser_card(prior: PatchedDenoiser, nearest: list[float]) -> str:
    """What the prior is, what it was trained on and how, and how wrong it is.

    Args:
        nearest: root-mean-square distance of each pictured sample to its nearest training image.
    """
    network = "an EDM-preconditioned `UNet2DModel` of"
    if isinstance(prior, ResidualPrior):
        network = (
            "the best linear denoiser of a Gaussian\nin the cosine domain (`gaussian/`) and, on "
            "top of it, a `UNet2DModel` of"
        )
    varied = "horizontal flips, augmentation" if _augmented(prior.facts) else "horizontal flips"
    return _card(
        prior.facts,
        f"A denoiser D(x, σ) for {_sizes(prior.shape)} images on [-1, 1] and noise levels "
        f"from\n{prior.sigma_min:g} to {prior.sigma_max:g}: {network} diffusers "
        f"with\n{prior.unet.num_parameters():,} parameters, stored in half precision.",
        f"Muon for kernels, AdamW for the rest, bf16, averaged weights, {varied}.",
        "v(σ), the mean squared error per entry on [-1, 1] over held-out images, output "
        "clipped:\n\n" + _curve_table(prior),
        f"unconditional samples (50 evaluations) {NEAREST}: {_listed(nearest)}.",
    )


def _augmented(facts: dict[str, Any]) -> bool:
    return bool(facts.get("recipe", {}).get("augment"))


def gaussian_card(prior: GaussianSpectrum, measured: ErrorCurve) -> str:
    """The same for a Gaussian in the cosine domain, with its error on held-out images."""
    predicted = prior.error(torch.tensor(measured.sigma)).tolist()
    rows = zip(measured.sigma, measured.mse, predicted, strict=True)
    lines = [f"| {a:.3g} | {b:.4g} | {c:.4g} |" for a, b, c in rows]
    table = "\n".join(["| σ | held-out images | v(σ) |", "|---|---|---|", *lines])
    return _card(
        prior.facts,
        f"A Gaussian of {_sizes(prior.shape)} images on [-1, 1], diagonal in the DCT-II of three\n"
        "uncorrelated colors: a closed-form denoiser, with no network.",
        "Mean and variance of each coefficient over the training images and their mirror images.",
        "The mean squared error per entry on held-out images, output clipped, and v(σ), that on "
        f"images\nthat follow the Gaussian:\n\n{table}",
        "eight draws of the Gaussian.",
    )


def latent_card(prior: LatentPrior, nearest: list[float], psnr: float) -> str:
    """The same for an autoencoder and a denoiser of its latents, with the denoiser's error.

    Args:
        psnr: of held-out images after encoding and decoding, in dB.
    """
    facts = prior.describe()
    autoencoder, denoiser = facts["autoencoder_parameters"], facts["parameters"]
    residual = isinstance(prior.latent, ResidualPrior)
    kind = "the best linear one and, on top of it, a" if residual else "an EDM-preconditioned"
    return _card(
        prior.facts,
        f"A KL autoencoder (`AutoencoderKL` of diffusers, {autoencoder:,} parameters) that turns\n"
        f"{_sizes(prior.shape)} images on [-1, 1] into {_sizes(prior.latent.shape)} latents, and a "
        f"denoiser of these\n({kind} `UNet2DModel`, {denoiser:,} parameters). "
        "Stored in half precision.",
        "First the autoencoder, on absolute errors and a little KL divergence, then the denoiser "
        "on\nits latents. Muon for kernels, AdamW for the rest, bf16, averaged weights, horizontal "
        "flips.",
        f"Held-out images keep {psnr:.1f} dB PSNR when encoded and decoded. v(σ), the denoiser's "
        "mean\nsquared error per entry of their scaled latents:\n\n" + _curve_table(prior.latent),
        f"unconditional samples (50 evaluations), decoded, {NEAREST}: {_listed(nearest)}.",
    )


def consistency_card(
    prior: ConsistencyPrior, levels: Sequence[float], errors: Sequence[float]
) -> str:
    """The same for a consistency model.

    Args:
        errors: root-mean-square distance to where the teacher's trajectory from each of the noise
            ``levels`` ends.
    """
    return _card(
        prior.facts,
        f"A consistency model for {_sizes(prior.shape)} images on [-1, 1]: one evaluation leads "
        f"from any noise\nlevel from {prior.sigma_min:g} to {prior.sigma_max:g} to a clean image. "
        f"A `UNet2DModel` of diffusers with\n{prior.unet.num_parameters():,} parameters, "
        "stored in half precision.",
        "Distilled from a denoiser: the student learns where the denoiser's probability-flow "
        "trajectory\nends, from every point on it. Muon for kernels, AdamW for the rest, bf16, "
        "averaged weights.",
        "Root-mean-square distance per entry on [-1, 1] to the end of the denoiser's own "
        "trajectory:\n\n" + _table("distance", levels, errors),
        "from pure noise, by row: one evaluation, two evaluations, and the denoiser's trajectory.",
    )


def _list(values: dict[str, Any]) -> str:
    return "\n".join(f"- {key}: {value}" for key, value in values.items())


def _sizes(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{d:.2f}" for d in numbers)


def nearest_images(pictures: Tensor, train: Pictures) -> tuple[Tensor, list[float]]:
    """The training images nearest to some pictures, mirror images included.

    Args:
        pictures: ``(n, C, H, W)`` on [-1, 1].
        train: bytes ``(N, C, H, W)``.

    Returns:
        The nearest images ``(n, C, H, W)`` on [-1, 1] and their root-mean-square distances.
    """
    both = torch.cat([pictures, pictures.flip(-1)]).cpu().flatten(1)
    best = torch.full((len(both),), torch.inf)
    index = torch.zeros(len(both), dtype=torch.long)
    chunk = max(1, CHUNK // both.shape[1])
    for start in range(0, len(train), chunk):
        candidates = from_uint8(train[start : start + chunk]).flatten(1)
        distance, place = (torch.cdist(both, candidates) / both.shape[1] ** 0.5).min(1)
        index = torch.where(distance < best, start + place, index)
        best = torch.minimum(best, distance)
    found = from_uint8(train[index])
    n = len(pictures)
    mirrored = best[n:] < best[:n]
    nearest = torch.where(mirrored.view(-1, 1, 1, 1), found[n:].flip(-1), found[:n])
    return nearest, torch.minimum(best[:n], best[n:]).tolist()
