"""DCDP's Version 2 from end to end, against the network evaluations in it alone.

The ratio is what its data steps cost, next to the network; 1.3 is the most it should be. What
the data steps cost without being collapsed is in momentum.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from common import SHAPE, cats, interleave, machine, parser

import diffsplit as ds
from diffsplit.noise import seeded
from diffsplit.priors.base import per_image
from diffsplit.solvers import DCDP

ASKED = 1.3
TASKS = ("super-resolution", "inpaint-box", "gaussian-deblur", "motion-deblur")


def main() -> None:
    parser(__doc__).parse_args()
    print(machine())
    prior, x = ds.load_prior("cats-64"), cats()
    assert isinstance(prior, ds.Denoiser)

    @torch.no_grad()
    def bare(levels: list[float]) -> None:
        for level in levels:
            prior.clip(prior.denoise(x, per_image(level, len(x), x)))

    for noise in (0.0, 0.05):
        for task in TASKS:
            problem = ds.tasks.problem(task, SHAPE, sigma=noise)
            y = problem.measure(x, generator=seeded(0, "measure"))
            solver = DCDP.for_problem(problem, task)
            result = solver(problem, y, prior)
            runs: dict[str, Callable[[], object]] = {
                "whole": partial(solver, problem, y, prior),
                "bare": partial(bare, [1.0] * result.nfe),
            }
            seconds = interleave(runs, 3)
            ratio = seconds["whole"] / seconds["bare"]
            print(
                f"{task:18} σ_y {noise:<4g} batch {len(x)}: {seconds['whole']:6.2f} s, "
                f"{ratio:.2f} × its {result.nfe} bare network evaluations"
                + ("" if ratio <= ASKED else f", above {ASKED}"),
                flush=True,
            )


if __name__ == "__main__":
    main()
