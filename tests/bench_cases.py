"""Small benchmarks for tests: the bundled cats at 16×16, and solvers that take milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffsplit.bench.config import Config
from diffsplit.bench.store import Entry, Store

__all__ = ["FAST", "MEASURED", "QUICK", "TASKS", "config", "numbers", "rows_of"]

FAST = [
    {"label": "back-projection", "solver": "back-projection"},
    {"label": "DCDP", "solver": "dcdp", "settings": {"rounds": 2, "tau": 3}},
]
MEASURED = ("seconds", "peak_memory")
"""Values that differ from run to run."""
QUICK = {"steps": 1, "adam_steps": 2}
"""Settings of Diff-OneBit."""
TASKS = [
    {"label": "1-bit", "task": "onebit-cs", "ratio": 0.5, "operator": "hadamard"},
    {"label": "half", "task": "inpaint-random", "sigma": 0.1},
]


def config(prior: str, **fields: Any) -> Config:
    """Two tasks, two solvers, four cats, batches of two, unless told otherwise."""
    values = {
        "title": "test",
        "data": "cats",
        "images": 4,
        "size": 16,
        "batch": 2,
        "priors": {"denoiser": prior},
        "rows": TASKS,
        "solvers": FAST,
        "metrics": ["psnr"],
        "pictures": 1,
        **fields,
    }
    return Config.model_validate(values)


def rows_of(folder: Path) -> list[Entry]:
    """All entries of a run."""
    with Store.open(folder) as store:
        return store.entries()


def numbers(entries: list[Entry]) -> dict[str, Any]:
    """All that repeats itself of entries, by key: everything but time and memory."""
    return {
        entry.key: (
            (entry.row, entry.solver, entry.image, entry.seed, entry.status, entry.reason),
            {name: value for name, value in entry.values.items() if name not in MEASURED},
        )
        for entry in entries
    }
