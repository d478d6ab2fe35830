"""``diffsplit info``: what a measurement file or a prior is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from diffsplit.cli.common import key_value_table
from diffsplit.io.measurements import read_facts
from diffsplit.priors import load_prior

__all__ = ["info"]


def info(
    name: Annotated[
        str,
        typer.Argument(
            metavar="FILE_OR_PRIOR",
            help="A measurement file, the folder of a prior, a bundled prior's name or a hub id.",
        ),
    ],
) -> None:
    """Describe a measurement file or a prior."""
    path = Path(name)
    facts = _file(path) if path.is_file() else load_prior(name).describe()
    Console().print(key_value_table(name, facts))


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
