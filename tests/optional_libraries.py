"""Libraries that tests need and that may not be installed here."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest


def library(name: str) -> ModuleType:
    """The library, or the tests of the file are skipped with the reason.

    deepinv and azula import torchvision, and a torchvision that was built for another PyTorch
    fails with a RuntimeError.
    """
    try:
        return import_module(name)
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        pytest.skip(f"{name} cannot be imported: {reason}", allow_module_level=True)
