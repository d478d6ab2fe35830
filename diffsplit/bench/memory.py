"""The most memory that a computation takes, beyond what was taken before it."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Peak", "peak_memory"]

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What sets the peak of a process back to what it has, see proc(5)."""


@dataclass
class Peak:
    """Bytes; None until the computation has ended, and where the system does not tell."""

    bytes: float | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Watch the ``with`` block: on a GPU what PyTorch allocates, else the process (Linux)."""
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak.bytes = float(torch.cuda.max_memory_allocated(device) - before)
        return
    start = _start()
    yield peak
    end = _kilobytes("VmHWM")
    if start is not None and end is not None:
        peak.bytes = 1024.0 * max(0, end - start)


def _start() -> int | None:
    """Kilobytes that the process has now, its peak being set to that; None if it cannot be."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if STATUS.exists() else None
    if trim is not None:
        trim(0)  # what was freed and is kept for later would hide what is allocated next
    try:
        CLEAR.write_text(RESET_PEAK)
    except OSError:
        return None
    return _kilobytes("VmRSS")


def _kilobytes(name: str) -> int | None:
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    found = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return next(map(int, found), None)
