"""The commands, put together."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any

import typer

from diffsplit import __version__
from diffsplit.cli.bench import bench, compare
from diffsplit.cli.calibrate import calibrate
from diffsplit.cli.demo import demo
from diffsplit.cli.info import info, solvers
from diffsplit.cli.measure import measure
from diffsplit.cli.priors import list_, pull, show
from diffsplit.cli.recover import recover
from diffsplit.cli.results import report
from diffsplit.cli.train import distill, train

__all__ = ["COMMANDS", "PRIORS", "app"]

app = typer.Typer(
    name="diffsplit",
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _described(command: Callable[..., None]) -> dict[str, Any]:
    """Help and epilog from the docstring of a command; its ``Args`` become help of the options."""
    text, *sections = re.split(r"\n\n(Args|Examples):\n", inspect.getdoc(command) or "")
    parts = {"Args": "", "Examples": "", **dict(zip(sections[::2], sections[1::2], strict=True))}
    command.__annotations__ = inspect.get_annotations(command, eval_str=True)
    for name, words in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", parts["Args"], re.MULTILINE):
        command.__annotations__[name].__metadata__[0].help = " ".join(words.split())
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    examples = ["[bold]Examples[/bold]", *map(str.strip, parts["Examples"].splitlines())]
    return {"help": "\n\n".join(paragraphs), "epilog": "\n\n".join(examples)}


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"diffsplit {__version__}")
        raise typer.Exit


def root(
    ctx: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version)
    ] = False,
    _debug: Annotated[bool, typer.Option("--debug")] = False,
) -> None:
    """Recover images from one bit per measurement, or from blurred, noisy, small or incomplete
    ones, with a diffusion model as the prior.

    Start with [bold]diffsplit demo[/bold]: it measures eight cats, recovers them, and draws what
    came back. [bold]diffsplit COMMAND --help[/bold] explains a command and shows examples.

    Args:
        _version: Print the version and stop.
        _debug: Show the whole traceback when something fails.

    Examples:
        diffsplit demo
        diffsplit measure cat.jpg -o cat.safetensors
        diffsplit recover cat.safetensors -o recovered.png
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


COMMANDS = (
    demo,
    measure,
    recover,
    compare,
    bench,
    report,
    solvers,
    info,
    train,
    distill,
    calibrate,
)

app.callback(invoke_without_command=True, **_described(root))(root)
for command in COMMANDS:
    app.command(**_described(command))(command)


def priors(ctx: typer.Context) -> None:
    """List the priors that there are, show one, or fetch one.

    Examples:
        diffsplit priors list
        diffsplit priors show ffhq-256-adm
        diffsplit priors pull celebahq-256-ddpm
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


PRIORS: dict[str, Callable[..., None]] = {"list": list_, "show": show, "pull": pull}

group = typer.Typer(rich_markup_mode="rich")
group.callback(invoke_without_command=True, **_described(priors))(priors)
app.add_typer(group, name="priors")
for name, action in PRIORS.items():
    group.command(name, **_described(action))(action)
