"""Bridges to other libraries: deepinv, azula, diffusers and SciPy, one file each.

A library is imported when one of the names that need it is first used, and never before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffsplit.interop.azula import (
        conditioned_to_azula,
        denoiser_to_azula,
        prior_from_azula,
    )
    from diffsplit.interop.deepinv import (
        DeepinvProblem,
        denoiser_to_deepinv,
        from_deepinv,
        prior_from_deepinv,
        to_deepinv,
    )
    from diffsplit.interop.diffusers import RecoveryPipeline
    from diffsplit.interop.scipy import from_scipy, to_scipy

__all__ = [
    "DeepinvProblem",
    "RecoveryPipeline",
    "conditioned_to_azula",
    "denoiser_to_azula",
    "denoiser_to_deepinv",
    "from_deepinv",
    "from_scipy",
    "prior_from_azula",
    "prior_from_deepinv",
    "to_deepinv",
    "to_scipy",
]

_FILES = {
    "deepinv": (
        "DeepinvProblem",
        "denoiser_to_deepinv",
        "from_deepinv",
        "prior_from_deepinv",
        "to_deepinv",
    ),
    "azula": ("conditioned_to_azula", "denoiser_to_azula", "prior_from_azula"),
    "diffusers": ("RecoveryPipeline",),
    "scipy": ("from_scipy", "to_scipy"),
}
"""Which file of this package defines which names."""


def __getattr__(name: str) -> object:
    """The public names, each imported with its library at its first use.

    Raises:
        MissingDependencyError: the library is not installed.
    """
    for file, names in _FILES.items():
        if name in names:
            return getattr(import_module(f"diffsplit.interop.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
