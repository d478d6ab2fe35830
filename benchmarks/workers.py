"""How much faster two workers are than one, each with one thread.

    python benchmarks/workers.py [--workers 2] [--repeats 4] [--processes]

DiffEP and DCDP on the bundled cats, an image at a time. The first line counts from the first
results on, so that starting Python and Ray is left out; the second line counts everything.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from diffsplit.bench.cluster import on_cluster
from diffsplit.bench.config import Config
from diffsplit.bench.run import Progress, run
from diffsplit.errors import MissingDependencyError


def config(repeats: int) -> Config:
    """Units of about the same length."""
    return Config.model_validate(
        {
            "title": "workers",
            "data": "cats",
            "size": 64,
            "batch": 1,
            "priors": {"denoiser": "cats-64"},
            "rows": [{"label": "×4", "task": "super-resolution", "sigma": 0.05}],
            "solvers": [
                {"label": "DiffEP", "solver": "diffep"},
                {"label": "DCDP", "solver": "dcdp"},
            ],
            "seeds": list(range(repeats)),
            "metrics": ["psnr"],
            "pictures": 0,
        }
    )


def seconds(repeats: int, workers: int, ray: bool) -> tuple[float, float]:
    """Seconds a result after the first, and those of the whole run."""
    times: list[float] = []

    def note(progress: Progress) -> None:
        times.append(time.perf_counter())

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        execute = on_cluster("local", "cpu", workers) if ray else None
        summary = run(
            config(repeats), Path(folder), workers=workers, execute=execute, callback=note
        )
    assert summary.done == len(times)
    steady = (times[-1] - times[workers - 1]) / (len(times) - workers)
    return steady, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--processes", action="store_true", help="instead of Ray")
    given = parser.parse_args()
    torch.set_num_threads(1)
    try:
        many = seconds(given.repeats, given.workers, ray=not given.processes)
    except MissingDependencyError as error:
        print(error)
        return
    one = seconds(given.repeats, 1, ray=False)
    for name, first, second in zip(("once it runs", "with its start"), one, many, strict=True):
        print(f"{name}: {given.workers} workers are {first / second:.2f} times as fast as one")


if __name__ == "__main__":
    main()
