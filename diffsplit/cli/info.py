"""``diffsplit info`` and ``diffsplit solvers``: what a file, a prior or an algorithm is."""

from __future__ import annotations

import inspect
import re
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from diffsplit import solvers as package
from diffsplit.cli.common import checked_name, printable
from diffsplit.io.measurements import read_facts
from diffsplit.priors import Denoiser, LatentModel, error_facts, load_prior
from diffsplit.solvers import SOLVERS, Solver
from diffsplit.solvers.description import blocks, described

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
    facts = _file(path) if path.is_file() else _prior(name)
    Console().print(table_of(name, facts))


def _prior(name: str) -> dict[str, object]:
    prior = load_prior(name)
    core = prior.latent if isinstance(prior, LatentModel) else prior
    facts = prior.describe()
    return {**facts, "error": error_facts(core)} if isinstance(core, Denoiser) else facts


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


def solvers(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", callback=checked_name(SOLVERS))
    ] = None,
) -> None:
    """List the solvers, or describe one: its formulas, sources, parameters and cost.

    Args:
        name: One of the list, to be described.

    Examples:
        diffsplit solvers
        diffsplit solvers diffep
    """
    if name is not None:
        _describe(name)
        return
    table = Table("solver", "needs", "evaluations", "accepts", box=None, padding=(0, 2, 0, 0))
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    table.columns[2].max_width = 12
    for solver, kind in SOLVERS.items():
        needed = kind().requires
        prior = "–" if needed is None else needed.kind.split()[0]
        table.add_row(*map(printable, (solver, prior, _short(kind.cost), kind.accepts)))
    Console().print(table)
    print()
    _say(
        "Needs is the kind of prior, evaluations are those of the network with the default "
        "settings. All about one solver: diffsplit solvers NAME"
    )


def _short(cost: str) -> str:
    """The number of evaluations, without remarks; a dash where there is no network."""
    number = re.split(r"[,;:] ", re.sub(r" \([^)]*\)", "", cost))[0]
    return "–" if number == Solver.cost else number


def _describe(name: str) -> None:
    """All that the docstrings of a solver say, in paragraphs as wide as the terminal."""
    facts = described(SOLVERS[name], _documented())
    prior, example = facts.needs
    needs = f"a {prior}, such as {example}" if prior else "no prior"
    _say(f"{name}: {facts.title}")
    for text in (facts.text, facts.algorithm):
        _print_blocks(text)
    _heading("Needs, accepts, costs")
    for words in (f"needs    {needs}", f"accepts  {facts.accepts}", f"costs    {facts.cost}"):
        _say(words, "    ", hanging=9)
    if facts.parameters:
        _heading("Parameters")
    for parameter in facts.parameters:
        default = f" = {parameter.default}" if parameter.default else ""
        _say(f"{parameter.name}{default}", "    ")
        _say(parameter.meaning, "        ")
    if facts.raises:
        _heading("Raises")
    for error, reason in facts.raises:
        _say(f"{error}: {reason}", "    ")


def _documented() -> list[type[Solver]]:
    """All solvers that the package shows, with or without a name on the command line."""
    known = [kind for kind in vars(package).values() if inspect.isclass(kind)]
    return [kind for kind in known if issubclass(kind, Solver)]


def _print_blocks(text: str) -> None:
    for kind, block in blocks(text):
        if kind != "item":
            print()
        if kind == "formula":
            print(textwrap.indent(block, "    "))
        else:
            _say(f"- {block}" if kind == "item" else block, hanging=2 if kind == "item" else 0)


def _heading(words: str) -> None:
    print(f"\n{words}")


def _say(words: str, indent: str = "", hanging: int = 0) -> None:
    """Words of a docstring, wrapped to the terminal, without the quotes of code."""
    if words:
        print(
            textwrap.fill(
                words.replace("`", ""),
                Console().width,
                initial_indent=indent,
                subsequent_indent=indent + " " * hanging,
                break_on_hyphens=False,
                break_long_words=False,
            )
        )
