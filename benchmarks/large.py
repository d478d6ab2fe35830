"""3×256×256 at M/N = 1/16: time and peak memory of measuring and of one exact data step.

`python benchmarks/large.py` uses the randomized transform; `python benchmarks/large.py gaussian`
draws a 12,288 × 196,608 matrix in half precision, which takes minutes.
"""

from __future__ import annotations

import resource
import time

import torch
from common import machine, parser

import diffsplit as ds
from diffsplit.data_steps import exact_step


def main() -> None:
    options = parser(__doc__)
    options.add_argument("kind", nargs="?", choices=("hadamard", "gaussian"), default="hadamard")
    kind = options.parse_args().kind
    print(machine())
    shape, rows = (3, 256, 256), 12_288
    start = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if kind == "gaussian":
        operator: ds.operators.LinearOperator = ds.operators.GaussianMatrix(
            shape, rows=rows, seed=0, dtype=torch.float16
        )
    else:
        operator = ds.operators.RandomizedTransform(shape, rows=rows, seed=0)
    built = time.perf_counter() - start
    problem = ds.Problem(operator, ds.channels.OneBit(sigma=0.5))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((1, *shape), generator=generator) * 2 - 1
    start = time.perf_counter()
    y = problem.measure(x, generator=generator)
    measured = time.perf_counter() - start
    start = time.perf_counter()
    exact_step(problem, y, torch.zeros_like(x), 1.0)
    stepped = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{kind}: built in {built:.2f} s, measured in {measured:.2f} s, one exact data step in "
        f"{stepped:.2f} s; peak memory {peak / 1e6:.2f} GB, {(peak - before) / 1e6:.2f} GB of it "
        "after the imports"
    )


if __name__ == "__main__":
    main()
