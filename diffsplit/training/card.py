"""The model card that goes with a trained prior."""

from __future__ import annotations

import json
from typing import Any

from diffsplit.priors.edm import EDMPrior
from diffsplit.training.optimizer import MatrixOptimizer

__all__ = ["model_card"]


def _what_changed(changes: list[dict[str, Any]]) -> str:
    """One line for each resumption with other options; empty if there was none."""
    rows = [
        f"- after {change['images_seen']} images: "
        + ", ".join(f"{name} {old} → {new}" for name, (old, new) in change["options"].items())
        for change in changes
    ]
    return "\n".join(["", "Changed on the way:", "", *rows, ""]) if rows else ""


def model_card(prior: EDMPrior, nearest: list[float]) -> str:
    """Markdown: what the prior is, what it was trained on and how, and how wrong it is.

    Args:
        prior: with its error curve and facts.
        nearest: root-mean-square distance of each pictured sample to its nearest training image.
    """
    facts = dict(prior.facts)
    license = str(facts.pop("license", "that of the training images"))
    recipe = facts.pop("recipe", {})
    changes = _what_changed(facts.pop("recipe_changes", []))
    title = str(facts.pop("name", "diffsplit prior"))
    curve = prior.curve
    table = (
        "\n".join(f"| {s:.3g} | {v:.4g} |" for s, v in zip(curve.sigma, curve.mse, strict=True))
        if curve
        else "| | not measured |"
    )
    lines = "\n".join(f"- {key.replace('_', ' ')}: {value}" for key, value in facts.items())
    settings = "\n".join(f"- {key}: {value}" for key, value in recipe.items())
    distances = ", ".join(f"{d:.2f}" for d in nearest)
    channels, height, width = prior.shape
    parameters = sum(p.numel() for p in prior.unet.parameters())
    return f"""---
license: {json.dumps(license, ensure_ascii=False)}
library_name: diffsplit
---
# {title}

A denoiser D(x, σ) for {channels}×{height}×{width} images on [-1, 1] and noise levels from
{prior.sigma_min:g} to {prior.sigma_max:g}: an EDM-preconditioned `UNet2DModel` of diffusers with
{parameters:,} parameters, stored in half precision.

```python
import diffsplit as ds

prior = ds.load_prior("path/to/this/folder")
```

## Data and license
License of the weights: {license}.

{lines}

## Recipe
{MatrixOptimizer.__name__} (Muon for kernels, AdamW for the rest), bf16, averaged weights,
horizontal flips.

{settings}
{changes}
## Measured error
v(σ), the mean squared error per entry on [-1, 1] over held-out images, output clipped:

| σ | v(σ) |
|---|---|
{table}

## Samples
`samples.png`: unconditional samples (50 evaluations) above the training images nearest to them,
mirror images included. Their root-mean-square distances on [-1, 1]: {distances}.
"""
