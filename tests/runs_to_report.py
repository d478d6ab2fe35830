"""Small runs to report: a store in memory, and one with pictures in which everything occurs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from diffsplit.bench.store import Entry

__all__ = ["MemoryStore", "done", "rich_store", "undone"]

EVIL = '<script>alert("x")</script> & 50% $σ_y$ | _a_ #1 {b} \\c ~ ^'
"""A label with everything that HTML, LaTeX, Markdown or CSV could take for its own."""


class MemoryStore:
    """What a report reads of a store, without a file."""

    def __init__(
        self,
        entries: Sequence[Entry],
        facts: Mapping[str, Any] | None = None,
        pictures: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        self._entries, self._facts, self._pictures = entries, facts or {}, pictures or {}

    def entries(self) -> Sequence[Entry]:
        return self._entries

    def facts(self) -> Mapping[str, Any]:
        return self._facts

    def pictures(self, key: str) -> Mapping[str, Tensor]:
        return self._pictures.get(key, {})


def done(row: str, solver: str, image: str, seed: int = 0, **values: float) -> Entry:
    return Entry(f"{row}/{solver}/{image}/{seed}", row, solver, image, seed, "done", "", values)


def undone(row: str, solver: str, image: str, status: str, reason: str) -> Entry:
    return Entry(f"{row}/{solver}/{image}/0", row, solver, image, 0, status, reason, {})


ROWS = ("×4, σ_y 0.05", EVIL)
SOLVERS = ("DCDP, V2", "DiffEP", "Bicubic", "DDRM")
IMAGES = ("cat-1.png", "cat-2.png", "cat-3.png")


def rich_store() -> MemoryStore:
    """Two tasks, four methods of which one fails once and one is missing, and a paper's values."""
    generator = torch.Generator().manual_seed(0)
    entries, pictures = [], {}
    for r, row in enumerate(ROWS):
        for i, image in enumerate(IMAGES):
            truth = torch.randint(0, 256, (3, 8, 8), generator=generator, dtype=torch.uint8)
            for s, solver in enumerate(SOLVERS):
                if solver == "DDRM":
                    entries.append(undone(row, solver, image, "missing", "No solver named 'ddrm'."))
                    continue
                if solver == "Bicubic" and r == 1 and i == 0:
                    entries.append(undone(row, solver, image, "failed", "Bicubic needs a <grid>."))
                    continue
                values = {
                    "psnr": 20.0 + s + 2.0 * i + r,
                    "ssim": 0.5 + 0.1 * s + 0.01 * i,
                    "lpips": 0.4 - 0.1 * s + 0.02 * i,
                    "nfe": 10.0 * s,
                    "seconds": 0.25 * (s + 1),
                }
                if solver == "DiffEP":
                    values |= {f"coverage_{level}": level / 100 for level in (50, 70, 90, 95)}
                entry = done(row, solver, image, **values)
                entries.append(entry)
                noise = torch.randint(-9, 10, (3, 8, 8), generator=generator)
                pictures[entry.key] = {
                    "truth": truth,
                    "measurement": truth[:, ::4, ::4],
                    "answer": (truth + noise).clamp(0, 255).to(torch.uint8),
                }
                if solver == "DiffEP":
                    pictures[entry.key]["std"] = noise.abs().to(torch.uint8)
    printed = {
        ROWS[0]: {
            "DCDP, V2": {"psnr": "22.05 ± 1.88", "ssim": "0.64 ± .07"},
            "DPS": {"psnr": "12.37 ± 1.70"},
        }
    }
    facts = {
        "title": f"Two tasks {EVIL}",
        "source": "Table 1 of a paper",
        "machine": "two cores",
        "version": "0.1.0",
        "prior": "cats-64",
        "images": "3 cats",
        "rows": list(ROWS),
        "solvers": list(SOLVERS),
        "metrics": ["psnr", "ssim", "lpips"],
        "printed": printed,
    }
    return MemoryStore(entries, facts, pictures)
