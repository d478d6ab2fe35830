"""What the commands share: names of things, checks of outputs, tables and progress."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from diffsplit.errors import InputError

if TYPE_CHECKING:
    import torch

    from diffsplit.operators.base import LinearOperator
    from diffsplit.solvers.recovery import Callback, Step

__all__ = [
    "Device",
    "OperatorKind",
    "build_operator",
    "check_outputs",
    "device_named",
    "examples",
    "generator",
    "key_value_table",
    "printable",
    "progress",
    "prose",
]

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class OperatorKind(str, Enum):
    """Operators that the command line can build."""

    gaussian = "gaussian"
    hadamard = "hadamard"
    dct = "dct"
    mask = "mask"


class Device(str, Enum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


def prose(command: Callable[..., object]) -> str:
    """The docstring of a command, each paragraph on one line, for the terminal to wrap."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def examples(*lines: str) -> str:
    """An epilog with one command a line."""
    return "\n\n".join(("[bold]Examples[/bold]", *lines))


def check_outputs(
    outputs: Sequence[tuple[Path, Sequence[str]]], inputs: Sequence[Path], force: bool
) -> None:
    """Refuse, before any work, an output that could not be written or would destroy something.

    Args:
        outputs: each path with the suffixes that it may have; none means any but a picture's.
        inputs: files that are read.
        force: existing files may be replaced, but never a file that is read.

    Raises:
        InputError: see above.
    """
    seen = {path.resolve() for path in inputs}
    for path, suffixes in outputs:
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


def device_named(device: Device) -> str:
    """The torch name of a device.

    Raises:
        InputError: a GPU is asked for and there is none.
    """
    import torch

    if device is Device.auto:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device is Device.cuda and not torch.cuda.is_available():
        raise InputError("no CUDA device is available; use --device cpu or auto.")
    return str(device.value)


def generator(seed: int, use: str) -> torch.Generator:
    """A generator on the CPU, so that every device gets the same numbers.

    Args:
        seed: from the command line.
        use: what for: two uses of one seed, and the operator's, get unrelated numbers.
    """
    from diffsplit.noise import seeded

    return seeded(seed, f"diffsplit {use}")


def build_operator(
    kind: OperatorKind, shape: tuple[int, int, int], rows: int, fraction: float, seed: int
) -> LinearOperator:
    """An operator on images of ``shape``; a mask uses ``fraction``, the others ``rows``."""
    from diffsplit.operators import GaussianMatrix, PixelMask, RandomizedTransform

    if kind is OperatorKind.mask:
        return PixelMask(shape, fraction=fraction, seed=seed)
    if kind is OperatorKind.gaussian:
        return GaussianMatrix(shape, rows=rows, seed=seed)
    transform = "dct" if kind is OperatorKind.dct else "hadamard"
    return RandomizedTransform(shape, rows=rows, seed=seed, transform=transform)


def key_value_table(title: str, values: dict[str, Any]) -> Table:
    """Facts as two columns."""
    table = Table(
        title=printable(title), show_header=False, title_justify="left", box=None, padding=(0, 2)
    )
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in values.items():
        table.add_row(printable(key.replace("_", " ")), printable(_text(value)))
    return table


def printable(text: str) -> str:
    """Text from a file, without control characters and markup that a terminal would obey."""
    return escape("".join(c if c.isprintable() else "�" for c in text))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_text(v) for v in value)
    return f"{value:,}" if type(value) is int else str(value)


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
