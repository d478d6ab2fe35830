"""Which packages the optional extras install, from the metadata of the installed project."""

from __future__ import annotations

import re
from importlib.metadata import requires

__all__ = ["optional_packages"]

TOOLS = {"diffsplit", "hypothesis", "mypy", "pytest", "pytest_timeout", "ruff"}
"""Of the extra `dev`: the tests cannot do without."""


def optional_packages() -> set[str]:
    """Names of what extras install, which are those of their modules, with "_" for "-"."""
    lines = [line for line in requires("diffsplit") or [] if "extra ==" in line]
    names = {re.split(r"[^\w-]", line, maxsplit=1)[0] for line in lines}
    return {name.replace("-", "_") for name in names} - TOOLS
