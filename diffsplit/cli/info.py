"""``diffsplit info`` and ``diffsplit solvers``: what a file, a prior or an algorithm is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from diffsplit.cli.common import printable
from diffsplit.io.measurements import read_facts
from diffsplit.priors import load_prior
from diffsplit.solvers import SOLVERS, Solver

__all__ = ["info", "solvers", "table_of"]


def info(name: Annotated[str, typer.Argument(metavar="FILE_OR_PRIOR")]) -> None:
    """Describe a measurement file or a prior.

    Args:
        name: A measurement file, the folder of a prior, a bundled prior's name or a hub id.

    Examples:
        diffsplit info cat.safetensors
        diffsplit info cats-64
    """
    path = Path(name)
    facts = _file(path) if path.is_file() else load_prior(name).describe()
    Console().print(table_of(name, facts))


def _file(path: Path) -> dict[str, object]:
    facts = read_facts(path)
    batch, *measurements = facts["shape"]
    return {
        "kind": f"measurements, format version {facts['version']}",
        "images": batch,
        "image shape": " × ".join(map(str, facts["image_shape"])),
        "measurements per image": " × ".join(map(str, measurements)),
        "bits per measurement": facts["bits"],
        "operator": facts["operator"],
        "channel": facts["channel"],
        "added by its writer": facts["facts"],
        "bytes of measurements": facts["payload_bytes"],
        "bytes of the file": facts["file_bytes"],
    }


def table_of(title: str, values: dict[str, Any]) -> Table:
    """Facts as two columns."""
    table = Table(
        title=printable(title), show_header=False, title_justify="left", box=None, padding=(0, 2)
    )
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in values.items():
        table.add_row(printable(key.replace("_", " ")), printable(_text(value)))
    return table


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(v) for v in value)
    return f"{value:,}" if type(value) is int else str(value)


def solvers() -> None:
    """List the solvers: the name for --solver, what each is, needs, accepts and costs.

    Examples:
        diffsplit solvers
    """
    table = Table("solver", "what it is", "prior", "accepts", "network evaluations")
    for name, kind in SOLVERS.items():
        needed = kind().requires
        prior = "–" if needed is None else needed.kind
        facts = name, _summary(kind), prior, kind.accepts, kind.cost
        table.add_row(*map(printable, facts))
    Console().print(table)


def _summary(kind: type[Solver]) -> str:
    """The first sentence of the docstring, without its quotes."""
    paragraph = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z])", paragraph)[0].replace("`", "")
