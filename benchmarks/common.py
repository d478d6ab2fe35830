"""What the benchmarks share: images, priors, interleaved timing, and a line that says where."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import diffsplit as ds
from diffsplit import devices
from diffsplit.io.images import example_cats

__all__ = ["SHAPE", "cats", "interleave", "machine", "one_bit", "parser"]

SHAPE = (3, 64, 64)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Of a benchmark's options; ``--help`` shows its docstring."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def machine() -> str:
    """Machine and date; the figures below it hold for it alone, the ratios travel better."""
    return f"{devices.machine()}; {torch.get_num_threads()} threads"


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


def one_bit(rows: int, operator: str) -> ds.Problem:
    """1-bit compressed sensing of a 64×64 picture, σ = 0.5."""
    return ds.tasks.problem("onebit-cs", SHAPE, rows=rows, operator=operator)
