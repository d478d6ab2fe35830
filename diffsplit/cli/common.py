"""What the commands share: names of things, checks of outputs, tables and progress."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from diffsplit.devices import checked_device
from diffsplit.errors import InputError
from diffsplit.io.images import IMAGE_SUFFIXES
from diffsplit.noise import seeded
from diffsplit.solvers.recovery import Callback, Step

__all__ = [
    "PICTURES",
    "Device",
    "Half",
    "Seed",
    "check_outputs",
    "checked_name",
    "device_named",
    "generator",
    "one_of",
    "precision",
    "printable",
    "progress",
    "say",
]

PICTURES = tuple(sorted(IMAGE_SUFFIXES))

Device = Annotated[
    str, typer.Option(metavar="NAME", help="Where to compute: auto, cpu, cuda or cuda:1.")
]
Half = Annotated[
    bool,
    typer.Option(
        "--half",
        help="Let the network compute in bfloat16: faster, and as good at 256×256. Of a latent "
        "model, that of its denoiser.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of all randomness.")]


def checked_name(names: Iterable[str]) -> Callable[[str | None], str | None]:
    """A check that refuses a value that is not among the names at that time."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in names:
            known = ", ".join(map(repr, names))
            raise typer.BadParameter(f"{value!r} is not one of {known}.")
        return value

    return check


def one_of(names: Iterable[str], help: str | None = None) -> Any:
    """An option that refuses a value that is not among the names at that time."""
    return typer.Option(metavar="NAME", callback=checked_name(names), help=help)


def check_outputs(
    outputs: Iterable[tuple[Path | None, Sequence[str]]], inputs: Iterable[Path | None], force: bool
) -> None:
    """Refuse, before any work, an output that could not be written or would destroy something.

    Args:
        outputs: each path with the suffixes that it may have; none means any but a picture's. A
            path that is None is not wanted.
        inputs: files that are read, or None.
        force: existing files may be replaced, but never a file that is read.
    """
    seen = {path.resolve() for path in inputs if path}
    for path, suffixes in ((path, suffixes) for path, suffixes in outputs if path):
        suffix = path.suffix.lower()
        if suffixes and suffix not in suffixes:
            raise InputError(f"{path}: name this output with the ending {' or '.join(suffixes)}.")
        if not suffixes and suffix in PICTURES:
            raise InputError(
                f"{path}: measurements are no picture; end their name in .safetensors."
            )
        if path.resolve() in seen:
            raise InputError(f"{path}: given twice; choose another name for the output.")
        seen.add(path.resolve())
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give the name of a file.")
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: exists and is no plain file; choose another name.")
        if not path.parent.is_dir():
            raise InputError(f"{path.parent}: no such folder; create it first.")
        if not os.access(path.parent, os.W_OK):
            raise InputError(f"{path.parent}: not writable; choose another folder.")
        if path.exists() and not force:
            raise InputError(f"{path}: exists; add --force to replace it or choose another name.")


def precision(half: bool) -> torch.dtype | None:
    """What --half stands for."""
    return torch.bfloat16 if half else None


def device_named(name: str) -> torch.device:
    """The device of that name, or with "auto" a GPU if there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return checked_device(name)


def generator(seed: int, use: str) -> torch.Generator:
    """A generator on the CPU, so that every device gets the same numbers.

    Two uses of one seed, and the operator's, get unrelated numbers.
    """
    return seeded(seed, f"diffsplit {use}")


def printable(text: str) -> str:
    """Text from a file, without control characters and markup that a terminal would obey."""
    return escape("".join(c if c.isprintable() else "�" for c in text))


def say(message: str) -> None:
    """One line on stderr, without characters that a terminal would obey."""
    line = " ".join(message.split())
    print("".join(c if c.isprintable() else "�" for c in line), file=sys.stderr)


@contextmanager
def progress(label: str) -> Iterator[Callback]:
    """A bar on stderr, shown on terminals only; yields the callback for a solver."""
    console = Console(stderr=True)
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bar:
        task = bar.add_task(label, total=None)

        def advance(step: Step) -> None:
            bar.update(task, completed=step.index + 1, total=step.total)

        yield advance
