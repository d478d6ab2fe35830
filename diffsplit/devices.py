"""Where to compute, checked in one place."""

from __future__ import annotations

import datetime
import math
import os
import platform

import torch

from diffsplit.errors import InputError

__all__ = ["checked_device", "machine", "memory_of"]


def checked_device(device: str | torch.device) -> torch.device:
    """The device of that name, or an InputError if PyTorch or this machine has none such."""
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{device!r:.40} is no device; give 'cpu', 'cuda' or 'cuda:1', for example."
        ) from error
    if place.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (place.index or 0) >= count:
            raise InputError(
                f"{place} is not there: PyTorch sees {count} CUDA devices; use device='cpu', or "
                "install a CUDA build of PyTorch."
            )
    return place


def machine(device: str | torch.device = "cpu") -> str:
    """Where and when numbers were measured, for the line above them."""
    place = torch.device(device)
    where = torch.cuda.get_device_name(place) if place.type == "cuda" else platform.machine()
    return (
        f"{platform.system()} {where}, {os.cpu_count()} cores, PyTorch {torch.__version__}, "
        f"{datetime.date.today()}"
    )


def memory_of(device: torch.device) -> float:
    """Bytes of memory that a device has, infinity where the system does not tell."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    try:
        return float(os.sysconf("SC_PAGE_SIZE")) * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf
