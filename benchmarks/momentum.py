"""DCDP's momentum steps in a loop and at once: seconds for 1,000 of them at 3×256×256.

For each kind of operator that has a spectrum or orthogonal rows; the target is a ratio of 50.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from common import interleave, machine, parser
from torch import Tensor

import diffsplit as ds
from diffsplit.data_steps import collapsed_momentum, momentum_steps
from diffsplit.operators import (
    Blur,
    Downsample,
    Grayscale,
    Identity,
    LinearOperator,
    PixelMask,
    RandomizedTransform,
)

SHAPE = (3, 256, 256)
STEPS = 1000
ASKED = 50
REPEATS = 10
"""Of the steps at once, which are too short to be timed one by one."""
OPERATORS: dict[str, Callable[[], LinearOperator]] = {
    "Gaussian blur 61×61": lambda: Blur.gaussian(SHAPE, size=61, std=3.0),
    "motion blur 61×61": lambda: Blur.motion(SHAPE, size=61, intensity=0.5, seed=0),
    "bicubic ×4": lambda: Downsample(SHAPE, 4, kernel="bicubic"),
    "lanczos ×4": lambda: Downsample(SHAPE, 4, kernel="lanczos"),
    "average ×4": lambda: Downsample(SHAPE, 4),
    "bicubic ×4 of motion": lambda: (
        Downsample(SHAPE, 4, kernel="bicubic") @ Blur.motion(SHAPE, 61, 0.5, 0)
    ),
    "box 100×100": lambda: PixelMask.box(SHAPE, top=78, left=78, height=100, width=100),
    "50 % of the pixels": lambda: PixelMask(SHAPE, fraction=0.5, seed=0),
    "Hadamard, M = N/16": lambda: RandomizedTransform(SHAPE, rows=12_288, seed=0),
    "grayscale": lambda: Grayscale(SHAPE),
    "identity": lambda: Identity(SHAPE),
}


@torch.no_grad()
def measured(operator: LinearOperator, generator: torch.Generator) -> tuple[float, float, float]:
    """Seconds of the loop and of the steps at once, and how far apart they end."""
    problem = ds.Problem(operator, ds.channels.GaussianNoise(sigma=0.0))
    x = torch.rand((1, *SHAPE), generator=generator) * 2 - 1
    y, start = problem.measure(x, generator=generator), torch.zeros_like(x)
    step_size = 1 / operator.norm() ** 2
    end: dict[str, Tensor] = {}

    def loop() -> None:
        end["loop"] = momentum_steps(problem, y, start, STEPS, step_size)

    def once() -> None:
        for _ in range(REPEATS):
            end["once"] = collapsed_momentum(problem, y, start, STEPS, step_size)

    seconds = interleave({"loop": loop, "once": once}, 1)
    difference = (end["once"] - end["loop"]).norm() / end["loop"].norm()
    return seconds["loop"], seconds["once"] / REPEATS, difference.item()


def main() -> None:
    parser(__doc__).parse_args()
    print(machine())
    generator = torch.Generator().manual_seed(0)
    for name, make in OPERATORS.items():
        loop, once, difference = measured(make(), generator)
        below = "" if loop >= ASKED * once else f", below {ASKED}"
        print(
            f"{name:20} loop {loop:7.2f} s, at once {1000 * once:7.1f} ms, ratio "
            f"{loop / once:6.0f}{below}; relative difference {difference:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
