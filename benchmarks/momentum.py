"""DCDP's momentum steps in a loop and at once: seconds for 1,000 of them at 3×256×256."""

from __future__ import annotations

from functools import partial

import torch
from common import interleave, machine

import diffsplit as ds
from diffsplit.data_steps import collapsed_momentum, momentum_steps

SHAPE = (3, 256, 256)
STEPS = 1000
OPERATORS = {
    "Gaussian blur 61×61": lambda: ds.operators.Blur.gaussian(SHAPE, size=61, std=3.0),
    "bicubic ×4": lambda: ds.operators.Downsample(SHAPE, 4, kernel="bicubic"),
    "average ×4": lambda: ds.operators.Downsample(SHAPE, 4),
    "box 100×100": lambda: ds.operators.PixelMask.box(
        SHAPE, top=78, left=78, height=100, width=100
    ),
}


@torch.no_grad()
def main() -> None:
    print(machine())
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((1, *SHAPE), generator=generator) * 2 - 1
    for name, make in OPERATORS.items():
        operator = make()
        problem = ds.Problem(operator, ds.channels.GaussianNoise(sigma=0.0))
        y = problem.measure(x, generator=generator)
        start, step_size = torch.zeros_like(x), 1 / operator.norm() ** 2
        run = {
            way: partial(step, problem, y, start, STEPS, step_size)
            for way, step in (("loop", momentum_steps), ("once", collapsed_momentum))
        }
        seconds = interleave(run, 1)
        loop, once = run["loop"](), run["once"]()
        print(
            f"{name:20} loop {seconds['loop']:7.2f} s, at once {1000 * seconds['once']:7.1f} ms, "
            f"ratio {seconds['loop'] / seconds['once']:6.0f}; relative difference "
            f"{((once - loop).norm() / loop.norm()).item():.1e}"
        )


if __name__ == "__main__":
    main()
