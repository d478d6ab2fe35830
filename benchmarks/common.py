"""What the benchmarks share: interleaved timing, and a line that says on what machine."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import diffsplit as ds
from diffsplit.images import example_cats

__all__ = ["cats", "interleave", "machine", "one_bit"]


def machine() -> str:
    """The machine in words; the figures below it hold for it alone, the ratios travel better."""
    return (
        f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads, "
        f"PyTorch {torch.__version__}"
    )


def interleave(runs: dict[str, Callable[[], object]], repeats: int = 5) -> dict[str, float]:
    """Median seconds of each run, taken in turn after one warm-up, so that drift hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def cats() -> Tensor:
    """The eight bundled held-out cats ``(8, 3, 64, 64)``."""
    return example_cats()


def one_bit(rows: int, kind: str, sigma: float = 0.5) -> ds.Problem:
    """1-bit compressed sensing of a 64×64 picture."""
    shape = (3, 64, 64)
    operator = (
        ds.operators.GaussianMatrix(shape, rows=rows, seed=0)
        if kind == "gaussian"
        else ds.operators.RandomizedTransform(shape, rows=rows, seed=0)
    )
    return ds.Problem(operator, ds.channels.OneBit(sigma=sigma))
