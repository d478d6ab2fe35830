"""Points on a denoiser's probability-flow trajectories, and where these end.

    dx/dσ = (x − D(x, σ))/σ

Every trajectory is walked once, in a few second-order steps, and gives a training pair at every
level it passes: the end of a trajectory costs about one evaluation a pair.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from diffsplit.priors.base import Denoiser
from diffsplit.schedules import karras_grid
from diffsplit.solvers.reverse import clipped, reverse_diffusion, walk
from diffsplit.training.denoiser import flipped_at_random
from diffsplit.training.pictures import Pictures

__all__ = ["Trajectories", "trajectory_end"]

AT_ONCE = 32
"""Trajectories that are walked together."""
LEAST_START = 0.3
"""Trajectories from real images start at this noise level or above, log-uniformly."""
STEPS_FROM_NOISE = 2
"""Pure noise is further away, and there every image depends on these steps: so many times more."""


class Trajectories:
    """An endless supply of shuffled training pairs.

    Args:
        teacher: the denoiser.
        images: bytes ``(N, C, H, W)`` to start from, with noise added; None for trajectories
            that start from noise alone.
        steps: evaluations of each trajectory.
        sigma_min, sigma_max: where trajectories end and the highest level that they start from.
        seed: of everything drawn.
    """

    def __init__(
        self,
        teacher: Denoiser,
        images: Pictures | None,
        steps: int,
        sigma_min: float,
        sigma_max: float,
        seed: int,
    ) -> None:
        self.teacher, self.images = teacher, images
        self.steps = steps if images is not None else STEPS_FROM_NOISE * steps
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self.generator = torch.Generator().manual_seed(seed)
        self._fill()

    def draw(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        """The next n pairs.

        Returns:
            Points ``(n, *shape)``, their noise levels ``(n,)``, and the ends ``(n, *shape)``.
        """
        parts = []
        while n > 0:
            if self._position >= len(self._levels):
                self._fill()
            part = slice(self._position, self._position + n)
            parts.append((self._points[part], self._levels[part], self._ends[part]))
            n -= len(self._levels[part])
            self._position += len(self._levels[part])
        points, levels, ends = zip(*parts, strict=True)
        return torch.cat(points), torch.cat(levels), torch.cat(ends)

    def state_dict(self) -> dict[str, Any]:
        """All it takes to walk the present trajectories again and go on from there."""
        return {"generator": self._before, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self._fill()
        self._position = int(state["position"])

    def _start(self) -> tuple[Tensor, Tensor]:
        """Noisy images, and their levels ``(AT_ONCE,)``."""
        if self.images is None:
            clean = torch.zeros(AT_ONCE, *self.teacher.shape)
            sigma = torch.full((AT_ONCE,), self.sigma_max)
        else:
            clean = flipped_at_random(self.images, AT_ONCE, self.generator)
            low, high = math.log(LEAST_START), math.log(self.sigma_max)
            sigma = (low + (high - low) * torch.rand(AT_ONCE, generator=self.generator)).exp()
        noise = torch.randn(clean.shape, generator=self.generator)
        return clean + sigma.view(-1, 1, 1, 1) * noise, sigma

    @torch.no_grad()
    def _fill(self) -> None:
        self._before = self.generator.get_state()
        device = self.teacher.device
        x, sigma = self._start()
        x, sigma = x.to(device), sigma.to(device)
        levels = _levels(sigma, self.sigma_min, self.steps)
        steps = walk(clipped(self.teacher), x, levels, self.generator, eta=0.0, order=2)
        path = [x, *(step.x for step in steps)]
        points, end = path[:-2], path[-1]  # at the last level before 0 there is nothing to learn
        order = torch.randperm(len(points) * len(end), generator=self.generator).to(device)
        self._points = torch.cat(points)[order]
        self._levels = torch.cat(levels[: len(points)])[order]
        self._ends = end.repeat(len(points), 1, 1, 1)[order]
        self._position = 0


def _levels(start: Tensor, sigma_min: float, steps: int) -> list[Tensor]:
    """Karras' grid from each start ``(B,)`` to ``sigma_min``, then 0."""
    rows = [karras_grid(steps, s, min(s, sigma_min)) for s in start.tolist()]
    return list(torch.tensor(rows, dtype=start.dtype, device=start.device).T)


@torch.no_grad()
def trajectory_end(
    teacher: Denoiser, x: Tensor, sigma: float, sigma_min: float, steps: int
) -> Tensor:
    """Where the trajectory from ``x`` ``(B, *shape)`` at one level leads, in ``steps`` steps."""
    levels = karras_grid(steps, sigma, min(sigma, sigma_min))
    return reverse_diffusion(clipped(teacher), x, levels, torch.Generator(), eta=0.0, order=2)
