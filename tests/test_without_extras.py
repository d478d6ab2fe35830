"""The optional packages are imported where somebody needs them, and never before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from optional_packages import optional_packages

TESTS = Path(__file__).parent
ALL_MODULES = """
import importlib, pkgutil, sys
import diffsplit
print("with diffsplit:", *sorted(set(sys.argv[1:]) & set(sys.modules)))
for module in pkgutil.walk_packages(diffsplit.__path__, "diffsplit."):
    if not module.name.startswith(("diffsplit.interop.", "diffsplit.__main__")):
        importlib.import_module(module.name)
print("with all modules:", *sorted(set(sys.argv[1:]) & set(sys.modules)))
"""
HIDDEN = """
import importlib.metadata, importlib.util
import hidden_extras
for name in hidden_extras.HIDDEN:
    assert importlib.util.find_spec(name) is None, name
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        continue
    raise AssertionError(name)
import diffsplit
prior = diffsplit.priors.IIDMixturePrior.sparse((8,), 0.5)
importlib.metadata.version("torch")
print(*sorted(hidden_extras.HIDDEN))
"""


def printed(code: str, *arguments: str) -> list[str]:
    """What a fresh interpreter prints that finds the helpers of the tests."""
    command = [sys.executable, "-c", f"import sys; sys.path.append({str(TESTS)!r})\n{code}"]
    run = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_importing_the_package_or_any_part_of_it_imports_no_optional_package() -> None:
    """But for `diffsplit.interop`, whose files are bridges to these packages."""
    assert {"accelerate", "matplotlib", "ray", "torchvision"} <= optional_packages()
    assert printed(ALL_MODULES, *optional_packages()) == ["with diffsplit:", "with all modules:"]


def test_the_plugin_hides_every_optional_package_and_nothing_else() -> None:
    assert printed(HIDDEN) == [" ".join(sorted(optional_packages()))]
