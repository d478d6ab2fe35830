"""3×256×256 at M/N = 1/16: time and peak memory of building, measuring and an exact data step.

`python benchmarks/large.py` uses the randomized transform and also compares it, block by block as
it is, with a batch that goes through it as a whole; `python benchmarks/large.py gaussian` draws a
12,288 × 196,608 matrix in half precision, and compares A and Aᵀ with reading the matrix once.
`--step` adds the exact data step, which takes minutes with the matrix.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from unittest import mock

import torch
from common import interleave, machine, parser

import diffsplit as ds
from diffsplit.data_steps import exact_step
from diffsplit.operators import GaussianMatrix, RandomizedTransform

SHAPE, ROWS, BATCHES = (3, 256, 256), 12_288, (1, 8)


def transform_ratios(operator: RandomizedTransform) -> None:
    """How much longer A and Aᵀ take where a batch is transformed as a whole."""
    module = "diffsplit.operators.randomized._AT_ONCE"
    for batch in BATCHES:
        x, y = torch.rand(batch, *SHAPE), torch.rand(batch, ROWS)

        def at_once(map: Callable[[torch.Tensor], object], argument: torch.Tensor) -> None:
            with mock.patch(module, 2**62):
                map(argument)

        seconds = interleave(
            {
                "A": lambda x=x: operator.apply(x),
                "A at once": lambda x=x, run=at_once: run(operator.apply, x),
                "Aᵀ": lambda y=y: operator.adjoint(y),
                "Aᵀ at once": lambda y=y, run=at_once: run(operator.adjoint, y),
            },
            15,
        )
        for name in ("A", "Aᵀ"):
            print(
                f"{name:2} of {batch} images: {1e3 * seconds[name]:.1f} ms, and as a whole "
                f"{seconds[f'{name} at once'] / seconds[name]:.2f} × that"
            )


def matrix_ratios(operator: GaussianMatrix) -> None:
    """How much longer A and Aᵀ take than reading the matrix, and their gigabytes a second."""
    matrix = operator.matrix
    for batch in BATCHES:
        x, y = torch.rand(batch, *SHAPE), torch.rand(batch, ROWS)
        seconds = interleave(
            {
                "reading": lambda: matrix.view(torch.int16).amax(),
                "A": lambda x=x: operator.apply(x),
                "Aᵀ": lambda y=y: operator.adjoint(y),
            },
            2,
        )
        for name in ("A", "Aᵀ"):
            print(
                f"{name:2} of {batch} images: {seconds[name]:.2f} s, "
                f"{matrix.nbytes / 1e9 / seconds[name]:.1f} GB/s, "
                f"{seconds[name] / seconds['reading']:.1f} × reading the matrix once"
            )


def peak() -> float:
    """Gigabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    options = parser(__doc__)
    options.add_argument("kind", nargs="?", choices=("hadamard", "gaussian"), default="hadamard")
    options.add_argument("--step", action="store_true", help="an exact data step, too")
    chosen = options.parse_args()
    print(machine())
    start, before = time.perf_counter(), peak()
    problem = ds.tasks.problem("onebit-cs", SHAPE, operator=chosen.kind)
    built = time.perf_counter() - start
    x = torch.rand((1, *SHAPE), generator=torch.Generator().manual_seed(0)) * 2 - 1
    start = time.perf_counter()
    y = problem.measure(x, generator=torch.Generator().manual_seed(0))
    measured = time.perf_counter() - start
    print(f"{chosen.kind}: built in {built:.2f} s, measured in {measured:.3f} s")
    if isinstance(problem.operator, GaussianMatrix):
        matrix_ratios(problem.operator)
    if isinstance(problem.operator, RandomizedTransform):
        transform_ratios(problem.operator)
    if chosen.step:
        start = time.perf_counter()
        exact_step(problem, y, torch.zeros_like(x), 1.0)
        print(f"one exact data step in {time.perf_counter() - start:.2f} s")
    print(f"peak memory {peak():.2f} GB, {peak() - before:.2f} GB of it after the imports")


if __name__ == "__main__":
    main()
