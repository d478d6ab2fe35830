"""A plugin of pytest that hides the packages of the optional extras, as if they were not installed.

    PYTHONPATH=tests python -m pytest -p hidden_extras

Every finder of modules and of installed distributions passes over them, so that `import`,
`importlib.util.find_spec` and `importlib.metadata` answer as in an environment without extras.
What runs the tests stays. Processes that tests start see everything.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from optional_packages import optional_packages


class Passing:
    """A finder that does not find the hidden packages."""

    def __init__(self, finder: Any, hidden: set[str]) -> None:
        self.finder, self.hidden = finder, hidden

    def find_spec(self, name: str, *rest: Any) -> Any:
        return None if name.split(".")[0] in self.hidden else self.finder.find_spec(name, *rest)

    def find_distributions(self, *context: Any) -> Iterable[Any]:
        find = getattr(self.finder, "find_distributions", None)
        found = () if find is None else find(*context)
        return [d for d in found if d.metadata["Name"].replace("-", "_") not in self.hidden]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


def hide(hidden: set[str]) -> None:
    """Hide packages from now on.

    Raises:
        RuntimeError: one of them was imported before.
    """
    early = sorted(hidden & set(sys.modules))
    if early:
        raise RuntimeError(f"imported before they could be hidden: {', '.join(early)}")
    sys.meta_path[:] = [Passing(finder, hidden) for finder in sys.meta_path]


def pytest_report_header() -> str:
    return f"hidden: {', '.join(sorted(HIDDEN))}"


HIDDEN = optional_packages()
hide(HIDDEN)
