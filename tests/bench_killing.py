"""Runs a benchmark in processes that are killed at random moments, as a script of its own.

    python bench_killing.py PRIOR FOLDER KILLS SEED

Each process is forked from one in which all libraries are loaded, so that it starts at once.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from bench_cases import config

from diffsplit import load_prior, metrics
from diffsplit.bench.run import run


def in_a_child(prior: str, folder: Path, seconds: float | None) -> float:
    """Run in a child, which is killed after some seconds; how long it ran."""
    start = time.perf_counter()
    child = os.fork()
    if child == 0:
        run(config(prior, batch=1, pictures=4), folder)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert seconds is not None or status == 0
    return time.perf_counter() - start


def main() -> None:
    prior, folder, kills, seed = sys.argv[1:]
    chance = random.Random(int(seed))
    torch.set_num_threads(1)
    shape = load_prior(prior).shape
    metrics.ssim(torch.zeros(1, *shape), torch.zeros(1, *shape))
    whole = in_a_child(prior, Path(folder) / "undisturbed", None)
    for _ in range(int(kills)):
        in_a_child(prior, Path(folder) / "killed", chance.uniform(0, whole / 4))
    in_a_child(prior, Path(folder) / "killed", None)


if __name__ == "__main__":
    main()
