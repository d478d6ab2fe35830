"""The numbers that a benchmark keeps of each recovered image."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import cache, partial

import torch
from torch import Tensor

from diffsplit import metrics
from diffsplit.errors import InputError
from diffsplit.fid import inception_features
from diffsplit.problem import Problem
from diffsplit.solvers import Recovery
from diffsplit.solvers.intervals import rounding

__all__ = ["FID", "LEVELS", "NETWORKS", "coverages", "measures", "unavailable"]

LEVELS = (50, 60, 70, 80, 90, 95)
"""Levels in percent for which the coverage of intervals is kept."""

SHOWN = 90
"""The level of which a table shows the coverage."""

Metric = Callable[[Tensor, Tensor], Tensor]
NETWORK_METRICS: dict[str, Metric] = {
    "lpips": metrics.lpips,
    "lpips_vgg": partial(metrics.lpips, net="vgg"),
}
"""Those of an image that need weights, and are computed only where they are wanted."""
FID = "fid"
"""Of all images of a method together; what is kept of each are its features."""
NETWORKS = (*NETWORK_METRICS, FID)
"""All metrics that need a network."""
_METRICS: dict[str, Metric] = {
    "psnr": metrics.psnr,
    "ssim": metrics.ssim,
    "cosine": metrics.cosine_similarity,
    "norm_error": metrics.norm_error,
    "sharpness": metrics.sharpness,
}


@cache
def unavailable(metric: str) -> str:
    """Why a metric that needs a network cannot be computed here, in a sentence; "" if it can."""
    gray = torch.zeros(1, 3, 64, 64)
    try:
        if metric == FID:
            inception_features(gray)
        else:
            NETWORK_METRICS[metric](gray, gray)
    except InputError as error:
        return str(error)
    return ""


def measures(
    problem: Problem, y: Tensor, truth: Tensor, result: Recovery, networks: Collection[str]
) -> list[dict[str, float]]:
    """Numbers by name for each image of a batch; what cannot be computed is left out.

    Args:
        truth: the true images ``(B, C, H, W)`` on [-1, 1].
        networks: which of `NETWORKS` are wanted.
    """
    image, batch = result.image, len(truth)
    found: dict[str, Tensor] = {}
    wanted = {
        name: metric
        for name, metric in NETWORK_METRICS.items()
        if name in networks and not unavailable(name)
    }
    for name, metric in {**_METRICS, **wanted}.items():
        try:
            found[name] = metric(image, truth)
        except InputError:  # images too small, or a library that is not there
            continue
    found["squared_error"] = (image - truth).flatten(1).square().mean(1)
    if result.predicted_error is not None:
        found["predicted_error"] = result.predicted_error
        found["predicted_ratio"] = result.predicted_error / found["squared_error"]
    if result.converged is not None:
        found["converged"] = result.converged
    if problem.channel.outcomes is not None:
        found["sign_consistency"] = problem.sign_consistency(image, y)
        bits = y[0].numel() * math.log2(problem.channel.outcomes)
        found["bits_per_pixel"] = torch.full((batch,), bits / (truth.shape[-1] * truth.shape[-2]))
    found.update(coverages(result, truth, problem.operator.pixels))
    rows = {name: value.double().cpu().tolist() for name, value in found.items()}
    same = {
        "seconds": result.seconds / batch,
        "nfe": float(result.nfe),
        "operator_calls": float(result.operator_calls),
    }
    return [{**{name: values[i] for name, values in rows.items()}, **same} for i in range(batch)]


def coverages(result: Recovery, truth: Tensor, measured: Tensor | None = None) -> dict[str, Tensor]:
    """The share of the entries inside the interval of each of `LEVELS`, if there are intervals.

    "coverage" is that of 90 %, and "coverage_hidden" the same over the entries that are not
    ``measured``, a mask ``(C, H, W)``, if there are any. Entries whose interval is no wider than
    the least, half a gray level to both sides, were measured; they are left out of the others, as
    in `diffsplit.uncertainty`.
    """
    if result.samples is None or result.std is None or len(result.samples) < 2:
        return {}
    found: dict[str, Tensor] = {}
    for level in LEVELS:
        low, high = result.interval(level / 100)
        inside = ((truth >= low) & (truth <= high)).flatten(1)
        if level == SHOWN and measured is not None and not bool(measured.all()):
            hidden = ~measured.flatten()
            found["coverage_hidden"] = inside[:, hidden].double().mean(1)
        doubtful = (result.half_width(level / 100) > rounding(result.bounds)).flatten(1)
        count = doubtful.sum(1)
        share = (inside & doubtful).sum(1) / count.clamp(min=1)
        found[f"coverage_{level}"] = torch.where(count > 0, share, 1.0)
    return {"coverage": found[f"coverage_{SHOWN}"], **found}
