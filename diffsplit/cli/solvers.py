"""``diffsplit solvers``: the algorithms, and the prior that each needs."""

from __future__ import annotations

import inspect
import re

from rich.console import Console
from rich.table import Table

from diffsplit.cli.common import printable
from diffsplit.solvers import SOLVERS, Solver

__all__ = ["solvers"]


def solvers() -> None:
    """List the solvers: the name for --solver, the prior that it needs, and what it is."""
    table = Table("solver", "needs", "what it is")
    for name, kind in SOLVERS.items():
        needed = kind().requires
        prior = "–" if needed is None else f"{needed.kind}, such as {needed.example}"
        table.add_row(*map(printable, (name, prior, _summary(kind))))
    Console().print(table)


def _summary(kind: type[Solver]) -> str:
    """The first sentence of the docstring, without its quotes."""
    paragraph = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z])", paragraph)[0].replace("`", "")
