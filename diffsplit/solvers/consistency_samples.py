"""Samples from a consistency model, which answers with a likely image in one evaluation.

From noise: evaluate, add fresh noise of the next level, evaluate again
(Song et al. 2023, Alg. 1).

From an image r in noise of level σ, whose trajectory has one end and no second sample: noise of the
same strength again first,

    x = r + σ ξ,   x̂ = f(x, √2 σ).

For a Gaussian prior whose variance is large beside σ² that is a draw from the posterior, with its
mean and its variance. The added noise hides some of r, though; a further evaluation, from a draw of
p(x_σ' | x̂, r) at a lower level, brings it back.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import Tensor

from diffsplit.noise import Generators, randn_like
from diffsplit.priors.base import ConsistencyModel

__all__ = ["draw_from_noisy", "multistep"]

LEVEL_RATIO = 0.5
"""Each further evaluation is at so much of the level before it."""


def multistep(
    prior: ConsistencyModel, x: Tensor, sigmas: Sequence[float], generator: Generators
) -> Tensor:
    """Clean images from noise ``x`` ``(B, *shape)`` at ``sigmas[0]``, one evaluation a level.

    Args:
        sigmas: falling levels.
    """
    for now, after in itertools.pairwise([*sigmas, 0.0]):
        clean = prior.clip(prior.consistency(x, now))
        x = clean
        if after > 0:
            fresh = max(after**2 - prior.sigma_min**2, 0.0) ** 0.5
            x = clean + fresh * randn_like(clean, generator)
    return x


def draw_from_noisy(
    prior: ConsistencyModel, r: Tensor, sigma: Tensor, steps: int, generator: Generators
) -> Tensor:
    """One draw from p(x0 | x0 + σ n = r) for each image, see above.

    Args:
        r: images in white noise ``(B, *shape)``.
        sigma: its standard deviation ``(B,)``.
        steps: evaluations, one or two.
    """
    column = sigma.view(-1, *(1,) * (r.ndim - 1))
    clean = r
    for step in range(steps):
        if step > 0:
            fresh = LEVEL_RATIO * math.sqrt(1 - LEVEL_RATIO**2) * column
            r = clean + LEVEL_RATIO**2 * (r - clean) + fresh * randn_like(r, generator)
            column = LEVEL_RATIO * column
        again = r + column * randn_like(r, generator)
        clean = prior.clip(prior.consistency(again, math.sqrt(2) * column.flatten()))
    return clean
