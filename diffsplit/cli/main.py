"""The commands, put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from diffsplit import __version__
from diffsplit.cli.common import documented, examples, prose
from diffsplit.cli.demo import demo
from diffsplit.cli.info import info, solvers
from diffsplit.cli.measure import measure
from diffsplit.cli.recover import recover
from diffsplit.cli.train import distill, train

__all__ = ["COMMANDS", "app"]

app = typer.Typer(
    name="diffsplit",
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"diffsplit {__version__}")
        raise typer.Exit


def root(
    ctx: typer.Context,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Print the version and stop."
        ),
    ] = False,
    _debug: Annotated[
        bool, typer.Option("--debug", help="Show the whole traceback when something fails.")
    ] = False,
) -> None:
    """Recover images from one bit per measurement, or from blurred, noisy, small or incomplete
    ones, with a diffusion model as the prior.

    Start with [bold]diffsplit demo[/bold]: it measures eight cats, recovers them, and draws what
    came back. [bold]diffsplit COMMAND --help[/bold] explains a command and shows examples.
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


app.callback(
    invoke_without_command=True,
    help=prose(root),
    epilog=examples(
        "diffsplit demo",
        "diffsplit measure cat.jpg -o cat.safetensors",
        "diffsplit recover cat.safetensors -o recovered.png",
    ),
)(root)
COMMANDS: dict[Callable[..., None], tuple[str, ...]] = {
    demo: (
        "diffsplit demo",
        "diffsplit demo --rows 4096 --operator hadamard -o cats.png",
        "diffsplit demo --task super-resolution",
    ),
    measure: (
        "diffsplit measure cat.jpg -o cat.safetensors",
        "diffsplit measure cat.jpg -o cat.safetensors --rows 4096 --operator hadamard",
        "diffsplit measure cat.jpg -o cat.safetensors --task onebit-inpainting --fraction 0.3",
        "diffsplit measure cat.jpg -o cat.safetensors --task quantized --bits 2 --ratio 1/8",
        "diffsplit measure cat.jpg -o cat.safetensors --task motion-deblur --sigma 0.05",
    ),
    recover: (
        "diffsplit recover cat.safetensors -o recovered.png",
        "diffsplit recover cat.safetensors -o recovered.png --truth cat.jpg --figure compare.png",
        "diffsplit recover cat.safetensors -o recovered.png --samples 8 --figure samples.png",
        "diffsplit recover cat.safetensors -o recovered.png --solver diff-onebit --trace steps.csv",
        "diffsplit recover cat.safetensors -o recovered.png --solver dcdp --purifier ddim",
        "diffsplit recover cat.safetensors -o recovered.png --solver dcdp-latent",
    ),
    solvers: ("diffsplit solvers",),
    info: ("diffsplit info cat.safetensors", "diffsplit info cats-64"),
    train: (
        "diffsplit train cats.zip --out my-cats --size 64 --images 400000",
        "diffsplit train cats.zip --out my-cats --images 800000 --resume",
        "diffsplit train dogs.zip --out my-dogs --init cats-64 --images 100000",
        "diffsplit train cats.zip --out my-latent-cats --latent",
    ),
    distill: (
        "diffsplit distill cats-64 --out my-fast-cats --data cats.zip",
        "diffsplit distill my-cats --out my-fast-cats --images 200000",
    ),
}
"""Each command with its examples."""

for command, lines in COMMANDS.items():
    app.command(help=prose(command), epilog=examples(*lines))(documented(command))
